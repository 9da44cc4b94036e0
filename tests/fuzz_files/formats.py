"""What is changed, how, and which commands read it: one row per format."""

from dataclasses import dataclass

from mutate_arrays import ARRAYS, INDEX, SAFETENSORS
from mutate_bytes import BYTES
from mutate_folder import FOLDER, everything_removed
from mutate_hdf5 import HDF5
from mutate_json import changed_json
from mutate_photo import PHOTO
from mutate_text import LABELS, TABLE
from mutate_tflite import RESEALED, TFLITE, sealed_again
from mutate_zip import ZIP, json_member_changed, members, write
from mutation import Unfit, on_bytes

ANY = tuple(map(on_bytes, BYTES))


@dataclass(frozen=True)
class Format:
    """A row.

    Attributes:
        seeds: `{file of the seeds: {slot: value}}`.
        mutations: tuples of functions of `(path, random)`; first a tuple is drawn, then one of it.
        commands: `{command with slots: weight}`; `{F}` is the changed file or folder, `{D}` the folder that it is in.
        copy: where in the case's folder the changed file is; with the seed's suffix.
        promises: names of checks in `verdict` besides those of all formats.
        slow: whether a case takes as long as ten others: a model is built.
    """

    seeds: dict
    mutations: tuple
    commands: dict
    copy: str = "mutated"
    promises: tuple = ()
    slow: bool = False


def on_a_file(mutations, pattern):
    """Mutations of a folder: one of the files of this pattern in it is changed."""

    def of(mutation):
        def on_one(folder, random):
            files = sorted(path for path in folder.rglob(pattern) if path.is_file())
            if not files:
                raise Unfit
            mutation(random.choice(files), random)

        on_one.__name__ = mutation.__name__
        return on_one

    return tuple(map(of, mutations))


def in_a_member(mutations, name):
    """Mutations of an archive: a member is changed as a file of its own would be."""

    def of(mutation):
        def on_member(path, random):
            contents, beside = members(path), path.with_name("member")
            beside.write_bytes(contents[name])
            try:
                mutation(beside, random)
                write(path, (contents | {name: beside.read_bytes()}).items())
            finally:
                beside.unlink()

        on_member.__name__, on_member.refused = mutation.__name__, getattr(mutation, "refused", False)
        return on_member

    return tuple(map(of, mutations))


def json_changed(path, random):
    path.write_bytes(changed_json(path.read_text(), random).encode("utf-8", "surrogatepass"))


TFLITE_SEEDS = {"dense.tflite": {"MODEL": "dense.keras"}, "vit.tflite": {"MODEL": "vit.keras"}}
TFLITE_COMMANDS = {
    "keras-vit run {F} seeds/photos/0.png {PIXELS} --json": 4,
    "keras-vit run {F} seeds/photos {PIXELS}": 2,
    "keras-vit inspect {F} --json": 4,
    "keras-vit inspect {F}": 3,
    "keras-vit verify seeds/{MODEL} {F} --images seeds/photos --json": 3,
    "keras-vit debug seeds/{MODEL} {F} --images seeds/photos": 0.5,
    "keras-vit export {F} out.tflite": 0.2,
    "vit.py classify {F} seeds/photos/0.png {PIXELS} --json": 4,
    "vit.py classify {F} seeds/photos/0.png {PIXELS}": 1,
    "vit.py folder {F} seeds/photos {PIXELS}": 1,
    "vit.py embed {F} seeds/photos out.npz {PIXELS}": 1,
    "vit.py search {F} seeds/index.npz seeds/photos/0.png {PIXELS}": 1,
    "vit.py camera {F} seeds/frames.mjpg {PIXELS}": 1,
    "vit.py benchmark {F} --runs 1 --warm-up 0": 1,
}
MODEL_COMMANDS = {
    "keras-vit verify {F} seeds/{TFLITE} --images seeds/photos --json": 7,
    "keras-vit export {F} out.tflite": 1,
    "keras-vit export {F} out.tflite --quantize dynamic --json": 0.4,
    "keras-vit export {F} out.tflite --quantize int8 --calibration seeds/photos": 0.2,
    "keras-vit debug {F} seeds/{TFLITE} --images seeds/photos": 0.4,
    "keras-vit explain {F} seeds/photos/0.png --out out.html": 0.4,
    "prepare.py {F} --modes float32 --output site": 0.2,
}
WEIGHT_COMMANDS = {
    "keras-vit verify {PRESET} seeds/{TFLITE} --weights {F} --images seeds/photos --json": 7,
    "keras-vit export {PRESET} out.tflite --weights {F}": 0.6,
    "keras-vit debug {PRESET} seeds/{TFLITE} --weights {F} --images seeds/photos": 0.3,
}
# The notebook's model has another shape of images than the model of any file.
PLAIN_COMMANDS = {
    "keras-vit explain {PRESET} seeds/photos/0.png --weights {F} --out out.html": 4,
    "keras-vit export {PRESET} out.tflite --weights {F}": 1,
}
LABEL_COMMANDS = {
    "keras-vit run seeds/dense.tflite seeds/photos/0.png --labels {F} --json": 6,
    "keras-vit run seeds/dense.tflite seeds/photos/0.png --labels {F}": 3,
    "keras-vit export seeds/dense.keras out.tflite --labels {F}": 0.5,
    "prepare.py seeds/dense.keras --labels {F} --modes float32 --output site": 0.2,
}
FOLDER_COMMANDS = {
    "keras-vit verify seeds/dense.keras seeds/dense.tflite --images {F} --json": 4,
    "keras-vit verify seeds/dense.keras seeds/dense.tflite --images {F}": 1,
    "keras-vit run seeds/dense.tflite {F}": 2,
    "keras-vit run seeds/dense.tflite {F} --json": 2,
    "keras-vit export seeds/dense.keras out.tflite --quantize int8 --calibration {F}": 0.2,
    "keras-vit export seeds/dense.keras out.tflite --verification {F}": 0.2,
    "vit.py folder seeds/dense.tflite {F}": 4,
    "vit.py embed seeds/dense.tflite {F} out.npz": 2,
}
PHOTO_COMMANDS = {
    "keras-vit run seeds/dense.tflite {F} --json": 4,
    "keras-vit run seeds/dense.tflite {F}": 1,
    "keras-vit run seeds/dense.tflite {D}": 1,
    "keras-vit verify seeds/dense.keras seeds/dense.tflite --images {D} --json": 1,
    "keras-vit explain seeds/vit.keras {F} --out out.html": 0.3,
    "vit.py classify seeds/dense.tflite {F} --json": 4,
    "vit.py folder seeds/dense.tflite {D}": 1,
    "vit.py embed seeds/dense.tflite {D} out.npz": 1,
    "vit.py search seeds/dense.tflite seeds/index.npz {F}": 1,
    "vit.py camera seeds/dense.tflite {F}": 1,
}
STREAM_COMMANDS = {"vit.py camera seeds/dense.tflite {F}": 1, "vit.py camera seeds/dense.tflite -": 1}
VIT, SIMPLE = {"PRESET": "vit_test", "TFLITE": "vit.tflite"}, {"PRESET": "simple_vit_test", "TFLITE": "simple.tflite"}
MEMBER = in_a_member(HDF5, "model.weights.h5")
PRESET = (on_a_file(ANY, "*.*"), on_a_file((json_changed,), "*.json"), on_a_file(HDF5, "*.h5"), (everything_removed,))
ARCHIVE = (ANY, ZIP, MEMBER, (json_member_changed,))
SUFFIXES = ("png", "jpg", "gif", "bmp", "tif", "webp")

