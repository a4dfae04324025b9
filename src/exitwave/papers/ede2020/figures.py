"""Figures of the one-shot chapter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr

from exitwave.papers import figures, pictures
from exitwave.papers.ede2020.beyond_figures import modulus, phase
from exitwave.papers.ede2020.parameters import Parameters
from exitwave.papers.ede2020.prediction import SETS
from exitwave.simulate.crystal_waves import Exposure, simulate
from exitwave.simulate.exit_waves import BAND
from exitwave.specimens.crystals import Crystal
from exitwave.specimens.structures import known_structures
from exitwave.specimens.zones import along

_COLOURS = figures.COLOURS
# What the paper calls the error of random phases (Table 2, Fig. 5).
RANDOM = 0.75
_BINS = 25
_TITLES = {
    "transforms": "unseen transforms", "parameters": "unseen parameters", "materials": "unseen materials",
}  # fmt: skip
# The first page shows this crystal, Å.
_SHOWN, _DEPTH, _PIXELS, _SAMPLING = ("PbTiO3", "PbTiO3"), 80.0, 128, 0.15


def structure(crystal: Crystal, zone: tuple[int, int, int], cells: int = 2, title: str = "") -> Any:
    """Draw the atoms of a crystal along a zone axis, over so many cells, with one cell outlined (Fig. 2)."""
    import holoviews as hv
    from ase.data import chemical_symbols

    slab = along(crystal, zone)
    steps = np.stack(np.meshgrid(np.arange(cells), np.arange(cells), indexing="ij"), -1).reshape(-1, 2)
    drawn = []
    for number, colour in zip(np.unique(slab.numbers), _COLOURS, strict=False):
        mine = slab.fractions[slab.numbers == number, :2]
        places = (mine[None] + steps[:, None]).reshape(-1, 2) @ slab.cell
        points = hv.Points(np.unique(places.round(3), axis=0), ["x", "y"], label=chemical_symbols[number])
        drawn.append(points.opts(color=colour, size=4 + 0.12 * number, line_color="black", line_width=0.3))
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]) @ slab.cell
    drawn.append(hv.Path([corners]).opts(color="black", line_width=1.5))
    # A square with all cells in it, so that both axes have one scale.
    ends = cells * corners
    middle, half = (ends.max(0) + ends.min(0)) / 2, 0.55 * float(np.ptp(ends, axis=0).max())
    (x, y), zone_text = middle, "".join(f"{each}" for each in zone)
    return hv.Overlay(drawn).opts(
        hv.opts.Points(
            frame_width=figures.FRAME_WIDTH, frame_height=figures.FRAME_WIDTH, invert_yaxis=True,
            xlabel="x (Å)", ylabel="y (Å)", toolbar=None,
        ),
        hv.opts.Overlay(
            title=f"{title or slab.name} along [{zone_text}]", legend_position="bottom", legend_cols=4,
            xlim=(x - half, x + half), ylim=(y - half, y + half),
        ),
    )  # fmt: skip


def wave(values: Any, sampling: float, title: str = "") -> list[Any]:
    """Draw the modulus and the phase of a wave."""
    array = np.asarray(values)
    return [
        figures.frames(np.abs(array)[None], sampling, label="|ψ|", title=title)[0],
        _phase(np.angle(array), sampling, title),
    ]


def _phase(values: Any, sampling: float, title: str) -> Any:
    """Draw a phase."""
    return figures.frames(values[None], sampling, kind="phase", label="phase", unit="rad", title=title)[0]


def histograms(run: xr.Dataset, title: str = "") -> Any:
    """Draw the distributions of the errors of the three unseen sets, with a line at 0.75 (Fig. 5)."""
    import holoviews as hv

    edges = np.linspace(0, 1.5, _BINS + 1)
    middles = (edges[1:] + edges[:-1]) / 2
    drawn: list[Any] = []
    for name, colour in zip(SETS, _COLOURS, strict=False):
        counts, _ = np.histogram(run["error_of"].sel(set=name).values.ravel(), edges)
        share = (middles, counts / counts.sum())
        curve = hv.Curve(share, "error of phase components", "share of crops", label=_TITLES[name])
        drawn.append(curve.opts(color=colour))
    line = hv.VLine(RANDOM).opts(color="black", line_dash="dashed", line_width=1)
    return hv.Overlay([*drawn, line]).opts(title=title, legend_position="bottom")


def course(runs: Mapping[str, xr.Dataset | None], unseen: str = "materials") -> Any:
    """Draw how the error falls in training (Fig. 6) and, dashed, that of an unseen set; means over seeds."""
    import holoviews as hv

    drawn = []
    for (title, run), colour in zip(runs.items(), _COLOURS, strict=False):
        if run is None:
            continue
        learned = run["learned"].mean("seed").values
        judged = run["course"].sel(set=unseen).mean("seed").values
        validated = np.atleast_2d(run["epoch"].values)[0]
        for epochs, values, text, dash in (
            (np.arange(1, len(learned) + 1), learned, "training", "solid"),
            (validated, judged, _TITLES[unseen], "dashed"),
        ):
            curve = hv.Curve((epochs, values), "epoch", "error of phase components", label=f"{title}, {text}")
            drawn.append(curve.opts(color=colour, line_dash=dash))
    return hv.Overlay(drawn).opts(legend_position="bottom", legend_cols=1)


def examples(run: xr.Dataset) -> list[Any]:
    """Draw amplitude, true phase and the network's phase of unseen crystals, of the first seed (Fig. 7)."""
    one = run.sel(seed=0)
    found = []
    for i, crystal in enumerate(one["crystal"].values):
        each = one.isel(crystal=i)
        found.append(modulus(each["amplitude"].values, str(crystal)))
        found += [
            phase(each[name].values, title) for name, title in (("phase", "true phase"), ("made", "network"))
        ]
    return found


