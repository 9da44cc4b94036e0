"""Draws the pictures of README and docs/explain.md from the weights and the digits that the package comes with.

    make pictures

The digits are scikit-learn's. The int8 file is made anew, so the answers under the digits are its own.
"""

from pathlib import Path

import keras_vit_plugin as kv
from keras_vit_plugin.explain import draw_explanation, draw_predictions, explanation_of
from keras_vit_plugin.export.tflite.runner import Runner
from keras_vit_plugin.images.preprocessing import pixel_normalization
from keras_vit_plugin.plot_style import THEMES
from keras_vit_plugin.presets.digits import load_digits_split
from keras_vit_plugin.temporary import temporary_folder

IMAGES = Path(__file__).parent / "images"
SHOWN, EXPLAINED = 20, 0  # digits under which the answer stands; the one that is explained


def main():
    (x_train, _), (x_test, y_test) = load_digits_split()
    model, labels = kv.build("vit_digits", weights="pretrained"), kv.presets.get_preset("vit_digits").labels
    with temporary_folder() as folder:
        kv.export.export_tflite(model, folder / "m.tflite", quantize="int8-full", calibration=x_train, labels=labels)
        answers = Runner((folder / "m.tflite").read_bytes(), num_threads=1)(x_test[:SHOWN]).argmax(1)
    names, correct = [labels[answer] for answer in answers], answers == y_test[:SHOWN]
    explanation = explanation_of(model, x_test[EXPLAINED], *pixel_normalization(model, channels=1), labels)
    for theme in THEMES:
        draw_predictions(x_test[:SHOWN], names, IMAGES / f"digits-{theme}.png", correct, theme=theme)
        draw_explanation(explanation, "vit_digits on a digit", IMAGES / f"explain-{theme}.png", theme)


if __name__ == "__main__":
    main()
