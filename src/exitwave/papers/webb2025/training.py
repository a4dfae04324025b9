"""Networks between potential and pattern: what they are given, how they are built and trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from exitwave.networks import tasks, training
from exitwave.networks.pix2pix import GlobalGenerator, MultiscaleDiscriminator
from exitwave.papers.webb2025.parameters import Parameters
from exitwave.papers.webb2025.patterns import Samples, few_beam_patterns
from exitwave.papers.webb2025.scores import mean_square
from exitwave.specimens.crystals import Crystal

# Decay of the averaged weights, which the authors' networks do without.
_AVERAGE = 0.99
# What a conditioned network is told, in units in which it is about 1: Å.
_CELL, _THICKNESS = 5.0, 1000.0


@dataclass(frozen=True)
class Fold:
    """Which crystals train and which test."""

    train: Tensor
    test: Tensor


@dataclass(frozen=True)
class Pairs:
    """What a network is given and what it is to give.

    Attributes
    ----------
    inputs : Tensor, shape (sample, channel, y, x)
        Between -1 and 1; the second channel, if there is one, is the pattern of few beams.
    targets : Tensor, shape (sample, 1, y, x)
    conditions : Tensor, shape (sample, 2), optional
        Lattice parameter and thickness.
    """

    inputs: Tensor
    targets: Tensor
    conditions: Tensor | None = None

    def __getitem__(self, chosen: Tensor) -> Pairs:
        conditions = None if self.conditions is None else self.conditions[chosen]
        return Pairs(self.inputs[chosen], self.targets[chosen], conditions)

    def predict(self, network: nn.Module) -> Tensor:
        """Return what a network makes of the inputs, on the CPU."""
        more = [] if self.conditions is None else [self.conditions]
        return training.predict(network, self.inputs, *more).float().cpu()

    def batch(self) -> dict[str, Tensor]:
        """Return all by the names that tasks know."""
        found = {"input": self.inputs, "target": self.targets}
        return found if self.conditions is None else found | {"conditions": self.conditions}


def fold_of(parameters: Parameters, crystals: Sequence[Crystal]) -> Fold:
    """Return the fold that the seed counts: random ones, or ones that share no prototype.

    ``part`` leaves out training crystals, at random.

    Returns
    -------
    Fold
        Of indices.
    """
    number, folds = len(crystals), parameters.folds
    generator = np.random.default_rng(0)
    if parameters.split == "random":
        part = np.empty(number, int)
        part[generator.permutation(number)] = np.arange(number) % folds
    else:
        names = sorted({crystal.prototype for crystal in crystals})
        sizes = {name: sum(c.prototype == name for c in crystals) for name in names}
        load, place = np.zeros(folds), {}
        # Largest first, each into the emptiest fold; equal ones in random order.
        for i in generator.permutation(len(names)).tolist():
            names[i], names[0] = names[0], names[i]
        for name in sorted(names, key=lambda each: -sizes[each]):
            place[name] = int(load.argmin())
            load[place[name]] += sizes[name]
        part = np.array([place[crystal.prototype] for crystal in crystals])
    test = part == parameters.seed % folds
    train = generator.permutation(np.flatnonzero(~test))
    kept = np.sort(train[: max(1, round(parameters.part * len(train)))])
    return Fold(torch.as_tensor(kept), torch.as_tensor(np.flatnonzero(test)))


def pairs(parameters: Parameters, samples: Samples) -> Pairs:
    """Return what a network of these parameters is given of samples of one thickness."""
    both = (2 * samples.potentials - 1, 2 * samples.patterns - 1)
    inputs, targets = both if parameters.direction == "forward" else both[::-1]
    if parameters.method == "assisted" and parameters.direction == "forward":
        inputs = torch.cat([inputs, 2 * few_beam_patterns(parameters, samples.crystals) - 1], 1)
    if parameters.method != "conditioned":
        return Pairs(inputs, targets)
    cells = torch.tensor([crystal.lattice_parameter for crystal in samples.crystals], dtype=torch.float32)
    told = torch.stack([cells / _CELL, torch.full_like(cells, samples.thickness / _THICKNESS)], 1)
    return Pairs(inputs, targets, told)


def together(parts: Sequence[Pairs]) -> Pairs:
    """Return the pairs of several thicknesses, one after the other."""
    told = [part.conditions for part in parts if part.conditions is not None]
    return Pairs(
        torch.cat([part.inputs for part in parts]),
        torch.cat([part.targets for part in parts]),
        torch.cat(told) if told else None,
    )


def build(parameters: Parameters, channels: int = 1) -> GlobalGenerator:
    """Return the generator of so many input channels, with the weights that the seed draws."""
    return GlobalGenerator(
        channels, 1, width=parameters.width, downsamplings=parameters.downsamplings, blocks=parameters.blocks,
        padding="circular" if parameters.method == "circular" else "reflect",
        conditions=2 if parameters.method == "conditioned" else 0,
        generator=torch.Generator().manual_seed(parameters.seed),
    )  # fmt: skip


def roll(batch: training.Batch, generator: torch.Generator) -> training.Batch:
    """Move the origin of the potential at random, one shift for each sample; the pattern does not change."""
    potential = batch["input"]
    size = potential.shape[-1]
    shifts = torch.randint(size, (len(potential), 2), generator=generator).tolist()
    moved = [torch.roll(one, tuple(shift), (-2, -1)) for one, shift in zip(potential, shifts, strict=True)]
    return batch | {"input": torch.stack(moved)}


def task_of(
    parameters: Parameters, channels: int, judge: Callable[[nn.Module], dict[str, float]]
) -> training.Task:
    """Return the task: pix2pixHD, or regression of the same generator on the mean square error."""
    generator = build(parameters, channels)
    if parameters.method == "gan":
        discriminator = MultiscaleDiscriminator(
            channels + 1, width=parameters.discriminator_width, layers=parameters.discriminator_layers,
            generator=torch.Generator().manual_seed(parameters.seed + 1),
        )  # fmt: skip
        return tasks.Pix2Pix(
            generator, discriminator, rate=parameters.rate, matching=parameters.feature_weight, judge=judge
        )
    shift = {"augment": roll} if parameters.method == "circular" and parameters.direction == "forward" else {}
    optimiser = tasks.adam(generator, parameters.rate * 5)
    return tasks.Regression(generator, optimiser, judge=judge, **shift)  # type: ignore[arg-type]


def train(
    parameters: Parameters, train_on: Pairs, test_on: Pairs, *, device: str, how: training.Training
) -> tuple[nn.Module, training.Curves]:
    """Train a network.

    Parameters
    ----------
    train_on, test_on : Pairs
        The error of the second, and of as many of the first, is part of the curves and of nothing else.

    Returns
    -------
    network : Module
        In evaluation mode.
    curves : Curves
        With the errors during training, ``test`` and ``train`` (Eq. 3).
    """
    seen = train_on[torch.arange(min(len(test_on.inputs), len(train_on.inputs)))]

    def judge(network: nn.Module) -> dict[str, float]:
        told = {"test": test_on, "train": seen}
        return {
            name: float(mean_square(some.predict(network), some.targets).mean())
            for name, some in told.items()
        }

    task = task_of(parameters, train_on.inputs.shape[1], judge)
    options = training.Options(
        epochs=parameters.epochs, batch=parameters.batch, device=device, devices=how.devices,
        budget_minutes=how.budget_minutes, validate_every=max(1, parameters.epochs // 20),
        average=0.0 if parameters.method == "gan" else _AVERAGE,
    )  # fmt: skip
    curves = training.fit(
        task, train_on.batch(), options, generator=torch.Generator().manual_seed(parameters.seed + 2),
        folder=how.folder, resume=how.resume, report=how.report,
    )  # fmt: skip
    return next(iter(task.modules().values())), curves
