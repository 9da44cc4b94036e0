"""The teaching notebook's run, to the end: SimpleViT on CIFAR-10, curves, saved, loaded, exported, verified, used.

    python examples/cifar10_simple_vit.py                       # downloads CIFAR-10 through keras.datasets
    python examples/cifar10_simple_vit.py --data cifar10.npz    # x_train, y_train, x_test, y_test, uint8

1,000 training images, split 800 to 200, five epochs, Adam at 1e-3. Expect about 17 % validation accuracy, chance
being 10 %: the point is the path, not the score.
"""

import argparse
from pathlib import Path

import keras
import numpy as np

import keras_vit_plugin as kv
from keras_vit_plugin.explain import draw_predictions, draw_training_curves

TRAINING_IMAGES = 1000
VALIDATION_IMAGES = 200
TEST_IMAGES = 200


def load_cifar10(path):
    """`(x_train, y_train), (x_test, y_test)` as uint8 images and integer labels."""
    if path is None:
        return keras.datasets.cifar10.load_data()
    with np.load(path, allow_pickle=False) as data:
        return (data["x_train"], data["y_train"]), (data["x_test"], data["y_test"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help=".npz with x_train, y_train, x_test, y_test")
    parser.add_argument("--output", type=Path, default=Path("cifar10-output"))
    parser.add_argument("--quantize", default="dynamic", help="float32, float16, dynamic or int8-full")
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)

    (x_train, y_train), (x_test, y_test) = load_cifar10(arguments.data)
    x_train, y_train = x_train[:TRAINING_IMAGES], y_train[:TRAINING_IMAGES].ravel()
    x_test, y_test = x_test[:TEST_IMAGES], y_test[:TEST_IMAGES].ravel()
    order = np.random.default_rng(0).permutation(TRAINING_IMAGES)
    validation, training = order[:VALIDATION_IMAGES], order[VALIDATION_IMAGES:]

    model = kv.build("simple_vit_cifar10")
    model.compile(
        keras.optimizers.Adam(1e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(
        x_train[training] / 255.0,
        y_train[training],
        batch_size=32,
        epochs=arguments.epochs,
        shuffle=True,
        validation_data=(x_train[validation] / 255.0, y_train[validation]),
        verbose=2,
    )
    draw_training_curves(history, arguments.output / "curves.png")

    model.save(arguments.output / "simple_vit.keras")
    model = keras.saving.load_model(arguments.output / "simple_vit.keras")

    labels = kv.presets.get_preset("simple_vit_cifar10").labels
    tflite = arguments.output / f"simple_vit_{arguments.quantize}.tflite"
    report = kv.export.export_tflite(
        model, tflite, quantize=arguments.quantize, calibration=x_train[training], labels=labels
    )
    print(f"{tflite}: {report.size_bytes / 1000:.0f} kB")
    parity = kv.export.verify(model, tflite, x_test, y_test)
    print(
        f"{parity.images} test images: same answer on {parity.agreement:.1%}, {parity.snr_db:.1f} dB; "
        f"accuracy {parity.top1_accuracy_model:.1%} in Keras, {parity.top1_accuracy_tflite:.1%} in the file"
    )

    answers = kv.export.Runner(tflite.read_bytes())(x_test[:20]).argmax(1)
    pictures = arguments.output / "predictions.png"
    draw_predictions(x_test[:20], [labels[i] for i in answers], pictures, correct=answers == y_test[:20])
    print(f"{arguments.output / 'curves.png'}, {pictures}")


if __name__ == "__main__":
    main()
