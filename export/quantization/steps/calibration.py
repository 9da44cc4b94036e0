"""Activation ranges from real images."""

from dataclasses import dataclass

import numpy as np

from keras_vit_plugin.progress import track

from ...tflite.graph import MOVES
from ...tflite.runner import Runner, computed_tensors

SAMPLES, SAMPLES_PER_CALL = 2**17, 2048  # values of a tensor at most, in all and of a call; 2**15 cost int8 0.5 dB
# |error| ** 2.4 weighs large errors a little more than the mean square (Nagel et al. 2021, arXiv:2106.08295, 3.1).
ERROR_POWER = 2.4
CLIP_CANDIDATES = np.linspace(0.2, 1.0, 33).tolist()
WIDEST = 6144  # inputs of a dense layer; of a wider one the products would take more than 300 MB and minutes
MEASURED_IMAGES = (2, 16)  # at least and at most, by the model's size
UNUSABLE = 1e9  # noise of a file that overflows, or that does not load
MEASURED_WORK = 20e9  # multiply-accumulates of one measurement


@dataclass(frozen=True)
class Observation:
    """What a tensor's values were: smallest and largest per call, and a random sample of all.

    `weights` are what each of the sample is multiplied by next, where a product is all that reads the tensor.
    """

    smallest: np.ndarray
    largest: np.ndarray
    sample: np.ndarray
    weights: np.ndarray | float = 1.0

    def full(self):
        """The range that clips nothing."""
        return float(self.smallest.min()), float(self.largest.max())

    def least_error(self, reader=None):
        """The range inside `full` whose int8 rounding and clipping error on the sample is least.

        Args:
            reader: the function that alone reads the tensor, such as GELU; the error is measured behind it.
        """
        low, high = (min(self.full()[0], 0.0), max(self.full()[1], 0.0))
        if high == low:
            return low, high
        reader = reader or (lambda values: values)
        sample = np.asarray(self.sample, np.float32)  # twice as fast as float64 and exact enough to choose by
        wanted = reader(sample)
        weights = self.weights / (float(np.abs(self.weights * wanted).max()) or 1.0)  # no power underflows

        def error(candidate):
            return np.mean(np.abs(weights * (reader(rounded(sample, *candidate)) - wanted)) ** ERROR_POWER)

        low, high = min(((low * share, high * share) for share in CLIP_CANDIDATES), key=error)
        low, high = min(((low * share, high) for share in CLIP_CANDIDATES), key=error)
        return min(((low, high * share) for share in CLIP_CANDIDATES), key=error)


def rounded(values, low, high):
    """Values as int8 with the range `low..high` holds them."""
    scale = max((high - low) / 255, 1e-12)
    zero_point = float(np.round(-128 - low / scale))
    return (np.clip(np.round(values / scale) + zero_point, -128, 127) - zero_point) * scale


@dataclass(frozen=True)
class Entering:
    """What enters a dense layer: `products` is X' X `(inputs, inputs)` over the `rows` rows X `(rows, inputs)`.

    Of a layer with more than `WIDEST` inputs, `products` is the diagonal alone, `(inputs,)`.
    """

    products: np.ndarray
    rows: float


@dataclass(frozen=True)
class Calibration:
    """What a float file computed on the calibration images.

    Attributes:
        observations: `{tensor index: Observation}`; the input, its cast to float and what only moves their values run
            from 0 to 255.
        entering: `{tensor index of its kernel: Entering}` of every dense layer.
    """

    observations: dict
    entering: dict


