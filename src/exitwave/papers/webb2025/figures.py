"""Figures of the LACBED chapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from exitwave.papers import figures
from exitwave.papers.webb2025.patterns import (
    THICKNESSES,
    projected_potential,
    stored_crystals,
    stretched,
    whole,
)
from exitwave.simulate import lacbed
from exitwave.specimens.crystals import Crystal

_SIZE = 190


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
    drawn = _square(array, (-edge, edge), ("tilt x (mrad)", "tilt y (mrad)"), title, label)
    return drawn.opts(cmap=figures.COLOUR_MAPS[kind], clim=limits or (low, high))


def cell(crystal: Crystal, energy: float, title: str = "", pixels: int = 96) -> Any:
    """Draw the projected potential of one unit cell, stretched to [0, 1] (Eq. 1)."""
    values = stretched(projected_potential(crystal, pixels, energy)).numpy()
    return _square(values, (0, 1), ("x / a", "y / a"), title or crystal.name, "potential")


def _square(values: Any, extent: tuple[float, float], axes: tuple[str, str], title: str, label: str) -> Any:
    """Draw an array, row 0 at the top, between two ends of both axes."""
    import holoviews as hv

    low, high = extent
    # Axes of their own: figures side by side with axes of one name would move together.
    names = [axes[0].replace(" ", "_"), axes[1].replace(" ", "_")]
    drawn = hv.Image(np.flipud(values), bounds=(low, low, high, high), kdims=names, vdims=["value"])
    return drawn.opts(
        frame_width=_SIZE, frame_height=_SIZE, invert_yaxis=True, xlabel=axes[0], ylabel=axes[1], title=title,
        colorbar=True, cmap=figures.COLOUR_MAPS["magnitude"], clim=(0, 1), clabel=label, tools=["hover"],
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
    return figures.row(*drawn)


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


def data_set(stored: xr.Dataset, parameters: Any, groups: Sequence[int]) -> Any:
    """Show a crystal of each of some space groups: its potential and its pattern, on a slider."""
    crystals = stored_crystals()
    quadrants = torch.as_tensor(stored["intensity"].sel(thickness=500.0).values).flatten(0, 1)
    names, potentials, patterns = [], [], []
    for group in groups:
        found = [i for i, each in enumerate(crystals[: len(quadrants)]) if each.space_group == group]
        if not found:
            continue
        crystal = crystals[found[0]]
        names.append(f"{group}: {crystal.name}")
        potentials.append(cell(crystal, parameters.energy, crystal.name, 64))
        half = parameters.angular_range / crystal.lattice_parameter
        image = whole(quadrants[found[0]].float())[None, None]
        small = torch.nn.functional.avg_pool2d(image, 2)[0, 0] / 255
        patterns.append(disk(small.numpy(), half, limits=(0, 1), title="50 nm", label="stretched intensity"))
    return figures.slider("space group", names, potentials, patterns)


def error_of_beams(stored: xr.Dataset) -> Any:
    """Draw the share of the data set whose error by FELIX's choice of beams lies below a value."""
    import holoviews as hv

    errors = stored["beam_error"].isel(seed=0)
    drawn = []
    for thickness in errors["thickness"].values:
        values = np.sort(errors.sel(thickness=thickness).values)
        share = (np.arange(len(values)) + 1) / len(values)
        drawn.append(
            hv.Curve((values, share), "largest error over largest intensity", "share of crystals",
                     label=f"{0.1 * thickness:g} nm")
        )  # fmt: skip
    return hv.Overlay(drawn).opts(logx=True, legend_position="bottom_right", xlim=(1e-3, 1.5))


def same_projection(stored: xr.Dataset, half_angle: float) -> Any:
    """Show potentials and patterns at 200 nm of crystals whose atoms project onto one another (Fig. 5)."""
    one = stored.isel(seed=0)
    drawn = []
    for i in range(one.sizes["crystal"]):
        name = str(one["name"].values[i]).split(",")[0]
        drawn.append(_square(one["potential"].values[i] / 255, (0, 1), ("x / a", "y / a"), name, "potential"))
        drawn.append(
            disk(one["pattern"].values[i] / 255, half_angle, title=name, limits=(0, 1), label="stretched")
        )
    return figures.row(*drawn)
