"""Whether this tree exports the same bytes as another commit: `make exported-bytes BASE=HEAD`.

A move of code must change no file. Both trees export every case of `cases.py` here, as floats differ between kinds of
CPU; a file's hash is taken with this package's metadata left out. An error counts as what it says.
"""

import argparse
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

from cases import FOREIGN, cases, images_of, model_of

REPOSITORY = Path(__file__).parents[2]
METADATA = b"keras_vit_plugin"


def digest_of(content):
    """SHA-256 of a file, hexadecimal, with the buffer of this package's metadata empty."""
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    for entry in model.metadata or []:
        if entry.name == METADATA:
            model.buffers[entry.buffer].data = None
    return hashlib.sha256(flatbuffer_utils.convert_object_to_bytearray(model)).hexdigest()


def exported(case):
    """The digest of what a case gives, or its error in words."""
    from keras_vit_plugin.export import export_tflite, mode_of

    model, images = model_and_images(case.model)
    labels = [f"class {i}" for i in range(model.output_shape[-1])] if case.target == "mediapipe" else None
    pixels = "0..1" if case.model in FOREIGN else None
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "m.tflite"
        rejected = path.with_suffix(".rejected.tflite")
        wanted = {"task": "classes", "pixels": pixels, "keep_rejected": True, **case.options}
        mode = mode_of(case.mode, **{name: wanted.pop(name) for name in ("prefer", "block_size") if name in wanted})
        try:
            export_tflite(model, path, mode, case.target, images, labels, **wanted)
        except Exception as error:
            if not rejected.exists():
                return f"{type(error).__name__}: {error}"
        return digest_of((path if path.exists() else rejected).read_bytes())


@functools.cache
def model_and_images(name):
    model = model_of(name)
    return model, images_of(model.input_shape[1:])


def record(path, words, part, parts):
    """Exports every `parts`-th case whose name holds all of the words, and writes `{case: digest or error}`."""
    chosen = [case for case in cases() if all(word in str(case) for word in words)][part::parts]
    path.write_text(json.dumps({str(case): exported(case) for case in chosen}, indent=1) + "\n")


def recorded(tree, words, workers, folder):
    """`{case: digest or error}` of what a tree exports, by `workers` processes that import the package from there."""
    (tree / "keras_vit_plugin" / "export").symlink_to("../export")
    paths = [Path(folder) / f"{tree.name}-{part}.json" for part in range(workers)]
    processes = []
    for part, path in enumerate(paths):
        command = [sys.executable, __file__, *words, "--record", path, "--part", f"{part}/{workers}"]
        log = path.with_suffix(".log").open("w")
        environment = {**os.environ, "PYTHONPATH": str(tree)}
        processes.append(subprocess.Popen(list(map(str, command)), env=environment, stdout=log, stderr=log))
    for process, path in zip(processes, paths):
        if process.wait():
            sys.exit(f"A process that exports died:\n{path.with_suffix('.log').read_text()[-4000:]}")
    return {case: digest for path in paths for case, digest in json.loads(path.read_text()).items()}


def tree_of(commit, folder):
    """A folder with the files of a commit; of the working tree where it is None."""
    tree = Path(folder) / ("new" if commit is None else "base")
    tree.mkdir()
    if commit is None:
        for name in ("export", "keras_vit_plugin"):
            shutil.copytree(REPOSITORY / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        return tree
    archive = subprocess.run(["git", "archive", commit], cwd=REPOSITORY, check=True, capture_output=True)
    subprocess.run(["tar", "-x", "-C", tree], input=archive.stdout, check=True)
    return tree


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="only cases whose names hold all of these, such as vit_test int8")
    parser.add_argument("--base", default="HEAD", help="the commit to compare with")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="where the base's digests are kept, and read if they are there")
    parser.add_argument("--record", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--part", default="0/1", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.record:
        record(arguments.record, arguments.words, *map(int, arguments.part.split("/")))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        base = {}
        if arguments.keep and arguments.keep.exists():
            base = json.loads(arguments.keep.read_text())
        else:
            base = recorded(tree_of(arguments.base, folder), arguments.words, arguments.workers, folder)
            if arguments.keep:
                arguments.keep.write_text(json.dumps(base, indent=1) + "\n")
        new = recorded(tree_of(None, folder), arguments.words, arguments.workers, folder)
    differing = [case for case in new if new[case] != base.get(case)]
    for case in differing:
        print(f"{case}:\n    {base.get(case)}\n    {new[case]}")
    print(f"{len(new) - len(differing)} of {len(new)} exports are as those of {arguments.base}.")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
