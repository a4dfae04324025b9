"""From a record of Lorentz images to a record of the phase."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
import xarray as xr

from exitwave import optics, records
from exitwave.errors import InputError
from exitwave.retrieve import gradient, tie
from exitwave.simulate.imaging import images

METHODS = ("tie", "gradient")


def split_series(record: xr.Dataset) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return defocused images, their defoci and the in-focus image of a record of layout ``images``.

    Returns
    -------
    defocused : Tensor, shape (defocus, y, x), float32
    defocus : Tensor, shape (defocus,), float64
        Å, none of them zero.
    in_focus : Tensor, shape (y, x), float32
        The mean of the images at defocus 0.

    Raises
    ------
    InputError
        If there is no image in focus, or no other.
    """
    records.validate(record, "images")
    defocus = torch.as_tensor(record["defocus"].values.astype(float))
    intensity = torch.as_tensor(record["intensity"].values.astype(np.float32))
    focused = defocus == 0
    if not bool(focused.any()) or bool(focused.all()):
        raise InputError(
            f"the defoci {[float(d) for d in defocus]} Å need one image in focus (0) and one or more that "
            "are not: the amplitude is taken from the one, the phase from the others"
        )
    return intensity[~focused], defocus[~focused], intensity[focused].mean(0)


def retrieve(
    record: xr.Dataset,
    *,
    method: Literal["tie", "gradient"] = "tie",
    cutoff: float = 0.0,
    iterations: int = 500,
    rate: float = 0.1,
    spherical_aberration: float = 0.0,
    focal_spread: float = 0.0,
    convergence: float = 0.0,
    device: str = "cpu",
    observe: Callable[[int, torch.Tensor, float], None] | None = None,
) -> xr.Dataset:
    """Retrieve the phase from a series of defocused images with one in focus.

    Parameters
    ----------
    record : xarray.Dataset
        Layout ``images``, one image at defocus 0; intensities in any unit, all exposed alike.
    method : {"tie", "gradient"}
        Transport of intensity, or Adam through the forward model starting from the TIE phase.
    cutoff : float
        Tikhonov parameter of the TIE, 1/Å.
    iterations, rate
        Steps and rate (rad) of Adam.
    spherical_aberration : float
        C30, Å.
    focal_spread : float
        Standard deviation of the defocus, Å.
    convergence : float
        1/e half width of the illumination angles, rad.
    device : str
        Torch device.
    observe : callable
        See :func:`exitwave.retrieve.gradient.retrieve_phase`.

    Returns
    -------
    xarray.Dataset
        Layout ``phase`` with ``residual`` (defocus): relative rms difference of modelled and given
        intensities, by which the result can be judged without knowing the truth.

    Raises
    ------
    InputError
        If the record is no series with an in-focus image, or an option is out of range.
    """
    if method not in METHODS:
        raise InputError(f"unknown method {method!r}: use one of {', '.join(METHODS)}")
    if not 0 < rate < float("inf"):
        raise InputError(f"rate {rate} rad is not a positive number: use 0.1 or less")
    defocused, defocus, in_focus = (each.to(device) for each in split_series(record))
    sampling, energy = records.sampling_of(record), float(record["energy"])
    floor = 1e-3 * float(in_focus.mean())
    if floor <= 0:
        raise InputError("the in-focus image has no positive mean: check its dark correction")
    in_focus = in_focus.clamp_min(floor)
    derivative = tie.defocus_derivative(defocused, defocus, in_focus)
    phase = tie.solve(derivative, in_focus, energy=energy, sampling=sampling, cutoff=cutoff)
    transfer = optics.transfer_function(
        (phase.shape[0], phase.shape[1]),
        sampling,
        energy=energy,
        aberrations=optics.Aberrations(C10=-defocus, C30=spherical_aberration),
        focal_spread=focal_spread,
        angular_spread=optics.convert_width(convergence, "1/e", "std"),
        coupled=True,
        device=device,
    )
    amplitude = in_focus.sqrt()
    if method == "gradient":
        phase, _ = gradient.retrieve_phase(
            defocused, amplitude, transfer, start=phase, iterations=iterations, rate=rate, observe=observe
        )
    modelled = images(torch.polar(amplitude, phase), transfer)
    residual = ((modelled - defocused).square().mean((1, 2)) / defocused.square().mean((1, 2))).sqrt()
    result = records.phase(phase.cpu().numpy(), sampling=sampling, energy=energy)
    result["defocus"] = xr.Variable("defocus", defocus.cpu().numpy(), record["defocus"].attrs)
    attrs = {"units": "1", "long_name": "relative rms residual of each image"}
    result["residual"] = xr.Variable("defocus", residual.cpu().numpy(), attrs)
    return result
