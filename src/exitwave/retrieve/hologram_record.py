"""From the record of an off-axis hologram to a record of its image wave."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr

from exitwave import records
from exitwave.errors import InputError
from exitwave.retrieve.holography import EDGE, Retrieved, find_carrier, retrieve_wave

Warn = Callable[[str], None]
Observe = Callable[[int, float], None]

_SAME = 1e-3  # relative: metadata of two files may be rounded differently
_WEAK = 0.05  # of the modulus of a reference: what is divided by less is noise
_LOST = 1.0  # rad: half a turn is within two standard deviations
_OVERLAP = 0.5  # of the carrier in the radius: from there on the centre band of a weak object reaches in

_LONG_NAMES = {
    "carrier": (
        "1/Å",
        "spatial frequency of the reference wave; the wave is that of the side band at minus it",
    ),
    "radius": ("1/Å", "radius of the aperture in the side band, where it lets one half through"),
    "resolution": ("Å", "shortest period that the aperture lets through by one half"),
    "contrast": ("1", "contrast of the fringes, mean over the field"),
    "reference_contrast": ("1", "contrast of the fringes of the reference hologram"),
    "electrons": ("1", "electrons in an element of resolution of the hologram, both waves together"),
    "deviation": ("rad", "standard deviation of the phase by counting"),
    "phase": ("rad", "phase of the wave, unwrapped"),
}


@dataclass(frozen=True)
class Options:
    """How to retrieve.

    Attributes
    ----------
    carrier : (float, float), optional
        Where to look for the carrier, (qy, qx) in 1/Å: the nearest side band, with that sign, is taken.
    conjugate : bool
        Take the other side band.
    radius, edge, dose, reference_dose
        As :func:`exitwave.retrieve.holography.retrieve_wave` has them.
    device : str
        Torch device.
    """

    carrier: tuple[float, float] | None = None
    conjugate: bool = False
    radius: float | None = None
    edge: float = EDGE
    dose: float | None = None
    reference_dose: float | None = None
    device: str = "cpu"


def retrieve(
    record: xr.Dataset,
    reference: xr.Dataset | None = None,
    *,
    observe: Observe | None = None,
    warn: Warn | None = None,
    **options: Any,
) -> xr.Dataset:
    """Retrieve the image wave of a hologram.

    Parameters
    ----------
    record : xarray.Dataset
        Layout ``images`` with one image, in any unit of intensity.
    reference : xarray.Dataset, optional
        The same without specimen.
    observe : callable, optional
        Called with 1 and nan when the wave is there, before its phase is unwrapped.
    warn : callable, optional
        Called with each thing that looks wrong, before the wave is returned.
    **options
        See :class:`Options`.

    Returns
    -------
    xarray.Dataset
        Layout ``wave``, the mean of the wave positive, for its phase is known but for a constant; beside it
        ``phase`` (y, x), unwrapped (M. A. Herráez et al., Appl. Opt. 41, 7437 (2002), by scikit-image),
        ``carrier`` (axis), ``radius``, ``resolution``, ``contrast``, ``electrons``, ``deviation``, and with a
        reference ``reference_contrast``.

    Raises
    ------
    InputError
        For several images, a reference of another pixel size, shape or energy, and what
        :func:`exitwave.retrieve.holography.retrieve_wave` refuses.
    """
    how = Options(**options)
    hologram, sampling = _image(record, "hologram", how.device)
    empty = None
    if reference is not None:
        empty, _ = _image(reference, "reference", how.device)
        _check_alike(record, reference)
    carrier = find_carrier(hologram if empty is None else empty, sampling=sampling, near=how.carrier)
    if how.conjugate:
        carrier = (-carrier[0], -carrier[1])
    found = retrieve_wave(
        hologram, sampling=sampling, carrier=carrier, reference=empty, radius=how.radius, edge=how.edge,
        dose=how.dose, reference_dose=how.reference_dose,
    )  # fmt: skip
    if warn is not None:
        of_reference = [] if empty is None else _doubts_of_reference(hologram, empty, found, sampling)
        for doubt in [*of_reference, *_doubts(found)]:
            warn(doubt)
    if observe is not None:
        observe(1, math.nan)
    return _described(found, record)


def _image(record: xr.Dataset, name: str, device: str) -> tuple[torch.Tensor, tuple[float, float]]:
    images = records.validate(record, "images")["intensity"].values
    if len(images) != 1:
        raise InputError(f"{len(images)} images where one {name} is wanted: give them one by one")
    return torch.as_tensor(images[0], device=device), records.sampling_of(record)


def _check_alike(record: xr.Dataset, reference: xr.Dataset) -> None:
    """Refuse a reference that was recorded in another way."""
    for name, unit, one, other in (
        ("pixels", "Å", records.sampling_of(record), records.sampling_of(reference)),
        ("beam energy", "eV", float(record["energy"]), float(reference["energy"])),
    ):
        if not np.allclose(one, other, rtol=_SAME, atol=0):
            raise InputError(
                f"{name} of the hologram {one} {unit}, of the reference {other} {unit}: give a reference "
                "that was recorded as the hologram was"
            )


def _doubts_of_reference(
    hologram: torch.Tensor, empty: torch.Tensor, found: Retrieved, sampling: tuple[float, float]
) -> list[str]:
    """Return where a reference does not belong to a hologram, or has no fringes."""
    try:
        own = find_carrier(hologram, sampling=sampling, near=found.carrier)
    except InputError:
        return ["the hologram has no fringes where the reference has them: do the two belong together?"]
    doubts = []
    apart = math.dist(own, found.carrier)
    if apart > 0.5 * found.radius:
        doubts.append(
            f"the side band of the hologram lies {apart:.3g} 1/Å from that of the reference, more than half "
            "the radius of the aperture: was the biprism at another voltage?"
        )
    alone = retrieve_wave(empty, sampling=sampling, carrier=found.carrier, radius=found.radius)
    weak = float((alone.wave.abs() < _WEAK).double().mean())  # over its median
    if weak > 0:
        doubts.append(
            f"the reference has hardly any fringes in {100 * weak:.2g} % of the field: "
            "the wave is noise there"
        )
    return doubts


def _doubts(found: Retrieved) -> list[str]:
    """Return what speaks against a wave."""
    doubts = []
    length = math.hypot(*found.carrier)
    if found.deviation > _LOST:
        doubts.append(
            f"counting alone gives the phase a standard deviation of {found.deviation:.2g} rad at a contrast "
            f"of {found.contrast:.2g}: try a smaller aperture, radius={found.radius / 2:.2g} 1/Å"
        )
    if found.radius > _OVERLAP * length:
        doubts.append(
            f"the aperture is wider than half the carrier, {length:.3g} 1/Å: the centre band of the specimen "
            "reaches into it"
        )
    return doubts


def _described(found: Retrieved, record: xr.Dataset) -> xr.Dataset:
    """Return a wave as a record."""
    from skimage.restoration import unwrap_phase

    wave = (found.wave * torch.sgn(found.wave.mean()).conj()).cpu().numpy()
    result = records.make_record(
        "wave",
        records.to_parts(wave),
        energy=float(record["energy"]),
        y=record["y"].values,
        x=record["x"].values,
    )
    attrs = {"units": "1", "long_name": "axis of the image"}
    result = result.assign_coords(axis=xr.Variable("axis", ["y", "x"], attrs))
    angle = np.angle(wave)
    unwrapped = unwrap_phase(angle, rng=0)  # type: ignore[no-untyped-call]
    values: dict[str, tuple[tuple[str, ...], Any]] = {
        "phase": (("y", "x"), unwrapped.astype(angle.dtype)),
        "carrier": (("axis",), found.carrier),
    }
    for name in ("radius", "resolution", "contrast", "reference_contrast", "electrons", "deviation"):
        if getattr(found, name) is not None:
            values[name] = ((), getattr(found, name))
    for name, (dims, value) in values.items():
        units, long_name = _LONG_NAMES[name]
        result[name] = xr.Variable(dims, np.asarray(value), {"units": units, "long_name": long_name})
    return result
