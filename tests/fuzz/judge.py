"""One case from its seed to its outcome."""

import contextlib
import json
import re
import tempfile
import time
import traceback
import warnings
from dataclasses import dataclass
from pathlib import Path

import click.testing
import keras
import numpy as np
import oracle
from random_cases import given_as, random_case, save_pictures
from random_models import random_model

import keras_vit_plugin as kv
from keras_vit_plugin.cli import main as command

WRITTEN, REFUSED, MUST_NOT, WRONG, CRASH, HANG = "right", "refused", "must be written", "wrong", "crash", "hang"
FAULTS = (MUST_NOT, WRONG, CRASH, HANG)
DOCUMENTED = (ValueError, ImportError, FileNotFoundError, kv.export.ParityError)
PACKAGE = {Path(kv.__file__).parent, Path(kv.export.__file__).parent}
LONGEST_MESSAGE = 600  # characters, and 150 more for each output
# What only a developer of a compiler can read.
RAW = re.compile(r"\n|loc\(|\.cc:\d|0x[0-9a-f]{6}|Traceback|tfl\.|\"tf\.|<[\w.]+ object|KerasTensor|Node number")
NAMES = {"regression": "values", "embedding": "embedding", "features": "features"}  # of a single output
SAME_DB, EXACT_DB = 0.5, 60.0  # above so many dB rounding is measured, which threads change
FEW_IMAGES = 24
WORSE_DB, FAR_DB = 3.0, 6.0  # below the tolerance, and below the claim


class Wrong(AssertionError):
    """A file, or what is said of it, is wrong."""


class Refused(Exception):
    """The command has refused; holds its one line."""


@dataclass
class Result:
    """What became of a case: `detail` in a line, `trace` in full."""

    seed: int
    mode: str = ""
    target: str = ""
    road: str = ""
    what: str = ""
    outcome: str = WRITTEN
    detail: str = ""
    trace: str = ""
    seconds: float = 0.0


def judge(seed, made_by=random_case):
    """The `Result` of a seed, whose `Case` is `made_by(seed)`; raises nothing."""
    started, result = time.perf_counter(), Result(seed)
    try:
        case = made_by(seed)
        result.mode, result.target, result.road = case.mode, case.target, "command" if case.by_command else "function"
        result.what = (
            f"{case.policy}, {case.made.parts}, {0 if case.calibration is None else len(case.calibration)} "
            f"calibration images as {case.source}, {case.arguments}"
        )
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result.detail = _try(case, Path(folder))
    except Wrong as error:
        result.outcome, result.detail, result.trace = WRONG, str(error), traceback.format_exc()
    except Refused as error:
        result.detail, result.trace = str(error), traceback.format_exc()
        result.outcome = _of_message(case, result.detail)
    except Exception as error:
        result.detail, result.trace = f"{type(error).__name__}: {error}", traceback.format_exc()
        raised_in = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        meant = isinstance(error, DOCUMENTED) and not isinstance(error, kv.export.InvalidModelFile)
        meant = meant and PACKAGE & set(raised_in.parents)
        result.outcome = _of_message(case, str(error)) if meant else CRASH
    result.seconds = time.perf_counter() - started
    return result


def _of_message(case, text):
    if RAW.search(text) or len(text) > LONGEST_MESSAGE + 150 * len(case.made.heads):
        return CRASH
    # A head that tells images apart by a thousandth of what enters it is beyond float16.
    excused = case.mode == "float16" and "too far from the Keras model" in text
    return MUST_NOT if case.must_be_written and not excused else REFUSED


