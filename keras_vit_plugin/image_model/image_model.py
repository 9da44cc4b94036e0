"""A Keras model as a function from raw pixels to named outputs, whatever its class, its dtype policy, and the structure
of its inputs and outputs."""

import contextlib
import inspect
import operator
import re
from collections import Counter

import numpy as np

from keras_vit_plugin.image_model.answers import (
    BINARY,
    CLASSES,
    EMBEDDING,
    FEATURES,
    LINEAR,
    MULTI_LABEL,
    REGRESSION,
    SIGMOID,
    SOFTMAX,
    TASKS,
    WITH_DECISIONS,
    Answer,
)
from keras_vit_plugin.progress import track

KERAS_BATCH = 16
# What a single output is called in the file.
NAMES = {REGRESSION: "values", EMBEDDING: "embedding", FEATURES: "features"}
# Parts of the names of Keras's losses, in the order in which they are looked for.
LOSSES = {
    "binary": BINARY,
    "crossentropy": CLASSES,
    "squared": REGRESSION,
    "absolute": REGRESSION,
    "huber": REGRESSION,
    "log_cosh": REGRESSION,
    "poisson": REGRESSION,
    "cosine": EMBEDDING,
}
SHORT_LOSSES = {"mse": REGRESSION, "mae": REGRESSION, "mape": REGRESSION, "msle": REGRESSION, "bce": BINARY}
# TensorFlow ops by what they are at the end of a model.
SAME = ("Identity", "Cast", "Reshape", "Squeeze", "StopGradient", "EnsureShape")
SUMS = ("AddV2", "Add", "AddN", "BiasAdd", "Sub")
PRODUCTS = ("Mul", "RealDiv")
DENSE = ("MatMul", "Einsum", "BatchMatMulV2", "BatchMatMulV3")
CONSTANTS = ("Const", "ReadVariableOp", "Placeholder", "ResourceGather")
NUMBERS = ("Relu", "Relu6", "Tanh", "Softplus", "Exp", "Elu", "Square", "Abs")
CALLS = ("PartitionedCall", "StatefulPartitionedCall")


