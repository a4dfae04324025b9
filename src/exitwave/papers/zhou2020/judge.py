"""What a retrieved phase is worth: the paper's accuracy, correlation, gradient, sharpness of edges."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import xarray as xr

from exitwave import metrics, records
from exitwave.papers.zhou2020.scene import Scene
from exitwave.specimens import magnets

# The profile across an edge that the Gaussian is fitted to reaches this far, in fields of view: it ends
# before the next bar begins. A coarse field needs some pixels all the same.
EDGE_WINDOW = 0.02
EDGE_PIXELS = 4
EDGE_BARS = 6

QUANTITIES = {
    "accuracy": ("1", "accuracy by Eq. 2 of Zhou 2020"),
    "correlation": ("1", "correlation with the true phase, means removed"),
    "gradient_error": ("1", "relative rms error of the phase gradient"),
    "resolution": ("Å", "FWHM of the phase gradient at edges"),
}


def slope(phase: torch.Tensor, sampling: tuple[float, float]) -> torch.Tensor:
    """Return |grad phase| in rad/Å, shape (y, x), float64."""
    slope_y, slope_x = torch.gradient(phase.double().cpu(), spacing=sampling)
    return torch.hypot(slope_y, slope_x)


def edge_profile(
    phase: torch.Tensor, bar: magnets.Bar, side: int, sampling: tuple[float, float]
) -> np.ndarray:
    """Return |grad phase| in rad/Å across a long edge, averaged over the middle half of its length.

    Parameters
    ----------
    phase : Tensor, shape (y, x)
    bar : Bar
    side : {-1, 1}
        Which of the two long edges.
    sampling : (float, float)
        Pixel size (y, x), Å.
    """
    dy, dx = sampling
    magnitude = slope(phase, sampling)
    across, along = bar.centre_x, bar.centre_y
    if not bar.vertical:
        magnitude, (dy, dx), across, along = magnitude.T, (dx, dy), bar.centre_y, bar.centre_x
    window = max(EDGE_WINDOW * magnitude.shape[1], EDGE_PIXELS) * dx
    edge = across + side * bar.width / 2
    first, last = round((along - bar.length / 4) / dy), round((along + bar.length / 4) / dy)
    start, stop = max(round((edge - window) / dx), 0), round((edge + window) / dx)
    return magnitude[first : last + 1, start : stop + 1].mean(0).numpy()


def edge_resolution(phase: torch.Tensor, scene: Scene) -> float:
    """Return the median FWHM in Å of the edges of the widest bars (Zhou 2020, Methods B).

    An edge too blurred to be fitted counts as wide as the window it was looked for in, so the
    result is then a lower bound. NaN for a specimen without bars.
    """
    widest = sorted(scene.film.bars, key=lambda bar: -bar.width)[:EDGE_BARS]
    widths = []
    for bar in widest:
        step = scene.sampling[1] if bar.vertical else scene.sampling[0]
        for side in (-1, 1):
            profile = edge_profile(phase, bar, side, scene.sampling)
            span = (len(profile) - 1) * step
            width = metrics.edge_fwhm(profile, step)
            widths.append(min(width, span) if np.isfinite(width) else span)
    return float(np.median(widths)) if widths else float("nan")


def evaluate(phase: torch.Tensor, scene: Scene) -> dict[str, float]:
    """Judge a retrieved phase by the truth.

    Returns
    -------
    dict
        ``accuracy`` (Eq. 2 as printed), ``correlation`` (mean removed), ``gradient_error`` (relative
        rms error of the phase gradient) and ``resolution`` (Å).
    """
    found = phase.double().cpu()
    return {
        "accuracy": float(metrics.absolute_correlation(found, scene.truth)),
        "correlation": float(metrics.correlation(found, scene.truth)),
        "gradient_error": float(metrics.gradient_rmse(found, scene.truth, scene.sampling)),
        "resolution": edge_resolution(found, scene),
    }


def quantity(value: object, units: str, long_name: str, dims: tuple[str, ...] = ()) -> xr.Variable:
    """Return a variable of a result."""
    return xr.Variable(dims, value, {"units": units, "long_name": long_name})


def table(results: Mapping[str, Mapping[str, float]]) -> xr.Dataset:
    """Return ``<method>_<quantity>`` for each method and each of :data:`QUANTITIES`."""
    record = xr.Dataset()
    for method, values in results.items():
        for name, (units, long_name) in QUANTITIES.items():
            record[f"{method}_{name}"] = quantity(values[name], units, f"{method}: {long_name}")
    return record


def traps(scene: Scene, phase: torch.Tensor) -> xr.Dataset:
    """Return what Eq. 2 gives for a constant and for the retrieved phase with its sign reversed."""
    constant = metrics.absolute_correlation(torch.ones_like(scene.truth), scene.truth)
    negated = metrics.absolute_correlation(-phase.double().cpu(), scene.truth)
    return xr.Dataset(
        {
            "constant_accuracy": quantity(float(constant), "1", "accuracy by Eq. 2 of a constant phase"),
            "negated_accuracy": quantity(float(negated), "1", "accuracy by Eq. 2 of the negated phase"),
        }
    )


def judged(found: Mapping[str, tuple[Scene, Mapping[str, torch.Tensor]]]) -> xr.Dataset:
    """Return retrieved phases and what they are worth, as the chapter keeps them.

    Parameters
    ----------
    found : mapping
        Name of a scene to the scene and the phases retrieved from it, by title.

    Returns
    -------
    xarray.Dataset
        ``truth`` and one phase (y, x) for each retrieval, float32, and :data:`QUANTITIES` along
        ``retrieval``.
    """
    titles = [f"{name}, {title}" for name, (_, phases) in found.items() for title in phases]
    values = [evaluate(phase, scene) for scene, phases in found.values() for phase in phases.values()]
    stack = [phase.float().cpu().numpy() for _, phases in found.values() for phase in phases.values()]
    scene = next(iter(found.values()))[0]
    record = records.phase(
        scene.truth.float().numpy(), sampling=scene.sampling, energy=scene.parameters.energy
    ).rename(phase="truth")
    record["retrieval"] = quantity(titles, "1", "scene and method", ("retrieval",))
    record["phase"] = quantity(np.stack(stack), "rad", "retrieved phase", ("retrieval", "y", "x"))
    for name, (units, long_name) in QUANTITIES.items():
        record[name] = quantity([value[name] for value in values], units, long_name, ("retrieval",))
    return record
