r"""Direct ptychography: the phase of a weak object from the bright field of a 4D-STEM scan, in one step.

With P = A exp(-iχ) the aperture, the spectrum over the scan of the bright-field image at k is, for a weak
object exp(iφ - μ) and to first order,

.. math:: G(Q, k) = i φ(Q) (T_- - T_+) - μ(Q) (T_- + T_+), \qquad
    T_- = P(k - Q) P^*(k), \quad T_+ = P(k) P^*(k + Q)

(Rodenburg & Bates 1992; Pennycook et al., Ultramicroscopy 151, 160 (2015)). It is solved for φ at each Q by
least squares over k, which for a lens in focus is the sum of the single side bands. Where the scan is coarser
than the band of 2α/λ, several Q come as one; defocus makes their patterns over k differ, so they are solved
for together (cf. Varnavides et al., Elemental Microscopy (2025), who sum and do not solve).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from exitwave.errors import InputError
from exitwave.optics import wavelength
from exitwave.optics.aberrations import Aberrations, aberration_phase
from exitwave.optics.grids import checked, frequency_grid, sampling_pair
from exitwave.retrieve.scan_orientation import Orientation

Overlaps = Literal["all", "single"]

_AT_ONCE = 2**21  # values of a block
_FITTED = 800  # frequencies that a fit of aberrations looks at
_SOFT = 0.03
_DEFAULT = Orientation()


@dataclass(frozen=True, eq=False)
class Lens:
    """What the bright-field images were taken with.

    Attributes
    ----------
    energy : float
        eV.
    semiangle : float
        Half angle of the aperture, rad.
    aberrations : Aberrations
        Of the probe, along the axes of the scan.
    orientation : Orientation
        Of the detector against the scan.
    edge : float
        Width of the aperture's edge, rad: λ times the detector's pixel for whole pixels of a sharp one.
    """

    energy: float
    semiangle: float
    aberrations: Aberrations = Aberrations()  # noqa: RUF009  (frozen)
    orientation: Orientation = _DEFAULT
    edge: float = 0.0

    def __post_init__(self) -> None:
        checked(self.energy, "beam energy (eV)", positive=True)
        checked(self.semiangle, "aperture half angle (rad)", positive=True)
        checked(self.edge, "edge of the aperture (rad)", least=0.0)

    def side_bands(self, k: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
        """Return T- and T+, shape (pixel, frequency), complex128, at k (pixel, 2) and Q (frequency, 2).

        The pixels count as within the aperture, and both are along the axes of the scan.
        """
        here = self._chi(k)[:, None]
        below, above = k[:, None] - q, k[:, None] + q
        return (
            torch.polar(self._transmission(below), here - self._chi(below)),
            torch.polar(self._transmission(above), self._chi(above) - here),
        )

    def _chi(self, k: Tensor) -> Tensor:
        flat = k.reshape(-1, 2)
        ky, kx = flat.unbind(-1)
        found: Tensor = aberration_phase(ky, kx, energy=self.energy, aberrations=self.aberrations)
        return found.reshape(k.shape[:-1])

    def _transmission(self, k: Tensor) -> Tensor:
        inner = self.semiangle - torch.linalg.vector_norm(k, dim=-1) * wavelength(self.energy)
        if not self.edge:
            return torch.as_tensor(inner >= 0, dtype=k.dtype)
        return torch.as_tensor(inner / self.edge + 0.5).clamp(0, 1)


@dataclass(frozen=True, eq=False)
class DirectPhase:
    """A phase retrieved in one step.

    Attributes
    ----------
    phase : Tensor, shape (y, x), float64
        rad, of mean 0.
    absorption : Tensor, shape (y, x), float64, or None
        μ of exp(iφ - μ), of mean 0, if it was asked for.
    sampling : (float, float)
        Å.
    transfer : Tensor, shape (y, x), float64
        FFT order: the mean over the pixels of the squared transfer of the phase, 0 to 4. Noise in the
        spectrum of the phase goes as one over its root; where it is near 0, nothing was seen.
    """

    phase: Tensor
    absorption: Tensor | None
    sampling: tuple[float, float]
    transfer: Tensor


def retrieve_phase(
    stack: Tensor, frequencies: Tensor, step: float | tuple[float, float], lens: Lens, *,
    pixels: Tensor | None = None, overlaps: Overlaps = "all", upsampling: int = 1, absorption: bool = False,
    regularisation: float = 1e-3,
) -> DirectPhase:  # fmt: skip
    """Return the phase of a weak object from bright-field images.

    Parameters
    ----------
    stack : Tensor, shape (pixel, scan_y, scan_x), real
        Bright-field images, as :func:`exitwave.retrieve.bright_field.gather` keeps them. The scan counts as
        periodic.
    frequencies : Tensor, shape (pixel, 2)
        (ky, kx) along the detector's axes, 1/Å, all within the aperture.
    step : float or (float, float)
        Of the scan, Å.
    lens : Lens
        Energy, aperture, aberrations, and how the detector lies against the scan.
    pixels : Tensor, shape (pixel,), optional
        Weights: how many pixels of the detector each image is the mean of.
    overlaps : {"all", "single"}
        Whether both side bands are used where they meet, or only where there is one of them; in focus they
        cancel there.
    upsampling : int
        Pixels of the phase per step of the scan and axis.
    absorption : bool
        Whether to solve for the absorption besides.
    regularisation : float
        Added to the squared transfer, of its largest value; what is far below it is not amplified.

    Raises
    ------
    InputError
        For shapes that do not match, images without electrons or frequencies outside the aperture.
    """
    k, spectra, weights = prepared(stack, frequencies, lens, pixels)
    if upsampling < 1 or not regularisation > 0:
        raise InputError(
            f"upsampling {upsampling} and regularisation {regularisation:g}: give 1 or more, and above 0"
        )
    dy, dx = sampling_pair(step)
    rows, columns = int(stack.shape[1]), int(stack.shape[2])
    fine = rows * upsampling, columns * upsampling
    sampling = dy / upsampling, dx / upsampling
    q = frequencies_of(fine, sampling)
    # (frequency of the scan, alias, 2): all that a scan of this step takes for one frequency.
    q = _by_alias(q, upsampling)
    solved, squares = _solve(k, spectra.flatten(1), weights, q, lens, overlaps, absorption, regularisation)
    solved = solved * upsampling**2
    back = [_from_alias(part, upsampling, (rows, columns)) for part in solved]
    images = [torch.fft.ifft2(part).real for part in back]
    return DirectPhase(
        images[0], images[1] if absorption else None, sampling,
        _from_alias(squares, upsampling, (rows, columns)),
    )  # fmt: skip


def fit_aberrations(
    stack: Tensor, frequencies: Tensor, step: float | tuple[float, float], lens: Lens, *,
    pixels: Tensor | None = None, free: Sequence[str] = ("C10", "C12a", "C12b", "rotation"),
) -> tuple[Lens, float]:  # fmt: skip
    """Return a lens whose aberrations and rotation explain more of bright-field images.

    Starts from `lens`, as :func:`exitwave.retrieve.parallax.retrieve_parallax` finds it, and climbs to the
    next maximum of the share of the images' power that a weak object of any phase and absorption explains.

    Parameters
    ----------
    stack, frequencies, step, lens, pixels
        As for :func:`retrieve_phase`.
    free : sequence of str
        Cartesian aberrations (Å), and "rotation".

    Returns
    -------
    lens : Lens
    share : float
        Of the power at the strongest frequencies, 0 to 1.

    Raises
    ------
    InputError
        As :func:`retrieve_phase`, and for an unknown name.
    """
    k, spectra, weights = prepared(stack, frequencies, lens, pixels)
    q = frequencies_of((int(stack.shape[1]), int(stack.shape[2])), step).reshape(-1, 2)
    values = spectra.flatten(1)
    power = (weights[:, None] * values.abs().square()).sum(0)
    half = (q[:, 0] > 0) | ((q[:, 0] == 0) & (q[:, 1] > 0))  # the other half says the same
    chosen = torch.where(half, power, -torch.ones_like(power)).topk(min(_FITTED, int(half.sum()))).indices
    q, values, power = q[chosen], values[:, chosen], power[chosen].sum()
    start = lens.aberrations.to_cartesian()
    unknown = [name for name in free if name not in start and name != "rotation"]
    if unknown:
        raise InputError(f"unknown aberration {unknown[0]!r}: use {', '.join(start)} or 'rotation'")
    edge = max(lens.edge, _SOFT * lens.semiangle)  # a sharp one has no gradient
    # What turns the phase by about 1 rad at the edge of the aperture.
    units = [_unit(name, lens) for name in free]

    def changed(x: Tensor) -> tuple[Aberrations, Tensor]:
        moved = {name: one * unit for name, one, unit in zip(free, x, units, strict=True)}
        angle = moved.pop("rotation", torch.zeros((), dtype=torch.float64))
        given = {name: start[name] + moved.get(name, 0.0) for name in start}
        return Aberrations.from_cartesian(**given), angle

    def missing(x: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> tuple[float, object]:
        at = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        aberrations, angle = changed(at)
        c, s = torch.cos(angle), torch.sin(angle)
        turned = torch.stack([c * k[:, 0] + s * k[:, 1], c * k[:, 1] - s * k[:, 0]], -1)
        model = Lens(lens.energy, lens.semiangle, aberrations, lens.orientation, edge)
        loss = 1 - _explained(turned, values, weights, q, model) / power
        (slope,) = torch.autograd.grad(loss, at)
        return float(loss.detach()), slope.numpy()

    found = minimize(missing, np.zeros(len(free)), jac=True, method="L-BFGS-B", options={"maxiter": 40})
    with torch.no_grad():
        aberrations, angle = changed(torch.tensor(found.x))
    plain = {name: float(value) for name, value in aberrations.to_cartesian().items()}
    orientation = Orientation(lens.orientation.rotation + float(angle), lens.orientation.transposed)
    best = Aberrations.from_cartesian(**{name: value for name, value in plain.items() if abs(value) > 1e-9})
    return Lens(lens.energy, lens.semiangle, best, orientation, lens.edge), 1 - float(found.fun)


def prepared(
    stack: Tensor, frequencies: Tensor, lens: Lens, pixels: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return frequencies along the scan's axes, spectra of the images over their means, and weights.

    Raises
    ------
    InputError
        For shapes that do not match, images without electrons or frequencies outside the aperture.
    """
    if stack.ndim != 3 or stack.is_complex() or tuple(frequencies.shape) != (len(stack), 2):
        raise InputError(
            f"images of shape {tuple(stack.shape)} at frequencies of {tuple(frequencies.shape)}: give "
            "(pixel, scan_y, scan_x) and (pixel, 2)"
        )
    k = lens.orientation.turned(frequencies.double())
    far = float(torch.linalg.vector_norm(k, dim=1).max()) * wavelength(lens.energy)
    if far > lens.semiangle + lens.edge:
        raise InputError(
            f"a pixel at {1e3 * far:.3g} mrad is outside the aperture of {1e3 * lens.semiangle:.3g}: check "
            "the scale of the detector"
        )
    images = stack.double()
    means = images.mean((1, 2))
    usable = means.isfinite() & (means > 0)
    if not bool(usable.all()):
        bad = int((~usable).nonzero()[0])
        raise InputError(f"bright-field image {bad} holds no electrons or no numbers: leave its pixels out")
    weights = torch.ones(len(k)) if pixels is None else pixels
    if tuple(weights.shape) != (len(k),):
        raise InputError(f"weights of shape {tuple(weights.shape)}: give one for each of {len(k)} images")
    weights = weights.double() / weights.double().sum()
    return k, torch.fft.fft2(images / means[:, None, None] - 1), weights