class ImageModel:
    """A Keras model that takes raw pixels and gives its outputs by name, in float32.

    Args:
        model: a built `keras.Model` with one input of images, on the TensorFlow backend.
        scale, offset: what turns pixels of 0..255 into its input, per channel or one number.
        task: what its outputs mean, one of `TASKS` or `{output name: task}`; None asks the model.
        image_shape: `(height, width, channels)`, where the model does not say it.

    Attributes:
        answers: an `Answer` for each output, in the order of `keras.tree.flatten`.
        shapes: the shape of each, without the batch axis.
        told: for each whether `task`, the loss that it was compiled with, or its last layer says what it means; False
            where its shape is all that was to go by.

    Raises:
        ValueError: an output is no float tensor with one row per image, `task` does not fit the outputs, or
            `image_shape` does not fit the model.
    """

    def __init__(self, model, scale=1.0, offset=0.0, task=None, image_shape=None):
        import tensorflow as tf

        self.model = model
        self.scale, self.offset = np.asarray(scale, np.float64), np.asarray(offset, np.float64)
        self.image_shape = image_shape_of(model, image_shape)
        self._dtype = _input_dtype(model)
        raw = np.all(self.scale == 1) and np.all(self.offset == 0)
        if not self._dtype.startswith(("float", "bfloat")) and not raw:
            raise ValueError(
                f"The model's input is {self._dtype}: raw pixels go in as they are. Leave out `mean` and `std`, or "
                "pass mean=0, std=1/255."
            )
        batch = batch_of(model) or 2
        signature = tf.TensorSpec((batch, *self.image_shape), tf.float32)
        with computing_in_float32(model):
            traced = self._traced(signature, given=image_shape is not None)
            if raw and not getattr(model, "inputs", None):
                self._check_integers_are_floats(batch)
        outputs = traced.structured_outputs
        for name, output in outputs.items():
            if not output.dtype.is_floating or output.shape.rank in (None, 0) or output.shape[0] != batch:
                raise ValueError(
                    f"The output {name!r} must be a float tensor with one row per image, it is {output.dtype.name} of "
                    f"shape {output.shape} for {batch} images."
                )
            if None in output.shape.as_list():
                raise ValueError(f"The output {name!r} must have a static shape, it is {output.shape}.")
        self.shapes = tuple(tuple(output.shape[1:]) for output in outputs.values())
        found = [_answer(name, output, _loss(model, name, i)) for i, (name, output) in enumerate(outputs.items())]
        self.answers, self.told = zip(*_with_tasks(found, outputs, task))
        if len(self.answers) == 1:
            (answer,) = self.answers
            name = NAMES.get(answer.task, "logits" if answer.activation == LINEAR else "probabilities")
            self.answers = (Answer(name, answer.task, answer.activation),)

    @property
    def answer(self):
        """The first output's `Answer`."""
        return self.answers[0]

    @property
    def num_classes(self):
        """How many classes or labels its only output tells apart; None where it has several or tells none apart."""
        if len(self.answers) > 1 or not self.answer.has_decisions:
            return None
        return self.shapes[0][0] if self.shapes[0] else 1

    def traced(self, images):
        """The outputs as TensorFlow computes them.

        Args:
            images: a tensor of pixels 0..255, `(B, H, W, C)`, uint8 or float32.

        Returns:
            `{name: float32 tensor (B, ...)}`.
        """
        import tensorflow as tf

        outputs = self._outputs(images)
        return {answer.name: tf.cast(output, tf.float32) for answer, output in zip(self.answers, outputs.values())}

    def __call__(self, images):
        """The outputs for raw pixels `(N, H, W, C)`, a tuple of float32 arrays `(N, ...)`, one for each answer.

        A model of mixed or half precision computes in float32.
        """
        batch = batch_of(self.model) or KERAS_BATCH
        results = []
        with computing_in_float32(self.model):
            for start in track(range(0, len(images), batch), "Running the Keras model"):
                rows = images[start : start + batch]
                filled = np.resize(rows, (batch, *rows.shape[1:])) if batch_of(self.model) else rows
                outputs = self._outputs(filled)
                results.append([np.asarray(output, np.float32)[: len(rows)] for output in outputs.values()])
        return tuple(np.concatenate(parts) for parts in zip(*results))

    def _traced(self, signature, given):
        """The outputs' graph; where the image shape was `given`, an error of the model says so."""
        import tensorflow as tf

        try:
            return tf.function(self._outputs, autograph=False).get_concrete_function(signature)
        except Exception as error:  # of any layer
            if isinstance(error, ValueError) and not given:
                raise
            raise ValueError(
                f"`model` cannot be called on a graph's images of shape {self.image_shape}: {_first_line(error)}"
            ) from error

    def _check_integers_are_floats(self, batch):
        """Raises where a model, given floats by the file since it declares no type, answers integers otherwise."""
        pixels = np.random.default_rng(0).integers(0, 256, (batch, *self.image_shape), np.uint8)
        found = []
        for dtype in ("uint8", "float32", "float32"):
            try:
                outputs = self.model(in_its_structure(self.model, pixels.astype(dtype)), training=False)
            except Exception:  # a layer that takes no integers: then it was never given any
                return
            found.append([np.asarray(output, np.float32) for output in _named(self.model, outputs).values()])
        same = [
            all(np.allclose(*pair, rtol=1e-3, atol=1e-3, equal_nan=True) for pair in zip(other, found[1]))
            for other in (found[0], found[2])
        ]
        if same == [False, True]:  # a model that answers the same floats otherwise each time is refused elsewhere
            raise ValueError(
                "`model` answers pixels 0..255 otherwise as uint8 than as float32, and does not say which it takes. "
                "Wrap it: keras.Sequential([keras.Input((HEIGHT, WIDTH, CHANNELS), dtype='uint8'), model])."
            )

    def _outputs(self, images):
        """`{name as Keras has it: tensor}`."""
        import tensorflow as tf

        if self._dtype.startswith(("float", "bfloat")):
            x = tf.cast(images, tf.float32) * np.float32(self.scale) + np.float32(self.offset)
        else:
            x = tf.cast(images, self._dtype)
        return _named(self.model, self.model(in_its_structure(self.model, x), training=False))


def image_shape_of(model, image_shape=None):
    """`(height, width, channels)` of the model's one input.

    A functional model says it. A subclassed one has it from the images that it was built with, by `fit` or a call.

    Args:
        model: a built Keras model.
        image_shape: what the caller says, for what the model does not.

    Raises:
        ValueError: the model has several inputs or none of images, `image_shape` is none or another than the model's,
            or neither says it.
    """
    shapes = _input_shapes(model)
    if image_shape is not None:
        image_shape = _checked_shape(image_shape)
        if not shapes:
            return image_shape
    if len(shapes) != 1 or len(shapes[0]) != 4:
        raise ValueError(
            "`model` must have one input of images (batch, height, width, channels); its inputs are "
            f"{shapes or 'unknown: pass image_shape=(HEIGHT, WIDTH, CHANNELS) (--image-shape HxWxC)'}."
        )
    own = shapes[0][1:]
    if image_shape is not None and any(side not in (None, given) for side, given in zip(own, image_shape)):
        raise ValueError(f"`image_shape` must be the model's own, {own}; got image_shape={image_shape}.")
    if None in (image_shape or own):
        raise ValueError(
            f"`model` must have known sides, its input is {shapes[0]}: pass image_shape=(HEIGHT, WIDTH, CHANNELS) "
            "(--image-shape HxWxC)."
        )
    return image_shape or own


