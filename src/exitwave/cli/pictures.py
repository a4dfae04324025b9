"""What the preview figures share: files written whole, borders of a field, the residuals of its images."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure

from exitwave import files
from exitwave.records import Array
from exitwave.units import length_text

_DPI = 150
# Larger fields of atoms are labelled in nm.
_NM, _LARGE = 0.1, 200.0
_PANEL, _LEAST = 4.2, 1.4  # inches


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, sizes in inches, that knows of no window."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, whole or not at all.

    Raises
    ------
    OSError
        If the disk refuses.
    """
    with files.whole(path) as temporary:
        figure.savefig(temporary, format="png", dpi=_DPI)
    return path


def panels(image: Array, rows: int, columns: int) -> tuple[Figure, list[Axes]]:
    """Return a figure and its axes, row by row, for images as one (y, x), each with a bar beside it."""
    height = min(max(_PANEL * image.shape[0] / image.shape[1], _LEAST), 2 * _PANEL)
    figure = new_figure(columns * (_PANEL + 1.4), rows * (height + 0.9))
    return figure, list(figure.subplots(rows, columns, squeeze=False).ravel())


def show(axes: Axes, values: Array, title: str, label: str, **how: Any) -> None:
    """Draw an image with its bar, as tall as it is; `how` is for ``imshow``."""
    shown = axes.imshow(values, **how)
    axes.figure.colorbar(shown, cax=axes.inset_axes((1.02, 0.0, 0.04, 1.0)), label=label)
    axes.set_title(title)


def colours(vectors: Array, largest: float) -> Array:
    """Return the colours of a vector field: the direction as hue, the magnitude as brightness.

    Parameters
    ----------
    vectors : ndarray, shape (2, y, x)
        Components (x, y), y downwards as in the image.
    largest : float
        Magnitude of full brightness.

    Returns
    -------
    ndarray, shape (y, x, 3)
        RGB, 0 to 1. +x is red, and the hue turns on towards +y.
    """
    x, y = vectors
    hue = (np.arctan2(y, x) / (2 * math.pi)) % 1.0
    brightness = np.clip(np.hypot(x, y) / (largest or 1.0), 0, 1)
    return np.asarray(hsv_to_rgb(np.stack([hue, np.ones_like(hue), brightness], axis=-1)))


def draw_wheel(axes: Axes, rim: str) -> None:
    """Draw the colours of all directions beside an image, y downwards as there, and what their rim means."""
    wheel = axes.inset_axes((1.06, 0.66, 0.26, 0.26))
    side = np.linspace(-1, 1, 201)
    x, y = np.meshgrid(side, side)
    rgb = colours(np.stack([x, y]), 1.0)
    alpha = (np.hypot(x, y) <= 1).astype(float)
    wheel.imshow(np.concatenate([rgb, alpha[..., None]], axis=-1), extent=(-1, 1, 1, -1))
    wheel.axis("off")
    for at, name in ((1.3, 0.0), "+x"), ((0.0, 1.3), "+y"):
        wheel.annotate(name, at, ha="center", va="center", fontsize=8, annotation_clip=False)
    text = f"rim: {rim}\nor more"
    axes.text(1.19, 0.56, text, transform=axes.transAxes, ha="center", va="top", fontsize=8)


def label_lengths(axes: list[Axes], name: str) -> None:
    """Label axes x and y with the name of their unit."""
    for one in axes:
        one.set(xlabel=f"x ({name})", ylabel=f"y ({name})")


def unit_of(result: xr.Dataset) -> tuple[float, str]:
    """Return how many of a unit are in one Å, and its name: Å, or nm for a large field."""
    width = max(result.sizes[name] for name in ("y", "x")) * float(result["x"][1] - result["x"][0])
    return (_NM, "nm") if width > _LARGE else (1.0, "Å")


def borders(result: xr.Dataset, unit: float) -> tuple[float, float, float, float]:
    """Return the borders of the field of a record, y downwards, in a unit that is so many in one Å."""
    sides = []
    for name in ("x", "y"):
        positions = result[name].values * unit
        half = 0.5 * float(positions[1] - positions[0])
        sides.append((float(positions[0]) - half, float(positions[-1]) + half))
    return (*sides[0], sides[1][1], sides[1][0])


def draw_residuals(axes: Axes, result: xr.Dataset, bad: np.ndarray, label: str) -> None:
    """Draw the residual of each image and what noise alone would give.

    Parameters
    ----------
    axes : Axes
    result : xarray.Dataset
        With ``residual``, ``noise`` and ``image`` along ``defocus``.
    bad : bool ndarray, shape (defocus,)
        Which images are not explained.
    label : str
        Of the residual.
    """
    residual, noise = result["residual"].values, result["noise"].values
    places = np.arange(len(residual))
    tint: list[Any] = ["tab:red" if each else "tab:blue" for each in bad]
    axes.barh(places, residual, color=tint, height=0.6, label="residual")
    axes.vlines(noise, places - 0.4, places + 0.4, colors="black", linewidth=2, label="noise alone")
    names = [
        f"{int(number)}: {length_text(float(defocus))}"
        for number, defocus in zip(result["image"].values, result["defocus"].values, strict=True)
    ]
    axes.set_yticks(places, names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 1.08 * max(float(residual.max()), float(noise.max()), 1e-9))
    axes.locator_params(axis="x", nbins=5)
    title = "residual of each image" + ("\n(red: not explained)" if bad.any() else "")
    axes.set(xlabel=label, ylabel="image: defocus", title=title)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), frameon=False, ncols=2)
