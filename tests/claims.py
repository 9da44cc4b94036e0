"""What the docs claim of a model's files, and what a test may ask of it: the claim less its noise.

`docs/accuracy.json` is the one source: `benchmarks/accuracy.py` writes it, the pages quote it, tests hold it.
"""

import json

from conftest import REPOSITORY

ROWS = json.loads((REPOSITORY / "docs" / "accuracy.json").read_text(encoding="utf-8"))


def claim(model, mode, part):
    """The row of `docs/accuracy.json` of a model's mode on a set of images.

    Raises:
        LookupError: nothing is claimed of it.
    """
    for row in ROWS:
        if (row["model"], row["mode"], row["set"]) == (model, mode, part):
            return row
    raise LookupError(f"docs/accuracy.json says nothing of {model!r}, {mode!r} on {part!r}: run benchmarks/accuracy.py")


def least_share(share, images, claimed_on):
    """What a share measured on so many images is at least, but for two of its standard errors.

    Args:
        share: what is claimed, 0..1.
        images: of the test.
        claimed_on: images that the claim was measured on: a claim of all of them is one of all but half an image.
    """
    known = min(share, 1 - 0.5 / claimed_on)
    return known - 2 * (known * (1 - known) / images) ** 0.5


def least_snr_db(row, images):
    """What an SNR on so many of a claim's images is at least, in dB, but for two standard errors."""
    return row["snr_db"] - 2 * row["snr_db_error"] * (row["images"] / images) ** 0.5


def check_claim(parity, row):
    """Asserts that a `ParityReport` on the images of a claim, or on some of them, is what is claimed, but for noise."""
    images = parity.images
    assert images <= row["images"]
    assert parity.snr_db >= least_snr_db(row, images)
    if row["mode"] == "float32":
        assert parity.agreement == row["agreement"] == 1.0
    assert parity.agreement >= least_share(row["agreement"], images, row["images"])
    # Answers that change are what can cost accuracy: as many as may change may be wrong ones.
    changing = max(1 - row["agreement"], 0.5 / row["images"])
    drop = row["top1_keras"] - row["top1"] + 2 * (changing / images) ** 0.5
    assert parity.top1_accuracy_tflite >= parity.top1_accuracy_model - drop
