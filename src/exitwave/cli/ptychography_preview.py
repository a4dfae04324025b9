"""The figure that ``exitwave retrieve ptychography`` writes next to its record."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from exitwave import records
from exitwave.cli.pictures import borders, label_lengths, panels, show, unit_of

_MODES = 4  # that are shown at most
_FLAT = 0.01  # what varies less is one grey
_RANGE = (0.2, 99.8)  # percentiles that are told apart


def draw(result: xr.Dataset) -> Figure:
    """Return the figure: phase, modulus, modes of the probe, and the loss over epochs."""
    wave = records.from_parts(result["wave"])
    unit, name = unit_of(result)
    extent = borders(result, unit)
    figure, axes = panels(wave, 2, 2)
    several = f" of {result.sizes['slice']} slices" if result.sizes["slice"] > 1 else ""
    angle = np.angle(wave)
    turns = bool((np.abs(angle) > 0.95 * math.pi).any())
    how: dict[str, Any] = (
        {"cmap": "twilight", "vmin": -math.pi, "vmax": math.pi}
        if turns
        else {"cmap": "viridis", **_span(angle)}
    )
    show(axes[0], angle, f"phase{several}", "phase (rad)", extent=extent, **how)
    modulus = np.abs(wave)
    show(axes[1], modulus, f"modulus{several}", "modulus (1)", cmap="gray", extent=extent, **_span(modulus))
    label_lengths(axes[:2], name)
    _draw_probe(axes[2], result)
    loss = result["loss"].values
    axes[3].plot(np.arange(1, len(loss) + 1), loss, "o-", markersize=3, color="tab:blue")
    axes[3].set(xlabel="epoch", ylabel="loss (1)", title="loss")
    axes[3].xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _span(values: records.Array) -> dict[str, float]:
    low, high = (float(each) for each in np.percentile(values, _RANGE))
    flat = high - low < _FLAT
    return {"vmin": low - _FLAT * flat, "vmax": high + _FLAT * flat}


def _draw_probe(axes: Axes, result: xr.Dataset) -> None:
    """Draw the modes of the probe side by side, the modulus of each over its largest."""
    beams = np.abs(result["probe"].values[:_MODES, 0] + 1j * result["probe"].values[:_MODES, 1])
    shown = np.concatenate([each / (each.max() or 1.0) for each in beams], axis=1)
    side = result["probe_x"].values
    width = float(side[1] - side[0]) * len(side)
    unit, name = (0.1, "nm") if width > 200 else (1.0, "Å")
    extent = (0.0, width * unit * len(beams), width * unit, 0.0)
    shares = ", ".join(f"{100 * float(each):.0f} %" for each in result["share"].values[:_MODES])
    title = f"modes of the probe: {shares}" if len(beams) > 1 else "probe"
    show(axes, shown, title, "modulus over the largest (1)", cmap="magma", extent=extent)
    label_lengths([axes], name)
