"""The networks of Ede et al. 2020: phase components from an amplitude, and a judge of waves."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import nn
from torch.nn import functional

from exitwave.errors import InputError
from exitwave.networks.layers import check_call, check_sizes, convolution, initialise

Order = Literal["norm first", "activation first"]

_SLOPE, _JUDGE_SLOPE = 0.1, 0.2  # of the leaky ramps below zero
_TINY = 1e-8  # below the root of the last normalisation
# Channels over those of the first layer, and strides, of the judge.
_JUDGE = ((1, 1), (1, 2), (2, 1), (2, 2), (4, 1), (4, 2), (8, 1), (8, 2), (4, 2))


class _Layer(nn.Module):
    """Convolution (or transposed one), batch norm and ramp, the last two in either order."""

    def __init__(self, layer: nn.Module, channels: int, order: Order, slope: float) -> None:
        super().__init__()
        self.layer, self.norm = layer, nn.BatchNorm2d(channels)
        self.first, self.slope = order == "norm first", slope

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer(x)
        if self.first:
            return functional.leaky_relu(self.norm(x), self.slope)
        return torch.as_tensor(self.norm(functional.leaky_relu(x, self.slope)))


class _Block(nn.Module):
    """Three layers beside the identity, and a norm of the sum."""

    def __init__(self, channels: int, order: Order) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            *(_Layer(convolution(channels, channels, 3, "zero"), channels, order, 0.0) for _ in range(3))
        )
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.norm(x + self.inner(x)))


class OneShot(nn.Module):
    """Encoder, residual blocks and decoder from an amplitude to (cos θ, sin θ), of modulus 1.

    Numbers of layers, the norms of input, sums and output, and the slopes are those of the authors' code,
    which has the ramp before the norm, and the paper the norm before the ramp.

    Parameters
    ----------
    in_channels : int
    width : int
        Channels at full size, 32 in the original; doubled at each downsampling.
    downsamplings, blocks : int
        4 and 6 in the original; 3 downsamplings in its adversarial generator.
    order : {"norm first", "activation first"}
        As in the paper, or as in the code.
    generator : torch.Generator, optional
        Draws the first weights (Glorot and Bengio, uniform); by default one of seed 0.
    """

    def __init__(
        self, in_channels: int = 1, *, width: int = 32, downsamplings: int = 4, blocks: int = 6,
        order: Order = "norm first", generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        check_sizes(in_channels=in_channels, width=width, downsamplings=downsamplings, blocks=blocks)
        if order not in get_args(Order):
            raise InputError(f"unknown order {order!r} of layers: use {' or '.join(get_args(Order))}")
        self.downsamplings = downsamplings
        self.architecture = {
            "in_channels": in_channels, "width": width, "downsamplings": downsamplings, "blocks": blocks,
            "order": order,
        }  # fmt: skip
        channels = [width * 2**level for level in range(downsamplings + 1)]

        def layer(one: int, two: int, stride: int = 1) -> _Layer:
            return _Layer(convolution(one, two, 3, "zero", stride), two, order, _SLOPE)

        def doubling(one: int, two: int) -> _Layer:
            made = nn.ConvTranspose2d(one, two, 3, 2, 1, output_padding=1)
            return _Layer(made, two, order, _SLOPE)

        with torch.device("meta"):
            self.input = nn.BatchNorm2d(in_channels)
            self.body = nn.Sequential(
                layer(in_channels, width),
                *(layer(n, 2 * n, 2) for n in channels[:-1]),
                *(_Block(channels[-1], order) for _ in range(blocks)),
                *(doubling(2 * n, n) for n in reversed(channels[:-1])),
                layer(width, width),
            )
            self.last = nn.Conv2d(width, 2, 3, 1, 1, bias=False)
            self.norm = nn.BatchNorm2d(2)
        _begin(self, generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map amplitudes to phase components.

        Parameters
        ----------
        x : Tensor, shape (sample, in_channels, y, x)
            y and x multiples of 2^downsamplings and at least twice that.

        Returns
        -------
        Tensor, shape (sample, 2, y, x)
            cos θ and sin θ.

        Raises
        ------
        InputError
            For another size.
        """
        check_call(x, 2**self.downsamplings, None, 0)
        x = self.norm(self.last(self.body(self.input(x)))).float()
        return x / (x.square().sum(1, keepdim=True) + _TINY).sqrt()


class _Spectral(nn.Conv2d):
    """4x4 convolution without bias whose weights are divided by their largest singular value.

    That is tracked by one power iteration for each call in training (Miyato et al. 2018).
    """

    left: torch.Tensor

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__(inputs, outputs, 4, stride, bias=False)
        self.register_buffer("left", torch.empty(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        matrix = self.weight.flatten(1)
        with torch.no_grad():
            right = functional.normalize(matrix.T @ self.left, dim=0)
            left = functional.normalize(matrix @ right, dim=0)
            if self.training:
                self.left.copy_(left)
        largest = left @ matrix @ right
        stride = self.stride[0]
        # As large as the input over the stride, rounded up; what is odd of the padding is at the end.
        missing = [max(0, (-(-size // stride) - 1) * stride + 4 - size) for size in x.shape[:1:-1]]
        padded = functional.pad(x, [part for n in missing for part in (n // 2, n - n // 2)])
        return functional.conv2d(padded, self.weight / largest, None, self.stride)


class WaveJudge(nn.Module):
    """The discriminator: nine spectrally normed convolutions of a wave, and the mean of all that comes out.

    Parameters
    ----------
    width : int
        Channels of the first layer, 50 in the original.
    generator : torch.Generator, optional
        Draws the first weights; by default one of seed 0.

    Attributes
    ----------
    running : Tensor, shape ()
        Mean verdict on generated waves (Eq. 24), kept by who trains it.
    """

    running: torch.Tensor

    def __init__(self, *, width: int = 50, generator: torch.Generator | None = None) -> None:
        super().__init__()
        check_sizes(width=width)
        self.architecture = {"width": width}
        channels = [2, *(factor * width for factor, _ in _JUDGE)]
        with torch.device("meta"):
            self.layers = nn.Sequential(
                *(
                    _Spectral(one, two, stride)
                    for one, two, (_, stride) in zip(channels[:-1], channels[1:], _JUDGE, strict=True)
                )
            )
            self.register_buffer("running", torch.empty(()))
        _begin(self, generator)
        self.running.fill_(0.5)

    def forward(self, wave: torch.Tensor) -> torch.Tensor:
        """Judge waves (sample, 2, y, x), A cos θ and A sin θ: one number each, shape (sample,)."""
        for layer in self.layers:
            wave = functional.leaky_relu(layer(wave), _JUDGE_SLOPE)
        return wave.float().mean((1, 2, 3))


def _begin(network: nn.Module, generator: torch.Generator | None) -> None:
    """Give first weights to a network that was built on the device ``meta``."""
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    initialise(network, generator)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.reset_parameters()
        if isinstance(layer, _Spectral):
            layer.left.normal_(generator=generator)
