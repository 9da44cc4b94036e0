"""From a float `.tflite` to a quantized one."""
