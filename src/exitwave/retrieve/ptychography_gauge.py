"""Retrieved objects beside known ones: what no pattern can tell is matched before they are compared."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from exitwave.errors import InputError
from exitwave.optics.grids import frequency_grid, sampling_pair

_ITERATIONS = 8


def matched(
    found: Tensor, reference: Tensor, sampling: float | tuple[float, float], *, margin: int = 0
) -> Tensor:
    """Return an object with the phase, phase ramp, displacement and factor that fit a known one best.

    Parameters
    ----------
    found, reference : Tensor, shape (y, x), complex
        Transmission functions; they may be up to about a pixel apart.
    sampling : float or (float, float)
        Å.
    margin : int
        Pixels at each edge that do not count.

    Returns
    -------
    Tensor, shape (y, x), complex128
        By linearised least squares, repeated. Displaced with period of the field.

    Raises
    ------
    InputError
        For shapes that do not match, or a margin that leaves nothing.
    """
    if found.ndim != 2 or found.shape != reference.shape:
        raise InputError(
            f"objects of shape {tuple(found.shape)} and {tuple(reference.shape)}: give two of one shape"
        )
    if margin < 0 or 2 * margin >= min(found.shape):
        raise InputError(
            f"a margin of {margin} pixels leaves nothing of {tuple(found.shape)}: use a smaller one"
        )
    inside = tuple(slice(margin, n - margin) for n in found.shape)
    shape = (int(found.shape[0]), int(found.shape[1]))
    true, spectrum = reference.to(torch.complex128), torch.fft.fft2(found.to(torch.complex128))
    ky, kx = frequency_grid(shape, sampling, found.device)
    y, x = torch.meshgrid(
        *(
            (torch.arange(n, dtype=torch.float64, device=found.device) - (n - 1) / 2) * step
            for n, step in zip(shape, sampling_pair(sampling), strict=True)
        ),
        indexing="ij",
    )
    shift, ramp = torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    moved = found.to(torch.complex128)
    factor = torch.ones((), dtype=torch.complex128)
    for i in range(_ITERATIONS + 1):
        turns = torch.exp(-2j * math.pi * (shift[0] * ky + shift[1] * kx))
        tilt = torch.exp(1j * (ramp[0] * y + ramp[1] * x))
        moved = torch.fft.ifft2(spectrum * turns) * tilt
        factor = (moved.conj() * true)[inside].sum() / moved[inside].abs().square().sum()
        if i == _ITERATIONS:
            break
        slopes = [torch.fft.ifft2(spectrum * turns * (-2j * math.pi * k)) * tilt for k in (ky, kx)]
        changes = torch.stack([moved, 1j * moved, *slopes, 1j * y * moved, 1j * x * moved]) * factor
        table = torch.view_as_real(changes[(slice(None), *inside)].reshape(6, -1)).reshape(6, -1)
        left = torch.view_as_real((true - factor * moved)[inside].reshape(-1)).reshape(-1)
        best = torch.linalg.lstsq(table.T, left[:, None]).solution[:, 0].cpu()
        shift, ramp = shift + best[2:4], ramp + best[4:6]
    return torch.as_tensor(factor * moved)
