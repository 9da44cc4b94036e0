"""Gains and biases of dense layers with rounded weights, tuned so that the file computes what the float file does.

Each output channel of a dense layer has one scale and one bias, whatever its weights were rounded to: a gain g per
channel, `y = g (x W) + b`, costs nothing and keeps every weight on its grid. Both are learned from the float file's
stream after every block and its logits, on random crops of the calibration images. Source: only the scales of a
quantized model are trained in PEQA (Kim et al. 2023, arXiv:2305.14152); the target is that of knowledge distillation.
"""

import numpy as np

from keras_vit_plugin.image_model.answers import CLASSES, LINEAR, LOGITS
from keras_vit_plugin.progress import track

from ...tflite.execute import run_graph, weights_of
from ...tflite.graph import Graph
from ...tflite.tensor_names import stream_name
from .calibration import measured_images
from .sensitivity import has_derivatives, output_scales

STEPS = (25, 100)  # at least and at most, by the model's size
TUNED_WORK = 2e12  # multiply-accumulates
CROPS_PER_STEP = 8
SMALLEST_CROP = 0.7  # of an image's sides
LEARNING_RATE = 5e-4


def tuned_gains(content, kernels, images, answers=(LOGITS,)):
    """Kernels times their gains, and biases.

    Args:
        content: bytes of the float file.
        kernels: `{tensor: rounded float32 kernel (outputs, inputs)}`.
        images: raw pixels 0..255, `(N, H, W, C)`.
        answers: what the outputs of the file are, in their order.

    Returns:
        `{tensor: float32 kernel or bias}`; the kernels as they are where an op has no derivative here.
    """
    import tensorflow as tf

    graph = Graph(content)
    dense_layers = [dense for dense in graph.of_kind("FULLY_CONNECTED") if int(dense.inputs[1]) in kernels]
    if not has_derivatives(graph):
        return kernels
    rounded = {int(dense.inputs[1]): tf.constant(kernels[int(dense.inputs[1])]) for dense in dense_layers}
    gains = {tensor: tf.Variable(tf.ones((kernel.shape[0], 1))) for tensor, kernel in rounded.items()}
    biases = {int(dense.inputs[2]): tf.Variable(graph.constant(int(dense.inputs[2]))) for dense in dense_layers}
    variables, weights = [*gains.values(), *biases.values()], weights_of(graph)
    streams = {stream_name(i) for i in range(len(graph.operators))}
    compared = [tensor for tensor in graph.producer if graph.name(tensor).split(";")[0] in streams]
    outputs = [int(index) for index, _ in zip(graph.subgraph.outputs, answers)]
    scales = output_scales(content, measured_images(graph, images), answers)

    def computed(image, constants):
        values = {
            graph.image: tf.broadcast_to(image, graph.subgraph.tensors[graph.image].shape),
            **weights,
            **constants,
        }
        run_graph(graph, values)
        return [[values[tensor] for tensor in tensors] for tensors in (compared, outputs)]

    def answer_error(got, wanted, answer, scale):
        """As `Answer.noise`, by the power on the images."""
        error = got - wanted
        if answer.task == CLASSES and answer.activation == LINEAR:
            error -= tf.reduce_mean(error, -1, keepdims=True)
        return tf.reduce_sum((error * np.float32(scale)) ** 2) / got.shape[0]

    @tf.function(autograph=False)
    def gradients(image):
        wanted = computed(image, {})
        with tf.GradientTape() as tape:
            got = computed(image, {tensor: rounded[tensor] * gain for tensor, gain in gains.items()} | biases)
            stream_errors = [tf.reduce_mean((a - b) ** 2) / tf.reduce_mean(b**2) for a, b in zip(got[0], wanted[0])]
            loss = sum(map(answer_error, got[1], wanted[1], answers, scales)) / len(outputs)
            loss += sum(stream_errors) / max(len(stream_errors), 1)
        return tape.gradient(loss, variables)

    generator = np.random.default_rng(0)
    work = sum(graph.multiplications(operator) for operator in graph.of_kind("FULLY_CONNECTED", "BATCH_MATMUL"))
    steps = int(np.clip(TUNED_WORK / (4 * CROPS_PER_STEP * max(work, 1)), *STEPS))
    schedule = tf.keras.optimizers.schedules.CosineDecay(LEARNING_RATE, steps)
    optimizer = tf.keras.optimizers.Adam(schedule)
    optimizer.build(variables)

    @tf.function(autograph=False)
    def step(parts):
        optimizer.apply_gradients([(tf.add_n(each), variable) for *each, variable in zip(*parts, variables)])

    for _ in track(range(steps), "Tuning gains"):
        step([gradients(crop) for crop in _crops(images, generator)])
    return {tensor: (rounded[tensor] * gain).numpy() for tensor, gain in gains.items()} | {
        tensor: bias.numpy() for tensor, bias in biases.items()
    }


def _crops(images, generator):
    """Random parts of random images, some mirrored, in their size, as whole numbers in float32."""
    import tensorflow as tf

    sides = generator.uniform(SMALLEST_CROP, 1.0, CROPS_PER_STEP)
    top, left = generator.uniform(0, 1 - sides), generator.uniform(0, 1 - sides)
    mirrored = generator.random(CROPS_PER_STEP) < 0.5
    right, left = np.where(mirrored, left, left + sides), np.where(mirrored, left + sides, left)
    boxes = np.stack([top, left, top + sides, right], axis=1).astype(np.float32)
    chosen = images[generator.integers(0, len(images), CROPS_PER_STEP)].astype(np.float32)
    crops = tf.image.crop_and_resize(chosen, boxes, np.arange(CROPS_PER_STEP), images.shape[1:3])
    return tf.clip_by_value(tf.round(crops), 0.0, 255.0)
