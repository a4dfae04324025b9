"""What the networks are built from: padded convolutions, doubling, modulation, first weights."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from exitwave.errors import InputError

Padding = Literal["zero", "reflect", "circular"]

_HIDDEN = 64  # units of the small network behind each modulation


def convolution(inputs: int, outputs: int, kernel: int, padding: Padding, stride: int = 1) -> nn.Conv2d:
    """Return a convolution of odd `kernel` whose output is as large as its input, over the stride."""
    mode = "zeros" if padding == "zero" else padding
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, padding_mode=mode)


class Doubling(nn.ConvTranspose2d):
    """3x3 transposed convolution of stride 2 that doubles height and width.

    Output pixel ``2 i - 1 + k`` receives input pixel i times weight k. Without wrapping, what would fall
    on pixel -1 is lost, as in pix2pixHD; with `circular` it falls on the last pixel.
    """

    def __init__(self, inputs: int, outputs: int, circular: bool) -> None:
        super().__init__(inputs, outputs, 3, 2, 1, output_padding=1)
        self.circular = circular

    def forward(self, x: torch.Tensor, output_size: Any = None) -> torch.Tensor:
        """Double (sample, channel, y, x)."""
        if not self.circular:
            return super().forward(x, output_size)
        wrapped = functional.pad(x, (0, 1, 0, 1), mode="circular")
        doubled = functional.conv_transpose2d(wrapped, self.weight, self.bias, 2, 1)
        return doubled[..., :-1, :-1]


class Modulation(nn.Module):
    """Scale and shift of each channel that depend on a vector of conditions (FiLM); none at first.

    Perez et al., Proc. AAAI 32, 3942 (2018).
    """

    def __init__(self, conditions: int, channels: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(conditions, _HIDDEN)
        self.last = nn.Linear(_HIDDEN, 2 * channels)

    def forward(self, x: torch.Tensor, conditions: torch.Tensor) -> torch.Tensor:
        """Modulate (sample, channel, y, x) by (sample, condition)."""
        found = self.last(functional.silu(self.hidden(conditions)))
        scale, shift = found[..., None, None].chunk(2, 1)
        return torch.as_tensor(x * (1 + scale) + shift)


def modulation(conditions: int, channels: int) -> Modulation | None:
    """Return a modulation, or None where there are no conditions."""
    return Modulation(conditions, channels) if conditions else None


def modulate(
    layer: nn.Module | None, x: torch.Tensor, conditions: torch.Tensor | None
) -> torch.Tensor:  # fmt: skip
    """Apply a modulation where there is one."""
    return x if layer is None or conditions is None else torch.as_tensor(layer(x, conditions))


def initialise(network: nn.Module, generator: torch.Generator | None, deviation: float | None = None) -> None:
    """Give memory on the CPU and first weights to a network that was built on the device ``meta``.

    Built so, nothing is drawn from torch's global generator.

    Parameters
    ----------
    network : Module
        Of convolutions, linear layers and group norms; modulations begin as the identity.
    generator : torch.Generator, optional
        Of the CPU; by default one of seed 0.
    deviation : float, optional
        Standard deviation of the weights of all convolutions; by default sqrt(2 / inputs of a unit).
    """
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    network.to_empty(device="cpu")
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                # As torch counts it, also for the transposed ones.
                inputs = layer.weight[0].numel()
                wide = deviation if deviation and not isinstance(layer, nn.Linear) else math.sqrt(2 / inputs)
                layer.weight.normal_(0, wide, generator=generator)
                if layer.bias is not None:
                    layer.bias.uniform_(-(inputs**-0.5), inputs**-0.5, generator=generator)
            elif isinstance(layer, nn.GroupNorm):
                layer.reset_parameters()
        for layer in network.modules():
            if isinstance(layer, Modulation):
                layer.last.weight.zero_()
                layer.last.bias.zero_()


def check_call(x: torch.Tensor, multiple: int, conditions: torch.Tensor | None, expected: int) -> None:
    """Check the arguments of a network.

    Raises
    ------
    InputError
        For a size that is no multiple of `multiple` or below twice that, or for conditions that are
        missing, too many, or not wanted.
    """
    if any(n % multiple or n < 2 * multiple for n in x.shape[-2:]):
        raise InputError(
            f"{x.shape[-2]} x {x.shape[-1]} pixels: this network needs multiples of {multiple}, "
            f"at least {2 * multiple}: crop, bin or pad"
        )
    given = 0 if conditions is None else conditions.shape[-1]
    if given != expected:
        raise InputError(f"{given} conditions given to a network of {expected}: pass (sample, {expected})")


def check_sizes(**sizes: int) -> None:
    """Check that every number of layers or channels is a positive integer.

    Raises
    ------
    InputError
        Naming the first that is not.
    """
    for name, size in sizes.items():
        if size < 1:
            raise InputError(f"{name} {size} of a network: use 1 or more")


def count_parameters(network: nn.Module) -> int:
    """Return how many numbers a network learns."""
    return sum(each.numel() for each in network.parameters())
