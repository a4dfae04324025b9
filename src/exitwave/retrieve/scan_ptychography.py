"""Ptychography of 4D-STEM patterns, from a scan to a record that it can go on from."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from scipy.ndimage import map_coordinates
from torch import Tensor

from exitwave import records
from exitwave.errors import InputError
from exitwave.optics.transfer import propagator
from exitwave.readers.bright_disk import Disk
from exitwave.readers.scans import Scan
from exitwave.retrieve import ptychography, scan_pass
from exitwave.retrieve.ptychography import LOSSES, Reconstruction, begin
from exitwave.retrieve.ptychography_epie import epie
from exitwave.retrieve.ptychography_search import ScanGeometry
from exitwave.retrieve.scan_geometry import Patterns, Stage, Wanted, geometry, load, no_stage
from exitwave.retrieve.scan_orientation import Orientation
from exitwave.retrieve.scan_pass import Warn, silent
from exitwave.units import length_text

METHODS = ("gradient", "epie")


@dataclass(frozen=True)
class Options:
    """How to retrieve.

    Attributes
    ----------
    method : {"gradient", "epie"}
        :func:`exitwave.retrieve.ptychography.retrieve` or :func:`exitwave.retrieve.ptychography_epie.epie`.
    loss : {"poisson", "amplitude"}
        Of ``gradient``.
    epochs : int
    slices : int
        Of the object.
    slice_thickness : float, optional
        From slice to slice, Å.
    modes : int
        Of the probe.
    free_positions, absorption : bool
        Of ``gradient``.
    batch : int
        Positions at a time, of ``gradient``.
    seed : int
        Of the order of positions.
    device : str
    """

    method: str = "gradient"
    loss: str = "poisson"
    epochs: int = 20
    slices: int = 1
    slice_thickness: float | None = None
    modes: int = 1
    free_positions: bool = False
    absorption: bool = False
    batch: int = 64
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"unknown method {self.method!r}: use one of {', '.join(METHODS)}")
        if self.loss not in LOSSES:
            raise InputError(f"unknown loss {self.loss!r} of ptychography: use {' or '.join(LOSSES)}")
        if self.method == "epie":
            several = self.slices > 1 or self.modes > 1 or self.free_positions or self.loss != "poisson"
            if several:
                raise InputError(
                    "epie takes one slice, one mode, known positions and no loss: leave them out, or use "
                    "the method gradient"
                )
        if min(self.slices, self.modes, self.epochs, self.batch) < 1:
            raise InputError("slices, modes, epochs and batch are 1 or more: give larger numbers")
        if self.slices > 1 and self.slice_thickness is None:
            raise InputError(f"{self.slices} slices are how far apart? give slice_thickness=... (Å)")
        if self.slice_thickness is not None and not 0 < self.slice_thickness < math.inf:
            raise InputError(f"slice thickness {self.slice_thickness:g} Å is not positive: give it in Å")


def retrieve(
    scan: Scan, disk: Disk, options: Options, *, defocus: Wanted = None, rotation: Wanted = None,
    angle: float | None = None, start: xr.Dataset | None = None, stage: Stage = no_stage, warn: Warn = silent,
) -> xr.Dataset:  # fmt: skip
    """Retrieve object and probe of a scan.

    Parameters
    ----------
    scan : Scan
        Energy, step and the pixel of the detector are known.
    disk : Disk
        The bright disk.
    options : Options
    defocus, rotation
        See :func:`exitwave.retrieve.scan_geometry.geometry`.
    angle : float, optional
        The largest angle that is used, rad.
    start : xarray.Dataset, optional
        What was found before, to go on from; its geometry, slices and modes hold.
    stage, warn : callable
        Told what is done, and lines.

    Returns
    -------
    xarray.Dataset
        Layout ``wave``: the transmission function in the axes of the scan, its first pixel at the first
        position, its mean phase 0; of several slices their product. Besides, all that it was made of, in the
        axes of the detector: ``object`` (slice, part, field_y, field_x), ``probe`` (mode, part, probe_y,
        probe_x), its middle in the middle, ``position`` (Å), ``share`` of the modes, and ``loss``.

    Raises
    ------
    InputError
        If something is not known, or options are out of range.
    """
    patterns = load(scan, disk, angle=angle, stage=stage)
    generator = torch.Generator().manual_seed(options.seed)
    if start is None:
        how = geometry(
            scan, disk, patterns, defocus=defocus, rotation=rotation, generator=generator, stage=stage,
            warn=warn,
        )  # fmt: skip
        _check_window(patterns, how, warn)
        flat, one = how.start(patterns.counts, patterns.step, patterns.sampling, energy=patterns.energy)
        field = int(one.slices.shape[1]), int(one.slices.shape[2])
        first = begin(
            flat, one.probe[0], one.positions, field=field, slices=options.slices, modes=options.modes
        )
    else:
        how, first, options = resumed(start, patterns, options)
        flat = patterns.counts.flatten(0, 1)
        flat = flat.mT.contiguous() if how.transposed else flat
    found = _run(flat, first, patterns, options, stage)
    before, after = (float(found.loss[i]) for i in (len(first.loss), -1))
    if after > before:
        warn(
            f"the loss has grown from {before:.4g} to {after:.4g}: check defocus and rotation, bin less, or "
            "use the method gradient"
        )
    return _record(found, first, patterns, how, options, scan.scan_shape)


def _check_window(patterns: Patterns, how: ScanGeometry, warn: Warn) -> None:
    width, probe = patterns.sampling * patterns.counts.shape[-1], 2 * abs(how.defocus) * patterns.semiangle
    if probe > 0.8 * width:
        warn(
            f"the probe is {length_text(probe)[1:]} wide by its defocus, the field of a pattern "
            f"{length_text(width)[1:]}: it does not fit; bin less, or check the defocus"
        )


def _run(
    flat: Tensor, first: Reconstruction, patterns: Patterns, options: Options, stage: Stage
) -> Reconstruction:
    generator = torch.Generator().manual_seed(options.seed)
    device = torch.device(options.device)
    first = replace(
        first, slices=first.slices.to(device), probe=first.probe.to(device),
        positions=first.positions.to(device), loss=first.loss.to(device),
    )  # fmt: skip
    flat = flat.to(device)

    def observe(epoch: int, loss: float) -> None:
        stage(f"epochs (loss {loss:.4g})", epoch, options.epochs)

    if options.method == "epie":
        found = epie(
            flat, first, patterns.sampling, generator=generator, epochs=options.epochs, observe=observe
        )
    else:
        between = None
        if len(first.slices) > 1 and options.slice_thickness is not None:
            shape = int(first.probe.shape[1]), int(first.probe.shape[2])
            between = propagator(shape, patterns.sampling, options.slice_thickness, patterns.energy)
        found = ptychography.retrieve(
            flat, first, patterns.sampling, generator=generator, epochs=options.epochs, batch=options.batch,
            loss=options.loss, propagator=None if between is None else between.to(device),  # type: ignore[arg-type]
            free_positions=options.free_positions, absorbs=options.absorption, observe=observe,
        )  # fmt: skip
    return Reconstruction(*(getattr(found, name).cpu() for name in ("slices", "probe", "positions", "loss")))


def _record(
    found: Reconstruction, first: Reconstruction, patterns: Patterns, how: ScanGeometry, options: Options,
    shape: tuple[int, int],
) -> xr.Dataset:  # fmt: skip
    whole = found.slices.prod(0).numpy()
    wave = _along_the_scan(whole, first.positions[0].cpu().numpy(), patterns, how, shape)
    record = records.wave(wave, sampling=patterns.sampling, energy=patterns.energy)
    several = f"the product of {len(found.slices)} slices" if len(found.slices) > 1 else "one slice"
    record["wave"].attrs["long_name"] = f"transmission function of the object, {several}"
    size = np.fft.fftshift(np.fft.fftfreq(found.probe.shape[-1])) * found.probe.shape[-1] * patterns.sampling
    record = record.assign_coords(
        probe_y=("probe_y", size, {"units": "Å", "long_name": "position in the probe, y of the detector"}),
        probe_x=("probe_x", size, {"units": "Å", "long_name": "position in the probe, x of the detector"}),
    )
    parts = np.moveaxis(records.to_parts(found.slices.numpy()), 0, 1)
    record["object"] = (
        ("slice", "part", "field_y", "field_x"), parts,
        {"units": "1", "long_name": "transmission functions of the slices, in the axes of the detector"},
    )  # fmt: skip
    beam = torch.fft.fftshift(found.probe, dim=(1, 2)).numpy()
    record["probe"] = (
        ("mode", "part", "probe_y", "probe_x"), np.moveaxis(records.to_parts(beam), 0, 1),
        {"units": "1", "long_name": "modes of the probe, root of counts"},
    )  # fmt: skip
    for name, dims, values, units, text in (
        ("share", ("mode",), found.powers, "1", "share of the modes in the beam"),
        ("position", ("position", "axis"), found.positions, "Å", "positions (y, x) in the field of object"),
        ("loss", ("epoch",), found.loss, "1", "mean loss of each epoch"),
    ):
        record[name] = (dims, values.numpy(), {"units": units, "long_name": text})
    record["defocus_at_start"] = scan_pass.scalar(how.defocus, "Å", "defocus of the probe at the start")
    if len(found.slices) > 1:
        record["slice_thickness"] = scan_pass.scalar(
            float(options.slice_thickness or 0.0), "Å", "from slice to slice"
        )
    return scan_pass.with_orientation(record, Orientation(how.rotation, how.transposed))


def _along_the_scan(
    whole: records.Array, first: records.Array, patterns: Patterns, how: ScanGeometry, shape: tuple[int, int]
) -> records.Array:
    """Return an object (field_y, field_x) on a grid along the axes of the scan, of mean phase 0."""
    y, x = (
        np.arange(max(2, math.floor((n - 1) * step / patterns.sampling) + 1))
        for n, step in zip(shape, patterns.step, strict=True)
    )
    sine, cosine = math.sin(how.rotation), math.cos(how.rotation)
    rows = first[0] / patterns.sampling + cosine * y[:, None] - sine * x
    columns = first[1] / patterns.sampling + sine * y[:, None] + cosine * x
    # The modulus by itself: between pixels of one modulus the mean of waves is smaller.
    modulus, real, imaginary = (
        map_coordinates(np.asarray(part, float), [rows, columns], order=order, mode="nearest")
        for part, order in ((np.abs(whole), 1), (whole.real, 3), (whole.imag, 3))
    )
    found = real + 1j * imaginary
    found = modulus * found / np.maximum(np.abs(found), 1e-12)
    return np.asarray(found * np.exp(-1j * np.angle(found.mean())))


def resumed(
    start: xr.Dataset, patterns: Patterns, options: Options
) -> tuple[ScanGeometry, Reconstruction, Options]:
    """Return geometry, reconstruction and options that go on from a record.

    Raises
    ------
    InputError
        If it is none of ptychography, or not of this scan.
    """
    missing = [name for name in ("object", "probe", "position", "loss") if name not in start]
    if missing:
        raise InputError(f"the start is no record of ptychography: {missing[0]} is missing in it")
    thing, beam = (_complex(start[name].values) for name in ("object", "probe"))
    count, width = math.prod(patterns.counts.shape[:2]), patterns.counts.shape[-1]
    same = abs(records.sampling_of(start)[0] / patterns.sampling - 1) < 1e-3
    if start.sizes["position"] != count or beam.shape[-1] != width or not same:
        raise InputError(
            f"the start has {start.sizes['position']} positions and probes of {beam.shape[-1]} pixels, the "
            f"scan {count} and {width}: give the same crop, bin, angles and detector"
        )
    for name, size in (("slices", len(thing)), ("modes", len(beam))):
        if getattr(options, name) not in (1, size):
            raise InputError(f"the start has {size} {name}, not {getattr(options, name)}: leave it out")
    thickness = options.slice_thickness
    if len(thing) > 1 and thickness is None:
        thickness = float(start["slice_thickness"])
    how = ScanGeometry(
        float(start["defocus_at_start"]), float(start["rotation"]), bool(int(start["transposed"]))
    )
    first = Reconstruction(
        thing, torch.fft.ifftshift(beam, dim=(1, 2)), torch.tensor(start["position"].values),
        torch.tensor(start["loss"].values),
    )  # fmt: skip
    return how, first, replace(options, slices=len(thing), modes=len(beam), slice_thickness=thickness)


def _complex(parts: records.Array) -> Tensor:
    """Return complex numbers of (n, part, y, x)."""
    return torch.complex(*(torch.tensor(parts[:, i]) for i in (0, 1)))