def observe(graph, images, tensors=None):
    """Runs a float file on images and notes what activations were.

    Args:
        graph: the `Graph` of the float file.
        images: raw pixels 0..255, `(N, H, W, C)`.
        tensors: indices of the activations to note; None is all, besides what enters the dense layers.

    Returns:
        A `Calibration`, without observations of results that nothing reads or that are empty: they have no values.
    """
    generator = np.random.default_rng(0)
    wanted = graph.producer if tensors is None else tensors
    # What only moves the values of another tensor is noted as that one: `{tensor: the one whose values it has}`.
    wanted = [index for index in wanted if index in graph.producer and is_observed(graph, index)]
    origins = {index: graph.origin(index) if graph.factor(index) is None else index for index in wanted}
    notes = {index: ([], [], [], []) for index in dict.fromkeys(origins.values()) if is_observed(graph, index)}
    factors = {index: graph.factor(index) for index in notes}
    dense_layers = graph.of_kind("FULLY_CONNECTED")
    inputs = {int(dense.inputs[0]): graph.width(dense.inputs[1]) for dense in dense_layers}
    products, rows = dict.fromkeys(inputs, 0.0), dict.fromkeys(inputs, 0)
    batches = -(-len(images) // int(graph.subgraph.tensors[graph.image].shape[0]))
    samples = min(SAMPLES_PER_CALL, max(SAMPLES // batches, 1))
    outputs = [int(index) for index in graph.subgraph.outputs]
    for batch, tensor in enumerate(track(computed_tensors(graph.content, images), "Calibrating", total=batches)):
        check_finite([tensor(index) for index in outputs], batch * int(graph.subgraph.tensors[graph.image].shape[0]))
        for index, (smallest, largest, sample, weights) in notes.items():
            values = tensor(index)
            smallest.append(values.min())
            largest.append(values.max())
            taken = slice(None) if values.size <= samples else generator.integers(0, values.size, samples)
            sample.append(values.ravel()[taken])
            if factors[index] is not None:
                factor = np.broadcast_to(tensor(factors[index]), values.shape)
                weights.append(factor.flat[taken])
        for index, width in inputs.items():
            entering = tensor(index).reshape(-1, width)
            products[index] += entering.T @ entering if width <= WIDEST else np.square(entering).sum(0)
            rows[index] += len(entering)
    observations = {
        index: Observation(
            np.array(smallest), np.array(largest), np.concatenate(sample), np.concatenate(weights) if weights else 1.0
        )
        for index, (smallest, largest, sample, weights) in notes.items()
    }
    pixels = Observation(np.zeros(1), np.full(1, 255.0), np.arange(256.0))
    same = dict.fromkeys(pixel_tensors(graph), pixels)
    both = {index: Entering(products[index], rows[index]) for index in inputs}
    entering = summed((int(dense.inputs[1]), both[int(dense.inputs[0])]) for dense in dense_layers)
    moved = {index: observations[origin] for index, origin in origins.items() if origin in observations}
    return Calibration({**moved, **same}, entering)


def is_observed(graph, tensor):
    """Whether a tensor holds floats when a file has run."""
    return graph.dtype(tensor) == "FLOAT32" and graph.is_read(tensor) and 0 not in graph.shape(tensor)


def pixel_tensors(graph):
    """The input and the tensors that hold its values, cast or moved and otherwise unchanged."""
    tensors = [graph.image]
    for operator in graph.operators:
        if graph.kind(operator) in ("CAST", *MOVES) and int(operator.inputs[0]) in tensors:
            tensors.append(int(operator.outputs[0]))
    return tensors


def summed(entering):
    """`{kernel: Entering}` of pairs, those of layers that share a kernel added up."""
    total = {}
    for kernel, one in entering:
        before = total.get(kernel)
        total[kernel] = one if before is None else Entering(before.products + one.products, before.rows + one.rows)
    return total


def check_finite(outputs, first):
    """Looks at what a model gives for the images from number `first` on, counted from 0.

    Raises:
        ValueError: it is not a number, or infinite.
    """
    if not all(np.isfinite(values).all() for values in outputs):
        raise ValueError(
            f"The model gives NaN or infinity on calibration image {first} or on one soon after it: no error can be "
            "measured against that. Look at its weights, and at what it computes on that image."
        )


def all_outputs(content, images):
    """What a file gives for images `(N, H, W, C)` of pixels 0..255: every output, in the graph's order, in float32."""
    return Runner(content).in_order(images)


def mean_noise(answers, reference, outputs):
    """The noise in several outputs, the mean over them; `UNUSABLE` where it is no number.

    Args:
        answers: what each output is.
        reference, outputs: of `all_outputs`.
    """
    with np.errstate(all="ignore"):
        noise = np.mean([answer.noise(*pair) for answer, *pair in zip(answers, reference, outputs)])
    return float(noise) if noise < UNUSABLE else UNUSABLE


def measured_images(graph, images):
    """As many images, evenly spread, as one of many measurements may take."""
    operators = graph.of_kind("FULLY_CONNECTED", "CONV_2D", "BATCH_MATMUL")
    work = sum(graph.multiplications(operator) for operator in operators)
    count = min(int(np.clip(MEASURED_WORK / max(work, 1), *MEASURED_IMAGES)), len(images))
    return images[np.linspace(0, len(images) - 1, count).astype(int)]


def quantizer_ranges(graph, ranges):
    """Ranges in the form that litert-quantizer's `quantize` takes.

    Args:
        graph: the `Graph` of the float file.
        ranges: `{tensor index: (low, high)}`.

    Returns:
        `{tensor name: {"min": array, "max": array}}`, each array of the tensor's rank with one element.
    """

    def array(tensor, value):
        return np.full((1,) * graph.rank(tensor), value, np.float32)

    return {
        graph.name(tensor): {"min": array(tensor, low), "max": array(tensor, high)}
        for tensor, (low, high) in ranges.items()
    }
