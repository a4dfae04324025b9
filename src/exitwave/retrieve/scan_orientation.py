"""How the detector of a 4D-STEM scan lies against the scan: rotation and handedness.

The centre of mass of a pure phase object is a gradient, and a gradient has no curl. Turned by any other
angle, or seen in a mirror, it has one (Savitzky et al., Microsc. Microanal. 27, 712 (2021)). Turned by 180°
it has none: the phase then has the other sign, and only what the phase must look like tells the two apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from exitwave.errors import InputError
from exitwave.optics.grids import frequency_grid, sampling_pair
from exitwave.retrieve.scan_images import integrate

_CLEAR_SKEWNESS = 0.5  # of a phase whose peaks are all on one side
_CLEAR_CORRELATION = 0.2  # of a phase with an image that must grow with it
_APART = 0.1  # of the curl of the other handedness
_SMOOTH = 1.0  # positions, the deviation of the Gaussian whose derivatives are taken
_REACH = 4  # positions on which it is
_LONGEST = 0.5  # of the smaller side of the scan: what changes more slowly is drift, not the object


@dataclass(frozen=True)
class Orientation:
    """What turns vectors along the detector's axes into vectors along those of the scan.

    Attributes
    ----------
    rotation : float
        rad, from +x to +y.
    transposed : bool
        Whether y and x are exchanged before the rotation, as where one of the axes runs backwards.
    """

    rotation: float = 0.0
    transposed: bool = False

    def __post_init__(self) -> None:
        if not math.isfinite(self.rotation):
            raise InputError(f"rotation of {self.rotation}: give an angle in rad")

    def matrix(self) -> Tensor:
        """Return the matrix, shape (2, 2), float64, for columns (y, x)."""
        c, s = math.cos(self.rotation), math.sin(self.rotation)
        turn = torch.tensor([[c, s], [-s, c]], dtype=torch.float64)
        return turn.flip(1) if self.transposed else turn

    def turned(self, vectors: Tensor) -> Tensor:
        """Return vectors (..., 2), y and x, along the axes of the scan."""
        return vectors @ self.matrix().T.to(vectors)

    def opposite(self) -> Orientation:
        """Return the one that is turned by another 180°."""
        return Orientation(_wrapped(self.rotation + math.pi), self.transposed)


@dataclass(frozen=True)
class Candidate:
    """An orientation and how well it fits.

    Attributes
    ----------
    orientation : Orientation
    curl : float
        Of the squares of curl and divergence the curl's share: near 0 where it fits, near 1/2 for noise and
        for the wrong handedness.
    sign : float
        What tells it from its opposite, which has the other sign: the correlation of the phase with the
        reference, or without one the skewness of the phase. Above 0 fits.
    sure : bool
        Whether both are beyond what noise makes.
    """

    orientation: Orientation
    curl: float
    sign: float
    sure: bool


def rank(
    centres: Tensor, step: float | tuple[float, float], *, reference: Tensor | None = None,
    right_angles: bool = False,
) -> tuple[Candidate, ...]:  # fmt: skip
    """Return orientations of the detector against the scan, the best one first.

    Parameters
    ----------
    centres : Tensor, shape (scan_y, scan_x, 2)
        Centres of mass along the detector's axes, 1/Å.
    step : float or (float, float)
        Of the scan, Å.
    reference : Tensor, shape (scan_y, scan_x), optional
        An image that grows with the phase, as the electrons scattered out of the bright disk do. Without one
        atoms are taken to be peaks of the phase, few and sharp.
    right_angles : bool
        Whether to compare the eight ways to transpose and flip a pattern only; otherwise the best angle of
        either handedness, and its opposite.

    Raises
    ------
    InputError
        For another shape, values that are not finite or all equal, or fewer than 16 positions along an axis.
    """
    _check(centres)
    found = []
    for transposed in (False, True):
        values = (centres.flip(-1) if transposed else centres).double()
        curl, divergence = _derivatives(values)
        # Neighbours share the Gaussian: so many values are independent.
        count = curl.numel() / (4 * math.pi * _SMOOTH**2)
        angles = [n * math.pi / 2 for n in range(4)] if right_angles else _best(curl, divergence)
        for angle in angles:
            one = Orientation(_wrapped(angle), transposed)
            share = _share(curl, divergence, angle)
            sign, clear = _sign(one.turned(centres.double()), step, reference)
            # Noise has equal parts but for 1/(2√n), of which the best angle takes the most.
            sure = clear and share < 0.5 - 3 / (2 * math.sqrt(count))
            found.append(Candidate(one, share, sign, sure))
    return tuple(sorted(found, key=lambda one: (round(one.curl, 9), -one.sign)))


def curl_share(centres: Tensor) -> float:
    """Return the curl's share of the squares of curl and divergence of centres of mass.

    Parameters
    ----------
    centres : Tensor, shape (scan_y, scan_x, 2)
        Along the axes of the scan.

    Raises
    ------
    InputError
        As :func:`rank`.
    """
    _check(centres)
    return _share(*_derivatives(centres.double()), 0.0)


def told(candidates: tuple[Candidate, ...]) -> bool:
    """Return whether the best orientation is told from those of the other handedness, and so from noise."""
    return _other(candidates) - candidates[0].curl >= _APART


def line(candidates: tuple[Candidate, ...]) -> str:
    """Return a line that says which orientation fits best, and how surely."""
    best = candidates[0]
    angle = f"{math.degrees(best.orientation.rotation):.1f}°"
    flipped = "with its axes exchanged, then " if best.orientation.transposed else ""
    end = (
        "the sign of the phase excludes the opposite angle"
        if best.sure
        else "whether it is that or 180° from it is not clear: give a reference, such as a dark field, "
        "or the rotation"
    )
    if not told(candidates):
        end = (
            f"too near {_other(candidates):.2f} for the other handedness: record more electrons, or an "
            "object with edges"
        )
    return f"the detector is {flipped}turned by {angle} against the scan; curl {best.curl:.2f} of all; {end}"


def _other(candidates: tuple[Candidate, ...]) -> float:
    handed = candidates[0].orientation.transposed
    return min((each.curl for each in candidates if each.orientation.transposed != handed), default=0.5)


def _share(curl: Tensor, divergence: Tensor, angle: float) -> float:
    """Return the curl's share in vectors that are turned: so has any pair of vectors its parts turned."""
    turned = math.cos(angle) * curl + math.sin(angle) * divergence
    return float(turned.square().sum() / (curl.square() + divergence.square()).sum())


