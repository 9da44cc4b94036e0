"""The runtimes that files are made for: a file each, and the table of them."""

from .gpu import GPU
from .litert import LITERT
from .mediapipe import MEDIAPIPE
from .tflite_runtime import TFLITE_RUNTIME

TARGETS = {target.name: target for target in (LITERT, TFLITE_RUNTIME, GPU, MEDIAPIPE)}
