"""From pixels to the tokens that enter the first block."""

import numpy as np

from ..tflite.tensor_names import EMBEDDING


def lower_embedding(images, context):
    """The tokens of images `(B, H, W, C)`, as `Context.rows`."""
    return (_as_convolution if context.form.batch_axis else _as_dense)(images, context)


def _as_dense(images, context):
    """Patches as a dense layer on flattened pixels: its kernels are faster than those of the convolution."""
    import tensorflow as tf

    spec, batch_size = context.spec, context.batch_size
    height, columns = spec.patch_size
    patch_rows, channels = spec.image_shape[0] // height, spec.image_shape[2]
    x = tf.reshape(tf.cast(images, tf.float32), (batch_size * patch_rows, height, -1, columns * channels))
    x = tf.reshape(tf.transpose(x, (0, 2, 1, 3)), (batch_size * len(spec.positions), -1))
    x = context.dense(x, spec.patch)
    if batch_size == 1:
        prefix = context.constant(spec.prefix)
        return tf.concat([prefix, x + context.constant(spec.positions)], axis=0, name=EMBEDDING)
    x = tf.reshape(x, (batch_size, -1, spec.width)) + context.constant(spec.positions)
    prefix = np.broadcast_to(spec.prefix, (batch_size, *spec.prefix.shape))
    x = tf.concat([context.constant(prefix), x], axis=1, name=EMBEDDING)
    return tf.reshape(x, (batch_size * spec.num_tokens, spec.width))


def _as_convolution(images, context):
    """Patches as a convolution, for one image."""
    import tensorflow as tf

    spec = context.spec
    filters = tf.reshape(context.kernel(spec.patch), (*spec.patch_size, spec.image_shape[2], spec.width))
    x = tf.nn.conv2d(tf.cast(images, tf.float32), filters, spec.patch_size, "VALID") + context.constant(spec.patch.bias)
    # Constants cannot be concatenated on every GPU, but padded with zeros and added.
    x = tf.pad(tf.reshape(x, (1, -1, spec.width)), ((0, 0), (len(spec.prefix), 0), (0, 0)))
    return tf.add(x, context.constant(np.concatenate([spec.prefix, spec.positions])[None]), name=EMBEDDING)
