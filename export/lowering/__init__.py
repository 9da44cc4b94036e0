"""From a spec, or any Keras model, to a float32 `.tflite`."""
