"""The phase of a 4D-STEM scan in a file by a trained network, and how far it explains the patterns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import xarray as xr
from torch import Tensor, nn

from exitwave import records
from exitwave.errors import InputError
from exitwave.optics import wavelength
from exitwave.readers.bright_disk import Disk
from exitwave.readers.scans import Scan
from exitwave.readers.scans_pixels import fft_order
from exitwave.retrieve import learned_scan, scan_pass, scan_tiles
from exitwave.retrieve.ptychography import poisson_loss
from exitwave.retrieve.ptychography_search import ScanGeometry
from exitwave.retrieve.scan_geometry import Stage, half_width, no_stage
from exitwave.retrieve.scan_orientation import Orientation
from exitwave.retrieve.scan_pass import Seen, Warn, silent

# From dose (electrons per Å²), semi-angle (rad) and defocus (Å) to what a network is told.
Conditions = Callable[[float, float, float], Tensor]

_SAME = 0.02  # relative, of energies, steps and pixels
_PARTS = 8  # of a pixel, along each side, or of a new one if that is smaller
_PIECES = 4  # by which a phase is checked
_RIM = 1.0  # pixels beyond the radius of the bright disk that are its edge
_AT_ONCE = 512  # patterns that are resampled


@dataclass(frozen=True)
class Trained:
    """What a network was trained on: scans of thin specimens in focus or nearly so.

    Attributes
    ----------
    energy : float
        eV.
    pixel : float
        Of the patterns that it takes, rad.
    pixels : int
        Along each side of them.
    origin : float
        Where in the first pixel the beam is, in pixels from its middle.
    step, semiangle, defocus, dose : (float, float)
        Least and greatest: Å, rad, Å, electrons per Å².
    unit : float
        Of the phase that it makes, rad.
    scans, updates : int
        How many it has seen, in how many updates.
    """

    energy: float
    pixel: float
    pixels: int
    origin: float
    step: tuple[float, float]
    semiangle: tuple[float, float]
    defocus: tuple[float, float]
    dose: tuple[float, float]
    unit: float
    scans: int
    updates: int

    def statement(self) -> str:
        """Return all that in words."""
        return (
            f"trained in {self.updates} updates on simulated scans of {self.scans} two-dimensional materials "
            f"at {self.energy / 1e3:g} keV: steps of {self.step[0]:g} to {self.step[1]:g} Å, semi-angles of "
            f"{1e3 * self.semiangle[0]:g} to {1e3 * self.semiangle[1]:g} mrad, defoci of "
            f"{self.defocus[0]:g} to {self.defocus[1]:g} Å, {self.dose[0]:.0e} to {self.dose[1]:.0e} "
            "electrons per Å²"
        )

    def doubts(
        self, *, energy: float, step: tuple[float, float], semiangle: float, defocus: float, dose: float,
        reach: float,
    ) -> list[str]:  # fmt: skip
        """Return what about a scan is not as in the training, a line each; `reach` of the detector, rad."""
        found = []
        if abs(energy / self.energy - 1) > _SAME:
            found.append(
                f"an energy of {energy / 1e3:g} keV, but the network was trained with "
                f"{self.energy / 1e3:g} keV: its phases are those of another interaction constant"
            )
        for name, (low, high), (least, greatest), factor, unit in (
            ("steps", (min(step), max(step)), self.step, 1.0, "Å"),
            ("a semi-angle", (semiangle, semiangle), self.semiangle, 1e3, "mrad"),
            ("a dose", (dose, dose), self.dose, 1.0, "electrons per Å²"),
        ):
            if low < least * (1 - _SAME) or high > greatest * (1 + _SAME):
                said = f"{factor * low:.3g}" if low == high else f"{factor * low:.3g} and {factor * high:.3g}"
                found.append(
                    f"{name} of {said} {unit}, but the network was trained with {factor * least:.3g} to "
                    f"{factor * greatest:.3g} {unit}"
                )
        if not self.defocus[0] <= defocus <= self.defocus[1]:
            found.append(
                f"a defocus of {defocus:.4g} Å, but the network was trained with {self.defocus[0]:g} to "
                f"{self.defocus[1]:g} Å"
            )
        if reach < (self.pixels / 2 - 1) * self.pixel:
            found.append(
                f"a detector that ends at {1e3 * reach:.3g} mrad, but the network was trained with one to "
                f"{1e3 * self.pixels / 2 * self.pixel:.3g} mrad: what is beyond is dark to it"
            )
        return found


def resampling(
    shape: tuple[int, int], pixel: float, orientation: Orientation, *, count: int, out: float,
    centre: tuple[float, float] = (0.0, 0.0), origin: float = 0.0,
) -> Tensor:  # fmt: skip
    """Return a matrix that distributes the electrons of pixels among those along the axes of the scan.

    Parameters
    ----------
    shape : (int, int)
        Pixels (ky, kx) of a pattern, FFT order.
    pixel, out : float
        Sides of its pixels and of the new ones, in one unit.
    orientation : Orientation
        Turns vectors of the detector into those of the scan.
    count : int
        New pixels along each side.
    centre : (float, float)
        Where the beam is, in pixels from the middle of the first one.
    origin : float
        The same in new pixels.

    Returns
    -------
    Tensor, sparse, shape (count², ky · kx), float32
        FFT order; electrons beyond the new pixels are lost.
    """
    # Parts of a pixel, of which each goes where its middle is.
    parts = max(_PARTS, math.ceil(_PARTS * pixel / out))
    shifts = (torch.arange(parts, dtype=torch.float64) + 0.5) / parts - 0.5
    axes = [
        (torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)[:, None] + shifts - middle).flatten()
        for n, middle in zip(shape, centre, strict=True)
    ]
    at = orientation.turned(torch.stack(torch.meshgrid(*axes, indexing="ij"), -1)) * pixel / out + origin
    place = at.round().long().reshape(-1, 2)
    pixels = [torch.arange(n).repeat_interleave(parts) for n in shape]
    source = (pixels[0][:, None] * shape[1] + pixels[1]).flatten()
    first, last = -(count // 2), (count - 1) // 2
    inside = ((place >= first) & (place <= last)).all(1)
    place, source = place[inside] % count, source[inside]
    indices = torch.stack([place[:, 0] * count + place[:, 1], source])
    values = torch.full((len(source),), 1 / parts**2)
    size = (count**2, shape[0] * shape[1])
    return torch.sparse_coo_tensor(indices, values, size, check_invariants=True).coalesce()


def resampled(counts: Tensor, matrix: Tensor) -> Tensor:
    """Return patterns (scan_y, scan_x, count, count) of those (scan_y, scan_x, ky, kx) by a matrix."""
    side = math.isqrt(matrix.shape[0])
    flat = counts.flatten(2).flatten(0, 1)
    parts = torch.split(flat, _AT_ONCE)
    made = torch.cat([(matrix @ each.T).T for each in parts])
    return made.reshape(*counts.shape[:2], side, side)


def retrieve(
    scan: Scan, disk: Disk, *, network: nn.Module, trained: Trained, conditions: Conditions,
    dose: float | None = None, device: str = "cpu", stage: Stage = no_stage, warn: Warn = silent,
) -> xr.Dataset:  # fmt: skip
    """Retrieve the phase of a scan by a network.

    The patterns stay in their file: they are read in blocks, and kept in the pixels of the network. Scans of
    more than 512 positions along a side are made in tiles (:mod:`exitwave.retrieve.scan_tiles`).

    Parameters
    ----------
    scan : Scan
        Energy, step and the pixel of the detector are known. A defocus that is not known is taken to be 0.
    disk : Disk
        The bright disk.
    network : Module
        As for :func:`exitwave.retrieve.learned_scan.predict`.
    trained : Trained
    conditions : callable
    dose : float, optional
        Electrons per Å²; by default the patterns are taken to count electrons.
    device : str
    stage, warn : callable
        Told what is done, and lines.

    Returns
    -------
    xarray.Dataset
        Layout ``phase``, rad, of mean 0, at the positions of the scan. Besides ``bright_field``,
        ``dark_field`` and ``unexplained``, the deviance of some patterns over that for an empty object. The
        attribute ``trained`` says what the network knows.

    Raises
    ------
    InputError
        If something is not known, the scan is too small, or the network makes no finite image.
    """
    rows = scan.scan_shape[0]
    seen = scan_pass.see(scan, disk, observe=lambda done: stage("centres of mass", done, rows))
    found = scan_pass.orientation(seen, scan.calibration.rotation, warn)
    square = _Square(scan, disk, found)
    angle = square.angle(seen.energy)
    given, mean = _inputs(square, trained, angle, stage)
    defocus = scan.calibration.defocus
    if defocus is None:
        warn("defocus is not known: 0 is used: give defocus=...")
        defocus = 0.0
    if dose is None:
        dose = float(mean.sum()) / (seen.step[0] * seen.step[1])
    if not 0 < dose < math.inf:
        raise InputError(f"a dose of {dose:g} electrons per Å² is not positive: give it")
    for text in trained.doubts(
        energy=seen.energy, step=seen.step, semiangle=seen.semiangle, defocus=defocus, dose=dose,
        reach=angle * square.half,
    ):  # fmt: skip
        warn(text)
    told = conditions(dose, seen.semiangle, defocus)
    network = network.to(device).eval()
    phase = trained.unit * scan_tiles.predict(network, given.to(device), told.to(device)).cpu()
    model = _model(square, seen, mean, defocus)
    record = records.phase(phase.numpy(), sampling=seen.step, energy=seen.energy)
    record["bright_field"] = scan_pass.image(seen.bright, "1", "share of the electrons in the bright disk")
    if seen.dark is not None:
        record["dark_field"] = scan_pass.image(seen.dark, "1", "share well beyond the bright disk")
    record["unexplained"] = scan_pass.scalar(
        _unexplained(phase, square, model), "1", "deviance of patterns over that for an empty object"
    )
    record.attrs["trained"] = f"network {trained.statement()}"
    return scan_pass.described(record, seen, found, disk, pixels=scan.frequency())


@dataclass(frozen=True, eq=False)
class _Square:
    """The largest square of the detector around the bright disk, and how it lies against the scan."""

    scan: Scan
    disk: Disk
    found: Orientation

    @property
    def half(self) -> int:
        """Half the pixels along each side."""
        return half_width(self.scan, self.disk)

    @property
    def pixel(self) -> float:
        """1/Å."""
        return sum(self.scan.frequency()) / 2

    @property
    def sampling(self) -> float:
        """Of a probe of as many pixels, Å."""
        return 1 / (2 * self.half * self.pixel)

    def angle(self, energy: float) -> float:
        """Return a pixel as an angle, rad."""
        return wavelength(energy) * self.pixel

    def cut(self, patterns: Tensor) -> Tensor:
        """Return patterns (scan_y, scan_x, ky, kx) of the square, FFT order, of those of the detector."""
        half = self.half
        y, x = (round(each) for each in self.disk.centre)
        return fft_order(patterns[..., y - half : y + half, x - half : x + half], (half, half))

    def along_scan(self, counts: Tensor) -> Tensor:
        """Return patterns of the square along the axes of the scan."""
        if self.found == Orientation():
            return counts
        size = 2 * self.half
        return resampled(counts, resampling((size, size), 1.0, self.found, count=size, out=1.0))


def _inputs(square: _Square, trained: Trained, angle: float, stage: Stage) -> tuple[Tensor, Tensor]:
    """Return all patterns in the pixels of the network, and the mean of those of the square.

    Returns
    -------
    given : Tensor, shape (scan_y, scan_x, pixels, pixels), float32
    mean : Tensor, shape (ky, kx), float32
        FFT order.
    """
    scan, size = square.scan, 2 * square.half
    centre = square.disk.centre
    matrix = resampling(
        (size, size), angle, square.found, count=trained.pixels, out=trained.pixel, origin=trained.origin,
        centre=(centre[0] - round(centre[0]), centre[1] - round(centre[1])),
    )  # fmt: skip
    rows, columns = scan.scan_shape
    given = torch.empty(rows, columns, trained.pixels, trained.pixels)
    total = torch.zeros(size, size, dtype=torch.float64)
    for part, patterns in scan.blocks():
        counts = square.cut(patterns)
        given[part] = resampled(counts, matrix)
        total += counts.sum((0, 1), dtype=torch.float64)
        stage("patterns", part.stop, rows)
    return given, (total / (rows * columns)).float()


def _model(square: _Square, seen: Seen, mean: Tensor, defocus: float) -> learned_scan.Model:
    """Return how pieces of the scan explain its patterns along the axes of the scan."""
    turned, size = square.along_scan(mean[None, None]), 2 * square.half
    geometry = ScanGeometry(defocus, 0.0)
    _, first = geometry.start(turned, seen.step, square.sampling, energy=seen.energy)
    # The mean of the patterns is the aperture, but for what is scattered beyond the bright disk.
    order = torch.fft.fftfreq(size, 1 / size)
    rim = _RIM if square.found == Orientation() else 2 * _RIM  # turned pixels are larger
    inside = torch.hypot(order[:, None], order) <= square.disk.radius + rim
    beam = torch.fft.ifft2(torch.fft.fft2(first.probe) * inside)
    beam = beam * (first.probe.abs().square().sum() / beam.abs().square().sum()).sqrt()
    return learned_scan.model_of(square.scan.scan_shape, seen.step, beam, square.sampling)


def _unexplained(phase: Tensor, square: _Square, model: learned_scan.Model) -> float:
    """Return the deviance of a few pieces over that of an empty object; only these are read again."""
    room = [max(0, n - model.piece) for n in phase.shape]
    inner = math.isqrt(len(model.places))
    edge = (model.piece - inner) // 2
    totals = [0.0, 0.0]
    for i in range(_PIECES):
        y, x = (round(each * part) for each, part in zip(room, divmod(i, 2), strict=True))
        scan = square.scan.cropped((y + edge, y + edge + inner), (x + edge, x + edge + inner))
        counts = torch.cat([square.along_scan(square.cut(each)) for _, each in scan.blocks()])
        piece = phase[y : y + model.piece, x : x + model.piece]
        for place, one in enumerate((piece, torch.zeros_like(piece))):
            totals[place] += float(poisson_loss(model.patterns(one), counts.flatten(0, 1)))
    return totals[0] / totals[1]
