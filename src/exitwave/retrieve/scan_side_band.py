"""Phases from 4D-STEM data that stay in their file by direct ptychography: from a scan to a record."""

from __future__ import annotations

import numpy as np
import xarray as xr

from exitwave import records
from exitwave.errors import InputError
from exitwave.optics.aberrations import Aberrations
from exitwave.readers.bright_disk import Disk
from exitwave.readers.scans import Scan
from exitwave.retrieve import scan_pass
from exitwave.retrieve.scan_parallax import aligned, images_of, with_lens
from exitwave.retrieve.scan_pass import Observe, Seen, Warn, silent
from exitwave.retrieve.single_side_band import Lens, Overlaps, fit_aberrations, retrieve_phase

FITTED = 250  # images that a fit looks at


def lens_of(seen: Seen, scan: Scan, warn: Warn = silent) -> Lens:
    """Return the lens of a scan: the defocus that is known, or else what aligns its bright-field images.

    Where these are too little displaced to be aligned, the probe is taken to be in focus.
    """
    known = scan.calibration
    if known.defocus is None:
        try:
            return aligned(seen, rotation=known.rotation, warn=warn).lens
        except InputError as error:
            warn(f"defocus is not known, and not found ({error}): 0 is used: give defocus=...")
    found = scan_pass.orientation(seen, known.rotation, warn)
    aberrations = Aberrations.from_defocus(known.defocus or 0.0)
    return Lens(seen.energy, seen.semiangle, aberrations, found, seen.edge)


def retrieve(
    scan: Scan, disk: Disk, *, fit: bool = False, overlaps: Overlaps = "all", upsampling: int = 1,
    absorption: bool = False, regularisation: float = 1e-3, observe: Observe = silent, warn: Warn = silent,
) -> xr.Dataset:  # fmt: skip
    """Retrieve the phase of a weak object from the bright field of a scan, in one step.

    Parameters
    ----------
    scan : Scan
        Energy, step and the pixel of the detector are known. Defocus and rotation that are not known are
        found by :func:`lens_of`.
    disk : Disk
        The bright disk.
    fit : bool
        Whether to fit defocus, astigmatism and rotation to the images from there.
    overlaps, upsampling, absorption, regularisation
        As for :func:`exitwave.retrieve.single_side_band.retrieve_phase`.
    observe, warn : callable
        Called with the number of rows done, and with lines.

    Returns
    -------
    xarray.Dataset
        Layout ``phase``, rad, of mean 0. Besides ``absorption`` if it was asked for, ``bright_field``,
        ``transfer`` over frequencies from low to high, ``retrieved_defocus``, ``astigmatism``, ``rotation``,
        ``transposed``, and ``explained`` after a fit.

    Raises
    ------
    InputError
        If something is not known, or values are out of range.
    """
    if overlaps not in ("all", "single"):
        raise InputError(f"overlaps {overlaps!r} are not known: use all or single")
    seen = scan_pass.see(scan, disk, most=images_of(scan), observe=observe)
    kept, lens = seen.field, lens_of(seen, scan, warn)
    share = None
    if fit:
        few = slice(None, None, max(1, len(kept.stack) // FITTED))
        lens, share = fit_aberrations(
            kept.stack[few], kept.frequencies[few], seen.step, lens, pixels=kept.pixels[few]
        )
    found = retrieve_phase(
        kept.stack, kept.frequencies, seen.step, lens, pixels=kept.pixels, overlaps=overlaps,
        upsampling=upsampling, absorption=absorption, regularisation=regularisation,
    )  # fmt: skip
    record = records.phase(found.phase.numpy(), sampling=found.sampling, energy=seen.energy)
    if found.absorption is not None:
        record["absorption"] = scan_pass.image(found.absorption, "1", "absorption μ of exp(iφ - μ)")
    bright = np.repeat(np.repeat(seen.bright.numpy(), upsampling, 0), upsampling, 1)
    record["bright_field"] = (
        ("y", "x"), bright, {"units": "1", "long_name": "share of the electrons in the bright disk"},
    )  # fmt: skip
    record["transfer"] = (
        ("frequency_y", "frequency_x"), np.fft.fftshift(found.transfer.numpy()),
        {"units": "1", "long_name": "mean squared transfer of the phase, frequency 0 in the middle"},
    )  # fmt: skip
    if share is not None:
        record["explained"] = scan_pass.scalar(share, "1", "share of the strongest frequencies' power")
    record = with_lens(record, lens)
    return scan_pass.described(record, seen, lens.orientation, disk, pixels=scan.frequency())
