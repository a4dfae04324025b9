"""The networks of the chapter that are used on images of others, and what they were trained on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from exitwave.errors import InputError
from exitwave.networks.released import read_network
from exitwave.papers.ede2020.data import VOLTAGES
from exitwave.papers.ede2020.parameters import Parameters
from exitwave.project import released_file
from exitwave.retrieve.one_shot import CONDITIONS, Trained, check_network

# Runs of claims.yml whose networks are released: the wave of a modulus, and its alternatives.
NETWORK, FLOW = "better-multi-n3", "flow-multi-n3"


def trained_with(about: Mapping[str, Any]) -> Trained:
    """Return what a network was trained on, from what the file of its weights says.

    Raises
    ------
    InputError
        If it does not say so, or names another paper.
    """
    made = about.get("provenance")
    if not isinstance(made, Mapping) or made.get("paper") != "ede2020" or not made.get("parameters"):
        raise InputError("weights that do not say how they were trained: use those of the one-shot chapter")
    parameters = Parameters.at(**made["parameters"])
    ranges = parameters.ranges
    least, greatest = ((each + 2 * parameters.margin) / parameters.grid for each in ranges.width)
    return Trained(
        energies=VOLTAGES, thickness=ranges.depth, sampling=(least, greatest), pixels=parameters.crop,
        waves=parameters.waves, crystals=parameters.crystals, steps=parameters.steps, scope=parameters.scope,
        terms=parameters.n_terms,
    )  # fmt: skip


def load(
    run: str, weights: Path | None = None, *, inputs: int = 1, conditions: int = 0
) -> tuple[nn.Module, Trained, Path]:
    """Return a network, what it was trained on, and its file: that of seed 0 of a run, or another.

    Parameters
    ----------
    run : str
        :data:`NETWORK` or :data:`FLOW`.
    weights : path, optional
        The other file.
    inputs, conditions : int
        Channels that the network must take, and conditions besides those of the wave.

    Raises
    ------
    InputError
        If the file is missing, damaged, or holds another kind of network.
    """
    path = released_file("ede2020", run, 0) if weights is None else weights
    network, about = read_network(path)
    try:
        check_network(network, inputs=inputs, conditions=CONDITIONS + conditions)
        return network, trained_with(about), path
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
