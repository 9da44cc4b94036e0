"""`keras-vit list`: the presets, in a table."""

from dataclasses import asdict

import click

import keras_vit_plugin as kv
from keras_vit_plugin.cli.errors import readable_errors
from keras_vit_plugin.cli.options import json_option
from keras_vit_plugin.cli.terminal import print_json, print_table, say


@click.command("list")
@click.argument("pattern", default="*")
@json_option
@readable_errors
def list_command(pattern, as_json):
    """List the presets that match PATTERN, such as 'vit_*'."""
    rows = [(name, kv.presets.get_preset(name)) for name in kv.list_presets(pattern)]
    if as_json:
        print_json([{"name": name, **asdict(preset)} for name, preset in rows])
        return
    if not rows:
        say(f"No preset matches {pattern!r}: keras-vit list prints all.")
        return
    print_table(
        ("preset", "image", "patch", "width", "layers", "weights"),
        (
            (
                name,
                "x".join(map(str, preset.image_shape)),
                preset.patch_size,
                preset.hidden_dim,
                preset.num_layers,
                "shipped" if preset.ships_weights else "hub" if preset.pretrained else "",
            )
            for name, preset in rows
        ),
        no_wrap=True,
        box=None,
        padding=(0, 2, 0, 0),
    )
