"""From a `ViTSpec`, or any Keras model, to a float32 `.tflite` with static shapes."""

import re

import numpy as np

from keras_vit_plugin.geometry import patch_grid
from keras_vit_plugin.image_model.image_model import computing_in_float32
from keras_vit_plugin.images.synthetic import synthetic_images
from keras_vit_plugin.progress import stage
from keras_vit_plugin.quiet import quiet_python, quiet_stderr

from ..tflite.errors import UnsupportedByTarget
from ..tflite.flatbuffer import read
from ..tflite.graph import Graph
from ..tflite.loadable import refusal, refused_operator
from ..tflite.operators import op_name
from ..tflite.runner import Runner
from ..tflite.surgery import outputs_in_order
from ..tflite.tensor_names import EMBEDDING, stream_name
from .saved_model import saved_model

LARGEST_UNIT_SCORE = 30.0
# gelu(x) = x sigmoid(x p(min(x^2, limit))), p's coefficients with the lowest power first. Fitted to
# log(cdf(x) / cdf(-x)) / x of the normal distribution so that the largest error is least: within 1.4e-6, and with
# coefficients that float16 holds within 2.6e-5. tanh with x + 0.044715 x^3, arXiv:1606.08415, is within 4.8e-4.
GELU_FORMS = {
    "float32": ((1.59573138, 0.0727639927, -0.000137495182, -8.89264394e-05, 5.00943452e-06, -9.24539914e-08), 36.0),
    "float16": ((1.59501577, 0.0740112926, -0.000703033649), 16.0),
}
ODD_TYPES = {  # in which few ops have a builtin, by what the converter calls them
    "f64": "float64",
    "f16": "float16",
    "bf16": "bfloat16",
    "i8": "int8",
    "i16": "int16",
    "i64": "int64",
    "ui8": "uint8",
    "ui16": "uint16",
    "ui32": "uint32",
    "ui64": "uint64",
}


