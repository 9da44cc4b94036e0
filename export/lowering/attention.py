"""Multi-head self-attention as ops of rank 4 at most."""


def lower_attention(x, attention, queries, context):
    """An `Attention` over all tokens x, for the first `queries` tokens of each image; None is all."""
    import tensorflow as tf

    batch_size, tokens, width = context.batch_size, context.spec.num_tokens, context.spec.width
    queries = queries or tokens
    mixture = MIXTURES[context.form.attention]
    query = context.dense(context.first_rows(x, queries), attention.query)
    if attention.key is None:  # every head reads the tokens: one matmul for all of them
        query = tf.reshape(query, (batch_size, 1, queries * attention.num_heads, width))
        # Over another shape, or the converter makes a plain transpose an adj flag, which GPUs do not take.
        key = tf.transpose(tf.reshape(x, (batch_size, tokens, 1, width)), (0, 2, 3, 1))
        value = tf.reshape(x, (batch_size, 1, tokens, width))
        mixed = mixture(_scores(query, key, context), value)
    else:

        def heads(y, permutation, count=tokens):
            return tf.transpose(tf.reshape(y, (batch_size, count, attention.num_heads, -1)), permutation)

        query = heads(query, (0, 2, 1, 3), queries)  # (B, heads, T, d)
        key = heads(context.dense(x, attention.key), (0, 2, 3, 1))  # (B, heads, d, T)
        value = heads(context.dense(x, attention.value), (0, 2, 1, 3))  # (B, heads, T, d)
        mixed = tf.transpose(mixture(_scores(query, key, context), value), (0, 2, 1, 3))
    return context.dense(context.rows(mixed, queries), attention.output)


def _scores(query, key, context):
    import tensorflow as tf

    context.scores.append(tf.matmul(query, key))
    return context.scores[-1]


def softmax_mixture(scores, value):
    """`softmax(scores) @ value`."""
    import tensorflow as tf

    return tf.matmul(tf.nn.softmax(scores), value)


def unit_mixture(scores, value):
    """`(w V) / sum(w)` with `w = e / |e|`, `e = exp(scores)`: softmax, its divisor in two halves.

    Probabilities of 1/197 are 1.3 steps of int8, and unnormalized exponentials make sums of every size. Rows of length
    1 are between: no weight is above 1, and the sums differ by sqrt(T) at most.
    """
    import tensorflow as tf

    exponentials = tf.exp(scores)
    factor = tf.math.rsqrt(tf.reduce_sum(exponentials * exponentials, -1, keepdims=True))
    total = tf.reduce_sum(exponentials, -1, keepdims=True) * factor
    return tf.matmul(exponentials * factor, value) * (1.0 / total)


def integer_unit_mixture(scores, value):
    """As `unit_mixture`, below each row's maximum, with the reciprocal as the square of a root."""
    import tensorflow as tf

    exponentials = tf.exp(scores - tf.reduce_max(scores, -1, keepdims=True))
    factor = tf.math.rsqrt(tf.reduce_sum(exponentials * exponentials, -1, keepdims=True))
    weights = exponentials * factor
    root = tf.math.rsqrt(tf.reduce_sum(weights, -1, keepdims=True))
    return tf.matmul(weights, value) * (root * root)


# `GraphForm.attention` -> function(scores before softmax, values) to their mixture.
MIXTURES = {"softmax": softmax_mixture, "unit": unit_mixture, "integer_unit": integer_unit_mixture}
