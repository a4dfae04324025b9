"""The one training loop.

A :class:`Task` says what a step is; :func:`fit` does the epochs: shuffling, averaging of weights, curves,
validation, a budget of time, and checkpoints from which a killed run goes on as if nothing had happened.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import Optimizer

from exitwave.errors import InputError, RunError
from exitwave.networks import checkpoints
from exitwave.networks.engine import Engine, checked_device, fastest_precision, in_precision, start
from exitwave.networks.plan import Curves as Curves
from exitwave.networks.plan import Options as Options
from exitwave.networks.plan import Progress as Progress
from exitwave.networks.plan import Training as Training
from exitwave.networks.weights import checksum

CHECKPOINT = "checkpoint.safetensors"

# Options that a continued run may change: they do not touch what is computed.
_FREE = ("device", "devices", "budget_minutes", "checkpoint_minutes")

Batch = dict[str, torch.Tensor]


class Task(Protocol):
    """What is trained. Dropout and all else that draws from torch's own generators is not resumed exactly."""

    def modules(self) -> Mapping[str, nn.Module]:
        """Return the networks by name."""

    def optimisers(self) -> Mapping[str, Optimizer]:
        """Return the optimisers by name."""

    def step(self, batch: Batch, engine: Engine) -> Mapping[str, torch.Tensor]:
        """Make one update with the modules and optimisers of the engine; return the losses, detached."""

    def validate(self, modules: Mapping[str, nn.Module]) -> Mapping[str, float]:
        """Return measures of the modules given, which are in evaluation mode; there is no gradient."""


def fit(
    task: Task,
    data: Mapping[str, torch.Tensor],
    options: Options,
    *,
    generator: torch.Generator,
    folder: Path | None = None,
    resume: bool = False,
    report: Callable[[Progress], None] | None = None,
) -> Curves:
    """Train a task.

    Parameters
    ----------
    task : Task
        Its modules hold the result afterwards: the averaged weights if there are any, else the last.
    data : mapping of str to Tensor
        All samples, along the first axis of each.
    options : Options
    generator : torch.Generator
        Of the CPU. Shuffles, and draws for the steps.
    folder : Path, optional
        Where the checkpoint is kept; without it there is none.
    resume : bool
        Go on from the checkpoint in the folder, if there is one. On a CPU with as many threads the weights
        end bit for bit as those of a run that was never interrupted.
    report : callable, optional
        Called after each step. What it raises ends the training.

    Returns
    -------
    Curves

    Raises
    ------
    InputError
        For data of unequal lengths or shorter than a batch, a device that is not there, a checkpoint that
        is damaged, was made with something else, or is there without `resume`.
    RunError
        If a loss is not finite. The last checkpoint is from before.
    """
    samples = _samples(data, options.batch)
    path = None if folder is None else Path(folder) / CHECKPOINT
    if resume and path is None:
        raise InputError("no folder to resume from: name it")
    if path is not None and path.exists() and not resume:
        raise InputError(f"{path} is there already: resume it, or remove it to start anew")
    modules, optimisers = dict(task.modules()), dict(task.optimisers())
    device = checked_device(options.device)
    precision = fastest_precision(device) if options.precision == "auto" else options.precision
    chosen = {each.name: getattr(options, each.name) for each in fields(options) if each.name not in _FREE}
    chosen["precision"] = precision
    made_with: dict[str, Any] = {}
    if path is not None:
        told = {name: [list(value.shape), str(value.dtype), checksum(value)] for name, value in data.items()}
        made_with = checkpoints.fingerprint(chosen, told, modules, optimisers)
    engine = start(
        modules, optimisers, generator,
        device=device, devices=options.devices, precision=precision,
    )  # fmt: skip
    run = _Run(task, options, engine, modules, samples, path, made_with)
    if path is not None and path.exists():
        run.load()
    run.go(_resident(data, engine.device), report)
    run.finish()
    return run.curves


def predict(
    network: nn.Module, inputs: torch.Tensor, *conditions: torch.Tensor, batch: int = 16
) -> torch.Tensor:
    """Apply a network to many samples, a batch at a time, without gradient.

    Parameters
    ----------
    network : Module
        On whatever device; its mode, training or evaluation, is left as it is.
    inputs : Tensor, shape (sample, channel, y, x)
    *conditions : Tensor, shape (sample, condition)
    batch : int

    Returns
    -------
    Tensor, shape (sample, channel, y, x)
        On the device of the inputs.
    """
    there = next(network.parameters()).device
    with torch.no_grad():
        parts = [
            network(*(each[first : first + batch].to(there) for each in (inputs, *conditions))).to(
                inputs.device
            )
            for first in range(0, len(inputs), batch)
        ]
    return torch.cat(parts)


def _samples(data: Mapping[str, torch.Tensor], batch: int) -> int:
    counts = {name: len(value) for name, value in data.items()}
    if len(set(counts.values())) != 1:
        raise InputError(f"data of unequal lengths {counts}: give as many samples of each")
    samples = next(iter(counts.values()))
    if samples < batch:
        raise InputError(f"{samples} samples are less than a batch of {batch}: use a smaller batch")
    return samples


def _resident(data: Mapping[str, torch.Tensor], device: torch.device) -> Batch:
    """Return the data on the device if they take less than a quarter of its free memory, else as they are."""
    if device.type == "cuda":
        size = sum(value.numel() * value.element_size() for value in data.values())
        if size > torch.cuda.mem_get_info(device)[0] / 4:
            return dict(data)
    return {name: value.to(device) for name, value in data.items()}


