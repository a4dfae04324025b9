"""How far the images of a focal series are displaced against each other.

The contrast of a phase reverses between under- and overfocus, so that the images themselves do not
correlate. The magnitude of the gradient of an image does not reverse: it is large at the edges of the
film and at domain walls, whichever side is bright. Its correlation finds most displacements within a
pixel or two, but which smoothing is best depends on the defocus. So several are tried, the one whose
images a phase explains best is taken, and its displacements are fitted together with the phase
(:func:`exitwave.retrieve.quasi_newton.retrieve_phase`), which finds them to a few hundredths of a pixel.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import gaussian_filter
from skimage.registration import phase_cross_correlation

from exitwave.errors import InputError
from exitwave.retrieve import quasi_newton
from exitwave.retrieve.series import denoised
from exitwave.simulate.imaging import images as images_of
from exitwave.simulate.instrument import Instrument
from exitwave.units import length_text

Array = npt.NDArray[Any]

SMOOTHINGS = (1.0, 1.5, 2.0, 3.0, 5.0)  # pixels
LARGEST = 0.25  # of the field; of images displaced by more, too little is common
_PIXELS = 256  # larger images are binned to it
_UPSAMPLING = 20
_REFINED = 2  # of the starts that explain the images best
_WEIGHT = 10.0  # of the prior
_AROUND = ((0.0, 0.0), (2.0, 0.0), (-2.0, 0.0), (0.0, 2.0), (0.0, -2.0))  # pixels, of all images together
_SIGNIFICANT = 10.0  # fall of the deviance for each component of a displacement


def register(images: torch.Tensor, instrument: Instrument) -> torch.Tensor:
    """Return how far each image of a focal series is displaced against the first one in focus.

    Parameters
    ----------
    images : Tensor, shape (defocus, y, x)
        Intensities on one scale, of mean about 1, at least one of them in focus.
    instrument : Instrument
        One defocus for each image, 0 for those in focus; its shift is not used.

    Returns
    -------
    Tensor, shape (defocus, 2), float64
        (y, x) in pixels, positive towards larger indices; zero where displacing the images does not
        explain them significantly better.

    Raises
    ------
    InputError
        If an image is displaced by more than a quarter of the field.

    Notes
    -----
    Translation only. A displacement in proportion to the defocus is what a ramp of the phase does, so
    images do not tell one from the other; here the phase is one that has no ramp across the field.
    Images larger than 256 pixels are binned for the search, which costs accuracy in proportion.
    """
    factor = max(1, -(-max(images.shape[1:]) // _PIXELS))
    small = _binned(images, factor)
    sampling = (instrument.sampling[0] * factor, instrument.sampling[1] * factor)
    defocus = torch.as_tensor(instrument.defocus, dtype=torch.float64)
    focused = (defocus == 0).cpu()
    found = torch.zeros(len(images), 2, dtype=torch.float64)
    first = small[focused][0]
    for number in torch.nonzero(focused)[1:, 0].tolist():
        found[number] = _correlate(first.cpu().numpy(), small[number].cpu().numpy())
    in_focus = shifted(small[focused], -found[focused]).mean(0)
    stack = torch.cat([in_focus[None], small[~focused]])
    beam = replace(
        instrument,
        sampling=sampling,
        shift=None,
        defocus=torch.cat([defocus.new_zeros(1), defocus[~focused]]),
    )
    found[~focused] = _defocused(stack, beam)
    found *= factor
    _check_size(found, defocus, (int(images.shape[1]), int(images.shape[2])))
    return found


def shifted(images: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Return images displaced by fractions of pixels, the field taken as periodic.

    Parameters
    ----------
    images : Tensor, shape (image, y, x)
    shift : Tensor, shape (image, 2)
        (y, x) in pixels.
    """
    if not bool(shift.any()):
        return images
    n_y, n_x = images.shape[-2:]
    ky = torch.fft.fftfreq(n_y, dtype=torch.float64, device=images.device)[:, None]
    kx = torch.fft.rfftfreq(n_x, dtype=torch.float64, device=images.device)
    step = shift.to(images.device)
    turn = -2 * math.pi * (step[:, 0, None, None] * ky + step[:, 1, None, None] * kx)
    spectrum = torch.fft.rfft2(images.double()) * torch.polar(torch.ones_like(turn), turn)
    moved: torch.Tensor = torch.fft.irfft2(spectrum, s=(n_y, n_x))
    return moved.to(images.dtype)


