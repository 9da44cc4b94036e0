"""The types of what a file says of itself: anyone can write it."""

from keras_vit_plugin.image_model.answers import LINEAR, SIGMOID, SOFTMAX, TASKS, Answer
from keras_vit_plugin.images.preprocessing import shortened

MOST_OPTIONS = 32  # of a mode


def _is_text(value):
    return isinstance(value, str)


def _is_list(value):
    return isinstance(value, list) and len(value) > 0


def _is_texts(value):
    return _is_list(value) and all(map(_is_text, value))


def is_count(value):
    """Whether it is an integer that is not negative, and no larger than any number of images."""
    return type(value) is int and 0 <= value < 1 << 31


def _is_parity(values):
    """Whether all is a number that has to be one, of the further outputs too."""
    if not isinstance(values, dict) or not is_count(values.get("images", 0)):
        return False
    others = values.get("others", [])
    numbers = [value for name, value in values.items() if name not in ("name", "task", "others") and value is not None]
    return (
        all(type(number) in (int, float) and abs(number) < 1e300 for number in numbers)
        and values.get("snr_db", 0) is not None
        and ("images" in values or values.get("agreement", values.get("top1_agreement")) is None)
        and isinstance(others, list)
        and all(isinstance(other, dict) and not other.get("others") and _is_parity(other) for other in others)
    )


def _is_config(values):
    """Whether it is the name of some mode and its options, each a text, a number or null."""
    return (
        isinstance(values, dict)
        and len(values) <= MOST_OPTIONS
        and _is_text(values.get("mode"))
        and all(value is None or type(value) in (str, int, float, bool) for value in values.values())
    )


def _is_one_of(names):
    return lambda value: _is_text(value) and value in names


def _or_null(function):
    return lambda value: value is None or function(value)


TYPES = {
    **dict.fromkeys(
        ("version", "mode", "target", "verified_on", "verified_by", "weights_sha256"), ("a text", _is_text)
    ),
    "config": ("a mode and its options", _is_config),
    **dict.fromkeys(("calibrated_for", "rejected"), ("a text", _is_text)),
    "outputs": ("a list of names", _is_texts),
    "labels": ("a list of names or null", _or_null(_is_texts)),
    "parity": ("measurements", _is_parity),
    "calibration_sha256": ("a text or null", _or_null(_is_text)),
    "held_out": ("a count", is_count),
}


def check_types(values):
    """Raises `ValueError` where one of `TYPES` is of another type, `KeyError` where it is missing."""
    for name, (what, fits) in TYPES.items():
        _checked(name, values[name], what, fits)


def _checked(name, value, what, fits):
    if not fits(value):
        raise ValueError(f"`{name}` must be {what}, got {shortened(value)}")
    return value


def checked_text(name, value):
    """The value; raises `ValueError` where it is no text."""
    return _checked(name, value, "a text", _is_text)


def checked_answers(values):
    """The `Answer`s of a list of dictionaries; raises `ValueError` or `KeyError` where one is wrong."""
    return tuple(map(_answer, _checked("answers", values, "a list", _is_list)))


def _answer(values):
    if not isinstance(values, dict) or not values.keys() <= {"name", "task", "activation"}:
        raise ValueError(f"`answers` must hold a name, a task and an activation each, got {shortened(values)}")
    values = {"activation": LINEAR, **values}
    for name, known in (("name", None), ("task", TASKS), ("activation", (LINEAR, SOFTMAX, SIGMOID))):
        what = "a text" if known is None else f"one of {', '.join(known)}"
        _checked(name, values[name], what, _is_text if known is None else _is_one_of(known))
    return Answer(**values)
