"""Images of MoS2 by methods that learn nothing, from as many electrons as the others are given."""

from __future__ import annotations

import torch
import xarray as xr
from torch import Tensor

from exitwave.optics import Aberrations
from exitwave.papers.cao2020 import methods
from exitwave.papers.cao2020.general import ASKED_DOSES
from exitwave.papers.cao2020.judge import judge
from exitwave.papers.cao2020.parameters import Parameters
from exitwave.papers.cao2020.scene import Scan, counted, expected, training_specimen
from exitwave.papers.cao2020.transfer import unseen_region
from exitwave.papers.quantities import quantity
from exitwave.readers.bright_disk import Disk
from exitwave.retrieve import bright_field, parallax, single_side_band

# Å, underfocus: of the probe where images of its parts are aligned, and where phases show without loss.
DEFOCUS = 150.0
WAYS = ("ssb", "ssb_defocused", "parallax", "ptychography_defocused")


def direct(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Judge direct methods at each dose, in focus and with a defocused probe, which they are told.

    Returns
    -------
    xarray.Dataset
        Over ``way`` and ``dose``, in the half of MoS2 that the paper's networks do not see: ``error``,
        ``scaled_error`` (rad), ``likeness``, ``contrast``, ``resolution`` (Å). The ways are the single side
        band in focus and with a probe that is defocused by :data:`DEFOCUS`, parallax, and beside them
        ptychography with that probe.
    """
    blurred = parameters.changed(defocus=DEFOCUS)
    scans = {}
    for at in (parameters, blurred):
        [scans[at.defocus]] = expected(at, [training_specimen(at)], device)
    rows: dict[str, list[list[float]]] = {}
    for way in WAYS:
        scores = []
        for dose in ASKED_DOSES:
            at = (parameters if way == "ssb" else blurred).changed(dose=dose)
            scan = scans[at.defocus]
            counts = counted(at, scan, torch.Generator().manual_seed(1000 * parameters.seed))
            scores.append(judge(image(way, at, counts, scan, device), scan, unseen_region(at), phase=True))
        for kind in ("error", "scaled_error", "likeness", "contrast", "resolution"):
            rows.setdefault(kind, []).append([getattr(each, kind) for each in scores])
    units = {"error": "rad", "scaled_error": "rad", "resolution": "Å"}
    found = {
        kind: quantity(
            values, units.get(kind, "1"), f"{kind}, unseen half of MoS2".replace("_", " "), ("way", "dose")
        )
        for kind, values in rows.items()
    }
    return xr.Dataset(found).assign_coords(
        way=quantity(list(WAYS), "1", "method", ("way",)),
        dose=quantity(list(ASKED_DOSES), "1/Å^2", "electrons per Å²", ("dose",)),
    )


def image(way: str, parameters: Parameters, counts: Tensor, scan: Scan, device: str = "cpu") -> Tensor:
    """Return an image (scan_y, scan_x), rad, by one of :data:`WAYS`."""
    if way == "ptychography_defocused":
        return methods.label(parameters, counts, scan, device).phase
    lens = single_side_band.Lens(
        parameters.energy, parameters.semiangle, Aberrations.from_defocus(parameters.defocus),
        edge=parameters.pixel,
    )  # fmt: skip
    kept = gathered(parameters, counts)
    if way != "parallax":
        return single_side_band.retrieve_phase(
            kept.stack, kept.frequencies, scan.step, lens, pixels=kept.pixels
        ).phase
    moved = parallax.displacements(kept.frequencies, lens)
    mean = parallax.align(kept.stack, moved, scan.step, weights=kept.pixels)
    return parallax.corrected(mean, scan.step, lens, "wiener")


def gathered(parameters: Parameters, counts: Tensor) -> bright_field.BrightField:
    """Return the bright-field images of counts (scan_y, scan_x, ky, kx), FFT order."""
    size, middle = parameters.detector, float(parameters.detector // 2)
    radius = parameters.semiangle / parameters.pixel
    centred = torch.fft.fftshift(counts, (2, 3))
    level = float(centred.mean((0, 1))[size // 2, size // 2])
    disk = Disk((size, size), (middle, middle), radius, level)
    rows = int(counts.shape[0]), int(counts.shape[1])
    return bright_field.gather(
        bright_field.row_blocks(centred), rows, energy=parameters.energy, semiangle=parameters.semiangle,
        disk=disk, mend=False,
    )  # fmt: skip
