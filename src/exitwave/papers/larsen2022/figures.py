"""Figures of the focal-series chapter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr

from exitwave import records
from exitwave.papers import figures, pictures
from exitwave.papers.larsen2022.data import from_table, halved
from exitwave.papers.larsen2022.parameters import Parameters
from exitwave.simulate import exit_waves, focal_series
from exitwave.specimens.flakes import Flake

# Around points, so that none stands on an edge.
_PADDING = 0.08
# Flakes of most disagreement that are shown.
_WORST = 3
_COLOURS = figures.COLOURS
ERROR, RELATIVE = "RMSE of the wave", "Eq. A.1"
_PART = {"real": "Re ψ - 1", "imag": "Im ψ"}


def structure(flake: Flake) -> Any:
    """Draw the atoms of a flake along the beam, heavier ones larger."""
    import holoviews as hv
    from ase.data import chemical_symbols

    drawn = []
    order = np.argsort(flake.positions[:, 2])[::-1]
    for number, colour in zip(np.unique(flake.numbers), _COLOURS, strict=False):
        mine = order[flake.numbers[order] == number]
        points = hv.Points(flake.positions[mine, :2] / 10, ["x", "y"], label=chemical_symbols[number])
        drawn.append(points.opts(color=colour, size=3 + 0.15 * number, line_color="black", line_width=0.3))
    height, width = (side / 10 for side in flake.size)
    return hv.Overlay(drawn).opts(
        hv.opts.Points(
            frame_width=figures.FRAME_WIDTH, frame_height=figures.FRAME_WIDTH, invert_yaxis=True,
            xlim=(0, width), ylim=(0, height), xlabel="x (nm)", ylabel="y (nm)", toolbar=None,
        ),
        hv.opts.Overlay(title=flake.name, legend_position="bottom", legend_cols=4),
    )  # fmt: skip


def wave(values: Any, pixel: float, title: str = "") -> list[Any]:
    """Draw real part less 1 and imaginary part of a wave, each centred at zero, in 8 bits."""
    array = np.asarray(values)
    return [
        figures.frames(part[None], pixel, kind="difference", label=_PART[name], title=title)[0]
        for name, part in (("real", array.real - 1), ("imag", array.imag))
    ]


def slices(run: xr.Dataset) -> Any:
    """Draw the error of a wave against the thickness of slices (Fig. S2)."""
    import holoviews as hv

    x = run["thickness"].values
    drawn = []
    for (name, label), colour in zip(
        (("error", "wave"), ("smeared_error", "smeared wave")), _COLOURS, strict=False
    ):
        values = run[name].mean("seed").values
        curve = hv.Curve((x, np.maximum(values, 1e-12)), "thickness of slices (Å)", RELATIVE, label=label)
        drawn += [
            curve.opts(color=colour),
            hv.Scatter(curve.data, "thickness of slices (Å)", RELATIVE, label=label).opts(color=colour),
        ]
    ticks = [(value, f"{value:g}") for value in (0.05, 0.2, 1, 4)]
    decades = [(10.0**e, f"1e{e}") for e in range(-12, 1, 2)]
    return hv.Overlay(drawn).opts(
        logx=True, logy=True, xticks=ticks, yticks=decades, legend_position="bottom"
    )


def examples(run: xr.Dataset) -> Any:
    """Show series and waves at five percentiles on a slider (Figs. S5 to S12)."""
    one = run.sel(seed=0)
    names = [f"{p}%" for p in one["percentile"].values]
    return _shown("as bad or worse", {name: (one, i) for i, name in enumerate(names)})


def medians(runs: Mapping[str, xr.Dataset]) -> Any:
    """Show series and waves of the median samples of several data sets on a slider (Figs. 1 to 3)."""
    cases = {}
    for name, run in runs.items():
        one = run.sel(seed=0)
        cases[name] = (one, one["percentile"].values.tolist().index(50))
    return _shown("data set", cases)


def _shown(axis: str, cases: Mapping[str, tuple[xr.Dataset, int]]) -> Any:
    """Show two images of a series, and truth and network, for some samples of stored runs of one seed."""
    panels: list[list[Any]] = [[], [], [], [], [], []]
    for one, i in cases.values():
        step, pixel = one["truth"].attrs["scale_factor_of_steps"], float(one["pixel"][i])
        material, shots = str(one["material"].values[i]), one["image"].values[i]
        for panel, shot, title in ((0, shots[0], f"{material}, first image"), (1, shots[-1], "last image")):
            panels[panel] += figures.frames(shot[None] / 255, pixel, label="stretched", title=title)
        panel = 2
        for part in ("imag", "real"):
            end = step * float(abs(one["truth"].sel(part=part)).max())
            for name in ("truth", "network"):
                values = step * one[name].sel(part=part).values[i][None]
                panels[panel] += figures.frames(
                    values, pixel, kind="difference", label=_PART[part], title=name, limits=(-end, end)
                )
                panel += 1
    return figures.slider(axis, list(cases), *panels)


def worst(pair: xr.Dataset) -> Any:
    """Show Im ψ of the flakes on which two networks disagree most, and their difference (Figs. 7, 8)."""
    one = pair.sel(seed=0)
    step = one["truth"].attrs["scale_factor_of_steps"]
    panels: list[list[Any]] = [[], [], [], []]
    names = []
    for i, sample in enumerate(one["worst_sample"].values.tolist()[:_WORST]):
        truth, first, second = (
            step * one[name].sel(part="imag").values[i] for name in ("truth", "first", "second")
        )
        end, material = float(abs(truth).max()), str(one["name"].values[sample])
        for panel, values, title in zip(
            panels,
            (truth, first, second, first - second),
            (f"{material}, truth", "one network", "another", "difference"),
            strict=True,
        ):
            panel += figures.frames(
                values[None], float(one["pixel"][i]), kind="difference", label=_PART["imag"], title=title,
                limits=(-end, end),
            )  # fmt: skip
        names.append(f"{i + 1}")
    return figures.slider("flake, by disagreement", names, *panels)


def histograms(runs: Mapping[str, xr.Dataset]) -> Any:
    """Draw how the errors of unseen flakes are distributed, and those against other flakes (Fig. 4)."""
    import holoviews as hv

    edges = np.geomspace(2e-3, 0.5, 28)
    drawn = []
    everything = {name: run["rmse_of"].values.ravel() for name, run in runs.items()}
    everything["other flakes"] = np.concatenate([run["scrambled_of"].values.ravel() for run in runs.values()])
    for (name, values), colour in zip(everything.items(), _COLOURS, strict=False):
        share = np.histogram(values, edges)[0] / len(values)
        x, y = np.repeat(edges, 2)[1:-1], np.repeat(share, 2)
        drawn.append(hv.Area((x, y), ERROR, "share of the flakes", label=name).opts(color=colour, alpha=0.35))
    ticks = [(value, f"{value:g}") for value in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)]
    return hv.Overlay(drawn).opts(
        hv.opts.Area(responsive=True, height=figures.LINE_HEIGHT, show_grid=True),
        hv.opts.Overlay(logx=True, xticks=ticks, legend_position="bottom"),
    )


def argand(run: xr.Dataset, seed: int = 0) -> Any:
    """Draw the peak values of the columns of the median sample, network and truth (Fig. 5)."""
    import holoviews as hv

    one = run.sel(seed=seed)
    labels = one["argand_column"].values.astype(str)
    kinds = [kind for kind in ("Mo", "S2", "S", "support") if (labels == kind).any()]
    ends = [np.nanmin, np.nanmax]
    both = np.concatenate([one[f"argand_{name}"].values for name in ("network", "truth")])
    bounds = [tuple(end(both[:, i]) for end in ends) for i in (0, 1)]
    pad = [0.05 * (high - low) for low, high in bounds]
    drawn = []
    for name in ("network", "truth"):
        clouds = [
            hv.Scatter(one[f"argand_{name}"].values[labels == kind], "Re ψ", "Im ψ", label=kind).opts(
                color=colour, size=7, alpha=0.8
            )
            for kind, colour in zip(kinds, _COLOURS, strict=False)
        ]
        drawn.append(
            hv.Overlay(clouds).opts(
                title=name, legend_position="bottom", legend_cols=4,
                xlim=(bounds[0][0] - pad[0], bounds[0][1] + pad[0]),
                ylim=(bounds[1][0] - pad[1], bounds[1][1] + pad[1]),
            )
        )  # fmt: skip
    return figures.row(*drawn)


def course(runs: Mapping[str, xr.Dataset]) -> Any:
    """Draw the errors of unseen and seen flakes during training, means over seeds (Fig. S3b)."""
    import holoviews as hv

    drawn = []
    for (name, run), colour in zip(runs.items(), _COLOURS, strict=False):
        epoch = run["epoch"].isel(seed=0).values if "seed" in run["epoch"].dims else run["epoch"].values
        for quantity, kind, dash in (("course", "unseen", "solid"), ("course_seen", "seen", "dotted")):
            values = run[quantity].mean("seed").values
            curve = hv.Curve((epoch, values), "epoch", "mean square error", label=f"{name}, {kind}")
            drawn.append(curve.opts(color=colour, line_dash=dash))
    ticks = [(step * 1e-4, f"{step * 1e-4:g}") for step in (2, 5, 10, 20, 50)]
    return hv.Overlay(drawn).opts(logy=True, yticks=ticks, legend_position="bottom", legend_cols=1)


def side_by_side(run: xr.Dataset, methods: Mapping[str, str]) -> Any:
    """Show Im ψ of the truth and of several methods on a slider (Figs. 10, S13, S14)."""
    one = run.sel(seed=0)
    shown = {"truth": "truth", **methods}
    panels: list[list[Any]] = [[] for _ in range(1 + len(shown))]
    step = one["truth_wave"].attrs["scale_factor_of_steps"]
    pixel = 2 * Parameters.model_fields["sampling"].default
    for i in range(one.sizes["percentile"]):
        first = one["image"].values[i, 0]
        panels[0] += figures.frames(first[None] / 255, pixel, label="stretched", title="first image")
        waves = {name: step * one[f"{name}_wave"].sel(part="imag").values[i] for name in shown}
        most = float(abs(waves["truth"]).max())
        for panel, (name, title) in zip(panels[1:], shown.items(), strict=True):
            panel += figures.frames(
                waves[name][None], pixel, kind="difference", label=_PART["imag"], title=title,
                limits=(-most, most),
            )  # fmt: skip
    return figures.slider("as bad or worse", [f"{p}%" for p in one["percentile"].values], *panels)


def against(runs: Mapping[float, xr.Dataset], axis: str, methods: Mapping[str, str]) -> Any:
    """Draw errors against what was changed, means and each seed; `methods` names them by quantity."""
    import holoviews as hv

    drawn: list[Any] = []
    found: list[float] = []
    x = sorted(runs)
    for (name, label), colour in zip(methods.items(), _COLOURS, strict=False):
        values = [runs[each][name].values for each in x]
        mean = hv.Curve((x, [each.mean() for each in values]), axis, RELATIVE, label=label)
        every = [(place, value) for place, each in zip(x, values, strict=True) for value in each]
        drawn += [
            mean.opts(color=colour, padding=_PADDING),
            hv.Scatter(every, axis, RELATIVE, label=label).opts(
                color=colour, size=5, alpha=0.6, padding=_PADDING
            ),
        ]
        found += [value for _, value in every]
    steps = (1, 2, 5) if max(found) < 10 * min(found) else (1, 3)
    ticks = [(each, f"{each:g}") for each in x]
    decades = [(step * 10.0**power, f"{step * 10.0**power:g}") for power in range(-3, 2) for step in steps]
    return hv.Overlay(drawn).opts(
        logx=True, logy=True, xticks=ticks, yticks=decades, legend_position="bottom", legend_cols=1
    )


def disagreement(run: xr.Dataset) -> Any:
    """Draw the error of each unseen flake against how far two networks are apart (Fig. 8)."""
    import holoviews as hv

    drawn = []
    for seed, colour in zip(run["seed"].values, _COLOURS, strict=False):
        one = run.sel(seed=seed)
        points = (one["disagreement_of"].values, one["relative_of"].values)
        drawn.append(
            hv.Scatter(points, "disagreement of two networks", RELATIVE, label=f"pair {seed + 1}").opts(
                color=colour, size=5, alpha=0.6
            )
        )
    decades = [(value, f"{value:g}") for value in (0.01, 0.03, 0.1, 0.3, 1)]
    return hv.Overlay(drawn).opts(
        hv.opts.Scatter(responsive=True, height=figures.LINE_HEIGHT, show_grid=True),
        hv.opts.Overlay(logx=True, logy=True, xticks=decades, yticks=decades, legend_position="bottom"),
    )


def cover(parameters: Parameters) -> bytes:
    """Return the chapter's picture for the first page: an image and the wave behind it, as PNG."""
    table = records.load(parameters.changed(data="supported").files()["supported"]).isel(seed=0)
    flake = from_table(table)[0][1]
    exit_wave = halved(exit_waves.simulate(flake.numbers, flake.positions, parameters.multislice))[None]
    generator = torch.Generator().manual_seed(3)
    conditions = focal_series.draw(parameters.ranges, 1, 3, generator)
    size = exit_wave.shape[-1]
    conditions = replace(conditions, sampling=torch.tensor([2 * parameters.sampling]))
    shot = focal_series.simulate(exit_wave, 2 * parameters.sampling, conditions, size, generator)[0, 0]
    real, imaginary = exit_wave[0].real.numpy() - 1, exit_wave[0].imag.numpy()
    panels = [("one of three images", shot.numpy(), "viridis", (float(shot.min()), float(shot.max())))]
    for title, part in (("the wave: Im ψ", imaginary), ("and Re ψ - 1", real)):
        most = 0.5 * float(abs(part).max())
        panels.append((title, part, "RdBu_r", (-most, most)))
    return pictures.triptych(*panels)