FORMATS = {
    ".tflite": Format(TFLITE_SEEDS, (ANY,), TFLITE_COMMANDS, promises=("seal_holds",)),
    ".tflite, sealed again": Format(TFLITE_SEEDS, (tuple(map(sealed_again, ANY)), RESEALED, RESEALED), TFLITE_COMMANDS),
    ".tflite of others": Format(
        {"foreign.tflite": {"MODEL": "dense.keras", "PIXELS": "--pixels 0..1"}}, (ANY, TFLITE), TFLITE_COMMANDS
    ),
    ".keras": Format(
        {"dense.keras": {"TFLITE": "dense.tflite"}, "vit.keras": {"TFLITE": "vit.tflite"}},
        ARCHIVE,
        MODEL_COMMANDS,
        promises=("archive_is_whole",),
        slow=True,
    ),
    ".keras as weights": Format(
        {"vit.keras": VIT, "simple.keras": SIMPLE}, ARCHIVE, WEIGHT_COMMANDS, promises=("archive_is_whole",), slow=True
    ),
    ".h5": Format({"dense.h5": {"TFLITE": "dense.tflite"}}, (ANY, HDF5), MODEL_COMMANDS, slow=True),
    ".weights.h5": Format(
        {"vit.weights.h5": VIT, "simple.weights.h5": SIMPLE}, (ANY, HDF5), WEIGHT_COMMANDS, slow=True
    ),
    ".weights.h5 of layers of Keras's own": Format(
        {"notebook.weights.h5": {"PRESET": "simple_vit_cifar10"}}, (ANY, HDF5), PLAIN_COMMANDS, slow=True
    ),
    "preset folder": Format({"preset": VIT}, PRESET, MODEL_COMMANDS | WEIGHT_COMMANDS, slow=True),
    "preset folder of KerasHub": Format({"hub": {"TFLITE": "hub.tflite"}}, PRESET, MODEL_COMMANDS, slow=True),
    ".npz": Format({"timm.npz": VIT}, (ANY, ZIP, ARRAYS), WEIGHT_COMMANDS, promises=("archive_is_whole",), slow=True),
    ".safetensors": Format(
        {"timm.safetensors": VIT, "transformers.safetensors": VIT}, (ANY, SAFETENSORS), WEIGHT_COMMANDS, slow=True
    ),
    "label file": Format({"labels.txt": {}}, (ANY, LABELS, LABELS), LABEL_COMMANDS, promises=("labels_stand",)),
    "image folder": Format(
        {"photos": {}},
        (FOLDER, on_a_file(TABLE, "labels.csv"), on_a_file(TABLE, "labels.csv"), on_a_file(ANY, "*.*")),
        FOLDER_COMMANDS,
        copy="album",
        promises=("accuracy_is_right",),
    ),
    "photo": Format(
        {f"photo.{suffix}": {} for suffix in SUFFIXES},
        (ANY, PHOTO),
        PHOTO_COMMANDS,
        copy="album/mutated",
        promises=("answer_is_of_the_pixels",),
    ),
    "photo stream": Format({f"frames.{suffix}": {} for suffix in ("mjpg", "gif", "webp")}, (ANY,), STREAM_COMMANDS),
    "photo index": Format(
        {"index.npz": {}},
        (ANY, ZIP, INDEX, INDEX),
        {"vit.py search seeds/dense.tflite {F} seeds/photos/0.png": 1},
        promises=("archive_is_whole",),
    ),
}
