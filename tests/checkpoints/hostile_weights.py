"""Files of models with something in them that no program of good will writes."""

import functools
import io
import shutil
import tempfile
import zipfile
import zlib
from pathlib import Path

import h5py
import keras
import numpy as np

import keras_vit_plugin as kv

WEIGHTS = "model.weights.h5"
WEIGHT_FILES = ("m.weights.h5", "m.keras", "preset")  # for a preset's name
MODEL_FILES = ("whole.keras", "whole.h5", "whole_preset", "kerashub_preset")


_folder = tempfile.TemporaryDirectory()


def load(path):
    """Loads a file of `write`, as weights or as a whole model."""
    from keras_vit_plugin.open_model import open_model

    if path.name in MODEL_FILES:
        return open_model(path)
    kv.checkpoints.load_weights(_model(), path)
    return _model()


@functools.cache
def _model():
    return kv.build("vit_test")


def write(path, change):
    """Writes a model as `path` of `WEIGHT_FILES` or `MODEL_FILES` and changes its HDF5 file.

    Args:
        path: its name says what is written.
        change: takes the open `h5py.File` and the path in it of a float vector or matrix that the model needs.
    """
    whole = _written(path.name)
    (shutil.copy if whole.is_file() else shutil.copytree)(whole, path)
    if path.suffix == ".keras":
        members = read_members(path)
        content = io.BytesIO(members[WEIGHTS])
        change_hdf5(content, change)
        write_members(path, {**members, WEIGHTS: content.getvalue()})
    else:
        change_hdf5(path if path.is_file() else path / WEIGHTS, change)
    return path


@functools.cache
def _written(name):
    """A file of `WEIGHT_FILES` or `MODEL_FILES` as it should be."""
    path = Path(_folder.name) / name
    if name == "kerashub_preset":
        import keras_hub

        backbone = keras_hub.models.ViTBackbone((16, 16, 3), 4, 1, 2, 8, 16)
        keras_hub.models.ViTImageClassifier(backbone, 3).save_to_preset(str(path))
    elif name == "whole.h5":
        plain_model().save(path)
    elif path.suffix:
        model = kv.build("vit_test")
        (model.save if path.suffix == ".keras" else model.save_weights)(path)
    else:
        kv.build("vit_test").save_to_preset(str(path))
    return path


def plain_model(units=3):
    images = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(images))
    return keras.Model(images, keras.layers.Dense(units)(x))


def change_hdf5(file, change):
    with h5py.File(file, "r+") as h5:
        names = []
        h5.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) and item.ndim else None)
        change(h5, names[0])


def read_members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_members(path, members, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def replaced(value, **options):
    """A change that puts another dataset in the place of a weight."""

    def change(h5, name):
        del h5[name]
        h5.create_dataset(name, data=value, **options)

    return change


def add_zeros(path, members, name, size):
    """Writes an archive, with one more member of `size` zero bytes, deflated."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for each, content in members.items():
            archive.writestr(each, content)
        with archive.open(name, "w", force_zip64=True) as member:
            for _ in range(size // 2**20):
                member.write(bytes(2**20))


def understate(path, name):
    """Makes an archive declare one byte for a member."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start, crc = archive.getinfo(name).header_offset, zlib.crc32(b"{")
    for place in (start, content.rindex(b"PK\1\2", 0, content.rindex(name.encode()))):
        at = place + (14 if place == start else 16)  # of the checksum; the sizes follow
        content[at : at + 4] = crc.to_bytes(4, "little")
        content[at + 8 : at + 12] = (1).to_bytes(4, "little")
    path.write_bytes(content)


def npy(array):
    """The bytes of a `.npy`."""
    content = io.BytesIO()
    np.lib.format.write_array(content, np.asarray(array), allow_pickle=True)
    return content.getvalue()
