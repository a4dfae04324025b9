"""Tilt-corrected bright field: the images that single detector pixels see, shifted onto each other.

A pixel at k sees the specimen by a beam tilted by λk, so that a defocused probe displaces its image by
-∇χ(k)/2π, λ Δf k for a defocus Δf (underfocus positive). The displacements tell defocus, astigmatism and how
the detector lies against the scan; the sum of the images shifted back is the bright-field image of all
electrons, with the transfer 2 sin χ of a phase, and finer than the scan where displacements are fractions of
its steps (Spoth et al., Microsc. Microanal. 23 (S1), 2017; Varnavides et al., arXiv:2309.05250).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from exitwave.errors import InputError
from exitwave.optics import wavelength
from exitwave.optics.aberrations import Aberrations, aberration_gradient, aberration_phase
from exitwave.optics.grids import frequency_grid, sampling_pair
from exitwave.retrieve.scan_orientation import Orientation
from exitwave.retrieve.single_side_band import Lens, fit_aberrations, frequencies_of, prepared

Correction = Literal["none", "flip", "wiener"]

GROUPS = (40, 150, 600)  # of pixels, from coarse to fine
_SEARCHED = 600  # frequencies that the search from nothing looks at
_FURTHEST = 0.25  # of the smaller side of the scan: the largest displacement that is searched
_MOST = 24  # steps of the search to either side
_NEAR = 3.0  # scan steps from where a displacement is expected, in which it is looked for
_NEWTON = 6
_POLISHED = 250  # images that the polish looks at
_FLOOR = 0.1  # of the squared transfer that is divided by
_BLUR = 0.6  # pixels of the result
_THIN = 1e-3  # of the most samples per area; where there are fewer the image is 0


@dataclass(frozen=True, eq=False)
class Parallax:
    """An aligned bright-field image and what aligned it.

    Attributes
    ----------
    image : Tensor, shape (y, x), float64
        Relative to its mean, which is 0: contrast, or with "wiener" the phase in rad. Its first pixel is at
        the first position of the scan.
    sampling : (float, float)
        Å.
    lens : Lens
        With the aberrations C10 and C12 of the probe and the orientation of the detector.
    shifts : Tensor, shape (group, 2), float64
        Measured displacements (y, x), Å.
    frequencies : Tensor, shape (group, 2), float64
        Of the groups of pixels along the detector's axes, 1/Å.
    residual : float
        Root mean square of what the aberrations leave of the displacements, along an axis, Å.
    """

    image: Tensor
    sampling: tuple[float, float]
    lens: Lens
    shifts: Tensor
    frequencies: Tensor
    residual: float

    @property
    def defocus(self) -> float:
        """Å, underfocus positive."""
        return float(self.lens.aberrations.defocus)


def retrieve_parallax(
    stack: Tensor, frequencies: Tensor, step: float | tuple[float, float], *, energy: float, semiangle: float,
    pixels: Tensor | None = None, underfocus: bool = True, near: Orientation | None = None,
    groups: Sequence[int] = GROUPS, polish: bool = True, edge: float = 0.0, upsampling: int = 1,
    correction: Correction = "flip",
) -> Parallax:  # fmt: skip
    """Return the aligned bright-field image and the lens that aligned it, from no start value.

    Parameters
    ----------
    stack, frequencies, step, pixels
        As for :func:`exitwave.retrieve.single_side_band.retrieve_phase`; the scan need not be periodic.
    energy, semiangle : float
        eV and rad.
    underfocus : bool
        Displacements do not tell a defocus from its negative with the detector turned by 180°: which of
        the two it is.
    near : Orientation, optional
        As the centres of mass give it: the solution nearest to its rotation is taken, of either defocus.
    groups : sequence of int
        Numbers of groups of neighbouring pixels to measure, from coarse to fine.
    polish : bool
        Whether to go on with :func:`exitwave.retrieve.single_side_band.fit_aberrations`. Where the aperture
        cuts one of the two side bands an image is no shifted copy of the mean, so that displacements alone
        err by some per cent of the defocus, most for small ones.
    edge : float
        Of the aperture, see :class:`exitwave.retrieve.single_side_band.Lens`.
    upsampling : int
        Pixels of the image per step of the scan and axis.
    correction : {"none", "flip", "wiener"}
        Nothing; frequencies that the lens has turned over turned back, so that phase peaks are bright; or
        divided by the transfer of a phase, rad.

    Raises
    ------
    InputError
        For shapes that do not match, or displacements too small to measure, as in focus.
    """
    start = Lens(energy, semiangle)
    if correction not in ("none", "flip", "wiener") or upsampling < 1 or not groups:
        raise InputError(
            f"correction {correction!r}, upsampling {upsampling}, groups {tuple(groups)}: give 'none', "
            "'flip' or 'wiener', 1 or more, and at least one number"
        )
    if stack.ndim == 3 and min(stack.shape[1:]) < 8:
        raise InputError(f"a scan of {tuple(stack.shape[1:])}: give 8 positions or more a side")
    k, spectra, weights = prepared(stack, frequencies, start, pixels)
    q = frequencies_of((int(stack.shape[1]), int(stack.shape[2])), step)
    matrix = _search(*_aligned(k, spectra, weights, torch.zeros(2, 2), q, groups[0], step), q, step)
    for most in groups:
        middles, merged, mass = _aligned(k, spectra, weights, matrix, q, most, step)
        shifts = middles @ matrix.T + _measured(merged, mass, q, step)
        matrix, residual = _fitted(middles, shifts, mass)
    aberrations, orientation = lens_of(matrix, energy, underfocus=underfocus, near=near)
    lens = Lens(energy, semiangle, aberrations, orientation, edge)
    if polish:
        some = torch.arange(0, len(k), max(1, len(k) // _POLISHED))
        lens, _ = fit_aberrations(stack[some], frequencies[some], step, lens, pixels=weights[some])
    apart = shifts - displacements(middles, lens)
    offset, residual = _robust(torch.ones(len(apart), 1, dtype=torch.float64), apart, mass)
    moved = displacements(frequencies, lens)
    _check_size(moved, residual, step)
    image = align(stack, moved, step, weights=weights, upsampling=upsampling)
    dy, dx = sampling_pair(step)
    sampling = dy / upsampling, dx / upsampling
    image = corrected(image, sampling, lens, correction)
    return Parallax(image, sampling, lens, shifts - offset, middles, residual)


def displacements(frequencies: Tensor, lens: Lens) -> Tensor:
    """Return -∇χ/2π, (y, x) along the scan, Å, at frequencies (pixel, 2) along the axes of the detector."""
    k = lens.orientation.turned(frequencies.double())
    gradient = aberration_gradient(k[:, 0], k[:, 1], energy=lens.energy, aberrations=lens.aberrations)
    return -wavelength(lens.energy) / (2 * math.pi) * torch.stack([each.flatten() for each in gradient], -1)


def align(
    stack: Tensor, shifts: Tensor, step: float | tuple[float, float], *, weights: Tensor | None = None,
    upsampling: int = 1,
) -> Tensor:  # fmt: skip
    """Return the mean of bright-field images shifted back, shape (upsampling · scan_y, upsampling · scan_x).

    Each position of each image counts where its displacement puts it, through a Gaussian of 0.6 pixels of the
    result, over the number of positions that count there.

    Parameters
    ----------
    stack : Tensor, shape (pixel, scan_y, scan_x)
        Each is taken relative to its mean.
    shifts : Tensor, shape (pixel, 2)
        Displacements of the images, Å.
    step : float or (float, float)
        Of the scan, Å.
    weights : Tensor, shape (pixel,), optional
    upsampling : int

    Raises
    ------
    InputError
        If there is not one displacement per image.
    """
    if stack.ndim != 3 or tuple(shifts.shape) != (len(stack), 2):
        raise InputError(f"{len(stack)} images, displacements of {tuple(shifts.shape)}: give (pixel, 2)")
    steps = torch.tensor(sampling_pair(step), dtype=torch.float64)
    margin = [int(m) + 2 for m in (shifts / steps).abs().amax(0).ceil()]
    rows, columns = stack.shape[1] + 2 * margin[0], stack.shape[2] + 2 * margin[1]
    inner = (slice(margin[0], margin[0] + stack.shape[1]), slice(margin[1], margin[1] + stack.shape[2]))
    fine = (rows * upsampling, columns * upsampling)
    ky, kx = frequency_grid(fine, tuple((steps / upsampling).tolist()))
    squared = ((ky * steps[0]) ** 2 + (kx * steps[1]) ** 2) / upsampling**2
    blur = torch.exp(-2 * (math.pi * _BLUR) ** 2 * squared)
    # Positions at the border count less, lest steps ring.
    fade = [_taper(n, 0.0, 4.0) for n in stack.shape[1:]]
    share_of = fade[0][:, None] * fade[1]
    here = torch.zeros(rows, columns, dtype=torch.float64)
    here[inner] = share_of
    density, total = (torch.zeros(fine, dtype=torch.complex128) for _ in range(2))
    mask = torch.fft.fft2(here).repeat(upsampling, upsampling)
    shares = torch.ones(len(stack)) if weights is None else weights
    for image, (y, x), share in zip(stack, shifts.tolist(), shares.tolist(), strict=True):
        here[inner] = (image.double() / image.double().mean() - 1) * share_of
        back = torch.exp(2j * math.pi * ky * y) * torch.exp(2j * math.pi * kx * x) * share
        total += torch.fft.fft2(here).repeat(upsampling, upsampling) * back
        density += mask * back
    sums, counts = (torch.fft.ifft2(each * blur).real for each in (total, density))
    enough = counts > _THIN * counts.max()
    image = torch.where(enough, sums / counts.clamp_min(_THIN * float(counts.max())), torch.zeros_like(sums))
    first = margin[0] * upsampling, margin[1] * upsampling
    size = stack.shape[1] * upsampling, stack.shape[2] * upsampling
    return image[first[0] : first[0] + size[0], first[1] : first[1] + size[1]]


def lens_of(
    matrix: Tensor, energy: float, *, underfocus: bool = True, near: Orientation | None = None
) -> tuple[Aberrations, Orientation]:
    """Return aberrations C10, C12 and the orientation that displace pixels at k by a matrix times k.

    The matrix is -λ H R: R turns frequencies of the detector into those of the scan, and the symmetric λ H
    turns them into ∇χ/2π. Of a defocus larger than the astigmatism H has two eigenvalues of one sign, so
    that the polar decomposition gives R up to 180°, and its determinant tells a transposed detector.

    Parameters
    ----------
    matrix : Tensor, shape (2, 2)
        Å², for columns (y, x) of k along the detector's axes.
    energy : float
        eV.
    underfocus, near
        As for :func:`retrieve_parallax`.
    """
    transposed = bool(torch.linalg.det(matrix) < 0)
    plain = matrix.double().flip(1) if transposed else matrix.double()
    u, _, v = torch.linalg.svd(plain)
    turn = u @ v
    h = -plain @ turn.T / wavelength(energy)
    orientation = Orientation(math.atan2(float(turn[0, 1]), float(turn[0, 0])), transposed)
    c10 = float(h.trace()) / 2  # below 0, so underfocus
    # ∇(C12a (kx² - ky²)/2 + C12b kx ky) is (-C12a ky + C12b kx, C12a kx + C12b ky), y first.
    a, b = float(h[1, 1] - h[0, 0]) / 2, float(h[0, 1] + h[1, 0]) / 2
    opposite = not underfocus
    if near is not None:
        opposite = math.cos(orientation.rotation - near.rotation) < 0
    if opposite:
        c10, a, b, orientation = -c10, -a, -b, orientation.opposite()
    return Aberrations.from_cartesian(C10=c10, C12a=a, C12b=b), orientation


def _aligned(
    k: Tensor, spectra: Tensor, weights: Tensor, matrix: Tensor, q: Tensor, most: int,
    step: float | tuple[float, float],
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Return middles, mean spectra and weights of squares of pixels, their images shifted back and tapered.

    Tapered after the shift, so that the taper is no feature that stays where it is.
    """
    extent = float(k.abs().max()) or 1.0
    side = 2 * extent / max(1.0, math.sqrt(4 / math.pi * most))
    _, labels = torch.unique((k / side).round().long(), dim=0, return_inverse=True)
    if len(k) <= most:
        labels = torch.arange(len(k))
    count = int(labels.max()) + 1
    mass = torch.zeros(count, dtype=torch.float64).index_add_(0, labels, weights)
    middles = torch.zeros(count, 2, dtype=torch.float64).index_add_(0, labels, weights[:, None] * k)
    shifts = k @ matrix.double().T
    merged = torch.zeros(count, *q.shape[:2], dtype=torch.complex128)
    for some in torch.split(torch.arange(len(k)), 64):
        share = (weights[some] / mass[labels[some]])[:, None, None]
        merged.index_add_(0, labels[some], share * spectra[some] * _ramp(shifts[some], q))
    images = torch.fft.ifft2(merged).real
    tapers = [
        _taper(size, float(far) / one, size / 8)
        for size, far, one in zip(q.shape[:2], shifts.abs().amax(0), sampling_pair(step), strict=True)
    ]
    return middles / mass[:, None], torch.fft.fft2(images * tapers[0][:, None] * tapers[1]), mass


