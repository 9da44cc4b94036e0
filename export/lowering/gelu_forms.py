"""GELU as one op, or as ops that all delegates run."""

# gelu(x) = x sigmoid(x p(min(x^2, limit))), p's coefficients with the lowest power first, and the limit. Fitted to
# log(cdf(x) / cdf(-x)) / x of the normal distribution so that the largest error is least: within 1.4e-6, and with
# coefficients that float16 holds within 2.6e-5. tanh with x + 0.044715 x^3, arXiv:1606.08415, is within 4.8e-4.
GELU_FORMS = {
    "float32": ((1.59573138, 0.0727639927, -0.000137495182, -8.89264394e-05, 5.00943452e-06, -9.24539914e-08), 36.0),
    "float16": ((1.59501577, 0.0740112926, -0.000703033649), 16.0),
}


def lower_gelu(x, context):
    """GELU of x, in the form that the graph has."""
    import tensorflow as tf

    if context.form.gelu == "op":
        return tf.nn.gelu(x, approximate=False)
    coefficients, limit = GELU_FORMS[context.form.gelu]
    square = tf.minimum(x * x, context.constant(limit))
    *lower_powers, polynomial = map(context.constant, coefficients)
    for coefficient in reversed(lower_powers):
        polynomial = polynomial * square + coefficient
    return x * tf.sigmoid(x * polynomial)
