"""What the metrics share: checked arrays, and sums over the pixels of each image."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from exitwave.errors import InputError

NumpyArray = npt.NDArray[Any]
Array = TypeVar("Array", Tensor, NumpyArray)

_KEPT = (torch.float32, torch.float64, torch.complex64, torch.complex128)


def checked(values: Any, name: str) -> Tensor:
    """Return images as a tensor of one of the four dtypes, or raise InputError."""
    if isinstance(values, Tensor):
        tensor = values
    else:
        array = np.asarray(values)
        if array.dtype.kind not in "biufc":
            raise InputError(f"{name} holds {array.dtype} and not numbers: give images (..., y, x)")
        kept = array.dtype.kind + str(array.dtype.itemsize) in ("f4", "f8", "c8", "c16")
        double = complex if array.dtype.kind == "c" else float
        # A copy in native byte order: torch takes no other, and warns of arrays that cannot be written.
        tensor = torch.from_numpy(np.array(array, array.dtype.newbyteorder("=") if kept else double))
    if tensor.dtype not in _KEPT:
        tensor = tensor.to(torch.complex128 if tensor.is_complex() else torch.float64)
    if tensor.ndim < 2 or 0 in tensor.shape:
        raise InputError(f"{name} has the shape {tuple(tensor.shape)}: give images (..., y, x)")
    if not bool(torch.isfinite(tensor.detach()).all()):
        raise InputError(f"{name} has values that are not finite: mask or replace them")
    return tensor


def pair(first: Any, second: Any, *, real: bool = False) -> tuple[Tensor, Tensor, Callable[[Tensor], Any]]:
    """Return both as checked tensors, and what turns a result into the type that was given."""
    a, b = checked(first, "the first array"), checked(second, "the second array")
    try:
        torch.broadcast_shapes(a.shape, b.shape)  # type: ignore[no-untyped-call]
        agree = a.shape[-2:] == b.shape[-2:]
    except RuntimeError:
        agree = False
    if not agree:
        raise InputError(f"shapes {tuple(a.shape)} and {tuple(b.shape)} do not match: crop or resample one")
    if real and (a.is_complex() or b.is_complex()):
        raise InputError("a complex array is given where reals are compared: take its phase or modulus")
    if isinstance(first, Tensor):
        return a, b.to(a.device) if not isinstance(second, Tensor) else b, lambda result: result
    if isinstance(second, Tensor):
        return a.to(b.device), b, lambda result: result
    return a, b, lambda result: result.numpy()[()]


def sampling_pair(sampling: float | tuple[float, float]) -> tuple[float, float]:
    """Return the pixel size as (y, x) in Å; raise InputError if it is not positive and finite."""
    pair = (sampling, sampling) if isinstance(sampling, int | float) else tuple(sampling)
    if len(pair) != 2 or not all(math.isfinite(p) and p > 0 for p in pair):
        raise InputError(f"pixel size {sampling} Å is not positive: give one number or (y, x) in Å")
    return float(pair[0]), float(pair[1])


def intensity(values: Tensor) -> Tensor:
    """Return |values|², without the square root that has no gradient at 0."""
    return values.real.square() + values.imag.square() if values.is_complex() else values.square()


def pixel_sum(values: Tensor) -> Tensor:
    """Return the sum over the pixels of each image."""
    return values.sum(dim=(-2, -1))


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Return the quotient, 0 where the denominator is 0."""
    empty = denominator == 0
    return torch.where(empty, 0.0, numerator / torch.where(empty, 1.0, denominator))


def centred(values: Tensor) -> Tensor:
    """Return each image without its mean."""
    return values - values.mean(dim=(-2, -1), keepdim=True)
