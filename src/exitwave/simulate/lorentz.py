"""Forward model of Lorentz microscopy: phase and exit wave of a magnetised film.

A wave ``exp(+2 pi i k z)`` of electrons (charge -e) that travels along +z gains

``phi = sigma V t - (e / hbar) integral A_z dz``

(Zhou 2020 prints the second sign as plus, which belongs to the conjugate convention). A film with
B along +y therefore deflects electrons towards +x: ``d(phi)/dx = + e B_y t / hbar``.
"""

from __future__ import annotations

import math
from typing import Literal

import torch

from exitwave import optics
from exitwave.errors import InputError
from exitwave.specimens.magnets import Film

# e mu_0 / hbar in rad / (A/m) / Å^2: a phase gradient in rad/Å is this times M t.
_E_OVER_HBAR = 1.602176634e-19 / 1.054571817e-34  # 1 / (V s) = 1 / (T m^2)
_MU_0 = 1.25663706127e-6  # T m / A, CODATA 2022
PHASE_GRADIENT_PER_MAGNETISATION = _E_OVER_HBAR * _MU_0 * 1e-20


def _antiderivative(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return F with d2F/dxdy = x / (x^2 + y^2), up to terms that cancel in a difference over x."""
    r2 = (x * x + y * y).clamp_min(torch.finfo(x.dtype).tiny)
    return 0.5 * y * r2.log() + x * torch.atan2(y * x.sign(), x.abs())


def _corner_difference(
    y: torch.Tensor, x: torch.Tensor, size_y: float, size_x: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the integrals of x/r^2 and y/r^2 over a rectangle, seen from (y, x) off its centre, in Å."""
    along_x = torch.zeros_like(y + x, dtype=torch.float64)
    along_y = torch.zeros_like(along_x)
    for sy in (-0.5, 0.5):
        for sx in (-0.5, 0.5):
            sign = 4 * sy * sx
            corner_y, corner_x = y + sy * size_y, x + sx * size_x
            along_x += sign * _antiderivative(corner_y, corner_x)
            along_y += sign * _antiderivative(corner_x, corner_y)
    return along_y, along_x


def rectangle_phase(
    y: torch.Tensor,
    x: torch.Tensor,
    *,
    size: tuple[float, float],
    magnetisation: tuple[float, float],
    thickness: float,
) -> torch.Tensor:
    """Return the magnetic phase of one uniformly magnetised rectangle, in closed form.

    Parameters
    ----------
    y, x : Tensor, float64
        Positions relative to the centre, Å, broadcast against each other.
    size : (float, float)
        Extent (y, x), Å.
    magnetisation : (float, float)
        Components (x, y), A/m.
    thickness : float
        Å.

    Returns
    -------
    Tensor, float64
        Phase in rad; zero at the centre.

    Notes
    -----
    The integral of ``-(e mu_0 t / 2 pi hbar) (M x r) / r^2`` over the rectangle, with
    ``F = y ln(r^2) / 2 + x arctan(y / x)``.
    """
    along_y, along_x = _corner_difference(y, x, *size)
    mx, my = magnetisation
    scale = PHASE_GRADIENT_PER_MAGNETISATION * thickness / (2 * math.pi)
    return scale * (my * along_x - mx * along_y)


def magnetic_phase(
    film: Film, *, method: Literal["kernel", "fourier"] = "kernel", padding: int = 2
) -> torch.Tensor:
    """Return the magnetic phase of a film.

    Parameters
    ----------
    film : Film
        Magnetisation constant through the thickness, zero outside its field.
    method : {"kernel", "fourier"}
        ``kernel`` convolves with the closed form of one magnetised pixel: exact for a film of such
        pixels alone in space, nothing wraps. ``fourier`` multiplies by
        ``-i (e mu_0 t / hbar) (kx My - ky Mx) / k^2`` (Mansuripur 1991, thin film, normal
        incidence), which treats the padded field as one cell of a periodic film.
    padding : int
        Size of the padded field over the field, for ``fourier`` only.

    Returns
    -------
    Tensor, shape (y, x), float64
        Phase in rad, the constant as the method leaves it.

    Raises
    ------
    InputError
        For an unknown method or a padding below 1.
    """
    n_y, n_x = film.coverage.shape
    dy, dx = film.sampling
    scale = PHASE_GRADIENT_PER_MAGNETISATION * film.thickness
    if method == "kernel":
        padded = (2 * n_y, 2 * n_x)
        y = torch.fft.fftfreq(padded[0], 1 / padded[0], dtype=torch.float64)[:, None] * dy
        x = torch.fft.fftfreq(padded[1], 1 / padded[1], dtype=torch.float64) * dx
        along_y, along_x = _corner_difference(y, x, dy, dx)
        kernel_y, kernel_x = torch.fft.rfft2(along_y), torch.fft.rfft2(along_x)
        scale = scale / (2 * math.pi)
    elif method == "fourier":
        if padding < 1:
            raise InputError(f"padding {padding} is below 1: use 2 or more")
        padded = (padding * n_y, padding * n_x)
        ky = 2 * math.pi * torch.fft.fftfreq(padded[0], dy, dtype=torch.float64)[:, None]
        kx = 2 * math.pi * torch.fft.rfftfreq(padded[1], dx, dtype=torch.float64)
        k2 = ky**2 + kx**2
        k2[0, 0] = math.inf
        kernel_y, kernel_x = -1j * ky / k2, -1j * kx / k2
    else:
        raise InputError(f"unknown method {method!r} for the magnetic phase: use 'kernel' or 'fourier'")
    mx, my = torch.fft.rfft2(film.magnetisation, s=padded)
    phase: torch.Tensor = torch.fft.irfft2(my * kernel_x - mx * kernel_y, s=padded)
    return scale * phase[:n_y, :n_x]


def electrostatic_phase(film: Film, *, energy: float, inner_potential: float) -> torch.Tensor:
    """Return the electrostatic phase ``sigma V t`` of a film in rad, zero in vacuum.

    Parameters
    ----------
    film : Film
    energy : float
        eV.
    inner_potential : float
        Mean inner potential, V.
    """
    return optics.interaction_constant(energy) * inner_potential * film.thickness * film.coverage


def exit_wave(film: Film, *, energy: float, inner_potential: float, absorption_length: float) -> torch.Tensor:
    """Return the exit wave of a film, 1 far away in vacuum.

    Parameters
    ----------
    film : Film
    energy : float
        eV.
    inner_potential : float
        V.
    absorption_length : float
        Thickness over which the *amplitude* falls to 1/e, Å; ``inf`` for a pure phase object.

    Returns
    -------
    Tensor, shape (y, x), complex128
        Dimensionless. The supporting membrane is uniform and left out.
    """
    if not absorption_length > 0:
        raise InputError(f"absorption length {absorption_length} Å is not positive: use inf for none")
    phase = magnetic_phase(film) + electrostatic_phase(film, energy=energy, inner_potential=inner_potential)
    amplitude = torch.exp(-film.coverage * film.thickness / absorption_length)
    return torch.polar(amplitude, phase)