def lower(
    spec,
    batch_size=1,
    input_dtype="uint8",
    attention_weights="softmax",
    norm_epsilon=True,
    gelu="op",
    for_gpu=False,
    attention_map=False,
):
    """Lowers a spec to a float32 TFLite file.

    The signature `serving_default` takes `images`, raw pixels `(batch_size, H, W, C)`, and gives `logits`
    `(batch_size, classes)` float32; an `embedding` too, where the spec has one. All shapes are static and no tensor has
    more than rank 4.

    Args:
        spec: a `ViTSpec` whose pixel normalization, score scale and LayerScale are folded.
        batch_size: images per call.
        input_dtype: `"uint8"` or `"float32"`, both for pixels of 0..255.
        attention_weights: `"softmax"`; or `"unit"` for weights that suit int8 better, `unit_mixture` below. It is for
            scores within +-`LARGEST_UNIT_SCORE`: the sum of squares overflows float32 at 44; or `"integer_unit"`, the
            same of ops that have integer kernels.
        norm_epsilon: whether norms add their epsilon.
        gelu: `"op"`, or a key of `GELU_FORMS`: of ops that all delegates run.
        for_gpu: whether tokens keep their batch axis and patches are a convolution, as GPUs want it; a CPU is faster
            with dense layers on all tokens of all images. For `batch_size` 1.
        attention_map: whether the signature also gives `attention`, `(batch_size, rows, columns)`, as
            `ViTSpec.attention_map`.

    Returns:
        The file as bytes.
    """
    import tensorflow as tf

    # Kernels as variables: as constants in the graph they would be copied many times on the way to the file.
    kernels = {id(layer): tf.Variable(np.float32(layer.kernel), trainable=False) for layer in spec.dense_layers()}

    def constant(array):
        return tf.constant(np.asarray(array, np.float32))

    def dense(x, layer):
        return tf.matmul(x, kernels[id(layer)]) + constant(layer.bias)

    def norm(x, layer):
        if layer is None:
            return x
        if layer.subtract_mean:
            x = x - tf.reduce_mean(x, -1, keepdims=True)
        mean_square = tf.reduce_mean(x * x, -1, keepdims=True)
        x = x * tf.math.rsqrt(mean_square + layer.epsilon if norm_epsilon else mean_square)
        x = x if layer.gamma is None else x * constant(layer.gamma)
        return x if layer.beta is None else x + constant(layer.beta)

    tokens, width = spec.num_tokens, spec.width

    def rows(x, count):
        """Vectors of `count` tokens an image as the layers take them."""
        return tf.reshape(x, (batch_size, count, -1) if for_gpu else (batch_size * count, -1))

    def first_rows(x, count):
        """The first `count` tokens of each image, from and to `rows`."""
        if count in (None, tokens):
            return x
        if batch_size == 1 and not for_gpu:
            return tf.slice(x, (0, 0), (count, width))
        x = tf.slice(tf.reshape(x, (batch_size, tokens, width)), (0, 0, 0), (batch_size, count, width))
        return rows(x, count)

    def softmax_mixture(scores, value):
        return tf.matmul(tf.nn.softmax(scores), value)

    def unit_mixture(scores, value):
        """`(w V) / sum(w)` with `w = e / |e|`, `e = exp(scores)`: softmax, its divisor in two halves.

        Probabilities of 1/197 are 1.3 steps of int8, and unnormalized exponentials make sums of every size. Rows of
        length 1 are between: no weight is above 1, and the sums differ by sqrt(T) at most.
        """
        exponentials = tf.exp(scores)
        factor = tf.math.rsqrt(tf.reduce_sum(exponentials * exponentials, -1, keepdims=True))
        total = tf.reduce_sum(exponentials, -1, keepdims=True) * factor
        return tf.matmul(exponentials * factor, value) * (1.0 / total)

    def integer_unit_mixture(scores, value):
        """The same below each row's maximum, with the reciprocal as the square of a root."""
        exponentials = tf.exp(scores - tf.reduce_max(scores, -1, keepdims=True))
        factor = tf.math.rsqrt(tf.reduce_sum(exponentials * exponentials, -1, keepdims=True))
        weights = exponentials * factor
        root = tf.math.rsqrt(tf.reduce_sum(weights, -1, keepdims=True))
        return tf.matmul(weights, value) * (root * root)

    mixtures = {"softmax": softmax_mixture, "unit": unit_mixture, "integer_unit": integer_unit_mixture}
    mixture = mixtures[attention_weights]

    score_tensors = []

    def scored(query, key):
        score_tensors.append(tf.matmul(query, key))
        return score_tensors[-1]

    def attention(x, layer, queries):
        queries = queries or tokens
        query = dense(first_rows(x, queries), layer.query)
        if layer.key is None:  # every head reads the tokens: one matmul for all of them
            query = tf.reshape(query, (batch_size, 1, queries * layer.num_heads, width))
            # Over another shape, or the converter makes a plain transpose an adj flag, which GPUs do not take.
            key = tf.transpose(tf.reshape(x, (batch_size, tokens, 1, width)), (0, 2, 3, 1))
            value = tf.reshape(x, (batch_size, 1, tokens, width))
            mixed = mixture(scored(query, key), value)
        else:

            def heads(y, permutation, count=tokens):
                return tf.transpose(tf.reshape(y, (batch_size, count, layer.num_heads, -1)), permutation)

            query = heads(query, (0, 2, 1, 3), queries)  # (B, heads, T, d)
            key = heads(dense(x, layer.key), (0, 2, 3, 1))  # (B, heads, d, T)
            value = heads(dense(x, layer.value), (0, 2, 1, 3))  # (B, heads, T, d)
            mixed = tf.transpose(mixture(scored(query, key), value), (0, 2, 1, 3))
        return dense(rows(mixed, queries), layer.output)

    def activation(x):
        if gelu == "op":
            return tf.nn.gelu(x, approximate=False)
        coefficients, limit = GELU_FORMS[gelu]
        square = tf.minimum(x * x, constant(limit))
        *lower_powers, polynomial = map(constant, coefficients)
        for coefficient in reversed(lower_powers):
            polynomial = polynomial * square + coefficient
        return x * tf.sigmoid(x * polynomial)

    def block(x, layer, name):
        y = attention(norm(x, layer.attention_norm), layer.attention, layer.kept_tokens)
        x = norm(first_rows(x, layer.kept_tokens) + y, layer.post_attention_norm)
        hidden = activation(dense(norm(x, layer.mlp_norm), layer.mlp_hidden))
        return tf.add(x, dense(hidden, layer.mlp_output), name=name)

    def embed_for_gpu(images):
        channels = spec.image_shape[2]
        filters = tf.reshape(kernels[id(spec.patch)], (*spec.patch_size, channels, width))
        x = tf.nn.conv2d(tf.cast(images, tf.float32), filters, spec.patch_size, "VALID") + constant(spec.patch.bias)
        # Constants cannot be concatenated on every GPU, but padded with zeros and added.
        x = tf.pad(tf.reshape(x, (1, -1, width)), ((0, 0), (len(spec.prefix), 0), (0, 0)))
        return tf.add(x, constant(np.concatenate([spec.prefix, spec.positions])[None]), name=EMBEDDING)

    def embed(images):
        if for_gpu:
            return embed_for_gpu(images)
        # A dense layer on flattened patches: its kernels are faster than those of the convolution it stands for.
        height, columns = spec.patch_size
        patch_rows, channels = spec.image_shape[0] // height, spec.image_shape[2]
        x = tf.reshape(tf.cast(images, tf.float32), (batch_size * patch_rows, height, -1, columns * channels))
        x = tf.reshape(tf.transpose(x, (0, 2, 1, 3)), (batch_size * len(spec.positions), -1))
        x = dense(x, spec.patch)
        if batch_size == 1:
            return tf.concat([constant(spec.prefix), x + constant(spec.positions)], axis=0, name=EMBEDDING)
        x = tf.reshape(x, (batch_size, -1, width)) + constant(spec.positions)
        prefix = np.broadcast_to(spec.prefix, (batch_size, *spec.prefix.shape))
        return tf.reshape(tf.concat([constant(prefix), x], axis=1, name=EMBEDDING), (batch_size * tokens, width))

    def pool(x, token):
        x = tf.reshape(x, (batch_size, -1, width))
        if token is not None:
            return rows(tf.slice(x, (0, token, 0), (batch_size, 1, width)), 1)
        if len(spec.prefix):
            x = tf.slice(x, (0, len(spec.prefix), 0), (batch_size, len(spec.positions), width))
        return tf.reduce_mean(x, axis=1, keepdims=for_gpu)

    def map_of(scores):
        """The mean of the attention weights over heads and queries, on the grid of the patches."""
        weights = tf.reduce_mean(tf.reshape(tf.nn.softmax(scores), (batch_size, 1, -1, tokens)), axis=2)
        patches = tf.slice(weights, (0, 0, len(spec.prefix)), (batch_size, 1, len(spec.positions)))
        return tf.reshape(patches, (batch_size, *patch_grid(spec.image_shape, spec.patch_size)))

    def answers(images):
        x = embed(images)
        for i, layer in enumerate(spec.blocks):
            x = block(x, layer, stream_name(i))
        x = norm(x, spec.norm)
        outputs = {}
        for head in spec.heads:
            answer = tf.reshape(dense(pool(x, head.token), head.dense), (batch_size, -1))
            outputs[head.output] = outputs[head.output] + answer if head.output in outputs else answer
        return outputs | ({"attention": map_of(score_tensors[-1])} if attention_map else {})

    signature = tf.TensorSpec((batch_size, *spec.image_shape), input_dtype, name="images")
    content = _convert(answers, signature)
    names = [*dict.fromkeys(head.output for head in spec.heads), *(["attention"] if attention_map else [])]
    return content if len(names) == 1 else outputs_in_order(content, sorted(names, key=lambda name: name != "logits"))


