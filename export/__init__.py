"""Keras Vision Transformers to verified TFLite files: `export_tflite`, `verify`, `inspect`."""

from .flatbuffer import InvalidModelFile
from .inspect import FileReport, inspect
from .interpreter import Runner
from .pipeline import export_tflite
from .report import ExportReport
from .targets import UnsupportedByTarget
from .verify import TOLERANCES, ParityError, ParityReport, Tolerance, verify

__all__ = [
    "ExportReport",
    "FileReport",
    "InvalidModelFile",
    "ParityError",
    "ParityReport",
    "Runner",
    "TOLERANCES",
    "Tolerance",
    "UnsupportedByTarget",
    "export_tflite",
    "inspect",
    "verify",
]
