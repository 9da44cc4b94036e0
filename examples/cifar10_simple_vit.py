# %% [markdown]
# # A small Vision Transformer on CIFAR-10, from an image to a file for a phone
#
# An image is cut into patches, the patches become tokens, an encoder block lets the tokens read from each other, and
# the mean of the tokens gives ten logits. The model has one block and 41,226 parameters. It is trained on 800 images
# for five epochs, so it learns little: about 20 % of the validation images are right, and chance is 10 %. Then it is
# saved, loaded in another process, quantized to int8, verified and used.
#
# * As a script: `python examples/cifar10_simple_vit.py --help`. CIFAR-10 comes from `keras.datasets`, which downloads
#   it, or from `--data FILE.npz` with x_train, y_train, x_test and y_test.
# * As a notebook: the environment variables `CIFAR10_DATA`, `CIFAR10_PHOTOS`, `CIFAR10_EPOCHS` and `CIFAR10_OUTPUT`
#   stand for the options. `make notebook` writes the notebook from the script.
#
# The stored notebook shows four photos of scikit-image (CC0), reduced to 32×32; all its figures come from CIFAR-10.

# %%
import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from cifar10_data import PHOTOS, load_cifar10, make_folder, photos_to_show

IN_A_NOTEBOOK = "ipykernel" in sys.modules
parser = argparse.ArgumentParser(description="SimpleViT on CIFAR-10: trained, exported, verified, used.")
parser.add_argument("--data", default=os.environ.get("CIFAR10_DATA") or None, help=".npz; default: keras.datasets")
parser.add_argument("--photos", default=os.environ.get("CIFAR10_PHOTOS") or "cifar10", choices=PHOTOS, help="to draw")
parser.add_argument("--epochs", default=os.environ.get("CIFAR10_EPOCHS") or "5", type=int)
parser.add_argument("--output", default=os.environ.get("CIFAR10_OUTPUT") or "cifar10-output", type=Path, help="folder")
options = parser.parse_args([] if IN_A_NOTEBOOK else None)
try:
    if options.epochs < 1:
        raise ValueError(f"`--epochs` must be 1 or more, got {options.epochs}.")
    x_train, y_train, x_test, y_test = load_cifar10(options.data)
    photos = photos_to_show(options.photos, x_test)
    make_folder(options.output)
except (ValueError, OSError, ImportError) as error:
    parser.exit(2, f"{error}\n")
print("Training images", x_train.shape, "classes", y_train.shape, "test images", x_test.shape)

# %%
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # without TensorFlow's start-up messages
import keras
import matplotlib
import tensorflow as tf

if not IN_A_NOTEBOOK:
    matplotlib.use("Agg")
import matplotlib.pyplot as plt

import keras_vit_plugin as kv
from keras_vit_plugin.explain import attention_maps, attention_rollout, token_attention

array = keras.ops.convert_to_numpy
LABELS = kv.presets.get_preset("simple_vit_cifar10").labels


def keep(figure, name):
    """Saves a figure, which a notebook shows too."""
    figure.savefig(options.output / name, dpi=100)
    if not IN_A_NOTEBOOK:
        plt.close(figure)


# %% [markdown]
# ## The data
#
# The first 800 training images are trained on, the next 200 validate. Pixels are scaled to 0..1.

# %%
keras.utils.set_random_seed(42)
x_fit, y_fit = x_train[:800].astype("float32") / 255, y_train[:800]
x_validation, y_validation = x_train[800:1000].astype("float32") / 255, y_train[800:1000]
training = tf.data.Dataset.from_tensor_slices((x_fit, y_fit)).shuffle(1000).batch(32)
validation = tf.data.Dataset.from_tensor_slices((x_validation, y_validation)).batch(32)
print("A batch:", *(f"{spec.dtype.name} {tuple(spec.shape)}" for spec in training.element_spec))

# %% [markdown]
# ## An image is cut into patches
#
# 32×32 pixels make 8×8 patches of 4×4 pixels in three colours: 64 vectors of 48 numbers, row by row. They do not
# overlap.

# %%
photo = photos[0].astype("float32") / 255  # (32, 32, 3)
patches = photo.reshape(8, 4, 8, 4, 3).transpose(0, 2, 1, 3, 4)  # (row, column, 4, 4, 3)
print("One image", photo.shape, "-> patches", patches.shape, "-> vectors", patches.reshape(64, 48).shape)

figure = plt.figure(figsize=(9, 4.2), layout="constrained")
left, right = figure.subfigures(1, 2, wspace=0.05)
left.suptitle("the image, 32×32 pixels")
axis = left.subplots()
axis.imshow(photo)
axis.axis("off")
right.suptitle("its 64 patches of 4×4 pixels")
for axis, patch in zip(right.subplots(8, 8).ravel(), patches.reshape(64, 4, 4, 3)):
    axis.imshow(patch, vmin=0, vmax=1)
    axis.axis("off")
