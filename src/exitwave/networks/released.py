"""Networks whose weights come with the project, in 8 bits for each weight of a matrix or filter."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from exitwave.errors import InputError
from exitwave.networks.weights import (
    NETWORKS,
    checked_architecture,
    load_weights,
    read_tensors,
    write_tensors,
)
from exitwave.project import released_file

# The largest step of a weight, and what the name of a tensor of scales ends with.
_LARGEST, _SCALE = 127, ":scale"


def pack(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights with matrices and filters in 8 bits, each row or filter in steps of its own.

    Whole numbers stay as they are; all else is float32.
    """
    packed = {}
    for name, value in weights.items():
        if value.ndim > 1 and value.is_floating_point():
            most = value.float().abs().amax(tuple(range(1, value.ndim)), keepdim=True)
            scale = most.clamp_min(torch.finfo(torch.float32).tiny) / _LARGEST
            packed[name] = (value / scale).round().to(torch.int8)
            packed[name + _SCALE] = scale
        else:
            packed[name] = value.float() if value.is_floating_point() else value
    return packed


def unpack(packed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights as float32 from what :func:`pack` made of them."""
    return {
        name: value * packed[name + _SCALE] if name + _SCALE in packed else value
        for name, value in packed.items()
        if not name.endswith(_SCALE)
    }


def write_released(
    source: str | os.PathLike[str], path: str | os.PathLike[str], about: Mapping[str, Any]
) -> Path:
    """Write the weights of a file packed into another, with what it says of them, whole or not at all.

    A file that holds them already is left as it is.

    Parameters
    ----------
    source : path
        Of :func:`exitwave.networks.weights.save_weights`.
    path : path
        Ends with ``.safetensors``.
    about : mapping
        What is to be known besides.

    Raises
    ------
    InputError
        If the source is missing or damaged.
    OSError
        If the disk refuses.
    """
    weights, told = load_weights(source)
    packed, told = pack(weights), {**told, **about}
    # The order of a header is any: a file that holds them already keeps its bytes, and with them its digest.
    return Path(path) if _holds(path, packed, told) else write_tensors(path, packed, told)


def _holds(path: str | os.PathLike[str], packed: Mapping[str, Tensor], about: Mapping[str, Any]) -> bool:
    """Tell whether a file is there and holds just these."""
    try:
        found, told = read_tensors(path)
    except InputError:
        return False
    same = found.keys() == packed.keys() and told == about
    return same and all(torch.equal(found[name], value) for name, value in packed.items())


def load_released(paper: str, run: str, seed: int, scale: str = "workshop") -> nn.Module:
    """Build a released network, in evaluation mode, with float32 weights.

    Parameters
    ----------
    paper, run : str
        A run of its claims.
    seed : int
        Of the network.
    scale : str
        At smoke scale the network is that of workshop scale.

    Raises
    ------
    InputError
        If its file is missing, damaged, or names no network that this version can build.
    """
    return read_network(released_file(paper, run, seed, scale))[0]


def read_network(path: str | os.PathLike[str]) -> tuple[nn.Module, dict[str, Any]]:
    """Build the network of a file, packed or not, in evaluation mode, with float32 weights.

    Returns
    -------
    network : Module
    about : dict
        What the file says of it.

    Raises
    ------
    InputError
        If the file is missing, damaged, or names no network that this version can build.
    """
    packed, about = load_weights(path)
    try:
        network = NETWORKS[about["network"]](**checked_architecture(about))
        network.load_state_dict(unpack(packed))
    except Exception as error:  # what is said of it may be anything that JSON holds
        first = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise InputError(f"{path}: no network of this version ({first}): fetch or make it again") from error
    return network.eval(), about