def _taper(size: int, margin: float, rise: float) -> Tensor:
    """Return a rise from 0 behind a margin at either end, pixels, to 1."""
    line = torch.arange(size, dtype=torch.float64) + 0.5
    inner = torch.minimum(line, size - line) - min(margin, size / 3)
    return torch.sin(math.pi / 2 * (inner / rise).clamp(0, 1)).square()


def _ramp(shifts: Tensor, q: Tensor) -> Tensor:
    """Return what shifts back images displaced by shifts (image, 2), at frequencies (..., 2)."""
    turns = 2 * math.pi * torch.tensordot(shifts, q, dims=([-1], [-1]))
    return torch.polar(torch.ones_like(turns), turns)


def _search(k: Tensor, spectra: Tensor, mass: Tensor, q: Tensor, step: float | tuple[float, float]) -> Tensor:
    """Return the matrix of a defocus and an orientation that makes the sum of images strongest."""
    shape, q, spectra = spectra.shape[1:], q.flatten(0, 1), spectra.flatten(1)
    power = (mass[:, None] * spectra.abs().square()).sum(0)
    half = (q[:, 0] > 0) | ((q[:, 0] == 0) & (q[:, 1] > 0))
    chosen = torch.where(half, power, -torch.ones_like(power)).topk(min(_SEARCHED, int(half.sum()))).indices
    q, values = q[chosen], (spectra[:, chosen] * mass[:, None]).to(torch.complex64)
    steps = sampling_pair(step)
    edge = float(torch.linalg.vector_norm(k, dim=1).max())
    reach = _FURTHEST * min(n * d for n, d in zip(shape, steps, strict=True))
    pitch = max(min(steps), reach / _MOST)
    line = torch.arange(-math.ceil(reach / pitch), math.ceil(reach / pitch) + 1, dtype=torch.float64) * pitch
    p, r = (each.flatten() / edge for each in torch.meshgrid(line, line, indexing="ij"))
    best, most = torch.zeros(2, 2, dtype=torch.float64), -1.0
    turned = torch.stack([torch.stack([p, r], -1), torch.stack([-r, p], -1)], -2)
    for matrices in (turned, turned.flip(2)):
        for some in torch.split(matrices, 16):
            shifts = torch.einsum("mab,kb->mka", some, k)
            sums = (_ramp(shifts.float(), q.float()) * values).sum(1)
            found = sums.abs().square().sum(1).max(0)
            if float(found.values) > most:
                best, most = some[int(found.indices)], float(found.values)
    return best


