"""What the quantization modes are made of: calibration, ranges, rounding, sensitivities."""