class _Run:
    """A training between two steps."""

    def __init__(
        self,
        task: Task,
        options: Options,
        engine: Engine,
        modules: dict[str, nn.Module],
        samples: int,
        path: Path | None,
        made_with: dict[str, Any],
    ) -> None:
        self.task, self.options, self.engine, self.path = task, options, engine, path
        self.modules, self.made_with, self.samples = modules, made_with, samples
        self.averages = copy.deepcopy(modules) if options.average else {}
        self.per_epoch = samples // options.batch
        self.steps = self.per_epoch * options.epochs
        self.step = 0
        self.order = torch.empty(0, dtype=torch.int64)
        self.sums: dict[str, torch.Tensor] = {}
        self.curves = Curves(precision=engine.precision)
        self.seconds = 0.0
        self.saved_at = -1

    def go(self, data: Batch, report: Callable[[Progress], None] | None) -> None:
        """Take the steps that are left, or as many as the budget allows."""
        budget = math.inf if self.options.budget_minutes is None else 60 * self.options.budget_minutes
        begun, saved = time.monotonic() - self.seconds, time.monotonic()
        for module in self.engine.modules.values():
            module.train()
        while self.step < self.steps and not self.engine.any(self.seconds >= budget):
            self._take_step(data)
            self.seconds = time.monotonic() - begun
            if self.step % self.per_epoch == 0:
                self._end_epoch()
            if self.path and time.monotonic() - saved >= 60 * self.options.checkpoint_minutes:
                self.save()
                saved = time.monotonic()
            if report is not None and self.engine.rank == 0:
                epoch = (self.step - 1) // self.per_epoch + 1
                report(Progress(epoch, self.step, self.steps, self.seconds, self.curves))
        self.save()

    def _take_step(self, data: Batch) -> None:
        position = self.step % self.per_epoch
        if position == 0:
            self.order = torch.randperm(self.samples, generator=self.engine.generator)
            self.sums = {}
        size = self.options.batch
        mine = self.order[position * size : (position + 1) * size][self.engine.rank :: self.engine.ranks]
        batch = {
            name: value[mine.to(value.device)].to(self.engine.device, non_blocking=True)
            for name, value in data.items()
        }
        self.engine.fraction = self.step / self.steps
        losses = self.task.step(batch, self.engine)
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.detach().double()
        self.step += 1
        self.curves.fraction = self.step / self.steps
        self._average()

    def _average(self) -> None:
        # At the beginning the average is over the steps there were, not over the first weights.
        decay = min(self.options.average, self.step / (10 + self.step))
        with torch.no_grad():
            for name, module in self.averages.items():
                torch._foreach_lerp_(
                    list(module.parameters()), list(self.modules[name].parameters()), 1 - decay
                )
                for one, two in zip(module.buffers(), self.modules[name].buffers(), strict=True):
                    one.copy_(two)

    def _means(self) -> dict[str, float]:
        """Return the mean losses of the present epoch so far."""
        count = (self.step - 1) % self.per_epoch + 1
        means = {name: float(self.engine.average(total)) / count for name, total in self.sums.items()}
        for name, value in means.items():
            if not math.isfinite(value):
                raise RunError(
                    f"the loss {name} is {value} by step {self.step}: use a lower rate, or precision 32"
                )
        return means

    def _end_epoch(self) -> None:
        epoch = self.step // self.per_epoch
        for name, value in self._means().items():
            self.curves.losses.setdefault(name, []).append(value)
        self.curves.epoch.append(epoch)
        self.curves.step.append(self.step)
        self.curves.seconds.append(self.seconds)
        every = self.options.validate_every
        if every and (epoch % every == 0 or epoch == self.options.epochs):
            self.curves.validated.append(epoch)
            for name, value in self._validate().items():
                self.curves.validation.setdefault(name, []).append(float(value))

    def _validate(self) -> Mapping[str, float]:
        judged = self.averages or self.modules
        for module in judged.values():
            module.eval()
        with torch.no_grad():
            found = self.task.validate(
                {
                    name: in_precision(module, self.engine.precision, self.engine.device)
                    for name, module in judged.items()
                }
            )
        for module in judged.values():
            module.train()
        return found

    def save(self) -> None:
        """Write the checkpoint, unless there is none to write or it is written already."""
        if self.path is None or self.saved_at == self.step:
            return
        self._means()  # what is not finite is not kept
        self.saved_at = self.step
        if self.engine.rank:
            return
        tensors = {"order": self.order, "generator": self.engine.generator.get_state()}
        tensors |= {f"sum {name}": total for name, total in self.sums.items()}
        scalars = {"step": self.step, "seconds": self.seconds, "curves": self.curves.to_dict()}
        groups = {"module": self.modules, "average": self.averages}
        checkpoints.save(self.path, self.made_with, groups, self.task.optimisers(), tensors, scalars)

    def load(self) -> None:
        """Take over a checkpoint."""
        assert self.path is not None
        groups = {"module": self.modules, "average": self.averages}
        tensors, scalars = checkpoints.load(self.path, self.made_with, groups, self.task.optimisers())
        self.engine.generator.set_state(tensors["generator"])
        self.order = tensors["order"]
        self.sums = {
            name.removeprefix("sum "): value.to(self.engine.device)
            for name, value in tensors.items()
            if name.startswith("sum ")
        }
        self.step, self.seconds = scalars["step"], scalars["seconds"]
        self.curves = Curves(**scalars["curves"])
        self.saved_at = self.step

    def finish(self) -> None:
        """Leave the averaged weights in the modules of the task, in evaluation mode."""
        for name, module in self.modules.items():
            if self.averages:
                module.load_state_dict(self.averages[name].state_dict())
            module.eval()
