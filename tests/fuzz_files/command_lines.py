"""Hostile texts on the command line: each is given to one option or argument of one command."""

import functools

ODD = (
    "",
    " ",
    "-",
    "--",
    "-v",
    ".",
    "..",
    "/nowhere",
    "*",
    "%s",
    "{0}",
    "$HOME",
    "~",
    "\\",
    "'",
    '"',
    "a\nb",
    "a=b",
    "=",
)
NUMBERS = ("nan", "inf", "-inf", "1e999", "-1", "0", "1e308", "1e-320", "65536", "2147483648", "99999999999999999999")
NO_NUMBERS = ("0x10", "1_000", "\u0661", "\u00bd", "1/0", "1/nan", "1,,2", "0.5,0.5", "1/3,1/3,1/3", "None", "[]", "{}")
PATHS = ("/dev/null", "/dev/zero", "/dev/stdin", "/nowhere/x.tflite", "x.tflite", "seeds", "seeds/photos")
FILES = tuple(f"seeds/{name}" for name in ("dense.tflite", "dense.keras", "labels.txt", "timm.npz", "photos/0.png"))
WORDS = ("classes", "=classes", "probabilities=binary", "a=classes,a=binary", "int8", "auto", "gpu", "vit_digits")
SHOWN = ("[bold]x[/bold]", "\x1b[31mred", "\x9b31m", "\u202e", "\udcff", "x" * 300, "x" * 100_000, "a/" * 3000)
TEXTS = (*ODD, *NUMBERS, *NO_NUMBERS, *PATHS, *FILES, *WORDS, *SHOWN)
NOT_FINITE = ("nan", "inf", "-inf", "1e999", "1/nan")
KERAS_VIT = {
    "export": "seeds/dense.keras out.tflite",
    "verify": "seeds/dense.keras seeds/dense.tflite --images seeds/photos",
    "debug": "seeds/vit.keras seeds/vit.tflite --images seeds/photos",
    "explain": "seeds/vit.keras seeds/photos/0.png --out out.png",
    "run": "seeds/dense.tflite seeds/photos/0.png",
    "inspect": "seeds/dense.tflite",
    "list": "",
}
QUANTIZED = "seeds/dense.keras out.tflite --quantize int8 --calibration seeds/photos"
DEMO = ("keras-vit demo --output seeds/labels.txt", "keras-vit demo --output seeds/labels.txt/x")  # all else lasts long
POSITIONS = (
    "MODEL",
    "OUT",
    "TFLITE",
    "IMAGES",
    "model",
    "path",
    "name=",
    "photo",
    "folder",
    "index",
    "source",
    "option",
)
OTHERS = {
    "vit.py classify seeds/dense.tflite seeds/photos/0.png": ("--threads", "--pixels"),
    "vit.py folder seeds/dense.tflite seeds/photos": ("--threads", "--pixels"),
    "vit.py camera seeds/dense.tflite seeds/frames.mjpg": ("--every", "--threads"),
    "vit.py embed seeds/dense.tflite seeds/photos out.npz": ("--threads",),
    "vit.py search seeds/dense.tflite seeds/index.npz seeds/photos/0.png": ("--count",),
    "vit.py benchmark seeds/dense.tflite --runs 1 --warm-up 0": ("--threads", "--warm-up", "--runs"),
    "prepare.py seeds/dense.keras --modes float32 --output site": ("--weights", "--calibration", "--labels", "--modes"),
}


@functools.cache
def options():
    """`{command of keras-vit: ((option, whether it is a number), ...)}`, as the command itself knows them."""
    import click

    from keras_vit_plugin.cli import main

    return {
        name: tuple(
            (parameter.opts[0], isinstance(parameter.type, (click.types.FloatParamType, click.types.IntParamType)))
            for parameter in main.commands[name].params
            if isinstance(parameter, click.Option) and not parameter.is_flag
        )
        for name in KERAS_VIT
    }


def command_line(random):
    """`(argv, names that a refusal may give, whether it must be refused)`."""
    if random.random() < 0.01:
        return random.choice(DEMO).split(" "), ("--output", "seeds/labels.txt"), True
    text = random.choice(TEXTS)
    if random.random() < 0.35:
        base, names = random.choice(sorted(OTHERS.items()))
        argv, option, number = base.split(), random.choice(names), False
        first = 1 if argv[0] == "prepare.py" else 2
        place = random.randrange(first, len(base.split(" --")[0].split())) if random.random() < 0.5 else None
        if option in argv:
            del argv[argv.index(option) : argv.index(option) + 2]
    else:
        command = random.choices(list(KERAS_VIT), (6, 3, 1, 1, 4, 2, 1))[0]
        base = QUANTIZED if command == "export" and random.random() < 0.2 else KERAS_VIT[command]
        argv = ["keras-vit", command, *base.split()]
        option, number = random.choice(options()[command] or (("", False),))
        positional = len(base.split(" --")[0].split())
        place = 2 + random.randrange(positional) if positional and (random.random() < 0.25 or not option) else None
    if place is None and not option:
        return [*argv, text], ("pattern", *told(text)), False
    if place is not None:
        argv[place] = text
        return argv, (*told(text), *POSITIONS), False
    number = number or option in ("--mean", "--std")
    if option in ("--runs", "--warm-up") and text in NUMBERS:
        text = "-1"  # who asks for many runs waits for them
    if option in ("--import", "--runtime-python") and text.startswith(("seeds", "/", ".")):
        text = "nothing"
    names = (option, option.strip("-").replace("-", "_"), option.strip("-"), *told(text))
    return [*argv, option, text], names, number and text in NOT_FINITE


def told(text):
    """A text as a refusal may show it."""
    return (repr(text), repr(text)[1:-1], text) if len(text.strip()) > 2 else (repr(text), f": {text}", f" {text}:")
