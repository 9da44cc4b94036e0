"""Files of one model against it on labelled images, the Keras model run once for all."""

import numpy as np
from conftest import real_data

from keras_vit_plugin.export.verification.outputs import keras_logits, tflite_logits
from keras_vit_plugin.export.verification.parity import compare
from keras_vit_plugin.images.gather import gather_labelled, spread
from keras_vit_plugin.images.preprocessing import pixel_normalization, preprocessing_of


class Judge:
    """Judges files of a model.

    Args:
        model: the Keras model.
        count: how many images to judge on at most, evenly spread; None is all.
        folder: of labelled photos, instead of imagenet_eval; or raw pixels.
        labels: class indices of raw pixels.
    """

    def __init__(self, model, count=None, folder=None, labels=None):
        self.model = model
        preprocessing = preprocessing_of(model)
        folder = real_data("imagenet_eval") if folder is None else folder
        self.images, self.labels = gather_labelled(
            folder, labels, preprocessing, (), model.num_classes, limit=None if labels is not None else count
        )
        self.reference = keras_logits(model, self.images, *pixel_normalization(model, preprocessing.channels))

    def parity(self, path, count=None):
        """The `ParityReport` of a file on so many images, evenly spread; None is all."""
        chosen = spread(np.arange(len(self.images)), count or len(self.images))
        outputs = tflite_logits(path.read_bytes(), self.images[chosen])
        return compare(self.reference[chosen], outputs, self.labels[chosen])
