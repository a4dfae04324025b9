"""Figures of the 4D-STEM chapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from exitwave import records
from exitwave.papers import figures
from exitwave.papers.cao2020.transfer import EVERYWHERE, METHODS, NAMES, PICTURES
from exitwave.papers.pictures import triptych
from exitwave.project import data_folder

_LINE = 20  # of a legend, screen pixels
_COLOURS = dict(zip((*METHODS, "truth"), figures.COLOURS, strict=False))


def scanned(
    values: Any, step: tuple[float, float], title: str, label: str = "signal", unit: str = "1"
) -> Any:
    """Draw an image of a scan (scan_y, scan_x), of steps (y, x) in Å."""
    return figures.image(np.asarray(values), step, label=label, unit=unit, title=title)


def pattern(values: Any, pixel: float, title: str) -> Any:
    """Draw a pattern in FFT order by the logarithm of its share of electrons, axes in mrad.

    Parameters
    ----------
    values : array, shape (ky, kx)
        Shares of the electrons; what is below a millionth of the largest counts as that.
    pixel : float
        rad.
    title : str
    """
    import holoviews as hv

    centred = np.fft.fftshift(np.asarray(values, float))
    shown = np.log10(np.maximum(centred / centred.max(), 1e-6))
    count = len(shown)
    low, high = -1e3 * pixel * (count // 2 + 0.5), 1e3 * pixel * (count - count // 2 - 0.5)
    return hv.Image(
        shown[::-1], bounds=(low, low, high, high), kdims=["x (mrad)", "y (mrad)"], vdims=["log10"]
    ).opts(
        cmap=figures.COLOUR_MAPS["magnitude"], clim=(-6, 0), colorbar=True, colorbar_position="bottom",
        clabel="log10 over largest", frame_width=figures.FRAME_WIDTH, aspect="equal", invert_yaxis=True,
        title=title, tools=["hover"],
    )  # fmt: skip


def pictures(run: xr.Dataset, specimen: str, step: tuple[float, float]) -> list[Any]:
    """Draw the stored images of a specimen, each from its least to its most; of the first seed."""
    stack = run["images"].sel(seed=0).values
    return [
        scanned(stack[i] / 255, step, "truth" if name == "truth" else NAMES[name], "least to most")
        for i, (of, name) in enumerate(PICTURES)
        if of == specimen
    ]


def scores(run: xr.Dataset, prefix: str, names: Sequence[str]) -> str:
    """Return a table of what methods are worth, means over seeds with their spread, as Markdown."""
    kinds = {
        "contrast": ("contrast over noise", 1), "resolution": ("resolution, Å", 2),
        "likeness": ("likeness to the truth", 3), "scaled_error": ("error after scaling, rad", 3),
    }  # fmt: skip
    lines = [f"| | {' | '.join(text for text, _ in kinds.values())} |", "|---" * (1 + len(kinds)) + "|"]
    for name in names:
        cells = []
        for kind, (_, digits) in kinds.items():
            values = run[f"{prefix}{name}_{kind}"].values
            spread = f" ± {values.std(ddof=1):.{digits}f}" if np.isfinite(values).all() else ""
            cells.append(f"{values.mean():.{digits}f}{spread}")
        lines.append(f"| {NAMES[name]} | {' | '.join(cells)} |")
    return "\n".join(lines)


def vacancies(run: xr.Dataset) -> str:
    """Return a table of how the missing sulphur shows, means over seeds, as Markdown."""
    lines = ["| | share of the true drop | over the spread of whole columns |", "|---|---|---|"]
    for name in METHODS:
        share, over = (float(run[f"{name}_{kind}"].mean()) for kind in ("vacancy", "significance"))
        lines.append(f"| {NAMES[name]} | {share:.2f} | {over:.1f} |")
    return "\n".join(lines)


def against_dose(
    runs: Mapping[float, xr.Dataset], kind: str, prefix: str, label: str, names: Sequence[str] = METHODS
) -> Any:
    """Draw a quantity of each method over dose (electrons per Å²), one point a seed, a line of means."""
    return _against(runs, kind, prefix, ("dose (electrons per Å²)", label), names, logx=True)


def against_cluster(runs: Mapping[float, xr.Dataset], kind: str, label: str) -> Any:
    """Draw a quantity of both networks over the side of a cluster."""
    axes = "patterns along each side of a cluster", label
    drawn = _against(runs, kind, "", axes, ("linear", "conv"), logx=False)
    return drawn.opts(xticks=[(each, f"{each:g}") for each in runs])


def _against(
    runs: Mapping[float, xr.Dataset], kind: str, prefix: str, axes: tuple[str, str], names: Sequence[str],
    *, logx: bool,
) -> Any:  # fmt: skip
    import holoviews as hv

    drawn, places = [], sorted(runs)
    style = {"logx": logx, "logy": kind == "resolution"}
    for name in names:
        values = [runs[x][f"{prefix}{name}_{kind}"].values for x in places]
        points = [
            (x, float(y)) for x, each in zip(places, values, strict=True) for y in each if np.isfinite(y)
        ]
        means = [
            (x, float(each.mean())) for x, each in zip(places, values, strict=True) if np.isfinite(each).all()
        ]
        colour = _COLOURS[name]
        drawn.append(hv.Curve(means, *axes, label=NAMES[name]).opts(color=colour, **style))
        drawn.append(hv.Scatter(points, *axes).opts(color=colour, **style))
    return _above_legend(drawn)


def _above_legend(drawn: Sequence[Any]) -> Any:
    """Lay curves, each with its points, over one another; a legend of many lines takes nothing from them."""
    import holoviews as hv

    height = figures.LINE_HEIGHT + _LINE * (len(drawn) // 2)
    return hv.Overlay([each.opts(height=height) for each in drawn]).opts(
        legend_position="bottom", legend_cols=1
    )


def masks(run: xr.Dataset, bright: float, kind: str = "effect", label: str = "effect of a ring") -> Any:
    """Draw what the mask of the linear model does over spatial frequency, one curve for each seed.

    Parameters
    ----------
    run : Dataset
    bright : float
        Where the bright disk ends, 1/Å.
    kind, label : str
        ``mask``, or ``effect``, which is that times how much the electrons of a ring vary.
    """
    import holoviews as hv

    axes = "spatial frequency (1/Å)", f"{label} over the largest"
    curves = [
        hv.Curve((run["ring"].values, run[kind].sel(seed=seed).values), *axes, label=f"seed {int(seed)}")
        for seed in run["seed"].values
    ]
    lines = [
        hv.HLine(0).opts(color="black", line_width=1),
        hv.VLine(bright).opts(color="black", line_width=1, line_dash="dashed"),
    ]
    return hv.Overlay([*curves, *lines]).opts(legend_position="bottom", legend_cols=3)


# Of the figure of all methods: name of a quantity's prefix or way, title, colour and dash.
_EVERY = {
    "adf": ("annular dark field", figures.COLOURS[0], "dotted"),
    "com": (NAMES["com"], figures.COLOURS[1], "dotted"),
    "ssb": ("single side band", figures.COLOURS[2], "dotted"),
    "parallax": ("parallax, 150 Å underfocus", figures.COLOURS[3], "dotted"),
    "linear": (NAMES["linear"], figures.COLOURS[2], "dashed"),
    "conv": (NAMES["conv"], figures.COLOURS[3], "dashed"),
    "label": (NAMES["label"], figures.COLOURS[4], "solid"),
    "": ("network of many materials", figures.COLOURS[5], "solid"),
    "alone_": ("a network that learns from the scan alone", "black", "solid"),
}


def every_method(
    runs: Mapping[float, xr.Dataset], direct: xr.Dataset, general: xr.Dataset, kind: str, label: str
) -> Any:
    """Draw a quantity over dose, logarithmic, for every method: means over seeds.

    Parameters
    ----------
    runs : mapping of float to Dataset
        By dose, of the study ``transfer``.
    direct, general : Dataset
        Of the studies of these names.
    kind, label : str
        ``scaled_error``, ``resolution`` and so on, and its axis.
    """
    import holoviews as hv

    axes = "dose (electrons per Å²)", label
    drawn = []
    for name, (title, colour, dash) in _EVERY.items():
        if name in METHODS:
            points = [(dose, float(runs[dose][f"{name}_{kind}"].mean())) for dose in sorted(runs)]
        else:
            values = direct[kind].sel(way=name) if name in direct["way"] else general[f"{name}{kind}"]
            points = list(zip(values["dose"].values, values.mean("seed").values, strict=True))
        drawn.append(hv.Curve(points, *axes, label=title).opts(
            color=colour, line_dash=dash, logx=True, logy=True,
            height=figures.LINE_HEIGHT + 2 * _LINE * (len(_EVERY) // 2),
        ))  # fmt: skip
    return hv.Overlay(drawn).opts(legend_position="bottom", legend_cols=1)


def beyond_training(
    run: xr.Dataset, name: str, label: str, learned: tuple[float, float], usual: str, factor: float = 1.0
) -> Any:
    """Draw errors of the network of many materials over a property of the probe; what it knows is shaded.

    Parameters
    ----------
    run : Dataset
        Of the study ``general``.
    name, label : str
        ``semiangle`` or ``defocus``, and its axis.
    learned : (float, float)
        Least and greatest that it has learned from.
    usual : str
        What it is told where that is not true.
    factor : float
        From the unit of the run to that of the axis.
    """
    import holoviews as hv

    axes, at = (label, "error over the spread of the phase"), factor * run[name].values
    drawn = [hv.VSpan(*(factor * each for each in learned)).opts(color="#dddddd", alpha=0.6)]
    for kind, title, colour in (
        ("share", "network, told", _EVERY[""][1]),
        ("untrue_share", f"network, told {usual}", figures.COLOURS[3]),
        ("com_share", NAMES["com"], _COLOURS["com"]), ("label_share", NAMES["label"], _COLOURS["label"]),
    ):  # fmt: skip
        values = run[f"{name}_{kind}"].transpose(..., name).values
        height = figures.LINE_HEIGHT + 4 * _LINE
        drawn.append(hv.Curve((at, values.mean(0)), *axes, label=title).opts(color=colour, height=height))
        points = [(x, float(y)) for row in values for x, y in zip(at, row, strict=True)]
        drawn.append(hv.Scatter(points, *axes).opts(color=colour, height=height))
    # The span comes first and has no axes of its own.
    return hv.Overlay(drawn).opts(
        legend_position="bottom", legend_cols=1, ylim=(0, None), xlabel=axes[0], ylabel=axes[1]
    )


def from_starts(run: xr.Dataset, kind: str, label: str) -> Any:
    """Draw a quantity of ptychography over its epochs for each start, one point a seed, a line of means."""
    import holoviews as hv

    axes = "epochs of ptychography", label
    drawn = []
    for start in run["start"].values:
        values, name = run[kind].sel(start=start), "empty" if start == "empty" else NAMES[start]
        colour = _COLOURS["label" if start == "empty" else start]
        means = values.mean("seed").values
        drawn.append(hv.Curve((run["epoch"].values, means), *axes, label=f"from {name}").opts(color=colour))
        points = [(x, float(y)) for x in run["epoch"].values for y in values.sel(epoch=x).values]
        drawn.append(hv.Scatter(points, *axes).opts(color=colour))
    return _above_legend(drawn)


def over_thickness(run: xr.Dataset, kind: str, label: str) -> Any:
    """Draw a quantity of each method over the thickness of PrScO3, means over seeds."""
    import holoviews as hv

    axes = "thickness (nm)", label
    drawn = []
    for name in EVERYWHERE:
        values = run[f"thick_{kind}"].sel(way=name).mean("seed").values
        thick = run["thickness"].values / 10
        drawn.append(hv.Curve((thick, values), *axes, label=NAMES[name]).opts(color=_COLOURS[name]))
        drawn.append(hv.Scatter((thick, values), *axes).opts(color=_COLOURS[name]))
    return _above_legend(drawn)


def cover(parameters: Any) -> bytes:  # noqa: ARG001
    """Return the chapter's picture for the first page: stored images of MoS2 beside the truth, as PNG."""
    stack = records.load(data_folder() / "cao2020" / "workshop" / "transfer.nc")["images"].sel(seed=0).values
    panels = []
    for name, title in (
        (METHODS[0], NAMES[METHODS[0]]),
        (METHODS[-1], NAMES[METHODS[-1]]),
        ("truth", "truth"),
    ):
        image = stack[PICTURES.index(("MoS2", name))] / 255
        panels.append((f"MoS₂, {title}", image, "viridis", (0.0, 1.0)))
    return triptych(*panels)
