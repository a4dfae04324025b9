"""Tensors in files: safetensors with a JSON of what they are, whole or not at all. No pickle."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from exitwave import files
from exitwave.errors import InputError
from exitwave.networks.convolution4d import ClusterNet
from exitwave.networks.fusionnet import FusionNet
from exitwave.networks.oneshot import OneShot
from exitwave.networks.pix2pix import GlobalGenerator, MultiscaleDiscriminator
from exitwave.networks.radial import RadialModel
from exitwave.networks.scannet import ScanNet
from exitwave.networks.unet import UNet

NETWORKS: dict[str, type[nn.Module]] = {
    each.__name__: each for each in (GlobalGenerator, MultiscaleDiscriminator, UNet)
}
# Added here, so that results of the others keep their source.
NETWORKS.update(FusionNet=FusionNet, OneShot=OneShot)
NETWORKS.update(RadialModel=RadialModel, ClusterNet=ClusterNet, ScanNet=ScanNet)

_ABOUT, _CHECKSUM = "exitwave", "crc32"  # two entries of the metadata
# The third, of what the other two and the header say; files from before have none.
_SEAL = "exitwave crc32"
_MOST = 4096  # of whatever is counted in an architecture


def write_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, torch.Tensor], about: Mapping[str, Any]
) -> Path:
    """Write tensors and a JSON about them as one safetensors file, under a temporary name renamed at the end.

    Parameters
    ----------
    path : path
    tensors : mapping of str to Tensor
        Of any device and layout.
    about : mapping
        Anything JSON can hold; NaN and infinities it cannot.

    Raises
    ------
    OSError
        If the disk refuses; a file that was there before is then as it was.
    """
    from safetensors.torch import save

    path = Path(path)
    plain = {name: _plain(tensor) for name, tensor in tensors.items()}
    metadata = {
        _ABOUT: json.dumps(dict(about), sort_keys=True, allow_nan=False),
        _CHECKSUM: str(_checksum(plain)),
    }  # fmt: skip
    metadata[_SEAL] = _seal(plain, metadata)
    with files.whole(path) as temporary:  # save_file leaves files of its own when it is killed
        temporary.write_bytes(save(plain, metadata))
    return path


def _seal(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> str:
    """Return the checksum of what stands before the numbers: shapes, types, and what is said of them."""
    header = {name: [str(value.dtype), list(value.shape)] for name, value in tensors.items()}
    said = {name: value for name, value in metadata.items() if name != _SEAL}
    return str(zlib.crc32(json.dumps([header, said], sort_keys=True).encode()))


def read_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, torch.Tensor], dict[str, Any] | None]:
    """Read a safetensors file into memory.

    Returns
    -------
    tensors : dict of str to Tensor
        On the CPU.
    about : dict or None
        What was written about them; None for a file of another program.

    Raises
    ------
    InputError
        If the file is missing, no safetensors, or damaged.
    """
    tensors, metadata, about = _read(Path(path))
    if _CHECKSUM in metadata and metadata[_CHECKSUM] != str(_checksum(tensors)):
        raise InputError(f"{path}: damaged, its checksum is not that of its numbers: make or fetch it again")
    if _SEAL in metadata and metadata[_SEAL] != _seal(tensors, metadata):
        raise InputError(f"{path}: damaged, its checksum is not that of its header: make or fetch it again")
    return tensors, about


def read_about(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Read what was written about the tensors of a file, without reading these.

    Raises
    ------
    InputError
        If the file is missing, or no safetensors.
    """
    return _read(Path(path), tensors=False)[2]


