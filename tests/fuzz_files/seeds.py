"""The whole files that the cases change: made once, tiny, in a process with TensorFlow."""

import csv
import io
import json
import struct
import sys
from pathlib import Path

import numpy as np
from PIL import Image

SIDE, NAMES, PHOTOS = 16, ["ant", "bee", "cat", "dog"], 6
SUFFIXES = ("png", "jpg", "gif", "bmp", "tif", "webp")
WIDTH, MLP, PATCH, BLOCKS, CLASSES = 32, 64, 4, 2, 5  # of the preset vit_test


def make_seeds(folder):
    """Writes all seeds into a new folder."""
    folder = Path(folder)
    folder.mkdir()
    write_photos(folder)
    write_weights(folder)
    (folder / "labels.txt").write_text("\n".join(NAMES) + "\n")
    (folder / "elsewhere.bin").write_bytes(np.full(1 << 16, 0.125, np.float32).tobytes())
    write_models(folder)
    write_index(folder)


def picture(seed):
    """A smooth uint8 picture `(16, 16, 3)`."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def write_photos(folder):
    (folder / "photos").mkdir()
    images = [Image.fromarray(picture(seed)) for seed in range(PHOTOS)]
    with open(folder / "photos" / "labels.csv", "w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["file", "label"])
        for index, image in enumerate(images):
            image.save(folder / "photos" / f"{index}.png")
            table.writerow([f"{index}.png", NAMES[index % 4]])
    for suffix in SUFFIXES:
        images[0].save(folder / f"photo.{suffix}")
    for suffix in ("gif", "webp"):
        images[0].save(folder / f"frames.{suffix}", save_all=True, append_images=images[1:3])
    stream = io.BytesIO()
    for image in images[:3]:
        image.save(stream, "JPEG")
    (folder / "frames.mjpg").write_bytes(stream.getvalue())


def timm_tensors():
    """Random weights of vit_test under timm's names."""
    shapes = {
        "cls_token": (1, 1, WIDTH),
        "pos_embed": (1, 1 + (SIDE // PATCH) ** 2, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, PATCH, PATCH),
        "patch_embed.proj.bias": (WIDTH,),
        "norm.weight": (WIDTH,),
        "norm.bias": (WIDTH,),
        "head.weight": (CLASSES, WIDTH),
        "head.bias": (CLASSES,),
    }
    for block in range(BLOCKS):
        for name, (outputs, inputs) in {
            "attn.qkv": (3 * WIDTH, WIDTH),
            "attn.proj": (WIDTH, WIDTH),
            "mlp.fc1": (MLP, WIDTH),
            "mlp.fc2": (WIDTH, MLP),
        }.items():
            shapes |= {f"blocks.{block}.{name}.weight": (outputs, inputs), f"blocks.{block}.{name}.bias": (outputs,)}
        for norm in ("norm1", "norm2"):
            shapes |= {f"blocks.{block}.{norm}.weight": (WIDTH,), f"blocks.{block}.{norm}.bias": (WIDTH,)}
    generator = np.random.default_rng(0)
    return {name: generator.normal(0, 0.2, shape).astype(np.float32) for name, shape in shapes.items()}


def with_names_of_transformers(tensors):
    """The same weights under the names of Transformers' ViTForImageClassification."""
    ends = {"attn.proj": "attention.output.dense", "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense"}
    ends |= {"norm1": "layernorm_before", "norm2": "layernorm_after"}
    starts = {
        "cls_token": "vit.embeddings.cls_token",
        "pos_embed": "vit.embeddings.position_embeddings",
        "patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
        "norm": "vit.layernorm",
        "head": "classifier",
    }
    renamed = {}
    for name, values in tensors.items():
        stem, _, kind = name.rpartition(".")
        if not name.startswith("blocks."):
            renamed[starts[name] if name in starts else f"{starts[stem]}.{kind}"] = values
            continue
        _, block, part = stem.split(".", 2)
        prefix = f"vit.encoder.layer.{block}"
        if part == "attn.qkv":
            for which, third in zip(("query", "key", "value"), np.split(values, 3)):
                renamed[f"{prefix}.attention.attention.{which}.{kind}"] = third
        else:
            renamed[f"{prefix}.{ends[part]}.{kind}"] = values
    return renamed


def write_safetensors(path, tensors):
    header, numbers = {"__metadata__": {"format": "pt"}}, b""
    for name, values in tensors.items():
        start, numbers = len(numbers), numbers + values.tobytes()
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [start, len(numbers)]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + numbers)


def write_weights(folder):
    tensors = timm_tensors()
    np.savez(folder / "timm.npz", **tensors)
    write_safetensors(folder / "timm.safetensors", tensors)
    write_safetensors(folder / "transformers.safetensors", with_names_of_transformers(tensors))


def write_models(folder):
    """Models, their weights, and their `.tflite` files."""
    import h5py
    import keras

    import keras_vit_plugin as kv

    keras.utils.set_random_seed(0)
    vit, simple, dense = kv.build("vit_test", weights=folder / "timm.npz"), kv.build("simple_vit_test"), dense_model()
    hub = hub_model()
    hub.save_to_preset(str(folder / "hub"))
    for name, model in (("vit", vit), ("simple", simple), ("dense", dense), ("hub", hub)):
        model.save(folder / f"{name}.keras")
        labels = {"labels": NAMES} if model is dense else {}
        kv.export.export_tflite(model, folder / f"{name}.tflite", **labels)
    vit.save_to_preset(str(folder / "preset"))
    for name, model in (("vit", vit), ("simple", simple)):
        model.save_weights(folder / f"{name}.weights.h5")
    dense.save(folder / "dense.h5")
    notebook_model().save_weights(folder / "notebook.weights.h5")
    np.savez(folder / "answers.npz", kernel=np.asarray(dense.layers[-1].kernel), bias=np.asarray(dense.layers[-1].bias))
    with h5py.File(folder / "elsewhere.h5", "w") as file:
        file["numbers"] = np.full(64, 0.125, np.float32)
    write_foreign(dense, folder / "foreign.tflite")


def write_index(folder):
    """What `vit.py search` reads."""
    from commands_worker import exit_code, vit

    arguments = [str(folder / name) for name in ("dense.tflite", "photos", "index.npz")]
    if exit_code(vit, ["embed", *arguments]):
        raise RuntimeError("vit.py embed writes no index")


def hub_model():
    """A classifier of KerasHub's, of one block."""
    import keras_hub

    backbone = keras_hub.models.ViTBackbone((SIDE, SIDE, 3), 4, 1, 2, 8, 16)
    converter = keras_hub.layers.ViTImageConverter(image_size=(SIDE, SIDE), scale=1 / 255)
    return keras_hub.models.ViTImageClassifier(
        backbone, len(NAMES), keras_hub.models.ViTImageClassifierPreprocessor(converter)
    )


def notebook_model():
    """The teaching notebook's model, in layers of Keras's own."""
    sys.path.append(str(Path(__file__).parents[1]))
    from notebook_model import NotebookViT

    model = NotebookViT()
    model(np.zeros((1, 32, 32, 3), np.float32))
    return model


def dense_model():
    """A softmax of one dense layer over pixels scaled to 0..1: NumPy computes it in a line."""
    import keras

    kernel = keras.initializers.RandomNormal(0, 0.3, seed=3)
    head = keras.layers.Dense(len(NAMES), "softmax", kernel_initializer=kernel)
    return keras.Sequential(
        [keras.Input((SIDE, SIDE, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), head]
    )


def write_foreign(model, path):
    """The model as another program converts it: for pixels scaled to 0..1, and without metadata of this package."""
    import tensorflow as tf

    kernel, bias = (np.asarray(weight) for weight in model.layers[-1].weights)
    function = tf.function(
        lambda images: tf.nn.softmax(tf.reshape(images, (1, SIDE * SIDE * 3)) @ kernel + bias),
        input_signature=[tf.TensorSpec((1, SIDE, SIDE, 3))],
    )
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()])
    path.write_bytes(converter.convert())
