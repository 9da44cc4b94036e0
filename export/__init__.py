"""Keras Vision Transformers to verified TFLite files: `export_tflite`, `verify`, `inspect`, `debug`."""

from keras_vit_plugin.image_model.answers import Answer

from .pipeline import export_tflite
from .quantization.auto.search import Candidate
from .report import ExportReport
from .tflite.errors import InvalidModelFile, UnsupportedByTarget
from .tflite.inspect import FileReport, inspect
from .tflite.runner import Runner
from .verification.debug import DebugReport, OpError, advice, debug
from .verification.verify import TOLERANCES, ParityError, ParityReport, Tolerance, tolerance_of, verify, wanted_of

__all__ = [
    "Answer",
    "Candidate",
    "DebugReport",
    "OpError",
    "ExportReport",
    "FileReport",
    "InvalidModelFile",
    "ParityError",
    "ParityReport",
    "Runner",
    "TOLERANCES",
    "Tolerance",
    "UnsupportedByTarget",
    "advice",
    "debug",
    "export_tflite",
    "inspect",
    "tolerance_of",
    "verify",
    "wanted_of",
]
