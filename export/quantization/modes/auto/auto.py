"""`auto`: the cheapest of the other modes that keeps what is asked for, shown on held-out images."""

from dataclasses import dataclass, replace

from ....tflite.capabilities import Capability
from ...mode import Mode, check_choice, check_cpu
from ...tolerance import Tolerance
from ..dynamic import Dynamic
from ..float16 import Float16
from ..float32 import Float32
from ..int4 import Int4
from ..int8 import Int8
from .constraints import Constraints

ORDERS = ("speed", "size")
# Signal-to-noise ratios in dB, from the most accurate to the cheapest: the steps between the noises that operators
# may add up to.
INT8_SNR_DB = {"accuracy": (36.0, 33.0, 31.0, 29.5, 28.0, 26.0), "speed": (24.0, 21.0, 18.0)}
# Shares of the weights that may have 8 bits, from the most accurate to the cheapest.
INT4_EXTRA_SIZE = (0.5, 0.3, 0.165)
ANY_NOISE_DB = 300.0  # a signal-to-noise ratio that no file has: the size alone decides
MOST_CANDIDATES = 2 + len(INT8_SNR_DB["accuracy"]) + max(len(INT8_SNR_DB["speed"]), 1 + len(INT4_EXTRA_SIZE))


@dataclass(frozen=True)
class Auto(Mode):
    """The cheapest of the other modes that keeps what is asked for.

    Args:
        min_agreement: the share of images, 0..1, that keep the model's decision, of the worst label or output; 0.99
            where nothing is asked for. It is proved on held-out calibration images, up to 1,024, with a certainty of
            90 % for the whole search; where they are too few, the report says what is proved.
        max_top1_drop: accuracy that may be lost, in points of percent; the calibration folder needs labels.
        max_size: bytes. Alone it asks for the most accurate file of that size.
        max_relative_error: root mean square error, as a share of the spread of the model's answers; 0.05 where nothing
            is asked for and an output decides nothing.
        prefer: `"speed"` or `"size"`: what is cheap.
        cpu: as for `Int8`.
    """

    min_agreement: float | None = None
    max_top1_drop: float | None = None
    max_size: int | None = None
    max_relative_error: float | None = None
    prefer: str = "speed"
    cpu: str | None = None

    name = "auto"
    summary = "the cheapest of these that keeps what is asked for"
    advice = ""
    needs = frozenset({Capability.FLOAT32, Capability.FLOAT16_WEIGHTS, Capability.INTEGERS})
    chooses = True
    tolerance = Tolerance(0.88, 8.0)  # of the least accurate mode; a chosen file must keep its own mode's

    def __post_init__(self):
        check_choice("prefer", self.prefer, ORDERS, self.name)
        check_cpu(self.cpu, self.name)
        Constraints(*self._asked)  # raises where one is out of range

    @property
    def constraints(self):
        """What the file must keep, `Constraints`."""
        return Constraints(*self._asked)

    @property
    def _asked(self):
        return self.min_agreement, self.max_top1_drop, self.max_size, self.max_relative_error

    @property
    def baseline(self):
        """The `Mode` that is as the model itself."""
        return Float32()

    def candidates(self, has):
        """The modes that are tried, the most accurate first, without `baseline`.

        In each the steps from the most accurate to the cheapest follow from what each operator or layer was measured
        to cost.

        Args:
            has: the `Capability`s of the target.
        """
        if Capability.FAST_INTEGER_DENSE not in has:  # then int8 is the same file as dynamic
            return [Float16(), Dynamic()]
        accurate, quick = (
            [Int8(prefer=prefer, snr_db=snr_db, cpu=self.cpu) for snr_db in steps]
            for prefer, steps in INT8_SNR_DB.items()
        )
        if self.prefer == "speed":
            return [Float16(), *accurate, *quick]
        small = [Int4(snr_db=ANY_NOISE_DB, extra_size=share) for share in INT4_EXTRA_SIZE]
        # dynamic is smaller than int8 and more accurate than its last step
        return [Float16(), *accurate[:-1], Dynamic(), accurate[-1], *small]


def without_budget(mode):
    """What `prepare` measures for, the same for modes that differ in their budget alone."""
    return replace(mode, **dict.fromkeys(mode.budget, None)) if mode.budget else mode
