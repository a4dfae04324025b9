"""Images of an exit wave through a linear, partially coherent microscope, and their noise."""

from __future__ import annotations

import torch

from exitwave.errors import InputError


def images(wave: torch.Tensor, transfer: torch.Tensor) -> torch.Tensor:
    """Return the intensity of a wave behind each transfer function.

    Parameters
    ----------
    wave : Tensor, shape (..., y, x), complex
        Exit wave; the field is taken as periodic.
    transfer : Tensor, shape (defocus, y, x) or (..., defocus, y, x), complex
        Transfer functions in FFT order (:func:`exitwave.optics.transfer_function`).

    Returns
    -------
    Tensor, shape (..., defocus, y, x), real
        ``|F^-1(F(wave) T)|^2``, over the intensity of the incident wave.
    """
    spectrum = torch.fft.fft2(wave).unsqueeze(-3) * transfer
    image: torch.Tensor = torch.fft.ifft2(spectrum)
    return image.real.square() + image.imag.square()


def add_gaussian_noise(intensity: torch.Tensor, sigma: float, generator: torch.Generator) -> torch.Tensor:
    """Add white Gaussian noise whose standard deviation is `sigma` times the vacuum intensity.

    The result may be negative, as dark-corrected counts may; nothing is clipped.

    Raises
    ------
    InputError
        If `sigma` is negative.
    """
    if not sigma >= 0:
        raise InputError(f"noise {sigma} is negative: give the standard deviation over the vacuum intensity")
    noise = torch.randn(intensity.shape, generator=generator, dtype=intensity.dtype)
    return intensity + sigma * noise.to(intensity.device)


def add_poisson_noise(
    intensity: torch.Tensor, dose: float, sampling: tuple[float, float], generator: torch.Generator
) -> torch.Tensor:
    """Count electrons at a dose.

    Parameters
    ----------
    intensity : Tensor, shape (..., y, x)
        Over the vacuum intensity, not negative.
    dose : float
        Electrons per Å^2 in vacuum and per image.
    sampling : (float, float)
        Pixel size (y, x), Å.
    generator : torch.Generator

    Returns
    -------
    Tensor
        Counts divided by the mean count of a vacuum pixel.

    Raises
    ------
    InputError
        If the dose is not positive.
    """
    if not dose > 0:
        raise InputError(f"dose {dose} is not positive: give it in electrons per Å^2")
    per_pixel = dose * sampling[0] * sampling[1]
    counts = torch.poisson(intensity.cpu() * per_pixel, generator=generator)
    return (counts / per_pixel).to(intensity.device)
