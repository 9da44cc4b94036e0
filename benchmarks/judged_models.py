"""The models that accuracy is judged on, real and made here, and what makes each unlike the others.

    python benchmarks/judged_models.py "DeiT-tiny on CIFAR-10"

makes one and prints its accuracy. What is trained is trained with a fixed seed and kept in a folder outside the
repository. `MODELS` names them all; DATA is the folder of the real data (see `compare.py`).
"""

import os
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
import real_data
from PIL import Image

import keras_vit_plugin as kv
from keras_vit_plugin.checkpoints import load_weights
from keras_vit_plugin.export.verification.outputs import keras_logits
from keras_vit_plugin.images.gather import gather_labelled
from keras_vit_plugin.images.preprocessing import pixel_normalization, preprocessing_of
from keras_vit_plugin.models import (
    SimpleViT,
    ViTBackbone,
    ViTImageClassifier,
    ViTImageClassifierPreprocessor,
    ViTImageConverter,
)
from keras_vit_plugin.presets.architectures import HALF, IMAGENET_MEAN, IMAGENET_STD
from keras_vit_plugin.presets.digits import load_digits_split

DEIT = "deit_tiny_patch16_224"
CACHE = Path(tempfile.gettempdir()) / "keras-vit-checkpoints"
SEED = 0
# How a small classifier differs from a ViT with a class token; SimpleViT is the one with its norm behind the attention.
TOPOLOGIES = {
    "class token": {},
    "mean pooling": {"pooling": "mean"},
    "no class token": {"use_class_token": False, "pooling": "mean"},
    "registers": {"num_register_tokens": 4},
    "LayerScale": {"layer_scale": 0.1},
    "post-norm": None,
}
OUTLIERS = ("attention", "hidden")
CONDITION = 1000.0  # largest over least singular value of what is put between query and key, value and output
HIDDEN_FACTOR, HIDDEN_SHARE = 16.0, 1 / 32  # how much larger, and how many, hidden channels of the MLPs become


@dataclass(frozen=True)
class Subject:
    """A model with what it is calibrated and judged on.

    Attributes:
        model: the Keras model.
        calibration: an image folder or raw pixels `(N, H, W, C)`.
        judged: `{name: (images, labels)}`: a folder and None, or raw pixels and class indices.
        labels: class names for files, or None.
    """

    model: keras.Model
    calibration: object
    judged: dict = field(default_factory=dict)
    labels: tuple | None = None


def deit_tiny(data):
    """DeiT-tiny with its published weights."""
    return _on_imagenet(kv.build(DEIT, weights=data / "weights" / f"{DEIT}_in1k.npz"), data)


def deit_tiny_with_outliers(data):
    """DeiT-tiny with outliers in every head and in every MLP's hidden layer: `add_outliers`."""
    subject = deit_tiny(data)
    add_outliers(subject.model)
    return subject


def dinov2_small(data):
    """A ViT-S/14 of DINOv2's kind with a linear head for CIFAR-10, images bicubic to 224."""
    model = _classifier((224, 224, 3), 14, 12, 6, 384, 1536, IMAGENET_MEAN, IMAGENET_STD, layer_scale=1.0)
    load_weights(model, data / "weights" / "dinov2_small_patch14_224_cifar10.npz")
    return _on_cifar10(model, data, 224)


