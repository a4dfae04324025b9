"""Figures of the LACBED chapter that are drawn from stored trainings and from the data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from exitwave.papers import figures
from exitwave.papers.webb2025.figures import disk, square
from exitwave.papers.webb2025.parameters import Parameters
from exitwave.papers.webb2025.patterns import THICKNESSES, Samples, stretched
from exitwave.papers.webb2025.refinement import Refined
from exitwave.papers.webb2025.scores import best_shifted

ERROR = "mean square error (Eq. 3)"
# Crystals, three images each, which stand abreast in a column of text.
_SHOWN, _SMALL = 4, 108
_COLOURS = figures.COLOURS[:4]


def data_set(samples: Samples, chosen: Sequence[int], parameters: Parameters) -> Any:
    """Show potentials of the data set above their patterns."""
    cells, disks = [], []
    for i in chosen:
        crystal = samples.crystals[i]
        half_angle = parameters.angular_range / crystal.lattice_parameter
        cells.append(cell(samples.potentials[i, 0].numpy(), f"{crystal.name}, {crystal.space_group}"))
        disks.append(disk(samples.patterns[i, 0].numpy(), half_angle, limits=(0, 1), label="stretched"))
    return figures.row(*(each for pair in zip(cells, disks, strict=True) for each in pair))


def dark_field(samples: Samples, chosen: Sequence[int], parameters: Parameters) -> Any:
    """Show the bright field and two dark-field disks of some crystals, a row for each."""
    rows = []
    for i in chosen:
        crystal = samples.crystals[i]
        half_angle = parameters.angular_range / crystal.lattice_parameter
        titles = (f"{crystal.name}, 000", "200", "220")
        rows.append(
            [
                disk(image, half_angle, title=title, limits=(0, 1), label="stretched")
                for image, title in zip(samples.patterns[i].numpy(), titles, strict=True)
            ]
        )
    return _triplets(rows)


def cell(values: Any, title: str, limits: tuple[float, float] = (0, 1), label: str = "potential") -> Any:
    """Draw an image of one cell, by default a stretched potential."""
    return square(values, (0, 1), ("x / a", "y / a"), title, label, limits)


def beam_errors(stored: xr.Dataset) -> Any:
    """Draw which part of the data set has at most which error by the choice of beams, for each thickness."""
    import holoviews as hv

    errors = np.moveaxis((stored["beam_error"] / stored["scale"]).values, -1, 0).reshape(len(THICKNESSES), -1)
    labels = ("largest error by the choice of beams", "part of the crystals")
    drawn = [
        hv.Curve(
            (np.sort(values), np.arange(1, len(values) + 1) / len(values)), *labels, label=f"{t / 10:g} nm"
        ).opts(color=colour)
        for t, values, colour in zip(stored["thickness"].values, errors, _COLOURS, strict=True)
    ]
    return hv.Overlay(drawn).opts(logx=True, legend_position="bottom")


def _log(values: Any) -> dict[str, Any]:
    """Return options of an axis of errors: decades in steps of 1, 2, 5, labelled."""
    found = np.asarray(values, float).ravel()
    low, high = 0.7 * np.nanmin(found), 1.4 * np.nanmax(found)
    steps = [m * 10.0**e for e in range(-7, 2) for m in (1, 2, 5)]
    few = [step for step in steps if low <= step <= high]
    ticks = few if len(few) <= 7 else [step for step in few if f"{step:.0e}"[0] == "1"]
    return {"logy": True, "ylim": (low, high), "yticks": [(step, f"{step:g}") for step in ticks]}


def frontier(run: xr.Dataset) -> Any:
    """Draw error against time: exact patterns of more and more beams, and FELIX's."""
    import holoviews as hv

    axis, drawn = "seconds for a crystal, one thread", []
    mean = run.mean("seed")
    few = [str(name) for name in run["rule"].values if name != "FELIX"]
    for thickness, colour in ((500.0, _COLOURS[0]), (2000.0, _COLOURS[1])):
        label = f"{thickness / 10:g} nm"
        errors = mean["mse"].sel(thickness=thickness)
        points = (mean["seconds"].sel(rule=few).values, errors.sel(rule=few).values)
        drawn += [
            hv.Curve(points, axis, ERROR, label=f"exact, {label}").opts(color=colour),
            hv.Scatter(points, axis, ERROR, label=f"exact, {label}").opts(color=colour, size=6),
            hv.Scatter(
                ([float(mean["seconds"].sel(rule="FELIX"))], [float(errors.sel(rule="FELIX"))]),
                axis, ERROR, label=f"FELIX's beams, {label}",
            ).opts(color=colour, size=11, marker="x"),
        ]  # fmt: skip
    both = mean["mse"].sel(thickness=[500.0, 2000.0])
    return hv.Overlay(drawn).opts(logx=True, legend_position="bottom", legend_cols=2, **_log(both))