def _measured(spectra: Tensor, mass: Tensor, q: Tensor, step: float | tuple[float, float]) -> Tensor:
    """Return how far images are displaced against the mean of the others, shape (image, 2), Å."""
    steps = sampling_pair(step)
    total = (mass[:, None, None] * spectra).sum(0)
    line = [torch.fft.fftfreq(n, 1 / n, dtype=torch.float64).round() for n in total.shape]
    offsets = torch.stack(
        torch.meshgrid(*(one * d for one, d in zip(line, steps, strict=True)), indexing="ij"), -1
    )
    near = torch.linalg.vector_norm(offsets, dim=-1) <= _NEAR * max(steps)
    strongest = total.abs().flatten().topk(min(_SEARCHED, total.numel())).indices
    starts, products = [], []
    for image, share in zip(spectra, mass, strict=True):
        # Without its own part, whose noise would hold it where it is.
        product = image * (total - share * image).conj()
        correlation = torch.fft.ifft2(product).real.masked_fill(~near, -torch.inf)
        starts.append(offsets.flatten(0, 1)[int(correlation.argmax())])
        products.append(product.flatten()[strongest])
    return _peaks(torch.stack(products), torch.stack(starts), q.flatten(0, 1)[strongest], max(steps))


def _peaks(products: Tensor, starts: Tensor, q: Tensor, step: float) -> Tensor:
    """Return where correlations Re Σ X exp(2πi Q·d) are largest, by Newton's method from some pixels."""
    at = starts.clone()
    for _ in range(_NEWTON):
        here = products * _ramp(at, q)
        slope = -2 * math.pi * here.imag @ q
        bend = -4 * math.pi**2 * torch.einsum("iq,qa,qb->iab", here.real, q, q)
        # Flat or hollow ones stay at their pixel.
        round_one = (torch.linalg.det(bend) > 0) & (bend[:, 0, 0] < 0)
        bend = torch.where(round_one[:, None, None], bend, -torch.eye(2, dtype=bend.dtype))
        move = torch.linalg.solve(bend, slope[..., None])[..., 0]
        at = torch.where(round_one[:, None], at - move, at)
    strayed = torch.linalg.vector_norm(at - starts, dim=1) > 1.5 * step
    return torch.where(strayed[:, None], starts, at)


