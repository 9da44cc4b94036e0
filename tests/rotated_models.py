"""A model with the same function and other outliers: its residual stream in another basis."""

import numpy as np


def rotate_stream_of(model, seed=0):
    """Rotates the residual stream of a pre-norm `ViTImageClassifier` in place by a random orthogonal Q with Q 1 = 1.

    LayerNorm without its affine commutes with such a Q, since means and lengths stay: `norm(x Q) = norm(x) Q`. So
    gamma and beta move into the layers that read the norm, writers to the stream become `W Q`, readers `Q' W`.
    """
    backbone = model.backbone
    q = _orthogonal_that_keeps_ones(backbone.hidden_dim, seed)

    def values(variable):
        return np.asarray(variable, np.float64)

    def assign(variable, value):
        variable.assign(value.reshape(variable.shape).astype(np.float32))

    def write(*variables):
        for variable in variables:
            assign(variable, values(variable) @ q)

    def read(norm, *layers):
        gamma, beta = values(norm.gamma), values(norm.beta)
        for layer in layers:
            kernel = values(layer.kernel)
            assign(layer.bias, values(layer.bias) + beta @ kernel)
            assign(layer.kernel, q.T @ (gamma[:, None] * kernel))
        assign(norm.gamma, np.ones_like(gamma))
        assign(norm.beta, np.zeros_like(beta))

    projection, tokens = backbone.patch_embedding.projection, backbone.tokens
    # Every prefix token and position is a row of the stream; positions may include those of the prefix.
    write(projection.kernel, projection.bias, *tokens.trainable_variables)
    for block in backbone.blocks:
        attention, mlp = block.attention, block.mlp
        read(block.attention_norm, attention.query, attention.key, attention.value)
        read(block.mlp_norm, mlp.hidden)
        for layer in (attention.output_dense, mlp.output_dense):
            write(layer.kernel, layer.bias)
    read(backbone.norm, *model.heads)
    return model


def _orthogonal_that_keeps_ones(size, seed):
    """Rotates the space orthogonal to ones at random and leaves ones alone."""
    generator = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(np.column_stack([np.ones(size), generator.normal(size=(size, size - 1))]))
    turn, _ = np.linalg.qr(generator.normal(size=(size - 1, size - 1)))
    rotation = np.eye(size)
    rotation[1:, 1:] = turn
    return basis @ rotation @ basis.T
