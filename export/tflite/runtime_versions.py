"""Which release of TensorFlow Lite first had which version of an op."""

from .op_versions import FIRST_RUNTIME


def min_runtime(op_versions):
    """The oldest TensorFlow Lite release whose kernels have all these op versions, or None where an op is unknown."""
    firsts = [first_runtime(op, version) for op, version in op_versions.items()]
    return None if None in firsts else max(firsts, key=number, default=None)


def first_runtime(op, version):
    """The release that first had an op's version, or None where that is unknown."""
    runtimes = FIRST_RUNTIME.get(op, ())
    known = 0 < version <= len(runtimes) and runtimes[version - 1] != "-"
    return runtimes[version - 1] if known else None


def number(version):
    """A version as a tuple of integers, which compare as versions do."""
    return tuple(map(int, version.split(".")))
