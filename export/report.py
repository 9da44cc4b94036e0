"""What an export did and how good the result is."""

from dataclasses import asdict, dataclass

from .inspect import FileReport
from .verify import ParityReport


@dataclass(frozen=True)
class ExportReport:
    """The result of `export_tflite`.

    Attributes:
        path: the file; None where none was written.
        mode, target: as asked for.
        road: `"spec"` (rewritten and lowered by this package) or `"generic"` (the graph as Keras emits it).
        road_reason: why the generic road was taken; empty on the spec road.
        rewrites: `{pass: whether it applied}`.
        size_bytes: size of the file.
        parity: the file against the Keras model.
        verified_on: `"verification"`, `"calibration"` or `"synthetic"` images.
        input: what the file takes, and how a photo is resized to it.
        file: what the file contains.
        seconds: how long the export took.
    """

    path: str | None
    mode: str
    target: str
    road: str
    road_reason: str
    rewrites: dict[str, bool]
    size_bytes: int
    parity: ParityReport
    verified_on: str
    input: str
    file: FileReport
    seconds: float

    def to_dict(self):
        return asdict(self)
