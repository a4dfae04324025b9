"""The parts of pix2pixHD: global generator, multiscale discriminator and losses.

Wang et al., High-resolution image synthesis and semantic manipulation with conditional GANs, CVPR 2018,
as its code does it and as Webb et al. 2025 ran it: the global generator alone, least squares instead of
the logarithms of their Eq. 2, features matched in L1, and a perceptual term from VGG19 whose weights
the user brings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional

from exitwave.errors import InputError
from exitwave.networks.layers import (
    Doubling,
    Padding,
    check_call,
    check_sizes,
    convolution,
    initialise,
    modulate,
    modulation,
)

DEVIATION = 0.02  # of the first weights of the convolutions
_SLOPE = 0.2  # of the leaky rectifiers
_WIDEST = 512  # channels of a discriminator

Features = Sequence[Sequence[torch.Tensor]]


class _Block(nn.Module):
    """Two 3x3 convolutions, each normed and modulated, beside the identity."""

    def __init__(self, channels: int, padding: Padding, conditions: int) -> None:
        super().__init__()
        self.first = convolution(channels, channels, 3, padding)
        self.second = convolution(channels, channels, 3, padding)
        self.norm = nn.InstanceNorm2d(channels)
        self.first_modulation = modulation(conditions, channels)
        self.second_modulation = modulation(conditions, channels)

    def forward(self, x: torch.Tensor, conditions: torch.Tensor | None) -> torch.Tensor:
        inner = modulate(self.first_modulation, self.norm(self.first(x)), conditions)
        inner = self.norm(self.second(functional.relu(inner)))
        return x + modulate(self.second_modulation, inner, conditions)


class GlobalGenerator(nn.Module):
    """The global generator of pix2pixHD: 7x7, strided 3x3, residual blocks, transposed 3x3, 7x7, tanh.

    Every convolution but the last is followed by an instance norm without parameters and a rectifier.

    Parameters
    ----------
    in_channels, out_channels : int
    width : int
        Channels at full size; doubled at each downsampling. 64 in the original.
    downsamplings, blocks : int
        4 and 9 in the original: 182 million parameters.
    padding : {"reflect", "circular"}
        ``reflect`` as the original: the 7x7 and the residual convolutions reflect, the strided pad with
        zeros. ``circular`` wraps all of them, so that a cyclic shift of the input by a multiple of
        2^downsamplings pixels shifts the output by as much and does nothing else.
    conditions : int
        Length of a vector that modulates the bottleneck and both norms of every block.
    generator : torch.Generator, optional
        Draws the first weights, N(0, 0.02); by default one of seed 0.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        width: int = 64,
        downsamplings: int = 4,
        blocks: int = 9,
        padding: Padding = "reflect",
        conditions: int = 0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_sizes(in_channels=in_channels, out_channels=out_channels, width=width)
        if padding not in ("reflect", "circular"):
            raise InputError(f"unknown padding {padding!r} of a generator: use reflect or circular")
        self.downsamplings, self.conditions = downsamplings, conditions
        self.architecture = {
            "in_channels": in_channels, "out_channels": out_channels, "width": width, "blocks": blocks,
            "downsamplings": downsamplings, "padding": padding, "conditions": conditions,
        }  # fmt: skip
        circular = padding == "circular"
        channels = [width * 2**level for level in range(downsamplings + 1)]
        with torch.device("meta"):
            self.first = convolution(in_channels, width, 7, padding)
            self.down = nn.ModuleList(
                convolution(n, 2 * n, 3, "circular" if circular else "zero", 2) for n in channels[:-1]
            )
            self.modulation = modulation(conditions, channels[-1])
            self.blocks = nn.ModuleList(_Block(channels[-1], padding, conditions) for _ in range(blocks))
            self.up = nn.ModuleList(Doubling(2 * n, n, circular) for n in reversed(channels[:-1]))
            self.last = convolution(width, out_channels, 7, padding)
        initialise(self, generator, DEVIATION)

    def forward(self, x: torch.Tensor, conditions: torch.Tensor | None = None) -> torch.Tensor:
        """Translate images.

        Parameters
        ----------
        x : Tensor, shape (sample, in_channels, y, x)
            Scaled to -1..1; y and x multiples of 2^downsamplings and at least twice that.
        conditions : Tensor, shape (sample, conditions), optional

        Returns
        -------
        Tensor, shape (sample, out_channels, y, x)
            Between -1 and 1.

        Raises
        ------
        InputError
            For another size, or conditions that do not fit the network.
        """
        check_call(x, 2**self.downsamplings, conditions, self.conditions)
        x = functional.relu(functional.instance_norm(self.first(x)))
        for level, layer in enumerate(self.down):
            x = functional.instance_norm(layer(x))
            if level == self.downsamplings - 1:
                x = modulate(self.modulation, x, conditions)
            x = functional.relu(x)
        for block in self.blocks:
            x = block(x, conditions)
        for layer in self.up:
            x = functional.relu(functional.instance_norm(layer(x)))
        return torch.tanh(self.last(x))


