"""Defocus and rotation of a scan from its own patterns: what lets a short ptychography explain most.

Patterns seen by a detector that is turned by 180° are those of the conjugated object, turned, under the
opposite defocus: defocus is therefore taken to be of one sign, and the turn over which is searched tells the
rest. Flips of the detector are transpositions and turns.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from exitwave.errors import InputError
from exitwave.optics.aberrations import Aberrations
from exitwave.optics.transfer import transfer_function
from exitwave.retrieve import ptychography
from exitwave.simulate import scanning

Observe = Callable[[int, float], None]


@dataclass(frozen=True)
class ScanGeometry:
    """How a scan was taken.

    Attributes
    ----------
    defocus : float
        Å, underfocus positive.
    rotation : float
        Of the detector against the scan, rad, as of :func:`exitwave.simulate.scanning.raster`.
    transposed : bool
        Whether ky and kx have to be exchanged.
    loss : float
        What the trial ended with.
    """

    defocus: float
    rotation: float
    transposed: bool = False
    loss: float = math.inf

    def start(
        self, measured: Tensor, step: float | tuple[float, float], sampling: float, *, energy: float,
        semiangle: float | None = None,
    ) -> tuple[Tensor, ptychography.Reconstruction]:  # fmt: skip
        """Return patterns (position, ky, kx) and the start of a retrieval.

        Parameters
        ----------
        measured : Tensor, shape (scan_y, scan_x, ky, kx)
            FFT order, as many pixels along ky as along kx.
        step : float or (float, float)
            Of the scan, (y, x), Å.
        sampling : float
            Of the probe: the inverse of what the patterns span, Å.
        energy, semiangle : float
            eV and rad; without the angle, the mean of the patterns is the aperture.
        """
        size = int(measured.shape[-1])
        flat = measured.flatten(0, 1)
        lines = scanning.raster((measured.shape[0], measured.shape[1]), step, rotation=self.rotation)
        positions, field = scanning.framed(lines, sampling, (size, size))
        flat = flat.mT.contiguous() if self.transposed else flat
        transfer = transfer_function(
            (size, size), sampling, energy=energy, aberrations=Aberrations.from_defocus(self.defocus),
            aperture=semiangle, dtype=torch.complex64,
        )  # fmt: skip
        if semiangle is None:
            transfer = transfer * flat.mean(0).sqrt()
        beam = torch.fft.ifft2(transfer, norm="ortho")
        return flat, ptychography.begin(flat, beam, positions, field=field)


def search(
    measured: Tensor, step: float | tuple[float, float], sampling: float, *, energy: float,
    defocus: tuple[float, float], rotation: tuple[float, float], generator: torch.Generator,
    semiangle: float | None = None, transposed: Sequence[bool] = (False, True), points: int = 5,
    rounds: int = 3, epochs: int = 3, observe: Observe | None = None,
) -> list[ScanGeometry]:  # fmt: skip
    """Search defocus and rotation, from a coarse grid to finer ones around the best.

    Parameters
    ----------
    measured : Tensor, shape (scan_y, scan_x, ky, kx), real
        Patterns, FFT order, as many pixels along ky as along kx. A part of the scan that shows something,
        some ten positions wide, is enough; and of the patterns what is within the bright disk.
    step : float or (float, float)
        Of the scan, (y, x), Å.
    sampling : float
        Of the probe: the inverse of what the patterns span, Å.
    energy, semiangle : float
        eV and rad; without the angle, the mean of the patterns is the aperture, its centre, edges and all,
        which is right where scattering is weak.
    defocus, rotation : (float, float)
        Smallest and largest, Å and rad; rotation as of :func:`exitwave.simulate.scanning.raster`.
    generator : torch.Generator
        Of the CPU; each trial begins with its present state.
    transposed : sequence of bool
        Orientations of the detector that are tried, in the first round.
    points, rounds : int
        Of the grid along each axis, and grids, each half as wide as the one before.
    epochs : int
        Of each trial, with the probe held.
    observe : callable, optional
        Called with (trial, loss).

    Returns
    -------
    list of ScanGeometry
        All that was tried, the best one first.

    Raises
    ------
    InputError
        For arrays of another shape, empty ranges, or counts that are too small.
    """
    _check(measured, defocus, rotation, transposed, points, rounds)
    centres = [sum(each) / 2 for each in (defocus, rotation)]
    spans = [(high - low) / 2 for low, high in (defocus, rotation)]
    tried: dict[tuple[float, float, bool], ScanGeometry] = {}
    sides: Sequence[bool] = transposed
    for _ in range(rounds):
        axes = [
            [centre + span * (2 * i / (points - 1) - 1) for i in range(points)] if span else [centre]
            for centre, span in zip(centres, spans, strict=True)
        ]
        for one, turn, side in itertools.product(axes[0], axes[1], sides):
            key = (round(one, 6), round(turn, 9), side)
            if key not in tried:
                trial = ScanGeometry(one, turn, side)
                flat, start = trial.start(measured, step, sampling, energy=energy, semiangle=semiangle)
                found = ptychography.retrieve(
                    flat, start, sampling, generator=generator.clone_state(), epochs=epochs, batch=32,
                    free_probe=False,
                )  # fmt: skip
                tried[key] = ScanGeometry(one, turn, side, float(found.loss[-1]))
                if observe is not None:
                    observe(len(tried), tried[key].loss)
        best = min(tried.values(), key=lambda each: each.loss)
        centres, sides = [best.defocus, best.rotation], [best.transposed]
        spans = [span / 2 for span in spans]
    return sorted(tried.values(), key=lambda each: each.loss)


def _check(
    measured: Tensor, defocus: tuple[float, float], rotation: tuple[float, float],
    transposed: Sequence[bool], points: int, rounds: int,
) -> None:  # fmt: skip
    if measured.ndim != 4 or measured.shape[2] != measured.shape[3]:
        raise InputError(
            f"patterns of shape {tuple(measured.shape)}: give (scan_y, scan_x, ky, kx), as many ky as kx"
        )
    for name, unit, (low, high) in (("defocus", "Å", defocus), ("rotation", "rad", rotation)):
        if not (math.isfinite(low) and math.isfinite(high) and low <= high):
            raise InputError(f"{name} from {low:g} to {high:g} {unit}: give the smaller one first")
    if points < 3 or rounds < 1 or not transposed:
        raise InputError(
            f"{points} points in {rounds} rounds: use 3 or more in 1 or more, and an orientation"
        )
