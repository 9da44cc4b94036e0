"""Reads the tables of a `.tflite` without leaving its bytes: Python's flatbuffers has no verifier."""

import functools
import importlib.util
from types import SimpleNamespace

import flatbuffers
from flatbuffers import number_types
from flatbuffers.table import Table

MOST_TABLES = 400_000  # looked at, most of them twice; a file of DeiT-tiny takes 3,300
SPARE_BYTES = 1 << 24  # that vectors and texts may hold beside
MOST_SHARED = 2  # times the size of the file: some are stored once and read several times


class _Bytes(bytes):
    """The bytes of a file, and what was read of them so far."""

    def __init__(self, _):
        self.tables = self.copied = 0

    def count_table(self):
        self.tables += 1
        if self.tables > MOST_TABLES:
            raise ValueError(f"it has more than {MOST_TABLES} tables")

    def count(self, size):
        self.copied += size
        if self.copied > MOST_SHARED * len(self) + SPARE_BYTES:
            raise ValueError("its tables share vectors that take more memory than the file")

    def check(self, start, size, what):
        if start + size > len(self):
            raise ValueError(f"a {what} at {start} ends behind the file")


class BoundedTable(Table):
    """A table of which all that is read lies in the file.

    What `Table` reads number by number is in the file, or it raises; this class adds what it takes on trust: the length
    of its own record, of vectors and of texts, and how much there is in all.
    """

    __slots__ = ("_inline",)

    def __init__(self, buf, pos):
        super().__init__(buf, pos)
        buf.count_table()
        vtable = pos - self.Get(number_types.SOffsetTFlags, pos)
        length = self.Get(number_types.VOffsetTFlags, vtable)
        self._inline = self.Get(number_types.VOffsetTFlags, vtable + 2)
        if length < 4 or length % 2 or self._inline < 4:
            raise ValueError(f"the table at {pos} has no record of its fields")
        buf.check(vtable, length, "record of fields")
        buf.check(pos, self._inline, "table")

    def Offset(self, vtableOffset):
        found = super().Offset(vtableOffset)
        if found >= self._inline:
            raise ValueError(f"a field of the table at {self.Pos} lies behind it")
        return found

    def VectorLen(self, off):
        length = super().VectorLen(off)
        self.Bytes.check(self.Vector(off), length, "vector")
        return length

    def String(self, off):
        start = self.Indirect(off)
        length = self.Get(number_types.UOffsetTFlags, start)
        self.Bytes.check(start + 4, length + 1, "text")
        if self.Bytes[start + 4 + length]:
            raise ValueError(f"the text at {start} has no end")
        self.Bytes.count(length)
        return super().String(off)

    def GetVectorAsNumpy(self, flags, off):
        found = super().GetVectorAsNumpy(flags, off)
        self.Bytes.count(found.nbytes)
        return found


def read_bounded(content):
    """The schema's object tree of a `.tflite`, as its bytes have it; data outside of its tables is not looked for.

    Raises:
        ImportError: ai-edge-litert, whose schema it is, cannot be imported.
        Exception: of any other kind: an offset or a length leads out of the bytes, or there is more than files need.
    """
    schema = _bounded_schema()
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(_Bytes(content)))


@functools.cache
def _bounded_schema():
    """A second copy of the generated schema, which reads by `BoundedTable`."""
    try:
        spec = importlib.util.find_spec("ai_edge_litert.schema_py_generated")
        if spec is None:
            raise ImportError("it has no schema_py_generated")
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "ai_edge_litert"
        reason = "is not installed" if missing else f"is installed but cannot be used: {error}"
        raise ImportError(f"ai-edge-litert {reason}. Try: pip install ai-edge-litert") from error
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.flatbuffers = SimpleNamespace(**vars(flatbuffers) | {"table": SimpleNamespace(Table=BoundedTable)})
    return module