def _fitted(k: Tensor, shifts: Tensor, mass: Tensor) -> tuple[Tensor, float]:
    """Return the matrix and the residual of displacements that are linear in k but for an offset."""
    extent = k.abs().max()
    found, residual = _robust(torch.cat([k / extent, torch.ones_like(k[:, :1])], 1), shifts, mass)
    return found[:2].T / extent, residual


def _robust(design: Tensor, shifts: Tensor, mass: Tensor) -> tuple[Tensor, float]:
    """Return a linear fit to displacements, few of them far off, and its residual along an axis."""
    trust = torch.ones(len(shifts), dtype=torch.float64)
    for _ in range(20):
        root = (mass * trust).sqrt()[:, None]
        found = torch.linalg.lstsq(design * root, shifts * root).solution
        rest = torch.linalg.vector_norm(shifts - design @ found, dim=1)
        scale = float(rest.median()) / 1.1774  # a median length of two Gaussian parts, as their deviation
        trust = 1 / (1 + (rest / max(3 * scale, 1e-12)) ** 2)
    return found, math.sqrt(float((mass * trust * rest.square()).sum() / (mass * trust).sum()) / 2)


def _check_size(moved: Tensor, residual: float, step: float | tuple[float, float]) -> None:
    edge = float(torch.linalg.vector_norm(moved, dim=1).max())
    least = 0.3 * min(sampling_pair(step))
    if edge < max(least, 2 * residual):
        raise InputError(
            f"images are displaced by {edge:.2g} Å at most, and {residual:.2g} Å of that is noise: too near "
            "to focus for parallax; use the single side band, or defocus the probe"
        )


