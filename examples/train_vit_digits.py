"""Trains `vit_digits`, the model this package ships.

    python examples/train_vit_digits.py --output keras_vit_plugin/presets/vit_digits.weights.h5

Expect about 99 % on the held-out fifth after four minutes on two cores; the seed is fixed.
"""

import argparse

import keras
import numpy as np

import keras_vit_plugin as kv
from keras_vit_plugin.presets.digits import load_digits_split

SEED = 0
BATCH = 64
EPOCHS = 150


def shifted(images, generator):
    """Each image moved by at most one pixel, edges filled with background."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    offsets = generator.integers(0, 3, (len(images), 2))
    return np.stack([image[top : top + 8, left : left + 8] for image, (top, left) in zip(padded, offsets)])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, help="where to write, ending in .weights.h5")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    arguments = parser.parse_args()

    keras.utils.set_random_seed(SEED)
    generator = np.random.default_rng(SEED)
    (x_train, y_train), (x_test, y_test) = load_digits_split()
    model = kv.build("vit_digits")
    steps = arguments.epochs * -(-len(x_train) // BATCH)
    model.compile(
        keras.optimizers.AdamW(
            keras.optimizers.schedules.CosineDecay(0.0, steps, warmup_target=2e-3, warmup_steps=steps // 20),
            weight_decay=0.05,
        ),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    for epoch in range(arguments.epochs):
        order = generator.permutation(len(x_train))
        x, y = shifted(x_train[order], generator), y_train[order]
        history = model.fit(x, y, batch_size=BATCH, shuffle=False, verbose=0)
        if (epoch + 1) % 10 == 0:
            print(f"epoch {epoch + 1}: loss {history.history['loss'][0]:.4f}", flush=True)
    accuracy = float(np.mean(model.predict(x_test, verbose=0).argmax(1) == y_test))
    model.compile()  # the file holds weights only, no optimizer state
    model.save_weights(arguments.output)
    print(f"held-out accuracy {accuracy:.4f} on {len(x_test)} digits; wrote {arguments.output}")


if __name__ == "__main__":
    main()