def lower_keras(model, batch_size=1, input_dtype="uint8"):
    """Lowers any Keras model on the TensorFlow backend to a float32 TFLite file, its graph as Keras emits it.

    Args:
        model: an `ImageModel`.
        batch_size, input_dtype: as for `lower`.

    Returns:
        The file as bytes; its outputs have the names and the order of the model's answers.

    Raises:
        UnsupportedByTarget: an op has no TFLite builtin, the interpreter refuses one, or the model keeps a state.
    """
    import tensorflow as tf

    signature = tf.TensorSpec((batch_size, *model.image_shape), input_dtype, name="images")
    with computing_in_float32(model.model):
        content = _convert(model.traced, signature)
    _check_runs(content)
    names = [answer.name for answer in model.answers]
    return content if len(names) == 1 else outputs_in_order(content, names)


def _convert(function, signature):
    """Traces `function` with a static signature and converts it.

    Raises:
        UnsupportedByTarget: an op has no TFLite builtin, or the function uses what cannot be saved with it.
    """
    import tensorflow as tf
    from tensorflow.lite.python.convert_phase import ConverterError

    module = tf.Module()
    module.function = tf.function(function, input_signature=[signature], autograph=False)
    concrete = module.function.get_concrete_function()
    variables = concrete.graph.variables
    handles = {id(variable.handle) for variable in variables}
    if any(tensor.dtype == tf.resource and id(tensor) not in handles for tensor in concrete.captured_inputs):
        raise UnsupportedByTarget(
            "The model uses a resource of TensorFlow that is no variable, such as a lookup table. Build it of other "
            "layers."
        )
    # All that the graph reads: a model tracks neither a global variable nor a tf.Variable that is its attribute.
    module.variables_to_track = list(variables)
    with stage("Converting to TFLite"), quiet_stderr(), quiet_python(), saved_model(module, concrete) as folder:
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        try:
            return converter.convert()
        except (ConverterError, ValueError, RuntimeError) as error:
            raise UnsupportedByTarget(_lacking(str(error))) from error


