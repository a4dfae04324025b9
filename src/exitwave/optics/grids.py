"""Parameters and frequency grids: how numbers and tensors are checked and laid out over (y, x)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from exitwave.errors import InputError

Value = float | Tensor


def checked(value: Any, name: str, *, least: float = -math.inf, positive: bool = False) -> Value:
    """Return a finite float or floating tensor; anything else array-like becomes a float64 tensor.

    Raises
    ------
    InputError
        If `value` is not real and finite, below `least`, or with `positive` not above 0.
    """
    try:
        if isinstance(value, int | float):
            result: Value = float(value)
        elif not isinstance(value, Tensor):
            result = torch.tensor(value, dtype=torch.float64)
        elif value.is_complex():
            raise TypeError
        else:
            result = value if value.is_floating_point() else value.to(torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(f"{name} is {value!r}: give a real number or a tensor of real numbers") from None
    seen = torch.as_tensor(result).detach()
    if not bool(torch.isfinite(seen).all()):
        raise InputError(f"{name} is {_shown(seen)}: give finite values")
    if bool((seen < least).any()) or (positive and bool((seen <= 0).any())):
        bound = "above 0" if positive else f"of at least {least:g}"
        raise InputError(f"{name} is {_shown(seen)}: give a value {bound}")
    return result


def _shown(value: Tensor) -> str:
    return f"{value.item():g}" if value.numel() == 1 else f"a tensor from {value.min():g} to {value.max():g}"


def is_zero(value: Value) -> bool:
    """Tell whether a term is absent: a plain 0. A tensor is kept, for it may want a gradient."""
    return not isinstance(value, Tensor) and value == 0


def on_grid(value: Value, like: Tensor) -> Tensor:
    """Return a parameter of shape (*batch,) as (*batch, 1, 1), in the dtype and on the device of `like`."""
    return torch.as_tensor(value, dtype=like.dtype, device=like.device)[..., None, None]


def check_batch(*values: Value) -> None:
    """Raise InputError if the shapes of the tensors among `values` do not broadcast."""
    shapes = [v.shape for v in values if isinstance(v, Tensor)]
    try:
        torch.broadcast_shapes(*shapes)  # type: ignore[no-untyped-call]
    except RuntimeError:
        listed = ", ".join(str(tuple(s)) for s in dict.fromkeys(shapes))
        raise InputError(f"batch shapes {listed} of the parameters do not broadcast: reshape them") from None


def sampling_pair(sampling: float | tuple[float, float]) -> tuple[float, float]:
    """Return the pixel size as (y, x) in Å; raise InputError if it is not positive and finite."""
    pair = (sampling, sampling) if isinstance(sampling, int | float) else tuple(sampling)
    if len(pair) != 2 or not all(math.isfinite(p) and p > 0 for p in pair):
        raise InputError(f"pixel size {sampling} Å is not positive: give one number or (y, x) in Å")
    return float(pair[0]), float(pair[1])


def frequency_grid(
    shape: tuple[int, int],
    sampling: float | tuple[float, float],
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor]:
    """Return the spatial frequencies of a grid in FFT order.

    Parameters
    ----------
    shape : (int, int)
        Number of pixels (y, x).
    sampling : float or (float, float)
        Pixel size, Å, one number or (y, x).
    device, dtype
        Of the result; by default torch's default device and float64.

    Returns
    -------
    ky, kx : Tensor
        Shapes (y, 1) and (1, x), 1/Å; they broadcast to (y, x).

    Raises
    ------
    InputError
        If a size or a pixel size is not positive.
    """
    if len(shape) != 2 or min(shape) < 1:
        raise InputError(f"grid shape {tuple(shape)} is no pair of positive integers: give (y, x)")
    dy, dx = sampling_pair(sampling)
    ky = torch.fft.fftfreq(shape[0], dy, device=device, dtype=dtype)
    kx = torch.fft.fftfreq(shape[1], dx, device=device, dtype=dtype)
    return ky[:, None], kx[None, :]


def working_grid(
    shape: tuple[int, int], sampling: float | tuple[float, float], device: torch.device | str | None
) -> tuple[Tensor, Tensor]:
    """Return :func:`frequency_grid` in the precision in which phases are computed."""
    device = torch.empty(0, device=device).device
    return frequency_grid(shape, sampling, device, torch.float32 if device.type == "mps" else torch.float64)