def _checked_shape(image_shape):
    try:
        sides = tuple(operator.index(side) for side in image_shape)
    except TypeError:
        sides = ()
    if len(sides) != 3 or min(sides) < 1:
        raise ValueError(
            f"`image_shape` must be three positive integers (height, width, channels), got image_shape={image_shape!r}."
        )
    return sides


def _first_line(error):
    """What an exception of a layer says first; Keras puts the place before it, and colours."""
    lines = [re.sub(r"\x1b\[\d*m", "", line).strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line and not line.startswith("Exception encountered when calling")]
    return lines[0][:400] if lines else type(error).__name__


def batch_of(model):
    """The batch size that the model is fixed to, or None."""
    inputs = getattr(model, "inputs", None)
    return inputs[0].shape[0] if inputs else None


def _input_shapes(model):
    inputs = getattr(model, "inputs", None)
    if inputs:
        return [tuple(tensor.shape) for tensor in inputs]
    shape = _recorded_shape(model)
    if isinstance(shape, dict):
        return [tuple(each) for each in shape.values()]
    if not shape:
        return []
    nested = isinstance(shape[0], (tuple, list))
    return [tuple(each) for each in shape] if nested else [(None, *shape[1:])]


def _recorded_shape(model):
    """What Keras keeps of the images that a subclassed model was built with: a shape, or shapes in their structure."""
    shape = (model.get_build_config() or {}).get("input_shape")
    first = next(iter(inspect.signature(model.call).parameters.values()), None)
    caught = first is not None and first.kind is first.VAR_POSITIONAL  # `call(self, *images)`, called with one image
    return shape[0] if caught and shape and len(shape) == 1 else shape


def _input_dtype(model):
    inputs = getattr(model, "inputs", None)
    return str(inputs[0].dtype) if inputs else "float32"


def in_its_structure(model, x):
    """`x` as the model's inputs are given: itself, in a list, or under its name in a dict."""
    import keras

    try:
        structure = model.input
    except AttributeError:  # a subclassed model, which has none but what its first call was given
        shape = _recorded_shape(model)
        if isinstance(shape, dict):
            return dict.fromkeys(shape, x)
        return [x] if shape and isinstance(shape[0], (tuple, list)) else x
    return x if hasattr(structure, "shape") else keras.tree.pack_sequence_as(structure, [x])


@contextlib.contextmanager
def computing_in_float32(model):
    """Lets layers of another dtype policy, such as mixed_float16, compute in float32 within the context."""
    import keras

    policies = [(layer, layer.dtype_policy) for layer in model._flatten_layers()]
    others = [(layer, policy) for layer, policy in policies if _is_of_other_precision(policy)]
    try:
        for layer, policy in others:
            layer.dtype_policy = in_float32 = keras.DTypePolicy("float32")
            in_float32._variable_dtype = policy.variable_dtype  # so that Keras casts weights of half precision
        yield
    finally:
        for layer, policy in others:
            layer.dtype_policy = policy


def _is_of_other_precision(policy):
    dtype = getattr(policy, "compute_dtype", None)
    return dtype is not None and dtype != "float32" and dtype.startswith(("float", "bfloat"))


def _named(model, outputs):
    """`{name: tensor}` of whatever structure a model gives."""
    import keras

    given = [(path, tensor) for path, tensor in keras.tree.flatten_with_path(outputs) if tensor is not None]
    if not given:
        raise ValueError("The model gives nothing for images.")
    paths, tensors = zip(*given)
    own = getattr(model, "output_names", None)
    if own and len(own) == len(paths) and not any(isinstance(step, str) for path in paths for step in path):
        names = list(own)
    else:
        names = ["_".join(map(str, path)) if path else "output" for path in paths]
        names = [f"output_{name}" if name.isdecimal() else name for name in names]
    return dict(zip(_told_apart(names), tensors))


def _told_apart(names):
    """The names, each that is there more than once with a number behind it that makes no other name."""
    counts, found = Counter(names), []
    for number, name in enumerate(names):
        if counts[name] > 1:
            while f"{name}_{number}" in (*counts, *found):
                number += len(names)
            name = f"{name}_{number}"
        found.append(name)
    return found


