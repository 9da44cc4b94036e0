"""The quantization modes: a file each, and the table of them."""

import difflib

from ..mode import Mode
from .auto.auto import Auto
from .dynamic import Dynamic
from .float16 import Float16
from .float32 import Float32
from .int4 import Int4
from .int8 import Int8
from .integer_only import Int8Full, Int16x8

MODES = {mode.name: mode for mode in (Float32, Float16, Dynamic, Int8, Int8Full, Int16x8, Int4, Auto)}
ALIASES = {alias: name for name, mode in MODES.items() for alias in mode.aliases}


def mode_of(quantize, **options):
    """The `Mode` that a caller asks for.

    Args:
        quantize: the name of a mode, one of its aliases, a `Mode`, or a class of them.
        options: of the mode, by name; those that are None count as not given.

    Raises:
        ValueError: no mode has the name; the mode has no such option, or not this value of it.
    """
    options = {name: value for name, value in options.items() if value is not None}
    if isinstance(quantize, Mode):
        if options:
            raise ValueError(f"`quantize` holds the options of the mode already; got {_listed(options)} besides.")
        return quantize
    mode = quantize if isinstance(quantize, type) and issubclass(quantize, Mode) else _named(quantize)
    if unknown := [option for option in options if option not in mode.__dataclass_fields__]:
        raise ValueError(_no_option(mode, unknown[0], options[unknown[0]]))
    return mode(**options)


def _named(quantize):
    """The class of modes of a name or an alias."""
    name = ALIASES.get(str(quantize).lower(), str(quantize).lower())
    if name not in MODES:
        closest = difflib.get_close_matches(name, [*MODES, *ALIASES], n=3, cutoff=0.0)
        raise ValueError(
            f"`quantize` must be one of {', '.join(MODES)}; got quantize={quantize!r}. The closest are: "
            f"{', '.join(closest)}."
        )
    return MODES[name]


def mode_from_dict(values):
    """The `Mode` that `Mode.to_dict` was of; what a newer version of this package adds is an error.

    Raises:
        ValueError: `values` are of no mode.
    """
    if not isinstance(values, dict) or values.get("mode") not in MODES:
        raise ValueError(f"`mode` must be one of {', '.join(MODES)}, got {str(values)[:100]}")
    options = {name: value for name, value in values.items() if name != "mode"}
    return mode_of(values["mode"], **options)


def tolerance_of_other_file(has_integers):
    """The `Tolerance` of a file that this package did not make.

    Args:
        has_integers: whether it holds integer weights or activations.
    """
    return (Int8 if has_integers else Float16).tolerance


def _no_option(mode, option, value):
    with_it = [name for name, other in MODES.items() if option in other.__dataclass_fields__]
    instead = ": pass tolerance=Tolerance(min_agreement=...)" if option == "min_agreement" else ""
    if not with_it:
        has = ", ".join(mode.__dataclass_fields__) or "none"
        return f"quantize={mode.name!r} has no option `{option}`; its options: {has}. Got {option}={value!r}."
    names = " or ".join(f"quantize={name!r}" for name in with_it)
    return f"`{option}` goes with {names}, got {option}={value!r} with quantize={mode.name!r}{instead}."


def _listed(options):
    return ", ".join(f"{name}={value!r}" for name, value in options.items())
