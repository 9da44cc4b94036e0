"""Signal-to-noise ratios."""

import numpy as np

SNR_CEILING_DB = 300.0  # what two equal outputs are given, since JSON has no infinity


def snr_db(reference, output):
    """`10 log10(mean(reference^2) / mean((output - reference)^2))`, within +-300."""
    noise, signal = np.square(output - reference).mean(), np.square(reference).mean()
    return as_db(noise / max(signal, 1e-300))


def as_db(noise):
    """A noise power over a signal power in dB, within +-300."""
    return float(np.clip(-10 * np.log10(max(noise, 1e-300)), -SNR_CEILING_DB, SNR_CEILING_DB))