def _answer(name, output, loss):
    """`(Answer, whether more than the shape was known)` of a traced output."""
    last, rank = _last(output.op), output.shape.rank
    if rank > 2:
        return Answer(name, FEATURES), False
    several = rank == 2 and output.shape[1] > 1
    task = _task_of_loss(loss)
    if last == SOFTMAX:
        return Answer(name, CLASSES, SOFTMAX), True
    if last == SIGMOID:
        if task == REGRESSION:
            return Answer(name, REGRESSION, LINEAR), True
        return Answer(name, MULTI_LABEL if several else BINARY, SIGMOID), True
    if task == BINARY:
        return Answer(name, MULTI_LABEL if several else BINARY), True
    if task is not None and (several or task != CLASSES):
        return Answer(name, task), True
    if last == REGRESSION:
        return Answer(name, REGRESSION), True
    if last == EMBEDDING:
        return Answer(name, EMBEDDING), True
    return Answer(name, CLASSES if several else REGRESSION), False


def _last(op, steps=24):
    """What a model ends in: an activation, `"dense"`, `REGRESSION`, `EMBEDDING`, or None where it cannot be seen."""
    while op.type in SAME and steps:
        op, steps = op.inputs[0].op, steps - 1
    if activation := _probabilities(op):
        return activation
    if op.type in NUMBERS:
        return REGRESSION
    if op.type in CALLS or not steps:
        return None
    return LINEAR if _is_head(op) else EMBEDDING


def _probabilities(op, steps=24):
    """`SOFTMAX` or `SIGMOID` where an op gives these, or an average of these as two heads do; None elsewhere."""
    while op.type in SAME and steps:
        op, steps = op.inputs[0].op, steps - 1
    if op.type in ("Softmax", "Sigmoid"):
        return {"Softmax": SOFTMAX, "Sigmoid": SIGMOID}[op.type]
    if op.type not in (*SUMS, *PRODUCTS) or not steps:
        return None
    parts = [tensor.op for tensor in op.inputs if op.type in SUMS or tensor.op.type != "Const"]
    found = {_probabilities(part, steps - 1) for part in parts}
    return found.pop() if len(found) == 1 and (op.type in SUMS or len(parts) == 1) else None


def _is_head(op, steps=24):
    """Whether an op is a dense layer, or a sum or multiple of such."""
    while op.type in SAME and steps:
        op, steps = op.inputs[0].op, steps - 1
    if op.type in DENSE:
        return True
    if op.type not in (*SUMS, *PRODUCTS) or not steps:
        return False
    parts = [_is_head(tensor.op, steps - 1) for tensor in op.inputs]
    constant = [_is_constant(tensor.op) for tensor in op.inputs]
    if op.type in PRODUCTS:
        constant = [each and tensor.op.type == "Const" for each, tensor in zip(constant, op.inputs)]
    return any(parts) and all(part or fixed for part, fixed in zip(parts, constant))


def _is_constant(op):
    while op.type in SAME and op.inputs:
        op = op.inputs[0].op
    return op.type in CONSTANTS


def _loss(model, name, position):
    """The loss that an output was compiled with, or None."""
    loss = getattr(model, "loss", None)
    if isinstance(loss, dict):
        return loss.get(name)
    if isinstance(loss, (list, tuple)):
        return loss[position] if position < len(loss) else None
    return loss


def _task_of_loss(loss):
    """The task that a loss is for, or None."""
    name = loss if isinstance(loss, str) else getattr(loss, "name", None) or getattr(loss, "__name__", "")
    name = str(name or "").lower()
    if name in SHORT_LOSSES:
        return SHORT_LOSSES[name]
    return next((task for part, task in LOSSES.items() if part in name), None)


def _with_tasks(found, outputs, task):
    """The answers with what the caller says of them."""
    if task is None:
        return found
    names = [answer.name for answer, _ in found]
    wanted = task if isinstance(task, dict) else dict.fromkeys(names, task)
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise ValueError(f"`task` names the output {unknown[0]!r}; the model has {', '.join(names)}.")
    for name, each in wanted.items():
        if each not in TASKS:
            raise ValueError(f"`task` must be one of {', '.join(TASKS)}; got {each!r}.")
        shape = outputs[name].shape
        fits = shape.rank == 2 or each in (FEATURES, REGRESSION)
        if each == BINARY:
            fits = shape[1:].num_elements() == 1 and shape.rank <= 2
        elif each == CLASSES:
            fits = shape.rank == 2 and shape[1] > 1
        if not fits:
            raise ValueError(f"task={each!r} does not fit the output {name!r} of shape {tuple(shape[1:])} per image.")
    return [
        (answer, told) if answer.name not in wanted else (_as(answer, wanted[answer.name]), True)
        for answer, told in found
    ]


def _as(answer, task):
    return Answer(answer.name, task, answer.activation if task in WITH_DECISIONS else LINEAR)
