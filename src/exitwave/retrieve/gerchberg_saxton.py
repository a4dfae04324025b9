"""Iterative wave reconstruction from a focal series: impose the measured moduli, average, repeat."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from exitwave.errors import InputError

# Of the largest sum of |T|² over the images: frequencies that are weaker than this hardly return.
_FLOOR = 1e-2


@dataclass(frozen=True)
class Reconstruction:
    """A wave and how it came about.

    Attributes
    ----------
    wave : Tensor, shape (y, x), complex
    residual : Tensor, shape (iterations + 1,)
        Root mean square difference of modelled and measured moduli before each iteration and at the end.
    """

    wave: Tensor
    residual: Tensor


def retrieve_wave(
    measured: Tensor,
    transfer: Tensor,
    *,
    iterations: int = 100,
    start: Tensor | None = None,
    observe: Callable[[int, Tensor, float], None] | None = None,
) -> Reconstruction:
    r"""Retrieve an exit wave from images with known transfer functions.

    Each iteration carries the wave to all images, gives it their moduli, and brings it back,

    .. math:: \psi \leftarrow F^{-1} \frac{\sum_n T_n^* F\big(\sqrt{I_n}\, e^{i \arg F^{-1}(T_n F\psi)}\big)}
        {\sum_n |T_n|^2 + \epsilon},

    the method of Gerchberg and Saxton (1972) for a focal series (L. J. Allen et al., Ultramicroscopy 100
    (2004) 91). With transfer functions of modulus 1 it is the plain average of the waves that are brought
    back, as in Ede et al. 2020, Appendix B; envelopes weigh each frequency by how well an image has it.

    Parameters
    ----------
    measured : Tensor, shape (image, y, x)
        Intensities over that of vacuum; negative ones, which only noise makes, count as zero.
    transfer : Tensor, shape (image, y, x), complex
        In FFT order.
    iterations : int
    start : Tensor, shape (y, x), complex, optional
        By default a plane wave.
    observe : callable, optional
        Called with (iteration, wave, residual) before each iteration and at the end.

    Raises
    ------
    InputError
        For shapes that do not match, values that are not finite, or no iteration.
    """
    if measured.ndim != 3 or measured.shape != transfer.shape:
        raise InputError(
            f"images {tuple(measured.shape)} and transfer functions {tuple(transfer.shape)}: "
            "give both as (image, y, x)"
        )
    if not bool(measured.isfinite().all()):
        raise InputError("the images hold values that are not finite: mask or replace them first")
    if iterations < 1:
        raise InputError(f"{iterations} iterations: use 1 or more")
    moduli = measured.clamp_min(0).sqrt()
    total = transfer.abs().square().sum(0)
    back = transfer.conj() / (total + _FLOOR * total.max())
    spectrum = torch.fft.fft2(torch.ones_like(transfer[0]) if start is None else start.to(transfer.dtype))
    residuals = torch.empty(iterations + 1)
    for iteration in range(iterations + 1):
        waves = torch.fft.ifft2(spectrum * transfer)
        found = waves.abs()
        residuals[iteration] = (found - moduli).square().mean().sqrt()
        if observe is not None:
            observe(iteration, torch.fft.ifft2(spectrum), float(residuals[iteration]))
        if iteration < iterations:
            imposed = torch.where(found > 0, moduli * waves / found, moduli.to(waves.dtype))
            spectrum = (back * torch.fft.fft2(imposed)).sum(0)
    return Reconstruction(torch.fft.ifft2(spectrum), residuals)
