"""A `.tflite`: its bytes, its object tree, and what runs it. It knows no model and no mode."""
