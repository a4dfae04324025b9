"""What multiplies the spectrum of a wave: transfer function, aperture, free-space propagator."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from exitwave.errors import InputError
from exitwave.optics.aberrations import ABERRATION_NAMES, Aberrations, gradient_of, phase_of
from exitwave.optics.beam import wavelength
from exitwave.optics.grids import Value, check_batch, checked, is_zero, on_grid, sampling_pair, working_grid

Edge = float | Literal["pixel"]
_SEMIANGLE = "aperture half angle (rad)"
_AZIMUTHAL = tuple(name for name in ABERRATION_NAMES if name.startswith("C") and not name.endswith("0"))


def transfer_function(
    shape: tuple[int, int],
    sampling: float | tuple[float, float],
    *,
    energy: Value,
    aberrations: Aberrations,
    focal_spread: Value = 0.0,
    angular_spread: Value = 0.0,
    aperture: Value | None = None,
    aperture_edge: Edge = "pixel",
    coupled: bool = False,
    dtype: torch.dtype = torch.complex64,
    device: torch.device | str | None = None,
) -> Tensor:
    r"""Return exp(-iχ) with the envelopes of partial coherence and the aperture.

    With Δ the focal spread, s the angular spread and ∇χ the gradient over both angles, the envelopes are

    .. math::
        E_t = e^{-(\pi \Delta \alpha^2 / \lambda)^2 / 2}, \qquad
        E_s = e^{-s^2 |\nabla_\alpha \chi|^2 / 2}

    the averages of exp(-iχ) over defocus and, χ taken linear, over beam directions (quasi-coherent
    approximation). abTEM's `focal_spread` is Δ√2 and its `angular_spread`, in mrad, 1000 s√2.

    Parameters
    ----------
    shape : (int, int)
        Number of pixels (y, x).
    sampling : float or (float, float)
        Pixel size, Å, one number or (y, x).
    energy : float or Tensor
        Beam energy, eV.
    aberrations : Aberrations
        Coefficients in Å and rad.
    focal_spread : float or Tensor
        Standard deviation of the defocus, Å.
    angular_spread : float or Tensor
        Standard deviation, along each axis, of the Gaussian of beam directions, rad.
    aperture : float or Tensor, optional
        Half angle of the objective aperture, rad.
    aperture_edge : float or "pixel"
        Its edge, see :func:`aperture`.
    coupled : bool
        Average over both spreads at once: with u = 1 + (2π s Δ α/λ)², the exponent of E_t and the part
        of that of E_s with the radial slope are divided by u. For round aberrations this is the envelope
        of De Graef and of Zhou et al. 2020, u = 1 + 2(π θc Δ q)² with θc = s√2, defined for those
        only; that the azimuthal slope stays whole is our extension. As there, the
        factor u^(-1/2) and the small phase of the exact average are left out.
    dtype : torch.dtype
        complex64 or complex128.
    device : torch.device or str, optional
        Of the result; by default torch's.

    Returns
    -------
    Tensor
        Shape (\*batch, y, x), FFT order.

    Raises
    ------
    InputError
        For an energy or aperture that is not positive, a negative spread, another dtype, a bad shape or
        pixel size, or batch shapes that do not broadcast.
    """
    if dtype not in (torch.complex64, torch.complex128):
        raise InputError(f"dtype {dtype} is not complex: use torch.complex64 or torch.complex128")
    energy = checked(energy, "beam energy (eV)", positive=True)
    focal_spread = checked(focal_spread, "focal spread (Å)", least=0.0)
    angular_spread = checked(angular_spread, "angular spread (rad)", least=0.0)
    cutoff = math.pi if aperture is None else checked(aperture, _SEMIANGLE, positive=True)
    values = (energy, focal_spread, angular_spread, cutoff, *aberrations.values())
    check_batch(*values)
    ky, kx = working_grid(shape, sampling, device)
    # What is round mirrors from a quarter of the plane; gradients are summed over the whole.
    mirrored = _is_round(aberrations) and not any(isinstance(v, Tensor) and v.requires_grad for v in values)
    if mirrored:
        ky, kx = ky[: shape[0] // 2 + 1], kx[:, : shape[1] // 2 + 1]
    lam = wavelength(on_grid(energy, ky))
    amplitude = torch.ones_like(ky)
    if not (is_zero(focal_spread) and is_zero(angular_spread)):
        spreads = on_grid(focal_spread, ky), on_grid(angular_spread, ky)
        amplitude = torch.exp(-_damping(ky, kx, lam, aberrations, *spreads, coupled))
    if aperture is not None:
        amplitude = amplitude * _disk(ky, kx, lam, cutoff, aperture_edge, _steps(shape, sampling))
    made = _polar(amplitude, -phase_of(ky, kx, lam, aberrations), dtype)
    return mirror(mirror(made, shape[0], -2), shape[1], -1) if mirrored else made


def _is_round(aberrations: Aberrations) -> bool:
    return all(is_zero(getattr(aberrations, name)) for name in _AZIMUTHAL)


def mirror(values: Tensor, number: int, axis: int) -> Tensor:
    """Return values at all frequencies of an axis in FFT order from those at 0 to the highest.

    Parameters
    ----------
    values : Tensor
        Even in the frequency, ``number // 2 + 1`` of them along `axis`.
    number : int
        Pixels along the axis.
    axis : int
    """
    rest = torch.arange(1, (number + 1) // 2, device=values.device).flip(0)
    return torch.cat([values, values.index_select(axis, rest)], axis)


def _damping(
    ky: Tensor,
    kx: Tensor,
    lam: Tensor,
    aberrations: Aberrations,
    focal: Tensor,
    angular: Tensor,
    coupled: bool,
) -> Tensor:
    """Return -ln of the product of the envelopes."""
    k2 = ky**2 + kx**2
    gy, gx = gradient_of(ky, kx, lam, aberrations)
    temporal = 0.5 * (math.pi * lam * focal * k2) ** 2
    spatial = 0.5 * angular**2 * (gy**2 + gx**2)
    if not coupled:
        return temporal + spatial
    # The radial slope is (g·k)/k, and (1 - 1/u)/k² has no pole: nothing is divided by k.
    rate = (2.0 * math.pi * angular * focal) ** 2
    u = 1.0 + rate * k2
    return temporal / u + spatial - 0.5 * angular**2 * rate / u * (gy * ky + gx * kx) ** 2


def _polar(amplitude: Tensor, phase: Tensor, dtype: torch.dtype) -> Tensor:
    """Return amplitude * exp(i phase), the phase brought into one turn before it loses digits."""
    if dtype == torch.complex128:
        return torch.polar(amplitude, phase)
    return torch.polar(amplitude.float(), torch.remainder(phase, 2.0 * math.pi).float())


def propagator(
    shape: tuple[int, int],
    sampling: float | tuple[float, float],
    distance: Value,
    energy: Value,
    *,
    dtype: torch.dtype = torch.complex64,
    device: torch.device | str | None = None,
) -> Tensor:
    r"""Return the Fresnel propagator exp(-iπλzq²) of free space.

    It is the transfer function of C10 = z: to propagate forward by z is an overfocus of z.

    Parameters
    ----------
    distance : float or Tensor
        z in Å, positive along the beam.
    shape, sampling, energy, dtype, device
        As :func:`transfer_function`.

    Returns
    -------
    Tensor
        Shape (\*batch, y, x), FFT order, modulus 1.

    Raises
    ------
    InputError
        As :func:`transfer_function`.
    """
    aberrations = Aberrations(C10=checked(distance, "distance (Å)"))
    return transfer_function(
        shape, sampling, energy=energy, aberrations=aberrations, dtype=dtype, device=device
    )


def aperture(
    shape: tuple[int, int],
    sampling: float | tuple[float, float],
    *,
    energy: Value,
    semiangle: Value,
    edge: Edge = "pixel",
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> Tensor:
    r"""Return the transmission of a round aperture.

    Parameters
    ----------
    shape, sampling, energy, device
        As :func:`transfer_function`.
    semiangle : float or Tensor
        Half angle, rad.
    edge : float or "pixel"
        Width in rad of the linear ramp from 1 to 0 centred on `semiangle`; "pixel", as abTEM's soft
        aperture, is one pixel of the frequency grid, and 0 a hard edge, which has no gradient. The zero
        frequency always passes.
    dtype : torch.dtype
        Real dtype of the result.

    Returns
    -------
    Tensor
        Transmission of the amplitude, 0 to 1, shape (\*batch, y, x), FFT order.

    Raises
    ------
    InputError
        For an energy or half angle that is not positive, or an unknown or negative edge.
    """
    energy = checked(energy, "beam energy (eV)", positive=True)
    semiangle = checked(semiangle, _SEMIANGLE, positive=True)
    check_batch(energy, semiangle)
    ky, kx = working_grid(shape, sampling, device)
    lam = wavelength(on_grid(energy, ky))
    return _disk(ky, kx, lam, semiangle, edge, _steps(shape, sampling)).to(dtype)


def _steps(shape: tuple[int, int], sampling: float | tuple[float, float]) -> tuple[float, float]:
    """Return the frequency steps (y, x) in 1/Å."""
    dy, dx = sampling_pair(sampling)
    return 1.0 / (shape[0] * dy), 1.0 / (shape[1] * dx)


def _disk(
    ky: Tensor, kx: Tensor, lam: Tensor, semiangle: Value, edge: Edge, steps: tuple[float, float]
) -> Tensor:
    """Return the aperture for a wavelength (Å) of shape (*batch, 1, 1)."""
    k = torch.sqrt(ky**2 + kx**2)
    inside = on_grid(semiangle, ky) - lam * k
    if edge == "pixel":
        # The width of a pixel along k, as abTEM has it.
        width = lam * torch.sqrt((ky * steps[0]) ** 2 + (kx * steps[1]) ** 2) / torch.where(k > 0, k, 1.0)
    elif edge == 0:
        return (inside >= 0).to(ky.dtype)
    else:
        width = torch.full_like(k, float(checked(edge, "aperture edge, 'pixel' or rad,", least=0.0)))
    ramp = torch.clamp(inside / torch.where(k > 0, width, 1.0) + 0.5, 0.0, 1.0)
    return torch.where(k > 0, ramp, 1.0)
