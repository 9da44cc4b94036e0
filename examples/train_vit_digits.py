"""Trains `vit_digits`, the model this package ships.

    python examples/train_vit_digits.py --output keras_vit_plugin/presets/vit_digits.weights.h5

Expect about 99 % on the held-out fifth after four minutes on two cores; the seed is fixed.
"""

import argparse
import os
from pathlib import Path

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


def parsed():
    """The arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="where to write, ending in .weights.h5")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    arguments = parser.parse_args()
    output = arguments.output
    if arguments.epochs < 1:
        parser.error(f"--epochs must be 1 or more, got {arguments.epochs}")
    if not output.name.endswith(".weights.h5"):
        parser.error(f"--output must end in .weights.h5, got {str(output)!r}")
    if output.is_dir() or not os.access(output if output.exists() else output.parent, os.W_OK):
        parser.error(f"--output cannot be written: {str(output)!r}")
    return arguments


def main():
    arguments = parsed()
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
