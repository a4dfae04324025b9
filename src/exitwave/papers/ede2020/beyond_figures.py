"""Figures of what the one-shot chapter has beyond the paper."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from exitwave.papers import figures
from exitwave.papers.ede2020.prediction import SETS

_COLOURS = figures.COLOURS
_TURN = 2 * math.pi / 256


def phase(values: Any, title: str = "") -> Any:
    """Draw a phase that is stored in 256ths of a turn, from -π to π."""
    angle = np.asarray(values)[None] * _TURN
    [drawn] = figures.frames(angle, figures.PIXELS, kind="phase", label="phase", unit="rad", title=title)
    return figures.in_pixels(drawn)


def modulus(values: Any, title: str) -> Any:
    """Draw what a network is shown, over its largest value."""
    share = np.asarray(values)[None] / 255
    [drawn] = figures.frames(share, figures.PIXELS, label="over largest", title=title)
    return figures.in_pixels(drawn)


def examples(run: xr.Dataset, count: int = 2, title: str = "|ψ|") -> list[Any]:
    """Draw what the network is shown, the true phase and its own, of unseen materials and the first seed."""
    one = run.sel(seed=0)
    drawn = []
    for i in range(count):
        each = one.isel(shown=i)
        drawn += [
            modulus(each["input"], title), phase(each["phase"], "true phase"), phase(each["made"], "network")
        ]  # fmt: skip
    return drawn


def alternatives(run: xr.Dataset, number: int = 0, count: int = 4) -> list[Any]:
    """Draw a modulus, its true phase, and phases that were drawn for it, of the first seed."""
    one = run.sel(seed=0).isel(shown=number)
    drawn = [phase(each, f"drawn, {i + 1}") for i, each in enumerate(one["drawn"].values[:count])]
    return [modulus(one["input"], "|ψ|"), phase(one["phase"], "true phase"), *drawn]


def best_of(run: xr.Dataset, title: str = "") -> Any:
    """Draw the least error among phases drawn for a crop, and for another crop; means over seeds."""
    import holoviews as hv

    drawn = []
    for name, colour in zip(run["set"].values, _COLOURS, strict=False):
        for key, text, dash in (("best", "", "solid"), ("best_of_others", ", of another crop", "dashed")):
            values = run[key].sel(set=name).mean("seed").values
            curve = hv.Curve(
                (run["count"].values, values),
                "phases drawn",
                "least cyclic error (rad)",
                label=f"unseen {name}{text}",
            )
            drawn.append(curve.opts(color=colour, line_dash=dash))
    ticks = [(float(each), f"{each:g}") for each in run["count"].values]
    return hv.Overlay(drawn).opts(
        hv.opts.Curve(logx=True, xticks=ticks),
        hv.opts.Overlay(title=title, legend_position="bottom", legend_cols=1),
    )


def ranks(run: xr.Dataset, title: str = "") -> Any:
    """Draw how often the truth is how far out among the drawn phases; level if nothing tells it from them."""
    import holoviews as hv

    drawn: list[Any] = []
    for name, colour in zip(run["set"].values, _COLOURS, strict=False):
        shares = run["ranks"].sel(set=name).mean("seed").values
        curve = hv.Curve(
            (np.arange(len(shares)), shares), "drawn phases nearer the mean than the truth",
            "share of pixels", label=f"unseen {name}",
        )  # fmt: skip
        drawn.append(curve.opts(color=colour, interpolation="steps-mid"))
    level = hv.HLine(1 / run.sizes["rank"]).opts(color="black", line_dash="dashed", line_width=1)
    most = 1.1 * float(run["ranks"].mean("seed").max())
    return hv.Overlay([*drawn, level]).opts(title=title, legend_position="bottom", ylim=(0, most))


def table(rows: Sequence[tuple[str, xr.Dataset | None, str]], title: str) -> str:
    """Return a table of errors of the three unseen sets, means over seeds, as Markdown.

    Parameters
    ----------
    rows : sequence of (str, Dataset or None, str)
        What is said, the run, and which of its quantities: NAME_kind for each set. None is left out.
    title : str
        Of the first column.
    """
    lines = [f"| {title} | weights, thousands | {' | '.join(SETS)} |", "|---" * (2 + len(SETS)) + "|"]
    for text, run, kind in rows:
        if run is not None:
            weights = "" if kind == "constant" else f"{float(run['parameters'].mean()) / 1e3:.0f}"
            errors = (f"{float(run[f'{name}_{kind}'].mean()):.3f}" for name in SETS)
            lines.append(f"| {text} | {weights} | {' | '.join(errors)} |")
    return "\n".join(lines)


_FITS = {
    "constant": "one phase for all pixels",
    "start": "network",
    "zero": "columns, from a flat potential",
    "after": "columns, from the network's wave, whose phase is then dropped",
    "together": "columns, that explain amplitude and network's wave",
    "chosen": "flat or network's, the one with the lower residual",
    "right": "columns, from the right phase with noise",
}


def fits(run: xr.Dataset) -> str:
    """Return a table of cyclic errors and residuals of fitted columns, means over seeds, as Markdown."""
    sets = [str(each) for each in run["set"].values]
    lines = [f"| cyclic error, rad (residual) | {' | '.join(sets)} |", "|---" * (1 + len(sets)) + "|"]
    for way, text in _FITS.items():
        cells = []
        for name in sets:
            cell = f"{float(run[f'{name}_{way}'].mean()):.3f}"
            if f"{name}_{way}_residual" in run:
                cell += f" ({float(run[f'{name}_{way}_residual'].mean()):.3f})"
            cells.append(cell)
        lines.append(f"| {text} | {' | '.join(cells)} |")
    return "\n".join(lines)


def fitted(run: xr.Dataset) -> list[Any]:
    """Draw amplitude, true phase, the network's and those of fitted columns, of the first seed."""
    one = run.sel(seed=0)
    titles = {
        "phase": "true phase",
        "network": "network",
        "by_zero": "columns",
        "by_after": "columns after network",
    }
    drawn = [phase(one[name].values, title) for name, title in titles.items()]
    return [modulus(one["amplitude"].values, str(one["formula"].values)), *drawn]


def shards(runs: Mapping[str, xr.Dataset | None]) -> str:
    """Return a table of sharded learning beside waves that need no network, means over seeds, as Markdown."""
    found = {title: run for title, run in runs.items() if run is not None}
    first = next(iter(found.values()))
    rows = [("the modulus as the wave", first, "constant_"), ("that, brought back to focus", first, "start_")]
    rows += [(title, run, "") for title, run in found.items()]
    lines = [
        "| wave | cyclic error, rad | relative wave error | error of moduli at unseen foci |",
        "|---|---|---|---|",
    ]
    for title, run, prefix in rows:
        cells = (f"{float(run[prefix + name].mean()):.3f}" for name in ("cyclic", "wave", "foci"))
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def losses(run: xr.Dataset) -> str:
    """Return a table of what a judge can tell from real images, means over seeds, as Markdown."""
    titles = {
        "true": "true waves", "constant": "a constant phase", "start": "moduli brought back to focus",
        "conjugated": "conjugated waves", "untold": "conjugated waves, sign of the defocus not told",
    }  # fmt: skip
    lines = ["| faux images of | loss of the judge, 1/2 if they pass |", "|---|---|"]
    lines += [f"| {text} | {float(run[f'{name}_judged'].mean()):.2f} |" for name, text in titles.items()]
    return "\n".join(lines)