def frequencies_of(shape: tuple[int, int], step: float | tuple[float, float]) -> Tensor:
    """Return the frequencies (ky, kx) of a grid in FFT order, shape (y, x, 2), 1/Å."""
    ky, kx = frequency_grid(shape, step)
    return torch.stack([ky.expand(shape), kx.expand(shape)], -1)


def _unit(name: str, lens: Lens) -> float:
    if name == "rotation":
        return 0.02
    order = int(name[1])
    return wavelength(lens.energy) / (2 * np.pi) * (order + 1) / lens.semiangle ** (order + 1)


def _explained(k: Tensor, values: Tensor, weights: Tensor, q: Tensor, lens: Lens) -> Tensor:
    """Return the power within the span of both side bands."""
    bands = torch.stack(lens.side_bands(k, q), -1)  # (pixel, frequency, 2)
    normal = torch.einsum("p,pqa,pqb->qab", weights.to(bands.dtype), bands.conj(), bands)
    right = torch.einsum("p,pqa,pq->qa", weights.to(bands.dtype), bands.conj(), values)
    ridge = 1e-3 * torch.eye(2, dtype=normal.dtype)
    solved = torch.linalg.solve(normal + ridge, right[..., None])[..., 0]
    found: Tensor = (solved.conj() * right).real.sum()
    return found


