"""Pictures as PNG: those of the first page, and what a command drew, light enough for a page."""

from __future__ import annotations

import io

from exitwave.records import Array


def shrunk(picture: bytes, width: int = 1200) -> bytes:
    """Return a PNG that is at most so wide, which a page has room for."""
    from PIL import Image

    image = Image.open(io.BytesIO(picture)).convert("RGB")
    if image.width > width:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    made = io.BytesIO()
    image.save(made, "PNG", optimize=True)
    return made.getvalue()


def triptych(*panels: tuple[str, Array, str, tuple[float, float]]) -> bytes:
    """Draw three images abreast for the first page, as PNG.

    Parameters
    ----------
    *panels : (str, ndarray, str, (float, float))
        Title, values, shape (y, x), colour map and its ends, of each.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"font.size": 9}):
        drawn = Figure(figsize=(6.4, 2.3), layout="constrained", dpi=110)
        for axes, (title, values, colours, (low, high)) in zip(
            drawn.subplots(1, len(panels)), panels, strict=True
        ):
            axes.imshow(values, cmap=colours, vmin=low, vmax=high)
            axes.set_title(title)
            axes.set_axis_off()
        stream = io.BytesIO()
        drawn.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()
