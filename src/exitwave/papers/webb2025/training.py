"""Networks between potential and pattern: how they are built, trained and judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from exitwave import metrics
from exitwave.networks import tasks, training
from exitwave.networks.pix2pix import GlobalGenerator, MultiscaleDiscriminator
from exitwave.papers.webb2025.parameters import Parameters
from exitwave.papers.webb2025.patterns import Samples, stretched


@dataclass(frozen=True)
class Fold:
    """Which samples train and which test."""

    train: Tensor
    test: Tensor


def fold_of(parameters: Parameters, samples: Samples) -> Fold:
    """Return the fold that the seed counts: random ones, or ones that share no prototype.

    Returns
    -------
    Fold
        Of indices.
    """
    number, folds = len(samples.crystals), parameters.folds
    generator = np.random.default_rng(0)
    if parameters.split == "random":
        part = np.empty(number, int)
        part[generator.permutation(number)] = np.arange(number) % folds
    else:
        names = sorted({crystal.prototype for crystal in samples.crystals})
        sizes = {name: sum(c.prototype == name for c in samples.crystals) for name in names}
        load, place = np.zeros(folds), {}
        # Largest first, each into the emptiest fold; equal ones in random order.
        for i in generator.permutation(len(names)).tolist():
            names[i], names[0] = names[0], names[i]
        for name in sorted(names, key=lambda each: -sizes[each]):
            place[name] = int(load.argmin())
            load[place[name]] += sizes[name]
        part = np.array([place[crystal.prototype] for crystal in samples.crystals])
    test = torch.as_tensor(part == parameters.seed % folds)
    return Fold(torch.nonzero(~test).flatten(), torch.nonzero(test).flatten())


def pairs(parameters: Parameters, samples: Samples) -> tuple[Tensor, Tensor]:
    """Return input and target, shape (sample, 1, y, x), between -1 and 1."""
    both = (2 * samples.potentials - 1, 2 * samples.patterns - 1)
    return both if parameters.direction == "forward" else both[::-1]


def build(parameters: Parameters) -> GlobalGenerator:
    """Return the generator with the weights that the seed draws."""
    return GlobalGenerator(
        1, 1, width=parameters.width, downsamplings=parameters.downsamplings, blocks=parameters.blocks,
        padding="circular" if parameters.method == "circular" else "reflect",
        generator=torch.Generator().manual_seed(parameters.seed),
    )  # fmt: skip


def roll(batch: training.Batch, generator: torch.Generator) -> training.Batch:
    """Move the origin of the potential at random, one shift for each sample; the pattern does not change."""
    potential = batch["input"]
    size = potential.shape[-1]
    shifts = torch.randint(size, (len(potential), 2), generator=generator).tolist()
    moved = [torch.roll(one, tuple(shift), (-2, -1)) for one, shift in zip(potential, shifts, strict=True)]
    return batch | {"input": torch.stack(moved)}


def task_of(parameters: Parameters, judge: Callable[[nn.Module], dict[str, float]]) -> training.Task:
    """Return the task: pix2pixHD, or regression of the same generator on the absolute error."""
    generator = build(parameters)
    if parameters.method == "gan":
        discriminator = MultiscaleDiscriminator(
            2, width=parameters.discriminator_width, layers=parameters.discriminator_layers,
            generator=torch.Generator().manual_seed(parameters.seed + 1),
        )  # fmt: skip
        return tasks.Pix2Pix(
            generator, discriminator, rate=parameters.rate, matching=parameters.feature_weight, judge=judge
        )
    shift = {"augment": roll} if parameters.method == "circular" and parameters.direction == "forward" else {}
    optimiser = tasks.adam(generator, parameters.rate * 5)
    return tasks.Regression(generator, optimiser, judge=judge, **shift)  # type: ignore[arg-type]


def train(
    parameters: Parameters, samples: Samples, *, device: str = "cpu", epochs: int | None = None,
    folder: Path | None = None, resume: bool = False, budget_minutes: float | None = None,
    report: Callable[[training.Progress], None] | None = None,
) -> tuple[nn.Module, training.Curves, Fold]:  # fmt: skip
    """Train the network of one fold.

    Returns
    -------
    network : Module
        In evaluation mode.
    curves : Curves
        With the test error during training, ``mse`` (Eq. 3).
    fold : Fold
    """
    fold = fold_of(parameters, samples)
    inputs, targets = pairs(parameters, samples)

    def judge(network: nn.Module) -> dict[str, float]:
        made = training.predict(network, inputs[fold.test])
        return {"mse": float(mean_square(made, targets[fold.test]).mean())}

    task = task_of(parameters, judge)
    options = training.Options(
        epochs=parameters.epochs if epochs is None else epochs, batch=parameters.batch, device=device,
        budget_minutes=budget_minutes, validate_every=max(1, (epochs or parameters.epochs) // 20),
    )  # fmt: skip
    curves = training.fit(
        task, {"input": inputs[fold.train], "target": targets[fold.train]}, options,
        generator=torch.Generator().manual_seed(parameters.seed + 2), folder=folder, resume=resume,
        report=report,
    )  # fmt: skip
    return next(iter(task.modules().values())), curves, fold


def mean_square(made: Tensor, target: Tensor, *, stretch: bool = True) -> Tensor:
    """Return Eq. 3 of each image, on a scale from 0 to 1.

    Parameters
    ----------
    made, target : Tensor, shape (sample, 1, y, x)
        Between -1 and 1.
    stretch : bool
        Stretch each prediction to the whole range first, as the authors' code does before scoring.
    """
    made, target = (made.float().cpu() + 1) / 2, (target.float().cpu() + 1) / 2
    if stretch:
        made = stretched(made)
    return (made - target).square().mean((1, 2, 3))


def index_of(made: Tensor, target: Tensor) -> Tensor:
    """Return R (Eq. 4) of each image, shape (sample,)."""
    found: Tensor = metrics.correlation_index(made[:, 0].double().cpu(), target[:, 0].double().cpu())
    return found