def _read(
    path: Path, *, tensors: bool = True
) -> tuple[dict[str, torch.Tensor], dict[str, str], dict[str, Any] | None]:
    """Return tensors, metadata, and from these what was written about the tensors."""
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load

    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        if tensors:  # in one piece: safe_open opens it once for the header, and again for the numbers
            content = path.read_bytes()
            found = load(content)
            metadata = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get(
                "__metadata__", {}
            )
        else:
            found = {}
            with safe_open(path, framework="pt") as opened:
                metadata = opened.metadata() or {}
        about = json.loads(metadata[_ABOUT]) if _ABOUT in metadata else None
    except (SafetensorError, OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        reason = _first_line(error)[:200]
        raise InputError(
            f"{path}: not a readable safetensors file ({reason}): make or fetch it again"
        ) from error
    return found, metadata, about


def _plain(tensor: torch.Tensor) -> torch.Tensor:
    """Return a contiguous copy on the CPU that shares memory with nothing."""
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def _checksum(tensors: Mapping[str, torch.Tensor]) -> int:
    found = 0
    for name in sorted(tensors):
        found = zlib.crc32(name.encode(), found)
        found = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, found)
    return found


def checksum(tensor: torch.Tensor) -> int:
    """Return the CRC-32 of the numbers of a tensor."""
    return _checksum({"": _plain(tensor)})


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def save_weights(path: str | os.PathLike[str], module: nn.Module, about: Mapping[str, Any]) -> Path:
    """Write the weights of a network in float16.

    Parameters
    ----------
    path : path
        Ends with ``.safetensors``.
    module : Module
        One of :data:`NETWORKS` writes its architecture too, for :func:`load_network`.
    about : mapping
        What is to be known of the weights: give ``provenance``, and whatever the predictions need.

    Raises
    ------
    InputError
        If a weight is not finite, or too large for float16.
    OSError
        If the disk refuses.
    """
    tensors = {}
    for name, value in module.state_dict().items():
        tensors[name] = value.half() if value.is_floating_point() else value
        if not bool(tensors[name].isfinite().all()):
            raise InputError(f"{path}: {name} is not finite in float16: train with smaller steps")
    kind = type(module).__name__
    if kind in NETWORKS:
        about = {**about, "network": kind, "architecture": module.architecture}
    return write_tensors(path, tensors, about)


def load_weights(path: str | os.PathLike[str]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read weights as float32, and what was written about them.

    Raises
    ------
    InputError
        If the file is missing, damaged, or holds no weights of this project.
    """
    tensors, about = read_tensors(path)
    if not isinstance(about, dict):
        raise InputError(f"{path}: no weights of exitwave: it says nothing about what it holds")
    return {
        name: value.float() if value.is_floating_point() else value for name, value in tensors.items()
    }, about


def checked_architecture(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the architecture that a file names; ValueError for numbers that would build for days.

    Raises
    ------
    KeyError, TypeError, ValueError
    """
    waiting: list[Any] = [about["architecture"]]
    while waiting:
        each = waiting.pop()
        if isinstance(each, list | dict):
            waiting += each.values() if isinstance(each, dict) else each
        elif isinstance(each, int) and abs(each) > _MOST:
            raise ValueError(f"{each} layers, channels or pixels, and no network has more than {_MOST}")
    return dict(about["architecture"])


def load_network(path: str | os.PathLike[str]) -> tuple[nn.Module, dict[str, Any]]:
    """Build the network that a file of weights is for, in evaluation mode.

    Raises
    ------
    InputError
        As :func:`load_weights`, and if the file names no network that this version can build.
    """
    state, about = load_weights(path)
    kind = about.get("network")
    if not isinstance(kind, str) or kind not in NETWORKS:
        named = repr(kind)[:60]
        raise InputError(f"{path}: weights of an unknown network {named}: use one of {', '.join(NETWORKS)}")
    try:
        network = NETWORKS[kind](**checked_architecture(about))
        network.load_state_dict(state)
    except Exception as error:  # an architecture may be anything that JSON holds
        reason = _first_line(error)[:200]
        raise InputError(
            f"{path}: weights that do not fit {kind} ({reason}): make or fetch it again"
        ) from error
    return network.eval(), about
