"""The figure that ``exitwave retrieve network`` writes next to its record."""

from __future__ import annotations

import xarray as xr
from matplotlib.figure import Figure

from exitwave.cli.pictures import borders, label_lengths, panels, show, unit_of


def draw(result: xr.Dataset) -> Figure:
    """Return the figure: bright field, dark field and phase."""
    unit, name = unit_of(result)
    extent = borders(result, unit)
    figure, axes = panels(result["phase"].values, 2, 2)
    images = [axes[0], axes[2]]
    show(axes[0], result["bright_field"].values, "bright field", "share (1)", cmap="gray", extent=extent)
    show(axes[2], result["phase"].values, "phase (network)", "phase (rad)", cmap="viridis", extent=extent)
    if "dark_field" in result:
        dark = result["dark_field"].values
        show(axes[1], dark, "annular dark field", "share (1)", cmap="gray", extent=extent)
        images.append(axes[1])
    else:
        axes[1].remove()
    label_lengths(images, name)
    axes[3].remove()
    return figure
