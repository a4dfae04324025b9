"""A focal series as the retrieval wants it: one scale, an in-focus image, and defoci that make sense."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from skimage.restoration import denoise_tv_chambolle

from exitwave import records
from exitwave.errors import InputError
from exitwave.retrieve.quasi_newton import estimate_noise

# Means that differ by less are left alone: what crosses the border of the field does that, too.
SAME_EXPOSURE = 0.1
_FLOOR = 1e-3  # of the mean, for the in-focus intensity, which is divided by


@dataclass(frozen=True)
class Series:
    """A focal series on one scale.

    Attributes
    ----------
    images : Tensor, shape (image, y, x), float32
        Intensities over the mean of the in-focus image, or of the image itself if none is in focus.
    defocus : Tensor, shape (image,), float64
        Å, underfocus positive.
    number : Tensor, shape (image,), int64
        Which image of the record each is, from 1.
    exposure : Tensor, shape (image,), float64
        Mean of each image over that of the in-focus image, before anything was scaled.
    energy : float
        eV.
    sampling : (float, float)
        Pixel size (y, x), Å.
    """

    images: torch.Tensor
    defocus: torch.Tensor
    number: torch.Tensor
    exposure: torch.Tensor
    energy: float
    sampling: tuple[float, float]

    @property
    def focused(self) -> torch.Tensor:
        """True for each image in focus, shape (image,)."""
        return self.defocus == 0


def read_series(record: xr.Dataset, *, focus: bool = True, device: str = "cpu") -> Series:
    """Return the images of a record of layout ``images`` on one scale.

    Parameters
    ----------
    record : xarray.Dataset
        Layout ``images``, intensities in any unit.
    focus : bool
        Whether an image in focus is needed; without, exactly one image must be defocused.
    device : str

    Returns
    -------
    Series

    Raises
    ------
    InputError
        If there is no image in focus, or no other; for a mean that is not positive.

    Notes
    -----
    Propagation conserves the total intensity, so images exposed alike have equal means, and all are
    divided by one number, the mean of the in-focus image: the phase, the residuals and the Gaussian
    likelihood do not depend on it. The mean is taken rather than the vacuum, which a field of view need
    not contain. An image whose mean differs by more than :data:`SAME_EXPOSURE` was exposed differently
    and is divided by its own mean instead.
    """
    records.validate(record, "images")
    defocus = torch.as_tensor(record["defocus"].values.astype(float))
    intensity = torch.as_tensor(record["intensity"].values.astype(np.float64))
    focused = defocus == 0
    number = torch.arange(1, len(defocus) + 1)
    _check_defoci(defocus, focus)
    if not focus:  # whatever is in focus is of no use here
        chosen = ~focused
        intensity, defocus, number, focused = (each[chosen] for each in (intensity, defocus, number, focused))
    means = intensity.mean((1, 2))
    reference = means[focused if focus else slice(None)].mean()
    for which_one, mean, in_focus in zip(number, means, focused, strict=True):
        if not mean > 0:
            which = "the in-focus image" if in_focus else f"image {int(which_one)}"
            raise InputError(f"{which} has no positive mean: check its dark correction")
    exposure = means / reference
    other = (exposure - 1).abs() > SAME_EXPOSURE
    scale = torch.where(other, means, reference)
    images = (intensity / scale[:, None, None]).float().to(device)
    sampling = records.sampling_of(record)
    return Series(images, defocus.to(device), number, exposure, float(record["energy"]), sampling)


def _check_defoci(defocus: torch.Tensor, focus: bool) -> None:
    listed = [float(each) for each in defocus]
    focused = defocus == 0
    if focus and (not bool(focused.any()) or bool(focused.all())):
        raise InputError(
            f"the defoci {listed} Å need one image in focus (0) and one or more that are not: the amplitude "
            "is taken from the one, the phase from the others (method sitie does with one defocused image)"
        )
    if not focus and int((~focused).sum()) != 1:
        raise InputError(
            f"the defoci {listed} Å are not those of one defocused image, which sitie takes: "
            "use tie or gradient"
        )


def denoised(in_focus: torch.Tensor) -> torch.Tensor:
    """Return an in-focus image after TV denoising at the level of its own noise, positive.

    Parameters
    ----------
    in_focus : Tensor, shape (y, x)
        Of mean about 1.

    Returns
    -------
    Tensor, shape (y, x)
        At least a thousandth of the mean everywhere.
    """
    floor = _FLOOR * float(in_focus.mean())
    weight = float(estimate_noise(in_focus))
    if weight <= floor:  # the denoising divides by its weight, and there is nothing to remove
        return in_focus.clamp_min(floor)
    smooth = denoise_tv_chambolle(in_focus.cpu().numpy(), weight=weight)  # type: ignore[no-untyped-call]
    return torch.as_tensor(smooth).to(in_focus).clamp_min(floor)
