"""Conditional flow matching: a network that draws samples of what its input leaves open.

Lipman et al., Proc. ICLR (2023), with straight paths (their Eq. 22 for σ = 0): from noise x0 to a sample x1
the path is (1 - t) x0 + t x1, whose velocity x1 - x0 the network learns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from exitwave.errors import InputError
from exitwave.networks.engine import Engine
from exitwave.networks.tasks import Augment
from exitwave.networks.training import Batch, predict

# Conditions that tell the time.
TIMES = 3


@dataclass
class FlowMatching:
    """A network learns velocities from noise to ``target``, given ``input`` and ``conditions``.

    Attributes
    ----------
    network : Module
        Of (sample, target and input channels, y, x) and (sample, conditions and :data:`TIMES`).
    optimiser : Optimizer
    augment : callable
        As for :class:`exitwave.networks.tasks.Regression`.
    """

    network: nn.Module
    optimiser: Optimizer
    augment: Augment

    def modules(self) -> dict[str, nn.Module]:
        """Return the network."""
        return {"network": self.network}

    def optimisers(self) -> dict[str, Optimizer]:
        """Return its optimiser."""
        return {"network": self.optimiser}

    def step(self, batch: Batch, engine: Engine) -> dict[str, Tensor]:
        """Make one update."""
        batch = self.augment(batch, engine.generator)
        end = batch["target"]
        start = torch.randn(end.shape, generator=engine.generator).to(end)
        time = torch.rand(len(end), generator=engine.generator).to(end)
        at = time[:, None, None, None]
        between = (1 - at) * start + at * end
        made = engine.modules["network"](
            torch.cat([between, batch["input"]], 1), torch.cat([batch["conditions"], _told(time)], 1)
        )
        value = functional.mse_loss(made, end - start)
        engine.optimisers["network"].zero_grad()
        engine.backward(value)
        engine.optimisers["network"].step()
        return {"loss": value.detach()}

    def validate(self, modules: Mapping[str, nn.Module]) -> Mapping[str, float]:  # noqa: ARG002
        """Return nothing: samples are judged when the network is trained."""
        return {}


def sample(
    network: nn.Module, inputs: Tensor, conditions: Tensor, generator: torch.Generator, *, channels: int = 2,
    steps: int = 8, batch: int = 32,
) -> Tensor:  # fmt: skip
    """Draw one sample for each input, by Heun's method along the flow.

    Parameters
    ----------
    network : Module
        As :class:`FlowMatching` trains it.
    inputs : Tensor, shape (sample, channel, y, x)
    conditions : Tensor, shape (sample, condition)
    generator : torch.Generator
        Of the CPU; draws the noise.
    channels : int
        Of what is drawn.
    steps : int
        Along the flow; the network is evaluated twice in each but the last.
    batch : int
        Inputs at once.

    Returns
    -------
    Tensor, shape (sample, channels, y, x)

    Raises
    ------
    InputError
        If there is no step.
    """
    start = torch.randn(len(inputs), channels, *inputs.shape[2:], generator=generator).to(inputs)
    return follow(network, start, inputs, conditions, steps=steps, batch=batch)


def follow(
    network: nn.Module, start: Tensor, inputs: Tensor, conditions: Tensor, *, steps: int = 8, batch: int = 32
) -> Tensor:
    """Follow the flow from noise that is given to where it ends.

    Parameters
    ----------
    network : Module
        As :class:`FlowMatching` trains it.
    start : Tensor, shape (sample, target channel, y, x)
        Normal noise.
    inputs, conditions, steps, batch
        As for :func:`sample`.

    Returns
    -------
    Tensor, shape (sample, target channel, y, x)

    Raises
    ------
    InputError
        If there is no step.
    """
    if steps < 1:
        raise InputError(f"{steps} steps along a flow: use 1 or more")

    def velocity(at: Tensor, time: float) -> Tensor:
        told = torch.cat([conditions, _told(conditions.new_full((len(conditions),), time))], 1)
        return predict(network, torch.cat([at, inputs], 1), told, batch=batch).to(at)

    found = start
    for i in range(steps):
        slope = velocity(found, i / steps)
        ahead = found + slope / steps
        # Where the flow ends it is as steep as it likes; a plain step is what is left.
        found = ahead if i == steps - 1 else found + (slope + velocity(ahead, (i + 1) / steps)) / (2 * steps)
    return found


def _told(time: Tensor) -> Tensor:
    """Return times 0..1 as conditions, shape (sample, 3)."""
    turn = 2 * torch.pi * time
    return torch.stack([2 * time - 1, turn.cos(), turn.sin()], 1)
