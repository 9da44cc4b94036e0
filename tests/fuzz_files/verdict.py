"""What the outcome of a case is: refused or answered as it should be, or a fault."""

import contextlib
import csv
import io
import json
import re
import zipfile
from dataclasses import dataclass

import numpy as np
from cases import OLD
from mutate_tflite import START, is_sealed
from PIL import Image
from seeds import NAMES, SIDE

REFUSED, ANSWERED = "refused", "answered"
SIGNAL, TRACEBACK, HANG, MEMORY = "signal", "traceback", "hang", "memory"
ESCAPE, LEFT, UNCLEAR, WRONG = "escape bytes", "file left behind", "unclear", "wrong in silence"
FAULTS = (SIGNAL, TRACEBACK, HANG, MEMORY, ESCAPE, LEFT, UNCLEAR, WRONG)
OF_A_PHOTO = "is no image that can be read"
A_FAULT = "This is a fault of keras-vit, not of yours: --traceback shows where."
MOST_LINES, MOST_CHARACTERS = 14, 4000  # of a refusal

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
NOT_FINITE = re.compile(r"(?<![\w./\\-])-?(nan|inf|infinity)(?![\w/.])", re.IGNORECASE)
REPR = re.compile(r"<class '|object at 0x|<HDF5|<KerasTensor|<tf\.|<keras\.|dtype=float32\)|Py_|File \"")
# Lines that are no part of a refusal: notes, and what native libraries print, which no command promises to hold back.
ASIDE = re.compile(
    r"Warning: |keras-vit: |INFO: |WARNING: |[IWE]\d{4} |\s*$|Usage: |Try |usage: "
    r"|vit\.py: (accuracy|no accuracy|labels are|names in|sub-folders|stopped)"
)
# Refusals that say of what they speak, but not by the name of the changed file: a comparison speaks of two files, a
# folder of the photos in it.
TOLD = re.compile(
    r"keeps less than|too far from|\(wanted |made from other weights|The Keras model gives|is no image that can be read"
    r"|has no blocks that are known|The weight '.*' holds NaN|Pass `pixels` \(--pixels\)|there is no such file"
    r"|unrecognized arguments|`model` must have|its image converter resizes to|The attention of the model is NaN"
)


@dataclass(frozen=True)
class Verdict:
    outcome: str
    detail: str = ""

    @property
    def is_fault(self):
        return self.outcome in FAULTS


def verdict(case, ran, before, after, seeds):
    """The `Verdict` of a case.

    Args:
        case: a `Case`.
        ran: what became of it, a `Ran`.
        before, after: `{path in the folder: content or None}` of its files, see `files_below`.
        seeds: the folder of `make_seeds`.
    """
    if ran.died:
        return Verdict(ran.died, ran.detail)
    out, err = ran.out.decode(errors="replace"), ran.err.decode(errors="replace")
    if "Traceback (most recent call last)" in out + err or A_FAULT in err:
        return Verdict(TRACEBACK, last_line(err.replace(A_FAULT, "")))
    if found := CONTROL.search(out + err):
        return Verdict(ESCAPE, repr((out + err)[max(0, found.start() - 60) : found.end() + 20]))
    if detail := left_behind(case, ran, before, after):
        return Verdict(LEFT, detail)
    if ran.code == 0:
        wrong = wrong_answer(case, out, err, after, seeds)
        return Verdict(WRONG, wrong) if wrong else Verdict(ANSWERED)
    unclear = unclear_refusal(case, ran.code, err + errors_in_json(case, out))
    return Verdict(UNCLEAR, unclear) if unclear else Verdict(REFUSED, last_line(err))


def last_line(text):
    lines = [line for line in text.splitlines() if line.strip() and not ASIDE.match(line)]
    return lines[-1].strip()[:600] if lines else "nothing is said"


