"""The figure that ``exitwave retrieve focal-series`` writes next to its record."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from exitwave import records
from exitwave.cli.pictures import borders, draw_residuals, new_figure, unit_of
from exitwave.records import Array
from exitwave.retrieve.exit_wave import unexplained

_BINS = 100


def draw(result: xr.Dataset) -> Figure:
    """Return the figure: amplitude, phase, the values of all pixels in the complex plane, residuals.

    A phase that stays within a quarter turn of 0 has the map of the amplitude, over its own range; one that
    does not has a cyclic map over the whole turn.
    """
    wave = records.from_parts(result["wave"])
    unit, name = unit_of(result)
    extent = borders(result, unit)
    figure = new_figure(16, 4.2)
    amplitude, phase, plane, residuals = figure.subplots(1, 4, width_ratios=(1.15, 1.15, 1.0, 1.0))
    shown = amplitude.imshow(np.abs(wave), cmap="viridis", extent=extent)
    figure.colorbar(shown, ax=amplitude, label="amplitude (1)", shrink=0.85)
    angle = np.angle(wave)
    turns = bool((np.abs(angle) > math.pi / 2).any())
    how = {"cmap": "twilight", "vmin": -math.pi, "vmax": math.pi} if turns else {"cmap": "viridis"}
    shown = phase.imshow(angle, extent=extent, **how)
    figure.colorbar(shown, ax=phase, label="phase (rad)", shrink=0.85)
    for axes, title in ((amplitude, "amplitude"), (phase, "phase")):
        axes.set(title=title, xlabel=f"x ({name})", ylabel=f"y ({name})")
    counts = _draw_plane(plane, wave)
    figure.colorbar(counts, ax=plane, label="pixels", shrink=0.85)
    draw_residuals(residuals, result, unexplained(result), "rms over the contrast (1)")
    return figure


def _draw_plane(axes: Axes, wave: Array) -> Any:
    """Draw how often each value of the wave occurs; vacuum is at 1."""
    *_, counts = axes.hist2d(
        wave.real.ravel(), wave.imag.ravel(), bins=_BINS, norm=LogNorm(), cmap="viridis", cmin=1
    )
    circle = np.exp(1j * np.linspace(0, 2 * math.pi, 361))
    half = 0.52 * max(float(np.ptp(each)) for each in (wave.real, wave.imag))
    middle = [0.5 * float(each.min() + each.max()) for each in (wave.real, wave.imag)]
    axes.plot(circle.real, circle.imag, color="0.5", linewidth=0.8, zorder=0)
    axes.plot(1, 0, "+", color="tab:red", markersize=10)
    axes.set(
        title="values of all pixels", xlabel="real part (1)", ylabel="imaginary part (1)", aspect="equal",
        xlim=(middle[0] - half, middle[0] + half), ylim=(middle[1] - half, middle[1] + half),
    )  # fmt: skip
    return counts
