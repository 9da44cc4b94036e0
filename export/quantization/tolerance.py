"""The least that a file must keep of its model."""

from dataclasses import dataclass, replace

import numpy as np

# Of the signal-to-noise ratio in dB, that a GPU may lose more than the check in half precision: its sums are in half
# precision too.
HALF_SUMS_DB = 10.0
# Of the signal-to-noise ratio in dB, by output: softmax doubles the error of scores, and it is looked at, not added up.
SLACK_DB = {"attention": 6.0}
FEWEST_TO_FORGIVE = 4  # images, of which one may be decided otherwise
TOLERANCE_IMAGES = 128  # that the agreement of a mode's tolerance is for
USUAL = "usual"


@dataclass(frozen=True)
class Tolerance:
    """The least that a file must reach to be written, in each of its outputs.

    Args:
        min_agreement: share of images, 0..1, with the Keras model's decision; None where there is nothing to agree on.
        min_snr_db: signal-to-noise ratio in dB, as `ParityReport.snr_db`.

    Either is `"usual"` for what the mode must keep when nothing is said.
    """

    min_agreement: float | None | str = USUAL
    min_snr_db: float | str = USUAL

    def __post_init__(self):
        agreement, snr = self.min_agreement, self.min_snr_db
        if agreement not in (None, USUAL) and (isinstance(agreement, str) or not 0 <= agreement <= 1):
            raise ValueError(f"`min_agreement` must be in 0..1, None or {USUAL!r}, got {agreement!r}.")
        if snr != USUAL and (not isinstance(snr, (int, float, np.number)) or np.isnan(snr)):
            raise ValueError(f"`min_snr_db` must be a number of dB or {USUAL!r}, got {snr!r}.")

    def filled(self, usual):
        """The same, with the numbers of another `Tolerance` where this one says `"usual"`."""
        return Tolerance(
            usual.min_agreement if self.min_agreement == USUAL else self.min_agreement,
            usual.min_snr_db if self.min_snr_db == USUAL else self.min_snr_db,
        )

    def holds(self, parity):
        """Whether a `ParityReport` is within it.

        Raises:
            ValueError: a part is `"usual"`: `filled` says which number that is.
        """
        if USUAL in (self.min_agreement, self.min_snr_db):
            raise ValueError(f"{self} leaves a part to the mode: use its `filled(mode.tolerance.on(images))`.")
        agrees = None in (self.min_agreement, parity.agreement) or parity.agreement >= self.min_agreement
        near = parity.snr_db >= self.min_snr_db and not (parity.gpu and self.too_far(parity.gpu.snr_db, HALF_SUMS_DB))
        return agrees and near and all(map(self.holds, parity.others))

    def too_far(self, snr_db, slack_db=0.0):
        """The outputs of `{output: dB}` that are below `min_snr_db` less `slack_db`, in words."""
        least = {name: self.min_snr_db - slack_db - SLACK_DB.get(name, 0.0) for name in snr_db}
        return [f"{name} at {db:.1f} dB" for name, db in snr_db.items() if db < least[name]]

    def on(self, images):
        """The same for so many images.

        A share of fewer than 128 images scatters more: two of its standard errors are left, and from four images on
        one may be decided otherwise. Where all must agree, none may.
        """
        share = self.min_agreement
        if share in (None, 1.0) or images < FEWEST_TO_FORGIVE:
            return self
        scatter = 2 * (share * (1 - share)) ** 0.5 * max(0.0, images**-0.5 - TOLERANCE_IMAGES**-0.5)
        return replace(self, min_agreement=min(share - scatter, (images - 1) / images))
