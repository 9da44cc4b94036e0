"""The float `.tflite` that a mode is quantized from, of one Keras model."""

from keras_vit_plugin.images.gather import spread
from keras_vit_plugin.images.synthetic import synthetic_images
from keras_vit_plugin.progress import stage

from .lowering.lower import LARGEST_UNIT_SCORE, lower, lower_keras
from .quantization.quantize import INTEGER_ONLY
from .rewrites import FLOAT16_PASSES, apply_passes
from .spec.errors import UnsupportedTopology
from .spec.model import ViTSpec
from .spec.readers.own_models import from_keras
from .targets.target import TARGETS
from .tflite.surgery import add_missing_biases

EXTREMES_IMAGES = 8
OUTPUTS = {"embedding": ViTSpec.embedding, "attention": ViTSpec.attention_map}
NEGLIGIBLE = 1e-5  # of what an epsilon is added to: about float32's own rounding


class FloatFiles:
    """Reads and rewrites a Keras model once, and lowers it as each mode wants attention and norms written.

    Args:
        model: an `ImageModel`.
        calibration: raw pixels `(N, H, W, C)`, or None.
        batch_size, input_dtype: as for `lower`.
        target: a key of `TARGETS`.
        outputs: of `OUTPUTS`, those that the files give besides the logits.
        cpu: a key of `op_costs.COSTS`; None is the target's.

    Attributes:
        target: its `Target`.
        cpu: the CPUs that `int8` is made for.
        road: `"spec"`, or `"generic"` where the model is lowered as Keras emits it.
        road_reason: why it is.
        changes: `{pass: what it changed}`, in words, empty where it changed nothing.
        reasons: `{pass: why it changed nothing}`, in words, empty where it changed something.
    """

    def __init__(self, model, calibration, batch_size=1, input_dtype="uint8", target="litert", outputs=(), cpu=None):
        self.target = TARGETS[target]
        self.cpu = self.target.cpu if cpu is None else cpu
        self.road, self.road_reason, outcomes = "spec", "", {}
        self._calibration, self._form = calibration, (batch_size, input_dtype)
        self._outputs, self._original = outputs, None
        self._keras = model
        try:
            original = from_keras(model.model, model.scale, model.offset, "embedding" in outputs)
            with stage("Rewriting the graph"):
                self._spec, outcomes = apply_passes(original, calibration)
            if self.target.gpu:
                images = synthetic_images(model.image_shape) if calibration is None else calibration
                self._spec, more = apply_passes(self._spec, spread(images, EXTREMES_IMAGES), FLOAT16_PASSES)
                outcomes |= more
            self._original = original if outputs else None
        except UnsupportedTopology as reason:
            if outputs:
                raise ValueError(f"`outputs` are for this package's classifiers: {reason}.") from reason
            self.road, self.road_reason, self._spec = "generic", str(reason), None
        self.changes = {name: outcome.words if outcome else "" for name, outcome in outcomes.items()}
        self.reasons = {name: "" if outcome else str(outcome) for name, outcome in outcomes.items()}

    def lowered(self, mode, prefer="speed"):
        """The float file, as bytes, that a mode is quantized from."""
        if self.road == "generic":
            content = lower_keras(self._keras, *self._form)
        else:
            content = lower(self._spec, *self._form, **self._lowering(mode, prefer))
        return add_missing_biases(content)

    def streams(self, images):
        """As `ViTSpec.streams`; nothing on the generic road."""
        return [] if self.road == "generic" else self._spec.streams(images)

    def expected(self, images):
        """`{name: values}` of the outputs besides the logits, by the model as it was read, in float64."""
        return {name: OUTPUTS[name](self._original, images) for name in self._outputs}

    def forget(self):
        """Frees the weights in float64, as large as all that follows; nothing can be lowered any more."""
        self._spec = self._original = None

    def _lowering(self, mode, prefer):
        """How `lower` is to write attention and norms for a mode."""
        form = {
            "gelu": "op" if mode in INTEGER_ONLY else self.target.gelu,
            "for_gpu": self.target.gpu,
            "attention_map": "attention" in self._outputs,
        }
        if mode not in ("int8", "int8-full") or (mode == "int8" and not self.target.integer_dense):
            return form
        largest_score, least_square = self._spec.extremes(spread(self._calibration, EXTREMES_IMAGES))
        epsilon = max((norm.epsilon for norm in self._spec.norms()), default=0.0)
        weights = "softmax"
        if mode == "int8-full":
            weights = "integer_unit"
        elif prefer == "speed" and largest_score <= LARGEST_UNIT_SCORE:
            weights = "unit"
        norm_epsilon = epsilon > NEGLIGIBLE * least_square
        return {"attention_weights": weights, "norm_epsilon": norm_epsilon, **form}
