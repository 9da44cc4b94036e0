"""How many ARM instructions one inference takes, counted by qemu: a measure that no busy machine disturbs.

The interpreter is the aarch64 wheel of ai-edge-litert, in a Debian userland that apt unpacks beside the repository.
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
WHEELS = ("ai-edge-litert", "numpy")
PURE_PYTHON = ("flatbuffers", "tqdm", "typing_extensions.py", "backports")
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
RUNS = 2
PROGRAM = """
import sys
import numpy as np
from ai_edge_litert.interpreter import Interpreter
interpreter = Interpreter(model_path=sys.argv[1], num_threads=1)
interpreter.allocate_tensors()
entry = interpreter.get_input_details()[0]
interpreter.resize_tensor_input(entry["index"], [1, *entry["shape"][1:]])
interpreter.allocate_tensors()
pixels = np.load(sys.argv[2])
for _ in range(int(sys.argv[3])):
    interpreter.set_tensor(entry["index"], pixels)
    interpreter.invoke()
"""


def missing_tools():
    """What the count needs and this machine lacks, in words; empty where all is there."""
    tools = [tool for tool in ("qemu-aarch64", "gcc", "apt-get", "dpkg-deb", "setarch") if shutil.which(tool) is None]
    return f"{', '.join(tools)} not installed (Debian: qemu-user, gcc)" if tools else ""


def prepare(folder):
    """Fills a folder with the ARM userland, the wheels and the counting plugin, once."""
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
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", folder / "wheels"]
    platforms = [argument for name in PLATFORMS for argument in ("--platform", name)]
    pinned = [f"{name}=={version(name)}" for name in WHEELS]
    _run([*pip, "--python-version", PYTHON, *platforms, *pinned])
    for wheel in (folder / "wheels").glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder / "site")
    installed = Path(np.__file__).parents[1]
    for name in PURE_PYTHON:
        if (installed / name).exists():
            (folder / "site" / name).symlink_to(installed / name)
    source = Path(__file__).with_name("count_instructions.c")
    _run(["gcc", "-O2", "-shared", "-fPIC", "-o", folder / "count_instructions.so", source])
    (folder / "program.py").write_text(PROGRAM)
    (folder / "ready").touch()
    return folder


def instructions_per_inference(folder, tflite, pixels, cpu, runs=RUNS):
    """Instructions of one inference on a CPU of `CPUS`, setting up left out.

    Args:
        folder: what `prepare` returned.
        tflite: path of the file.
        pixels: its input, `(1, H, W, C)`.
        cpu: a key of `CPUS`.
        runs: inferences that are counted; starting Python varies by some million instructions, so a small model wants
            more.
    """
    # Old qemu shows the program this machine's own cpuinfo, unless the ARM userland has one.
    lines = {"processor": 0, "Features": FEATURES + NEWER_FEATURES.get(cpu, ""), "CPU implementer": "0x41"}
    lines |= {"CPU architecture": 8, "CPU variant": "0x0", "CPU part": CPUS[cpu], "CPU revision": 3}
    (folder / "root/proc/cpuinfo").write_text("".join(f"{name}\t: {value}\n" for name, value in lines.items()) + "\n")
    np.save(folder / "pixels.npy", pixels)

    def total(inferences):
        # Random addresses would change the count.
        command = [
            "setarch",
            platform.machine(),
            "--addr-no-randomize",
            "qemu-aarch64",
            "-cpu",
            cpu,
            "-L",
            folder / "root",
            "-plugin",
            folder / "count_instructions.so",
        ]
        command += [
            folder / f"root/usr/bin/python{PYTHON}",
            folder / "program.py",
            tflite,
            folder / "pixels.npy",
            inferences,
        ]
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(folder / "site"), "PYTHONHASHSEED": "0"}
        errors = _run(command, env=environment).stderr
        return int(errors.rsplit("instructions: ", 1)[1])

    if not (folder / "warm").exists():
        total(1)  # writes Python's bytecode
        (folder / "warm").touch()
    return (total(1 + runs) - total(1)) // runs


def _run(command, **options):
    command = [str(part) for part in command]
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} ... failed: {done.stderr.strip()[-500:]}")
    return done
