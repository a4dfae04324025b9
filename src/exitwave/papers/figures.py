"""The figure style that all chapters share.

Magnitudes take a perceptually uniform colour map, phases on a circle a cyclic one, differences a
diverging one centred at zero. Images have equal aspect, axes in nm, rows downwards as in the array,
and a colour bar with its unit. Every figure fits a telephone 390 pixels wide: images keep a fixed
size, and :func:`row` puts as many of them side by side as the page has room for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from exitwave import records
from exitwave.errors import InputError

Array = npt.NDArray[Any]
Kind = Literal["magnitude", "phase", "difference"]

# Two images with their axes stand side by side on a desktop page, one on a telephone.
FRAME_WIDTH = 245
LINE_HEIGHT = 300
LINE_WIDTH = 310

# A slider keeps all its frames in the page: these limits hold one figure near 2 MB.
MAX_FRAMES = 24
MAX_FRAME_PIXELS = 256

COLOUR_MAPS: dict[Kind, str] = {"magnitude": "viridis", "phase": "twilight_shifted", "difference": "RdBu_r"}

# Of lines and points, told apart also by the colour-blind (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")

_NM = 0.1  # nm in one Å
_LEGEND = {"border_line_alpha": 0, "margin": 0, "padding": 0, "spacing": 5}
_TOOLS = ["pan", "box_zoom", "wheel_zoom", "save", "reset"]


def setup() -> None:
    """Prepare a notebook: HoloViews with its scripts inside the page, and the shared style.

    Call it once, in a cell of its own whose tag is ``hide-input``: what it puts into the page is the
    plotting library itself (some 3 MB).
    """
    import holoviews as hv

    hv.extension("bokeh", inline=True, logo=False)
    # Sliders at the right of a figure would be cut off on a telephone.
    hv.output(widget_location="bottom")
    # A slider's frames go into the page, so that it moves without a running kernel.
    _panel().config.embed = True
    common: dict[str, Any] = {
        "default_tools": _TOOLS,
        "toolbar": "above",
        # A finger or wheel on a figure scrolls the page until the reader picks a tool.
        "active_tools": [],
        "backend_opts": {
            "toolbar.active_drag": None,
            "toolbar.active_scroll": None,
            "toolbar.autohide": True,
        },
    }
    lines = {"responsive": True, "height": LINE_HEIGHT, "show_grid": True, "line_width": 2}
    points = {"responsive": True, "height": LINE_HEIGHT, "show_grid": True, "size": 6}
    hv.opts.defaults(
        hv.opts.Image(**common),
        hv.opts.Curve(**common, **lines),
        hv.opts.Scatter(**common, **points),
        hv.opts.Overlay(legend_position="bottom", legend_cols=2, legend_opts=_LEGEND, **common),
    )


def image(
    array: Array,
    sampling: float | tuple[float, float],
    *,
    kind: Kind = "magnitude",
    label: str = "intensity",
    unit: str = "1",
    title: str = "",
    limits: tuple[float, float] | None = None,
) -> Any:
    """Draw an array as an image with axes in nm.

    Parameters
    ----------
    array : ndarray, shape (y, x)
        Real numbers. Row 0 is at the top.
    sampling : float or (float, float)
        Pixel size in Å, one number or ``(y, x)``.
    kind : {"magnitude", "phase", "difference"}
        ``magnitude`` for any quantity with an order, an unwrapped phase among them; ``phase`` for an
        angle, shown modulo 2 pi; ``difference`` for a quantity whose zero matters.
    label, unit : str
        What the colours are, and their unit (``"1"`` for none).
    title : str
        Above the image.
    limits : (float, float), optional
        Ends of the colour map: by default the extremes, -pi and pi, or plus and minus the largest
        magnitude.

    Returns
    -------
    holoviews.Image
        It can be overlaid and restyled like any other.

    Raises
    ------
    InputError
        If the array has other than two axes or the pixel size is not positive.
    """
    values = np.asarray(array, dtype=np.float32)
    if kind == "phase":
        values = _wrapped(values)
    low, high = limits or _limits(values, kind)
    return _image(values, sampling, title).opts(
        cmap=COLOUR_MAPS[kind], clim=(low, high), clabel=_named(label, unit), tools=["hover"]
    )


def frames(
    stack: Array,
    sampling: float | tuple[float, float],
    *,
    kind: Kind = "magnitude",
    label: str = "intensity",
    unit: str = "1",
    title: str = "",
    limits: tuple[float, float] | None = None,
) -> list[Any]:
    """Draw a stack as images for a slider, all on one scale and eight bits deep.

    Parameters
    ----------
    stack : ndarray, shape (frame, y, x)
        At most :data:`MAX_FRAMES` frames. Those larger than :data:`MAX_FRAME_PIXELS` are binned.
    sampling, kind, label, unit, title, limits
        As for :func:`image`.

    Returns
    -------
    list of holoviews.Image
        One for each frame, for :func:`slider`.

    Raises
    ------
    InputError
        For too many frames, or a stack with other than three axes.
    """
    values = np.asarray(stack, dtype=np.float32)
    if kind == "phase":
        # Binning an angle means binning its direction.
        values = np.angle(bin_frames(np.exp(1j * values)))
    levels, (low, high) = to_uint8_frames(values, limits or _limits(values, kind))
    factor = np.asarray(stack).shape[-1] // levels.shape[-1]
    dy, dx = records.sampling_pair(sampling)
    ticks = [(level, _tick(low + (high - low) * level / 255, high - low)) for level in (0, 127.5, 255)]
    style = {"cmap": COLOUR_MAPS[kind], "clim": (0, 255), "clabel": _named(label, unit), "cticks": ticks}
    return [_image(level, (factor * dy, factor * dx), title).opts(**style) for level in levels]


# Å; the nanometres of an image with such pixels are its pixels.
PIXELS = 10.0


def in_pixels(image: Any) -> Any:
    """Return an image that was drawn with :data:`PIXELS` as sampling, its axes in pixels.

    For crops whose pixels have other sizes each, or none that is known.
    """
    return image.opts(xlabel="x (pixels)", ylabel="y (pixels)")


def slider(name: str, values: Sequence[float | str], *figures: Sequence[Any]) -> Any:
    """Put figures that change together above one slider.

    Parameters
    ----------
    name : str
        What the slider changes, with its unit: ``"defocus (mm)"``.
    values : sequence
        The positions of the slider.
    *figures : sequences of HoloViews elements
        Each gives one figure: an element for each of the values, as from :func:`frames`.

    Returns
    -------
    panel.Column
        Shown by a notebook at the end of a cell.

    Raises
    ------
    InputError
        If a figure has not as many frames as the slider has values.
    """
    import holoviews as hv

    pn = _panel()
    for figure in figures:
        if len(figure) != len(values):
            raise InputError(f"{name}: {len(figure)} frames for {len(values)} values: give one for each")
    widget = pn.widgets.DiscreteSlider(name=name, options=list(values), width=LINE_WIDTH)
    maps = [hv.HoloMap(dict(zip(values, figure, strict=True)), kdims=[name]) for figure in figures]
    panes = [pn.pane.HoloViews(each, widgets={name: widget}) for each in maps]
    return pn.Column(pn.FlexBox(*panes), widget)


def row(*figures: Any, width: int = LINE_WIDTH, linked: bool = True) -> Any:
    """Put figures side by side, as many as the page has room for, the others below.

    Parameters
    ----------
    *figures : HoloViews elements
    width : int
        Least width of each, screen pixels.
    linked : bool
        Axes of one name move together and have one range.

    Returns
    -------
    panel.FlexBox
        Shown by a notebook at the end of a cell.
    """
    pn = _panel()
    grow = {"flex": f"1 1 {width}px"}
    return pn.FlexBox(*(pn.pane.HoloViews(each, styles=grow, linked_axes=linked) for each in figures))


def to_uint8_frames(
    stack: Array, limits: tuple[float, float] | None = None
) -> tuple[npt.NDArray[np.uint8], tuple[float, float]]:
    """Reduce a stack to what a page can carry: 256 pixels, 24 frames, 8 bits.

    Parameters
    ----------
    stack : ndarray, shape (frame, y, x)
        Real numbers; not a number is taken for the lower limit.
    limits : (float, float), optional
        Values of the levels 0 and 255; the extremes by default. What lies outside is clipped.

    Returns
    -------
    frames : ndarray of uint8
        Binned by the smallest whole factor that makes both sides fit.
    limits : (float, float)
        Values of the levels 0 and 255.

    Raises
    ------
    InputError
        For more than :data:`MAX_FRAMES` frames or a stack with other than three axes.
    """
    values = bin_frames(np.asarray(stack, dtype=np.float32))
    low, high = limits or (float(np.nanmin(values)), float(np.nanmax(values)))
    span = high - low or 1.0
    levels = np.clip(np.nan_to_num((values - low) / span), 0, 1) * 255
    return np.round(levels).astype(np.uint8), (low, high)


def bin_frames(stack: Array) -> Array:
    """Average blocks of pixels until frames have at most :data:`MAX_FRAME_PIXELS` along each side.

    Parameters
    ----------
    stack : ndarray, shape (frame, y, x)
        Rows and columns beyond a whole number of blocks are dropped.

    Raises
    ------
    InputError
        For more than :data:`MAX_FRAMES` frames or a stack with other than three axes.
    """
    if stack.ndim != 3:
        raise InputError(f"frames of shape {stack.shape}: give three axes, (frame, y, x)")
    if len(stack) > MAX_FRAMES:
        raise InputError(f"{len(stack)} frames make the page too heavy: choose at most {MAX_FRAMES}")
    factor = -(-max(stack.shape[1:]) // MAX_FRAME_PIXELS)
    y, x = (size // factor for size in stack.shape[1:])
    blocks = stack[:, : y * factor, : x * factor].reshape(len(stack), y, factor, x, factor)
    return np.asarray(blocks.mean(axis=(2, 4)))


def _image(values: Array, sampling: float | tuple[float, float], title: str) -> Any:
    import holoviews as hv

    if values.ndim != 2:
        raise InputError(f"image of shape {values.shape}: give two axes, (y, x)")
    dy, dx = (step * _NM for step in records.sampling_pair(sampling))
    y, x = (dy * np.arange(values.shape[0]), dx * np.arange(values.shape[1]))
    return hv.Image((x, y, values), kdims=["x", "y"], vdims=["value"]).opts(
        frame_width=FRAME_WIDTH,
        frame_height=round(FRAME_WIDTH * len(y) * dy / (len(x) * dx)),
        invert_yaxis=True,
        xlabel="x (nm)",
        ylabel="y (nm)",
        title=title,
        colorbar=True,
        colorbar_position="bottom",
    )


def _tick(value: float, span: float) -> str:
    """Write a number to a hundredth of the span, so that a centre of 1e-7 reads 0."""
    digits = max(0, 2 - int(np.floor(np.log10(span or 1.0))))
    return f"{round(value, digits) + 0.0:.6g}"


def _panel() -> Any:
    """Return panel, whose classes have no type hints."""
    import panel

    return panel


def _limits(values: Array, kind: Kind) -> tuple[float, float]:
    if kind == "phase":
        return -np.pi, np.pi
    if kind == "difference":
        largest = float(np.nanmax(np.abs(values))) or 1.0
        return -largest, largest
    return float(np.nanmin(values)), float(np.nanmax(values))


def _wrapped(values: Array) -> Array:
    return np.asarray((values + np.pi) % (2 * np.pi) - np.pi)


def _named(label: str, unit: str) -> str:
    return label if unit in ("", "1") else f"{label} ({unit})"


def vectors(
    gradient_y: Array,
    gradient_x: Array,
    sampling: float | tuple[float, float],
    *,
    title: str = "",
    largest: float | None = None,
    contours: Array | None = None,
) -> Any:
    """Draw a vector field in false colour: direction as hue, length as brightness, in 240 colours.

    Parameters
    ----------
    gradient_y, gradient_x : ndarray, shape (y, x)
        Components; y counts downwards as in the image.
    sampling : float or (float, float)
        Pixel size in Å, one number or ``(y, x)``.
    title : str
        Above the image.
    largest : float, optional
        Length of full brightness; by default the 99th percentile.
    contours : ndarray of int, shape (y, x)
        Levels of another quantity; where two meet, a grey line is drawn.

    Returns
    -------
    holoviews.Image
        :func:`colour_wheel` is its key.
    """
    length = np.hypot(gradient_y, gradient_x)
    full = largest or float(np.percentile(length, 99)) or 1.0
    levels = colour_index(np.arctan2(-gradient_y, gradient_x), length / full)
    if contours is not None:
        edge = (np.diff(contours, axis=0, append=contours[-1:]) != 0) | (
            np.diff(contours, axis=1, append=contours[:, -1:]) != 0
        )
        levels[edge] = _GREY
    return _image(levels, sampling, title).opts(cmap=palette(), clim=(0, 255), colorbar=False)


def colour_wheel(title: str = "direction") -> Any:
    """Draw the key of :func:`vectors`: a vector to the right has the colour at the right."""
    y, x = np.mgrid[1:-1:128j, -1:1:128j]
    radius = np.hypot(y, x)
    levels = colour_index(np.arctan2(y, x), radius)
    levels[radius > 1] = _WHITE
    # Axes of its own, or panel would link them with those of the images beside it.
    return _image(levels, 1.0, title).redim(x="key_x", y="key_y").opts(
        cmap=palette(), clim=(0, 255), colorbar=False, frame_width=90, frame_height=90, xaxis=None,
        yaxis=None, toolbar=None, default_tools=[],
    )  # fmt: skip


_HUES, _BRIGHTNESSES = 24, 10
_GREY, _WHITE = 254, 255


def colour_index(angle: Array, brightness: Array) -> npt.NDArray[np.uint8]:
    """Return for each direction (rad) and brightness (clipped to 0 to 1) its place in :func:`palette`."""
    hue = np.round(angle / (2 * np.pi) * _HUES).astype(int) % _HUES
    level = np.round(np.clip(brightness, 0, 1) * (_BRIGHTNESSES - 1)).astype(int)
    return np.asarray(hue * _BRIGHTNESSES + level, dtype=np.uint8)


def palette() -> list[str]:
    """Return 256 colours: 24 hues of 10 brightnesses each, and at the end a grey and white."""
    hue, level = np.divmod(np.arange(_HUES * _BRIGHTNESSES), _BRIGHTNESSES)
    rgb = _hues(2 * np.pi * hue / _HUES, level / (_BRIGHTNESSES - 1))
    listed = [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in np.round(255 * rgb).astype(int)]
    return [*listed, *["#000000"] * (_GREY - len(listed)), "#808080", "#ffffff"]


def _hues(angle: Array, brightness: Array) -> Array:
    """Return red, green and blue from 0 to 1, the three cosines a third of a turn apart."""
    turns = angle[..., None] - 2 * np.pi / 3 * np.arange(3)
    return np.asarray(brightness[..., None] * (0.5 + 0.5 * np.cos(turns)))