def _remembers(content):
    """Whether what a file says of an image changes behind another one."""
    model = read(content)
    if not any(op_name(model, operator) == "CALL_ONCE" for operator in model.subgraphs[0].operators):
        return False  # without variables there is nothing to remember by
    runner = Runner(content)
    first, second = np.split(synthetic_images(runner.image_shape, 2 * runner.batch_size), 2)
    answers, _, again = (runner.in_order(images) for images in (first, second, first))
    return not all(map(np.array_equal, answers, again))


def _check_runs(content):
    """Raises `UnsupportedByTarget` where the interpreter refuses what the converter made, or where it has a state."""
    if reason := refusal(content):
        graph = Graph(content)
        operator = refused_operator(reason, graph)
        named = "" if operator is None else f" at {graph.output_name(operator).split(';')[0]!r}"
        raise UnsupportedByTarget(
            f"The model converts to a file that does not run{named}: {reason}. Build it of other layers."
        )
    if _remembers(content):
        raise UnsupportedByTarget(
            "The model changes a variable when it is called: what it says of an image depends on the images before it. "
            "Leave that out in inference: `if training:`."
        )


def _lacking(text):
    """What a converter's error says, in a sentence: which ops have no builtin, and of which type where that is why."""
    ops = sorted(set(re.findall(r"(?:tf|flex)\.([A-Z]\w+)|Flex(\w+)", text)))
    names = dict.fromkeys(first or second for first, second in ops)
    types = {}
    for name, operands in re.findall(r'"tf\.(\w+)"\([^\n]*?\) \{[^\n]*?\} : \(([^\n]*?)\) ->', text):
        types.setdefault(name, set()).update(re.findall(r"tensor<(?:[\d?]+x)*(\w+)>", operands))
    odd = {
        name: ODD_TYPES[kinds.pop()] for name, kinds in types.items() if len(kinds) == 1 and kinds <= ODD_TYPES.keys()
    }
    if not names:
        return f"The model does not convert to TFLite: {_first_words(text)}. Build it of other layers."
    if any("Random" in name for name in names):
        return (
            f"The model draws random numbers when it answers; TFLite builtin ops lack: {', '.join(names)}. "
            "Leave that out in inference: `if training:`."
        )
    named = ", ".join(f"{name} of {odd[name]}" if name in odd else name for name in names)
    advice = "Compute in float32 there, or build" if odd else "Build"
    return f"The model does not convert to TFLite builtin ops, which lack: {named}. {advice} it of other layers."


def _first_words(text):
    """What a converter's error begins with; the rest is its graph, and places in it."""
    lines = [re.split(r"<unknown>|loc\(", line)[0].strip(" .:") for line in text.splitlines()]
    return next(filter(None, lines), "the converter does not say why")[:300]
