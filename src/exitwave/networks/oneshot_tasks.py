"""How the networks of Ede et al. 2020 learn: capped squared errors, or a game against a judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn
from torch.optim import Optimizer

from exitwave.errors import InputError
from exitwave.networks.engine import Engine, in_precision
from exitwave.networks.oneshot import WaveJudge
from exitwave.networks.tasks import Augment, Validate, _nothing, _unchanged, _update, adam
from exitwave.networks.training import Batch

Schedule = Literal["steps", "constant"]

# Sec. 3: squared errors are multiplied by this; rates are halved so often.
_SCALE, _HALVINGS = 10.0, 7
# Decay of the mean verdict (Eq. 24), and what it is compared with.
_DECAY, _EVEN = 0.99, 0.5


class Clipping(nn.Module):
    """Adaptive learning rate clipping: what a loss adds to its usual size is taken out of its gradient.

    A loss L of at least T = μ1 + n sqrt(μ2 - μ1² + 1e-8) becomes L T / L, the division without gradient; the
    moments are moving averages of capped losses (J. M. Ede and R. Beanland, arXiv:1906.09060).

    Parameters
    ----------
    first, second : float
        μ1 and μ2 at first: 25 and 900 in the code. The paper has 30 for μ2, which leaves the root of a
        negative number; it counts as 0 here.
    deviations, decay : float
        n and the decay of the averages.
    """

    first: torch.Tensor
    second: torch.Tensor
    capped: torch.Tensor
    seen: torch.Tensor

    def __init__(
        self, first: float = 25.0, second: float = 900.0, deviations: float = 3.0, decay: float = 0.999
    ) -> None:
        super().__init__()
        if not 0 <= decay < 1:
            raise InputError(f"decay {decay:g} of moments: use 0 or more, below 1")
        self.deviations, self.decay = deviations, decay
        for name, value in (("first", first), ("second", second), ("capped", 0.0), ("seen", 0.0)):
            self.register_buffer(name, torch.tensor(float(value)))

    @property
    def threshold(self) -> torch.Tensor:
        """T."""
        spread = (self.second - self.first**2).clamp_min(0) + 1e-8
        return self.first + self.deviations * spread.sqrt()

    def forward(self, losses: torch.Tensor) -> torch.Tensor:
        """Cap losses, shape (sample,), and take them into the moments."""
        threshold = self.threshold
        over = losses.detach() >= threshold
        capped = torch.where(over, losses * (threshold / losses.detach()), losses)
        with torch.no_grad():
            self.first.lerp_(capped.detach().mean(), 1 - self.decay)
            self.second.lerp_(capped.detach().square().mean(), 1 - self.decay)
            self.capped += over.sum()
            self.seen += len(losses)
        return capped


@dataclass
class Direct:
    """A generator learns ``target`` (cos, sin) from ``input`` by capped mean squares.

    Attributes
    ----------
    network : Module
    rate : float
        Of Adam, 0.002 in the paper.
    schedule : {"steps", "constant"}
        Halved every seventh of the steps as in the paper, or, as the code does by a slip, from the first
        step on as small as after seven halvings.
    decay : float
        Weight decay, of which the paper says nothing; 5e-5 in the code (1e-4 for a single material).
    clipping : Clipping, optional
    augment, judge : callable
        As for :class:`exitwave.networks.tasks.Regression`.
    """

    network: nn.Module
    rate: float = 0.002
    schedule: Schedule = "steps"
    decay: float = 0.0
    clipping: Clipping | None = None
    augment: Augment = _unchanged
    judge: Validate = _nothing
    optimiser: Optimizer = field(init=False)

    def __post_init__(self) -> None:
        self.optimiser = torch.optim.Adam(
            self.network.parameters(), self.rate, weight_decay=self.decay, fused=True
        )

    def modules(self) -> dict[str, nn.Module]:
        """Return the network, and the moments that are to be kept with it."""
        found: dict[str, nn.Module] = {"network": self.network}
        return found if self.clipping is None else found | {"clipping": self.clipping}

    def optimisers(self) -> dict[str, Optimizer]:
        """Return the optimiser."""
        return {"network": self.optimiser}

    def rate_at(self, fraction: float) -> float:
        """Return the rate when so much of the training is done."""
        halvings = int(_HALVINGS * fraction) if self.schedule == "steps" else _HALVINGS
        return self.rate * 0.5**halvings

    def step(self, batch: Batch, engine: Engine) -> dict[str, torch.Tensor]:
        """Make one update."""
        batch = self.augment(batch, engine.generator)
        made = engine.modules["network"](batch["input"])
        losses = _SCALE * (made - batch["target"]).square().mean((1, 2, 3))
        value = losses.mean() if self.clipping is None else self.clipping(losses).mean()
        for group in engine.optimisers["network"].param_groups:
            group["lr"] = self.rate_at(engine.fraction)
        _update(engine, "network", value)
        with torch.no_grad():
            error = (made - batch["target"]).abs().mean()
        return {"loss": losses.mean().detach(), "error": error}

    def validate(self, modules: Mapping[str, nn.Module]) -> Mapping[str, float]:
        """Judge the network."""
        return self.judge(modules["network"])


@dataclass
class Adversarial:
    """A generator learns to make waves that a judge takes for real (Eqs. 22 to 24).

    The judge sees (A cos θ, A sin θ). Its rate falls with its running mean verdict on generated waves.

    Attributes
    ----------
    generator : Module
    discriminator : WaveJudge
    rate : float
        Of both Adams.
    balance : float
        m of Eq. 24.
    augment, judge : callable
        As for :class:`exitwave.networks.tasks.Regression`.
    """

    generator: nn.Module
    discriminator: WaveJudge
    rate: float = 2e-4
    balance: float = 20.0
    augment: Augment = _unchanged
    judge: Validate = _nothing
    both: dict[str, Optimizer] = field(init=False)

    def __post_init__(self) -> None:
        self.both = {name: adam(each, self.rate, (0.5, 0.999)) for name, each in self.modules().items()}

    def modules(self) -> dict[str, nn.Module]:
        """Return both networks."""
        return {"generator": self.generator, "discriminator": self.discriminator}

    def optimisers(self) -> dict[str, Optimizer]:
        """Return both optimisers."""
        return self.both

    def step(self, batch: Batch, engine: Engine) -> dict[str, torch.Tensor]:
        """Update both networks."""
        batch = self.augment(batch, engine.generator)
        made = engine.modules["generator"](batch["input"])
        real, false = (batch["input"] * each for each in (batch["target"], made))
        verdicts = engine.modules["discriminator"](torch.cat([real, false.detach()]))
        on_real, on_false = verdicts.chunk(2)
        loss = (on_real - 1).square().mean() + on_false.square().mean()
        # Not the module of the engine, which would wait for gradients of the judge.
        judge = in_precision(self.discriminator, engine.precision, engine.device)
        self.discriminator.requires_grad_(False)
        term = (judge(false) - 1).square().mean()
        self.discriminator.requires_grad_(True)
        running = self.discriminator.running
        running.lerp_(on_false.detach().mean(), 1 - _DECAY)
        share = torch.sigmoid(self.balance * (running - _EVEN))
        for group in engine.optimisers["discriminator"].param_groups:
            group["lr"] = self.rate * float(share)
        _update(engine, "generator", term)
        _update(engine, "discriminator", loss)
        with torch.no_grad():
            error = (made - batch["target"]).abs().mean()
        return {"generator": term.detach(), "discriminator": loss.detach(), "error": error}

    def validate(self, modules: Mapping[str, nn.Module]) -> Mapping[str, float]:
        """Judge the generator."""
        return self.judge(modules["generator"])
