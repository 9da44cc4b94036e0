"""What the components of one graph share while they are lowered: its form, its layout, its constants."""

import numpy as np


class Context:
    """The graph of one spec that is being traced.

    Tokens are rows: `(B * T, D)`, or `(B, T, D)` where the form keeps the batch axis.

    Args:
        spec: a `ViTSpec`.
        batch_size: B, images per call.
        form: a `GraphForm` without None.

    Attributes:
        scores: the attention scores of each block so far, before softmax.
    """

    def __init__(self, spec, batch_size, form):
        import tensorflow as tf

        self.spec, self.batch_size, self.form = spec, batch_size, form
        self.scores = []
        # Kernels as variables: as constants in the graph they would be copied many times on the way to the file.
        self._kernels = {
            id(layer): tf.Variable(np.float32(layer.kernel), trainable=False) for layer in spec.dense_layers()
        }

    def constant(self, array):
        import tensorflow as tf

        return tf.constant(np.asarray(array, np.float32))

    def kernel(self, layer):
        """The variable with the kernel of a `Dense` of the spec."""
        return self._kernels[id(layer)]

    def dense(self, x, layer):
        """`x @ kernel + bias` of a `Dense` of the spec."""
        import tensorflow as tf

        return tf.matmul(x, self.kernel(layer)) + self.constant(layer.bias)

    def rows(self, x, count):
        """Vectors of `count` tokens an image as the layers take them."""
        import tensorflow as tf

        kept = (self.batch_size, count, -1) if self.form.batch_axis else (self.batch_size * count, -1)
        return tf.reshape(x, kept)

    def first_rows(self, x, count):
        """The first `count` tokens of each image, from and to `rows`; None is all."""
        import tensorflow as tf

        tokens, width = self.spec.num_tokens, self.spec.width
        if count in (None, tokens):
            return x
        if self.batch_size == 1 and not self.form.batch_axis:
            return tf.slice(x, (0, 0), (count, width))
        x = tf.reshape(x, (self.batch_size, tokens, width))
        return self.rows(tf.slice(x, (0, 0, 0), (self.batch_size, count, width)), count)