class MultiscaleDiscriminator(nn.Module):
    """PatchGAN discriminators on the image, on its half, its quarter...

    Each has `layers` 4x4 convolutions of stride 2, one more of stride 1 and a last one to one channel,
    leaky rectifiers of slope 0.2, and instance norms but for the first and the last.

    Parameters
    ----------
    in_channels : int
        Of input and output of the generator together.
    width : int
        Channels of the first layer; doubled from layer to layer up to 512.
    layers, scales : int
    generator : torch.Generator, optional
        Draws the first weights, N(0, 0.02); by default one of seed 0.
    """

    def __init__(
        self,
        in_channels: int,
        *,
        width: int = 64,
        layers: int = 3,
        scales: int = 2,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_sizes(in_channels=in_channels, width=width, layers=layers, scales=scales)
        self.architecture = {"in_channels": in_channels, "width": width, "layers": layers, "scales": scales}
        inner = [min(width * 2**level, _WIDEST) for level in range(layers + 1)]
        channels, strides = [in_channels, *inner, 1], [2] * layers + [1, 1]
        with torch.device("meta"):
            self.scales = nn.ModuleList(
                nn.ModuleList(
                    nn.Conv2d(one, two, 4, stride, 2)
                    for one, two, stride in zip(channels[:-1], channels[1:], strides, strict=True)
                )
                for _ in range(scales)
            )
        initialise(self, generator, DEVIATION)

    def forward(self, x: torch.Tensor) -> list[list[torch.Tensor]]:
        """Judge (sample, in_channels, y, x): the output of each layer of each scale, the verdict last."""
        found = []
        for level, layers in enumerate(self.scales):
            if level:
                x = functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
            found.append(_patches(layers, x))
        return found


def _patches(layers: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Return the output of each layer of one discriminator."""
    first, *inner, last = layers.children()
    found = [functional.leaky_relu(first(x), _SLOPE)]
    for layer in inner:
        found.append(functional.leaky_relu(functional.instance_norm(layer(found[-1])), _SLOPE))
    return [*found, last(found[-1])]


def least_squares_loss(features: Features, target: float) -> torch.Tensor:
    """Return the mean square distance of the verdicts from `target` (1 real, 0 made), summed over scales."""
    return torch.stack([(scale[-1].float() - target).square().mean() for scale in features]).sum()


def feature_matching_loss(made: Features, real: Features) -> torch.Tensor:
    """Return the L1 distance of the features below the verdict, as pix2pixHD weighs it.

    Each layer counts 4 / (layers + 1) / scales. No gradient passes into `real`.
    """
    terms = [
        functional.l1_loss(one.float(), two.detach().float())
        for made_scale, real_scale in zip(made, real, strict=True)
        for one, two in zip(made_scale[:-1], real_scale[:-1], strict=True)
    ]
    # Of the features of a scale, the verdict is one; there is one more below it than there are strides.
    return 4 / (len(made[0]) - 1) / len(made) * torch.stack(terms).sum()


# Convolutions of VGG19 up to relu5_1, by their number among its features; None is a pooling.
_VGG19: tuple[tuple[int, int] | None, ...] = (
    (0, 64), (2, 64), None, (5, 128), (7, 128), None, (10, 256), (12, 256), (14, 256), (16, 256), None,
    (19, 512), (21, 512), (23, 512), (25, 512), None, (28, 512),
)  # fmt: skip
_HEARD = {0: 1 / 32, 5: 1 / 16, 10: 1 / 8, 19: 1 / 4, 28: 1.0}  # relu1_1, 2_1, 3_1, 4_1, 5_1


class VGG19(nn.Module):
    """The features of VGG19 that pix2pixHD compares, with weights that the user gives; they are not learnt.

    Parameters
    ----------
    weights : mapping of str to Tensor
        ``features.0.weight``, ``features.0.bias`` and so on, as torchvision names them, for example
        from :func:`exitwave.networks.weights.read_tensors`. Others are ignored.

    Raises
    ------
    InputError
        If one is missing or has another shape.
    """

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        before = 3
        for number, channels in (each for each in _VGG19 if each):
            shapes = {"weight": (channels, before, 3, 3), "bias": (channels,)}
            for kind, shape in shapes.items():
                name = f"features.{number}.{kind}"
                if name not in weights or tuple(weights[name].shape) != shape:
                    raise InputError(f"no VGG19 weights: {name} of shape {shape} is missing")
                self.register_buffer(f"{kind}{number}", weights[name].float(), persistent=False)
            before = channels

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the features relu1_1 to relu5_1 of (sample, 1 or 3, y, x), -1..1 as pix2pixHD gives it."""
        x = x.expand(-1, 3, -1, -1)
        found = []
        for each in _VGG19:
            if each is None:
                x = functional.max_pool2d(x, 2)
                continue
            number = each[0]
            weight, bias = self.get_buffer(f"weight{number}"), self.get_buffer(f"bias{number}")
            x = functional.relu(functional.conv2d(x, weight, bias, padding=1))
            if number in _HEARD:
                found.append(x)
        return found


def perceptual_loss(network: nn.Module, made: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Return the weighted L1 distance of the features of VGG19; no gradient passes into `real`."""
    with torch.no_grad():
        wanted = network(real)
    terms = zip(_HEARD.values(), network(made), wanted, strict=True)
    return torch.stack(
        [weight * functional.l1_loss(one.float(), two.float()) for weight, one, two in terms]
    ).sum()
