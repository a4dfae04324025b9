"""The network of the chapter that is used on scans of others, and what it was trained on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from exitwave.errors import InputError
from exitwave.networks.released import read_network
from exitwave.networks.scannet import ScanNet
from exitwave.papers.cao2020 import general, methods
from exitwave.papers.cao2020.parameters import Parameters
from exitwave.project import released_file
from exitwave.retrieve.scan_network import Trained

# The run of claims.yml whose network is released.
NETWORK = "general"
# Of nine in ten of the scans that it has learned from, Å: boxes hold whole cells.
STEPS = (0.27, 0.43)


def trained_with(about: Mapping[str, Any]) -> Trained:
    """Return what a network was trained on, from what the file of its weights says.

    Raises
    ------
    InputError
        If it does not say so, or was not told probe and dose.
    """
    made = about.get("provenance")
    if not isinstance(made, Mapping) or made.get("paper") != "cao2020" or not made.get("parameters"):
        raise InputError("weights that do not say how they were trained: use those of the 4D-STEM chapter")
    parameters = Parameters.at(**made["parameters"])
    fine = methods.BINNING
    return Trained(
        energy=parameters.energy, pixel=fine * parameters.pixel, pixels=parameters.detector // fine,
        origin=-(fine - 1) / (2 * fine), step=STEPS, semiangle=general.SEMIANGLES, defocus=general.DEFOCI,
        dose=general.DOSES, unit=general.UNIT, scans=parameters.materials, updates=parameters.steps,
    )  # fmt: skip


def load(weights: Path | None = None) -> tuple[ScanNet, Trained, Path]:
    """Return a network, what it was trained on, and its file: the released one, or another.

    Raises
    ------
    InputError
        If the file is missing, damaged, or holds another kind of network.
    """
    path = released_file("cao2020", NETWORK, 0) if weights is None else weights
    network, about = read_network(path)
    if not isinstance(network, ScanNet) or network.architecture["conditions"] == 0:
        raise InputError(f"{path}: no network of scans that is told probe and dose: use another")
    try:
        return network, trained_with(about), path
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
