"""Networks from focal series to exit waves: what they are given, how they are built and trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from exitwave.networks import tasks, training
from exitwave.networks.fusionnet import FusionNet
from exitwave.networks.unet import UNet
from exitwave.papers.larsen2022.data import Samples
from exitwave.papers.larsen2022.parameters import Parameters
from exitwave.simulate import exit_waves, focal_series

# The conditions of unseen series are the same for every network.
_UNSEEN_SEED = 10
# Series that are judged at once.
_BATCH = 8


@dataclass(frozen=True)
class Series:
    """Focal series and the waves that are to be found from them.

    Attributes
    ----------
    images : Tensor, shape (sample, image, y, x), float32
        Over the mean of a series, less 1.
    waves : Tensor, shape (sample, 2, y, x), float32
        Real part less 1 and imaginary part of the smeared wave, at the pixels of the images.
    conditions : Conditions
    """

    images: Tensor
    waves: Tensor
    conditions: focal_series.Conditions


def expose(
    parameters: Parameters, waves: Tensor, sampling: float, pixels: int, generator: torch.Generator,
    *, anywhere: bool = False,
) -> Series:  # fmt: skip
    """Take focal series of exit waves under conditions drawn at random.

    Parameters
    ----------
    parameters : Parameters
    waves : Tensor, shape (sample, y, x), complex64
        In a periodic box.
    sampling : float
        Å.
    pixels : int
        Along each side of the images.
    generator : torch.Generator
        On the CPU.
    anywhere : bool
        Draw where in the box the images are, else they are in the middle.
    """
    ranges = parameters.ranges
    count = len(waves)
    conditions = focal_series.draw(ranges, count, parameters.images, generator)
    electrons = torch.Generator(waves.device).manual_seed(int(torch.randint(2**31, (), generator=generator)))
    origin = None
    if anywhere:
        room = (waves.shape[-1] * sampling - pixels * conditions.sampling).clamp_min(0)
        origin = room[:, None] * torch.rand(count, 2, generator=generator)
        origin = origin.to(waves.device)
    conditions = conditions.to(waves.device)
    images = focal_series.simulate(waves, sampling, conditions, pixels, electrons, origin=origin)
    smeared = torch.fft.fft2(exit_waves.smeared(waves, sampling, parameters.smear))
    target = focal_series.resampled(smeared, sampling, conditions.sampling, pixels, origin)
    mean = images.mean((1, 2, 3), keepdim=True)
    return Series(images / mean - 1, torch.stack([target.real - 1, target.imag], 1), conditions)


def unseen_series(parameters: Parameters, samples: Samples) -> Series:
    """Return the series by which networks are judged, one for each unseen flake."""
    waves = samples.waves[torch.as_tensor(~samples.seen)]
    generator = torch.Generator().manual_seed(_UNSEEN_SEED)
    return expose(parameters, waves, samples.sampling, parameters.field, generator)


def build(parameters: Parameters) -> nn.Module:
    """Return the network, with the weights that the seed draws."""
    generator = torch.Generator().manual_seed(parameters.seed)
    size = {"width": parameters.width, "depth": parameters.depth, "generator": generator}
    if parameters.method == "unet":
        return UNet(parameters.images, 2, **size)  # type: ignore[arg-type]
    return FusionNet(parameters.images, 2, **size)  # type: ignore[arg-type]


def train(
    parameters: Parameters, samples: Samples, judge: Callable[[nn.Module], dict[str, float]],
    *, device: str, how: training.Training,
) -> tuple[nn.Module, training.Curves]:  # fmt: skip
    """Train a network, which sees new series of the flakes in every epoch.

    Parameters
    ----------
    judge : callable
        Of the network; what it returns is part of the curves and of nothing else.

    Returns
    -------
    network : Module
        In evaluation mode.
    curves : Curves
    """

    def augment(batch: training.Batch, generator: torch.Generator) -> training.Batch:
        made = expose(
            parameters, batch["wave"], samples.sampling, parameters.pixels, generator, anywhere=True
        )
        return {"input": made.images, "target": made.waves}

    network = build(parameters)
    optimiser = torch.optim.RMSprop(network.parameters(), parameters.rate, alpha=0.9, eps=1e-7)
    task = tasks.Regression(network, optimiser, augment=augment, judge=judge)
    options = training.Options(
        epochs=parameters.epochs, batch=parameters.batch, device=device, devices=how.devices,
        budget_minutes=how.budget_minutes, validate_every=max(1, parameters.epochs // 8),
    )  # fmt: skip
    curves = training.fit(
        task, {"wave": samples.waves[torch.as_tensor(samples.seen)]}, options,
        generator=torch.Generator().manual_seed(parameters.seed + 1),
        folder=how.folder, resume=how.resume, report=how.report,
    )  # fmt: skip
    return network, curves


def predict(network: nn.Module, images: Tensor) -> Tensor:
    """Return what a network makes of series, shape (sample, 2, y, x), on the CPU."""
    return training.predict(network, images, batch=_BATCH).float().cpu()


def complex_wave(channels: Tensor) -> Tensor:
    """Return waves, shape (sample, y, x), from real part less 1 and imaginary part."""
    return torch.complex(1 + channels[:, 0].double(), channels[:, 1].double())
