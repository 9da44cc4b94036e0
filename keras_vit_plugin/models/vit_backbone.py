"""The Vision Transformer without its head, on KerasHub's `Backbone` base."""

import keras
import keras_hub

from keras_vit_plugin.geometry import as_pair, patch_grid
from keras_vit_plugin.layers import EncoderBlock, LayerNormalization, PatchEmbedding, PrefixTokensAndPositions


@keras.saving.register_keras_serializable("keras_vit_plugin")
class ViTBackbone(keras_hub.models.Backbone):
    """ViT (arXiv:2010.11929) and DeiT (arXiv:2012.12877) encoders with a final norm.

    Args:
        image_shape: `(height, width, channels)`.
        patch_size: side of a patch in pixels, or `(height, width)`.
        num_layers: number of encoder blocks.
        num_heads: attention heads; must divide `hidden_dim`.
        hidden_dim: width of the tokens.
        mlp_dim: hidden width of the MLPs.
        use_class_token: prepend a class token.
        use_distillation_token: prepend a distillation token (DeiT distilled).
        num_register_tokens: how many register tokens to prepend (arXiv:2309.16588).
        use_qkv_bias: whether query, key and value have a bias.
        dropout_rate: rate after attention and in the MLPs.
        attention_dropout: rate on the attention probabilities.
        stochastic_depth: rate of the last block; earlier blocks rise to it linearly from 0.
        layer_scale: initial value of LayerScale, or None for none.
        layer_norm_epsilon: epsilon of every norm.
        dtype: Keras dtype or policy.

    Call: normalized images, float `(B, H, W, C)` -> `(B, num_prefix_tokens + patches, hidden_dim)`.

    Raises:
        ValueError: an image side is not divisible by the patch, or `hidden_dim` not by `num_heads`.
    """

    def __init__(
        self,
        image_shape,
        patch_size,
        num_layers,
        num_heads,
        hidden_dim,
        mlp_dim,
        use_class_token=True,
        use_distillation_token=False,
        num_register_tokens=0,
        use_qkv_bias=True,
        dropout_rate=0.0,
        attention_dropout=0.0,
        stochastic_depth=0.0,
        layer_scale=None,
        layer_norm_epsilon=1e-6,
        dtype=None,
        **kwargs,
    ):
        image_shape = tuple(image_shape)
        patch_size = as_pair(patch_size)
        patch_grid(image_shape, patch_size)
        if hidden_dim % num_heads:
            raise ValueError(
                f"`hidden_dim` must be divisible by `num_heads`, got hidden_dim={hidden_dim}, num_heads={num_heads}."
            )

        # === Layers ===
        patch_embedding = PatchEmbedding(patch_size, hidden_dim, dtype=dtype, name="patch_embedding")
        tokens = PrefixTokensAndPositions(
            use_class_token, use_distillation_token, num_register_tokens, dtype=dtype, name="tokens"
        )
        embedding_dropout = keras.layers.Dropout(dropout_rate, dtype=dtype, name="embedding_dropout")
        blocks = [
            EncoderBlock(
                num_heads,
                mlp_dim,
                use_qkv_bias=use_qkv_bias,
                dropout=dropout_rate,
                attention_dropout=attention_dropout,
                stochastic_depth=stochastic_depth * i / max(num_layers - 1, 1),
                layer_scale=layer_scale,
                layer_norm_epsilon=layer_norm_epsilon,
                dtype=dtype,
                name=f"block_{i}",
            )
            for i in range(num_layers)
        ]
        norm = LayerNormalization(layer_norm_epsilon, dtype=dtype, name="norm")

        # === Functional model ===
        images = keras.Input(image_shape, name="images")
        x = embedding_dropout(tokens(patch_embedding(images)))
        for block in blocks:
            x = block(x)
        super().__init__(inputs=images, outputs=norm(x), dtype=dtype, **kwargs)

        # === Config ===
        self.patch_embedding, self.tokens, self.blocks, self.norm = patch_embedding, tokens, blocks, norm
        self.image_shape = image_shape
        self.patch_size = patch_size
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.hidden_dim = hidden_dim
        self.mlp_dim = mlp_dim
        self.use_class_token = use_class_token
        self.use_distillation_token = use_distillation_token
        self.num_register_tokens = num_register_tokens
        self.use_qkv_bias = use_qkv_bias
        self.dropout_rate = dropout_rate
        self.attention_dropout = attention_dropout
        self.stochastic_depth = stochastic_depth
        self.layer_scale = layer_scale
        self.layer_norm_epsilon = layer_norm_epsilon

    @property
    def num_prefix_tokens(self):
        return self.tokens.num_prefix_tokens

    @property
    def patch_grid(self):
        """Patches per column and row."""
        return patch_grid(self.image_shape, self.patch_size)

    def get_config(self):
        return {
            **super().get_config(),
            "image_shape": self.image_shape,
            "patch_size": self.patch_size,
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
            "hidden_dim": self.hidden_dim,
            "mlp_dim": self.mlp_dim,
            "use_class_token": self.use_class_token,
            "use_distillation_token": self.use_distillation_token,
            "num_register_tokens": self.num_register_tokens,
            "use_qkv_bias": self.use_qkv_bias,
            "dropout_rate": self.dropout_rate,
            "attention_dropout": self.attention_dropout,
            "stochastic_depth": self.stochastic_depth,
            "layer_scale": self.layer_scale,
            "layer_norm_epsilon": self.layer_norm_epsilon,
        }
