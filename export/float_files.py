"""The float `.tflite` that a mode is quantized from, of one Keras model."""

from . import flatbuffer, spec
from .lower import LARGEST_UNIT_SCORE, lower, lower_keras
from .quantize import INTEGER_ONLY
from .rewrites import apply_passes
from .targets import TARGETS

EXTREMES_IMAGES = 8
NEGLIGIBLE = 1e-5  # of what an epsilon is added to: about float32's own rounding


class FloatFiles:
    """Reads and rewrites a Keras model once, and lowers it as each mode wants attention and norms written.

    Args:
        model: a Keras model.
        image_shape: `(height, width, channels)`.
        pixel_scale, pixel_offset: what turns pixels of 0..255 into its input.
        calibration: raw pixels `(N, H, W, C)`, or None.
        batch_size, input_dtype: as for `lower`.
        target: a key of `TARGETS`.

    Attributes:
        target: its `Target`.
        road: `"spec"`, or `"generic"` where the model is lowered as Keras emits it.
        road_reason: why it is.
        changes: `{pass: what it changed}`, in words.
    """

    def __init__(
        self,
        model,
        image_shape,
        pixel_scale,
        pixel_offset,
        calibration,
        batch_size=1,
        input_dtype="uint8",
        target="litert",
    ):
        self.target = TARGETS[target]
        self.road, self.road_reason, self.changes = "spec", "", {}
        self._calibration, self._form = calibration, (batch_size, input_dtype)
        self._keras = (model, image_shape, pixel_scale, pixel_offset)
        try:
            self._spec, self.changes = apply_passes(spec.from_keras(model, pixel_scale, pixel_offset), calibration)
        except spec.UnsupportedTopology as reason:
            self.road, self.road_reason, self._spec = "generic", str(reason), None

    def lowered(self, mode, prefer="speed"):
        """The float file, as bytes, that a mode is quantized from."""
        if self.road == "generic":
            content = lower_keras(*self._keras, *self._form)
        else:
            content = lower(self._spec, *self._form, **self._lowering(mode, prefer))
        return flatbuffer.add_missing_biases(content)

    def streams(self, images):
        """As `ViTSpec.streams`; nothing on the generic road."""
        return [] if self.road == "generic" else self._spec.streams(images)

    def forget(self):
        """Frees the weights in float64, as large as all that follows; nothing can be lowered any more."""
        self._spec = None

    def _lowering(self, mode, prefer):
        """How `lower` is to write attention and norms for a mode."""
        gelu_op = self.target.gelu or mode in INTEGER_ONLY
        if mode not in ("int8", "int8-full") or (mode == "int8" and not self.target.integer_dense):
            return {"gelu_op": gelu_op}
        largest_score, least_square = self._spec.extremes(self._calibration[:EXTREMES_IMAGES])
        epsilon = max(norm.epsilon for norm in self._spec.norms())
        weights = "softmax"
        if mode == "int8-full":
            weights = "integer_unit"
        elif prefer == "speed" and largest_score <= LARGEST_UNIT_SCORE:
            weights = "unit"
        norm_epsilon = epsilon > NEGLIGIBLE * least_square
        return {"attention_weights": weights, "norm_epsilon": norm_epsilon, "gelu_op": gelu_op}