def _try(case, folder):
    """Saves, loads, exports and compares; returns a line."""
    model = case.made.model if case.policy == "float32" else random_model(case.seed, case.policy).model
    if case.compiled:
        model.compile(loss=case.compiled)
    model.save(folder / "m.keras")
    if case.policy == "float32":
        loaded = keras.models.load_model(folder / "m.keras")
        _check_loaded(case, loaded)
    else:
        loaded = keras.models.load_model(folder / "m.keras")
    path = folder / "m.tflite"
    export = _by_command if case.by_command else _by_function
    try:
        report = export(case, loaded, folder, path)
    except Exception as error:
        if path.exists():
            raise Wrong(f"a file was written in spite of {error}") from error
        raise
    measured = _check_file(case, report, path)
    _check_others(case, loaded, folder, path, measured)
    return f"{report['mode']} at {', '.join(f'{db:.1f} dB' for db in measured)}"


def _check_loaded(case, loaded):
    reference = case.made.outputs(case.fresh[:4])
    kept, case.made.model = case.made.model, loaded
    try:
        again = case.made.outputs(case.fresh[:4])
    finally:
        case.made.model = kept
    for one, other in zip(reference, again):
        if not np.allclose(one, other, rtol=1e-3, atol=1e-4 * np.abs(one).max()):
            raise Wrong("the loaded Keras model answers otherwise than the saved one")


def _by_function(case, model, folder, path):
    calibration = given_as(case.source, case.calibration, folder / "photos")
    options = {**case.made.normalization, **case.arguments, "calibration": calibration}
    of_mode = {name: options.pop(name) for name in ("prefer", "block_size") if name in options}
    options |= {"quantize": kv.export.mode_of(case.mode, **of_mode), "target": case.target}
    options["verification"] = case.verification
    return kv.export.export_tflite(model, path, **options).to_dict()


def _by_command(case, model, folder, path):
    options = {**case.made.normalization, **case.arguments, "quantize": case.mode, "target": case.target}
    if labels := options.pop("labels", None):
        options["labels"] = folder / "labels.txt"
        options["labels"].write_text("\n".join(labels) + "\n")
    for name in ("calibration", "verification"):
        if (images := getattr(case, name)) is not None:
            options[name] = save_pictures(images, folder / name)
    known = {name for parameter in command.commands["export"].params for name in parameter.opts}
    words = []
    for name, value in options.items():
        option = "--" + name.replace("_", "-")
        if option not in known:  # the command cannot say it, the function can
            return _by_function(case, model, folder, path)
        words += [option, ",".join(map(str, value)) if isinstance(value, list) else str(value)]
    return json.loads(_run("export", folder / "m.keras", path, *words, "--json"))


def _run(*words):
    """What a subcommand prints; it is called past the group, which turns the process's standard error off."""
    done = click.testing.CliRunner().invoke(command.commands[words[0]], [str(word) for word in words[1:]])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    if done.exit_code:
        lines = [line for line in done.output.splitlines() if line.startswith("Error: ")]
        if done.exit_code != 1 or len(lines) != 1 or not done.output.rstrip().endswith(lines[0]):
            raise Wrong(f"`keras-vit {words[0]}` ends with {done.exit_code}: {done.output[-2000:]}")
        raise Refused(lines[0].removeprefix("Error: "))
    return done.stdout


def _check_file(case, report, path):
    """Compares answers and claims with what the oracle finds; returns the SNR of each output on fresh images."""
    expected = _expected_answers(case)
    told = [(answer["name"], answer["task"], answer["activation"]) for answer in report["answers"]]
    if told != expected:
        raise Wrong(f"the report says of the outputs {told}, they are {expected}")
    claims = [report["parity"], *report["parity"].get("others", ())]
    tolerance = kv.export.MODES[report["mode"]].tolerance
    if case.verification is not None and report["verified_on"] == "verification":
        for (name, _, _), (db, same), claim in zip(
            expected, _measured(case, path, case.verification, expected), claims
        ):
            if abs(min(db, EXACT_DB) - min(claim["snr_db"], EXACT_DB)) > SAME_DB:
                raise Wrong(f"{name}: {claim['snr_db']:.2f} dB are claimed, they are {db:.2f}")
            if (
                (same is None) != (claim["agreement"] is None)
                or same is not None
                and (abs(same - claim["agreement"]) > 1.01 / len(case.verification))
            ):
                raise Wrong(f"{name}: an agreement of {claim['agreement']} is claimed, it is {same}")
    fresh = _measured(case, path, case.fresh, expected)
    for (name, _, _), (db, _), claim in zip(expected, fresh, claims):
        if not _few(case) and db < min(tolerance.min_snr_db - WORSE_DB, claim["snr_db"] - FAR_DB):
            raise Wrong(
                f"{name}: {db:.1f} dB on fresh images, {claim['snr_db']:.1f} on {report['verified_on']} ones, wanted "
                f"{tolerance.min_snr_db}"
            )
    return [db for db, _ in fresh]


