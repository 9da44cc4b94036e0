"""`keras-vit explain`: what a model attends to in a photo, as a page or a picture."""

from pathlib import Path

import click

import keras_vit_plugin as kv
from keras_vit_plugin.cli.errors import readable_errors
from keras_vit_plugin.cli.options import (
    import_option,
    interpolation_option,
    json_option,
    labels_of,
    labels_option,
    mean_option,
    numbers,
    open_named,
    pixels_option,
    resize_option,
    std_option,
    weights_option,
)
from keras_vit_plugin.cli.tables import print_answer
from keras_vit_plugin.cli.terminal import in_one_line, print_json, print_line, say
from keras_vit_plugin.files import check_apart, not_a_file


@click.command("explain")
@click.argument("model")
@click.argument("photo", type=click.Path(dir_okay=False))
@click.option("--out", required=True, metavar="FILE", help="What to write: a page, .html, or a picture, .png.")
@click.option("--theme", metavar="light|dark", help="For a .png: the page that it is for; default: light.")
@weights_option
@import_option
@labels_option
@mean_option
@std_option
@pixels_option
@resize_option
@interpolation_option
@json_option
@readable_errors
def explain_command(
    model, photo, out, theme, weights, modules, labels, mean, std, pixels, resize, interpolation, as_json
):
    """Show what MODEL attends to in PHOTO: every layer and head, rollout, position embeddings, patch filters.

    MODEL must have the PatchEmbedding and the attention of keras_vit_plugin, as its classifiers have.
    """
    from keras_vit_plugin.explain.pictures import check_explanation

    check_explanation(out, theme, (".html", ".png"), "out")
    check_apart({"out": out}, {"photo": photo, "model": model, "weights": weights, "labels": labels})
    if not Path(photo).is_file():
        raise FileNotFoundError(f"No photo: {photo!r}: {not_a_file(photo)}.")
    keras_model = open_named(model, weights, modules)
    explanation = kv.explain.explain_photo(
        keras_model,
        photo,
        labels_of(labels, model, keras_model),
        numbers(mean, "mean"),
        numbers(std, "std"),
        pixels,
        resize,
        interpolation,
    )
    kv.explain.write_explanation(explanation, in_one_line(f"{Path(model).name} on {Path(photo).name}"), out, theme)
    if as_json:
        print_json({"out": out, **explanation.to_dict()})
        return
    if explanation.answer:
        print_answer({"file": photo, "top": explanation.to_dict()["answer"]})
    for note in explanation.notes:
        say(note)
    print_line(f"Written: {out}")
