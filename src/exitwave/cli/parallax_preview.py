"""The figure that ``exitwave retrieve parallax`` writes next to its record."""

from __future__ import annotations

import re

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from exitwave.cli.parallax import report
from exitwave.cli.pictures import borders, label_lengths, panels, show, unit_of

_ARROWS = 250  # at most


def draw(result: xr.Dataset) -> Figure:
    """Return the figure: bright field as it is and aligned, phase, and displacements over the disk."""
    unit, name = unit_of(result)
    how = {"extent": borders(result, unit)}
    figure, axes = panels(result["phase"].values, 2, 2)
    for one, variable, title in (
        (axes[0], "not_aligned", "mean bright field"),
        (axes[1], "aligned", "aligned, transfer of one sign"),
    ):
        show(one, result[variable].values, title, "contrast (1)", cmap="gray", **how)
    show(axes[2], result["phase"].values, "phase", "phase (rad)", cmap="viridis", **how)
    label_lengths(axes[:3], name)
    _draw_shifts(axes[3], result, unit, name)
    return figure


def _draw_shifts(axes: Axes, result: xr.Dataset, unit: float, name: str) -> None:
    """Draw how far the image of each pixel of the bright disk is displaced, and what was found from it."""
    every = slice(None, None, -(-result.sizes["group"] // _ARROWS))
    ky, kx = result["frequency"].values[every].T
    y, x = result["shift"].values[every].T
    arrows = axes.quiver(kx, ky, x, y, angles="xy", color="tab:blue", width=0.006)
    longest = float(f"{float(np.hypot(y, x).max()):.1g}")
    axes.quiverkey(arrows, 1.3, 0.1, longest, f"{longest * unit:g} {name}", labelpos="N", coordinates="axes")
    side = 1.15 * float(np.abs(result["frequency"].values).max())
    axes.set(
        title="displacement of the images, in the axes of the scan",
        xlabel="kx of the detector (1/Å)", ylabel="ky (1/Å)",
        aspect="equal", xlim=(-side, side), ylim=(side, -side),
    )  # fmt: skip
    broken = re.compile(", | (?=at |of the detector)")
    text = "\n".join(broken.sub("\n  ", line, count=1) for line in report(result)[:-1])
    axes.text(1.06, 1.0, text, transform=axes.transAxes, ha="left", va="top", fontsize=8)
