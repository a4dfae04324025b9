"""The network of Leth Larsen et al. (2022): a U-Net of residual blocks, after FusionNet."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from exitwave.networks.layers import check_call, check_sizes, convolution, initialise

# First values of the authors' earlier code: weights of all convolutions, their biases, slopes below zero.
_DEVIATION, _BIAS, _SLOPE = 0.05, 0.1, 0.01


class _Layer(nn.Sequential):
    """Convolution, leaky ramp with a learned slope for each channel, batch norm."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3) -> None:
        super().__init__(
            convolution(inputs, outputs, kernel, "zero"),
            nn.PReLU(outputs, init=_SLOPE),
            nn.BatchNorm2d(outputs),
        )


class _Block(nn.Module):
    """Five layers, the output of the first added to that of the fourth."""

    def __init__(self, inputs: int, channels: int) -> None:
        super().__init__()
        self.first = _Layer(inputs, channels)
        self.inner = nn.Sequential(*(_Layer(channels, channels) for _ in range(3)))
        self.last = _Layer(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return torch.as_tensor(self.last(x + self.inner(x)))


class FusionNet(nn.Module):
    """Encoder and decoder of residual blocks, skips concatenated, a linear output.

    Max pooling halves the size and doubles the channels; bilinear interpolation and a 1x1 layer undo both
    (SOI Sec. S1). The order of ramp and norm, slopes and first weights are those of the authors' earlier
    code, as is the depth: Fig. S1 gives no readable numbers.

    Parameters
    ----------
    in_channels, out_channels : int
        Images of a series, real and imaginary part.
    width : int
        Channels at full size.
    depth : int
        Poolings.
    generator : torch.Generator, optional
        Draws the first weights; by default one of seed 0.
    """

    def __init__(
        self, in_channels: int, out_channels: int = 2, *, width: int = 32, depth: int = 3,
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        check_sizes(in_channels=in_channels, out_channels=out_channels, width=width, depth=depth)
        self.depth = depth
        self.architecture = {
            "in_channels": in_channels, "out_channels": out_channels, "width": width, "depth": depth,
        }  # fmt: skip
        channels = [width * 2**level for level in range(depth + 1)]
        with torch.device("meta"):
            self.down = nn.ModuleList(
                _Block(inputs, outputs)
                for inputs, outputs in zip([in_channels, *channels[:-2]], channels[:-1], strict=True)
            )
            self.bridge = _Block(channels[-2], channels[-1])
            self.narrow = nn.ModuleList(_Layer(2 * n, n, kernel=1) for n in reversed(channels[:-1]))
            self.up = nn.ModuleList(_Block(2 * n, n) for n in reversed(channels[:-1]))
            self.last = convolution(width, out_channels, 1, "zero")
        initialise(self, generator, _DEVIATION)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                nn.init.constant_(layer.bias, _BIAS)
            elif isinstance(layer, nn.BatchNorm2d | nn.PReLU):
                layer.reset_parameters()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map series to waves.

        Parameters
        ----------
        x : Tensor, shape (sample, in_channels, y, x)
            y and x multiples of 2^depth.

        Returns
        -------
        Tensor, shape (sample, out_channels, y, x)

        Raises
        ------
        InputError
            For another size.
        """
        check_call(x, 2**self.depth, None, 0)
        skips = []
        for block in self.down:
            skips.append(block(x))
            x = functional.max_pool2d(skips[-1], 2)
        x = self.bridge(x)
        for narrow, block in zip(self.narrow, self.up, strict=True):
            x = functional.interpolate(x, scale_factor=2.0, mode="bilinear")
            x = block(torch.cat([narrow(x), skips.pop()], 1))
        return torch.as_tensor(self.last(x))