def _by_alias(values: Tensor, factor: int) -> Tensor:
    rows, columns = values.shape[0] // factor, values.shape[1] // factor
    parts = values.reshape(factor, rows, factor, columns, *values.shape[2:])
    return parts.transpose(1, 2).flatten(0, 1).flatten(1, 2).transpose(0, 1)


def _from_alias(values: Tensor, factor: int, scan: tuple[int, int]) -> Tensor:
    parts = values.transpose(0, 1).reshape(factor, factor, *scan)
    return parts.transpose(1, 2).reshape(factor * scan[0], factor * scan[1])


def _solve(
    k: Tensor, values: Tensor, weights: Tensor, q: Tensor, lens: Lens, overlaps: Overlaps, absorption: bool,
    regularisation: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return unknowns (part, frequency, alias), and the squared transfer of the phase (frequency, alias)."""
    count, aliases = q.shape[0], q.shape[1]
    parts = 2 if absorption else 1
    solved = torch.zeros(parts, count, aliases, dtype=torch.complex128)
    squares = torch.zeros(count, aliases, dtype=torch.float64)
    # In focus Σ w |T- - T+|² is at most about 2, out of focus 4: one ridge for all frequencies.
    ridge = 2 * regularisation * torch.eye(parts * aliases, dtype=torch.complex128)
    for some in torch.split(torch.arange(count), max(1, _AT_ONCE // (len(k) * aliases))):
        below, above = lens.side_bands(k, q[some].reshape(-1, 2))
        if overlaps == "single":
            alone = (below.abs() > 0) ^ (above.abs() > 0)
            below, above = below * alone, above * alone
        bands = [1j * (below - above), -(below + above)][:parts]
        model = torch.stack([each.reshape(len(k), len(some), aliases) for each in bands], 2).flatten(2)
        weighted = model.conj() * weights[:, None, None]
        normal = torch.einsum("pqa,pqb->qab", weighted, model)
        right = torch.einsum("pqa,pq->qa", weighted, values[:, some])
        found = torch.linalg.solve(normal + ridge, right[..., None])[..., 0]
        solved[:, some] = found.reshape(len(some), parts, aliases).transpose(0, 1)
        squares[some] = normal.diagonal(dim1=1, dim2=2).real[:, :aliases]
    return solved, squares
