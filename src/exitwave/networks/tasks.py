"""Tasks for the training loop: plain regression, and pix2pixHD's game of two networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.optim import Optimizer

from exitwave.networks.engine import Engine, in_precision
from exitwave.networks.pix2pix import (
    VGG19,
    MultiscaleDiscriminator,
    feature_matching_loss,
    least_squares_loss,
    perceptual_loss,
)
from exitwave.networks.training import Batch

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Augment = Callable[[Batch, torch.Generator], Batch]
Validate = Callable[[nn.Module], Mapping[str, float]]


def adam(module: nn.Module, rate: float, betas: tuple[float, float] = (0.9, 0.999)) -> torch.optim.Adam:
    """Return Adam with its fused kernel, the fastest on CPU and GPU."""
    return torch.optim.Adam(module.parameters(), rate, betas, fused=True)


def _nothing(_: nn.Module) -> Mapping[str, float]:
    return {}


def _unchanged(batch: Batch, _: torch.Generator) -> Batch:
    return batch


@dataclass
class Regression:
    """A network learns ``target`` from ``input``, and from ``conditions`` if the data have them.

    Attributes
    ----------
    network : Module
    optimiser : Optimizer
    loss : callable
        Of (prediction, target); the mean square by default.
    augment : callable
        Of (batch, generator); changes each batch before it is used.
    judge : callable
        Of the network; returns the validation.
    """

    network: nn.Module
    optimiser: Optimizer
    loss: Loss = functional.mse_loss
    augment: Augment = _unchanged
    judge: Validate = _nothing

    def modules(self) -> dict[str, nn.Module]:
        """Return the network."""
        return {"network": self.network}

    def optimisers(self) -> dict[str, Optimizer]:
        """Return its optimiser."""
        return {"network": self.optimiser}

    def step(self, batch: Batch, engine: Engine) -> dict[str, torch.Tensor]:
        """Make one update."""
        batch = self.augment(batch, engine.generator)
        made = engine.modules["network"](*_arguments(batch))
        value = self.loss(made, batch["target"])
        _update(engine, "network", value)
        return {"loss": value.detach()}

    def validate(self, modules: Mapping[str, nn.Module]) -> Mapping[str, float]:
        """Judge the network."""
        return self.judge(modules["network"])


@dataclass
class Pix2Pix:
    """The game of pix2pixHD: least squares, features matched, and VGG19 features if their weights are given.

    As in its code, both losses are those before either network has changed, and the loss of the
    discriminator is halved.

    Attributes
    ----------
    generator : Module
        Maps ``input`` (and ``conditions``) to ``target``, -1..1.
    discriminator : MultiscaleDiscriminator
        Sees input and output, concatenated.
    rate, betas
        Of both Adams: 2e-4 and (0.5, 0.999) in the original.
    matching, perceptual : float
        Weights of the further terms, 10 each in the original.
    vgg : VGG19, optional
    augment, judge : callable
        As for :class:`Regression`.
    """

    generator: nn.Module
    discriminator: MultiscaleDiscriminator
    rate: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    matching: float = 10.0
    perceptual: float = 10.0
    vgg: VGG19 | None = None
    augment: Augment = _unchanged
    judge: Validate = _nothing
    both: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.both = {name: adam(each, self.rate, self.betas) for name, each in self.modules().items()}

    def modules(self) -> dict[str, nn.Module]:
        """Return both networks."""
        return {"generator": self.generator, "discriminator": self.discriminator}

    def optimisers(self) -> dict[str, Optimizer]:
        """Return both optimisers."""
        return self.both

    def step(self, batch: Batch, engine: Engine) -> dict[str, torch.Tensor]:
        """Update both networks."""
        batch = self.augment(batch, engine.generator)
        made = engine.modules["generator"](*_arguments(batch))
        shown = torch.cat([_pair(batch, made.detach()), _pair(batch, batch["target"])])
        judged = engine.modules["discriminator"](shown)
        false, true = ([[each.chunk(2)[i] for each in scale] for scale in judged] for i in (0, 1))
        loss = 0.5 * (least_squares_loss(false, 0.0) + least_squares_loss(true, 1.0))
        terms = self._terms(batch, made, true, engine)
        total = torch.stack([*terms.values()]).sum()
        _update(engine, "generator", total)
        _update(engine, "discriminator", loss)
        return {"discriminator": loss.detach(), **{name: value.detach() for name, value in terms.items()}}

    def _terms(
        self, batch: Batch, made: torch.Tensor, true: list[list[torch.Tensor]], engine: Engine
    ) -> dict[str, torch.Tensor]:
        """Return the weighted terms of the generator's loss; the discriminator is fixed here."""
        # Not the module of the engine, which would wait for gradients of the discriminator.
        judge = in_precision(self.discriminator, engine.precision, engine.device)
        self.discriminator.requires_grad_(False)
        judged = judge(_pair(batch, made))
        self.discriminator.requires_grad_(True)
        terms = {
            "generator": least_squares_loss(judged, 1.0),
            "matching": self.matching * feature_matching_loss(judged, true),
        }
        if self.vgg is not None:
            eye = in_precision(self.vgg.to(engine.device), engine.precision, engine.device)
            terms["perceptual"] = self.perceptual * perceptual_loss(eye, made, batch["target"])
        return terms

    def validate(self, modules: Mapping[str, nn.Module]) -> Mapping[str, float]:
        """Judge the generator."""
        return self.judge(modules["generator"])


def _pair(batch: Batch, made: torch.Tensor) -> torch.Tensor:
    return torch.cat([batch["input"], made], 1)


def _arguments(batch: Batch) -> list[torch.Tensor]:
    return [batch[name] for name in ("input", "conditions") if name in batch]


def _update(engine: Engine, name: str, loss: torch.Tensor) -> None:
    engine.optimisers[name].zero_grad()
    engine.backward(loss)
    engine.optimisers[name].step()
