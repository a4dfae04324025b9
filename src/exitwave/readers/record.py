"""Records that a user names: netCDF files which may come from anywhere."""

from __future__ import annotations

import os

import xarray as xr

from exitwave import records
from exitwave.readers import guards


def read_record(path: str | os.PathLike[str], layout: str | None = None) -> xr.Dataset:
    """Read a netCDF record into memory after it was tried in another process, where damage does no harm.

    Parameters
    ----------
    path : path
    layout : str, optional
        Checked, if named: see :func:`exitwave.records.load`.

    Returns
    -------
    xarray.Dataset

    Raises
    ------
    InputError
        If the file is missing, truncated, damaged, no netCDF, or not of the layout.
    """
    path = guards.existing_file(path)
    guards.check_hdf5(path, netcdf=True)
    return records.load(path, layout)
