"""What is computed for Zhou et al. 2020: the paper's methods and a better one on the same images."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import numpy as np
import torch
import xarray as xr

from exitwave import metrics
from exitwave.papers.zhou2020.beyond import parameter_retrieval, uncertainty
from exitwave.papers.zhou2020.gallery import gallery
from exitwave.papers.zhou2020.judge import evaluate, quantity, table, traps
from exitwave.papers.zhou2020.parameters import MILLIMETRE, Parameters
from exitwave.papers.zhou2020.reasons import few_conditions
from exitwave.papers.zhou2020.scene import (
    CUTOFF,
    Scene,
    retrieve_better,
    retrieve_gradient,
    retrieve_single,
    retrieve_tie,
    simulate,
)
from exitwave.papers.zhou2020.specimen import relax_target

# Points at which the course of Adam is kept, evenly spaced on a logarithmic axis.
COURSE_POINTS = 40
# Steps of Adam in studies of many conditions: as in the paper's map; its other figures have 5000.
MAP_STEPS = 500
# Defoci of the coarse map, mm; the paper has 65 between -1.6 and 1.6.
MAP_DEFOCI = (-1.6, -0.6, -0.15, 0.15, 0.6, 1.6)
NOISES = (0.0, 0.05, 0.1, 0.2)


def ties(scene: Scene) -> dict[str, dict[str, float]]:
    """Judge the transport-of-intensity equation in its variants, and from one image."""
    return {
        "tie": evaluate(retrieve_tie(scene), scene),
        "tikhonov": evaluate(retrieve_tie(scene, cutoff=CUTOFF), scene),
        "symmetrised": evaluate(retrieve_tie(scene, symmetrise=True), scene),
        "sitie": evaluate(retrieve_single(scene), scene),
    }


def tie_retrieval(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Simulate one scene and judge the variants of TIE on it."""
    scene = simulate(parameters, device)
    return table(ties(scene)).merge(traps(scene, retrieve_tie(scene)))


def descend(scene: Scene, iterations: int) -> tuple[torch.Tensor, xr.Dataset]:
    """Run the paper's gradient retrieval and return the phase and its course.

    Returns
    -------
    phase : Tensor, shape (y, x)
    course : xarray.Dataset
        ``course_correlation`` and ``course_loss`` along ``step``; ``gradient_peak`` (best correlation),
        ``gradient_peak_step``, ``gradient_drop`` (best less last), ``gradient_peak_loss`` and
        ``gradient_last_loss``; ``gradient_seconds``.
    """
    steps = np.unique(np.append(np.geomspace(1, iterations, COURSE_POINTS).astype(int), iterations))
    course: dict[int, tuple[float, float]] = {}

    def observe(iteration: int, phase: torch.Tensor, loss: float) -> None:
        if iteration in steps:
            course[iteration] = (float(metrics.correlation(phase.double().cpu(), scene.truth)), loss)

    begin = time.perf_counter()
    phase, _ = retrieve_gradient(scene, iterations, observe)
    seconds = time.perf_counter() - begin
    correlations, losses = (np.array(each) for each in zip(*course.values(), strict=True))
    best = int(np.argmax(correlations))
    return phase, xr.Dataset(
        {
            "step": quantity(list(course), "1", "step of Adam", ("step",)),
            "course_correlation": quantity(correlations, "1", "correlation, means removed", ("step",)),
            "course_loss": quantity(losses, "1", "loss", ("step",)),
            "gradient_peak": quantity(correlations[best], "1", "best correlation on the way"),
            "gradient_peak_step": quantity(list(course)[best], "1", "step of the best correlation"),
            "gradient_drop": quantity(
                correlations[best] - correlations[-1], "1", "best less last correlation"
            ),
            "gradient_peak_loss": quantity(losses[best], "1", "loss at the best correlation"),
            "gradient_last_loss": quantity(losses[-1], "1", "loss at the end"),
            "gradient_seconds": quantity(seconds, "s", "time of all steps of Adam"),
        }
    )


def better(scene: Scene) -> tuple[torch.Tensor, xr.Dataset]:
    """Run the quasi-Newton method and return the phase and what it cost."""
    begin = time.perf_counter()
    fit = retrieve_better(scene)
    cost = {
        "fit_evaluations": quantity(fit.evaluations, "1", "evaluations of model and gradient"),
        "fit_weight": quantity(fit.weight, "1", "weight of the prior, chosen by held-out pixels"),
        "fit_seconds": quantity(time.perf_counter() - begin, "s", "time of the quasi-Newton retrieval"),
    }
    return fit.phase, xr.Dataset(cost)


