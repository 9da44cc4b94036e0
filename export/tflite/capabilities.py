"""What a file needs of the runtime that runs it: the words that join quantization modes and targets."""

import enum


class Capability(enum.Enum):
    """Something that a runtime runs, and some files need."""

    FLOAT32 = "arithmetic in float32"
    FLOAT16_WEIGHTS = "weights in float16"
    INTEGERS = "weights and activations in int8"
    INT16_ACTIVATIONS = "activations in int16"
    INT4_WEIGHTS = "dense layers with weights of 4 bits"
    FAST_INTEGER_DENSE = "dense layers in int8 in its delegate"
