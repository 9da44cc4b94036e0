"""scikit-learn's 8x8 handwritten digits, split as `vit_digits` was trained and is judged."""

import numpy as np

HELD_OUT_SHARE = 0.2
SPLIT_SEED = 0


def load_digits_split():
    """The UCI digits that ship with scikit-learn, as raw pixels.

    Returns:
        `(x_train, y_train), (x_test, y_test)`: uint8 `(N, 8, 8, 1)` with pixels 0..255, ink bright, and int labels;
        the test part is a fixed, stratified fifth.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise ImportError("The digits need: pip install 'keras-vit-plugin[demo]'") from error
    data = load_digits()
    pixels = np.round(data.images / 16 * 255).astype(np.uint8)[..., None]
    x_train, x_test, y_train, y_test = train_test_split(
        pixels, data.target, test_size=HELD_OUT_SHARE, random_state=SPLIT_SEED, stratify=data.target
    )
    return (x_train, y_train), (x_test, y_test)
