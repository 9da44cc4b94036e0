"""ARM without a board: the aarch64 wheels of both runtimes under qemu, in a Debian userland that apt unpacks.

What they answer, and how many instructions one inference takes: a measure that no busy machine disturbs.
"""

import os
import platform
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import numpy as np

CPUS = {"cortex-a72": "0xd08", "cortex-a76": "0xd0b"}  # with their part numbers; the second has dot products
FEATURES = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
NEWER_FEATURES = {"cortex-a76": " atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"}
PYTHON = "3.11"
DEBIAN_PACKAGES = (
    f"python{PYTHON}-minimal libpython{PYTHON}-minimal libpython{PYTHON}-stdlib libc6 libgcc-s1 libstdc++6 zlib1g "
    "libexpat1 libssl3 libffi8 libbz2-1.0 liblzma5 libuuid1"
).split()
CONSTRAINTS = Path(__file__).parents[1] / "constraints-device.txt"
INTERPRETERS = {"ai-edge-litert": "ai_edge_litert.interpreter", "tflite-runtime": "tflite_runtime.interpreter"}
PURE_PYTHON = ("flatbuffers", "tqdm", "typing_extensions.py", "backports")
PLATFORMS = (
    "manylinux_2_34_aarch64",
    "manylinux_2_28_aarch64",
    "manylinux_2_27_aarch64",
    "manylinux_2_17_aarch64",
    "manylinux2014_aarch64",
)
RUNS = 2
PLUGIN = "count_instructions.so"
PROGRAM = Path(__file__).with_name("run_images.py")
COUNT_FILES = Path(__file__).with_name("count_files.py")
GETPPID = {"aarch64": 173, "x86_64": 110}  # the number of the system call that marks


def missing_tools(counting=True):
    """What is needed, to count or only to run, and this machine lacks, in words; empty where all is there."""
    needed = ["qemu-aarch64", "apt-get", "dpkg-deb", *(["gcc", "setarch"] if counting else [])]
    tools = [tool for tool in needed if shutil.which(tool) is None]
    return f"{', '.join(tools)} not installed (Debian: qemu-user{', gcc' if counting else ''})" if tools else ""


def prepare(folder):
    """Fills a folder with the ARM userland and the wheels of both runtimes, once."""
    folder = Path(folder).resolve()
    if (folder / "ready").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    for sub_folder in ("state/lists/partial", "cache/archives/partial", "packages", "wheels", "site", "root/proc"):
        (folder / sub_folder).mkdir(parents=True)
    (folder / "state/status").touch()
    # An apt of its own, for the other architecture, that touches nothing of the system's.
    settings = {
        "Dir::State": folder / "state",
        "Dir::State::status": folder / "state/status",
        "Dir::Cache": folder / "cache",
        "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64",
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in settings.items())]
    _run([*apt, "update"])
    _run([*apt, "download", *DEBIAN_PACKAGES], cwd=folder / "packages")
    for package in (folder / "packages").glob("*.deb"):
        _run(["dpkg-deb", "-x", package, folder / "root"])
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
    platforms = [argument for name in PLATFORMS for argument in ("--platform", name)]
    pinned = {
        "ai-edge-litert": [f"{name}=={version(name)}" for name in ("ai-edge-litert", "numpy")],
        "tflite-runtime": [line for line in CONSTRAINTS.read_text().split() if line.startswith(("tflite", "numpy"))],
    }
    installed = Path(np.__file__).parents[1]
    for runtime, wheels in pinned.items():
        _run([*pip, "-d", folder / "wheels" / runtime, "--python-version", PYTHON, *platforms, *wheels])
        for wheel in (folder / "wheels" / runtime).glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder / "site" / runtime)
        for name in PURE_PYTHON:
            if (installed / name).exists():
                (folder / "site" / runtime / name).symlink_to(installed / name)
    (folder / "ready").touch()
    return folder


