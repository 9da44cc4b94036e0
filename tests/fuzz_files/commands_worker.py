"""Runs commands one after the other in one process: TensorFlow is imported once. The campaign starts it as a program.

Requests are JSON lines on standard input: `{"argv": [...], "folder": ..., "stdin": path or null}` runs a command there,
with what it prints, native libraries included, in the files `stdout` and `stderr` beside the folder; `{"call": "module:
function", "arguments": [...]}` calls a function of this folder. The answer is `{"code": exit code}`.
"""

import importlib
import importlib.util
import json
import os
import sys
import traceback
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def keras_vit(arguments):
    from keras_vit_plugin.cli import main

    main(args=arguments, prog_name="keras-vit")


def prepare(arguments):
    sys.argv = ["prepare.py", *arguments]
    _example("web/prepare.py").main()


def vit(arguments):
    sys.argv, program = ["vit.py", *arguments], _example("on_device/vit.py")
    if "unreadable" in vars(program):
        program.unreadable.clear()
    sys.exit(program.main())


def fake(arguments):
    importlib.import_module("fake_commands").main(arguments)


PROGRAMS = {"keras-vit": keras_vit, "prepare.py": prepare, "vit.py": vit, "fake": fake}


def _example(path):
    name = Path(path).stem
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / path)
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def exit_code(function, *arguments):
    """Calls a function as Python would a program, and returns its exit code; a traceback is printed."""
    try:
        function(*arguments)
        return 0
    except SystemExit as end:
        if end.code is not None and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    except BaseException:
        traceback.print_exc()
        return 1


def run(request):
    """The exit code of a request's command."""
    folder = Path(request["folder"])
    os.chdir(folder)
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    kept = [os.dup(descriptor) for descriptor in (0, 1, 2)]
    for descriptor, path, how in (
        (0, request.get("stdin") or os.devnull, os.O_RDONLY),
        (1, folder.with_name("stdout"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        (2, folder.with_name("stderr"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ):
        opened = os.open(path, how)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115, it lasts as long as the command
    try:
        return exit_code(PROGRAMS[request["argv"][0]], request["argv"][1:])
    finally:
        sys.__stdout__.flush()
        sys.__stderr__.flush()
        for descriptor, original in enumerate(kept):
            os.dup2(original, descriptor)
            os.close(original)


def call(request):
    module, _, function = request["call"].partition(":")
    return exit_code(getattr(importlib.import_module(module), function), *request["arguments"])


def serve():
    sys.path.insert(0, str(Path(__file__).parent))
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not come between the answers
    for line in requests:
        request = json.loads(line)
        print(json.dumps({"code": run(request) if "argv" in request else call(request)}), file=answers, flush=True)


if __name__ == "__main__":
    serve()
