"""What the metadata of a microscope file tell of its images: pixel size, beam energy and defocus.

The functions take a data set as RosettaSciIO gives it: ``data``, ``axes``, ``metadata``,
``original_metadata`` and, from most plugins, a ``mapping`` from the last to the third.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from exitwave.readers.guards import one_line, refuse

Signal = Mapping[str, Any]
Axis = Mapping[str, Any]

# Printers' units and pixels: a program that does not know the magnification writes them.
_UNCALIBRATED = {"", "none", "px", "pixel", "pixels", "inch", "cm", "<undefined>", "undefined"}
_ANGSTROM_NAMES = {"A", "\u00c5", "\u212b", "ang", "Ang"}


def calibrated_axes(path: Path, signal: Signal, plugin: str) -> list[dict[str, Any]]:
    """Return one dictionary for each axis of the data, with its scale and units."""
    axes = [dict(axis) for axis in signal["axes"]]
    if len(axes) != np.ndim(signal["data"]):
        raise refuse(path, f"{len(axes)} axes for data of shape {np.shape(signal['data'])}: save it again")
    if sum(not axis.get("navigate", False) for axis in axes) == 1:
        raise refuse(path, "spectra, not images: save the signal with two signal axes")
    if plugin == "tiff":
        description = str(signal["original_metadata"].get("ImageDescription", ""))
        if description.startswith("ImageJ="):
            _check_imagej(path, description, axes)
        _calibrate_tiff(axes[-2:], signal["original_metadata"], description)
    return axes


def _check_imagej(path: Path, description: str, axes: Sequence[Axis]) -> None:
    """Refuse a stack of ImageJ that is cut: the images after the first have no entry in its directory."""
    declared = re.search(r"^images=(\d{1,9})$", description, re.MULTILINE)
    count = axes[0]["size"] if len(axes) > 2 else 1
    if declared and int(declared[1]) > count:
        raise refuse(path, f"truncated: {count} of {declared[1]} images: copy it again")


def _calibrate_tiff(axes: Sequence[dict[str, Any]], tags: Mapping[str, Any], description: str) -> None:
    """Mend two axes of a TIFF image.

    RosettaSciIO prefers ImageJ's resolution, which is rounded, over the exact scale of DigitalMicrograph's
    tags 65009 and 65010, and knows of ImageJ's units only the micron.
    """
    unit = re.search(r"^unit=(.*)$", description, re.MULTILINE) if description.startswith("ImageJ=") else None
    for axis, scale, resolution in zip(axes, ("65010", "65009"), ("YResolution", "XResolution"), strict=True):
        if scale in tags:
            axis["scale"] = tags[scale]
        elif unit:
            pixels, units = tags.get(resolution, (0, 1))
            axis["scale"] = units / pixels if pixels else None
            axis["units"] = unit[1].strip().replace("\\u00B5", "µ")


def _angstrom(axis: Axis) -> float | None:
    """Return how many Å the unit of an axis is; None where it is not calibrated, 0 where it is no length."""
    import pint

    unit = str(axis.get("units") or "").strip()
    if unit.lower() in _UNCALIBRATED:
        return None
    if unit in _ANGSTROM_NAMES:
        return 1.0
    # Only plain names go to pint, which would work out a power tower.
    if not re.fullmatch(r"[^\W\d_]{1,20}", unit):
        return 0.0
    registry: Any = pint.application_registry
    try:
        return float(registry.Quantity(1.0, unit).to("angstrom").magnitude)
    except (pint.PintError, AttributeError, TypeError, ValueError):
        return 0.0


def _real(value: Any) -> float | None:
    """Return a number of the metadata, None where it is missing or not finite."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def pixel_size(path: Path, axes: Sequence[Axis], plugin: str) -> tuple[float, float] | None:
    """Return the pixel size ``(y, x)`` in Å, None where the file is not calibrated.

    Raises
    ------
    InputError
        If the axes are calibrated, but not in a length, or run backwards.
    """
    sizes = []
    for axis in axes[-2:]:
        angstrom, scale = _angstrom(axis), _real(axis.get("scale"))
        if angstrom == 0:
            unit = one_line(axis["units"])
            raise refuse(path, f"pixels in {unit}, not a length: give images, or pass sampling=... in Å")
        if angstrom is None or not scale:
            return None
        if scale < 0:
            raise refuse(path, f"pixel size {scale:g} is not positive: pass sampling=... in Å")
        sizes.append(scale * angstrom)
    if plugin == "mrc" and np.allclose(sizes, 1.0, rtol=1e-6):  # what programs write that do not know
        return None
    return sizes[0], sizes[1]


def _lookup(tree: Any, path: str) -> Any:
    """Return what stands at a dotted path of nested dictionaries, None where it ends early."""
    for key in path.split("."):
        if not isinstance(tree, Mapping) or key not in tree:
            return None
        tree = tree[key]
    return tree


def beam_energy(signal: Signal) -> float | None:
    """Return the beam energy in eV, None where the file has none or 0, as without a connected microscope."""
    target = "Acquisition_instrument.TEM.beam_energy"
    kilovolt = _real(_lookup(signal["metadata"], target))
    for source, (name, convert) in signal.get("mapping", {}).items():
        # Most plugins leave it to their mapping to carry values from the original metadata over.
        value = _lookup(signal["original_metadata"], source) if name == target else None
        if kilovolt is None and value is not None:
            kilovolt = _real(convert(value) if convert else value)
    return 1e3 * kilovolt if kilovolt and kilovolt > 0 else None


def defocus(signal: Signal, axes: Sequence[Axis], count: int) -> list[float] | None:
    """Return the defoci in Å, underfocus positive, from the three places that are known to hold them."""
    if len(axes) == 3 and str(axes[0].get("name")).strip().lower() == "defocus":
        angstrom = _angstrom(axes[0])
        listed = np.atleast_1d(np.asarray(axes[0].get("axis", ())))  # of HyperSpy, where steps are uneven
        if angstrom and listed.shape == (count,) and listed.dtype.kind in "iuf" and np.isfinite(listed).all():
            return [angstrom * float(value) for value in listed]
        scale, offset = _real(axes[0].get("scale")), _real(axes[0].get("offset"))
        if not angstrom or scale is None or offset is None:
            return None
        return [angstrom * (offset + scale * index) for index in range(count)]
    if count > 1:  # one number in the metadata does not tell which of the images it belongs to
        return None
    original = signal["original_metadata"]
    metres = _real(_lookup(original, "Optics.Defocus"))
    if metres is not None:
        return [-1e10 * metres]
    tecnai = _lookup(original, "ImageList.TagGroup0.ImageTags.Tecnai.Microscope Info")
    found = re.search(r"Defocus \(um\)\s+(\S+)", str(tecnai))
    micrometres = _real(found[1]) if found else None
    return None if micrometres is None else [-1e4 * micrometres]
