"""The teaching notebook's SimpleViT as people write it: subclasses and layers of Keras alone."""

import keras
import numpy as np
from keras import layers, ops


@keras.saving.register_keras_serializable("notebook")
class PatchesAndPositions(layers.Layer):
    def __init__(self, extract=False, **kwargs):
        super().__init__(**kwargs)
        self.extract = extract
        self.projection = layers.Dense(64) if extract else layers.Conv2D(64, 4, strides=4)
        self.positions = self.add_weight(shape=(1, 64, 64), initializer="zeros", name="positions")

    def call(self, images):
        patches = self.projection(ops.image.extract_patches(images, 4) if self.extract else images)
        return ops.reshape(patches, (-1, 64, 64)) + self.positions


@keras.saving.register_keras_serializable("notebook")
class NotebookViT(keras.Model):
    def __init__(self, extract=False, **kwargs):
        super().__init__(**kwargs)
        self.extract = extract
        self.patches = PatchesAndPositions(extract)
        self.attention = layers.MultiHeadAttention(num_heads=4, key_dim=16)
        self.norm = layers.LayerNormalization(epsilon=1e-6)
        self.mlp = keras.Sequential([layers.Dense(128, activation="gelu"), layers.Dense(64)])
        self.pool, self.head = layers.GlobalAveragePooling1D(), layers.Dense(10)

    def call(self, images):
        x = self.patches(images)
        x = self.norm(x + self.attention(x, x))
        return self.head(self.pool(x + self.mlp(x)))

    def get_config(self):
        return {**super().get_config(), "extract": self.extract}


def train(model, images, labels, epochs=5):
    """The notebook's run: 800 images to train on, the next 200 to validate on; the `History`."""
    import tensorflow as tf

    x, y = images.astype(np.float32) / 255, labels.ravel()
    training = tf.data.Dataset.from_tensor_slices((x[:800], y[:800])).shuffle(1000).batch(32)
    validation = tf.data.Dataset.from_tensor_slices((x[800:1000], y[800:1000])).batch(32)
    model.compile(
        keras.optimizers.Adam(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    return model.fit(training, validation_data=validation, epochs=epochs, verbose=0)
