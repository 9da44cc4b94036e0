"""A case by its number: a changed file, and a command that reads it."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from random import Random

from command_lines import command_line
from formats import FORMATS

COMMAND_LINE = "command line"
NAMES = (*FORMATS, COMMAND_LINE)
TURNS = tuple(name for turn in range(3) for name in NAMES if turn == 0 or name not in FORMATS or not FORMATS[name].slow)
KERAS, LITERT, TFLITE_RUNTIME = "TensorFlow", "ai-edge-litert", "tflite-runtime"
ON_TFLITE_RUNTIME = 0.25  # of the cases of vit.py
OLD = b"what was there before"
TRIES = 50


@dataclass(frozen=True)
class Case:
    """What is run.

    Attributes:
        seed: its number.
        format: a name of `NAMES`.
        mutation: what was done to the file.
        argv: program and arguments.
        names: a refusal must give one of them.
        must_be_refused: whether any answer is wrong.
        file: the changed file or folder; None of a command line.
        stdin: a file to read from, or None.
        promises: names of checks in `verdict`.
        runtime: which process runs it.
    """

    seed: int
    format: str
    mutation: str
    argv: tuple[str, ...]
    names: tuple[str, ...]
    must_be_refused: bool = False
    file: Path | None = None
    stdin: Path | None = None
    promises: tuple[str, ...] = ()
    runtime: str = KERAS


def format_of(seed):
    return TURNS[seed % len(TURNS)]


def make_case(seed, folder, seeds):
    """Writes the files of a case into a folder, which is emptied, and returns the `Case`.

    Args:
        seed: an integer.
        folder: where the command runs.
        seeds: the folder of `make_seeds`.
    """
    random, name = Random(seed), format_of(seed)
    remove(folder)
    folder.mkdir(parents=True)
    if name == COMMAND_LINE:
        shutil.copytree(seeds, folder / "seeds")  # which a command may be told to write over
        argv, names, must = command_line(random)
        return Case(seed, name, "text", tuple(argv), names, must, runtime=runtime_of(argv, random))
    (folder / "seeds").symlink_to(seeds)
    form = FORMATS[name]
    source = random.choice(sorted(form.seeds))
    suffix = source[source.index(".") :] if "." in source else ""
    file = folder / f"{form.copy}{suffix}"
    file.parent.mkdir(exist_ok=True)
    mutation = mutated(form, seeds / source, file, random)
    template = random.choices(list(form.commands), list(form.commands.values()))[0]
    slots = {"PIXELS": "", **form.seeds[source], "F": str(file.relative_to(folder))}
    argv = template.format(**slots, D=os.path.dirname(slots["F"])).split()
    if "out.tflite" in argv and random.random() < 0.3:
        (folder / "out.tflite").write_bytes(OLD)
    must = getattr(mutation, "refused", False) and "{F}" in template
    what = mutation.__name__.replace("_", " ")
    stdin = file if argv[-1] == "-" else None
    names = ("-:",) if stdin else named(template, slots["F"])
    return Case(seed, name, what, tuple(argv), names, must, file, stdin, form.promises, runtime_of(argv, random))


def runtime_of(argv, random):
    if argv[0] != "vit.py":
        return KERAS
    return TFLITE_RUNTIME if random.random() < ON_TFLITE_RUNTIME else LITERT


def mutated(form, source, file, random):
    """Copies a seed, changes the copy, and returns the mutation."""
    for _ in range(TRIES):
        copy(source, file)
        mutation = random.choice(random.choice(form.mutations))
        try:
            mutation(file, random)
            return mutation
        except Exception:  # `Unfit`, or a library that does not write what the format has no place for
            continue
    raise RuntimeError(f"no mutation fits {source}")


def named(template, file):
    """The words of which a refusal must have one: the file's name, or the option that it was given to."""
    words = template.split()
    before = [words[place - 1] for place, word in enumerate(words) if word in ("{F}", "{D}") and place]
    options = [option.strip("-") for option in before if option.startswith("--")]
    folder = ["album"] if file.startswith("album") else []
    return ("mutated", *folder, *[f"`{option}`" for option in options], *[f"--{option}" for option in options])


def copy(source, to):
    """Copies a file or a folder, in the place of what is there."""
    remove(to)
    (shutil.copytree if source.is_dir() else shutil.copyfile)(source, to)


def remove(path):
    """Removes a file, a link or a folder, whatever is in it."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(os.fsencode(path))