keep(figure, "patches.png")

# %% [markdown]
# ## Patches become tokens
#
# * **Patch embedding**: one dense layer for all patches, 48 → 64. A convolution with a 4×4 kernel and stride 4 is the
#   same.
# * **Position embedding**: one learned vector per patch is added, or the order of the patches would not count. It
#   begins with zeros here.
# * **Class token**: many ViTs put one learned vector in front of the patches and read the answer from it. This model
#   has none; it takes the mean of the patches. The layer below shows what the token would add.

# %%
model = kv.build("simple_vit_cifar10")
kernel, bias = map(array, model.patch_embedding.projection.weights)  # (4, 4, 3, 64), (64,)
embedded = array(model.patch_embedding(photo[None]))  # (1, 64, 64)
by_hand = patches.reshape(64, 48) @ kernel.reshape(48, 64) + bias
print("patch embeddings   ", embedded.shape, "  by hand the same to", f"{np.abs(embedded[0] - by_hand).max():.0e}")

positions = array(model.tokens.position_embedding)
tokens = array(model.tokens(embedded))
print("position embeddings", positions.shape, "  tokens", tokens.shape)

with_class_token = kv.layers.PrefixTokensAndPositions(use_class_token=True)
print("with a class token ", with_class_token(embedded).shape, "  token", with_class_token.class_token.shape)

# %% [markdown]
# ## What the encoder block computes
#
# Each token asks a question (query) and offers an answer (value) under a label (key). Per head the softmax of
# query·key says how much a token reads from each other one. The result is added to the tokens and normalized. A
# two-layer MLP then works on every token by itself, and is added too:
#
# `x = norm(x + attention(x))`, then `x + mlp(x)`
#
# Below this is computed in NumPy with the layer's own weights.


# %%
def softmax(scores):
    exponentials = np.exp(scores - scores.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


def dense(x, layer):
    return x @ array(layer.kernel) + array(layer.bias)


def block_by_hand(x, block):
    """`(tokens, 64)` -> the same shape, and the attention `(heads, tokens, tokens)`."""

    def heads(x):
        return x.reshape(len(x), block.num_heads, block.key_dim).transpose(1, 0, 2)  # (heads, tokens, 16)

    query, key, value = (heads(dense(x, getattr(block.attention, name))) for name in ("query", "key", "value"))
    attention = softmax(query @ key.transpose(0, 2, 1) / np.sqrt(block.key_dim))
    read = (attention @ value).transpose(1, 0, 2).reshape(len(x), -1)  # (tokens, heads * 16)
    x = x + dense(read, block.attention.output_dense)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + block.layer_norm_epsilon)
    x = x * array(block.norm.gamma) + array(block.norm.beta)
    hidden = keras.activations.gelu(dense(x, block.mlp.hidden), approximate=False)
    return x + dense(array(hidden), block.mlp.output_dense), attention


block = model.blocks[0]
by_hand, attention = block_by_hand(tokens[0], block)
print("queries, keys, values", (4, 64, 16), "-> attention", attention.shape, "-> tokens", by_hand.shape)
print("The layer gives the same to", f"{np.abs(array(block(tokens))[0] - by_hand).max():.0e}")

# %% [markdown]
# ## 41,226 parameters, counted

# %%
parts = {
    "patch embedding, 48 → 64": model.patch_embedding,
    "position embeddings, 64 × 64": model.tokens,
    "query, 64 → 4 heads × 16": block.attention.query,
    "key": block.attention.key,
    "value": block.attention.value,
    "attention output, 64 → 64": block.attention.output_dense,
    "norm, a scale and an offset": block.norm,
    "MLP, 64 → 128": block.mlp.hidden,
    "MLP, 128 → 64": block.mlp.output_dense,
    "logits, 64 → 10": model.head,
}
for name, layer in parts.items():
    print(f"{name:30}{layer.count_params():8,}   {' + '.join(str(tuple(weight.shape)) for weight in layer.weights)}")
total = sum(layer.count_params() for layer in parts.values())
assert total == model.count_params()
print(f"{'together':30}{total:8,}")

# %% [markdown]
# ## The run
#
# Adam with a learning rate of 0.001, sparse cross-entropy from logits, batches of 32, five epochs.

# %%
model.compile(
    optimizer=keras.optimizers.Adam(learning_rate=1e-3),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)
history = model.fit(training, validation_data=validation, epochs=options.epochs, shuffle=False, verbose=2)

# %% [markdown]
# The loss begins at ln 10 = 2.30, that of a guess among ten. With 200 validation images one more right answer is half
# a point: over five seeds the last validation accuracy goes from 15.5 to 22 %.

