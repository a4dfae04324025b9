"""Phases from 4D-STEM by centres of mass (differential phase contrast), of data that stay in their file."""

from __future__ import annotations

import xarray as xr

from exitwave import records
from exitwave.errors import InputError
from exitwave.readers.bright_disk import Disk
from exitwave.readers.scans import Scan
from exitwave.retrieve import scan_orientation, scan_pass
from exitwave.retrieve.scan_images import integrate
from exitwave.retrieve.scan_pass import Observe, Warn, silent


def retrieve(scan: Scan, disk: Disk, *, observe: Observe = silent, warn: Warn = silent) -> xr.Dataset:
    """Retrieve the phase whose gradient is 2π times the centres of mass.

    Parameters
    ----------
    scan : Scan
        Energy, step and the pixel of the detector are known; of the rotation see Notes.
    disk : Disk
        The bright disk.
    observe, warn : callable
        Called with the number of rows done, and with lines.

    Returns
    -------
    xarray.Dataset
        Layout ``phase``, rad, of mean 0: the phase of a thin object, blurred by the intensity of the probe.
        Besides ``bright_field``, ``dark_field`` (shares of the electrons), ``centre_of_mass`` in the axes of
        the scan, ``rotation``, ``transposed``, and ``curl`` where the scan is large enough to have one.

    Raises
    ------
    InputError
        If something is not known, the scan is a line, or patterns are empty.

    Notes
    -----
    Where no rotation is known the detector is turned, and its axes exchanged, as
    :func:`exitwave.retrieve.scan_orientation.rank` finds best; the sign of the phase is open if that says so.
    The scan counts as periodic: a slope across the field shows as a step at its edges.
    """
    if min(scan.scan_shape) < 2:
        raise InputError(f"a scan of {scan.scan_shape} is a line: give two rows and columns or more")
    seen = scan_pass.see(scan, disk, observe=observe)
    found = scan_pass.orientation(seen, scan.calibration.rotation, warn)
    centres = found.turned(seen.centres)
    record = records.phase(integrate(centres, seen.step).numpy(), sampling=seen.step, energy=seen.energy)
    record["bright_field"] = scan_pass.image(seen.bright, "1", "share of the electrons in the bright disk")
    if seen.dark is not None:
        record["dark_field"] = scan_pass.image(seen.dark, "1", "share well beyond the bright disk")
    record["centre_of_mass"] = (
        ("axis", "y", "x"), centres.permute(2, 0, 1).numpy(),
        {"units": "1/Å", "long_name": "centre of mass, y and x, in the axes of the scan"},
    )  # fmt: skip
    try:
        curl = scan_orientation.curl_share(centres)
        record["curl"] = scan_pass.scalar(curl, "1", "share of the curl, of it and the divergence")
    except InputError:  # too small for derivatives
        pass
    return scan_pass.described(record, seen, found, disk, pixels=scan.frequency())
