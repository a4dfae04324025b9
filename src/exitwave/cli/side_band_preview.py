"""The figure that ``exitwave retrieve ssb`` writes next to its record."""

from __future__ import annotations

import xarray as xr
from matplotlib.figure import Figure

from exitwave import records
from exitwave.cli.pictures import borders, label_lengths, panels, show, unit_of


def draw(result: xr.Dataset) -> Figure:
    """Return the figure: bright field, phase, absorption if there is one, and what was transferred."""
    unit, name = unit_of(result)
    how = {"extent": borders(result, unit)}
    figure, axes = panels(result["phase"].values, 2, 2)
    show(axes[0], result["bright_field"].values, "bright field", "share (1)", cmap="gray", **how)
    show(axes[2], result["phase"].values, "phase (side bands)", "phase (rad)", cmap="viridis", **how)
    label_lengths([axes[0], axes[2]], name)
    if "absorption" in result:
        show(axes[3], result["absorption"].values, "absorption", "absorption (1)", cmap="viridis", **how)
        label_lengths([axes[3]], name)
    else:
        axes[3].remove()
    dy, dx = records.sampling_of(result)
    extent = (-0.5 / dx, 0.5 / dx, 0.5 / dy, -0.5 / dy)
    values = result["transfer"].values
    show(axes[1], values, "transfer of the phase", "mean square (1)", cmap="magma", extent=extent, vmin=0.0)
    axes[1].set(xlabel="frequency x (1/Å)", ylabel="frequency y (1/Å)")
    return figure
