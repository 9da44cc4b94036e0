"""Images without a camera, where no real ones are at hand."""

import numpy as np
from PIL import Image, ImageDraw

SYNTHETIC_IMAGES = 24
DISCS = 60
CORNERS = 6  # of a stroke
FINER = 4  # times as fine as its pixels a stroke is drawn, for smooth edges


def synthetic_images(image_shape, count=SYNTHETIC_IMAGES, seed=0):
    """Colour fields, discs and strokes in turn: smooth images, images of edges, and images of two values.

    Args:
        image_shape: `(height, width, channels)`.
        count: how many.
        seed: of their randomness.

    Returns:
        uint8 `(count, height, width, channels)`.
    """
    generator = np.random.default_rng(seed)
    kinds = _colour_field, _discs, _stroke
    return np.stack([kinds[number % len(kinds)](image_shape, generator) for number in range(count)])


def _colour_field(image_shape, generator):
    """Random colours, far from each other and blurred between."""
    height, width, channels = image_shape
    sides = generator.integers(2, 9, 2)
    planes = [
        Image.fromarray(generator.uniform(0, 255, sides).astype(np.float32)).resize((width, height), Image.BICUBIC)
        for _ in range(channels)
    ]
    return np.clip(np.stack([np.asarray(plane) for plane in planes], -1), 0, 255).astype(np.uint8)


def _discs(image_shape, generator):
    """Discs of random sizes and colours that hide each other, which photos' edges resemble (Lee et al. 2001,
    doi:10.1023/A:1011109015675)."""
    height, width, channels = image_shape
    planes = [Image.new("L", (width, height), int(generator.integers(256))) for _ in range(channels)]
    for _ in range(DISCS):
        radius = 0.5 * min(height, width) * generator.uniform(0.05, 1) ** 1.5
        x, y = generator.uniform(0, width), generator.uniform(0, height)
        for plane in planes:
            box = (x - radius, y - radius, x + radius, y + radius)
            ImageDraw.Draw(plane).ellipse(box, fill=int(generator.integers(256)))
    return np.stack([np.asarray(plane) for plane in planes], -1)


def _stroke(image_shape, generator):
    """A line, white on black or black on white."""
    height, width, channels = image_shape
    back, front = (0, 255) if generator.random() < 0.5 else (255, 0)
    large = Image.new("L", (FINER * width, FINER * height), back)
    corners = [tuple(corner) for corner in generator.uniform(0.1, 0.9, (CORNERS, 2)) * large.size]
    thickness = max(1, FINER * min(height, width) // 8)
    ImageDraw.Draw(large).line(corners, fill=front, width=thickness, joint="curve")
    plane = np.asarray(large.resize((width, height), Image.BOX))
    return np.repeat(plane[..., None], channels, -1)
