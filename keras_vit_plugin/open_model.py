"""A model from whatever names it: a preset, a `.keras` file or a preset folder."""

import zipfile
from pathlib import Path

import keras

from keras_vit_plugin.presets import build, get_preset


def open_model(source, weights=None):
    """Opens the model that `source` names.

    Args:
        source: a preset name, a `.keras` file, or a preset folder.
        weights: for a preset name: a path or `"pretrained"` as for `build`, or `"random"`. None takes the weights
            that this package ships, if it does for this preset.

    Returns:
        A Keras model.

    Raises:
        ValueError: the name is unknown, the file is damaged, a preset without shipped weights came without `weights`,
            or `weights` came with a file that has its own.
    """
    path = Path(source)
    if path.suffix == ".keras" or path.is_dir():
        if weights is not None:
            raise ValueError(f"`weights` is for preset names; {str(source)!r} has its own.")
        if not path.exists():
            raise FileNotFoundError(f"No file: {str(source)!r}.")
        if path.is_file() and not zipfile.is_zipfile(path):
            raise ValueError(f"{str(source)!r} is damaged or no .keras file: it is no complete zip archive.")
        try:
            if path.is_dir():
                from keras_vit_plugin.models import ViTImageClassifier

                return ViTImageClassifier.from_preset(str(path))
            return keras.saving.load_model(path, compile=False)
        except Exception as error:  # Keras raises many kinds for one damaged file
            raise ValueError(f"{str(source)!r} cannot be loaded as a Keras model: {error}") from error
    preset = get_preset(str(source))
    if weights is None:
        if not preset.ships_weights:
            raise ValueError(
                f"The preset {str(source)!r} ships no weights. Pass `weights`: a file, 'pretrained' for the hub's, or "
                "'random' to try sizes and speed."
            )
        weights = "pretrained"
    return build(str(source), weights=None if weights == "random" else weights)
