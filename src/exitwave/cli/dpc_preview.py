"""The figure that ``exitwave retrieve dpc`` writes next to its record."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from exitwave.cli.pictures import borders, label_lengths, panels, show, unit_of
from exitwave.cli.preview import colours
from exitwave.records import Array

# Percentile of the centres of mass that is shown at full brightness.
_BRIGHTEST = 98.0


def draw(result: xr.Dataset) -> Figure:
    """Return the figure: bright field, dark field if there is one, centres of mass, and phase."""
    unit, name = unit_of(result)
    extent = borders(result, unit)
    images = [("bright field", "bright_field"), ("annular dark field", "dark_field")]
    images = [(title, variable) for title, variable in images if variable in result]
    figure, axes = panels(result["phase"].values, 2, 2)
    if len(images) < 2:
        axes.pop(1).remove()
    for one, (title, variable) in zip(axes, images, strict=False):
        show(one, result[variable].values, title, "share (1)", cmap="gray", extent=extent)
    _draw_centres(axes[-2], result["centre_of_mass"].values, extent)
    show(axes[-1], result["phase"].values, "phase (iCOM)", "phase (rad)", cmap="viridis", extent=extent)
    label_lengths(axes, name)
    return figure


def _draw_centres(axes: Axes, centres: Array, extent: tuple[float, float, float, float]) -> None:
    """Draw centres of mass (2, y, x): direction as hue, magnitude as brightness, and the wheel beside it."""
    largest = float(np.percentile(np.hypot(*centres), _BRIGHTEST))
    axes.imshow(colours(centres[::-1], largest), extent=extent)
    axes.set_title("centre of mass")
    wheel = axes.inset_axes((1.05, 0.62, 0.3, 0.3))
    side = np.linspace(-1, 1, 201)
    x, y = np.meshgrid(side, side)
    rgb = colours(np.stack([x, y]), 1.0)
    alpha = (np.hypot(x, y) <= 1).astype(float)
    wheel.imshow(np.concatenate([rgb, alpha[..., None]], axis=-1), extent=(-1, 1, 1, -1))
    wheel.axis("off")
    for angle, name in ((0.0, "+x"), (math.pi / 2, "+y")):
        at = 1.6 * math.cos(angle), 1.6 * math.sin(angle)
        wheel.annotate(name, at, ha="center", va="center", fontsize=8, annotation_clip=False)
    text = f"rim: {largest:.2g} /Å\nor more"
    axes.text(1.2, 0.46, text, transform=axes.transAxes, ha="center", va="top", fontsize=8)
