"""The float `.tflite` that a mode is quantized from, of one Keras model."""

import numpy as np

from keras_vit_plugin.images.gather import spread
from keras_vit_plugin.images.synthetic import synthetic_images
from keras_vit_plugin.progress import stage

from .lowering.generic import lower_keras
from .lowering.vision_transformer import lower
from .rewrites import EXTRA_PASSES, apply_passes
from .spec.errors import UnsupportedTopology
from .spec.model import ViTSpec
from .spec.readers.own_models import from_keras
from .tflite.graph_form import USUAL_FORM, Extremes
from .tflite.surgery import add_missing_biases

EXTREMES_IMAGES = 8
OUTPUTS = {"embedding": ViTSpec.embedding, "attention": ViTSpec.attention_map}


class FloatFiles:
    """Reads and rewrites a Keras model once, and lowers it as each mode wants attention and norms written.

    Args:
        model: an `ImageModel`.
        calibration: raw pixels `(N, H, W, C)`, or None.
        target: the `Target` that they are for.
        batch_size, input_dtype: as for `lower`.
        outputs: of `OUTPUTS`, those that the files give besides the logits.
        validating: as for `apply_passes`.

    Attributes:
        road: `"spec"`, or `"generic"` where the model is lowered as Keras emits it.
        road_reason: why it is.
        changes: `{pass: what it changed}`, in words, empty where it changed nothing.
        reasons: `{pass: why it changed nothing}`, in words, empty where it changed something.
    """

    def __init__(self, model, calibration, target, batch_size=1, input_dtype="uint8", outputs=(), validating=False):
        self.target = target
        self.road, self.road_reason, outcomes = "spec", "", {}
        self._calibration, self._form = calibration, (batch_size, input_dtype)
        self._outputs, self._original = outputs, None
        self._keras = model
        try:
            original = from_keras(model.model, model.scale, model.offset, "embedding" in outputs)
            with stage("Rewriting the graph"):
                self._spec, outcomes = apply_passes(original, calibration, validating=validating)
            if target.rewrites:
                images = synthetic_images(model.image_shape) if calibration is None else calibration
                wanted = [each for each in EXTRA_PASSES if each.__name__ in target.rewrites]
                self._spec, more = apply_passes(self._spec, spread(images, EXTREMES_IMAGES), wanted, validating)
                outcomes |= more
            self._original = original if outputs else None
        except UnsupportedTopology as reason:
            if outputs:
                raise ValueError(f"`outputs` are for this package's classifiers: {reason}.") from reason
            self.road, self.road_reason, self._spec = "generic", str(reason), None
        self.changes = {name: outcome.words if outcome else "" for name, outcome in outcomes.items()}
        self.reasons = {name: "" if outcome else str(outcome) for name, outcome in outcomes.items()}

    def lowered(self, mode):
        """The float file, as bytes, that a `Mode` quantizes."""
        if self.road == "generic":
            content = lower_keras(self._keras, *self._form)
        else:
            form = mode.form(self._extremes, self.target.has).filled(self.target.form).filled(USUAL_FORM)
            content = lower(self._spec, *self._form, form, attention_map="attention" in self._outputs)
        return add_missing_biases(content)

    def _extremes(self):
        score, mean_square = self._spec.astype(np.float32).extremes(spread(self._calibration, EXTREMES_IMAGES))
        return Extremes(score, mean_square, max((norm.epsilon for norm in self._spec.norms()), default=0.0))

    def streams(self, images):
        """As `ViTSpec.streams`; nothing on the generic road."""
        return [] if self.road == "generic" else self._spec.streams(images)

    def expected(self, images):
        """`{name: values}` of the outputs besides the logits, by the model as it was read, in float64."""
        return {name: OUTPUTS[name](self._original, images) for name in self._outputs}

    def forget(self):
        """Frees the weights in float64, as large as all that follows; nothing can be lowered any more."""
        self._spec = self._original = None
