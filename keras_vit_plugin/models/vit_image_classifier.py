"""A Vision Transformer with its classification head, on KerasHub's `ImageClassifier` base."""

import keras
import keras_hub

from keras_vit_plugin.layers import MeanPooling, TokenPooling
from keras_vit_plugin.models.vit_backbone import ViTBackbone
from keras_vit_plugin.models.vit_preprocessing import ViTImageClassifierPreprocessor

POOLINGS = ("token", "mean")


@keras.saving.register_keras_serializable("keras_vit_plugin")
class ViTImageClassifier(keras_hub.models.ImageClassifier):
    """A `ViTBackbone`, pooling and a dense head; two heads, averaged, where there is a distillation token.

    Args:
        backbone: a `ViTBackbone`.
        num_classes: number of logits.
        preprocessor: `ViTImageClassifierPreprocessor` or None. `fit` and `predict` run it on raw images; the export
            reads resize, scale and offset from it.
        pooling: `"token"` (class token) or `"mean"` (patch tokens).
        activation: of the head; None gives logits.
        dropout: rate before the head while training.
        head_dtype: dtype or policy of the head; None is the backbone's.

    Call: normalized images, float `(B, H, W, C)` -> `(B, num_classes)`.

    Raises:
        ValueError: `pooling` is unknown, or `"token"` on a backbone without a class token.
    """

    backbone_cls = ViTBackbone
    preprocessor_cls = ViTImageClassifierPreprocessor

    def __init__(
        self,
        backbone,
        num_classes,
        preprocessor=None,
        pooling="token",
        activation=None,
        dropout=0.0,
        head_dtype=None,
        **kwargs,
    ):
        if pooling not in POOLINGS:
            raise ValueError(f"`pooling` must be one of {POOLINGS}, got pooling={pooling!r}.")
        if pooling == "token" and not backbone.use_class_token:
            raise ValueError("`pooling='token'` needs a backbone with a class token; this one has none. Use 'mean'.")
        dtype = backbone.dtype_policy
        head_dtype = dtype if head_dtype is None else keras.dtype_policies.get(head_dtype)
        distilled = pooling == "token" and backbone.use_distillation_token

        # === Layers ===
        self.backbone = backbone
        self.preprocessor = preprocessor
        if pooling == "token":
            self.pooler = TokenPooling(0, dtype=dtype, name="pooler")
        else:
            self.pooler = MeanPooling(backbone.num_prefix_tokens, dtype=dtype, name="pooler")
        self.output_dropout = keras.layers.Dropout(dropout, dtype=dtype, name="output_dropout")
        self.output_dense = keras.layers.Dense(num_classes, activation, dtype=head_dtype, name="predictions")

        # === Functional model ===
        images = backbone.input
        tokens = backbone(images)
        outputs = self.output_dense(self.output_dropout(self.pooler(tokens)))
        if distilled:
            self.distillation_pooler = TokenPooling(1, dtype=dtype, name="distillation_pooler")
            self.distillation_dense = keras.layers.Dense(
                num_classes, activation, dtype=head_dtype, name="distillation_predictions"
            )
            x = self.output_dropout(self.distillation_pooler(tokens))
            outputs = keras.layers.Average(dtype=dtype, name="average")([outputs, self.distillation_dense(x)])
        # `ImageClassifier.__init__` would build its own head.
        keras_hub.models.Task.__init__(self, inputs=images, outputs=outputs, **kwargs)

        # === Config ===
        self.num_classes = num_classes
        self.pooling = pooling
        self.activation = activation
        self.dropout = dropout

    def get_config(self):
        # The parent leaves out `head_dtype`, without which a quantized head would not load.
        return {**super().get_config(), "head_dtype": keras.dtype_policies.serialize(self.output_dense.dtype_policy)}

    @property
    def heads(self):
        """The dense heads whose outputs are averaged: one, or two in a distilled model."""
        distillation = getattr(self, "distillation_dense", None)
        return [self.output_dense] if distillation is None else [self.output_dense, distillation]

    @property
    def image_shape(self):
        return self.backbone.image_shape

    def compile(self, optimizer="auto", loss="auto", *, metrics="auto", **kwargs):
        """`ImageClassifier.compile`: Adam at 5e-5, sparse cross-entropy and accuracy unless told otherwise."""
        self._compiled_by_default = (optimizer, loss, metrics) == ("auto", "auto", "auto") and not kwargs
        super().compile(optimizer, loss, metrics=metrics, **kwargs)

    def get_compile_config(self):
        # The default needs no saving; saving its unused optimizer makes every load print a warning.
        if self._compiled_by_default and not self.optimizer.built:
            return {}
        return super().get_compile_config()

    def compile_from_config(self, config):
        # Keras skips this step, with a warning, for classes that override `compile`.
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)
