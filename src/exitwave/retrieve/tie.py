"""Transport-of-intensity phase retrieval by Fourier transforms."""

from __future__ import annotations

import math

import torch

from exitwave import optics
from exitwave.errors import InputError


def defocus_derivative(
    intensity: torch.Tensor, defocus: torch.Tensor, in_focus: torch.Tensor
) -> torch.Tensor:
    """Return dI/d(defocus), the least-squares slope through the in-focus image.

    Parameters
    ----------
    intensity : Tensor, shape (defocus, y, x)
        Defocused images.
    defocus : Tensor, shape (defocus,)
        Å, none of them zero.
    in_focus : Tensor, shape (y, x)

    Returns
    -------
    Tensor, shape (y, x)
        1/Å. For one pair of opposite defoci, half their difference over the defocus.
    """
    weights = (defocus / defocus.square().sum()).to(intensity.dtype)
    return torch.einsum("n,nyx->yx", weights, intensity - in_focus)


def solve(
    derivative: torch.Tensor,
    in_focus: torch.Tensor,
    *,
    energy: float,
    sampling: tuple[float, float],
    cutoff: float = 0.0,
    symmetrise: bool = False,
) -> torch.Tensor:
    """Solve the transport-of-intensity equation by Fourier transforms.

    Parameters
    ----------
    derivative : Tensor, shape (y, x)
        dI/d(defocus) in 1/Å, underfocus positive.
    in_focus : Tensor, shape (y, x)
        In-focus intensity, positive.
    energy : float
        eV.
    sampling : (float, float)
        Pixel size (y, x), Å.
    cutoff : float
        Tikhonov parameter q_c in 1/Å: the inverse Laplacian 1/q^2 becomes q^2 / (q^2 + q_c^2)^2.
    symmetrise : bool
        Mirror the field at its borders before (V. V. Volkov et al., Micron 33 (2002) 411), so that it is
        continuous where the transform repeats it. Without, the borders are periodic.

    Returns
    -------
    Tensor, shape (y, x)
        Phase in rad, of zero mean.

    Raises
    ------
    InputError
        If the in-focus intensity is not positive everywhere or the cutoff is negative.

    Notes
    -----
    Zhou 2020, Eq. 1, through Teague's auxiliary function ``grad(psi) = I grad(phi)``. Moving the
    focal plane along +z is overfocus, so ``dI/dz = -dI/d(defocus)`` and

    ``div(I grad(phi)) = -k dI/dz = +k dI/d(defocus)``, ``k = 2 pi / lambda``.
    """
    if not bool((in_focus > 0).all()):
        raise InputError("the in-focus image is not positive everywhere: denoise or clip it first")
    if not cutoff >= 0:
        raise InputError(f"cutoff {cutoff} 1/Å is not 0 or more: use 0 for none")
    if symmetrise:
        doubled = (_mirrored(derivative), _mirrored(in_focus))
        n_y, n_x = derivative.shape
        phase = solve(*doubled, energy=energy, sampling=sampling, cutoff=cutoff)[:n_y, :n_x]
        return phase - phase.mean()
    ky, kx = optics.frequency_grid(
        (derivative.shape[-2], derivative.shape[-1]),
        sampling,
        dtype=derivative.dtype,
        device=derivative.device,
    )
    q2 = ky**2 + kx**2
    inverse = -q2 / (4 * math.pi**2 * (q2 + cutoff**2) ** 2)
    inverse[q2 == 0] = 0.0
    gradient = torch.stack([2j * math.pi * ky.expand_as(q2), 2j * math.pi * kx.expand_as(q2)])

    wavenumber = 2 * math.pi / optics.wavelength(energy)
    auxiliary = torch.fft.fft2(wavenumber * derivative) * inverse
    flow = torch.fft.ifft2(gradient * auxiliary).real / in_focus
    divergence = (gradient * torch.fft.fft2(flow)).sum(0)
    found: torch.Tensor = torch.fft.ifft2(divergence * inverse).real
    return found


def _mirrored(values: torch.Tensor) -> torch.Tensor:
    upper = torch.cat([values, values.flip(-1)], dim=-1)
    return torch.cat([upper, upper.flip(-2)], dim=-2)


def single_image_derivative(intensity: torch.Tensor, defocus: float) -> torch.Tensor:
    """Return dI/d(defocus) from one image of a film that absorbs evenly (SITIE).

    Without an image in focus its place is taken by the mean of the image: for a film of even
    absorption that is what an in-focus image shows (J. J. Chess et al., Ultramicroscopy 177 (2017) 78).

    Parameters
    ----------
    intensity : Tensor, shape (y, x)
    defocus : float
        Å, not zero.

    Returns
    -------
    Tensor, shape (y, x)
        1/Å.

    Raises
    ------
    InputError
        If the defocus is zero or not finite.
    """
    if not (math.isfinite(defocus) and defocus != 0):
        raise InputError(f"a single image at a defocus of {defocus} Å does not show the phase: defocus it")
    return (intensity - intensity.mean()) / defocus
