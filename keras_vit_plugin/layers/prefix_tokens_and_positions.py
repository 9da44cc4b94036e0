"""Class, distillation and register tokens in front of the patches, and learned position embeddings.

Class token and positions: arXiv:2010.11929. Distillation token: DeiT, arXiv:2012.12877. Register tokens:
"Vision Transformers Need Registers", arXiv:2309.16588; they carry no position.
"""

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_vit_plugin")
class PrefixTokensAndPositions(keras.layers.Layer):
    """Prepends learned tokens and adds a learned embedding per position.

    The order is class token, distillation token, registers, patches. The weight `position_embedding` has one row
    for the class token, one for the distillation token (where they exist) and one for each patch.

    Args:
        use_class_token: prepend a class token.
        use_distillation_token: prepend a distillation token.
        num_register_tokens: how many register tokens to prepend.
        position_initializer: of `position_embedding`; None is a normal of standard deviation 0.02.

    Call: `(B, N, D)` -> `(B, num_prefix_tokens + N, D)`.
    """

    def __init__(
        self,
        use_class_token=True,
        use_distillation_token=False,
        num_register_tokens=0,
        position_initializer=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.use_class_token = use_class_token
        self.use_distillation_token = use_distillation_token
        self.num_register_tokens = num_register_tokens
        self.position_initializer = keras.initializers.get(
            position_initializer or keras.initializers.RandomNormal(stddev=0.02)
        )

    @property
    def num_positioned_prefix_tokens(self):
        """Prefix tokens that have a position: the class and the distillation token."""
        return int(self.use_class_token) + int(self.use_distillation_token)

    @property
    def num_prefix_tokens(self):
        return self.num_positioned_prefix_tokens + self.num_register_tokens

    def build(self, input_shape):
        if len(input_shape) != 3 or None in tuple(input_shape[1:]):
            raise ValueError(
                f"{type(self).__name__} takes patches of shape (batch, patches, width), got shape={tuple(input_shape)}."
            )
        self.num_patches, width = input_shape[1:]

        def token(name, count=1):
            return self.add_weight(
                shape=(1, count, width), initializer=keras.initializers.RandomNormal(stddev=0.02), name=name
            )

        if self.use_class_token:
            self.class_token = token("class_token")
        if self.use_distillation_token:
            self.distillation_token = token("distillation_token")
        if self.num_register_tokens:
            self.register_tokens = token("register_tokens", self.num_register_tokens)
        self.position_embedding = self.add_weight(
            shape=(1, self.num_positioned_prefix_tokens + self.num_patches, width),
            initializer=self.position_initializer,
            name="position_embedding",
        )

    def prefix(self):
        """The prefix tokens with their positions, `(1, num_prefix_tokens, D)`, or None where there are none."""
        tokens = []
        if self.use_class_token:
            tokens.append(self.class_token)
        if self.use_distillation_token:
            tokens.append(self.distillation_token)
        count = self.num_positioned_prefix_tokens
        if tokens:
            tokens = [ops.concatenate(tokens, axis=1) + self.position_embedding[:, :count]]
        if self.num_register_tokens:
            tokens.append(ops.convert_to_tensor(self.register_tokens))
        return ops.concatenate(tokens, axis=1) if tokens else None

    def call(self, patches):
        rows = self.position_embedding[:, self.num_positioned_prefix_tokens :]
        prefix = self.prefix()
        if prefix is not None:
            # Zero rows plus a constant instead of a token broadcast over the batch: no shape arithmetic.
            patches = ops.pad(patches, ((0, 0), (self.num_prefix_tokens, 0), (0, 0)))
            rows = ops.concatenate([prefix, rows], axis=1)
        return patches + ops.cast(rows, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        batch, patches, width = input_shape
        return (batch, self.num_prefix_tokens + patches, width)

    def get_config(self):
        return {
            **super().get_config(),
            "use_class_token": self.use_class_token,
            "use_distillation_token": self.use_distillation_token,
            "num_register_tokens": self.num_register_tokens,
            "position_initializer": keras.initializers.serialize(self.position_initializer),
        }
