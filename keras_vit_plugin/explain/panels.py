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


def share(value):
    """A share 0..1 in percent, with two digits that count."""
    percent = 100 * value
    return f"{percent:.0f}\u00a0%" if percent >= 9.5 else f"{percent:.2g}\u00a0%"  # the space does not break


def overview_panels(explanation):
    """`[(grid over the photo, or None for the photo alone; caption), ...]`: photo, last layer, rollout."""
    height, width = explanation.photo.shape[:2]
    last, rollout = explanation.layers[-1], explanation.rollout
    return [
        (None, f"What the model sees: the photo at {height} x {width} pixels"),
        (last, f"Attention in the last layer ({explanation.reader}): at most {share(last.max())} to a patch"),
        (
            rollout,
            f"Rollout through all layers: {share(rollout.min())} (grey) to {share(rollout.max())} (bright) of it from "
            f"a patch, {share(rollout.mean())} on average",
        ),
    ]


def layer_panels(explanation):
    """`[(grid over the photo, caption), ...]`, one for each layer."""
    return [
        (grid, f"layer {number}: at most {share(grid.max())}")
        for number, grid in enumerate(explanation.layers, start=1)
    ]


def heads_words(explanation):
    """What the grid of layers and heads shows."""
    return (
        f"What each head attends to ({explanation.reader}): layers from left to right, heads from top to bottom. Each "
        "small map lies over the photo, one square a patch."
    )
