"""The figure that ``exitwave retrieve lorentz`` writes next to its record."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from exitwave.cli.pictures import borders, colours, draw_residuals, draw_wheel, new_figure
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
    draw_wheel(middle, f"{largest:.3g} T nm")
    draw_residuals(right, result, unexplained(result), "relative rms (1)")
    return figure


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
