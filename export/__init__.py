"""Keras Vision Transformers to verified TFLite files: `export_tflite`, `verify`, `inspect`, `debug`."""

from keras_vit_plugin.image_model.answers import Answer

from .pipeline import export_tflite
from .quantization.mode import Mode
from .quantization.modes import MODES, Auto, Dynamic, Float16, Float32, Int4, Int8, Int8Full, Int16x8, mode_of
from .quantization.modes.auto.search import Candidate
from .quantization.tolerance import Tolerance
from .report import ExportReport
from .targets import TARGETS
from .tflite.errors import InvalidModelFile, UnsupportedByTarget
from .tflite.inspect import FileReport, inspect
from .tflite.runner import Runner
from .verification.debug import DebugReport, debug
from .verification.named import made_like
from .verification.op_error import OpError, advice
from .verification.parity import ParityError, ParityReport
from .verification.verify import tolerance_of, verify, wanted_of

__all__ = [
    "Answer",
    "Auto",
    "Candidate",
    "DebugReport",
    "Dynamic",
    "ExportReport",
    "FileReport",
    "Float16",
    "Float32",
    "Int4",
    "Int8",
    "Int8Full",
    "Int16x8",
    "InvalidModelFile",
    "MODES",
    "Mode",
    "OpError",
    "ParityError",
    "ParityReport",
    "Runner",
    "TARGETS",
    "Tolerance",
    "UnsupportedByTarget",
    "advice",
    "debug",
    "export_tflite",
    "inspect",
    "made_like",
    "mode_of",
    "tolerance_of",
    "verify",
    "wanted_of",
]
