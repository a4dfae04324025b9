"""Networks from an amplitude to a phase: what they are given, how they are built and trained."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from exitwave.errors import InputError
from exitwave.networks import training
from exitwave.networks.oneshot import OneShot, WaveJudge
from exitwave.networks.oneshot_tasks import Adversarial, Clipping, Direct
from exitwave.papers.ede2020 import judge
from exitwave.papers.ede2020.data import Samples
from exitwave.papers.ede2020.parameters import Parameters

# Crops of the unseen sets are the same for every network.
_UNSEEN_SEED = 224
# Crops that are judged at once; by batch statistics the paper's batch counts.
_BATCH = 24
_VALIDATIONS = 8


@dataclass(frozen=True)
class Crops:
    """Amplitudes and phases, shape (sample, y, x), float32, and which wave each is of."""

    amplitude: Tensor
    phase: Tensor
    wave: Tensor


def crops_of(waves: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Return a crop of each wave from anywhere, flipped and turned by quarters at random.

    Parameters
    ----------
    waves : Tensor, shape (sample, y, x), complex
    pixels : int
        Along each side of the crops.
    generator : torch.Generator
        On the CPU.

    Raises
    ------
    InputError
        If the waves are smaller.
    """
    room = waves.shape[-1] - pixels
    if room < 0:
        raise InputError(
            f"pixels={pixels} of crops of waves of {waves.shape[-1]} pixels: use at most as many"
        )
    first = torch.randint(room + 1, (len(waves), 2), generator=generator).tolist()
    turns = torch.randint(8, (len(waves),), generator=generator).tolist()
    found = []
    for wave, (row, column), turn in zip(waves, first, turns, strict=True):
        crop = torch.rot90(wave[row : row + pixels, column : column + pixels], turn % 4)
        found.append(crop.flip(-1) if turn >= 4 else crop)
    return torch.stack(found)


def pairs(waves: Tensor) -> training.Batch:
    """Return amplitudes (sample, 1, y, x) and components of phases (sample, 2, y, x), as tasks name them."""
    return {"input": waves.abs()[:, None], "target": judge.components(waves.angle())}


def unseen_crops(parameters: Parameters, samples: Samples) -> dict[str, Crops]:
    """Return what networks are judged by: other transforms of waves learned from, and the unseen sets."""
    found = {}
    sets = {
        "transforms": samples.train, "parameters": samples.parameters, "materials": samples.materials,
    }  # fmt: skip
    for name, waves in sets.items():
        generator = torch.Generator().manual_seed(_UNSEEN_SEED)
        # Each wave as often as every other, but for one.
        order = torch.randperm(len(waves), generator=generator).repeat(-(-parameters.examples // len(waves)))
        chosen = order[: parameters.examples]
        crops = crops_of(waves[chosen], parameters.pixels, generator)
        found[name] = Crops(crops.abs(), crops.angle(), chosen)
    return found


def build(parameters: Parameters) -> OneShot:
    """Return the generator, with the weights that the seed draws; the GAN's has a level less (code)."""
    less = 1 if parameters.method == "gan" and parameters.downsamplings > 1 else 0
    return OneShot(
        width=parameters.width, downsamplings=parameters.downsamplings - less, blocks=parameters.blocks,
        order=parameters.order, generator=torch.Generator().manual_seed(parameters.seed),
    )  # fmt: skip


def task_of(
    parameters: Parameters, network: OneShot, measure: Callable[[nn.Module], dict[str, float]]
) -> Direct | Adversarial:
    """Return how a network learns: directly, or against a judge."""

    def augment(batch: training.Batch, generator: torch.Generator) -> training.Batch:
        return pairs(crops_of(batch["wave"], parameters.crop, generator))

    if parameters.method == "gan":
        first = torch.Generator().manual_seed(parameters.seed + 1_000_000)
        return Adversarial(
            network, WaveJudge(width=parameters.judge_width, generator=first),
            balance=parameters.balance, augment=augment, judge=measure,
        )  # fmt: skip
    moments = parameters.first_moment, parameters.second_moment
    clipping = Clipping(*moments) if parameters.clipping else None
    return Direct(
        network, schedule=parameters.schedule, decay=parameters.decay, clipping=clipping, augment=augment,
        judge=measure,
    )  # fmt: skip


def train(
    parameters: Parameters, samples: Samples, measure: Callable[[nn.Module], dict[str, float]],
    *, device: str, how: training.Training,
) -> tuple[OneShot, training.Curves, Direct | Adversarial]:  # fmt: skip
    """Train a network, which sees other crops of the waves in every epoch.

    Parameters
    ----------
    measure : callable
        Of the network; what it returns is part of the curves and of nothing else.

    Returns
    -------
    network : OneShot
        In evaluation mode.
    curves : Curves
    task : Direct or Adversarial
        With the moments of the losses, or the judge.
    """
    network = build(parameters)
    task = task_of(parameters, network, measure)
    epochs = max(1, round(parameters.steps / (len(samples.train) // parameters.batch)))
    options = training.Options(
        epochs=epochs, batch=parameters.batch, device=device, devices=how.devices,
        budget_minutes=how.budget_minutes, validate_every=max(1, epochs // _VALIDATIONS),
    )  # fmt: skip
    curves = training.fit(
        task, {"wave": samples.train}, options, generator=torch.Generator().manual_seed(parameters.seed + 1),
        folder=how.folder, resume=how.resume, report=how.report,
    )  # fmt: skip
    return network, curves, task


def predict(network: nn.Module, crops: Crops, *, by_batch: bool = False) -> Tensor:
    """Return components (sample, 2, y, x) that a network makes of amplitudes, on the CPU.

    Parameters
    ----------
    by_batch : bool
        Norm by the statistics of each batch, as some scripts of the authors do at evaluation, instead of
        those averaged in training. What a network makes of an image then depends on its company.
    """
    if by_batch:
        network = copy.deepcopy(network).train()
    return training.predict(network, crops.amplitude[:, None], batch=_BATCH).float().cpu()
