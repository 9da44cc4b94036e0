"""What the exporter stores in a file about it: one schema, one reader, which takes nothing on trust."""

from dataclasses import asdict, dataclass, fields, replace

from keras_vit_plugin.image_model.answers import (
    BINARY,
    CLASSES,
    EMBEDDING,
    FEATURES,
    LINEAR,
    MULTI_LABEL,
    REGRESSION,
    SIGMOID,
    SOFTMAX,
    Answer,
)
from keras_vit_plugin.images.preprocessing import Preprocessing, shortened

from .consistency import sides_of
from .errors import InvalidModelFile
from .metadata_types import check_types, checked_answers, checked_text, is_count
from .operators import op_name
from .stored_metadata import get_metadata

# 2 had `mode` and `prefer` in place of `config`; 1 had no `schema`, no `answers`, and `top1_agreement` for `agreement`.
SCHEMA = 3
PACKAGE = "keras_vit_plugin"


@dataclass(frozen=True)
class Metadata:
    """What a file says of itself.

    Attributes:
        version: of this package.
        config: the mode with its options, `{"mode": name, option: value}`, as `Mode.to_dict` gives it.
        target: as for `export_tflite`.
        outputs: names of all outputs, those of `answers` first.
        answers: what the model's outputs mean, in the file's order.
        labels: class names in index order, or None.
        preprocessing: how a photo becomes pixels.
        parity: `ParityReport.to_dict()` of the export.
        verified_on, verified_by: which images, and which runtime, that was measured with.
        weights_sha256, calibration_sha256: hashes; the second is None where nothing was calibrated.
        calibrated_for, held_out: the mode that was asked for, and how many calibration images were to be held out at
            most: by these the images that it was calibrated on are found again.
        rejected: why the file is too far from its model, where it was kept all the same; empty otherwise.
    """

    version: str
    config: dict
    target: str
    outputs: tuple[str, ...]
    answers: tuple[Answer, ...]
    labels: list[str] | None
    preprocessing: Preprocessing
    parity: dict
    verified_on: str
    verified_by: str
    weights_sha256: str
    calibration_sha256: str | None
    calibrated_for: str = ""
    held_out: int = 0
    rejected: str = ""

    @property
    def mode(self):
        """The name of the mode."""
        return self.config["mode"]

    def to_dict(self):
        """For JSON; the package's name comes first, by which programs without the TFLite schema find it."""
        values = {PACKAGE: self.version, "schema": SCHEMA, "mode": self.mode, **asdict(self)}
        del values["version"]
        return values | {"colour": self.preprocessing.colour}


def read_metadata(model):
    """The `Metadata` of a file, or None where this package did not make it.

    Args:
        model: the schema's object tree.

    Raises:
        InvalidModelFile: a newer version of this package made it; or what it says is incomplete, of a wrong type, or
            not what its graph takes and gives.
    """
    stored = get_metadata(model)
    if not stored:
        return None
    metadata = as_metadata(stored, model)
    _check_fits(metadata, model)
    return metadata


def as_metadata(stored, model=None):
    """As `read_metadata`, from the dictionary that is stored in a file; without `model` nothing is held against it."""
    schema = stored.get("schema", 1)
    if not is_count(schema) or schema > SCHEMA:
        raise InvalidModelFile(
            f"made by keras-vit-plugin {stored.get(PACKAGE)!s:.20}, whose metadata (schema {schema!s:.20}) this "
            f"version does not know (schema {SCHEMA} and older): upgrade keras-vit-plugin."
        )
    unknown = {"verified_by": "", "calibration_sha256": None, "rejected": ""}
    values = {**unknown, "calibrated_for": stored.get("mode"), "held_out": 0, **stored}
    values["version"] = values.get(PACKAGE)
    try:
        if schema < 3:
            values["config"] = _older_config(stored)
        check_types(values)
        if values["mode"] != values["config"]["mode"]:
            raise ValueError(f"`mode` is {shortened(values['mode'])}, `config` of {shortened(values['config'])}")
        if schema == 1:
            parity, name = values["parity"], values["outputs"][0]
            values["parity"] = {"agreement": parity.get("top1_agreement"), **parity}
            first = Answer(name, CLASSES, SOFTMAX if name == "probabilities" else LINEAR)
            values["answers"] = (answers_of(model, (first,))[0] if model else first,)
            guess = None if model is None else guessed_answer(model)
            if guess is not None and guess.task != EMBEDDING:  # schema 1 called all of them classes
                values["answers"] = (replace(guess, name=first.name),)
        else:
            values["answers"] = checked_answers(values["answers"])
        values["outputs"] = tuple(values["outputs"])
        values["preprocessing"] = Preprocessing.from_dict(values["preprocessing"])
        return Metadata(**{field.name: values[field.name] for field in fields(Metadata)})
    except KeyError as error:
        raise InvalidModelFile(f"its metadata (schema {schema}) is incomplete: {error}") from error
    except ValueError as error:
        raise InvalidModelFile(f"its metadata (schema {schema}) is wrong: {error}") from error