def logits(folder, runtime, tflite, images, cpu):
    """What a file answers on a CPU of `CPUS`, `(N, classes)`.

    Args:
        folder: what `prepare` returned.
        runtime: a key of `INTERPRETERS`.
        tflite: path of the file.
        images: its input, `(N, H, W, C)`.
        cpu: a key of `CPUS`.
    """
    _emulate(folder, runtime, tflite, images, cpu)
    return np.load(folder / "logits.npy")


def instructions_per_inference(folder, tflite, image, cpu, runs=RUNS, runtime="ai-edge-litert"):
    """Instructions of one inference on a CPU of `CPUS`, setting up left out.

    Args:
        folder, runtime, tflite, cpu: as for `logits`.
        image: the input, `(1, H, W, C)`.
        runs: inferences that are counted; starting Python varies by some million instructions, so a small model wants
            more.
    """
    first = not (folder / PLUGIN).exists()
    plugin = counting_plugin(folder)
    if first:
        _emulate(folder, runtime, tflite, image, cpu)  # writes Python's bytecode

    def total(inferences):
        errors = _emulate(folder, runtime, tflite, image, cpu, inferences, plugin)
        return int(errors.rsplit("instructions: ", 1)[1])

    return (total(1 + runs) - total(1)) // runs


def counting_plugin(folder):
    """The path of qemu's plugin that counts instructions, compiled into a folder once."""
    plugin, source = folder / PLUGIN, Path(__file__).with_name("count_instructions.c")
    if not plugin.exists() or plugin.stat().st_mtime < source.stat().st_mtime:
        _run(["gcc", "-O2", "-shared", "-fPIC", "-o", plugin, source])
    return plugin


def instructions_of_files(folder, tflites, cpu, runs=10):
    """Instructions of one inference of each of many files on a CPU of `CPUS`, counted in one process."""
    plugin = f"{counting_plugin(folder)},mark={GETPPID['aarch64']}"
    command = _python(folder, cpu, plugin)
    return marked(_run([*command, COUNT_FILES, runs, *tflites], env=_environment(folder, "ai-edge-litert")), runs)


def marked(done, runs):
    """What a program that ran `count_files.py` counted, per run of each file."""
    if "mark: " not in done.stderr:
        raise RuntimeError(f"nothing was counted: {done.stderr.strip()[-500:]}")
    marks = [int(line.split()[1]) for line in done.stderr.splitlines() if line.startswith("mark: ")]
    return [(after - before) // runs for before, after in zip(marks[::2], marks[1::2])]


def _emulate(folder, runtime, tflite, images, cpu, runs=1, plugin=None):
    """Runs `PROGRAM` and returns what it wrote to standard error."""
    np.save(folder / "images.npy", images)
    command = _python(folder, cpu, plugin)
    command += [PROGRAM, INTERPRETERS[runtime], tflite, folder / "images.npy", runs, folder / "logits.npy"]
    return _run(command, env=_environment(folder, runtime)).stderr


def _python(folder, cpu, plugin=None):
    """What runs Python on an emulated CPU; a plugin with it."""
    # Old qemu shows the program this machine's own cpuinfo, unless the ARM userland has one.
    lines = {"processor": 0, "Features": FEATURES + NEWER_FEATURES.get(cpu, ""), "CPU implementer": "0x41"}
    lines |= {"CPU architecture": 8, "CPU variant": "0x0", "CPU part": CPUS[cpu], "CPU revision": 3}
    (folder / "root/proc/cpuinfo").write_text("".join(f"{name}\t: {value}\n" for name, value in lines.items()) + "\n")
    emulator = ["qemu-aarch64", "-cpu", cpu, "-L", folder / "root"]
    if plugin is not None:  # random addresses would change the count
        emulator = ["setarch", platform.machine(), "--addr-no-randomize", *emulator, "-plugin", plugin]
    return [*emulator, folder / f"root/usr/bin/python{PYTHON}"]


def _environment(folder, runtime):
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(folder / "site" / runtime),
        "PYTHONHASHSEED": "0",
    }


def _run(command, **options):
    command = [str(part) for part in command]
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} ... failed: {done.stderr.strip()[-500:]}")
    return done
