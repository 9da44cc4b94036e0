"""The `keras-vit` command: parses, calls, prints. Each of its commands is a file here."""

import os

import click

import keras_vit_plugin as kv
from keras_vit_plugin.cli.debug import debug_command
from keras_vit_plugin.cli.demo import demo_command
from keras_vit_plugin.cli.errors import Commands, short_warnings
from keras_vit_plugin.cli.explain import explain_command
from keras_vit_plugin.cli.export import export_command
from keras_vit_plugin.cli.inspect import inspect_command
from keras_vit_plugin.cli.list_presets import list_command
from keras_vit_plugin.cli.run import run_command
from keras_vit_plugin.cli.terminal import show_every_character
from keras_vit_plugin.cli.verify import verify_command
from keras_vit_plugin.progress import print_lines
from keras_vit_plugin.quiet import silence_native_stderr
from keras_vit_plugin.temporary import own_temporaries

COMMANDS = (
    debug_command,
    demo_command,
    explain_command,
    export_command,
    inspect_command,
    list_command,
    run_command,
    verify_command,
)


@click.group(cls=Commands, commands=COMMANDS)
@click.version_option(kv.__version__, prog_name="keras-vit")
@click.pass_context
def main(context):
    """Vision Transformers from Keras to small, fast, verified .tflite files."""
    # Export needs this backend; and TensorFlow's start-up messages would drown what the command prints.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    context.with_resource(silence_native_stderr())
    context.with_resource(own_temporaries())
    show_every_character()
    context.with_resource(print_lines())
    context.with_resource(short_warnings())
