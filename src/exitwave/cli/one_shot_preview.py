"""The figure that ``exitwave retrieve one-shot`` writes next to its record."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from exitwave import records
from exitwave.cli.pictures import borders, new_figure, unit_of

_SHOWN, _COLUMNS = 3, 3  # alternatives at most; panels abreast
_TURN = {"cmap": "twilight", "vmin": -math.pi, "vmax": math.pi}


def draw(result: xr.Dataset) -> Figure:
    """Return the figure: amplitude, phase and, of alternatives, their spread and the first three."""
    wave = records.from_parts(result["wave"])
    unit, name = unit_of(result)
    panels: list[tuple[str, str, Any, dict[str, Any]]] = [
        ("amplitude", "amplitude (1)", np.abs(wave), {"cmap": "viridis"}),
        ("phase of the network", "phase (rad)", np.angle(wave), _TURN),
    ]
    if "spread" in result:
        colours = {"cmap": "magma", "vmin": 0.0, "vmax": math.pi / 2}
        panels.append(("spread of the alternatives", "distance (rad)", result["spread"].values, colours))
        shown = result["alternatives"].values[:_SHOWN]
        panels += [(f"alternative {i + 1}", "phase (rad)", each, _TURN) for i, each in enumerate(shown)]
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    figure = new_figure(4.2 * columns, 4.2 * rows)
    for number, (title, label, values, how) in enumerate(panels, 1):
        axes = figure.add_subplot(rows, columns, number)
        image = axes.imshow(values, extent=borders(result, unit), **how)
        open_end = "max" if title.startswith("spread") else "neither"
        figure.colorbar(image, ax=axes, label=label, shrink=0.85, extend=open_end)
        axes.set(title=title, xlabel=f"x ({name})", ylabel=f"y ({name})")
    return figure
