"""Figures and tables of the comparison chapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from scipy import ndimage

from exitwave import records
from exitwave.papers import figures
from exitwave.papers.comparison.beside import LEVELS, TRUTH
from exitwave.papers.comparison.methods import METHODS
from exitwave.papers.comparison.parameters import Parameters
from exitwave.papers.comparison.words import WORDS
from exitwave.papers.pictures import triptych
from exitwave.project import data_folder
from exitwave.records import Array

# Those whose phase is drawn for every dose; those of images and holograms, and those of scans.
FEW = ("likelihood", "holography", "ptychography", "scanner")
IMAGES = tuple(name for name, each in METHODS.items() if each != "scan")
SCANS = tuple(name for name, each in METHODS.items() if each == "scan")
# Relatives share a colour; the second of them is dashed.
_COLOURS = {
    "likelihood": 0, "single": 0, "moduli": 1, "eleven": 1, "network": 2, "refined": 2, "holography": 3,
    "mass": 4, "side_band": 5, "parallax": 1, "ptychography": 0, "scanner": 2,
}  # fmt: skip
_DASHED = ("single", "eleven", "refined")
# Screen pixels: of a small picture, of a line of a legend.
_SMALL, _LINE = 112, 25
# Pixels of a picture for each of the common grid.
_FINER, _SMALL_FINER = 3, 2
# Ends of the axis of errors, of rings and of all frequencies.
_ERRORS, _WHOLE = (0.01, 30.0), (0.04, 5.0)
_RIGHT = 1.0  # an error as large as the specimen


def potential(values: Array, step: float, title: str) -> Any:
    """Draw a projected potential, V Å, its pixels in Å; finer, for the eye."""
    fine = finer(values), step / _FINER
    return figures.image(*fine, label="projected potential", unit="V Å", title=title)


def finer(values: Array, times: int = _FINER) -> Array:
    """Return an image (y, x) with so many pixels for each, by cubic splines."""
    zoom: Any = ndimage.zoom
    found: Array = zoom(values, times, order=3, mode="nearest", grid_mode=True)
    return found


def recorded(values: Array, step: float, title: str) -> Any:
    """Draw an intensity over that of vacuum, its pixels in Å."""
    return figures.image(values, step, title=title)


def stored_picture(run: xr.Dataset, name: str) -> Array:
    """Return a stored picture of the first seed, over the largest value of the truth."""
    low, high = LEVELS
    found: Array = low + (high - low) / 255 * run["image"].sel(seed=0, picture=name).values.astype(float)
    return found


def small(values: Array, step: float, title: str) -> Any:
    """Draw a picture without axes, all of them from 0.3 below nothing to the largest value of the truth."""
    drawn = figures.image(finer(values, _SMALL_FINER), step / _SMALL_FINER, limits=(-0.3, 1.0), title=title)
    return drawn.opts(
        frame_width=_SMALL, frame_height=_SMALL, xaxis=None, yaxis=None, colorbar=False, toolbar=None,
        default_tools=[], tools=[], fontsize={"title": 8},
    )  # fmt: skip


def gallery(run: xr.Dataset, step: float, names: Sequence[str] = (TRUTH, *METHODS)) -> list[Any]:
    """Draw stored pictures, small, under their names."""
    return [
        small(stored_picture(run, name), step, name if name == TRUTH else WORDS[name].short) for name in names
    ]


def spectral(run: xr.Dataset, names: Sequence[str], title: str) -> Any:
    """Draw the error of each ring of frequencies over what the truth has there, means over the seeds."""
    import holoviews as hv

    axes = "spatial frequency (1/Å)", "error over signal"
    values, at = run["spectral"].mean("seed"), run["ring"].values
    drawn = [_line(at, values.sel(way=name).values, axes, name) for name in names]
    return _legend([_nothing((0.0, float(at[-1] + at[0])), axes), *drawn], title).opts(
        hv.opts.Curve(logy=True, ylim=_ERRORS)
    )


def over_dose(runs: Mapping[float, xr.Dataset], names: Sequence[str]) -> Any:
    """Draw the error of methods over the dose, a point a seed, lines through the means."""
    import holoviews as hv

    axes, doses = ("electrons per Å²", "error"), sorted(runs)
    drawn = []
    for name in names:
        values = [runs[dose]["error"].sel(way=name).values for dose in doses]
        drawn.append(_line(doses, [float(each.mean()) for each in values], axes, name))
        points = [(dose, float(y)) for dose, each in zip(doses, values, strict=True) for y in each]
        drawn.append(hv.Scatter(points, *axes).opts(color=figures.COLOURS[_COLOURS[name]], size=4))
    return _legend(drawn, "").opts(
        hv.opts.Curve(logx=True, logy=True, ylim=_WHOLE), hv.opts.Scatter(logx=True, logy=True)
    )


def _line(at: Any, values: Any, axes: tuple[str, str], name: str) -> Any:
    import holoviews as hv

    return hv.Curve((at, values), *axes, label=WORDS[name].title).opts(
        color=figures.COLOURS[_COLOURS[name]], line_dash="dashed" if name in _DASHED else "solid"
    )


def _nothing(ends: tuple[float, float], axes: tuple[str, str]) -> Any:
    """Return the line of an image that shows nothing."""
    import holoviews as hv

    return hv.Curve((ends, (_RIGHT, _RIGHT)), *axes, label="an empty image").opts(
        color="#888888", line_dash="dotted"
    )


def _legend(drawn: Sequence[Any], title: str) -> Any:
    """Lay curves over one another; a legend of many lines takes nothing from them."""
    import holoviews as hv

    lines = sum(isinstance(each, hv.Curve) for each in drawn)
    height = figures.LINE_HEIGHT + _LINE * lines
    return hv.Overlay([each.opts(height=height) for each in drawn]).opts(
        legend_position="bottom", legend_cols=1, title=title
    )


def wall_table(run: xr.Dataset, troubles: Mapping[str, xr.Dataset]) -> str:
    """Return the table of all methods, means over the seeds, as Markdown.

    Parameters
    ----------
    run : xarray.Dataset
    troubles : mapping of title to xarray.Dataset
        What went wrong, of which the worst is named.
    """
    lines = [
        "| method | error | filtered | waves, Å | atom | s | fails worst | must know, *takes for granted* |",
        "|---" * 8 + "|",
    ]
    for name, method in WORDS.items():
        mean = {kind: float(run[kind].sel(way=name).mean()) for kind in ("error", "filtered", "seconds")}
        cells = [
            f"**{method.title}**, {method.given}", f"{mean['error']:.2f}", f"{mean['filtered']:.2f}",
            window(run, name), f"{float(run['significance'].sel(way=name).median()):.2g}",
            f"{mean['seconds']:.2g}", worst(troubles, name), f"{method.told}; *{method.assumes}*",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def smaller(table: str) -> str:
    """Return Markdown in smaller letters, which a wide table needs."""
    return f'<div style="font-size: 0.8em">\n\n{table}\n\n</div>'


def window(run: xr.Dataset, name: str) -> str:
    """Return from which to which length waves are right, medians over the seeds, in words."""
    longest, finest = (run[kind].sel(way=name).values for kind in ("longest", "finest"))
    if np.isnan(finest).all():
        return "none"
    return f"{np.nanmedian(longest):.1f} to {np.nanmedian(finest):.2f}"


def worst(troubles: Mapping[str, xr.Dataset], name: str) -> str:
    """Return the trouble in which a method errs most, and its error."""
    errors = {title: float(run["error"].sel(way=name).mean()) for title, run in troubles.items()}
    title = max(errors, key=lambda each: errors[each])
    return f"{title} ({errors[title]:.2f})"


def errors_table(runs: Mapping[str, xr.Dataset]) -> str:
    """Return the error of each method in several runs, means over the seeds, as Markdown."""
    lines = [f"| | {' | '.join(runs)} |", "|---" * (1 + len(runs)) + "|"]
    for name, method in WORDS.items():
        cells = (f"{float(run['error'].sel(way=name).mean()):.2f}" for run in runs.values())
        lines.append(f"| {method.title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cover(parameters: Parameters) -> bytes:  # noqa: ARG001
    """Return the chapter's picture for the first page: three stored phases of one dose, as PNG."""
    run = records.load(data_folder() / "comparison" / "workshop" / "free.nc")
    return triptych(
        *((WORDS[name].title, finer(stored_picture(run, name)), "viridis", (-0.3, 1.0)) for name in
          ("holography", "ptychography", "likelihood"))
    )  # fmt: skip