# %%
figure, axes = plt.subplots(1, 2, figsize=(12, 4), layout="constrained")
epochs = np.arange(1, options.epochs + 1)
for axis, metric in zip(axes, ("accuracy", "loss")):
    axis.plot(epochs, history.history[metric], marker="o", label="training")
    axis.plot(epochs, history.history[f"val_{metric}"], marker="o", label="validation")
    axis.set(title=metric.capitalize(), xlabel="epoch", ylabel=metric, xticks=epochs)
    axis.grid(alpha=0.3)
    axis.legend()
keep(figure, "curves.png")

# %% [markdown]
# ## Predictions

# %%
x_photos = photos.astype("float32") / 255
probabilities = array(keras.ops.softmax(model(x_photos)))  # (4, 10)
figure, axes = plt.subplots(2, len(photos), figsize=(11, 5.2), layout="constrained", squeeze=False)
for top, bottom, picture, row in zip(*axes, photos, probabilities):
    top.imshow(picture)
    top.set_title(f"{LABELS[row.argmax()]}, {row.max():.0%}")
    top.axis("off")
    bottom.barh(LABELS, row)
    bottom.invert_yaxis()
    bottom.set(xlim=(0, 1), xlabel="probability")
    bottom.label_outer()
keep(figure, "predictions.png")
logits = model.predict(x_test[:200].astype("float32") / 255, verbose=0)
print(f"{(logits.argmax(1) == y_test[:200]).mean():.1%} of {len(logits)} test images are right.")

# %% [markdown]
# ## Where the model looks
#
# `attention_maps` gives `(layers, heads, tokens, tokens)`: row i says what token i reads from each token. A head's
# picture is the mean over the rows, since the answer is the mean over the tokens: how much all of them read from each
# patch. **Rollout** follows what is read through all layers, with the residual connection as half of each step. With
# one layer it is the mean over the heads, half and half with each token itself.
#
# Yellow is more and black is less. Each picture has its own scale, written above it: 1 is the even share, 1/64 per
# patch.

# %%
figure, axes = plt.subplots(len(photos), 6, figsize=(11, 7.8), layout="constrained", squeeze=False)
for row, picture, x in zip(axes, photos, x_photos):
    maps = attention_maps(model, x)  # (1, 4, 64, 64)
    panels = {f"head {head + 1}": token_attention(model, maps[0, head]) for head in range(4)}
    panels["rollout"] = token_attention(model, attention_rollout(maps))
    row[0].imshow(picture)
    for axis, (name, grid) in zip(row[1:], panels.items()):
        share = grid / grid.mean()  # (8, 8)
        axis.imshow(picture, extent=(0, 8, 8, 0))
        axis.imshow(share, cmap="inferno", alpha=0.7, extent=(0, 8, 8, 0))
        axis.set_title(f"{name}: {share.min():.2f}–{share.max():.2f}", fontsize=9)
for axis in axes.ravel():
    axis.axis("off")
keep(figure, "attention.png")
print("attention maps", maps.shape, "each row sums to", f"{maps.sum(-1).mean():.3f}")

# %% [markdown]
# ## Saved, and loaded in a new process

# %%
saved, inputs, outputs = (options.output / name for name in ("simple_vit.keras", "inputs.npy", "outputs.npy"))
model.save(saved)
np.save(inputs, x_photos)
program = """
import sys, keras, keras_vit_plugin, numpy as np
model = keras.saving.load_model(sys.argv[1])
np.save(sys.argv[3], model(np.load(sys.argv[2])))
"""
subprocess.run([sys.executable, "-c", program, saved, inputs, outputs], check=True, stderr=subprocess.DEVNULL)
np.testing.assert_array_equal(np.load(outputs), model(x_photos))
print("The loaded model gives the same logits, bit for bit.")

# %% [markdown]
# ## Exported to int8 and verified
#
# The file takes raw pixels 0..255. The ranges of the activations are measured on the training images. What is written
# is verified on images of which none was measured on; a file too far from its model is not written.

# %%
file = options.output / "simple_vit_int8.tflite"
report = kv.export.export_tflite(model, file, quantize="int8", calibration=x_train[:800], labels=LABELS)
print(report)

# %%
parity = kv.export.verify(model, file, x_test[:200], y_test[:200])
print(
    f"{parity.images} test images: the same answer on {parity.agreement:.1%}, {parity.snr_db:.1f} dB; right are "
    f"{parity.top1_accuracy_model:.1%} of Keras's answers and {parity.top1_accuracy_tflite:.1%} of the file's."
)

# %% [markdown]
# ## Classified with the file alone

# %%
runner = kv.export.Runner(file.read_bytes())
names = kv.export.inspect(file).metadata["labels"]
for number, row in enumerate(runner(photos)):  # uint8 (4, 32, 32, 3) -> logits (4, 10)
    share = softmax(row)
    print(f"photo {number + 1}: {', '.join(f'{names[i]} {share[i]:.0%}' for i in share.argsort()[::-1][:3])}")
