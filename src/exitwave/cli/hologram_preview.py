"""The figure that ``exitwave retrieve holography`` writes next to its record."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from exitwave import records
from exitwave.cli.pictures import borders, new_figure, unit_of
from exitwave.records import Array

_TURN = {"cmap": "twilight", "vmin": -math.pi, "vmax": math.pi}
_ORDERS = 4.0  # of magnitude of the spectrum that are shown
_PERCENT = 0.5  # of the pixels of an image that may be beyond its colours, at either end


def draw(result: xr.Dataset, hologram: xr.Dataset) -> Figure:
    """Return the figure: hologram, its spectrum with the side band marked, amplitude, phase.

    Parameters
    ----------
    result : xarray.Dataset
        Of :func:`exitwave.retrieve.hologram_record.retrieve`.
    hologram : xarray.Dataset
        What it was made of.
    """
    wave = records.from_parts(result["wave"])
    image = hologram["intensity"].values[0]
    unit, name = unit_of(result)
    figure = new_figure(10.5, 9.0)
    (left, right), (below, last) = figure.subplots(2, 2)
    panels = (
        (left, "hologram", "intensity as recorded", image, _stretched(image) | {"cmap": "gray"}),
        (below, "amplitude", "amplitude (1)", np.abs(wave), _stretched(np.abs(wave)) | {"cmap": "viridis"}),
        (last, "phase, not unwrapped", "phase (rad)", np.angle(wave), _TURN),
    )
    for axes, title, label, values, how in panels:
        shown = axes.imshow(values, extent=borders(result, unit), **how)
        figure.colorbar(
            shown, ax=axes, label=label, shrink=0.85, extend="neither" if how is _TURN else "both"
        )
        axes.set(title=title, xlabel=f"x ({name})", ylabel=f"y ({name})")
    _draw_spectrum(right, image, result)
    return figure


def _stretched(image: Array) -> dict[str, float]:
    low, high = np.percentile(image, (_PERCENT, 100 - _PERCENT))
    return {"vmin": float(low), "vmax": float(high)}


def _draw_spectrum(axes: Axes, image: Array, result: xr.Dataset) -> None:
    """Draw the spectrum around its three bands and the apertures of both side bands."""
    dy, dx = records.sampling_of(result)
    window = np.hanning(image.shape[0])[:, None] * np.hanning(image.shape[1])
    spectrum = np.fft.fftshift(np.abs(np.fft.fft2((image - image.mean()) * window)))
    level = np.log10(spectrum / spectrum.max() + 10 ** (-2 * _ORDERS))
    ky, kx = (10 * np.fft.fftshift(np.fft.fftfreq(n, d)) for n, d in zip(image.shape, (dy, dx), strict=True))
    half_y, half_x = 0.5 * (ky[1] - ky[0]), 0.5 * (kx[1] - kx[0])
    extent = (kx[0] - half_x, kx[-1] + half_x, ky[-1] + half_y, ky[0] - half_y)
    shown = axes.imshow(level, cmap="magma", extent=extent, vmin=-_ORDERS, vmax=0)
    axes.figure.colorbar(shown, ax=axes, label="log10 of modulus over its largest", shrink=0.85, extend="min")
    q_y, q_x = (10 * float(each) for each in result["carrier"].values)
    radius = 10 * float(result["radius"])
    for sign, style, label in ((-1, "-", "taken"), (1, ":", "its conjugate")):
        centre = (sign * q_x, sign * q_y)
        axes.add_patch(Circle(centre, radius, fill=False, color="cyan", linestyle=style, label=label))
    reach = 1.25 * (math.hypot(q_y, q_x) + radius)
    axes.set(
        title="spectrum of the hologram", xlabel="qx (1/nm)", ylabel="qy (1/nm)",
        xlim=(max(extent[0], -reach), min(extent[1], reach)),
        ylim=(min(extent[2], reach), max(extent[3], -reach)),
    )  # fmt: skip
    axes.legend(loc="upper right", framealpha=0.8, fontsize=8)