def course(run: xr.Dataset) -> Any:
    """Draw the errors of seen and unseen crystals during training, mean and range over folds (Fig. 3)."""
    import holoviews as hv

    drawn = []
    epochs = run["epoch"].isel(seed=0).values if "seed" in run["epoch"].dims else run["epoch"].values
    for name, label, colour in (
        ("course", "unseen", _COLOURS[1]),
        ("course_train", "seen", _COLOURS[0]),
    ):
        mean, low, high = (getattr(run[name], each)("seed").values for each in ("mean", "min", "max"))
        band = hv.Area((epochs, low, high), "epoch", [ERROR, "high"], label=label)
        drawn += [
            band.opts(alpha=0.25, color=colour),
            hv.Curve((epochs, mean), "epoch", ERROR, label=label).opts(color=colour),
        ]
    blank = float(run["mse_mean_image"].mean())
    drawn.append(_level(epochs, blank, "mean of the training images", "epoch"))
    everything = np.concatenate([run["course"].values, run["course_train"].values])
    ticks = [(value, f"{value:g}") for value in (2, 5, 10, 20, 40, 100)]
    return hv.Overlay(drawn).opts(logx=True, xticks=ticks, legend_position="bottom", **_log(everything))


def _level(x: Any, value: float, label: str, axis: str) -> Any:
    import holoviews as hv

    return hv.Curve(([min(x), max(x)], [value, value]), axis, ERROR, label=label).opts(
        color="grey", line_dash="dashed"
    )


def by_thickness(runs: Mapping[float, xr.Dataset], changes: xr.Dataset) -> Any:
    """Draw the errors of unseen crystals against thickness, and what a wrong thickness would do."""
    import holoviews as hv

    drawn = []
    axis = "thickness (nm)"
    x = np.array(list(runs)) / 10
    values = np.stack([run["mse_test"].values for run in runs.values()])
    medians = np.stack([run["mse_median"].values for run in runs.values()])
    for table, label, colour in ((values, "mean", _COLOURS[1]), (medians, "median", _COLOURS[0])):
        drawn += [
            hv.Curve((x, table.mean(1)), axis, ERROR, label=label).opts(color=colour),
            hv.Scatter(
                (np.repeat(x, table.shape[1]), table.ravel()), axis, ERROR, label=label
            ).opts(color=colour, size=6),
        ]  # fmt: skip
    means = changes["mse_of_change"].mean("seed")
    for change, dash in ((10.0, "dotted"), (50.0, "dashed")):
        points = (x, means.sel(change=change, thickness=list(runs)).values)
        line = hv.Curve(points, axis, ERROR, label=f"{change / 10:g} nm too thick")
        drawn.append(line.opts(color="grey", line_dash=dash))
    lines = means.sel(change=[10.0, 50.0]).values
    everything = np.concatenate([values.ravel(), medians.ravel(), lines.ravel()])
    ticks = [(each, f"{each:g}") for each in x]
    return hv.Overlay(drawn).opts(legend_position="bottom", legend_cols=2, xticks=ticks, **_log(everything))


