"""The quantization modes, one file each."""
