"""Phase retrieval by automatic differentiation of the forward model."""

from __future__ import annotations

from collections.abc import Callable

import torch

from exitwave.simulate.imaging import images


def amplitude_loss(wave: torch.Tensor, transfer: torch.Tensor, measured: torch.Tensor) -> torch.Tensor:
    """Return the mean squared difference of modelled and measured amplitudes (Zhou 2020, Methods).

    Parameters
    ----------
    wave : Tensor, shape (y, x), complex
    transfer : Tensor, shape (defocus, y, x), complex
    measured : Tensor, shape (defocus, y, x)
        Square roots of the measured intensities.
    """
    # The tiny offset keeps the derivative of the square root finite at zeros of the image.
    return ((images(wave, transfer) + 1e-12).sqrt() - measured).square().mean()


def cyclic(step: int, cycle: int) -> float:
    """Return the share of the rate at a step: 1 at the ends of a cycle, 0.1 in its middle; 1 for cycle 0."""
    return 1.0 if cycle == 0 else 0.1 + 0.9 * abs(2 * (step % cycle) / cycle - 1)


def retrieve_phase(
    measured: torch.Tensor,
    amplitude: torch.Tensor,
    transfer: torch.Tensor,
    *,
    start: float | torch.Tensor = 0.5,
    iterations: int = 5000,
    rate: float = 1.0,
    cycle: int = 0,
    observe: Callable[[int, torch.Tensor, float], None] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fit a phase to defocused images by Adam, the amplitude held fixed (Zhou 2020, Methods A).

    Parameters
    ----------
    measured : Tensor, shape (defocus, y, x)
        Measured intensities; negative values, which only noise makes, count as zero.
    amplitude : Tensor, shape (y, x)
        Amplitude of the exit wave.
    transfer : Tensor, shape (defocus, y, x), complex
    start : float or Tensor of shape (y, x)
        First phase, rad.
    iterations : int
        Steps of Adam; the paper takes 5000.
    rate : float
        Learning rate in rad; the paper takes 1.
    cycle : int
        Steps of one cycle in which the rate falls to a tenth and rises again, a triangle (Smith 2017;
        the paper mentions it); 0 for a constant rate.
    observe : callable, optional
        Called with (iteration, phase, loss) before each step and once at the end.

    Returns
    -------
    phase : Tensor, shape (y, x)
        rad, not wrapped.
    loss : Tensor, shape (iterations + 1,)
        Loss before each step and at the end.
    """
    target = measured.clamp_min(0).sqrt()
    phase = torch.empty_like(amplitude).copy_(torch.as_tensor(start, dtype=amplitude.dtype)).requires_grad_()
    optimiser = torch.optim.Adam([phase], lr=rate)
    losses = torch.empty(iterations + 1)
    for iteration in range(iterations + 1):
        optimiser.zero_grad()
        loss = amplitude_loss(torch.polar(amplitude, phase), transfer, target)
        losses[iteration] = loss.item()
        if observe is not None:
            observe(iteration, phase.detach(), float(losses[iteration]))
        if iteration < iterations:
            optimiser.param_groups[0]["lr"] = rate * cyclic(iteration, cycle)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return phase.detach(), losses
