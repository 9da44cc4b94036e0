"""What the docs claim of a model's files, and what a test may ask of it: the claim less its noise.

`docs/accuracy.json` is the one source: `benchmarks/accuracy.py` writes it, the pages quote it, tests hold it.
"""

import json

from conftest import REPOSITORY
from scipy import stats

ROUNDING = 1e-6  # of shares
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


def most_images(count, claimed_on, images):
    """On how many of so many images a thing is seen at most that was seen on `count` of those of the claim.

    The bound of two standard errors, but of the beta-binomial distribution (Jeffreys' prior): of a thing as rare as one
    image in 250 the normal one says too little, and the claim is of another export, which changes other answers.
    """
    return int(stats.betabinom.ppf(stats.norm.cdf(2), images, count + 0.5, claimed_on - count + 0.5))


def least_share(share, images, claimed_on):
    """What a share of images is at least, 0..1, where a claim measured `share` on `claimed_on` images."""
    return 1 - most_images(round((1 - share) * claimed_on), claimed_on, images) / images - ROUNDING


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
    # Answers that changed from right to wrong, at most: the others changed back, or from wrong to wrong.
    lost = (1 - row["agreement"] + row["top1_keras"] - row["top1"]) / 2 * row["images"]
    drop = most_images(round(lost), row["images"], images) / images + ROUNDING
    assert parity.top1_accuracy_tflite >= parity.top1_accuracy_model - drop