def _few(case):
    """Whether the package warns that the calibration images are few: then the file need not suit others."""
    return case.calibration is not None and len(case.calibration) < FEW_IMAGES


def _expected_answers(case):
    heads = case.made.heads
    if case.target == "mediapipe":
        return [("probabilities", heads[0].task, "softmax" if heads[0].task == "classes" else "sigmoid")]
    if len(heads) > 1:
        return [(head.name, head.task, head.activation) for head in heads]
    name = NAMES.get(heads[0].task, "logits" if heads[0].activation == "linear" else "probabilities")
    return [(name, heads[0].task, heads[0].activation)]


def _measured(case, path, images, expected):
    """`(SNR, agreement)` of each output."""
    computed, references = oracle.file_outputs(path, images), case.made.outputs(images)
    wanted = [name for name, _, _ in expected] + list(case.arguments.get("outputs", ()))
    if sorted(computed) != sorted(wanted):
        raise Wrong(f"the file has the outputs {sorted(computed)}, wanted {sorted(wanted)}")
    found = []
    for head, (name, task, activation), reference in zip(case.made.heads, expected, references):
        if activation != head.activation:
            reference = oracle.as_probabilities(task, head.activation, reference)
        if computed[name].shape != reference.shape:
            raise Wrong(f"{name}: shape {computed[name].shape}, the model's is {reference.shape}")
        found.append(
            (
                oracle.snr_db(task, activation, reference, computed[name]),
                oracle.agreement(task, activation, reference, computed[name]),
            )
        )
    if "embedding" in case.arguments.get("outputs", ()) and not hasattr(case.made.model, "distillation_pooler"):
        model = case.made.model
        vectors = np.asarray(model.pooler(model.backbone(case.made.input_of(images))))
        db = oracle.snr_db("embedding", "linear", vectors, computed["embedding"])
        if db < kv.export.MODES[case.mode].tolerance.min_snr_db - WORSE_DB:
            raise Wrong(f"the embedding is at {db:.1f} dB")
    return found


def _check_others(case, model, folder, path, measured):
    """Looks at the file by the package's other doors: `inspect` always, the others sometimes."""
    kv.export.inspect(path)
    chosen = np.random.default_rng([case.seed, 3]).random()
    if case.by_command:
        photos = save_pictures(case.fresh[:3], folder / "three")
        _run("inspect", path)
        if len(case.made.heads) == 1 and case.made.heads[0].task != "features":  # of which there is nothing to print
            _run("run", path, *sorted(photos.iterdir()))
    if chosen < 0.4:
        options = case.made.normalization | {name: case.arguments[name] for name in ("task",) if name in case.arguments}
        parity = kv.export.verify(model, path, case.fresh, **options)
        for db, claim in zip(measured, (parity, *parity.others)):
            if abs(min(db, EXACT_DB) - min(claim.snr_db, EXACT_DB)) > SAME_DB:
                raise Wrong(f"`verify` says {claim.snr_db:.2f} dB of {claim.name}, they are {db:.2f}")
    elif chosen < 0.6 and case.target != "mediapipe":
        normalization = {name: value for name, value in case.made.normalization.items() if name in ("mean", "std")}
        if normalization == case.made.normalization:
            with contextlib.suppress(ValueError):  # it does not take every file
                kv.export.debug(model, path, case.calibration, case.fresh[:8], **normalization)
