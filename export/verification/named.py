"""The mode and the target that a file's metadata name."""

from keras_vit_plugin.files import read_file

from ..quantization.modes import mode_from_dict
from ..targets import TARGETS
from ..tflite.errors import InvalidModelFile
from ..tflite.flatbuffer import naming_the_file, read
from ..tflite.metadata import read_metadata


def mode_of_file(metadata):
    """The `Mode` of a file, by its `Metadata`.

    Raises:
        InvalidModelFile: the metadata names no mode, one that no file is of, or options that it does not have.
    """
    try:
        mode = mode_from_dict(metadata.config)
    except (TypeError, ValueError) as error:  # also of an option of another type than its own
        raise InvalidModelFile(f"its metadata is wrong: {error!s:.200}") from error
    if mode.chooses:
        raise InvalidModelFile(f"its metadata is wrong: quantize={mode.name!r} is no mode of a file, it chooses one")
    return mode


def target_of_file(metadata):
    """The `Target` of a file, by its `Metadata`.

    Raises:
        InvalidModelFile: the metadata names none.
    """
    if metadata.target not in TARGETS:
        names = ", ".join(TARGETS)
        raise InvalidModelFile(f"its metadata is wrong: `target` must be one of {names}, got {metadata.target!s:.50}")
    return TARGETS[metadata.target]


def made_like(file):
    """How a file was made: its `Mode`, with the options that a search chose, and the name of its target.

    Args:
        file: path or bytes of a `.tflite` that this package made.

    Raises:
        FileNotFoundError: no file at the path.
        InvalidModelFile: it is no such file.
    """
    content = file if isinstance(file, (bytes, bytearray)) else read_file(file)
    with naming_the_file(file):
        metadata = read_metadata(read(content))
        if metadata is None:
            raise InvalidModelFile("another program made it, which does not say how")
        return mode_of_file(metadata), target_of_file(metadata).name
