"""From the tokens behind the last block to the outputs."""

from keras_vit_plugin.geometry import patch_grid


def lower_head(x, head, context):
    """What a `Head` gives of the tokens x, `(B, outputs)`."""
    import tensorflow as tf

    return tf.reshape(context.dense(_pool(x, head.token, context), head.dense), (context.batch_size, -1))


def _pool(x, token, context):
    """One token of each image, or the mean of its patches where `token` is None."""
    import tensorflow as tf

    spec, batch_size = context.spec, context.batch_size
    x = tf.reshape(x, (batch_size, -1, spec.width))
    if token is not None:
        return context.rows(tf.slice(x, (0, token, 0), (batch_size, 1, spec.width)), 1)
    if len(spec.prefix):
        x = tf.slice(x, (0, len(spec.prefix), 0), (batch_size, len(spec.positions), spec.width))
    return tf.reduce_mean(x, axis=1, keepdims=context.form.batch_axis)


def lower_attention_map(scores, context):
    """The mean of the attention weights over heads and queries, on the grid of the patches, `(B, rows, columns)`."""
    import tensorflow as tf

    spec, batch_size = context.spec, context.batch_size
    weights = tf.reduce_mean(tf.reshape(tf.nn.softmax(scores), (batch_size, 1, -1, spec.num_tokens)), axis=2)
    patches = tf.slice(weights, (0, 0, len(spec.prefix)), (batch_size, 1, len(spec.positions)))
    return tf.reshape(patches, (batch_size, *patch_grid(spec.image_shape, spec.patch_size)))
