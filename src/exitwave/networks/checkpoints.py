"""Checkpoints of a training: one safetensors file, its JSON inside, replaced in one stroke."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from exitwave.errors import InputError
from exitwave.networks.weights import read_about, read_tensors, write_tensors

FORMAT = "exitwave checkpoint 1"

Tensors = dict[str, torch.Tensor]


def fingerprint(
    options: Mapping[str, Any],
    data: Mapping[str, Any],
    modules: Mapping[str, nn.Module],
    optimisers: Mapping[str, Optimizer],
) -> dict[str, Any]:
    """Return what a run and its continuation must have in common, as flat JSON."""
    found: dict[str, Any] = {"format": FORMAT}
    found |= {f"option {name}": value for name, value in options.items()}
    found |= {f"data {name}": value for name, value in data.items()}
    for name, module in modules.items():
        for key, value in module.state_dict().items():
            found[f"shape of {name} {key}"] = list(value.shape)
    for name, optimiser in optimisers.items():
        found[f"kind of optimiser {name}"] = type(optimiser).__name__
        for index, group in enumerate(optimiser.state_dict()["param_groups"]):
            for key, value in group.items():
                found[f"{key} of optimiser {name}, group {index}"] = _listed(value)
    return found


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def save(
    path: Path,
    made_with: Mapping[str, Any],
    modules: Mapping[str, Mapping[str, nn.Module]],
    optimisers: Mapping[str, Optimizer],
    tensors: Mapping[str, torch.Tensor],
    scalars: Mapping[str, Any],
) -> None:
    """Write a checkpoint.

    Parameters
    ----------
    path : Path
    made_with : mapping
        The :func:`fingerprint`.
    modules : mapping
        Groups of modules by name: those that learn, their averages.
    optimisers, tensors, scalars : mappings
        The optimisers, and what else is to be kept.
    """
    stored: Tensors = {f"other/{name}": value for name, value in tensors.items()}
    for group, members in modules.items():
        for name, module in members.items():
            stored |= {f"{group}/{name}/{key}": value for key, value in module.state_dict().items()}
    states: dict[str, Any] = {}
    for name, optimiser in optimisers.items():
        state = optimiser.state_dict()
        plain: dict[str, dict[str, Any]] = {}
        for index, entries in state["state"].items():
            plain[str(index)] = {}
            for key, value in entries.items():
                if isinstance(value, torch.Tensor):
                    stored[f"optimiser/{name}/{index}/{key}"] = value
                else:
                    plain[str(index)][key] = value
        groups = [{key: _listed(value) for key, value in each.items()} for each in state["param_groups"]]
        states[name] = {"groups": groups, "scalars": plain}
    about = {"made_with": dict(made_with), "optimisers": states, "scalars": dict(scalars)}
    write_tensors(path, stored, about)


def load(
    path: Path,
    made_with: Mapping[str, Any],
    modules: Mapping[str, Mapping[str, nn.Module]],
    optimisers: Mapping[str, Optimizer],
) -> tuple[Tensors, dict[str, Any]]:
    """Read a checkpoint into modules and optimisers, and return the other tensors and the scalars.

    Raises
    ------
    InputError
        If it is damaged, no checkpoint, or made with another network, optimiser, data or options.
        Nothing has been changed then.
    """
    stored, read = read_tensors(path)
    about = _checked(path, read)
    _compare(path, about["made_with"], made_with)
    changed: list[Any] = [
        *optimisers.values(),
        *(each for members in modules.values() for each in members.values()),
    ]
    before = [copy.deepcopy(each.state_dict()) for each in changed]
    try:
        for group, members in modules.items():
            for name, module in members.items():
                module.load_state_dict(_under(stored, f"{group}/{name}/"))
        for name, optimiser in optimisers.items():
            _restore(optimiser, about["optimisers"][name], _under(stored, f"optimiser/{name}/"))
        return _under(stored, "other/"), dict(about["scalars"])
    except Exception as error:  # its JSON may be any
        for each, state in zip(changed, before, strict=True):
            each.load_state_dict(state)
        raise _damaged(path, error) from error


def seconds(path: Path) -> float:
    """Return for how long the training had run that a checkpoint is of.

    Raises
    ------
    InputError
        If it is damaged, or no checkpoint.
    """
    about = _checked(path, read_about(path))
    try:
        found = float(about["scalars"]["seconds"])
        if not 0 <= found < math.inf:
            raise ValueError(f"{found} seconds")
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise _damaged(path, error) from error
    return found


def _checked(path: Path, about: Any) -> dict[str, Any]:
    made_with = about.get("made_with") if isinstance(about, dict) else None
    if not isinstance(about, dict) or not isinstance(made_with, dict) or made_with.get("format") != FORMAT:
        raise InputError(f"{path}: no checkpoint of this version: remove it to start anew")
    return about


def _damaged(path: Path, error: Exception) -> InputError:
    reason = f"{type(error).__name__} {error}".splitlines()[0][:120]
    return InputError(f"{path}: damaged checkpoint ({reason}): remove it to start anew")


def _under(stored: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): value for name, value in stored.items() if name.startswith(prefix)}


def _compare(path: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for name in [*now, *then]:
        if then.get(name) != now.get(name):
            apart = " ".join(f"{name} {then.get(name)}, not {now.get(name)}".split())  # one line, of any JSON
            raise InputError(f"{path} was made with {apart}: use the same again, or another folder")


def _restore(optimiser: Optimizer, saved: Mapping[str, Any], tensors: Tensors) -> None:
    """Put an optimiser into its saved state, each tensor laid out in memory as its parameter is."""
    current = optimiser.state_dict()["param_groups"]
    parameters = [each for group in optimiser.param_groups for each in group["params"]]
    state: dict[int, dict[str, Any]] = {int(index): dict(each) for index, each in saved["scalars"].items()}
    for name, value in tensors.items():
        index, key = name.split("/", 1)
        parameter = parameters[int(index)]
        same = value.shape == parameter.shape
        state[int(index)][key] = torch.empty_like(parameter).copy_(value) if same else value
    groups = [
        {key: tuple(value) if isinstance(now.get(key), tuple) else value for key, value in then.items()}
        for then, now in zip(saved["groups"], current, strict=True)
    ]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
