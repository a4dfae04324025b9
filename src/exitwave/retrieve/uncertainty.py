"""How far to trust a retrieved phase: retrieve it again from images simulated from itself."""

from __future__ import annotations

from collections.abc import Callable

import torch

from exitwave.retrieve import quasi_newton
from exitwave.simulate.imaging import images


def bootstrap(
    fit: quasi_newton.Fit,
    sigma: torch.Tensor | float,
    *,
    samples: int,
    evaluations: int = 60,
    generator: torch.Generator,
    amplitude: Callable[[torch.Generator], torch.Tensor] | None = None,
    observe: Callable[[int], None] | None = None,
) -> torch.Tensor:
    """Return phases retrieved from images simulated from a retrieved wave (parametric bootstrap).

    What they scatter by, and how far they lie from the wave that made them on average, is what noise
    and prior do to a phase of this kind.

    Parameters
    ----------
    fit : quasi_newton.Fit
    sigma : float or Tensor of shape (defocus,)
        Standard deviation of the Gaussian noise.
    samples : int
        Number of repetitions.
    evaluations : int
        Of each, from a phase of zero.
    generator : torch.Generator
    amplitude : callable, optional
        Returns the amplitude that a repetition is given, found from a noisy image as the first one was;
        by default that of the fit.

    Returns
    -------
    Tensor, shape (samples, y, x)
        rad.
    """
    transfer = fit.instrument.transfer((fit.phase.shape[0], fit.phase.shape[1]), fit.phase.device)
    clean = images(torch.polar(fit.amplitude, fit.phase), transfer)
    found = []
    for sample in range(samples):
        drawn = torch.randn(clean.shape, generator=generator, dtype=clean.dtype).to(clean.device)
        level = torch.as_tensor(sigma, dtype=clean.dtype, device=clean.device).expand(len(clean))
        noise = level[:, None, None] * drawn
        again = quasi_newton.retrieve_phase(
            clean + noise,
            fit.amplitude if amplitude is None else amplitude(generator), fit.instrument, sigma=level,
            weight=fit.weight, polish=evaluations, transfer=transfer,
        )  # fmt: skip
        found.append(again.phase)
        if observe is not None:
            observe(sample + 1)
    return torch.stack(found)
