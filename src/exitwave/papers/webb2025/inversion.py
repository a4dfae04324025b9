"""The inverse by physics: a bright-field pattern back to the projected potential, by least squares.

The model is the exact one, Bloch waves (:mod:`exitwave.papers.webb2025.projection`). It gives the whole
Jacobian for the price of a gradient, so that the steps are those of Levenberg and Marquardt.

Known are the lattice with its centring, energy, thickness, the intensity relative to the incident beam, and
the symmetry of the projection about an axis at the origin. It has a two-fold axis, so that all U_hk are real.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
import xarray as xr
from torch import Tensor

from exitwave import metrics
from exitwave.errors import InputError
from exitwave.papers.webb2025.exact import quantity
from exitwave.papers.webb2025.parameters import Parameters
from exitwave.papers.webb2025.patterns import geometry, stretched
from exitwave.papers.webb2025.projection import SHARE, Centring, Known, Model, Waves, model_of
from exitwave.papers.webb2025.scores import best_shifted
from exitwave.simulate import lacbed
from exitwave.specimens.crystals import Crystal
from exitwave.specimens.prototypes import known_crystals

Report = Callable[[int, float], None]

# Weights of the squared distance to the start, beside the squared misfit, and steps with each.
_STAGES = ((1e-3, 12), (1e-5, 15), (1e-7, 15), (1e-10, 30))
# Search for a start: tilts at least, sets of atoms, strongest atom, those refined, their steps.
_FEW, _DRAWS, _STRONGEST, _REFINED, _REFINING = 34, 300, 3.0, 12, 10
# A fit this good (misfit), or nearly as good as the noise lets it be, is the answer: no other start is tried.
_SOLVED, _NEARLY = 1e-3, 1.2
# The study: crystals with 4mm about the origin in projection, in order of the seed, and their centring.
_CRYSTALS: tuple[tuple[str, str, Centring], ...] = (
    ("MgO", "rock salt", "F"), ("SrTiO3", "perovskite", "P"), ("CsCl", "CsCl", "P"),
    ("CaF2", "fluorite", "F"), ("GaAs", "zincblende", "F"), ("W", "bcc", "I"), ("CaB6", "CaB6", "P"),
    ("KMgF3", "perovskite", "P"), ("Cu", "fcc", "F"), ("NiAl", "CsCl", "P"),
)  # fmt: skip
# Relative errors of each coefficient of a start, and shares of the resolution that it has.
_ERRORS, _CUTS = (0.2, 0.4, 0.8, 1.6), (0.5, 0.25)
_NUMBERS = {
    "r": "R",
    "mse": "mean square error",
    "r_shifted": "R, best shifted",
    "mse_shifted": "mean square error, best shifted",
    "start_mse": "mean square error of the start, best shifted",
    "misfit_start": "misfit of the start over the contrast of the pattern",
    "misfit": "misfit over the contrast of the pattern",
    "evaluations": "patterns computed",
    "seconds": "time",
}


@dataclass(frozen=True)
class Retrieval:
    """A retrieved potential.

    Attributes
    ----------
    potential, start : Tensor, shape (64, 64), float64
        Without its mean, 1/Å², before and after the fit.
    misfit : list of float
        After each step, root mean square over the standard deviation of the patterns: 1 for a constant.
    evaluations : int
        Of the patterns at all tilts.
    seconds : float
    """

    potential: Tensor
    start: Tensor
    misfit: list[float]
    evaluations: int
    seconds: float


@dataclass(frozen=True)
class _Problem:
    """Least squares: model, patterns at its tilts (thickness, tilt), their mean square deviation."""

    model: Model
    target: Tensor
    spread: float

    @classmethod
    def of(cls, model: Model, pattern: Tensor) -> _Problem:
        flat = pattern.flatten(1)
        number = model.share * flat.shape[1]
        target = torch.zeros(len(flat), len(number), dtype=torch.float64)
        target.index_add_(1, model.membership, flat)
        target = target / number
        mean = (target * model.share).sum(-1, keepdim=True)
        spread = float(((target - mean).square() * model.share).sum(-1).mean())
        if spread < 1e-16:
            raise InputError("the pattern is constant: nothing was diffracted, give a thicker crystal")
        return cls(model, target, spread)

    def thinned(self, stride: int) -> _Problem:
        return replace(self, model=self.model.thinned(stride), target=self.target[:, ::stride])

    def weighted(self, values: Tensor) -> Tensor:
        """Return values (thickness, tilt, ...) so that the sum of squares of residuals is misfit²."""
        weight = (self.model.share / (len(self.target) * self.spread)).sqrt()
        return (values * weight.reshape(-1, *[1] * (values.ndim - 2))).flatten(0, 1)

    def misfit(self, unknowns: Tensor) -> float:
        return float(self.weighted(self.model.intensity(unknowns) - self.target).norm())


@dataclass
class _Course:
    """What a fit has cost and reached so far."""

    evaluations: int
    misfit: list[float]
    report: Report | None = None

    def evaluated(self, misfit: float) -> None:
        self.evaluations += 1
        if self.report is not None:
            self.report(self.evaluations, misfit)


def _minimise(
    problem: _Problem, start: Tensor, basis: Tensor | None, weight: float, steps: int, course: _Course,
    enough: float = 1e-10,
) -> Tensor:  # fmt: skip
    """Take Levenberg-Marquardt steps (damping as Nielsen 1999) in x, the unknowns being x @ basis.

    Minimises misfit² + weight |x - start|²; ends also where the misfit is `enough`, or a step gains less
    than 1e-4 of that sum.
    """
    x, eye = start, torch.eye(len(start), dtype=torch.float64)

    def evaluate(x: Tensor) -> tuple[Waves, Tensor, float]:
        waves = problem.model.waves(x if basis is None else x @ basis)
        residual = problem.weighted(waves.amplitude.abs() ** 2 - problem.target)
        course.evaluated(float(residual.norm()))
        return waves, residual, float(residual.square().sum() + weight * (x - start).square().sum())

    waves, residual, value = evaluate(x)
    course.misfit.append(float(residual.norm()))
    damping, growth, moved = 0.0, 2.0, True
    for _ in range(steps):
        if moved:
            slope = problem.weighted(problem.model.jacobian(waves))
            slope = slope if basis is None else slope @ basis.T
            curvature = slope.T @ slope + weight * eye
            downhill = -(slope.T @ residual) - weight * (x - start)
            damping = damping or 1e-3 * float(curvature.diagonal().max())
        step = torch.linalg.solve(curvature + (damping + 1e-300) * eye, downhill)
        trial_waves, trial_residual, trial = evaluate(x + step)
        moved = trial < value
        if moved:
            foreseen = float(step @ (damping * step + downhill))
            gain, gained = (value - trial) / foreseen, value - trial
            x, waves, residual, value = x + step, trial_waves, trial_residual, trial
            course.misfit.append(float(residual.norm()))
            if gained < 1e-4 * (value + gained) or course.misfit[-1] <= enough:
                break
            damping, growth = damping * max(1 / 3, 1 - (2 * gain - 1) ** 3), 2.0
        else:
            damping, growth = damping * growth, 2 * growth
            if growth > 1e6:
                break
    return x


def _search(problem: _Problem, basis: Tensor, draws: Tensor, course: _Course) -> list[Tensor]:
    """Return starts, the best first: sums of a few shapes (k, unknown) with drawn factors (n, k), refined."""
    stride = max(1, len(problem.model.tilts) // _FEW)
    few = problem.thinned(stride)
    misfits = torch.tensor([few.misfit(draw @ basis) for draw in draws])
    course.evaluations += len(draws) // stride
    found: list[tuple[float, Tensor]] = []
    for i in misfits.argsort()[:_REFINED].tolist():
        inner = _Course(0, [])
        start = _minimise(few, draws[i], basis, 0.0, _REFINING, inner) @ basis
        course.evaluations += inner.evaluations // stride
        # Twice the same place: the same misfit.
        if all(abs(inner.misfit[-1] - other) > 1e-2 * other for other, _ in found):
            found.append((inner.misfit[-1], start))
    return [start for _, start in sorted(found, key=lambda each: each[0])]


def retrieve_potential(
    pattern: Tensor,
    known: Known,
    start: Tensor | Literal["atoms", "flat"] = "atoms",
    *,
    tries: int = 3,
    noise: float = 0.0,
    generator: torch.Generator | None = None,
    report: Report | None = None,
) -> Retrieval:
    """Fit the coefficients of the projected potential to bright-field patterns.

    Parameters
    ----------
    pattern : Tensor, shape (thickness, y, x) or (y, x)
        Intensity over that of the incident beam. Averaged over the symmetry.
    known : Known
    start : Tensor, shape (y, x), or {"atoms", "flat"}
        An image of the potential on one cell, of unknown scale, offset and origin, for example a
        network's. ``atoms``: like atoms of strengths that a search finds on the special positions.
        ``flat``: random coefficients, a tenth of an atom's; at zero itself the gradient is zero.
    tries : int
        Starts of the search that are followed, unless one leads to a perfect fit.
    noise : float
        Root mean square error of the intensity, at which the fit ends lest it follows the noise.
    generator : torch.Generator, optional
        For ``atoms`` and ``flat``; by default of seed 0.
    report : callable, optional
        Called with (evaluations, misfit).

    Returns
    -------
    Retrieval
        The origin lies on an axis, which one is not determined: see :func:`scores`.

    Raises
    ------
    InputError
        For arrays of the wrong shape or that are not finite, or a negative noise.
    """
    begin = time.perf_counter()
    pattern = _checked_pattern(pattern, known)
    if not 0 <= noise < math.inf:
        raise InputError(f"noise {noise:g} of the intensity must be 0 or more")
    generator = generator or torch.Generator().manual_seed(0)
    model = model_of(known)
    problem, course = _Problem.of(model, pattern), _Course(0, [], report)
    enough = max(1e-10, noise / math.sqrt(problem.spread))
    best: tuple[Tensor, Tensor, list[float]] | None = None
    for first in _starts(problem, start, generator, course)[: max(1, tries)]:
        course.misfit = []
        x = first
        for weight, steps in _STAGES:
            x = _minimise(problem, x, None, weight, steps, course, enough)
            if course.misfit[-1] <= enough:
                break
        if best is None or course.misfit[-1] < best[2][-1]:
            best = (first, x, course.misfit)
        if best[2][-1] < max(_SOLVED, _NEARLY * enough):
            break
    assert best is not None
    images = (model.image(best[1]), model.image(best[0]))
    return Retrieval(*images, best[2], course.evaluations, time.perf_counter() - begin)


def _starts(
    problem: _Problem, start: Tensor | str, generator: torch.Generator, course: _Course
) -> list[Tensor]:
    model = problem.model
    if isinstance(start, Tensor):
        shape = model.from_image(_checked_image(start))
        if float(shape.norm()) == 0:
            raise InputError("the start is constant within the resolution: give an image, 'atoms' or 'flat'")
        basis = shape[None] / shape.square().mean().sqrt()
        return _search(problem, basis, torch.logspace(-1, 1, 40, dtype=torch.float64)[:, None], course)
    if start == "flat":
        return [0.1 * torch.randn(len(model.size), generator=generator, dtype=torch.float64)]
    if start == "atoms":
        basis = model.special_positions()
        drawn = torch.rand(2, _DRAWS, len(basis), generator=generator, dtype=torch.float64)
        # Three of ten positions are empty.
        return _search(problem, basis, _STRONGEST * drawn[0] * (drawn[1] > 0.3), course)
    raise InputError(f"unknown start {start!r}: use an image, 'atoms' or 'flat'")


def _checked_pattern(pattern: Tensor, known: Known) -> Tensor:
    found = torch.as_tensor(pattern).double()
    found = found[None] if found.ndim == 2 else found
    size = known.geometry.pixels
    wanted = (len(known.thickness), size, size)
    if tuple(found.shape) != wanted:
        raise InputError(f"pattern of shape {tuple(found.shape)}: give (thickness, y, x) = {wanted}")
    if not bool(found.isfinite().all()):
        raise InputError("the pattern has values that are not finite: mend or mask them first")
    return found


def _checked_image(image: Tensor) -> Tensor:
    if image.ndim != 2 or image.shape[0] != image.shape[1]:
        raise InputError(f"start of shape {tuple(image.shape)}: give a square image (y, x) of one cell")
    if not bool(image.isfinite().all()):
        raise InputError("the start has values that are not finite: give an image, 'atoms' or 'flat'")
    return image


def scores(made: Tensor, truth: Tensor) -> dict[str, float]:
    """Return R (Eq. 4) and mean square error (Eq. 3) of stretched images, as they are and best shifted.

    The pattern does not tell the origin; the shift is that of the highest cross-correlation, whole pixels.

    Parameters
    ----------
    made, truth : Tensor, shape (y, x)

    Returns
    -------
    dict
        ``r``, ``mse``, ``r_shifted``, ``mse_shifted``.
    """
    one, two = stretched(made.double()), stretched(truth.double())
    found = {}
    for suffix, image in (("", one), ("_shifted", best_shifted(one, two))):
        found[f"r{suffix}"] = float(metrics.correlation_index(image, two))
        found[f"mse{suffix}"] = float((image - two).square().mean())
    return found


def inversion(parameters: Parameters, device: str = "cpu") -> xr.Dataset:  # noqa: ARG001
    """Retrieve the potential of one crystal from its pattern, alone and from starts of known errors.

    The seed says which crystal and draws the starts. Truth and model have the same beams, so that this is
    about finding the answer, not about the physics. A perturbed start is an image stretched to [0, 1] of the
    true coefficients, each with a relative error (``perturbation``), or up to a share of the resolution
    (``cut``).

    Returns
    -------
    xarray.Dataset
        For each of ``atoms`` and ``flat`` (starts that know nothing of the truth), ``perturbed``
        (``perturbation``), ``blurred`` (``cut``) and ``rounded`` (the first perturbed start, pattern in 255
        steps): ``_r``, ``_mse``, ``_r_shifted``, ``_mse_shifted`` of the potential, the last also of the
        start as ``_start_mse``; ``_misfit_start``, ``_misfit``, ``_evaluations``, ``_seconds``.
        ``misfit`` (``step``) of ``atoms``; ``image`` (``shown``, y, x), uint8; ``beams``, ``unknowns``.
    """
    crystal, known = _specimen(parameters)
    generator = torch.Generator().manual_seed(parameters.seed)
    made = lacbed.simulate(
        crystal, known.thickness, known.geometry, lacbed.Beams(limit=known.limit),
        dtype=torch.float64, verify=False,
    )  # fmt: skip
    pattern, model = made.intensity[0], model_of(known)
    truth = model.unknowns(lambda hkl: lacbed.potential_coefficients(crystal, hkl, parameters.energy))
    drawn = torch.randn(len(_ERRORS), len(truth), generator=generator, dtype=torch.float64)
    perturbed = [stretched(model.image(truth * (1 + e * d))) for e, d in zip(_ERRORS, drawn, strict=True)]
    blurred = [stretched(model.image(truth * model.within(share))) for share in _CUTS]
    steps = 255 / float(pattern.max())

    def follow(start: Tensor) -> Retrieval:
        return retrieve_potential(pattern, known, start, tries=2)

    found = {
        "atoms": [retrieve_potential(pattern, known, "atoms", generator=generator)],
        "flat": [retrieve_potential(pattern, known, "flat", generator=generator)],
        "perturbed": [follow(start) for start in perturbed],
        "blurred": [follow(start) for start in blurred],
        "rounded": [
            retrieve_potential((steps * pattern).round() / steps, known, perturbed[0], noise=12**-0.5 / steps)
        ],
    }
    return _dataset(found, model.image(truth)).assign(
        beams=quantity(made.beams, "1", "beams of model and truth"),
        unknowns=quantity(len(truth), "1", "coefficients sought"),
        name=quantity(f"{crystal.name}, {crystal.prototype}", "1", "crystal"),
    )


def _specimen(parameters: Parameters) -> tuple[Crystal, Known]:
    name, prototype, centring = _CRYSTALS[parameters.seed % len(_CRYSTALS)]
    crystal = next(c for c in known_crystals() if (c.name, c.prototype) == (name, prototype))
    beams, pixels = (13, 12) if parameters.scale == "smoke" else (60, 32)
    a = crystal.lattice_parameter
    limit = math.sqrt(beams / (math.pi * SHARE[centring])) / a
    field = geometry(parameters, crystal, pixels)
    return crystal, Known(a, (parameters.thickness,), field, limit, centring)


def _judged(fit: Retrieval, truth: Tensor) -> dict[str, float]:
    return scores(fit.potential, truth) | {
        "start_mse": scores(fit.start, truth)["mse_shifted"],
        "misfit_start": fit.misfit[0],
        "misfit": fit.misfit[-1],
        "evaluations": fit.evaluations,
        "seconds": fit.seconds,
    }


def _dataset(found: dict[str, list[Retrieval]], truth: Tensor) -> xr.Dataset:
    dims = {"perturbed": ("perturbation",), "blurred": ("cut",)}
    result = xr.Dataset(
        coords={
            "perturbation": quantity(_ERRORS, "1", "relative error of the start", ("perturbation",)),
            "cut": quantity(_CUTS, "1", "share of the resolution that the start has", ("cut",)),
        }
    )
    for name, fits in found.items():
        judged = [_judged(fit, truth) for fit in fits]
        at = dims.get(name, ())
        for key, text in _NUMBERS.items():
            values = [each[key] for each in judged]
            units = "s" if key == "seconds" else "1"
            given = values if at else values[0]
            result[f"{name}_{key}"] = quantity(given, units, f"{text}; start: {name}", at)
    atoms, near = found["atoms"][0], found["perturbed"][1]
    shown = {
        "truth": truth, "atoms, start": atoms.start, "atoms, result": atoms.potential,
        "flat, result": found["flat"][0].potential, "perturbed, start": near.start,
        "perturbed, result": near.potential,
    }  # fmt: skip
    images = (255 * stretched(torch.stack(list(shown.values())))).round().to(torch.uint8)
    result["image"] = quantity(images.numpy(), "1", "255 x stretched potential", ("shown", "y", "x"))
    result["shown"] = quantity(list(shown), "1", "image", ("shown",))
    result["step"] = quantity(range(len(atoms.misfit)), "1", "step of the fit", ("step",))
    result["misfit"] = quantity(atoms.misfit, "1", "misfit of atoms", ("step",))
    return result