def comparison(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Simulate one scene and judge TIE, the paper's gradient retrieval and the quasi-Newton method on it.

    Returns
    -------
    xarray.Dataset
        ``tie_*``, ``tikhonov_*``, ``symmetrised_*``, ``sitie_*``, ``gradient_*`` and ``fit_*`` for each
        of ``QUANTITIES`` in :mod:`exitwave.papers.zhou2020.judge`, the values of Eq. 2 for a constant and a
        negated phase, the course of :func:`descend`, and the cost of :func:`better`.
    """
    scene = simulate(parameters, device)
    phase, course = descend(scene, parameters.iterations)
    fitted, cost = better(scene)
    results = ties(scene) | {"gradient": evaluate(phase, scene), "fit": evaluate(fitted, scene)}
    return xr.merge([table(results), traps(scene, phase), course, cost])


def descent(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Simulate one scene and judge the paper's gradient retrieval on it, alone.

    Returns
    -------
    xarray.Dataset
        What :func:`comparison` gives of it: ``gradient_*`` and the course of :func:`descend`.
    """
    scene = simulate(parameters, device)
    phase, course = descend(scene, parameters.iterations)
    return xr.merge([table({"gradient": evaluate(phase, scene)}), course])


def conditions(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Judge all methods at three kinds of defocus and four levels of noise, at equal dose (Fig. 5a).

    The four images of the hybrid series have noise larger by the square root of 2 than the pairs.

    Returns
    -------
    xarray.Dataset
        ``<method>_<quantity>`` (focus, noise), and the quantities that claims compare.
    """
    focuses = ("moderate", "strong", "hybrid")
    found = []
    for focus, noise in itertools.product(focuses, NOISES):
        images = 4 if focus == "hybrid" else 2
        sigma = float(noise * np.sqrt(images / 2))
        here = parameters.changed(focus=focus, images=images, noise=sigma)
        here = here.changed(iterations=min(parameters.iterations, MAP_STEPS))
        found.append(comparison(here, device).drop_dims("step"))
    grid = xr.concat(found, "condition")
    result = xr.Dataset(
        {
            name: quantity(
                values.values.reshape(len(focuses), len(NOISES)), values.units, values.long_name,
                ("focus", "noise"),
            )
            for name, values in grid.data_vars.items()
        },
        coords={
            "focus": quantity(list(focuses), "1", "kind of defocus", ("focus",)),
            "noise": quantity(list(NOISES), "1", "noise of a pair of equal dose", ("noise",)),
        },
    )  # fmt: skip
    return result.merge(_compared(result))


def _compared(grid: xr.Dataset) -> xr.Dataset:
    """Return scalars of the grid of conditions that the claims are judged by."""
    chosen = xr.Dataset()
    for method, focus, noise in (
        ("tie", "moderate", 0.1), ("tie", "strong", 0.1), ("tie", "strong", 0.0),
        ("gradient", "strong", 0.0), ("gradient", "hybrid", 0.1), ("gradient", "moderate", 0.0),
        ("gradient", "moderate", 0.1), ("fit", "hybrid", 0.1),
    ):  # fmt: skip
        for name in ("accuracy", "correlation", "gradient_error", "resolution"):
            value = grid[f"{method}_{name}"].sel(focus=focus, noise=noise)
            label = f"{method}_{focus}_{round(100 * noise)}_{name}"
            chosen[label] = quantity(
                float(value), value.units, f"{value.long_name}, {focus}, noise {noise:g}"
            )
    under_noise = grid["tie_accuracy"].sel(focus=["moderate", "strong"], noise=0.1)
    chosen["tie_best_accuracy"] = quantity(float(under_noise.max()), "1", "best accuracy of TIE at 10% noise")
    for name in ("accuracy", "correlation"):
        lost = chosen[f"gradient_moderate_0_{name}"] - chosen[f"gradient_moderate_10_{name}"]
        chosen[f"{name}_lost"] = quantity(float(lost), "1", f"{name} lost by 10% noise, moderate defocus")
    return chosen


def more_images(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Judge the paper's method and the better one on 2, 4 and 20 hybrid images of one total dose.

    Returns
    -------
    xarray.Dataset
        ``gradient_<quantity>``, ``gradient_peak_step`` and ``fit_<quantity>`` (level, images) for pairs
        of 10% and 20% noise, and scalars ``correlation_<images>`` and ``noisy_correlation_<images>``.
    """
    levels, numbers = (0.1, 0.2), (2, 4, 20)
    rows = []
    for level, images in itertools.product(levels, numbers):
        sigma = float(level * np.sqrt(images / 2))
        scene = simulate(parameters.changed(focus="hybrid", images=images, noise=sigma), device)
        phase, course = descend(scene, min(parameters.iterations, MAP_STEPS))
        fitted, cost = better(scene)
        judged = table({"gradient": evaluate(phase, scene), "fit": evaluate(fitted, scene)})
        rows.append(xr.merge([judged, course.drop_dims("step"), cost]))
    stacked = xr.concat(rows, "condition")
    result = xr.Dataset(
        {
            name: quantity(
                values.values.reshape(len(levels), len(numbers)), values.units, values.long_name,
                ("level", "images"),
            )
            for name, values in stacked.data_vars.items()
        },
        coords={
            "level": quantity(list(levels), "1", "noise of a pair of equal dose", ("level",)),
            "images": quantity(list(numbers), "1", "number of images", ("images",)),
        },
    )  # fmt: skip
    for prefix, level in (("", 0.1), ("noisy_", 0.2)):
        for images in numbers:
            value = float(result["gradient_correlation"].sel(level=level, images=images))
            result[f"{prefix}correlation_{images}"] = quantity(value, "1", f"correlation, {images} images")
    return result


def pair(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Judge one pair of images after :data:`MAP_STEPS` steps of Adam, and the better method on it."""
    scene = simulate(parameters.changed(images=2), device)
    phase, course = descend(scene, min(parameters.iterations, MAP_STEPS))
    fitted, cost = better(scene)
    judged = table({"gradient": evaluate(phase, scene), "fit": evaluate(fitted, scene)})
    return xr.merge([judged, course.drop_dims("step"), cost])


def defocus_map(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Judge all pairs of :data:`MAP_DEFOCI` (Fig. 5b, c).

    Returns
    -------
    xarray.Dataset
        ``accuracy``, ``correlation``, ``stability`` (step of the best correlation) of the paper's method
        and ``fit_correlation`` (first, second), symmetric, and the scalars that the claim compares:
        the pair (-1.6, 1.6) is strong, (-0.15, 0.15) moderate, (-0.15, 1.6) hybrid.
    """
    n = len(MAP_DEFOCI)
    names = {
        "accuracy": "gradient_accuracy", "correlation": "gradient_correlation",
        "stability": "gradient_peak_step", "fit_correlation": "fit_correlation",
    }  # fmt: skip
    values = {name: np.full((n, n), np.nan) for name in names}  # no pair of an image with itself
    for i, j in itertools.combinations(range(n), 2):
        first, second = (MAP_DEFOCI[k] * MILLIMETRE for k in (i, j))
        found = pair(parameters.changed(first_defocus=first, second_defocus=second), device)
        for name, source in names.items():
            values[name][i, j] = values[name][j, i] = float(found[source])
    defoci = np.array(MAP_DEFOCI) * MILLIMETRE
    result = xr.Dataset(
        {
            name: quantity(each, "1", name.replace("_", " "), ("first", "second"))
            for name, each in values.items()
        },
        coords={
            axis: quantity(defoci, "Å", f"defocus of the {axis} image", (axis,))
            for axis in ("first", "second")
        },
    )
    for label, pairing in {"strong": (0, 5), "moderate": (2, 3), "hybrid": (2, 5)}.items():
        for name in ("accuracy", "correlation", "stability"):
            value = float(values[name][pairing])
            result[f"{name}_{label}"] = quantity(value, "1", f"{name} of the {label} pair")
    return result


def experiment(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Imitate the experiment of Fig. 4, whose images are not public: 20 images against a pair, equal dose.

    Gradient retrieval is given 20 images within +-1.44 mm, TIE the pair at +-1.44 mm, whose noise is
    smaller by the square root of 10.
    """
    many = simulate(parameters.changed(focus="quadratic", images=20), device)
    two = simulate(
        parameters.changed(focus="quadratic", images=2, noise=parameters.noise / np.sqrt(10)), device
    )
    phase, course = descend(many, min(parameters.iterations, MAP_STEPS))
    fitted, cost = better(many)
    results = {
        "tie": evaluate(retrieve_tie(two), two),
        "gradient": evaluate(phase, many),
        "fit": evaluate(fitted, many),
    }
    return xr.merge([table(results), course, cost])


STUDIES: dict[str, Callable[..., xr.Dataset]] = {
    "target": relax_target,
    "tie": tie_retrieval,
    "comparison": comparison,
    "descent": descent,
    "conditions": conditions,
    "few_conditions": few_conditions,
    "more_images": more_images,
    "pair": pair,
    "defocus_map": defocus_map,
    "experiment": experiment,
    "parameter_retrieval": parameter_retrieval,
    "uncertainty": uncertainty,
    "gallery": gallery,
}