def space_groups(run: xr.Dataset) -> Any:
    """Draw error and R of each unseen crystal by its space group (Fig. 4)."""
    import holoviews as hv

    groups = run["space_group"].values.ravel()
    order = sorted(set(groups.tolist()))
    drawn = []
    for name, label, log in (("mse", ERROR, True), ("r", "R (Eq. 4)", False)):
        values = run[name].values.ravel()
        means = [float(values[groups == g].mean()) for g in order]
        points = hv.Scatter((groups, values), "space group", label, label="crystals").opts(
            size=6, alpha=0.5, color=_COLOURS[0]
        )
        mean = hv.Scatter((order, means), "space group", label, label="mean of a group").opts(
            marker="dash", size=11, color=_COLOURS[1]
        )
        drawn.append((points * mean).opts(legend_position="bottom", **(_log(values) if log else {})))
    return figures.row(*drawn)


def translations(run: xr.Dataset, parameters: Parameters, seed: int = 0) -> Any:
    """Show what a network was given, what it made of it, and the truth (Figs. 1 and 5)."""
    one = run.sel(seed=seed)
    rows = []
    for i in range(_SHOWN):
        name = str(one["name"].values[i])
        titles = {"given": name, "predicted": f"network, {_index(one, i)}", "truth": "exact"}
        rows.append([_either(one, part, i, title, parameters) for part, title in titles.items()])
    return _triplets(rows)


def _triplets(rows: Sequence[Sequence[Any]]) -> Any:
    """Put three small images abreast, a row for each crystal; one scale for all, whose key ends each row."""
    import panel as pn

    small = {"frame_width": _SMALL, "frame_height": _SMALL, "fontsize": {"title": 8, "labels": 8, "ticks": 7}}
    drawn = [
        figures.row(*(image.opts(colorbar=image is row[-1], **small) for image in row), width=_SMALL)
        for row in rows
    ]
    column: Any = pn.Column
    return column(*drawn)


