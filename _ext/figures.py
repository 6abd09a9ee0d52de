"""Every figure in two inks: as it was drawn, and for dark pages.

Chapters store figures on white. The build takes the white away: a pixel becomes the
most transparent one that gives its colour on white, and what was black becomes light.
Colours keep their hue, so that their meaning stays. Maps of colours are kept as they
are, for there the colour is a number.
"""

from pathlib import Path

import numpy as np
from docutils import nodes
from PIL import Image

INK = np.array([0.86, 0.88, 0.9])  # what is black on white
CSS_PIXELS = 110  # of a page, for one inch of a figure


def dots_per_inch(image):
    """As the file says, or what keeps its pixels."""
    return image.info.get("dpi", (CSS_PIXELS,))[0]


def box_sum(mask, size):
    """How many pixels are set in the square of `size` pixels around each pixel."""
    before = size // 2 + 1
    padded = np.pad(mask.astype(int), ((before, size - before),) * 2)
    total = padded.cumsum(0).cumsum(1)
    return (
        total[size:, size:] - total[:-size, size:]
        - total[size:, :-size] + total[:-size, :-size]
    )  # fmt: skip


def maps(colour, inch):
    """Where an image (height x width x 3) shows maps of colours, whole rectangles.

    They are coloured and a tenth of an inch thick at least; whatever is enclosed on all
    four sides, such as a number in a cell, belongs to them.
    """
    size = int(inch / 10) | 1
    filled = box_sum(colour.min(axis=2) < 1, size) == size * size
    thick = box_sum(filled, size) > 0
    vivid = thick & (np.ptp(colour, axis=2) > 0.2)
    if vivid.mean() < 0.01:
        return np.zeros_like(thick)
    left, up = (np.maximum.accumulate(thick, axis=axis) for axis in (1, 0))
    right, down = (
        np.flip(np.maximum.accumulate(np.flip(thick, axis), axis=axis), axis)
        for axis in (1, 0)
    )
    return left & right & up & down


def on_dark(image):
    """The same figure for a dark page, on a transparent ground."""
    colour = np.asarray(image.convert("RGB"), float) / 255
    alpha = 1 - colour.min(axis=2, keepdims=True)
    pure = (colour - (1 - alpha)) / np.maximum(alpha, 1e-9)
    pure += (1 - pure.max(axis=2, keepdims=True)) * INK
    keep = maps(colour, dots_per_inch(image))[..., None]
    pixels = np.dstack([np.where(keep, colour, pure), np.where(keep, 1, alpha)])
    return Image.fromarray((255 * pixels).round().astype(np.uint8), "RGBA")


def dark_file(path):
    """The dark twin of an image file, made where it is missing."""
    twin = path.with_name(f"{path.stem}-dark.png")
    if not twin.exists():
        with Image.open(path) as image:
            on_dark(image).save(twin, optimize=True)
    return twin


def add_dark_figures(app, doctree):
    """Give each figure of a chapter its size on the page and its dark twin."""
    for image in list(doctree.findall(nodes.image)):
        path = Path(app.srcdir, image["uri"].lstrip("/"))
        if "jupyter_execute" not in image["uri"] or path.suffix != ".png":
            continue
        with Image.open(path) as figure:
            inches = figure.width / dots_per_inch(figure)
        image["width"] = f"{inches * CSS_PIXELS:.0f}px"
        if app.builder.name == "html":
            twin = image.deepcopy()
            twin["uri"] = image["uri"].replace(path.name, dark_file(path).name)
            twin["classes"].append("only-dark")
            twin["loading"] = "lazy"
            image["classes"].append("only-light")
            image.parent.insert(image.parent.index(image) + 1, twin)


def setup(app):
    # before Sphinx collects the images
    app.connect("doctree-read", add_dark_figures, priority=100)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
