"""The SavedModel that TensorFlow's converter reads, as large as the weights."""

import contextlib
import sys
from pathlib import Path

from keras_vit_plugin.temporary import cannot_be_written, temporary_folder


@contextlib.contextmanager
def saved_model(module, signature):
    """A SavedModel for as long as the context lasts.

    Args:
        module: a `tf.Module` that holds what is to be saved.
        signature: its concrete function.

    Yields:
        The path of its folder, a string.

    Raises:
        OSError: there is no room for it; names the folder.
    """
    import tensorflow as tf

    with temporary_folder() as folder:
        try:
            tf.saved_model.save(module, str(folder), signatures={"serving_default": signature})
        except tf.errors.OpError as error:
            reason = error.message.rpartition("; ")[-1].partition(" [Op:")[0]
            raise cannot_be_written(folder.parent, reason) from error
        finally:
            _remove_sources()
        yield str(folder)


def _remove_sources():
    """Removes what AutoGraph wrote to load it: it traces a SavedModel's signature, and would leave that till the end.

    It puts the file where all temporary files go, and that place belongs to the user's program.
    """
    for name, module in list(sys.modules.items()):
        if name.startswith("__autograph_generated_file"):
            source = Path(module.__file__)
            with contextlib.suppress(OSError):
                if "def tf__signature_wrapper(" in source.read_text(encoding="utf-8"):
                    source.unlink()