def equations(run: xr.Dataset) -> list[Any]:
    """Draw what Eq. 1 makes of thickness, and Eq. 26 of the size of pixels; means over crystals."""
    import holoviews as hv

    depth, pixel = (run[name].values for name in ("depth", "pixel"))
    drawn = []
    for name, title, colour in (
        ("potential_correlation", "as a weak phase object", _COLOURS[0]),
        ("turned_correlation", "with the best φ", _COLOURS[2]),
    ):
        values = run[name].mean("seed").values
        one = hv.Curve((depth, values), "thickness (Å)", "correlation with potential", label=title)
        drawn.append(one.opts(logx=True, xticks=_plain(depth), color=colour))
    two = hv.Curve((pixel, run["pixel_error"].mean("seed").values), "camera pixel (Å)", "error of Eq. 26")
    return [
        hv.Overlay(drawn).opts(title="Eq. 1", legend_position="bottom"),
        two.opts(logx=True, xticks=_plain(pixel), color=_COLOURS[1], title="Eq. 26"),
    ]


def _plain(values: Any) -> list[tuple[float, str]]:
    return [(float(each), f"{each:g}") for each in values]


def residual(run: xr.Dataset) -> Any:
    """Draw the residual of the iteration, and that left by each assumed base of the series."""
    import holoviews as hv

    values = run["residual"].mean("seed").values
    one = hv.Curve((np.arange(len(values)), values), "iteration", "rms difference of moduli")
    last = run["base_residual"].mean("seed").values
    two = hv.Curve((run["base"].values, last), "assumed over true base", "last residual")
    return one.opts(color=_COLOURS[0]), two.opts(color=_COLOURS[1])


def cover(parameters: Parameters) -> bytes:
    """Return the chapter's picture for the first page: an amplitude and the phase that it lacks, as PNG."""
    formula, family = _SHOWN
    crystal = next(c for c in known_structures() if (c.formula, c.prototype) == (formula, family))
    how = Exposure(200e3, _DEPTH, (0.001, 0.002), BAND / 2 / _SAMPLING)
    [beams] = simulate([along(crystal, (0, 1, 1))], [how], thickness=parameters.slice_thickness)
    made = beams.image(_PIXELS, _SAMPLING)
    amplitude, phase = made.abs().numpy(), torch.angle(made).numpy()
    return pictures.triptych(
        ("what is measured: |ψ|", amplitude, "viridis", (float(amplitude.min()), float(amplitude.max()))),
        ("what is lost: its phase", phase, "twilight", (-math.pi, math.pi)),
        ("cos of the phase", np.cos(phase), "RdBu_r", (-1.0, 1.0)),
    )
