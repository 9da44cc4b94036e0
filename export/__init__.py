"""Keras Vision Transformers to verified TFLite files: `export_tflite`, `verify`, `inspect`, `debug`."""

from .answers import Answer
from .debug import DebugReport, OpError, advice, debug
from .flatbuffer import InvalidModelFile
from .inspect import FileReport, inspect
from .interpreter import Runner
from .pipeline import export_tflite
from .report import ExportReport
from .search import Candidate
from .targets import UnsupportedByTarget
from .verify import TOLERANCES, ParityError, ParityReport, Tolerance, tolerance_of, verify, wanted_of

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
