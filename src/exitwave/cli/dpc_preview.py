"""The figure that ``exitwave retrieve dpc`` writes next to its record."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from exitwave.cli.pictures import borders, colours, draw_wheel, label_lengths, panels, show, unit_of
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
    draw_wheel(axes, f"{largest:.2g} /Å")