def _check(centres: Tensor) -> None:
    if centres.ndim != 3 or centres.shape[-1] != 2 or min(centres.shape[:2]) < 4 * _REACH:
        raise InputError(
            f"centres of mass of shape {tuple(centres.shape)}: give (scan_y, scan_x, 2), {4 * _REACH} "
            "positions or more a side"
        )
    if not bool(centres.isfinite().all()) or float(centres.double().std((0, 1)).max()) == 0:
        raise InputError("centres of mass are not finite, or all equal: mask dead pixels, check the file")


def _derivatives(centres: Tensor) -> tuple[Tensor, Tensor]:
    """Return curl and divergence of centres of mass, by derivatives of a Gaussian, away from the borders."""
    line = torch.arange(-_REACH, _REACH + 1, dtype=torch.float64)
    bell = torch.exp(-(line**2) / (2 * _SMOOTH**2))
    bell = bell / bell.sum()
    slope = line * bell / _SMOOTH**2  # a correlation: the slope of what it meets
    kernels = torch.stack([slope[:, None] * bell, bell[:, None] * slope])[:, None]
    parts = torch.nn.functional.conv2d(centres.permute(2, 0, 1)[:, None], kernels)
    (yy, yx), (xy, xx) = parts
    return yx - xy, yy + xx


def _window(shape: tuple[int, int]) -> Tensor:
    y, x = (torch.hann_window(n + 2, periodic=False, dtype=torch.float64)[1:-1] for n in shape)
    return y[:, None] * x


def _best(curl: Tensor, divergence: Tensor) -> list[float]:
    """Return the two angles at which (c · curl + s · divergence)² is least in the sum."""
    mixed = float((curl * divergence).sum())
    angle = 0.5 * math.atan2(-2 * mixed, float(divergence.square().sum() - curl.square().sum()))
    return [angle, angle + math.pi]


def _sign(centres: Tensor, step: float | tuple[float, float], reference: Tensor | None) -> tuple[float, bool]:
    """Return a number above 0 if the phase has the right sign, and whether it is large enough to tell."""
    shape = (centres.shape[0], centres.shape[1])
    window = _window(shape)
    ky, kx = frequency_grid(shape, step)
    size = torch.hypot(ky, kx)
    extent = min(n * d for n, d in zip(shape, sampling_pair(step), strict=True))
    passed = size > 1 / (_LONGEST * extent)
    phase = integrate((centres - centres.mean((0, 1))) * window[..., None], step)
    phase = torch.fft.ifft2(torch.fft.fft2(phase) * passed).real
    if reference is None:
        skewness = float((phase**3).mean() / phase.square().mean() ** 1.5)
        return skewness, abs(skewness) > _CLEAR_SKEWNESS
    if tuple(reference.shape) != shape:
        raise InputError(f"a reference of shape {tuple(reference.shape)}: the scan has {shape}")
    image = (reference.double() - reference.double().mean()) * window
    image = torch.fft.ifft2(torch.fft.fft2(image) * passed).real
    both = float(phase.norm() * image.norm())
    correlation = float((phase * image).sum()) / both if both else 0.0
    return correlation, abs(correlation) > _CLEAR_CORRELATION


def _wrapped(angle: float) -> float:
    return math.remainder(angle, 2 * math.pi)
