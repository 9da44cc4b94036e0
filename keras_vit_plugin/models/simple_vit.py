"""SimpleViT of the teaching notebook: one block, one LayerNorm, 41,226 parameters on CIFAR-10."""

import keras

from keras_vit_plugin.layers import MeanPooling, PatchEmbedding, PostNormEncoderBlock, PrefixTokensAndPositions


@keras.saving.register_keras_serializable("keras_vit_plugin")
class SimpleViT(keras.Model):
    """Patches, zero-initialised positions, post-norm blocks, mean pooling, logits.

    Args:
        image_shape: `(height, width, channels)`.
        patch_size: side of a patch in pixels.
        hidden_dim: width of the tokens.
        num_layers: number of blocks.
        num_heads: attention heads.
        key_dim: width of a head.
        mlp_dim: hidden width of the MLP.
        num_classes: number of logits.
        layer_norm_epsilon: epsilon of the norms.

    Call: images scaled to 0..1, float `(B, H, W, C)` -> logits `(B, num_classes)`.
    """

    # What turns pixels of 0..255 into the input: x * pixel_scale + pixel_offset.
    pixel_scale = 1 / 255
    pixel_offset = 0.0

    def __init__(
        self,
        image_shape=(32, 32, 3),
        patch_size=4,
        hidden_dim=64,
        num_layers=1,
        num_heads=4,
        key_dim=16,
        mlp_dim=128,
        num_classes=10,
        layer_norm_epsilon=1e-6,
        dtype=None,
        **kwargs,
    ):
        # === Layers ===
        patch_embedding = PatchEmbedding(patch_size, hidden_dim, dtype=dtype, name="patch_embedding")
        tokens = PrefixTokensAndPositions(
            use_class_token=False, position_initializer="zeros", dtype=dtype, name="tokens"
        )
        blocks = [
            PostNormEncoderBlock(num_heads, key_dim, mlp_dim, layer_norm_epsilon, dtype=dtype, name=f"block_{i}")
            for i in range(num_layers)
        ]
        pooling = MeanPooling(dtype=dtype, name="pooling")
        head = keras.layers.Dense(num_classes, dtype=dtype, name="logits")

        # === Functional model ===
        images = keras.Input(tuple(image_shape), name="images")
        x = tokens(patch_embedding(images))
        for block in blocks:
            x = block(x)
        super().__init__(inputs=images, outputs=head(pooling(x)), **kwargs)

        # === Config ===
        self.patch_embedding, self.tokens, self.blocks = patch_embedding, tokens, blocks
        self.pooling, self.head = pooling, head
        self.image_shape = tuple(image_shape)
        self.patch_size = patch_size
        self.hidden_dim = hidden_dim
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.key_dim = key_dim
        self.mlp_dim = mlp_dim
        self.num_classes = num_classes
        self.layer_norm_epsilon = layer_norm_epsilon
        if dtype is not None:
            self.dtype_policy = keras.dtype_policies.get(dtype)

    def get_config(self):
        # The policies of layers that `quantize` changed, as KerasHub's `Backbone` saves them.
        policies = keras.dtype_policies.DTypePolicyMap(default_policy=self.dtype_policy.name)
        for layer in self._flatten_layers():
            if layer.quantization_mode is not None:
                policies[layer.path] = layer.dtype_policy
        return {
            "image_shape": self.image_shape,
            "patch_size": self.patch_size,
            "hidden_dim": self.hidden_dim,
            "num_layers": self.num_layers,
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
            "mlp_dim": self.mlp_dim,
            "num_classes": self.num_classes,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "dtype": keras.dtype_policies.serialize(policies if len(policies) else self.dtype_policy),
            "name": self.name,
            "trainable": self.trainable,
        }
