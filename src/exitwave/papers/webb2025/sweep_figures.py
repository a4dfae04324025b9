"""The disks of the sweep over thickness and beams."""

from __future__ import annotations

from typing import Any

import torch
import xarray as xr

from exitwave.papers import sweep_figures
from exitwave.papers.webb2025.exact import strontium_titanate
from exitwave.papers.webb2025.figures import disk
from exitwave.papers.webb2025.parameters import Parameters
from exitwave.papers.webb2025.patterns import whole

# Å, of those that are stored: each position of the sliders makes the page heavier.
_SHOWN = (250.0, 1000.0, 2000.0)
_TITLES = {"few_beams": "beams", "thickness": "thickness (nm)"}


def disks(stored: xr.Dataset) -> Any:
    """Show the disk of some beams, and that of the most, on sliders over beams and three thicknesses.

    Parameters
    ----------
    stored : xarray.Dataset
        The sweep ``thickness-beams``.
    """
    half_angle = Parameters.at().angular_range / strontium_titanate().lattice_parameter
    patterns = stored["pattern"].sel(thickness=list(_SHOWN)).transpose("few_beams", "thickness", "y", "x")
    images = whole(torch.as_tensor(patterns.values)).numpy() / 255
    beams = stored["few_beams"].values
    few: dict[tuple[Any, ...], Any] = {}
    most: dict[tuple[Any, ...], Any] = {}
    # The last disk is drawn once for each thickness: it does not change with the slider of the beams.
    last = [_drawn(image, half_angle, f"{beams[-1]} beams") for image in images[-1]]
    for i, number in enumerate(beams):
        for j, depth in enumerate(_SHOWN):
            place = (int(number), 0.1 * depth)
            few[place] = _drawn(images[i, j], half_angle, "fewer beams")
            most[place] = last[j]
    return sweep_figures.sliders(_TITLES, few, most)


def _drawn(image: Any, half_angle: float, title: str) -> Any:
    return disk(image, half_angle, title=title, limits=(0, 1), label="intensity")
