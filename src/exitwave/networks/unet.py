"""A U-Net for plain regression, after Ronneberger et al. (2015), with residual convolutions."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from exitwave.errors import InputError
from exitwave.networks.layers import (
    Padding,
    check_call,
    check_sizes,
    convolution,
    initialise,
    modulate,
    modulation,
)

_SMALL = 0.1  # by which the last convolution of each block, and that of the network, begin smaller


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(8, channels), channels)


class _Block(nn.Module):
    """Norm, SiLU, 3x3, norm, modulation, SiLU, 3x3, beside the identity or a 1x1 convolution."""

    def __init__(self, inputs: int, outputs: int, padding: Padding, conditions: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([_norm(inputs), _norm(outputs)])
        self.first = convolution(inputs, outputs, 3, padding)
        self.second = convolution(outputs, outputs, 3, padding)
        self.modulation = modulation(conditions, outputs)
        self.beside = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: torch.Tensor, conditions: torch.Tensor | None) -> torch.Tensor:
        inner = self.norms[1](self.first(functional.silu(self.norms[0](x))))
        inner = functional.silu(modulate(self.modulation, inner, conditions))
        return torch.as_tensor(self.beside(x) + self.second(inner))


class UNet(nn.Module):
    """U-Net: two residual blocks at each size, skips concatenated, group norms, linear output.

    There is no norm before the output, so that a path from input to output is linear and knows absolute
    values; all else sees them only after a norm. Where they matter much, give them as conditions too.

    Parameters
    ----------
    in_channels, out_channels : int
    width : int
        Channels at full size; doubled at each downsampling.
    depth : int
        Number of downsamplings.
    padding : {"zero", "reflect", "circular"}
        With ``circular`` a cyclic shift by a multiple of 2^depth pixels passes through unchanged.
    conditions : int
        Length of a vector that modulates every block.
    generator : torch.Generator, optional
        Draws the first weights; by default one of seed 0.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        width: int = 16,
        depth: int = 3,
        padding: Padding = "zero",
        conditions: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_sizes(in_channels=in_channels, out_channels=out_channels, width=width, depth=depth)
        if padding not in ("zero", "reflect", "circular"):
            raise InputError(f"unknown padding {padding!r} of a U-Net: use zero, reflect or circular")
        self.depth, self.conditions = depth, conditions
        self.architecture = {
            "in_channels": in_channels, "out_channels": out_channels, "width": width, "depth": depth,
            "padding": padding, "conditions": conditions,
        }  # fmt: skip
        channels = [width * 2**level for level in range(depth)]
        deepest = width * 2**depth
        with torch.device("meta"):
            self.first = convolution(in_channels, width, 3, padding)
            self.before = nn.ModuleList(_Block(n, n, padding, conditions) for n in channels)
            self.down = nn.ModuleList(convolution(n, 2 * n, 3, padding, 2) for n in channels)
            self.middle = _Block(deepest, deepest, padding, conditions)
            self.up = nn.ModuleList(nn.Conv2d(2 * n, n, 1) for n in reversed(channels))
            self.after = nn.ModuleList(_Block(2 * n, n, padding, conditions) for n in reversed(channels))
            self.last = convolution(width, out_channels, 3, padding)
        initialise(self, generator)
        with torch.no_grad():
            # Blocks begin near the identity and the output near zero: an order of magnitude less error after
            # 200 steps of Adam on a shift and on a square than with the weights as drawn.
            for layer in (self.last, *(each.second for each in self.modules() if isinstance(each, _Block))):
                layer.weight.mul_(_SMALL)

    def forward(self, x: torch.Tensor, conditions: torch.Tensor | None = None) -> torch.Tensor:
        """Map images to images.

        Parameters
        ----------
        x : Tensor, shape (sample, in_channels, y, x)
            y and x multiples of 2^depth and at least twice that.
        conditions : Tensor, shape (sample, conditions), optional

        Returns
        -------
        Tensor, shape (sample, out_channels, y, x)

        Raises
        ------
        InputError
            For another size, or conditions that do not fit the network.
        """
        check_call(x, 2**self.depth, conditions, self.conditions)
        x, skips = self.first(x), []
        for block, down in zip(self.before, self.down, strict=True):
            skips.append(block(x, conditions))
            x = down(skips[-1])
        x = self.middle(x, conditions)
        for up, block in zip(self.up, self.after, strict=True):
            x = functional.interpolate(up(x), scale_factor=2.0, mode="nearest")
            x = block(torch.cat([x, skips.pop()], 1), conditions)
        return torch.as_tensor(self.last(x))
