"""The modulation transfer function of a detector."""

from __future__ import annotations

import torch
from torch import Tensor

from exitwave.errors import InputError
from exitwave.optics.grids import Value, check_batch, checked, on_grid, working_grid


def mtf(
    shape: tuple[int, int],
    *,
    c1: Value,
    c2: Value,
    c3: Value,
    clip: bool = True,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    r"""Return a modulation transfer function of three parameters.

    .. math:: M(q) = \frac{1 - c_1}{1 + (q / 2 c_2 q_N)^{c_3}} + c_1,
        \qquad q_N = \frac{1}{2\,\mathrm{sampling}}

    q/2q_N is the frequency in cycles per pixel, so the pixel size drops out. M(0) = 1. The function falls
    towards c1; where c1 < 0 makes it negative, as in no real detector, it is clipped to 0.

    Parameters
    ----------
    shape : (int, int)
        Number of pixels (y, x).
    c1, c2, c3 : float or Tensor
        Floor, scale (cycles per pixel) and exponent, dimensionless.
    clip : bool
        Set False to keep negative values.
    dtype, device
        Of the result.

    Returns
    -------
    Tensor
        Real, even, shape (\*batch, y, x), FFT order.

    Raises
    ------
    InputError
        If c2 or c3 is not positive, c1 above 1, or batch shapes do not broadcast.
    """
    c1, c2, c3 = checked(c1, "c1"), checked(c2, "c2", positive=True), checked(c3, "c3", positive=True)
    if bool((torch.as_tensor(c1).detach() > 1).any()):
        raise InputError(f"floor c1 of the MTF is {c1}: give a value of at most 1")
    check_batch(c1, c2, c3)
    qy, qx = working_grid(shape, 1.0, device)
    q = torch.sqrt(qy**2 + qx**2)
    floor, scale, exponent = (on_grid(c, q) for c in (c1, c2, c3))
    # At q = 0 the power has no gradient for c3 < 1, and the result is 1 in any case.
    ratio = (torch.where(q > 0, q, 1.0) / scale) ** exponent
    result = torch.where(q > 0, (1.0 - floor) / (1.0 + ratio) + floor, 1.0)
    return (torch.clamp(result, min=0.0) if clip else result).to(dtype)


def apply_mtf(images: Tensor, transfer: Tensor) -> Tensor:
    r"""Return images blurred by an MTF; the borders wrap around.

    Parameters
    ----------
    images : Tensor, shape (\*batch, y, x), real
    transfer : Tensor, shape (\*batch, y, x), real
        Even in frequency and in FFT order, as from :func:`mtf`; batch axes broadcast.

    Returns
    -------
    Tensor
        Shape (\*batch, y, x).

    Raises
    ------
    InputError
        If one is complex or their (y, x) differ.
    """
    if images.is_complex() or transfer.is_complex():
        raise InputError("images or MTF are complex: take the squared modulus of a wave first")
    if images.shape[-2:] != transfer.shape[-2:]:
        raise InputError(f"images {tuple(images.shape)} and MTF {tuple(transfer.shape)} differ in (y, x)")
    half = transfer[..., : images.shape[-1] // 2 + 1]
    blurred: Tensor = torch.fft.irfft2(torch.fft.rfft2(images) * half, s=images.shape[-2:])
    return blurred
