"""One export: what was asked for, with the model, its preprocessing, the images and the labels."""

from dataclasses import dataclass
from typing import Any

from keras_vit_plugin.image_model.answers import CLASSES
from keras_vit_plugin.image_model.check import check_model
from keras_vit_plugin.image_model.image_model import ImageModel, batch_of
from keras_vit_plugin.image_model.labels import check_label_per_output, checked_labels
from keras_vit_plugin.images.normalization import pixel_normalization
from keras_vit_plugin.images.preprocessing import Preprocessing, preprocessing_of

from .image_sets import Images, gather_all
from .quantization.mode import Setting
from .quantization.modes.auto.constraints import Constraints, checked_constraints
from .quantization.tolerance import USUAL
from .request import Request


@dataclass(frozen=True)
class Job:
    """All that the stages of an export need.

    Attributes:
        request: the `Request`.
        model: the Keras model.
        keras_model: the same as an `ImageModel`.
        preprocessing: how a photo becomes pixels.
        labels: class names in index order, or None.
        images: the `Images`.
        constraints: what a mode that chooses must keep, `Constraints`; None for another mode.
    """

    request: Request
    model: Any
    keras_model: ImageModel
    preprocessing: Preprocessing
    labels: list[str] | None
    images: Images
    constraints: Constraints | None

    @property
    def answers(self):
        """The `Answer`s of the model's outputs."""
        return self.keras_model.answers

    @property
    def setting(self):
        """What a mode is told of it, a `Setting`."""
        request = self.request
        return Setting(
            self.images.calibration,
            self.answers,
            request.target.has,
            request.target.cpu,
            request.input_dtype,
            request.output_dtype,
        )


def job_of(model, request):
    """The `Job` of a model and a `Request`.

    Raises:
        ValueError: the model, its outputs, the labels or the images do not fit what was asked for.
        FileNotFoundError: a path leads nowhere.
    """
    check_model(model)
    preprocessing = preprocessing_of(model, request.resize, request.interpolation, request.image_shape)
    scale, offset = pixel_normalization(model, preprocessing.channels, request.mean, request.std, request.pixels)
    keras_model = ImageModel(model, scale, offset, request.task, request.image_shape)
    _check_outputs(keras_model, request)
    labels = checked_labels(request.labels, keras_model)
    if request.target.needs_labels:
        _check_labels(labels, keras_model, preprocessing, request.target)
    constraints = checked_constraints(request.mode.constraints, keras_model.answers) if request.mode.chooses else None
    images = gather_all(
        request.calibration,
        request.verification,
        request.mode,
        0 if constraints is None else constraints.images_wanted,
        preprocessing,
        labels or (),
        keras_model.num_classes or 0,
        request.narrow_range,
    )
    _check_images(images, keras_model.answers, constraints)
    return Job(request, model, keras_model, preprocessing, labels, images, constraints)


def _check_outputs(model, request):
    """Raises `ValueError` where what the model gives does not go with the arguments."""
    fixed, target, tolerance = batch_of(model.model), request.target, request.tolerance
    if fixed not in (None, request.batch_size):
        raise ValueError(
            f"`batch_size` must be {fixed}, to which the model's input is fixed, got batch_size={request.batch_size}."
        )
    answers = model.answers
    tasks = ", ".join(f"{answer.name} ({answer.task})" for answer in answers)
    decides = any(answer.has_decisions for answer in answers)
    if tolerance is not None and tolerance.min_agreement not in (None, USUAL) and not decides:
        raise ValueError(
            f"`tolerance` has min_agreement={tolerance.min_agreement}, but the model decides nothing: it gives {tasks}"
            ". Pass Tolerance(None, min_snr_db), or say with `task` what its outputs mean."
        )
    if target.needs_labels and (len(answers) != 1 or not decides):
        raise ValueError(f"target={target.name!r} takes a classifier with one output; the model gives {tasks}.")
    clashing = set(request.outputs) & {answer.name for answer in answers}
    if clashing:
        raise ValueError(f"`outputs` has {sorted(clashing)}, which the model gives already.")


def _check_labels(labels, model, preprocessing, target):
    """Raises `ValueError` where a target that shows names cannot."""
    check_label_per_output(labels, model, target.name)
    if labels is None or preprocessing.channels != 3:
        lacking = "`labels`, got none" if labels is None else f"RGB images, got {preprocessing.channels} channel(s)"
        raise ValueError(f"target={target.name!r} needs {lacking}.")


def _check_images(images, answers, constraints):
    """Raises `ValueError` where the images cannot tell what is asked of them."""
    others = [answer for answer in answers if answer.task != CLASSES]
    if len(images.verification) < 2 and others:
        raise ValueError(
            f"`verification` must hold two images or more, got {len(images.verification)}: an error of "
            f"{others[0].name!r} ({others[0].task}) is measured by how much it differs between images."
        )
    if constraints is not None and constraints.max_top1_drop is not None and images.held_out_labels is None:
        raise ValueError("`max_top1_drop` needs labels: give a folder with labels.csv, or a sub-folder per class.")
