"""What the exporter stores in a file about it: one schema, one reader."""

from dataclasses import asdict, dataclass, fields, replace

from .answers import BINARY, CLASSES, EMBEDDING, FEATURES, LINEAR, MULTI_LABEL, REGRESSION, SIGMOID, SOFTMAX, Answer
from .flatbuffer import InvalidModelFile, get_metadata, op_name
from .preprocessing import Preprocessing

SCHEMA = 2  # 1 had no `schema`, no `answers`, and `top1_agreement` for `agreement`
PACKAGE = "keras_vit_plugin"


@dataclass(frozen=True)
class Metadata:
    """What a file says of itself.

    Attributes:
        version: of this package.
        mode, prefer, target: as for `export_tflite`.
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
    mode: str
    prefer: str
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

    def to_dict(self):
        """For JSON; the package's name comes first, by which programs without the TFLite schema find it."""
        values = {PACKAGE: self.version, "schema": SCHEMA, **asdict(self)}
        del values["version"]
        return values | {"colour": self.preprocessing.colour}


def read_metadata(model):
    """The `Metadata` of a file, or None where this package did not make it.

    Args:
        model: the schema's object tree.

    Raises:
        InvalidModelFile: a newer version of this package made it, or what it says is incomplete.
    """
    stored = get_metadata(model)
    return as_metadata(stored, model) if stored else None


def as_metadata(stored, model=None):
    """As `read_metadata`, from the dictionary that is stored in a file."""
    schema = stored.get("schema", 1)
    if not isinstance(schema, int) or schema > SCHEMA:
        raise InvalidModelFile(
            f"made by keras-vit-plugin {stored.get(PACKAGE)}, whose metadata (schema {schema}) this version does not "
            f"know (schema {SCHEMA} and older): upgrade keras-vit-plugin."
        )
    unknown = {"verified_by": "", "prefer": "speed", "calibration_sha256": None, "rejected": ""}
    values = {**unknown, "calibrated_for": stored.get("mode"), "held_out": 0, **stored}
    values["version"] = values.get(PACKAGE)
    try:
        if schema == 1:
            parity, name = values["parity"], values["outputs"][0]
            values["parity"] = {"agreement": parity.get("top1_agreement"), **parity}
            first = Answer(name, CLASSES, SOFTMAX if name == "probabilities" else LINEAR)
            values["answers"] = [answers_of(model, (first,))[0].to_dict() if model else first.to_dict()]
        values["answers"] = tuple(Answer(**answer) for answer in values["answers"])
        guess = guessed_answer(model) if schema == 1 and model is not None else None
        if guess is not None and guess.task != EMBEDDING:  # schema 1 called all of them classes
            values["answers"] = (replace(guess, name=values["answers"][0].name),)
        values["outputs"] = tuple(values["outputs"])
        values["preprocessing"] = Preprocessing.from_dict(values["preprocessing"])
        return Metadata(**{field.name: values[field.name] for field in fields(Metadata)})
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise InvalidModelFile(f"its metadata (schema {schema}) is incomplete: {error}") from error


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
    """
    graph = model.subgraphs[0]
    producer = {int(index): operator for operator in graph.operators for index in operator.outputs}
    index = int(graph.outputs[0]) if index is None else index
    sides = graph.tensors[index].shape
    shape = [] if sides is None else [int(side) for side in sides]
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
