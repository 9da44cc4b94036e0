"""Which map each panel of an `Explanation` shows, and what is said of it, for the page and for the picture."""

ROLLOUT = (
    "Rollout multiplies the attention of all layers: heads averaged, half of each layer for the residual connection "
    "(Abnar and Zuidema 2020). It shows where information can come from, not what it is used for."
)
LAYERS = "The mean over the heads. Each map runs from its least value (grey) to its largest (bright)."
POSITIONS = (
    "Each tile stands for one place of the image. It shows how similar (cosine) the position embedding of that place "
    "is to those of all places."
)
FILTERS = (
    "The first principal components of the filters that turn a patch into numbers. Grey is a weight of 0; each "
    "is scaled by its own largest weight."
)

NEARLY_EVEN = 1.1  # the largest value over the least, up to which the colours show next to nothing


def share(value):
    """A share 0..1 in percent, with two digits that count."""
    percent = 100 * value
    return f"{percent:.0f}\u00a0%" if percent >= 9.5 else f"{percent:.2g}\u00a0%"  # the space does not break


def overview_panels(explanation):
    """`[(grid over the photo, or None for the photo alone; caption), ...]`: photo, last layer, rollout."""
    height, width = explanation.photo.shape[:2]
    last, rollout = explanation.layers[-1], explanation.rollout
    return [
        (None, f"What the model sees: the photo at {height}\u00a0x\u00a0{width} pixels"),
        (last, f"Attention in the last layer ({explanation.reader}): {range_words(last)}"),
        (rollout, f"Rollout through all layers: {range_words(rollout)}"),
    ]


def layer_panels(explanation):
    """`[(grid over the photo, caption), ...]`, one for each layer."""
    return [(grid, f"layer {number}: {range_words(grid)}") for number, grid in enumerate(explanation.layers, start=1)]


def range_words(grid):
    """What the colours of a map stand for, which run from its least value to its largest."""
    least, most = float(grid.min()), float(grid.max())
    if most <= NEARLY_EVEN * least:
        return f"nearly even, {share(float(grid.mean()))} to each patch"
    return f"{share(least)} (grey) to {share(most)} (bright) to a patch"


def head_tiles(explanation):
    """`(tiles (down, across, rows, columns), what goes down, what goes across)`: the longer of the two across."""
    layers, heads = explanation.heads.shape[:2]
    if layers >= heads:
        return explanation.heads.swapaxes(0, 1), "head", "layer"
    return explanation.heads, "layer", "head"


def heads_words(explanation):
    """What the grid of layers and heads shows."""
    return (
        f"What each head of each layer attends to ({explanation.reader}). Each small map lies over the photo, one "
        "square a patch."
    )
