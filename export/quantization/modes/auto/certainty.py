"""What a sample of images proves about images like them: exact bounds, valid for every number of images."""

import functools
import math

import numpy as np

RISK = 0.1  # of a broken promise, over the draw of the images and the whole search
DEVIATIONS = 2.0  # standard errors on what is not counted: simulated, see `largest_noise`
FEW_FOR_NOISE = 36  # images: on fewer that bound breaks more often


@functools.cache
def largest_share(count, images, risk=RISK):
    """Upper bound of a share of which a sample shows `count` of so many images (Clopper and Pearson 1934, one-sided).

    Whatever the share is, the bound lies below it with a probability of at most `risk`.
    """
    if count >= images:
        return 1.0
    low, high = count / images, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _at_most(count, images, middle) > risk else (low, middle)
    return high


@functools.cache
def most_allowed(images, share, risk=RISK):
    """The largest count in so many images that still proves a share of at most `share`; -1 where none does."""
    if share <= 0 or share >= 1:
        return -1 if share <= 0 else images
    count = -1
    while _at_most(count + 1, images, share) <= risk:
        count += 1
    return count


def images_needed(share, risk=RISK):
    """How many images, all of them without a change, prove a share of at most `share`: an integer or infinity."""
    if share <= 0:
        return math.inf
    return 1 if share >= 1 else math.ceil(math.log(risk) / math.log1p(-share))


def limit(images, share):
    """`(count, promised)`: how many of so many images may be changed, and the share that this count proves.

    Where enough images are there, `promised` is `share` itself. Fewer allow as large a part of the sample as is allowed
    of all images, and prove less.
    """
    count = most_allowed(images, share)
    if count >= 0:
        return count, share
    count = math.floor(share * images + 1e-9)
    return count, largest_share(count, images)


@functools.cache
def proves_drop(lost, gained, images, drop, risk=RISK):
    """Whether a sample proves that at most the share `drop` of the answers changes from right to wrong on balance.

    Exact test of a difference of paired proportions: the probability of a balance as good as `lost - gained` where the
    truth is `drop`, at the worst share of changes that the sample leaves possible (Berger and Boos 1994).

    Args:
        lost, gained: number of images whose answer changes from right to wrong, and from wrong to right.
        images: number of all images.
        drop: a share, 0..1.
    """
    for_changes = risk / 5  # the part of the risk that the share of changes is larger still
    changes = np.linspace(drop, max(largest_share(lost + gained, images, for_changes), drop), 15)[:, None]
    expected = images * changes[-1].item()
    most = min(images, math.ceil(expected + 12 * math.sqrt(expected) + 30))  # changes: more are as good as impossible
    balances = np.concatenate([np.arange(most + 1), np.arange(-most, 0)])
    turns = np.exp(2j * np.pi * balances / len(balances))  # of the characteristic function of one image's balance
    one = 1 - changes + (changes + drop) / 2 * turns + (changes - drop) / 2 / turns
    chances = one**images @ np.fft.fft(balances <= lost - gained) / len(balances)
    return bool(chances.real.max() + for_changes <= risk)


@functools.cache
def largest_drop(lost, gained, images, risk=RISK):
    """Upper bound of the share that `proves_drop` proves, 0..1."""
    low, high = max(lost - gained, 0) / images, 1.0
    while high - low > 1e-4:  # a hundredth of a point
        middle = (low + high) / 2
        low, high = (low, middle) if proves_drop(lost, gained, images, middle, risk) else (middle, high)
    return high


def drop_promised(images, drop):
    """The drop that so many images can prove: `drop` itself, or where they are too few what that in them proves."""
    return drop if proves_drop(0, 0, images, drop) else largest_drop(math.floor(drop * images + 1e-9), 0, images)


def images_needed_for_drop(drop, risk=RISK):
    """How many images, all of them without a change, prove a drop of at most `drop`: an integer or infinity."""
    if drop <= 0:
        return math.inf
    few, enough = 0, math.ceil(5 / drop)
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if proves_drop(0, 0, middle, drop, risk) else (middle, enough)
    return enough


def largest_noise(answer, reference, outputs):
    """Upper bound of `answer.noise` on images like these; of the worst number of a regression.

    It is the ratio of two means, plus so many standard errors of its linearization, on a logarithmic scale. Not exact:
    simulated with normal errors and with Student's t of 5 degrees of freedom, it holds in nine samples of ten from 36
    images on. Where a few rare images carry most of the error, no sample of the others can show it.
    """
    errors, signals = (
        np.square(values).reshape(len(reference), -1)
        for values in (answer.error(reference, outputs), answer.signal(reference))
    )
    power = np.atleast_1d(answer.power(reference))
    if len(power) == 1:
        errors, signals = errors.mean(1, keepdims=True), signals.mean(1, keepdims=True)
    noise = errors.mean(0) / power
    residuals = errors - noise * signals
    deviation = residuals.std(0) / math.sqrt(len(reference)) / power
    return float(np.max(noise * np.exp(DEVIATIONS * deviation / np.maximum(noise, 1e-300))))


def _at_most(count, images, share):
    """The probability of at most `count` of so many images where each has the probability `share`, 0 < share < 1."""
    counts = np.arange(count + 1)
    logs = _log_binomials(images)[: count + 1] + counts * math.log(share) + (images - counts) * math.log1p(-share)
    return float(np.exp(logs).sum())


@functools.cache
def _log_binomials(images):
    factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, images + 1)))])
    return factorials[-1] - factorials - factorials[::-1]
