"""Figures of the Lorentz chapter that are drawn from stored results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from exitwave import records
from exitwave.papers import figures
from exitwave.papers.zhou2020.gallery import MILLIRADIAN
from exitwave.papers.zhou2020.parameters import MILLIMETRE
from exitwave.specimens import target

TITLES = {
    "tie": "TIE",
    "tikhonov": "TIE, Tikhonov",
    "symmetrised": "TIE, symmetrised",
    "sitie": "SITIE, one image",
    "gradient": "gradient",
    "fit": "quasi-Newton",
}


def course(runs: Mapping[str, xr.Dataset], quantity: str = "correlation") -> Any:
    """Draw the course of Adam, mean and range over seeds; `quantity` is ``correlation`` or ``loss``."""
    import holoviews as hv

    drawn = []
    name = "correlation with the truth" if quantity == "correlation" else "loss"
    for title, run in runs.items():
        values = run[f"course_{quantity}"]
        steps = run["step"].values
        mean, low, high = (getattr(values, each)("seed").values for each in ("mean", "min", "max"))
        drawn.append(hv.Area((steps, low, high), "step of Adam", [name, "high"], label=title).opts(alpha=0.3))
        drawn.append(hv.Curve((steps, mean), "step of Adam", name, label=title))
    return hv.Overlay(drawn).opts(logx=True, logy=quantity == "loss")


def effort(runs: Mapping[str, xr.Dataset], better: xr.Dataset) -> Any:
    """Draw the correlation against the evaluations of the model, Adam's course beside the better method."""
    import holoviews as hv

    drawn = []
    labels = ("evaluations of model and gradient", "correlation with the truth")
    for title, run in runs.items():
        mean = run["course_correlation"].mean("seed").values
        drawn.append(hv.Curve((run["step"].values, mean), *labels, label=title))
    points = (better["fit_evaluations"].values, better["fit_correlation"].values)
    drawn.append(hv.Scatter(points, *labels, label="quasi-Newton").opts(size=9))
    return hv.Overlay(drawn).opts(logx=True)


def replicates(
    runs: Mapping[str, xr.Dataset], quantity: str, label: str, methods: Sequence[str] = tuple(TITLES)
) -> Any:
    """Draw one point for each seed, method and run of a stored quantity."""
    import holoviews as hv

    drawn = []
    for method in methods:
        points = [
            (name, float(value))
            for name, run in runs.items()
            if f"{method}_{quantity}" in run
            for value in run[f"{method}_{quantity}"].values
        ]
        if points:
            drawn.append(hv.Scatter(points, "run", label, label=TITLES[method]))
    return hv.Overlay(drawn).opts(hv.opts.Scatter(jitter=0.2, xrotation=25))


def accuracy_and_resolution(stored: xr.Dataset, quantity: str = "accuracy") -> Any:
    """Draw Fig. 5a: accuracy against resolution, one line from no to 20% noise for each method and focus."""
    import holoviews as hv

    label = "accuracy (Eq. 2)" if quantity == "accuracy" else "correlation with the truth"
    drawn = []
    for method, focus in (
        ("tie", "moderate"), ("tie", "strong"), ("gradient", "moderate"), ("gradient", "strong"),
        ("gradient", "hybrid"), ("fit", "moderate"), ("fit", "strong"), ("fit", "hybrid"),
    ):  # fmt: skip
        mean = stored.sel(focus=focus).mean("seed")
        x, y = mean[f"{method}_resolution"].values / 10, mean[f"{method}_{quantity}"].values
        name = f"{TITLES[method]}, {focus}"
        dash = {"tie": "dotted", "gradient": "dashed", "fit": "solid"}[method]
        table = {"x": x, "y": y, "noise": stored["noise"].values}
        curve = hv.Curve((x, y), "edge FWHM (nm)", label, label=name).opts(line_dash=dash)
        points = hv.Scatter(table, "x", ["y", "noise"], label=name).opts(size=4 + 30 * hv.dim("noise"))
        drawn += [curve, points]
    return hv.Overlay(drawn).opts(legend_cols=1, height=480)


def defocus_map(stored: xr.Dataset) -> Any:
    """Draw Fig. 5b and c on the coarse grid, and the same of the better method."""
    import holoviews as hv

    drawn = []
    defoci = [f"{value / MILLIMETRE:g}" for value in stored["first"].values]
    for name, title in (
        ("accuracy", "accuracy (Eq. 2)"),
        ("correlation", "correlation"),
        ("stability", "step of the best correlation"),
        ("fit_correlation", "correlation, quasi-Newton"),
    ):
        mean = stored[name].mean("seed").values
        cells = [
            (first, second, mean[i, j])
            for i, first in enumerate(defoci)
            for j, second in enumerate(defoci)
            if np.isfinite(mean[i, j])
        ]
        heat = hv.HeatMap(cells, ["first defocus (mm)", "second defocus (mm)"], title).sort()
        limits = (0.0, 1.0) if name != "stability" else (0.0, float(np.nanmax(mean)))
        drawn.append(
            heat.opts(
                cmap="viridis", clim=limits, colorbar=True, colorbar_position="bottom", title=title,
                frame_width=figures.FRAME_WIDTH, frame_height=figures.FRAME_WIDTH, tools=["hover"],
                default_tools=[], toolbar=None, xrotation=45,
            )
        )  # fmt: skip
    return figures.row(*(_ordered(heat, defoci) for heat in drawn))


