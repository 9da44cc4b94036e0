"""A tensor in a file, known by shape and type before a value of it is read."""

from collections.abc import Callable
from dataclasses import dataclass

import ml_dtypes
import numpy as np

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
FLOATS = (np.dtype(np.float16), BFLOAT16, np.dtype(np.float32), np.dtype(np.float64))


@dataclass(frozen=True)
class StoredTensor:
    """
    Args:
        shape: as the file declares it.
        dtype: a NumPy dtype, or the file's own name of a type that is not read.
        read: reads the array; only while the file is open.
    """

    shape: tuple
    dtype: object
    read: Callable


def is_float(dtype):
    """Whether a type is one of `FLOATS`, in either byte order."""
    return isinstance(dtype, np.dtype) and dtype.newbyteorder("=") in FLOATS


def is_integer(dtype):
    """Whether a type is one of NumPy's integers."""
    return isinstance(dtype, np.dtype) and dtype.kind in "iu"
