"""Files of one model against it on the real photos, the Keras model run once for all."""

import numpy as np
from conftest import real_data

from keras_vit_plugin.export.images import gather_labelled
from keras_vit_plugin.export.preprocessing import pixel_normalization, preprocessing_of
from keras_vit_plugin.export.verify import compare, keras_logits, tflite_logits


class Judge:
    def __init__(self, model):
        self.model = model
        preprocessing = preprocessing_of(model)
        self.images, self.labels = gather_labelled(
            real_data("imagenet_eval"), None, preprocessing, (), model.num_classes
        )
        self.reference = keras_logits(model, self.images, *pixel_normalization(model, preprocessing.channels))

    def parity(self, path, count=None):
        """The `ParityReport` of a file on so many photos, evenly spread; None is all."""
        chosen = np.linspace(0, len(self.images) - 1, count or len(self.images)).astype(int)
        outputs = tflite_logits(path.read_bytes(), self.images[chosen])
        return compare(self.reference[chosen], outputs, self.labels[chosen])