def _ordered(heat: Any, values: Sequence[str]) -> Any:
    """Keep the axes in the order of the defoci, not of their names."""
    first, second = heat.kdims
    return heat.redim.values(**{first.name: list(values), second.name: list(values)})


def by_number(stored: xr.Dataset) -> Any:
    """Draw the correlation against the number of images of one total dose."""
    import holoviews as hv

    drawn = []
    for method in ("gradient", "fit"):
        for level in stored["level"].values:
            mean = stored[f"{method}_correlation"].sel(level=level).mean("seed").values
            name = f"{TITLES[method]}, {level:.0%}"
            points = (stored["images"].values, mean)
            labels = ("images", "correlation with the truth")
            drawn += [hv.Curve(points, *labels, label=name), hv.Scatter(points, *labels, label=name)]
    return hv.Overlay(drawn).opts(logx=True, xticks=[(n, str(n)) for n in stored["images"].values])


def gallery(stored: xr.Dataset) -> Any:
    """Show one specimen's phases on a slider over the noise, with its truth (Figs. 2, S4, S5)."""
    one = stored.isel(seed=0, noise=[0, -1])  # its ends: a page should not weigh more than 6 MB
    sampling = target.FIELD / one.sizes["x"]
    noises = [float(level) for level in one["noise"].values]
    stacks = {"truth": np.stack([one["truth"].values] * len(noises))}
    for method, focus in (
        ("tie", "moderate"), ("tie", "strong"), ("gradient", "moderate"), ("gradient", "strong"),
        ("gradient", "hybrid"), ("fit", "moderate"), ("fit", "hybrid"),
    ):  # fmt: skip
        phases = one["phase"].sel({"method": method, "focus": focus})
        stacks[f"{TITLES[method]}, {focus}"] = phases.transpose("noise", "y", "x").values
    # Small, two beside each other on a telephone, so that the slider is near what it changes. Field and
    # ticks are the same along x and y.
    small: dict[str, Any] = {"frame_width": 128, "frame_height": 128, "xticks": [0, 1000, 2000]}
    small |= {"fontsize": {"title": 8}, "yaxis": None}
    shown = []
    for title, stack in stacks.items():
        drawn = figures.frames(stack * 1e-3, sampling, kind="phase", label="phase", unit="rad", title=title)
        shown.append([each.opts(**small) for each in drawn])
    return figures.slider("noise over vacuum", noises, *shown)


def uncertainty(stored: xr.Dataset) -> Any:
    """Show uncertainty and error of the phase of one specimen side by side, on one scale."""
    one = stored.isel(seed=0)
    sampling = float(records.provenance_of(stored)["parameters"]["sampling"])
    values = MILLIRADIAN * np.stack([one["deviation"].values, np.abs(one["error"].values)])
    limits = (0.0, float(np.percentile(values, 99.5)))
    drawn = figures.frames(values, sampling, label="phase", unit="rad", limits=limits)
    titles = ("uncertainty (bootstrap)", "error |φ - truth|")
    return figures.row(*(each.opts(title=title) for each, title in zip(drawn, titles, strict=True)))


def coverage_table(stored: xr.Dataset) -> str:
    """Return what the uncertainty covers as a Markdown table."""
    lines = ["| nominal | phase | phase gradient |", "|---|---|---|"]
    for level in stored["level"].values:
        cells = [
            f"{float(stored[f'{name}_coverage'].sel(level=level).mean()):.1%}"
            for name in ("phase", "gradient")
        ]
        lines.append(f"| {level:.1%} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def parameter_table(stored: xr.Dataset) -> str:
    """Return what was found with the microscope wrong, freed, and freed with the amplitude, as Markdown."""
    lines = ["| microscope | correlation | error of ∇φ | defoci | shifts | convergence | amplitude |"]
    lines += ["|---|---|---|---|---|---|---|"]
    titles = {
        "known": "known",
        "held": "wrong, held",
        "free": "wrong, retrieved",
        "wave": "wrong, retrieved with the amplitude",
    }
    for name, title in titles.items():
        cells = [
            title,
            *(f"{_mean(stored, f'{name}_{each}'):.3f}" for each in ("correlation", "gradient_error")),
        ]
        cells.append(
            f"{_mean(stored, f'{name}_defocus_error'):.2%}" if f"{name}_defocus_error" in stored else ""
        )
        if f"{name}_shift_error" in stored:
            cells.append(f"{_mean(stored, f'{name}_shift_error') / 10:.2f} nm")
            cells.append(f"{_mean(stored, f'{name}_convergence_ratio'):.2f} of true")
        else:
            cells += ["", ""]
        amplitude = f"{name}_amplitude_error" if name == "wave" else "given_amplitude_error"
        cells.append(f"{_mean(stored, amplitude):.2f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _mean(stored: xr.Dataset, name: str) -> float:
    return float(stored[name].mean())
