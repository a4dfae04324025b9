"""Figures of the LACBED chapter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from exitwave.papers import figures, pictures
from exitwave.papers.webb2025.exact import strontium_titanate
from exitwave.papers.webb2025.patterns import (
    THICKNESSES,
    geometry,
    projected_potential,
    stretched,
)
from exitwave.simulate import lacbed
from exitwave.specimens.crystals import Crystal

_SIZE, DISK_WIDTH = 150, 200  # of a disk, and of its figure


def disk(
    values: Any, half_angle: float, *, kind: figures.Kind = "magnitude", title: str = "",
    limits: tuple[float, float] | None = None, label: str = "intensity",
) -> Any:  # fmt: skip
    """Draw a disk with axes in mrad about its centre.

    Parameters
    ----------
    values : array, shape (y, x)
    half_angle : float
        rad.
    kind, title, limits, label
        See :func:`exitwave.papers.figures.image`.
    """
    array = np.asarray(values, np.float32)
    low, high = (float(array.min()), float(array.max()))
    if kind == "difference":
        high = float(np.abs(array).max())
        low = -high
    edge = 1e3 * half_angle
    drawn = square(array, (-edge, edge), ("tilt x (mrad)", "tilt y (mrad)"), title, label)
    return drawn.opts(cmap=figures.COLOUR_MAPS[kind], clim=limits or (low, high))


def cell(crystal: Crystal, energy: float, title: str = "", pixels: int = 96) -> Any:
    """Draw the projected potential of one unit cell, stretched to [0, 1] (Eq. 1)."""
    values = stretched(projected_potential(crystal, pixels, energy)).numpy()
    return square(values, (0, 1), ("x / a", "y / a"), title or crystal.name, "potential")


def square(
    values: Any, extent: tuple[float, float], axes: tuple[str, str], title: str, label: str,
    limits: tuple[float, float] = (0, 1),
) -> Any:  # fmt: skip
    """Draw an array, row 0 at the top, between two ends of both axes."""
    import holoviews as hv

    low, high = extent
    names = [axes[0].replace(" ", "_"), axes[1].replace(" ", "_")]
    drawn = hv.Image(np.flipud(values), bounds=(low, low, high, high), kdims=names, vdims=["value"])
    return drawn.opts(
        frame_width=_SIZE, frame_height=_SIZE, invert_yaxis=True, xlabel=axes[0], ylabel=axes[1], title=title,
        colorbar=True, cmap=figures.COLOUR_MAPS["magnitude"], clim=limits, clabel=label, tools=["hover"],
        default_tools=[], toolbar=None, shared_axes=False,
    )  # fmt: skip


def thicknesses(pattern: lacbed.Pattern, half_angle: float) -> Any:
    """Show the disk of one crystal on a slider over the thickness."""
    shown = [
        disk(image.numpy(), half_angle, limits=(0, float(pattern.intensity.max())), title="bright field")
        for image in pattern.intensity[0].cpu()
    ]
    return figures.slider("thickness (nm)", [0.1 * t for t in THICKNESSES], shown)


def beside(images: Mapping[str, Any], half_angle: float) -> Any:
    """Show disks on one scale, and the difference of each to the last."""
    arrays = {title: np.asarray(each, np.float32) for title, each in images.items()}
    high = max(float(each.max()) for each in arrays.values())
    *others, last = arrays
    drawn = [disk(each, half_angle, title=title, limits=(0, high)) for title, each in arrays.items()]
    worst = max(float(np.abs(arrays[title] - arrays[last]).max()) for title in others)
    drawn += [
        disk(
            arrays[title] - arrays[last], half_angle, kind="difference", title=f"{title} less {last}",
            limits=(-worst, worst), label="difference",
        )
        for title in others
    ]  # fmt: skip
    return figures.row(*drawn, width=DISK_WIDTH)


def convergence(stored: xr.Dataset) -> Any:
    """Draw the error of SrTiO3's disk against the resolution limit; FELIX's rule as lines."""
    import holoviews as hv

    drawn = []
    limits = [str(name) for name in stored["rule"].values if name != "FELIX"]
    for b, colour in zip(stored["B"].values, ("#0072b2", "#d55e00"), strict=True):
        errors = stored["error"].sel(B=b, thickness=2000.0).mean("seed")
        x = [float(limit) for limit in limits]
        y = [float(errors.sel(rule=limit)) for limit in limits]
        drawn.append(
            hv.Curve((x, y), "resolution limit (1/Å)", "rms error of intensity", label=f"B = {b:g} Å²").opts(
                color=colour
            )
        )
        drawn.append(hv.Scatter((x, y)).opts(color=colour, size=7))
        felix = float(errors.sel(rule="FELIX"))
        drawn.append(
            hv.Curve(([min(x), max(x)], [felix, felix]), label=f"FELIX's beams, B = {b:g} Å²").opts(
                color=colour, line_dash="dashed"
            )
        )
    return hv.Overlay(drawn).opts(logy=True, legend_position="bottom", frame_height=260)


def costs(stored: xr.Dataset) -> Any:
    """Draw the time of a disk against the edge of the cell, and that of the paper's generator."""
    import holoviews as hv

    mean = stored.mean("seed")
    edges = mean["edge"].values
    names = {"edge_folded": "shared diagonalisations", "edge_felix": "FELIX's beams", "edge_abtem": "abTEM"}
    axis, drawn = ("edge of the cell (Å)", "seconds for a disk, one thread"), []
    for (name, label), colour in zip(names.items(), ("#0072b2", "#d55e00", "#009e73"), strict=True):
        points = (edges, mean[name].values)
        drawn += [hv.Curve(points, *axis, label=label).opts(color=colour)]
        drawn += [hv.Scatter(points, *axis, label=label).opts(color=colour, size=7)]
    network = float(mean["network_seconds"])
    flat = ([edges[0], edges[-1]], [network, network])
    drawn.append(hv.Curve(flat, *axis, label="the paper's generator").opts(color="grey", line_dash="dashed"))
    return hv.Overlay(drawn).opts(logx=True, logy=True, legend_position="bottom", xticks=list(edges))


