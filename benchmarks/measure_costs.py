"""Writes `export/targets/xnnpack.py`: what an operator costs in int8 and in float, on each class of CPU.

    python benchmarks/measure_costs.py [--only x86-vnni x86-avx2 arm arm-dotprod]; the others stay as they are

Files of one operator in several sizes are run on one thread, and the costs of a multiply-accumulate and of a value are
fitted to them by least squares of the relative errors. `x86-vnni` is timed here, on a CPU that has AVX-512 VNNI: the
least of many runs, which other programs do not lengthen. It is printed and not written: conversions cost more there
than within a graph, and DeiT-tiny in `int8` for accuracy came out 3 % slower and 0.8 dB worse by these costs than by
those in the table, which were fitted to whole graphs of it. The others are counted in instructions by qemu, as `arm.py`
does: Haswell (AVX2, no VNNI), Cortex-A72 and Cortex-A76 (dot products). A count knows no caches and takes every
instruction for as long as another: it tells the classes apart, not two layers of the same kind.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import arm
import numpy as np

from keras_vit_plugin.export.quantization.modes import int8
from keras_vit_plugin.export.quantization.quantizer import Quantizer
from keras_vit_plugin.export.quantization.steps.calibration import quantizer_ranges
from keras_vit_plugin.export.quantization.steps.levels import FIXED, FLOAT, ON_THE_FLY
from keras_vit_plugin.export.quantization.steps.prepare import prepared
from keras_vit_plugin.export.tflite.graph import Graph
from keras_vit_plugin.export.tflite.surgery import add_missing_biases
from keras_vit_plugin.export.tflite.xnnpack import COSTS, OpCosts

HERE = Path(__file__).parent
TABLE = HERE.parent / "export" / "tflite" / "xnnpack.py"
TOKENS = 196
DENSE = ((64, 64), (192, 192), (192, 768), (768, 192), (384, 384), (384, 96), (48, 768), (768, 48))  # inputs, outputs
MATMULS = ((3, 196, 64), (6, 100, 64), (3, 100, 32), (2, 256, 64))  # heads, tokens, width of a head
GELUS = (192, 768, 1536)  # channels
UNKNOWN = (
    "fixed",
    "on_the_fly",
    "floating",
    "fixed_matmul",
    "float_matmul",
    "quantized",
    "converted",
    "float_gelu",
    "moved",  # a value that is copied to take a matmul's inputs apart
    "operators",
    "run",  # an inference
)
ROUNDS, RUNS = 400, 3
OF_WHOLE_GRAPHS = "x86-vnni"
CLASSES = {
    "x86-vnni": "times of whole graphs of DeiT-tiny on AVX-512 VNNI",
    "x86-avx2": "instructions of qemu's Haswell",
    "arm": "instructions of qemu's Cortex-A72",
    "arm-dotprod": "instructions of qemu's Cortex-A76",
}


@dataclass(frozen=True)
class File:
    """A file of one operator, and how often it does what is to be priced: `{of UNKNOWN: count}`."""

    path: Path
    shape: tuple[int, ...]
    counts: dict


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CLASSES, default=list(CLASSES))
    parser.add_argument("--arm", type=Path, default=Path(".arm"), help="where the ARM userland is unpacked, once")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = list(made(Path(folder)))
        costs = {name: fitted(files, measured(name, files, arguments.arm)) for name in arguments.only}
    for name, (row, error) in costs.items():
        print(f"{name}: {row}, within {error:.0%} of the files on average", flush=True)
    rows = {name: asdict(row) for name, row in COSTS.items()}
    rows |= {name: row for name, (row, _) in costs.items() if name != OF_WHOLE_GRAPHS}
    TABLE.write_text(as_table({name: rows[name] for name in CLASSES if name in rows}))


def made(folder):
    """Yields every `File`."""
    for inputs, outputs in DENSE:
        kernel = np.random.default_rng(0).normal(0, inputs**-0.5, (inputs, outputs))
        work, shape = TOKENS * inputs * outputs, (1, TOKENS, inputs)
        values = TOKENS * (inputs + outputs)
        for level, counts in (
            (FIXED, {"fixed": work, "converted": values}),
            (ON_THE_FLY, {"on_the_fly": work, "quantized": TOKENS * inputs}),
            (FLOAT, {"floating": work}),
        ):
            yield _file(folder / f"dense-{inputs}-{outputs}-{level}.tflite", shape, _dense(kernel), level, counts)
    for heads, tokens, width in MATMULS:
        work, shape = heads * tokens * tokens * width, (1, 2 * heads, tokens, width)
        moved = {"moved": 2 * heads * tokens * width}
        for level, counts in (
            (FIXED, {"fixed_matmul": work}),
            (FLOAT, {"float_matmul": work}),
        ):
            yield _file(
                folder / f"matmul-{heads}-{tokens}-{level}.tflite", shape, _matmul(heads), level, counts | moved
            )
    for channels in GELUS:
        shape, counts = (1, TOKENS, channels), {"float_gelu": TOKENS * channels}
        yield _file(folder / f"gelu-{channels}.tflite", shape, _gelu, FLOAT, counts)


def _dense(kernel):
    import tensorflow as tf

    return lambda x: tf.matmul(tf.reshape(x, x.shape[1:]), tf.constant(kernel, tf.float32))


def _matmul(heads):
    import tensorflow as tf

    def product(x):
        _, _, tokens, width = x.shape
        first, second = (tf.slice(x, (0, start, 0, 0), (1, heads, tokens, width)) for start in (0, heads))
        return tf.matmul(first, tf.reshape(second, (1, heads, width, tokens)))

    return product


def _gelu(x):
    import tensorflow as tf

    return tf.nn.gelu(x, approximate=False)


def _file(path, shape, function, level, counts):
    """Writes a function as a file with its dense layer or matmul on a level of `int8`."""
    import tensorflow as tf

    traced = tf.function(function, input_signature=[tf.TensorSpec(shape, name="images")], autograph=False)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced.get_concrete_function()], tf.Module())
    content = prepared(add_missing_biases(converter.convert()))
    graph = Graph(content)
    operators = graph.of_kind("FULLY_CONNECTED", "BATCH_MATMUL")
    if level != FLOAT:
        ranges = {
            int(tensor): (-4.0 * 128 / 127, 4.0) for op in graph.operators for tensor in (*op.inputs, *op.outputs)
        }
        ranges = quantizer_ranges(graph, {t: r for t, r in ranges.items() if graph.dtype(t) == "FLOAT32"})
        content = int8._quantize(Quantizer(content), graph, ranges, {level: operators})
    path.write_bytes(content)
    return File(path, shape, {**counts, "operators": len(Graph(content).operators), "run": 1})


def measured(name, files, arm_folder):
    """What every file costs on a class of CPU, in its own unit."""
    if name == "x86-vnni":
        return timed(files)
    paths = [file.path for file in files]
    if name == "x86-avx2":
        return haswell_instructions(paths)
    cpu = {"arm": "cortex-a72", "arm-dotprod": "cortex-a76"}[name]
    return arm.instructions_of_files(arm.prepare(arm_folder), paths, cpu)


def timed(files):
    """Nanoseconds of every file, the least of many runs that take turns."""
    import time

    from ai_edge_litert.interpreter import Interpreter

    if "avx512_vnni" not in Path("/proc/cpuinfo").read_text():
        sys.exit("x86-vnni is measured on a CPU that has AVX-512 VNNI, and this one has not.")
    interpreters = []
    for file in files:
        interpreter = Interpreter(model_path=str(file.path), num_threads=1)
        interpreter.allocate_tensors()
        image = np.random.default_rng(0).normal(size=file.shape).astype(np.float32)
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
        interpreters.append(interpreter)
    least = np.full(len(files), np.inf)
    for _ in range(ROUNDS):
        for i, interpreter in enumerate(interpreters):
            started = time.perf_counter_ns()
            interpreter.invoke()
            least[i] = min(least[i], time.perf_counter_ns() - started)
    return least.tolist()


def haswell_instructions(tflites, runs=10):
    """Instructions of one inference of each file on an emulated x86 CPU with AVX2 and without VNNI."""
    with tempfile.TemporaryDirectory() as folder:
        plugin = f"{arm.counting_plugin(Path(folder))},mark={arm.GETPPID['x86_64']}"
        emulator = ["setarch", platform.machine(), "--addr-no-randomize", "qemu-x86_64", "-cpu", "Haswell"]
        command = [*emulator, "-plugin", plugin, sys.executable, arm.COUNT_FILES, runs, *tflites]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the files do not run under qemu-x86_64: {done.stderr.strip()[-500:]}")
    return arm.marked(done, runs)


def fitted(files, costs):
    """`{field of OpCosts: cost}` over that of a multiply-accumulate on fixed scales, and the mean relative error."""
    from scipy.optimize import nnls

    counts = np.array([[file.counts.get(name, 0) for name in UNKNOWN] for file in files], float)
    costs = np.asarray(costs, float)
    scale = counts.max(0)
    solution, _ = nnls(counts / scale / costs[:, None], np.ones(len(files)))
    solution /= scale
    error = np.abs(counts @ solution / costs - 1).mean()
    found = dict(zip(UNKNOWN, solution / solution[0]))
    return {name: float(f"{found[name]:.2g}") for name in UNKNOWN[1:-3]}, float(error)


def as_table(costs):
    """The text of `xnnpack.py` with other costs, `{class: {field of OpCosts: cost}}`."""
    names = [field.name for field in fields(OpCosts)]
    text = TABLE.read_text().partition("COSTS = {")[0] + "COSTS = {\n"
    for name, row in costs.items():
        cells = "".join(f"        {key}={row[key]:g},\n" for key in names)
        text += f'    # {CLASSES[name]}\n    "{name}": OpCosts(\n{cells}    ),\n'
    return text + "}\n"


if __name__ == "__main__":
    main()
