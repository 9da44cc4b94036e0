"""LayerNorm and RMSNorm as ops, without NEG, which has no integer kernel."""


def lower_norm(x, norm, context):
    """A `Norm` over the last axis of x; x itself where there is none."""
    import tensorflow as tf

    if norm is None:
        return x
    if norm.subtract_mean:
        x = x - tf.reduce_mean(x, -1, keepdims=True)
    mean_square = tf.reduce_mean(x * x, -1, keepdims=True)
    x = x * tf.math.rsqrt(mean_square + norm.epsilon if context.form.norm_epsilon else mean_square)
    x = x if norm.gamma is None else x * context.constant(norm.gamma)
    return x if norm.beta is None else x + context.constant(norm.beta)
