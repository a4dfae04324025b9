"""Aberration coefficients to fifth order, the phase they make, and its gradient."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from exitwave.errors import InputError
from exitwave.optics.beam import wavelength
from exitwave.optics.grids import Value, check_batch, checked, is_zero, on_grid

# Order n and multiplicity m of every aberration Cnm to fifth order.
_ORDERS = tuple((n, m) for n in range(1, 6) for m in range((n + 1) % 2, n + 2, 2))
CARTESIAN_NAMES = tuple(f"C{n}{m}{part}" for n, m in _ORDERS for part in (("a", "b") if m else ("",)))

# What a vanishing pair (a, b) is moved by, Å, so that its polar form can be differentiated.
_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class Aberrations:
    r"""Polar aberration coefficients to fifth order.

    .. math:: \chi = \frac{2\pi}{\lambda}
        \sum_{nm} \frac{\alpha^{n+1}}{n+1} C_{nm} \cos m(\phi - \phi_{nm})

    as in abTEM and in Kirkland's Eq. 2.22. Magnitudes `Cnm` are in Å, azimuths `phinm` in rad. Each is a
    float or a floating tensor of batch axes; other array-likes become float64 tensors.

    Raises
    ------
    InputError
        If a coefficient is no finite real number, or batch shapes do not broadcast.
    """

    C10: Value = 0.0
    C12: Value = 0.0
    phi12: Value = 0.0
    C21: Value = 0.0
    phi21: Value = 0.0
    C23: Value = 0.0
    phi23: Value = 0.0
    C30: Value = 0.0
    C32: Value = 0.0
    phi32: Value = 0.0
    C34: Value = 0.0
    phi34: Value = 0.0
    C41: Value = 0.0
    phi41: Value = 0.0
    C43: Value = 0.0
    phi43: Value = 0.0
    C45: Value = 0.0
    phi45: Value = 0.0
    C50: Value = 0.0
    C52: Value = 0.0
    phi52: Value = 0.0
    C54: Value = 0.0
    phi54: Value = 0.0
    C56: Value = 0.0
    phi56: Value = 0.0

    def __post_init__(self) -> None:
        for name in ABERRATION_NAMES:
            object.__setattr__(self, name, checked(getattr(self, name), name))
        check_batch(*self.values())

    def values(self) -> tuple[Value, ...]:
        """Return all coefficients in the order of :data:`ABERRATION_NAMES`."""
        return tuple(getattr(self, name) for name in ABERRATION_NAMES)

    @property
    def defocus(self) -> Value:
        """Defocus -C10 in Å, underfocus positive."""
        return -self.C10

    @classmethod
    def from_defocus(cls, defocus: Value, **coefficients: Value) -> Aberrations:
        """Return aberrations with C10 = -`defocus` (Å, underfocus positive) and the further coefficients."""
        return cls(C10=-checked(defocus, "defocus (Å)"), **coefficients)

    @classmethod
    def from_cartesian(cls, **coefficients: Value) -> Aberrations:
        r"""Return aberrations from Cartesian coefficients in Å.

        Round ones are given as `C10`, `C30`, `C50`, all others as a pair `Cnma`, `Cnmb`:

        .. math:: C_{nm} \cos m(\phi - \phi_{nm}) = C_{nma} \cos m\phi + C_{nmb} \sin m\phi

        after O. L. Krivanek et al., Ultramicroscopy 78 (1999) 1. The pairs of abTEM's own conversion,
        which ends at third order, are in terms of ours (-a, b) for C12 and C32, (b, a) for C21,
        (-b, a) for C23 and (a, b) for C34. A pair of tensors that vanishes is moved by 1e-12 Å, so that
        its gradient is right and not NaN.

        Raises
        ------
        InputError
            For an unknown name or a value that is no finite real number.
        """
        unknown = set(coefficients) - set(CARTESIAN_NAMES)
        if unknown:
            raise InputError(f"unknown coefficient {min(unknown)!r}: use {', '.join(CARTESIAN_NAMES)}")
        given = {name: checked(value, name) for name, value in coefficients.items()}
        polar: dict[str, Value] = {}
        for n, m in _ORDERS:
            name = f"C{n}{m}"
            if m == 0:
                polar[name] = given.get(name, 0.0)
            elif f"{name}a" in given or f"{name}b" in given:
                pair = given.get(f"{name}a", 0.0), given.get(f"{name}b", 0.0)
                polar[name], polar[f"phi{n}{m}"] = _to_polar(*pair, m)
        return cls(**polar)

    def to_cartesian(self) -> dict[str, Value]:
        """Return all Cartesian coefficients in Å, as defined in :meth:`from_cartesian`."""
        cartesian: dict[str, Value] = {}
        for n, m in _ORDERS:
            name = f"C{n}{m}"
            if m == 0:
                cartesian[name] = getattr(self, name)
            else:
                pair = _to_cartesian(getattr(self, name), getattr(self, f"phi{n}{m}"), m)
                cartesian[f"{name}a"], cartesian[f"{name}b"] = pair
        return cartesian


ABERRATION_NAMES = tuple(field.name for field in dataclasses.fields(Aberrations))


def _to_polar(a: Value, b: Value, m: int) -> tuple[Value, Value]:
    """Return magnitude and azimuth of a cos mφ + b sin mφ."""
    if isinstance(a, Tensor):
        like = a
    elif isinstance(b, Tensor):
        like = b
    else:
        return math.hypot(a, b), math.atan2(b, a) / m
    a, b = (v if isinstance(v, Tensor) else torch.as_tensor(v).to(like) for v in (a, b))
    check_batch(a, b)
    a = torch.where((a == 0) & (b == 0), a + _TINY, a)
    return torch.hypot(a, b), torch.atan2(b, a) / m


def _to_cartesian(magnitude: Value, azimuth: Value, m: int) -> tuple[Value, Value]:
    """Return (a, b) with C cos m(φ - φ0) = a cos mφ + b sin mφ."""
    if isinstance(azimuth, Tensor):
        return magnitude * torch.cos(m * azimuth), magnitude * torch.sin(m * azimuth)
    return magnitude * math.cos(m * azimuth), magnitude * math.sin(m * azimuth)


def aberration_phase(ky: Tensor, kx: Tensor, *, energy: Value, aberrations: Aberrations) -> Tensor:
    r"""Return the aberration phase χ at given spatial frequencies, as in :class:`Aberrations`.

    Parameters
    ----------
    ky, kx : Tensor
        Spatial frequencies, 1/Å, broadcasting to (y, x), as from :func:`frequency_grid`; a beam tilted by
        τ adds τ/λ. α = λ |k|, φ = atan2(ky, kx). Their dtype is that of the result.
    energy : float or Tensor
        Beam energy, eV.
    aberrations : Aberrations
        Coefficients in Å and rad.

    Returns
    -------
    Tensor
        χ in rad, shape (\*batch, y, x). The lens multiplies the spectrum by exp(-iχ).

    Raises
    ------
    InputError
        If the energy is not positive or batch shapes do not broadcast.
    """
    energy = checked(energy, "beam energy (eV)", positive=True)
    check_batch(energy, *aberrations.values())
    return phase_of(ky, kx, wavelength(on_grid(energy, ky)), aberrations)


def aberration_gradient(
    ky: Tensor, kx: Tensor, *, energy: Value, aberrations: Aberrations
) -> tuple[Tensor, Tensor]:
    """Return the gradient of χ with respect to the angles (αy, αx) = λ (ky, kx).

    Parameters and errors as :func:`aberration_phase`.

    Returns
    -------
    gy, gx : Tensor
        Radial and azimuthal slopes together, rad per rad, shape (*batch, y, x). λ/2π times them, in Å,
        is how far a wave packet at that angle moves along (y, x) in the image.
    """
    energy = checked(energy, "beam energy (eV)", positive=True)
    check_batch(energy, *aberrations.values())
    return gradient_of(ky, kx, wavelength(on_grid(energy, ky)), aberrations)


def _terms(lam: Tensor, aberrations: Aberrations) -> list[tuple[int, int, Tensor, Tensor]]:
    """Return (m, p, a, b) with χ = Σ k^2p (a Re w^m + b Im w^m), w = kx + i ky, n + 1 = m + 2p."""
    terms = []
    for n, m in _ORDERS:
        magnitude: Value = getattr(aberrations, f"C{n}{m}")
        if is_zero(magnitude):
            continue
        azimuth: Value = getattr(aberrations, f"phi{n}{m}") if m else 0.0
        scale = 2.0 * math.pi * lam**n / (n + 1)
        a, b = _to_cartesian(on_grid(magnitude, lam), on_grid(azimuth, lam), m)
        terms.append((m, (n + 1 - m) // 2, scale * a, scale * b))
    return terms


def _powers(ky: Tensor, kx: Tensor, highest: int) -> list[Tensor]:
    """Return the powers 0 to `highest` of kx + i ky: polynomials, so smooth in k also at the origin."""
    zero = torch.zeros_like(ky + kx)
    w = torch.complex(kx + zero, ky + zero)
    powers = [torch.ones_like(w)]
    for _ in range(highest):
        powers.append(powers[-1] * w)
    return powers


def phase_of(ky: Tensor, kx: Tensor, lam: Tensor, aberrations: Aberrations) -> Tensor:
    """Return χ for a wavelength (Å) of shape (*batch, 1, 1)."""
    terms = _terms(lam, aberrations)
    powers = _powers(ky, kx, max((m for m, *_ in terms), default=0))
    k2 = ky**2 + kx**2
    chi = torch.zeros_like(k2)
    for m, p, a, b in terms:
        chi = chi + a * (k2**p * powers[m].real)
        if m:
            chi = chi + b * (k2**p * powers[m].imag)
    return chi


def gradient_of(ky: Tensor, kx: Tensor, lam: Tensor, aberrations: Aberrations) -> tuple[Tensor, Tensor]:
    """Return the gradient of χ for a wavelength (Å) of shape (*batch, 1, 1)."""
    terms = _terms(lam, aberrations)
    powers = _powers(ky, kx, max((m for m, *_ in terms), default=0))
    k2 = ky**2 + kx**2
    gy = gx = torch.zeros_like(k2)
    for m, p, a, b in terms:
        # With c = a - ib, d/dkx + i d/dky of k^2p Re(c w^m) is
        # 2p k^(2p-2) Re(c w^m) w + m k^2p conj(c w^(m-1)).
        if p:
            slope = 2 * p * k2 ** (p - 1) * (a * powers[m].real + b * powers[m].imag)
            gy, gx = gy + slope * ky, gx + slope * kx
        if m:
            lower = k2**p * powers[m - 1]
            gx = gx + m * (a * lower.real + b * lower.imag)
            gy = gy + m * (b * lower.real - a * lower.imag)
    return gy / lam, gx / lam
