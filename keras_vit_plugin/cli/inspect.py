"""`keras-vit inspect`: what a .tflite contains."""

import click

import keras_vit_plugin as kv
from keras_vit_plugin.cli.errors import readable_errors
from keras_vit_plugin.cli.options import json_option
from keras_vit_plugin.cli.tables import metadata_in_words, print_pairs
from keras_vit_plugin.cli.terminal import print_json


@click.command("inspect")
@click.argument("tflite", type=click.Path(dir_okay=False))
@click.option("--check", metavar="SHA256", help="Of the whole file; exit code 1 unless TFLITE has it.")
@json_option
@readable_errors
def inspect_command(tflite, check, as_json):
    """Print what TFLITE contains: ops, versions, types, and what its delegate leaves out."""
    from keras_vit_plugin.export.tflite.flatbuffer import naming_the_file

    report = kv.export.inspect(tflite, check)
    if as_json:
        print_json(report.to_dict())
        return
    with naming_the_file(tflite):
        metadata = metadata_in_words(report.metadata)
    outside = ", ".join(f"{count} {name}" for name, count in (report.nodes_outside_delegate or {}).items())
    print_pairs(
        tflite,
        {
            "size": f"{report.size_bytes / 1e6:.2f} MB",
            "SHA-256": report.sha256,
            "inputs": ", ".join(f"{end['dtype']} {end['shape']}" for end in report.inputs),
            "outputs": ", ".join(f"{end['dtype']} {end['shape']}" for end in report.outputs),
            "ops": f"{sum(report.ops.values())}: " + ", ".join(f"{n} {name}" for name, n in report.ops.items()),
            "oldest runtime by op versions": report.min_runtime or "unknown",
            "float tensors inside": str(report.float_tensors),
            "flex ops": str(report.flex_ops),
            "XNNPACK partitions": str(report.delegate_partitions),
            "outside the delegate": outside or "nothing",
            **({"cannot be loaded": report.load_error} if report.load_error else {}),
            **metadata,
        },
    )