def _older_config(stored):
    """The `config` of what schema 1 or 2 stored: a preference stood beside any mode, and counted for int8 alone."""
    mode, prefer = checked_text("mode", stored["mode"]), checked_text("prefer", stored.get("prefer", "speed"))
    return {"mode": mode, "prefer": prefer} if mode == "int8" else {"mode": mode}


def _check_fits(metadata, model):
    """Raises `InvalidModelFile` unless the graph takes and gives what the metadata say."""
    graph, size = model.subgraphs[0], metadata.preprocessing.image_shape
    shapes = [tuple(sides_of(graph.tensors[index])) for index in graph.inputs]
    if [shape[1:] for shape in shapes] != [size]:
        raise InvalidModelFile(f"its metadata say that it takes images of {size}, its graph takes {shapes}")
    names = _names_of_outputs(model)
    if len({answer.name for answer in metadata.answers}) < len(metadata.answers):
        raise InvalidModelFile("its metadata say twice what an output means")
    wanted = {*metadata.outputs, *(answer.name for answer in metadata.answers)}
    if len(names) < max(len(metadata.outputs), len(metadata.answers)):
        raise InvalidModelFile(f"its metadata name {len(wanted)} outputs, its graph has {len(names)}")
    answer, labels = metadata.answers[0], metadata.labels
    shape = sides_of(graph.tensors[names.get(answer.name, next(iter(names.values())))])  # or the first
    wanted = (1, 2) if answer.task == BINARY else shape[1:] if len(shape) == 2 else ()
    if labels is not None and len(labels) not in wanted:
        raise InvalidModelFile(f"its metadata hold {len(labels)} class names, its output {answer.name!r} is {shape}")


def _names_of_outputs(model):
    """`{name: tensor}` of a file's outputs, by its signature where it has one."""
    graph = model.subgraphs[0]
    for signature in model.signatureDefs or []:
        if signature.signatureKey == b"serving_default" and signature.subgraphIndex == 0:
            return {entry.name.decode(): entry.tensorIndex for entry in signature.outputs}
    return {graph.tensors[index].name.decode(): index for index in graph.outputs}


def answers_of(model, like, indices=None):
    """What the outputs of any `.tflite` mean, by its last operators.

    Args:
        model: the schema's object tree.
        like: the `Answer`s whose names and tasks count where the graph tells nothing else; one per output that matters.
        indices: the tensor of each; None takes the graph's outputs in their order.

    Returns:
        A tuple as long as `like`.
    """
    graph = model.subgraphs[0]
    producer = {int(index): operator for operator in graph.operators for index in operator.outputs}
    found = []
    for answer, index in zip(like, graph.outputs if indices is None else indices):
        kind = _last_kind(model, producer, int(index))
        activation = {"SOFTMAX": SOFTMAX, "LOGISTIC": SIGMOID}.get(kind, LINEAR)
        found.append(Answer(answer.name, answer.task, activation if answer.has_decisions else LINEAR))
    return tuple(found)


def guessed_answer(model, index=None):
    """The `Answer` of an output in a file that says nothing of itself, by its shape and its last operator.

    Args:
        model: the schema's object tree.
        index: the output's tensor; None is the graph's first.

    Raises:
        InvalidModelFile: the graph has no output.
    """
    graph = model.subgraphs[0]
    producer = {int(index): operator for operator in graph.operators for index in operator.outputs}
    if index is None and not len(graph.outputs):
        raise InvalidModelFile("its graph gives nothing")
    index = int(graph.outputs[0]) if index is None else index
    shape = sides_of(graph.tensors[index])
    kind = _last_kind(model, producer, index)
    if len(shape) == 1:
        return Answer("probabilities", BINARY, SIGMOID) if kind == "LOGISTIC" else Answer("values", REGRESSION)
    if len(shape) != 2:
        return Answer("output", FEATURES)
    if kind == "SOFTMAX":
        return Answer("probabilities", CLASSES, SOFTMAX)
    if kind == "LOGISTIC":
        return Answer("probabilities", BINARY if shape[1] == 1 else MULTI_LABEL, SIGMOID)
    if shape[1] == 1:
        return Answer("values", REGRESSION)
    return Answer("logits", CLASSES) if kind == "FULLY_CONNECTED" else Answer("embedding", EMBEDDING)


def _last_kind(model, producer, index):
    """The kind of the operator that computes a tensor, behind those that convert or reshape it; None for an input."""
    while index in producer:
        kind = op_name(model, producer[index])
        if kind not in ("DEQUANTIZE", "QUANTIZE", "RESHAPE", "SQUEEZE", "CAST"):
            return kind
        index = int(producer[index].inputs[0])
    return None
