"""The figure that ``exitwave retrieve lorentz`` writes next to its record."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure

from exitwave.cli.pictures import borders, draw_residuals, new_figure
from exitwave.records import Array
from exitwave.retrieve.lorentz import unexplained

_NM = 0.1  # nm in one Å
# Percentile of the induction that is shown at full brightness: edges, where the electrostatic phase jumps,
# are brighter than any magnet.
_BRIGHTEST = 90.0
_LINES = 10  # contours across the range of the phase
_CONTOURED = 512  # pixels at most along each side


def draw(result: xr.Dataset) -> Figure:
    """Return the figure: phase, projected induction with a colour wheel, residual of each image."""
    phase = result["phase"].values
    extent = borders(result, _NM)
    figure = new_figure(14, 4.4)
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.15, 1.25, 1.0))
    shown = left.imshow(phase, cmap="viridis", extent=extent)
    figure.colorbar(shown, ax=left, label="phase (rad)", shrink=0.85)
    _label(left, "phase")
    largest = _draw_induction(middle, result["induction"].values, extent)
    step = _draw_contours(middle, result)
    _label(middle, f"projected induction, lines every {step:g} rad")
    _draw_wheel(middle, largest)
    draw_residuals(right, result, unexplained(result), "relative rms (1)")
    return figure


def colours(induction: Array, largest: float) -> Array:
    """Return the colours of a vector field: the direction as hue, the magnitude as brightness.

    Parameters
    ----------
    induction : ndarray, shape (2, y, x)
        Components (x, y), y downwards as in the image.
    largest : float
        Magnitude of full brightness.

    Returns
    -------
    ndarray, shape (y, x, 3)
        RGB, 0 to 1. +x is red, and the hue turns on towards +y.
    """
    x, y = induction
    hue = (np.arctan2(y, x) / (2 * math.pi)) % 1.0
    brightness = np.clip(np.hypot(x, y) / (largest or 1.0), 0, 1)
    return np.asarray(hsv_to_rgb(np.stack([hue, np.ones_like(hue), brightness], axis=-1)))


def _label(axes: Axes, title: str) -> None:
    axes.set(title=title, xlabel="x (nm)", ylabel="y (nm)")


def _draw_induction(axes: Axes, induction: Array, extent: tuple[float, float, float, float]) -> float:
    """Draw the colours of an induction and return the magnitude of full brightness, T nm."""
    largest = float(np.percentile(np.hypot(*induction), _BRIGHTEST))
    axes.imshow(colours(induction, largest), extent=extent)
    return largest


def _draw_contours(axes: Axes, result: xr.Dataset) -> float:
    """Draw lines of equal phase, which run along the induction, and return their distance in rad."""
    stride = -(-max(result["phase"].shape) // _CONTOURED)
    thin = result.isel(y=slice(None, None, stride), x=slice(None, None, stride))
    phase = thin["phase"].values
    span = float(np.ptp(phase))
    if not span > 0:
        return 0.0
    step = float(f"{span / _LINES:.1g}")
    levels = np.arange(math.floor(phase.min() / step), math.ceil(phase.max() / step) + 1) * step
    x, y = thin["x"].values * _NM, thin["y"].values * _NM
    axes.contour(x, y, phase, levels=levels, colors="white", linewidths=0.6, alpha=0.7, linestyles="solid")
    return step


def _draw_wheel(axes: Axes, largest: float) -> None:
    """Draw the colours of all directions beside the map, y downwards as there."""
    wheel = axes.inset_axes((1.06, 0.66, 0.26, 0.26))
    side = np.linspace(-1, 1, 201)
    x, y = np.meshgrid(side, side)
    rgb = colours(np.stack([x, y]), 1.0)
    alpha = (np.hypot(x, y) <= 1).astype(float)
    wheel.imshow(np.concatenate([rgb, alpha[..., None]], axis=-1), extent=(-1, 1, 1, -1))
    wheel.axis("off")
    for (at_x, at_y), name in {(1.3, 0): "+x", (0, 1.3): "+y"}.items():
        wheel.annotate(name, (at_x, at_y), ha="center", va="center", fontsize=8, annotation_clip=False)
    axes.text(
        1.19,
        0.56,
        f"rim: {largest:.3g} T nm\nor more",
        transform=axes.transAxes,
        ha="center",
        va="top",
        fontsize=8,
    )
