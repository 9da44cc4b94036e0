"""One door for every weight file: `load_weights(model, path)`."""

from pathlib import Path

from keras_vit_plugin.checkpoints.keras_files import assign_keras_tensors, open_keras_tensors
from keras_vit_plugin.checkpoints.limits import RefusedFile
from keras_vit_plugin.checkpoints.plain_keras import UNSAID, is_of_plain_keras, same_answers
from keras_vit_plugin.checkpoints.tensor_files import open_tensor_file
from keras_vit_plugin.checkpoints.timm import assign_timm_tensors
from keras_vit_plugin.warn import warn


def load_weights(model, path, new_head=False):
    """Fills a model of this package from a file; position embeddings are resized where the image size differs.

    Args:
        model: a `ViTImageClassifier` or `SimpleViT`.
        path: a `.weights.h5`, a `.keras`, a preset folder, or timm-named tensors in `.npz` or `.safetensors`. For a
            `SimpleViT` the first two may be of the notebook's model in layers of Keras's own.
        new_head: leave the model's classification head as it is.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: the format is unknown; the file is damaged, would become more than ten times its size, or takes
            values from other files; its tensors do not fit (all are listed); or the model in a `.keras`, in layers of
            Keras's own, gives other answers. No weight of the model has changed.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"`weights` names no file or folder: weights={str(path)!r}.")
    if path.suffix in (".npz", ".safetensors"):
        if not hasattr(model, "backbone"):
            raise ValueError(f"timm has no {type(model).__name__}: weights={str(path)!r} cannot be loaded into one.")
        with open_tensor_file(path) as tensors:
            assign_timm_tensors(model, tensors, str(path), new_head)
    elif path.is_dir() or path.suffix in (".h5", ".keras"):
        with open_keras_tensors(path) as (tensors, source_grid):
            plain = is_of_plain_keras(tensors)
            before = model.get_weights() if plain else None
            assign_keras_tensors(model, tensors, str(path), source_grid, new_head)
        if plain:
            try:
                _compare_with_own_code(model, path, new_head)
            except ValueError:
                model.set_weights(before)
                raise
    else:
        raise ValueError(
            "`weights` must be a .weights.h5, a .keras, a preset folder, or timm-named tensors in .npz or "
            f".safetensors; got weights={str(path)!r}."
        )


def _compare_with_own_code(model, path, new_head):
    """Compares with the model in the `.keras` that the weights are from; warns where there is none to be run.

    Raises:
        ValueError: it gives other answers.
    """
    from keras_vit_plugin.checkpoints.whole_models import load_archive  # and Keras with it

    same = None
    if path.suffix == ".keras" and not new_head:
        try:
            same = same_answers(model, load_archive(path)[0])
        except RefusedFile as error:
            raise ValueError(f"weights={str(path)!r} cannot be used: {error}.") from error
        except Exception:  # whatever Keras says of classes that are not at hand
            same = None
    if same is None:
        warn(f"{path} holds weights {UNSAID}. Compare its answers with your model's.")
    elif not same:
        raise ValueError(
            f"weights={str(path)!r} is of a model that has the layers of a SimpleViT and gives other answers: its "
            "parts are connected in another way, or have another activation. Open it as it is, as your own model: "
            "`export_tflite` takes it."
        )