def corrected(image: Tensor, sampling: tuple[float, float], lens: Lens, correction: Correction) -> Tensor:
    """Return an aligned image (y, x) with the transfer 2 sin χ of a phase turned to one sign, or divided by.

    As `correction` of :func:`retrieve_parallax` says; "none" leaves it as it is.
    """
    if correction == "none":
        return image
    # Mirrored at its borders, whose steps would ring.
    far = [max(n // 2, 1) for n in image.shape]
    border = (far[1], far[1], far[0], far[0])
    padded = torch.nn.functional.pad(image[None, None], border, mode="reflect")[0, 0]
    ky, kx = frequency_grid((padded.shape[0], padded.shape[1]), sampling)
    wave = torch.sin(aberration_phase(ky, kx, energy=lens.energy, aberrations=lens.aberrations))
    factor = wave.sign()
    if correction == "wiener":
        # What the aperture passes of both waves: the overlap of two of its disks.
        apart = (torch.hypot(ky, kx) * wavelength(lens.energy) / (2 * lens.semiangle)).clamp(max=1)
        overlap = 2 / math.pi * (apart.acos() - apart * (1 - apart.square()).sqrt())
        transfer = 2 * wave * overlap
        factor = transfer / (transfer.square() + _FLOOR)
    found: Tensor = torch.fft.ifft2(torch.fft.fft2(padded) * factor).real
    return found[far[0] : far[0] + image.shape[0], far[1] : far[1] + image.shape[1]]
