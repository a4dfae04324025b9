"""Phase retrieval by a preconditioned quasi-Newton method, stopped by pixels it has not seen.

The phase minimises ``-ln likelihood + weight * prior``. Three things set it apart from plain gradient
descent on pixels:

- the unknowns are Fourier components scaled by what the images say of each (the weak-phase curvature
  of :meth:`exitwave.simulate.instrument.Instrument.phase_curvature` and that of the prior), so that
  L-BFGS moves large and small features at once;
- the prior is a Cauchy penalty on the second differences of the phase, which is small for any phase
  made of ramps and edges, however steep, and large for noise;
- its weight is lowered step by step until pixels held out of the fit are predicted worse again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch

from exitwave.errors import InputError
from exitwave.simulate.imaging import images
from exitwave.simulate.instrument import Instrument

# Weights of the prior that are tried in turn.
WEIGHTS = (40.0, 20.0, 10.0, 5.0, 2.5, 1.25)
# Second differences below this, rad, count as noise and larger ones as edges.
PHASE_SCALE = 0.1
# The same for differences of the logarithm of the amplitude.
AMPLITUDE_SCALE = 0.03
FREE = ("amplitude", "defocus", "shift", "astigmatism", "convergence", "focal_spread")

_EDGES_SHARE = 0.3  # of the pixels' prior curvature that is left where a few are edges
_FLOOR = 1e-3  # of the curvature, so that what no image fixes stays where it started
_SCALE = {"defocus": 1e4, "shift": 10.0, "astigmatism": 1e4}  # Å, first step sizes before measuring


@dataclass(frozen=True)
class Fit:
    """A retrieved wave.

    Attributes
    ----------
    phase : Tensor, shape (y, x)
        rad.
    amplitude : Tensor, shape (y, x)
    instrument : Instrument
        With the retrieved parameters in place of the given ones.
    weight : float
        Weight of the prior.
    evaluations : int
        Evaluations of model and gradient in all.
    held_out : dict of float to float
        Deviance of the held-out pixels, per pixel, for each weight tried; for Gaussian noise of the
        right sigma about 1.
    """

    phase: torch.Tensor
    amplitude: torch.Tensor
    instrument: Instrument
    weight: float
    evaluations: int
    held_out: dict[float, float] = field(default_factory=dict)


def estimate_noise(image: torch.Tensor) -> torch.Tensor:
    """Return the standard deviation of the white noise of images.

    From the median magnitude of the second mixed difference [1 -2 1] x [1 -2 1], which cancels planes
    and edges along the axes (J. Immerkaer, Comput. Vis. Image Underst. 64 (1996) 300, with a median).

    Parameters
    ----------
    image : Tensor, shape (..., y, x)

    Returns
    -------
    Tensor, shape (...)
    """
    second = image[..., 2:, :] - 2 * image[..., 1:-1, :] + image[..., :-2, :]
    mixed = second[..., 2:] - 2 * second[..., 1:-1] + second[..., :-2]
    return mixed.abs().flatten(-2).median(-1).values / (0.6745 * 6.0)


def _second_differences(phase: torch.Tensor) -> torch.Tensor:
    """Return the squared norm of the matrix of second differences, periodic."""
    forward_x = phase.roll(-1, -1) - phase
    forward_y = phase.roll(-1, -2) - phase
    along_x = forward_x - forward_x.roll(1, -1)
    along_y = forward_y - forward_y.roll(1, -2)
    mixed = forward_x.roll(-1, -2) - forward_x
    return along_x.square() + along_y.square() + 2 * mixed.square()


def _first_differences(values: torch.Tensor) -> torch.Tensor:
    return (values.roll(-1, -1) - values).square() + (values.roll(-1, -2) - values).square()


def cauchy(squares: torch.Tensor, scale: float) -> torch.Tensor:
    """Return ``(scale / 2) sum ln(1 + squares / scale^2)``: quadratic below the scale, flat far above."""
    return 0.5 * scale * torch.log1p(squares / scale**2).sum()


def deviance(
    modelled: torch.Tensor, measured: torch.Tensor, sigma: torch.Tensor, likelihood: str
) -> torch.Tensor:
    """Return the deviance of each pixel, 1 on average for the right model and noise.

    Parameters
    ----------
    modelled, measured : Tensor, shape (defocus, y, x)
    sigma : Tensor, shape (defocus, 1, 1)
        Standard deviation of the noise where the intensity is 1.
    likelihood : {"gaussian", "poisson"}
        ``((m - I) / sigma)^2``, or ``2 (m - I + I ln(I / m)) / sigma^2`` for counts over ``1 / sigma^2``.
    """
    if likelihood == "gaussian":
        return ((modelled - measured) / sigma).square()
    m, counts = modelled.clamp_min(1e-6), measured.clamp_min(0.0)
    return 2 * (m - counts + torch.xlogy(counts, counts.clamp_min(1e-30) / m)) / sigma.square()


class _Problem:
    """The objective in scaled unknowns."""

    def __init__(
        self,
        measured: torch.Tensor,
        amplitude: torch.Tensor,
        instrument: Instrument,
        start: torch.Tensor,
        sigma: torch.Tensor,
        likelihood: str,
        free: Sequence[str],
        transfer: torch.Tensor | None,
    ) -> None:
        self.measured, self.sigma, self.likelihood = measured, sigma[:, None, None], likelihood
        self.shape = (int(amplitude.shape[0]), int(amplitude.shape[1]))
        device = amplitude.device
        self.start, self.log_amplitude = start, amplitude.log()
        self.instrument = instrument
        self.reference = int(torch.as_tensor(instrument.defocus, dtype=torch.float64).abs().argmin())
        self.fixed_transfer = instrument.transfer(self.shape, device) if transfer is None else transfer
        precision = float((1 / sigma.square()).mean())
        self.curvature = instrument.phase_curvature(self.shape, device).float() * precision
        self.amplitude_curvature = 2.0 * len(measured) * precision
        y = 2 * math.pi * torch.fft.fftfreq(self.shape[0], device=device)[:, None]
        x = 2 * math.pi * torch.fft.rfftfreq(self.shape[1], device=device)
        self.laplacian = 4 - 2 * y.cos() - 2 * x.cos()
        self.unknowns = {"phase": torch.zeros_like(amplitude, requires_grad=True)}
        if "amplitude" in free:
            self.unknowns["amplitude"] = torch.zeros_like(amplitude, requires_grad=True)
        self.scales: dict[str, torch.Tensor] = {}
        self.parameters: list[str] = []
        self.set_weight(WEIGHTS[0])
        self.evaluations = 0

    def set_weight(self, weight: float) -> None:
        """Set the weight of the prior, keeping phase and amplitude where they are."""
        if hasattr(self, "weight"):
            phase, log_amplitude = (each.detach() for each in self.wave_parts())
            self.start, self.log_amplitude = phase, log_amplitude
            for name in ("phase", "amplitude"):
                if name in self.unknowns:
                    self.unknowns[name].data.zero_()
        self.weight = weight
        stiffness = _EDGES_SHARE * weight / PHASE_SCALE * self.laplacian.square()
        floor = _FLOOR * self.curvature.max()
        self.phase_filter = (self.curvature + stiffness + floor).rsqrt()
        self.phase_filter[0, 0] = 0.0  # no image knows the constant
        stiffness = _EDGES_SHARE * weight / AMPLITUDE_SCALE * self.laplacian
        self.amplitude_filter = (self.amplitude_curvature + stiffness).rsqrt()

    def release(self, names: Sequence[str]) -> None:
        """Let parameters of the instrument vary from here on, from their present values.

        Their steps are scaled by what they do to the images of the present wave, so this comes after a
        first fit of the phase: the images of a flat wave hardly depend on them.
        """
        with torch.no_grad():
            self.instrument = self.retrieved_instrument()
        self.parameters = list(names)
        for name in names:
            self.unknowns[name] = torch.zeros_like(self._begin(name), requires_grad=True)
            self.scales[name] = self._measured_scale(name)

    def _begin(self, name: str) -> torch.Tensor:
        """Return the given value of a parameter as a float64 tensor."""
        value = getattr(self.instrument, name)
        if name == "shift" and value is None:
            value = torch.zeros(len(self.measured), 2)
        return torch.as_tensor(value, dtype=torch.float64, device=self.start.device)

    def value(self, name: str) -> torch.Tensor:
        """Return the present value of a parameter of the instrument."""
        step = self.scales[name] * self.unknowns[name]
        begin = self._begin(name)
        if name in ("convergence", "focal_spread"):
            return begin * step.clamp(-5, 5).exp()
        if name in ("defocus", "shift"):
            # The image in focus, or else the first, fixes the plane and the place of the wave.
            keep = torch.ones(len(begin), device=begin.device, dtype=begin.dtype)
            keep[self.reference] = 0.0
            step = step * (keep if name == "defocus" else keep[:, None])
        return begin + step

    def _measured_scale(self, name: str) -> torch.Tensor:
        """Return the change of a parameter that changes the deviance by about 1, from finite differences."""
        begin = self._begin(name)
        relative = name in ("convergence", "focal_spread")
        probe = 0.05 if relative else _SCALE[name]
        with torch.no_grad():
            phase, log_amplitude = self.wave_parts()
            wave = torch.polar(log_amplitude.exp(), phase)
            reference = images(wave, self.instrument.transfer(self.shape, begin.device))
            moved = begin * (1 + probe) if relative else begin + probe
            trial: dict[str, Any] = {name: moved}
            changed = images(wave, replace(self.instrument, **trial).transfer(self.shape, begin.device))
            each = ((changed - reference) / self.sigma / probe).square().sum((1, 2)).double()
            self.evaluations += 2
        curvature = each.clamp_min(1e-3 * float(each.max()) + 1e-30)
        if name == "defocus":
            return curvature.rsqrt()
        if name == "shift":
            return curvature.rsqrt()[:, None].expand(-1, 2)
        return torch.full_like(begin, float(curvature.sum().rsqrt()))

    def wave_parts(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return phase and logarithm of the amplitude."""
        step = torch.fft.irfft2(self.phase_filter * torch.fft.rfft2(self.unknowns["phase"]), s=self.shape)
        phase, log_amplitude = self.start + step, self.log_amplitude
        if "amplitude" in self.unknowns:
            spectrum = torch.fft.rfft2(self.unknowns["amplitude"])
            log_amplitude = log_amplitude + torch.fft.irfft2(self.amplitude_filter * spectrum, s=self.shape)
        return phase, log_amplitude

    def retrieved_instrument(self) -> Instrument:
        """Return the instrument with the present parameters."""
        found: dict[str, Any] = {name: self.value(name) for name in self.parameters}
        return replace(self.instrument, **found)

    def objective(self, keep: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what is minimised, and the deviance of each pixel."""
        phase, log_amplitude = self.wave_parts()
        transfer = self.fixed_transfer
        if self.parameters:
            transfer = self.retrieved_instrument().transfer(self.shape, phase.device)
        modelled = images(torch.polar(log_amplitude.exp(), phase), transfer)
        each = deviance(modelled, self.measured, self.sigma, self.likelihood)
        value = 0.5 * (each if keep is None else each * keep).sum()
        value = value + self.weight * cauchy(_second_differences(phase), PHASE_SCALE)
        if "amplitude" in self.unknowns:
            value = value + self.weight * cauchy(_first_differences(log_amplitude), AMPLITUDE_SCALE)
        return value, each.detach()

    def minimise(
        self, keep: torch.Tensor | None, evaluations: int, observe: Callable[[int, float], None] | None = None
    ) -> torch.Tensor:
        """Take quasi-Newton steps and return the last deviance of each pixel."""
        optimiser = torch.optim.LBFGS(
            list(self.unknowns.values()), max_iter=evaluations, max_eval=evaluations, history_size=12,
            line_search_fn="strong_wolfe", tolerance_grad=0.0, tolerance_change=1e-7,
        )  # fmt: skip
        last: list[torch.Tensor] = []

        def closure() -> torch.Tensor:
            optimiser.zero_grad()
            value, each = self.objective(keep)
            value.backward()  # type: ignore[no-untyped-call]
            self.evaluations += 1
            last[:] = [each]
            if observe is not None:
                observe(self.evaluations, float(value.detach()))
            return value

        optimiser.step(closure)  # type: ignore[no-untyped-call]
        return last[0]

    def result(self, held_out: dict[float, float]) -> Fit:
        """Return the present wave."""
        with torch.no_grad():
            phase, log_amplitude = self.wave_parts()
            instrument = self.retrieved_instrument()
        return Fit(phase, log_amplitude.exp(), instrument, self.weight, self.evaluations, held_out)


def retrieve_phase(
    measured: torch.Tensor,
    amplitude: torch.Tensor,
    instrument: Instrument,
    *,
    start: float | torch.Tensor = 0.0,
    sigma: torch.Tensor | float | None = None,
    likelihood: Literal["gaussian", "poisson"] = "gaussian",
    weight: float | None = None,
    held_out: float = 0.05,
    evaluations: int = 25,
    polish: int = 60,
    free: Sequence[str] = (),
    transfer: torch.Tensor | None = None,
    generator: torch.Generator | None = None,
    observe: Callable[[int, float], None] | None = None,
) -> Fit:
    """Fit a phase, and what else is declared free, to defocused images.

    Parameters
    ----------
    measured : Tensor, shape (defocus, y, x)
        Intensities over that of the incident wave.
    amplitude : Tensor, shape (y, x)
        Amplitude of the exit wave, positive; where it starts if it is free.
    instrument : Instrument
        One defocus for each image.
    start : float or Tensor of shape (y, x)
        First phase, rad.
    sigma : float or Tensor of shape (defocus,), optional
        Standard deviation of the noise at intensity 1; by default :func:`estimate_noise`, and at least
        a hundredth of the mean intensity, for no model is better than that.
    likelihood : {"gaussian", "poisson"}
    weight : float, optional
        Weight of the prior. By default :data:`WEIGHTS` are tried from the largest down until the
        held-out pixels are predicted worse than before, and the best of them is used.
    held_out : float
        Share of the pixels of each image that the choice of the weight is judged by.
    evaluations, polish : int
        Evaluations for each weight tried, and for the final fit to all pixels; the last line search may
        take a few more.
    free : sequence of str
        Of :data:`FREE`. A free defocus or shift is relative to the image nearest to focus.
    transfer : Tensor, shape (defocus, y, x), optional
        That of the instrument, if it is already at hand and nothing but the amplitude is free.
    generator : torch.Generator, optional
        Draws the held-out pixels; by default one of seed 0.
    observe : callable, optional
        Called with (evaluations, value) after each evaluation.

    Returns
    -------
    Fit

    Raises
    ------
    InputError
        For arrays of unequal shape, an amplitude that is not positive, an unknown free parameter or
        likelihood, or a share of held-out pixels outside (0, 0.5].
    """
    _check(measured, amplitude, instrument, free, likelihood, held_out)
    first = torch.empty_like(amplitude).copy_(torch.as_tensor(start, dtype=amplitude.dtype))
    noise = _noise(measured, sigma)
    parameters = [name for name in free if name != "amplitude"]
    problem = _Problem(measured, amplitude, instrument, first, noise, likelihood, free, transfer)
    scores: dict[float, float] = {}
    if weight is None:
        if generator is None:
            generator = torch.Generator().manual_seed(0)
        hidden = _hidden(measured.shape, held_out, generator).to(measured.device)
        keep = (~hidden).to(measured.dtype)
        for candidate in WEIGHTS:
            problem.set_weight(candidate)
            if parameters and scores:
                problem.release(parameters)
            each = problem.minimise(keep, evaluations, observe)
            scores[candidate] = float(each[hidden].mean())
            if not math.isfinite(scores[candidate]):
                raise InputError(
                    "the model of the images is not finite: check defocus, energy and pixel size"
                )
            if scores[candidate] > min(scores.values()):
                break
        weight = min(scores, key=lambda each: scores[each])
    problem.set_weight(weight)
    if parameters:
        if not scores:
            problem.minimise(None, evaluations, observe)
        problem.release(parameters)
    problem.minimise(None, polish, observe)
    return problem.result(scores)


def _hidden(shape: torch.Size, share: float, generator: torch.Generator) -> torch.Tensor:
    """Draw the pixels to hold out."""
    # By another algorithm than torch's: with an equal seed the choice would go with the noise.
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.as_tensor(np.random.default_rng(seed).random(tuple(shape)) < share)


def _noise(measured: torch.Tensor, sigma: torch.Tensor | float | None) -> torch.Tensor:
    found = estimate_noise(measured) if sigma is None else torch.as_tensor(sigma, dtype=measured.dtype)
    least = 0.01 * float(measured.mean().abs())
    return found.to(measured).expand(len(measured)).clamp_min(least)


def _check(
    measured: torch.Tensor,
    amplitude: torch.Tensor,
    instrument: Instrument,
    free: Sequence[str],
    likelihood: str,
    held_out: float,
) -> None:
    if measured.ndim != 3 or measured.shape[1:] != amplitude.shape:
        raise InputError(
            f"images of shape {tuple(measured.shape)} and an amplitude of shape {tuple(amplitude.shape)}: "
            "give (defocus, y, x) and (y, x)"
        )
    if len(torch.as_tensor(instrument.defocus)) != len(measured):
        raise InputError(
            f"{len(torch.as_tensor(instrument.defocus))} defoci for {len(measured)} images: give one for each"
        )
    if not bool((amplitude > 0).all()):
        raise InputError("the amplitude is not positive everywhere: clip it at a small value")
    for name in free:
        if name not in FREE:
            raise InputError(f"cannot retrieve {name!r}: use {', '.join(FREE)}")
    if likelihood not in ("gaussian", "poisson"):
        raise InputError(f"unknown likelihood {likelihood!r}: use gaussian or poisson")
    if not 0 < held_out <= 0.5:
        raise InputError(f"{held_out} is no share of pixels to hold out: use 0.05")
