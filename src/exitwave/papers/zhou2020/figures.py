"""Figures of the Lorentz chapter that are drawn from its live cells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from exitwave.papers import figures, pictures
from exitwave.papers.zhou2020 import judge
from exitwave.papers.zhou2020 import scene as scenes
from exitwave.papers.zhou2020 import specimen as films
from exitwave.papers.zhou2020.parameters import MILLIMETRE, Parameters
from exitwave.simulate import imaging, lorentz

# Grey lines of the paper's Fig. 3 appear each time the phase has changed by this, rad.
CONTOUR = 2 * np.pi / 10


def _small(values: torch.Tensor) -> tuple[np.ndarray[Any, Any], int]:
    """Bin to what a page can carry; return the pixels and the binning."""
    binned = figures.bin_frames(values.double().cpu().numpy()[None])[0]
    return binned, values.shape[-1] // binned.shape[-1]


def _phase(values: torch.Tensor, sampling: tuple[float, float], title: str) -> Any:
    """Draw a phase on the circle, its median at the centre of the scale."""
    centred = (values - values.median()).double().cpu().numpy()
    [drawn] = figures.frames(centred[None], sampling, kind="phase", label="phase", unit="rad", title=title)
    return drawn


def specimen(scene: scenes.Scene) -> Any:
    """Show the film and the phase it gives the wave."""
    film = scene.film
    (mx, factor), (my, _) = (_small(component) for component in film.magnetisation)
    pixel = (factor * film.sampling[0], factor * film.sampling[1])
    directions = figures.vectors(my, mx, pixel, title="magnetisation")
    phase = _phase(scene.truth, film.sampling, "phase of the exit wave")
    return figures.row(directions, figures.colour_wheel(), phase)


def focal_series(parameters: Parameters) -> Any:
    """Show images of one specimen, without noise, on a slider over the defocus."""
    defoci = np.array([-1.6, -0.15, 0.0, 0.15, 1.6])
    film = films.film(parameters)
    shape = (film.coverage.shape[0], film.coverage.shape[1])
    microscope = scenes.instrument(parameters, film.sampling, tuple(defoci * MILLIMETRE))
    stack = imaging.images(scenes.wave_of(parameters, film), microscope.transfer(shape))
    noisy = scenes.noisy(parameters.changed(noise=0.1, dose=None), stack, film.sampling)
    style: dict[str, Any] = {"label": "intensity over vacuum", "limits": (0.4, 1.6)}
    clean = figures.frames(stack.numpy(), film.sampling, title="without noise", **style)
    grainy = figures.frames(noisy.numpy(), film.sampling, title="with 10% noise", **style)
    return figures.slider("defocus (mm)", [float(d) for d in defoci], clean, grainy)


def retrieved(scene: scenes.Scene, phases: Mapping[str, torch.Tensor]) -> Any:
    """Show the true phase beside retrieved ones."""
    drawn = [_phase(scene.truth, scene.sampling, "truth")]
    drawn += [_phase(phase, scene.sampling, title) for title, phase in phases.items()]
    return figures.row(*drawn)


def gradients(scene: scenes.Scene, phases: Mapping[str, torch.Tensor]) -> Any:
    """Show the phase gradient in false colour with lines of equal phase (Fig. 3 of the paper)."""
    drawn, largest = [], None
    for title, phase in {"truth": scene.truth, **phases}.items():
        binned, factor = _small(phase)
        pixel = (factor * scene.sampling[0], factor * scene.sampling[1])
        slope_y, slope_x = np.gradient(binned, *pixel)
        if largest is None:
            largest = float(np.percentile(np.hypot(slope_y, slope_x), 90))
        levels = np.floor((binned - np.median(binned)) / CONTOUR).astype(int)
        drawn.append(figures.vectors(slope_y, slope_x, pixel, title=title, largest=largest, contours=levels))
    return figures.row(*drawn, figures.colour_wheel("∇φ"))


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


def profiles(scene: scenes.Scene, phases: Mapping[str, torch.Tensor]) -> Any:
    """Draw the phase along a row across the first element, the three widest vertical bars (Fig. S2d, e)."""
    import holoviews as hv

    vertical = [bar for bar in scene.film.bars if bar.vertical]
    widest = sorted(vertical, key=lambda bar: -bar.width)[:3]
    if not widest:
        row, first, last = len(scene.truth) // 2, 0, scene.truth.shape[1]
    else:
        row = round(widest[0].centre_y / scene.sampling[0])
        margin = widest[0].width
        first = max(round((min(b.centre_x for b in widest) - margin) / scene.sampling[1]), 0)
        last = round((max(b.centre_x for b in widest) + margin) / scene.sampling[1])
    x = np.arange(first, last) * scene.sampling[1] * 0.1
    return hv.Overlay(
        [
            hv.Curve(
                (x, (phase - phase.median())[row, first:last].double().cpu().numpy()),
                "x (nm)",
                "phase (rad)",
                label=title,
            )
            for title, phase in {"truth": scene.truth, **phases}.items()
        ]
    )


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


def held_out(scores: Mapping[float, float]) -> Any:
    """Draw what the held-out pixels say of each weight of the prior."""
    import holoviews as hv

    points = (list(scores), list(scores.values()))
    labels = ("weight of the prior", "deviance of a held-out pixel")
    return (hv.Curve(points, *labels) * hv.Scatter(points, *labels)).opts(logx=True, show_legend=False)


def cover(parameters: Parameters) -> bytes:
    """Return the chapter's picture for the first page: image, and the phase behind it, as PNG."""
    scene = scenes.simulate(parameters.changed(focus="hybrid", images=4, noise=0.15))

    def wrapped(phase: torch.Tensor) -> Any:
        return (torch.remainder(phase - phase.median() + np.pi, 2 * np.pi) - np.pi).numpy()

    turn = (-np.pi, np.pi)
    return pictures.triptych(
        ("one of four images", scene.defocused[1].double().numpy(), "viridis", (0.0, 2.0)),
        ("their hidden phase", wrapped(scene.truth.double()), "twilight_shifted", turn),
        ("phase found", wrapped(scenes.retrieve_better(scene).phase.double()), "twilight_shifted", turn),
    )