def correlated(in_focus: torch.Tensor, images: torch.Tensor, smoothing: float) -> torch.Tensor:
    """Return displacements by the correlation of gradient magnitudes, to about two pixels.

    Parameters
    ----------
    in_focus : Tensor, shape (y, x)
    images : Tensor, shape (image, y, x)
    smoothing : float
        Standard deviation of the Gaussian before the gradient, pixels.

    Returns
    -------
    Tensor, shape (image, 2), float64
        (y, x) in pixels.
    """
    reference = _edges(in_focus.cpu().numpy(), smoothing)
    each = [_correlate(reference, _edges(image.cpu().numpy(), smoothing)) for image in images]
    return torch.stack(each)


def _edges(image: Array, smoothing: float) -> Array:
    smooth = gaussian_filter(image.astype(float), smoothing, mode="wrap")
    along_y, along_x = np.gradient(smooth)
    return np.asarray(np.hypot(along_y, along_x))


def _correlate(reference: Array, moved: Array) -> torch.Tensor:
    """Return by how many pixels `moved` is displaced; zero if one of them shows nothing."""
    if min(float(np.ptp(each)) for each in (reference, moved)) < 1e-6:
        return torch.zeros(2, dtype=torch.float64)
    # Without normalisation: whitened spectra of noisy images correlate their noise.
    back, _, _ = phase_cross_correlation(  # type: ignore[no-untyped-call]
        reference - reference.mean(), moved - moved.mean(), upsample_factor=_UPSAMPLING, normalization=None
    )
    return -torch.as_tensor(np.asarray(back, dtype=float))


def _defocused(stack: torch.Tensor, instrument: Instrument) -> torch.Tensor:
    """Return the displacements, in pixels, of all images of a stack but the first, which is in focus."""
    sigma = quasi_newton.estimate_noise(stack).clamp_min(0.01)
    amplitude = denoised(stack[0]).sqrt()
    pixel = torch.tensor(instrument.sampling, dtype=torch.float64)

    def fit(shift: torch.Tensor, polish: int, *free: str) -> tuple[torch.Tensor, float]:
        """Return the displacements after a fit of the phase, and the deviance of the images."""
        whole = torch.cat([torch.zeros(1, 2, dtype=torch.float64), shift]) * pixel
        beam = replace(instrument, shift=whole.to(stack.device))
        found = quasi_newton.retrieve_phase(
            stack, amplitude, beam, sigma=sigma, weight=_WEIGHT, polish=polish, free=free
        )
        with torch.no_grad():
            transfer = found.instrument.transfer((int(stack.shape[1]), int(stack.shape[2])), stack.device)
            modelled = images_of(torch.polar(found.amplitude, found.phase), transfer)
            each = quasi_newton.deviance(modelled, stack, sigma[:, None, None], "gaussian")
        assert found.instrument.shift is not None
        return found.instrument.shift.detach().cpu()[1:] / pixel, float(each[1:].sum())

    none = torch.zeros(len(stack) - 1, 2, dtype=torch.float64)
    starts = [none, *(correlated(stack[0], stack[1:], smoothing) for smoothing in SMOOTHINGS)]
    starts.sort(key=lambda start: fit(start, 25)[1])
    best, least = min((fit(start, 60, "shift") for start in starts[:_REFINED]), key=lambda pair: pair[1])
    # Far from focus a phase displaced with its images against the amplitude is a local minimum.
    around = [best + best.new_tensor(step) for step in _AROUND]
    nearest = min(around, key=lambda start: fit(start, 25)[1])
    if nearest is not around[0]:
        best, least = min((best, least), fit(nearest, 60, "shift"), key=lambda pair: pair[1])
    _, without = fit(none, 85)
    return best if without - least > _SIGNIFICANT * none.numel() else none


def _binned(images: torch.Tensor, factor: int) -> torch.Tensor:
    return torch.nn.functional.avg_pool2d(images[:, None], factor)[:, 0] if factor > 1 else images


def _check_size(shift: torch.Tensor, defocus: torch.Tensor, shape: tuple[int, int]) -> None:
    for number, (y, x) in enumerate(shift.tolist()):
        if abs(y) > LARGEST * shape[0] or abs(x) > LARGEST * shape[1]:
            raise InputError(
                f"image {number + 1} at {length_text(float(defocus[number]))} is displaced by "
                f"({y:.0f}, {x:.0f}) of {shape} pixels, more than a quarter of the field: align and crop the "
                "images before, or use register=False if they are aligned"
            )
