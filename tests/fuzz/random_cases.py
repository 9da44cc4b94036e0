"""A random export of a random model: mode, target, arguments and images, each a function of a seed."""

import itertools
from dataclasses import dataclass, field

import numpy as np
from random_model import RandomModel, choice, pictures
from random_models import random_model

MODES = {"float32": 4, "float16": 2, "dynamic": 4, "int8": 4, "int8-full": 3, "int16x8": 2, "int4": 3, "auto": 1}
TARGETS = {"litert": 12, "tflite-runtime": 2, "gpu": 2, "mediapipe": 1}
INTEGER_ONLY = {"int8-full": "int8", "int16x8": "int16"}
COUNTS = (4, 16, 24, 32, 48, 100)
SOURCES = ("array", "array", "float array", "list", "folder", "class folders", "generator", "dataset", "pairs")
VERIFICATION_IMAGES, FRESH_IMAGES = 40, 48


@dataclass
class Case:
    """What is exported and how.

    Attributes:
        seed: by which it is made again.
        made: the `RandomModel`, in float32.
        policy: the dtype policy that the model is saved with.
        mode, target: as for `export_tflite`.
        arguments: further ones, for `export_tflite`.
        source, calibration: the kind of calibration images, and they themselves, uint8, or None.
        verification, fresh: uint8 images; the first may be None.
        by_command: whether the command exports it.
        compiled: a loss that the model is compiled with, or None.
        must_be_written: whether a refusal is a fault.
    """

    seed: int
    made: RandomModel
    policy: str
    mode: str
    target: str
    arguments: dict
    source: str
    calibration: np.ndarray | None
    verification: np.ndarray | None
    fresh: np.ndarray
    by_command: bool = False
    compiled: str | None = None
    must_be_written: bool = False
    parts: list = field(default_factory=list)


def random_case(seed):
    """The `Case` of a seed."""
    made = random_model(seed)
    generator = np.random.default_rng([seed, 2])
    mode, target = _weighted(generator, MODES), _weighted(generator, TARGETS)
    heads, several = made.heads, len(made.heads) > 1
    if target == "gpu":
        mode = "float16"
    if target == "tflite-runtime" and mode in ("int16x8", "int4"):
        mode = "int8"
    if target == "mediapipe" and (several or heads[0].task not in ("classes", "multi-label") or made.shape[2] != 3):
        target = "litert"
    arguments, compiled = {}, None
    if any(head.needs_task for head in heads):
        if not several and heads[0].task == "binary" and generator.random() < 0.4:
            compiled = "binary_crossentropy"
        elif not several and heads[0].task == "regression" and generator.random() < 0.4:
            compiled = "mse"
        else:
            arguments["task"] = {head.name: head.task for head in heads} if several else heads[0].task
    if heads[0].task == "classes" and not several and (target == "mediapipe" or generator.random() < 0.3):
        arguments["labels"] = [f"class {i}" for i in range(_columns(made))]
    if target == "mediapipe":
        arguments["labels"] = [f"class {i}" for i in range(_columns(made))]
    elif target != "gpu" and generator.random() < 0.2:
        arguments["batch_size"] = int(generator.integers(2, 5))
    _dtypes(generator, mode, target, arguments)
    if mode in ("int8", "auto") and generator.random() < 0.4:
        arguments["prefer"] = "accuracy" if mode == "int8" else "size"
    if mode == "int4" and generator.random() < 0.3:
        arguments["block_size"] = 32
    is_own_classifier = hasattr(made.model, "backbone") and heads[0].activation == "linear"
    if is_own_classifier and mode in ("float32", "float16", "dynamic", "int8") and target in ("litert", "gpu"):
        arguments["outputs"] = choice(generator, ((), (), ("embedding",), ("attention",), ("embedding", "attention")))
    count = choice(generator, COUNTS) if mode != "auto" else 120
    needed = mode in ("int8", "int4", "auto", *INTEGER_ONLY)
    calibration = pictures(generator, count, made.shape) if needed or generator.random() < 0.3 else None
    verification = pictures(generator, VERIFICATION_IMAGES, made.shape) if generator.random() < 0.75 else None
    by_command = not several and "outputs" not in arguments and generator.random() < 0.2
    return Case(
        seed=seed,
        made=made,
        policy="mixed_float16" if generator.random() < 0.12 else "float32",
        mode=mode,
        target=target,
        arguments=arguments,
        source="folder" if by_command else choice(generator, SOURCES),
        calibration=calibration,
        verification=verification,
        fresh=pictures(generator, FRESH_IMAGES, made.shape),
        by_command=by_command,
        compiled=compiled,
        must_be_written=target == "litert" and mode in ("float32", "float16"),
        parts=made.parts,
    )


def given_as(source, images, folder):
    """Calibration images as a user may give them.

    Args:
        source: one of `SOURCES`.
        images: uint8 `(N, H, W, C)`, or None.
        folder: where files go.
    """
    if images is None:
        return None
    if source == "folder":
        return save_pictures(images, folder)
    if source == "class folders":
        for i, part in enumerate(("cat", "dog")):
            save_pictures(images[i::2], folder / part)
        return folder
    if source in ("dataset", "pairs"):
        import tensorflow as tf

        pairs = (images, np.zeros(len(images)))
        return tf.data.Dataset.from_tensor_slices(pairs if source == "pairs" else images).batch(7)
    makers = {
        "array": lambda: images,
        "float array": lambda: images.astype(np.float32),
        "list": lambda: list(images),
        "generator": lambda: (image for image in itertools.chain(images)),
    }
    return makers[source]()


def save_pictures(images, folder):
    """Writes PNG files and returns their folder."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(folder / f"{i:03d}.png")
    return folder


def _weighted(generator, weights):
    shares = np.array(list(weights.values()), float)
    return list(weights)[generator.choice(len(weights), p=shares / shares.sum())]


def _columns(made):
    return made.outputs(np.zeros((1, *made.shape), np.uint8))[0].shape[1]


def _dtypes(generator, mode, target, arguments):
    if target == "gpu":
        return
    if mode in INTEGER_ONLY and target != "mediapipe":
        arguments["input_dtype"] = choice(generator, ("uint8", "int8"))
        arguments["output_dtype"] = choice(generator, ("float32", INTEGER_ONLY[mode]))
    elif mode not in INTEGER_ONLY and generator.random() < 0.3:
        arguments["input_dtype"] = "float32"
