"""Figures of the Lorentz chapter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr

from exitwave.papers import figures
from exitwave.papers.zhou2020 import judge
from exitwave.papers.zhou2020 import scene as scenes
from exitwave.papers.zhou2020 import specimen as films
from exitwave.papers.zhou2020.parameters import MILLIMETRE, Parameters
from exitwave.simulate import imaging, lorentz

TITLES = {"tie": "TIE", "gradient": "gradient retrieval"}


def _small(values: torch.Tensor) -> tuple[np.ndarray[Any, Any], int]:
    """Bin to what a page can carry; return the pixels and the binning."""
    binned = figures.bin_frames(values.double().cpu().numpy()[None])[0]
    return binned, values.shape[-1] // binned.shape[-1]


def _phase(values: torch.Tensor, sampling: tuple[float, float], title: str) -> Any:
    """Draw a phase on the circle, its median at the centre of the scale."""
    binned, factor = _small(values - values.median())
    pixel = (factor * sampling[0], factor * sampling[1])
    return figures.image(binned, pixel, kind="phase", label="phase", unit="rad", title=title)


def specimen(scene: scenes.Scene) -> Any:
    """Show the film and the phase it gives the wave."""
    film = scene.film
    mx, my = film.magnetisation
    magnetisation = torch.atan2(my, mx) * (film.coverage > 0)
    binned, factor = _small(film.coverage)
    pixel = (factor * film.sampling[0], factor * film.sampling[1])
    directions = figures.image(
        np.where(binned > 0, magnetisation[::factor, ::factor].numpy(), np.nan),
        pixel,
        kind="phase",
        label="direction of magnetisation",
        unit="rad",
        title="film",
    ).opts(cmap="colorwheel")
    return figures.row(directions, _phase(scene.truth, film.sampling, "phase of the exit wave"))


def focal_series(parameters: Parameters) -> Any:
    """Show images of one specimen, without and with noise, on a slider over the defocus."""
    defoci = np.array([-1.6, -0.8, -0.4, -0.15, 0.0, 0.15, 0.4, 0.8, 1.6])
    film = films.film(parameters)
    shape = (film.coverage.shape[0], film.coverage.shape[1])
    microscope = scenes.instrument(parameters, film.sampling, tuple(defoci * MILLIMETRE))
    transfer = microscope.transfer(shape)
    stack = imaging.images(scenes.wave_of(parameters, film), transfer).numpy()
    frames = figures.frames(stack, film.sampling, label="intensity over vacuum", limits=(0.4, 1.6))
    return figures.slider("defocus (mm)", [float(d) for d in defoci], frames)


def retrieved(scene: scenes.Scene, phases: Mapping[str, torch.Tensor]) -> Any:
    """Show the true phase beside retrieved ones."""
    drawn = [_phase(scene.truth, scene.sampling, "truth")]
    drawn += [_phase(phase, scene.sampling, title) for title, phase in phases.items()]
    return figures.row(*drawn)


def edges(scene: scenes.Scene, phases: Mapping[str, torch.Tensor]) -> Any:
    """Draw |grad phase| across an edge of the widest bar, or along the middle row of a film without bars."""
    import holoviews as hv

    bar = max(scene.film.bars, key=lambda each: each.width, default=None)
    step = (scene.sampling[1] if bar is None or bar.vertical else scene.sampling[0]) * 0.1
    curves = []
    for title, phase in {"truth": scene.truth, **phases}.items():
        if bar is None:
            profile = judge.slope(phase, scene.sampling)[len(phase) // 2].numpy() * 10
        else:
            profile = judge.edge_profile(phase, bar, 1, scene.sampling) * 10
        x = (np.arange(len(profile)) - len(profile) // 2) * step
        where = "x from the middle (nm)" if bar is None else "distance from the edge (nm)"
        curves.append(hv.Curve((x, profile), where, "|∇φ| (rad/nm)", label=title))
    return hv.Overlay(curves)


def wrapping(scene: scenes.Scene) -> Any:
    """Draw the error of the Fourier method against its padding, the kernel method being the truth."""
    import holoviews as hv

    exact = lorentz.magnetic_phase(scene.film)
    paddings = [1, 2, 3, 4, 6]
    errors = []
    for padding in paddings:
        difference = lorentz.magnetic_phase(scene.film, method="fourier", padding=padding) - exact
        errors.append(float((difference - difference.mean()).abs().max()))
    points = (paddings, errors)
    labels = ("padded field over field", "largest error (rad)")
    return (hv.Curve(points, *labels) * hv.Scatter(points, *labels)).opts(logy=True, show_legend=False)


def course(runs: Mapping[str, xr.Dataset]) -> Any:
    """Draw the correlation with the truth against the steps of Adam, mean and range over seeds."""
    import holoviews as hv

    drawn = []
    for title, run in runs.items():
        values = run["course_correlation"]
        steps = run["step"].values
        mean, low, high = (getattr(values, name)("seed").values for name in ("mean", "min", "max"))
        labels = ("step of Adam", "correlation with the truth")
        drawn.append(hv.Area((steps, low, high), labels[0], [labels[1], "high"], label=title).opts(alpha=0.3))
        drawn.append(hv.Curve((steps, mean), *labels, label=title))
    return hv.Overlay(drawn).opts(logx=True)


def replicates(runs: Mapping[str, xr.Dataset], quantity: str, label: str) -> Any:
    """Draw one point for each seed, method and run of a stored quantity."""
    import holoviews as hv

    drawn = []
    for method, title in TITLES.items():
        points = [
            (name, float(value))
            for name, run in runs.items()
            if f"{method}_{quantity}" in run
            for value in run[f"{method}_{quantity}"].values
        ]
        if points:
            drawn.append(hv.Scatter(points, "run", label, label=title))
    return hv.Overlay(drawn).opts(hv.opts.Scatter(jitter=0.2))


def cover(parameters: Parameters) -> bytes:
    """Return the chapter's picture for the first page: image, and the phase behind it, as PNG."""
    import io

    import matplotlib as mpl
    from matplotlib.figure import Figure

    scene = scenes.simulate(parameters.changed(focus="moderate", noise=0.05))
    with mpl.rc_context({"font.size": 9}):
        figure = Figure(figsize=(6.4, 2.3), layout="constrained", dpi=110)
        panels = [
            ("defocused image", scene.defocused[-1], "viridis", None),
            ("its hidden phase", scene.truth, "twilight_shifted", (-np.pi, np.pi)),
            ("phase by TIE", scenes.retrieve_tie(scene), "twilight_shifted", (-np.pi, np.pi)),
        ]
        for axes, (title, values, cmap, limits) in zip(figure.subplots(1, 3), panels, strict=True):
            shown = values.double()
            if limits:
                shown = torch.remainder(shown - shown.median() + np.pi, 2 * np.pi) - np.pi
            vmin, vmax = limits or (0.0, 2.0)
            axes.imshow(shown.numpy(), cmap=cmap, vmin=vmin, vmax=vmax)
            axes.set_title(title)
            axes.set_axis_off()
        stream = io.BytesIO()
        figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()