def typical(run: xr.Dataset, seed: int = 0) -> int:
    """Return which of the crystals kept has the median error, the lower one of two."""
    errors = run["mse"].sel(seed=seed).values[: run.sizes["kept"]]
    return int(np.argsort(errors)[(len(errors) - 1) // 2])


def _index(one: xr.Dataset, i: int) -> str:
    return f"R = {float(one['r'].values[i]):.3f}"


def _either(one: xr.Dataset, part: str, i: int, title: str, parameters: Parameters, **how: Any) -> Any:
    """Draw a kept image, or the squared difference of two: a potential or a pattern."""
    values = _squared(one, i) if part == "squared" else one[part].values[i] / 255
    if (part == "given") == (parameters.direction == "forward"):
        return cell(values, title, **how)
    half_angle = parameters.angular_range / float(one["lattice_parameter"].values[i])
    return disk(values, half_angle, title=title, **({"limits": (0, 1), "label": "stretched"} | how))


def over_thickness(
    runs: Mapping[float, xr.Dataset], parameters: Parameters, i: int = 0, seed: int = 0
) -> Any:
    """Show one crystal at all thicknesses on a slider: given, predicted, true, and Eq. 5 (Figs. 6 and 7)."""
    rows: list[list[Any]] = [[], [], [], []]
    most = max(_squared(run.sel(seed=seed), i).max() for run in runs.values())
    for run in runs.values():
        one = run.sel(seed=seed)
        rows[0].append(_either(one, "given", i, f"given: {one['name'].values[i]}", parameters))
        rows[1].append(_either(one, "predicted", i, f"network, {_index(one, i)}", parameters))
        rows[2].append(_either(one, "truth", i, "exact", parameters))
        limits = {"limits": (0.0, float(most)), "label": "squared difference"}
        rows[3].append(_either(one, "squared", i, "squared difference (Eq. 5)", parameters, **limits))
    return figures.slider("thickness (nm)", [t / 10 for t in runs], *rows)


def _squared(one: xr.Dataset, i: int) -> Any:
    difference = one["predicted"].values[i].astype(np.float32) - one["truth"].values[i]
    return (difference / 255) ** 2


def methods(runs: Mapping[str, xr.Dataset], quantity: str = "mse_test") -> Any:
    """Draw a quantity of several runs, a point for each fold."""
    import holoviews as hv

    blank = float(next(iter(runs.values()))["mse_mean_image"].mean())
    points = [(name, float(value)) for name, run in runs.items() for value in run[quantity].values]
    means = [(name, float(run[quantity].mean())) for name, run in runs.items()]
    drawn = hv.Scatter(points, "network", ERROR, label="folds").opts(size=8, alpha=0.6, color=_COLOURS[0])
    drawn *= hv.Scatter(means, "network", ERROR, label="mean").opts(marker="dash", size=16, color=_COLOURS[1])
    drawn *= hv.HLine(blank).opts(color="grey", line_dash="dashed", line_width=1)
    limits = _log([blank, *(value for _, value in points)])
    return drawn.opts(hv.opts.Scatter(xrotation=25), hv.opts.Overlay(legend_position="bottom", **limits))


def origins(runs: Mapping[str, xr.Dataset]) -> Any:
    """Draw the error of crystals that have two origins, in either, a line for each fold."""
    import holoviews as hv

    axis, drawn = "origin of the International Tables", []
    for (name, run), colour in zip(runs.items(), _COLOURS, strict=False):
        for first, second in zip(
            run["first_origin_mse"].values, run["second_origin_mse"].values, strict=True
        ):
            points = [("1", first), ("2", second)]
            line = hv.Curve(points, axis, ERROR, label=name).opts(color=colour)
            drawn += [line, hv.Scatter(points, axis, ERROR, label=name).opts(color=colour, size=7)]
    both = [run[f"{which}_origin_mse"] for run in runs.values() for which in ("first", "second")]
    return hv.Overlay(drawn).opts(legend_position="bottom", **_log(both))


def refined(found: Sequence[Refined]) -> Any:
    """Show potentials of a network, after the fit to the pattern, and the truth, all best shifted to it."""
    rows = []
    for each in found:
        images = (
            (each.fit.start, f"{each.name}, network", each.before),
            (each.fit.potential, "fitted", each.after),
            (each.truth, "truth", None),
        )
        row = []
        for image, title, score in images:
            error = "" if score is None else f", {score['mse_shifted']:.0e}"
            row.append(cell(stretched(best_shifted(image, each.truth)).numpy(), title + error))
        rows.append(row)
    return _triplets(rows)


def inversions(run: xr.Dataset) -> Any:
    """Draw the error of the potential of each crystal, after the best shift, by what the fit began with."""
    import holoviews as hv

    label, drawn = "error (Eq. 3), best shifted", []
    names = [str(name).split(",")[0] for name in run["name"].values]
    starts = (
        ("alone", "atoms", None), ("from nothing", "flat", None),
        ("from 20% off", "perturbed", 0.2), ("from 80% off", "perturbed", 0.8),
    )  # fmt: skip
    for (title, start, error), colour in zip(starts, _COLOURS, strict=True):
        values = run[f"{start}_mse_shifted"]
        values = values if error is None else values.sel(perturbation=error)
        points = list(zip(names, values.values.tolist(), strict=True))
        drawn.append(hv.Scatter(points, "crystal", label, label=title).opts(color=colour, size=8, alpha=0.8))
    limits = _log([run["atoms_mse_shifted"], run["flat_mse_shifted"]])
    return hv.Overlay(drawn).opts(
        hv.opts.Scatter(xrotation=25), hv.opts.Overlay(legend_position="bottom", legend_cols=2, **limits)
    )
