"""What a component of a model stays the same under: what rewrites ask for before they touch it."""

import enum


class Promise(enum.Enum):
    """Something that may be done to a component without changing what it computes; none is given unless it is true."""

    READS_BY_LAYERS = "it reads the stream through its readers alone, so their kernels may take a change of basis"
    WRITES_BY_LAYERS = (
        "what leaves it is the sum of its writers' outputs, so their kernels may take a matrix behind them"
    )
    ROW_BY_ROW = "what leaves for a token depends on that token alone, but for what it attends to"
    KEYS_MAY_SHIFT = "a constant that is added to all keys changes nothing"
    QUERY_KEY_DIAGONAL = "an invertible diagonal matrix may stand between query and key"
    VALUES_ARE_AVERAGED = "values are mixed with weights that sum to 1, and go on linearly to the output"
