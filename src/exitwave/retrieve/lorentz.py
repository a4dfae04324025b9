"""From a record of Lorentz images to a record of the phase."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
import xarray as xr

from exitwave import records
from exitwave.errors import InputError
from exitwave.retrieve import gradient, quasi_newton, tie
from exitwave.retrieve.plausibility import check_defocus as check_defocus
from exitwave.retrieve.quasi_newton import FREE, Fit, estimate_noise
from exitwave.retrieve.registration import register, shifted
from exitwave.retrieve.series import Series, denoised, read_series
from exitwave.simulate.imaging import images
from exitwave.simulate.instrument import Instrument

METHODS = ("sitie", "tie", "gradient", "adam")
HBAR_OVER_E = 658.2119569  # hbar / e in T nm^2
UNEXPLAINED = 3.0  # times the noise

_STEPS = {"gradient": 60, "adam": 500}
_LEAST_NOISE = 0.01  # no model of a microscope is better
_LONG_NAMES = {
    "image": ("1", "number of each image as given, from 1"),
    "residual": ("1", "rms of modelled minus given intensities over the rms of the given"),
    "noise": ("1", "what noise alone makes of the residual, estimated from each image"),
    "exposure": ("1", "mean of each image over that of the in-focus image"),
    "shift": ("Å", "displacement of each image against the in-focus image"),
    "induction": ("T nm", "projected induction B t, and with it the gradient of the electrostatic phase"),
    "evaluations": ("1", "evaluations of model and gradient"),
    "weight": ("1", "weight of the prior"),
    "amplitude": ("1", "amplitude of the exit wave, rms 1 in the in-focus image"),
    "retrieved_defocus": ("Å", "retrieved defocus, underfocus positive"),
    "astigmatism": ("Å", "retrieved twofold astigmatism C12a, C12b"),
    "convergence": ("rad", "retrieved 1/e half width of the illumination angles"),
    "focal_spread": ("Å", "retrieved standard deviation of the defocus"),
}

Observe = Callable[[int, float], None]


@dataclass(frozen=True)
class Options:
    """How to retrieve.

    Attributes
    ----------
    method : {"gradient", "tie", "sitie", "adam"}
        ``gradient`` fits the phase by :func:`exitwave.retrieve.quasi_newton.retrieve_phase`, from zero.
        ``tie`` solves the transport-of-intensity equation; ``sitie`` does with one defocused image of a
        film that absorbs evenly. ``adam`` is Zhou 2020's: gradient descent from the TIE phase.
    register : bool
        Find how far the images are displaced (:func:`exitwave.retrieve.registration.register`).
    cutoff, symmetrise
        Tikhonov parameter in 1/Å and mirrored borders, see :func:`exitwave.retrieve.tie.solve`.
    free : sequence of str
        What ``gradient`` retrieves besides the phase, of ``exitwave.retrieve.quasi_newton.FREE``.
    likelihood : {"gaussian", "poisson"}
    weight : float, optional
        Weight of the prior of ``gradient``; found from held-out pixels by default.
    iterations : int, optional
        Steps of ``adam`` (500), or evaluations of the last fit of ``gradient`` (60).
    rate : float
        Learning rate of ``adam``, rad.
    spherical_aberration, focal_spread : float
        C30 and standard deviation of the defocus, Å.
    convergence : float
        1/e half width of the illumination angles, rad.
    device : str
        Torch device.
    """

    method: str = "gradient"
    register: bool = True
    cutoff: float = 0.0
    symmetrise: bool = False
    free: Sequence[str] = ()
    likelihood: Literal["gaussian", "poisson"] = "gaussian"
    weight: float | None = None
    iterations: int | None = None
    rate: float = 0.1
    spherical_aberration: float = 0.0
    focal_spread: float = 0.0
    convergence: float = 0.0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"unknown method {self.method!r}: use one of {', '.join(METHODS)}")
        for name, unit in (("rate", "rad"), ("weight", "")):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(
                    f"{name} {value} {unit}".rstrip() + " is not a positive number: use 0.1, say"
                )
        for name, unit in (("cutoff", "1/Å"), ("focal_spread", "Å"), ("convergence", "rad")):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} {getattr(self, name)} {unit} is not 0 or more: use 0 for none")
        if not math.isfinite(self.spherical_aberration):
            raise InputError(
                f"spherical_aberration {self.spherical_aberration} Å is not finite: use 0 for none"
            )
        if self.iterations is not None and self.iterations < 1:
            raise InputError(f"iterations {self.iterations} is below 1: use 1 or more")
        if self.likelihood not in ("gaussian", "poisson"):
            raise InputError(f"unknown likelihood {self.likelihood!r}: use gaussian or poisson")
        self._check_free()

    def _check_free(self) -> None:
        for name in self.free:
            if name not in FREE:
                raise InputError(f"cannot retrieve {name!r}: use {', '.join(FREE)}")
            if name in ("convergence", "focal_spread") and not getattr(self, name) > 0:
                first = {"convergence": "1e-5", "focal_spread": "100"}[name]
                raise InputError(
                    f"free {name} varies by a factor, but it is 0: begin with {name}={first}, say"
                )
        if self.free and self.method != "gradient":
            raise InputError(
                f"method {self.method} retrieves the phase only, not {', '.join(self.free)}: use gradient"
            )

    @property
    def steps(self) -> int:
        """Evaluations or iterations at most, 0 for the TIE; for a progress bar."""
        last = self.iterations or _STEPS.get(self.method, 0)
        tried = len(quasi_newton.WEIGHTS) if self.weight is None else int(bool(self.free))
        return last + 25 * tried if self.method == "gradient" else last


def retrieve(
    record: xr.Dataset,
    *,
    observe: Observe | None = None,
    warn: Callable[[str], None] | None = None,
    **options: Any,
) -> xr.Dataset:
    """Retrieve the phase from a series of defocused images.

    Parameters
    ----------
    record : xarray.Dataset
        Layout ``images``, one of them at defocus 0 (not for ``sitie``); intensities in any unit, see
        :func:`exitwave.retrieve.series.read_series`.
    observe : callable, optional
        Called with (step, value of the objective) as iterative methods go on.
    warn : callable, optional
        Called at once with a text, if the defoci look wrong
        (:func:`exitwave.retrieve.plausibility.check_defocus`).
    **options
        The fields of :class:`Options`.

    Returns
    -------
    xarray.Dataset
        Layout ``phase``, with

        - ``induction`` (component, y, x), T nm: ``B_x t = -(hbar/e) dphi/dy``,
          ``B_y t = (hbar/e) dphi/dx``, which holds for a film whose electrostatic phase is constant and
          is off at its edges and wherever its thickness changes;
        - for each fitted image (``defocus``): its number ``image``, ``residual``, ``noise``, ``exposure`` and
          ``shift``;
        - for ``gradient``, ``evaluations``, ``weight``, and whatever was free.

        The attribute ``warning`` repeats what `warn` was told.

    Raises
    ------
    InputError
        If the record is no such series, or an option is out of range.

    Notes
    -----
    Gauge: images displaced in proportion to their defocus are those of a phase with a ramp added. The
    retrieved displacements go with a phase without one.
    """
    chosen = Options(**options)
    series = read_series(record, focus=chosen.method != "sitie", device=chosen.device)
    warning = check_defocus(record)
    if warning is not None and warn is not None:
        warn(warning)
    fitted, beam, fit = _sitie(series, chosen) if chosen.method == "sitie" else _fit(series, chosen, observe)
    result = _record(series, fitted, beam, fit, chosen)
    return result if warning is None else result.assign_attrs(warning=warning)


def _instrument(series: Series, options: Options) -> Instrument:
    return Instrument(
        series.energy,
        series.sampling,
        series.defocus,
        spherical_aberration=options.spherical_aberration,
        focal_spread=options.focal_spread,
        convergence=options.convergence,
    )


def _fit(series: Series, options: Options, observe: Observe | None) -> tuple[torch.Tensor, torch.Tensor, Fit]:
    """Return the fitted images, the index of each in the series, and what was found."""
    beam = _instrument(series, options)
    focused = series.focused
    shift = torch.zeros(len(series.images), 2, dtype=torch.float64)
    if options.register:
        shift = register(series.images, beam)
    in_focus = shifted(series.images[focused], -shift[focused.cpu()]).mean(0)
    amplitude = denoised(in_focus).sqrt()
    chosen = torch.nonzero(~focused)[:, 0]
    fitted = series.images[chosen]
    if options.free:  # then the image in focus, which fixes plane and place, is a measurement, too
        chosen = torch.cat([torch.nonzero(focused)[:1, 0], chosen])
        fitted = torch.cat([in_focus[None], fitted])
        shift[int(chosen[0])] = 0.0
    lengths = shift.to(series.defocus) * series.defocus.new_tensor(series.sampling)
    beam = replace(beam, defocus=series.defocus[chosen], shift=lengths[chosen])
    if options.method == "gradient":
        fit = quasi_newton.retrieve_phase(
            fitted, amplitude, beam, likelihood=options.likelihood, weight=options.weight,
            polish=options.iterations or _STEPS["gradient"],
            free=options.free, observe=observe,
        )  # fmt: skip
        return fitted, chosen, fit
    back = shifted(fitted, -shift[chosen.cpu()])
    phase = _solve(
        tie.defocus_derivative(back, series.defocus[chosen], in_focus), amplitude.square(), series, options
    )
    if options.method == "adam":
        phase, _ = gradient.retrieve_phase(
            fitted, amplitude, beam.transfer((int(phase.shape[0]), int(phase.shape[1])), phase.device),
            start=phase, iterations=options.iterations or _STEPS["adam"], rate=options.rate,
            observe=None if observe is None else lambda step, _, loss: observe(step, loss),
        )  # fmt: skip
    return fitted, chosen, Fit(phase, amplitude, beam, math.nan, 0)


def _sitie(series: Series, options: Options) -> tuple[torch.Tensor, torch.Tensor, Fit]:
    """Return the one image, its index, and the phase that it shows of an evenly absorbing film."""
    [image] = series.images
    derivative = tie.single_image_derivative(image, float(series.defocus[0]))
    even = torch.full_like(image, float(image.mean()))
    beam = replace(
        _instrument(series, options), shift=torch.zeros(1, 2, dtype=torch.float64, device=image.device)
    )
    fit = Fit(_solve(derivative, even, series, options), even.sqrt(), beam, math.nan, 0)
    return series.images, torch.zeros(1, dtype=torch.int64), fit


def _solve(
    derivative: torch.Tensor, intensity: torch.Tensor, series: Series, options: Options
) -> torch.Tensor:
    return tie.solve(
        derivative, intensity, energy=series.energy, sampling=series.sampling,
        cutoff=options.cutoff, symmetrise=options.symmetrise,
    )  # fmt: skip


def induction(phase: np.ndarray, sampling: tuple[float, float]) -> np.ndarray:
    """Return the projected induction (x, y) that a magnetic phase means.

    Parameters
    ----------
    phase : ndarray, shape (y, x)
        rad.
    sampling : (float, float)
        Pixel size (y, x), Å.

    Returns
    -------
    ndarray, shape (2, y, x)
        ``B_x t = -(hbar/e) dphi/dy`` and ``B_y t = (hbar/e) dphi/dx`` in T nm, from central differences;
        the sign is that of :mod:`exitwave.simulate.lorentz`.
    """
    along_y, along_x = np.gradient(phase, sampling[0] / 10, sampling[1] / 10)
    return HBAR_OVER_E * np.stack([-along_y, along_x])


def unexplained(result: xr.Dataset) -> np.ndarray:
    """Return for each image whether its residual is more than :data:`UNEXPLAINED` times the noise.

    Noise below a hundredth counts as a hundredth: no model of a microscope is better than that.
    """
    expected = np.maximum(result["noise"].values, _LEAST_NOISE)
    return np.asarray(result["residual"].values > UNEXPLAINED * expected)


def _record(
    series: Series, fitted: torch.Tensor, chosen: torch.Tensor, fit: Fit, options: Options
) -> xr.Dataset:
    """Return the result with what it can be judged by."""
    shape = (int(fit.phase.shape[0]), int(fit.phase.shape[1]))
    modelled = images(torch.polar(fit.amplitude, fit.phase), fit.instrument.transfer(shape, fit.phase.device))
    rms = fitted.square().mean((1, 2)).sqrt()
    residual = (modelled - fitted).square().mean((1, 2)).sqrt() / rms
    phase = fit.phase.cpu().numpy()
    result = records.phase(phase, sampling=series.sampling, energy=series.energy)
    units, long_name = records.COORDINATES["defocus"]
    which = chosen.cpu()
    defocus = series.defocus.cpu()[which].numpy()
    result = result.assign_coords(
        defocus=xr.Variable("defocus", defocus, {"units": units, "long_name": long_name}),
        component=xr.Variable("component", ["x", "y"], _named(*records.COORDINATES["component"])),
        axis=xr.Variable("axis", ["y", "x"], _named("1", "axis of the image")),
    )
    found: dict[str, tuple[tuple[str, ...], Any]] = {
        "image": (("defocus",), series.number[which]),
        "residual": (("defocus",), residual),
        "noise": (("defocus",), estimate_noise(fitted) / rms),
        "exposure": (("defocus",), series.exposure[which]),
        "shift": (("defocus", "axis"), fit.instrument.shift),
        "induction": (("component", "y", "x"), induction(phase, series.sampling)),
    }
    if options.method == "gradient":
        found |= {"evaluations": ((), fit.evaluations), "weight": ((), fit.weight)}
    for name in options.free:
        if name == "amplitude":
            found[name] = (("y", "x"), fit.amplitude)
        elif name == "defocus":
            found["retrieved_defocus"] = (("defocus",), fit.instrument.defocus)
        elif name == "astigmatism":
            found[name] = (("stigmator",), fit.instrument.astigmatism)
        elif name != "shift":
            found[name] = ((), getattr(fit.instrument, name))
    for name, (dims, values) in found.items():
        plain = values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
        result[name] = xr.Variable(dims, plain, _named(*_LONG_NAMES[name]))
    return result


def _named(units: str, long_name: str) -> dict[str, str]:
    return {"units": units, "long_name": long_name}