def same_projection(stored: xr.Dataset, parameters: Any, known: Iterable[Crystal]) -> Any:
    """Show potentials and patterns at 200 nm of crystals whose atoms project onto one another (Fig. 5)."""
    one = stored.isel(seed=0)
    cells = {f"{c.name}, {c.prototype}": c.lattice_parameter for c in known}
    drawn = []
    for i in range(one.sizes["crystal"]):
        name = str(one["name"].values[i]).split(",")[0]
        half_angle = parameters.angular_range / cells[str(one["name"].values[i])]
        drawn.append(square(one["potential"].values[i] / 255, (0, 1), ("x / a", "y / a"), name, "potential"))
        drawn.append(
            disk(one["pattern"].values[i] / 255, half_angle, title=name, limits=(0, 1), label="stretched")
        )
    return figures.row(*drawn, width=DISK_WIDTH)


def cover(parameters: Any) -> bytes:
    """Return the chapter's picture for the first page: potential, exact pattern, FELIX's beams, as PNG."""
    crystal = strontium_titanate()
    field = geometry(parameters, crystal, 96)
    found = [
        lacbed.simulate(crystal, [1000.0], field, beams, verify=False).intensity[0, 0].numpy()
        for beams in (lacbed.Beams(), lacbed.Beams("felix"))
    ]
    potential = stretched(projected_potential(crystal, 96, parameters.energy)).numpy()
    titles = ("projected potential of SrTiO₃", "its pattern, 593 beams", "with FELIX's beams")
    images = zip(titles, (potential, *found), strict=True)
    return pictures.triptych(*((title, image, "viridis", (0.0, 1.0)) for title, image in images))