def files_below(folder):
    """`{path: bytes of small files, else None}` of what is in a folder, without the seeds."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.parts[len(folder.parts)] != "seeds":
            small = path.is_file() and not path.is_symlink() and path.stat().st_size < 1 << 22
            found[path.relative_to(folder)] = path.read_bytes() if small else None
    return found


WRITTEN = ("out.tflite", "out.npz", "out.html", "site")


def left_behind(case, ran, before, after):
    """Which files a command left that it should not, or changed; empty where none."""
    changed = [path for path in after if path not in before or after[path] != before[path]]
    lost = [path for path in before if path not in after]
    if ran.code == 0:
        changed = [path for path in changed if path.parts[0] not in WRITTEN and case.file is not None]
    else:  # a site is begun anew the next time; an index is written of the photos that could be read
        allowed = ("site", "out.npz") if b"out.npz: " in ran.out else ("site",)
        changed = [path for path in changed if path.parts[0] not in allowed]
    said = [f"{name} in the folder for temporary files" for name in ran.left]
    return ", ".join([*map(repr, map(str, changed)), *[f"{str(path)!r} is lost" for path in lost], *said])


def errors_in_json(case, out):
    """`run --json` tells in its answer which photos cannot be read."""
    if case.argv[:2] != ("keras-vit", "run") or "--json" not in case.argv or not out.startswith("["):
        return ""
    with contextlib.suppress(ValueError):
        return "\n".join(photo["error"] for photo in json.loads(out) if "error" in photo)
    return ""


def unclear_refusal(case, code, err):
    """What a refusal lacks; empty where it is one sentence that names what is wrong."""
    for long in (argument for argument in case.argv if len(argument) > 200):
        err = err.replace(long, long[:40])  # a user may be told again what they typed
    lines = [line for line in err.splitlines() if not ASIDE.match(line)]
    photos = [line for line in lines if OF_A_PHOTO in line]  # each has a line of its own, however many there are
    lines = [line for line in lines if OF_A_PHOTO not in line] + photos[:1]
    said = "\n".join(lines)
    if code not in (1, 2):
        return f"exit code {code}: {said[:300]}"
    if not said.strip():
        return f"exit code {code} and nothing is said"
    if len(lines) > MOST_LINES or len(said) > MOST_CHARACTERS:
        return f"{len(lines)} lines of {len(said)} characters: {said[:300]}"
    if found := REPR.search(said):
        return f"{found[0]!r} is no word for a user: {said[:400]}"
    if not TOLD.search(said) and not any(name and name[:40] in said for name in case.names):
        return f"none of {', '.join(case.names)[:200]} is named: {said[:400]}"
    return ""


def wrong_answer(case, out, err, after, seeds):
    """What is wrong with an answer; empty where nothing is known to be."""
    if case.must_be_refused:
        return f"answered after {case.mutation!r}: {out[:200]}"
    if any(line.startswith("Error") for line in err.splitlines()):
        return f"exit code 0 with an error: {last_line(err)}"
    out = out.replace("The model answers with NaN or infinity.", "")  # what `explain` tells of such weights
    if (found := NOT_FINITE.search(out)) and case.file is not None:
        return f"{found[0]!r} is printed: {out[max(0, found.start() - 100) : found.end() + 20]!r}"
    for path, content in after.items():
        if path.name == "out.tflite" and content != OLD and content is not None and not is_sealed(content):
            return "the file that was written has no hash, or a wrong one"
    for promise in case.promises:
        try:
            wrong = globals()[promise](case, out, seeds)
        except Exception as error:  # it is answered, and Pillow or Python cannot read the same
            wrong = f"{promise} cannot be told: {type(error).__name__}: {error}"
        if wrong:
            return wrong
    return ""


def seal_holds(case, out, seeds):
    """A file with the exporter's marks and another hash is not to be read."""
    content = case.file.read_bytes()
    marked = START in content or b'"content_sha256"' in content
    return "a changed file is answered, whose hash is wrong" if marked and not is_sealed(content) else ""


def archive_is_whole(case, out, seeds):
    """Numbers of a zip archive that are not those of its checksums are not to be read."""
    if " bomb" in case.mutation or "table field" in case.mutation:
        return ""
    try:
        with zipfile.ZipFile(case.file) as archive:
            bad = archive.testzip()
    except Exception:  # whatever a damaged archive makes Python raise: the command found a way
        return ""
    return f"{bad} is not what its checksum says, and answered" if bad and bad != "metadata.json" else ""


def labels_stand(case, out, seeds):
    """Names that are printed are lines of the label file."""
    if "--json" not in case.argv:
        return ""
    text = case.file.read_bytes().decode("utf-8-sig")
    lines = [line.strip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    names = [answer["label"] for photo in json.loads(out) for answer in photo["top"]]
    strange = [name for name in names if name not in lines]
    return f"{strange[0]!r} is no line of the label file" if strange else ""


def answer_is_of_the_pixels(case, out, seeds):
    """A changed photo that is still one of 16 x 16 is answered as NumPy does of its pixels."""
    if "--json" not in case.argv or "--images" in case.argv:
        return ""
    said = json.loads(out)
    top = (said[0] if isinstance(said, list) else said)["top"]
    expected = answers_of_a_photo(case.file, seeds)
    if expected is None:
        return ""
    for answer in top:
        right = expected[NAMES.index(answer["label"])]
        if not abs(answer["probability"] - right) < 2e-3:
            return f"{answer['label']} has {answer['probability']:.4f}, NumPy says {right:.4f}"
    return ""


def accuracy_is_right(case, out, seeds):
    """The accuracy of `verify` is that of the photos and labels in the table."""
    table = case.file / "labels.csv"
    if "verify" not in case.argv or "--json" not in case.argv or not table.is_file():
        return ""
    said, right = json.loads(out).get("top1_accuracy_tflite"), []
    if said is None:
        return ""
    for row in csv.DictReader(io.StringIO(table.read_bytes().decode("utf-8-sig"), newline="")):
        label = row["label"].strip()
        try:
            answers = answers_of_a_photo(case.file / row["file"].strip(), seeds)
        except Exception:  # whatever a damaged image makes its decoder do: it is left out
            continue
        if answers is None:
            return ""
        right.append(answers.argmax() == (NAMES.index(label) if label in NAMES else float(label)))
    return "" if abs(np.mean(right) - said) < 1e-6 else f"accuracy {said} is told of {sum(right)} in {len(right)}"


def answers_of_a_photo(path, seeds):
    """The probabilities of the dense model, or None of a photo that has to be turned or resized."""
    with Image.open(path) as image:
        if (
            image.size != (SIDE, SIDE)
            or image.mode not in ("RGB", "L", "P", "RGBA")
            or image.getexif().get(0x0112, 1) != 1
        ):
            return None
        image.load()
        image.info.pop("transparency", None)
        pixels = np.asarray(image.convert("RGB"), np.float64)
    with np.load(seeds / "answers.npz") as weights:
        logits = (pixels / 255).reshape(-1) @ weights["kernel"] + weights["bias"]
    return np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