def deit_tiny_on_cifar10(data, images=1000, epochs=2, batch_size=16):
    """DeiT-tiny fine-tuned on CIFAR-10, all weights, `epochs` over so many images: Adam, 1e-4 falling to 0."""
    model = kv.build(DEIT, num_classes=10, new_head=True, weights=data / "weights" / f"{DEIT}_in1k.npz")
    path = CACHE / f"deit_tiny_on_cifar10_{images}_{epochs}.weights.h5"
    if not path.exists():
        train, classes = cifar10(data, "train", images, 224)
        steps = epochs * -(-images // batch_size)
        _fit(model, train, classes, epochs, batch_size, keras.optimizers.schedules.CosineDecay(1e-4, steps))
        _save(model, path)
    model.load_weights(path)
    return _on_cifar10(model, data, 224)


def small_on_cifar10(topology, data, images=4000, epochs=8):
    """Four blocks of width 64 on CIFAR-10's 32x32 images, trained from scratch."""
    model = small_classifier(topology, (32, 32, 3), 4, 4, 64)
    path = CACHE / f"cifar10_{topology.replace(' ', '_')}_{images}_{epochs}.weights.h5"
    if not path.exists():
        _fit(model, *cifar10(data, "train", images, 32), epochs)
        _save(model, path)
    model.load_weights(path)
    return _on_cifar10(model, data, 32)


def small_on_digits(topology, epochs=20, cache=CACHE):
    """Three blocks of width 48 on scikit-learn's digits, trained from scratch."""
    model = small_classifier(topology, (8, 8, 1), 2, 3, 48)
    path = cache / f"digits_{topology.replace(' ', '_')}_{epochs}.weights.h5"
    (train, classes), held_out = load_digits_split()
    if not path.exists():
        _fit(model, train, classes, epochs)
        _save(model, path)
    model.load_weights(path)
    return Subject(model, train[:250], {"digits_test": held_out}, tuple("0123456789"))


def digits_with_outliers(kind):
    """The digits model that the package ships, with outliers of one of `OUTLIERS`."""
    (train, _), held_out = load_digits_split()
    model = kv.build("vit_digits", weights="pretrained")
    add_outliers(model, (kind,))
    return Subject(model, train[:250], {"digits_test": held_out}, tuple("0123456789"))


MODELS = {
    "DeiT-tiny": deit_tiny,
    "DINOv2-small on CIFAR-10": dinov2_small,
    "DeiT-tiny with outliers": deit_tiny_with_outliers,
    "DeiT-tiny on CIFAR-10": deit_tiny_on_cifar10,
    **{f"digits, {kind} outliers": lambda data, kind=kind: digits_with_outliers(kind) for kind in OUTLIERS},
    **{f"digits, {name}": lambda data, name=name: small_on_digits(name) for name in TOPOLOGIES},
    **{f"CIFAR-10, {name}": lambda data, name=name: small_on_cifar10(name, data) for name in TOPOLOGIES},
}

DEIT_WEIGHTS, CIFAR10 = f"weights/{DEIT}_in1k.npz", "cifar10_subset.npz"
ON_IMAGENET = (DEIT_WEIGHTS, "imagenet_calibration", "imagenet_eval", "imagenet_test", "imagenet_labels.txt")
# What of the real data they take; the others take none.
NEEDED = {
    "DeiT-tiny": ON_IMAGENET,
    "DINOv2-small on CIFAR-10": ("weights/dinov2_small_patch14_224_cifar10.npz", CIFAR10),
    "DeiT-tiny with outliers": ON_IMAGENET,
    "DeiT-tiny on CIFAR-10": (DEIT_WEIGHTS, CIFAR10),
    **{f"CIFAR-10, {name}": (CIFAR10,) for name in TOPOLOGIES},
}


def needed(names):
    """The paths of the real data that the models of these names take."""
    return [path for name in names for path in NEEDED.get(name, ())]


def add_outliers(model, kinds=OUTLIERS, seed=SEED):
    """Gives a `ViTImageClassifier` outliers that the exporter's rewrites do not take out, in place.

    `"attention"` leaves the function as it is: per head a random matrix M of condition `CONDITION` stands between
    query and key, `(q M) (k M^-T)' = q k'`, and another between value and output. The exporter equalizes single
    channels, a diagonal matrix, and cannot undo it. `"hidden"` makes some hidden channels of the MLPs `HIDDEN_FACTOR`
    times as large and their rows of the output that much smaller: `gelu(s x) / s` is nearer to a ReLU, so this is
    another function.
    """
    generator = np.random.default_rng(seed)
    for block in model.backbone.blocks:
        attention, mlp = block.attention, block.mlp
        if "attention" in kinds:
            between, behind = (_in_every_head(generator, attention) for _ in range(2))
            _behind(attention.query, between)
            _behind(attention.key, np.linalg.inv(between).T)
            _behind(attention.value, behind)
            output = attention.output_dense.kernel
            _assign(output, np.linalg.inv(behind) @ _values(output))
        if "hidden" in kinds:
            channels = mlp.hidden.kernel.shape[1]
            factors = np.ones(channels)
            chosen = generator.choice(channels, max(1, round(channels * HIDDEN_SHARE)), replace=False)
            factors[chosen] = HIDDEN_FACTOR
            _assign(mlp.hidden.kernel, _values(mlp.hidden.kernel) * factors)
            _assign(mlp.hidden.bias, _values(mlp.hidden.bias) * factors)
            _assign(mlp.output_dense.kernel, _values(mlp.output_dense.kernel) / factors[:, None])
    return model


def _in_every_head(generator, attention):
    """A matrix over all heads' channels that mixes those of one head only."""
    size = attention.head_width
    matrix = np.zeros((attention.num_heads * size,) * 2)
    for start in range(0, len(matrix), size):
        matrix[start : start + size, start : start + size] = _ill_conditioned(generator, size)
    return matrix


def _behind(dense, matrix):
    _assign(dense.kernel, _values(dense.kernel) @ matrix)
    if dense.bias is not None:
        _assign(dense.bias, _values(dense.bias) @ matrix)


def _ill_conditioned(generator, size):
    """A random matrix whose singular values fall evenly on a logarithmic scale around 1."""
    left, right = (np.linalg.qr(generator.normal(size=(size, size)))[0] for _ in range(2))
    return left * np.geomspace(CONDITION**0.5, CONDITION**-0.5, size) @ right


def _values(variable):
    return np.asarray(keras.ops.convert_to_numpy(variable), np.float64)


def _assign(variable, value):
    variable.assign(np.asarray(value, np.float32).reshape(variable.shape))


def cifar10(data, part, images, size):
    """The first images of a part, `"train"` or `"test"`, bicubic to a square: uint8 pixels and class indices."""
    with np.load(data / "cifar10_subset.npz") as stored:
        pixels, classes = stored[f"x_{part}"][:images], stored[f"y_{part}"].ravel()[:images].astype(int)
    if size != pixels.shape[1]:
        bicubic = Image.Resampling.BICUBIC
        pixels = np.stack([np.asarray(Image.fromarray(each).resize((size, size), bicubic)) for each in pixels])
    return pixels, classes


def small_classifier(topology, image_shape, patch_size, num_layers, width):
    """An untrained classifier of ten classes with four heads."""
    keras.utils.set_random_seed(SEED)
    if TOPOLOGIES[topology] is None:
        return SimpleViT(image_shape, patch_size, width, num_layers, 4, width // 4, 2 * width)
    half = HALF[: image_shape[2]]
    return _classifier(image_shape, patch_size, num_layers, 4, width, 2 * width, half, half, **TOPOLOGIES[topology])


def _classifier(image_shape, patch_size, num_layers, num_heads, width, mlp_dim, mean, std, pooling="token", **options):
    backbone = ViTBackbone(image_shape, patch_size, num_layers, num_heads, width, mlp_dim, **options)
    converter = ViTImageConverter(
        image_size=image_shape[:2],
        scale=[1 / (255 * each) for each in std],
        offset=[-middle / each for middle, each in zip(mean, std)],
    )
    return ViTImageClassifier(backbone, 10, ViTImageClassifierPreprocessor(converter), pooling=pooling)


def _fit(model, images, classes, epochs, batch_size=64, learning_rate=1e-3):
    """Trains on raw pixels with a fixed seed."""
    keras.utils.set_random_seed(SEED)
    scale, offset = pixel_normalization(model, images.shape[-1])
    trained = keras.Model(model.inputs, model.outputs)  # the same layers, given normalized pixels
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    trained.compile(keras.optimizers.Adam(learning_rate), loss)
    pixels = (images * np.float32(scale) + np.float32(offset)).astype(np.float32)
    trained.fit(pixels, classes, batch_size, epochs, verbose=2 if sys.stderr.isatty() else 0)


def _save(model, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save_weights(path)


def _on_imagenet(model, data):
    judged = {name: (data / name, None) for name in ("imagenet_eval", "imagenet_test")}
    return Subject(model, data / "imagenet_calibration", judged, tuple(_lines(data / "imagenet_labels.txt")))


def _on_cifar10(model, data, size):
    calibration, _ = cifar10(data, "train", 250, size)
    return Subject(model, calibration, {"cifar10_test": cifar10(data, "test", 500, size)})


def _lines(path):
    return path.read_text().splitlines()


def main():
    data, names = real_data.folder(), sys.argv[1:]
    if not names or not set(names) <= set(MODELS):
        sys.exit(f"name one or more of: {', '.join(MODELS)}")
    if needed(names) and (reason := real_data.lacking(data, needed(names))):
        sys.exit(f"KERAS_VIT_DATA must name the folder of the real data: {reason}")
    for name in names:
        subject = MODELS[name](data)
        for part, (images, classes) in subject.judged.items():
            preprocessing = preprocessing_of(subject.model)
            images, classes = gather_labelled(images, classes, preprocessing, (), subject.model.num_classes)
            logits = keras_logits(subject.model, images, *pixel_normalization(subject.model, images.shape[-1]))
            print(f"{name}: {(logits.argmax(1) == classes).mean():.1%} of {len(images)} images of {part}")


if __name__ == "__main__":
    main()
