"""Networks of sharded deep holography (Ede et al. 2020, Appendix A): an image and what is known of it in.

Both take metadata (sample, 4): defocus (Å, > 0 is underfocus), beam energy (eV), depth of the specimen (Å)
and pixel size (Å).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from exitwave.errors import InputError
from exitwave.networks.layers import Modulation, check_sizes
from exitwave.networks.oneshot import _begin, _Spectral
from exitwave.networks.unet import UNet
from exitwave.optics import propagator

METADATA = ("defocus", "energy", "depth", "pixel")
_SLOPE = 0.2
# A correction stays below this, over a mean modulus of 1: a judge can drive a linear one without bounds.
_MOST = 4.0
# Usual deviation of moduli from their mean, 1: a judge learns faster from what varies by about 1.
_CONTRAST = 0.4


def defocused(waves: torch.Tensor, metadata: torch.Tensor, *, back: bool = False) -> torch.Tensor:
    """Return waves behind a lens that only defocuses (Eqs. 27 and 29), or before it.

    Parameters
    ----------
    waves : Tensor, shape (sample, y, x), complex
        Taken as periodic.
    metadata : Tensor, shape (sample, 4)
    back : bool
        Divide by the transfer function (Eq. 32).

    Returns
    -------
    Tensor, shape (sample, y, x), complex
    """
    defocus, energy, _, pixel = metadata.double().T
    # Underfocus is propagation back. Distance and pixel size enter as distance / pixel² alone.
    distance = (defocus if back else -defocus) / pixel.square()
    transfer = propagator(
        (waves.shape[-2], waves.shape[-1]), 1.0, distance, energy, dtype=waves.dtype, device=waves.device
    )
    found: torch.Tensor = torch.fft.ifft2(torch.fft.fft2(waves) * transfer)
    return found


def as_wave(channels: torch.Tensor) -> torch.Tensor:
    """Return waves (sample, y, x) of their real and imaginary parts (sample, 2, y, x)."""
    return torch.complex(channels[:, 0].float(), channels[:, 1].float())


def as_channels(waves: torch.Tensor) -> torch.Tensor:
    """Return real and imaginary parts (sample, 2, y, x) of waves (sample, y, x)."""
    return torch.stack([waves.real, waves.imag], 1)


class Scaled(nn.Module):
    """Brings metadata from their ranges to -1..1.

    Raises
    ------
    InputError
        For a range that is none.
    """

    low: torch.Tensor
    high: torch.Tensor

    def __init__(self, ranges: Sequence[tuple[float, float]]) -> None:
        super().__init__()
        if len(ranges) != len(METADATA) or not all(low < high for low, high in ranges):
            raise InputError(f"ranges {ranges} of metadata: give low < high of {', '.join(METADATA)}")
        low, high = zip(*ranges, strict=True)
        # No weights: they follow from the architecture.
        for name, value in (("low", low), ("high", high)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float32), persistent=False)

    def forward(self, metadata: torch.Tensor) -> torch.Tensor:
        """Scale (sample, 4)."""
        return 2 * (metadata.float() - self.low) / (self.high - self.low) - 1


class WaveGenerator(nn.Module):
    """G of Eq. 28: a U-Net that corrects the modulus, taken for the image wave and brought back to focus.

    Of many ways to build G this one begins at a wave that has the given image.

    Parameters
    ----------
    ranges : sequence of (float, float)
        Of the four metadata.
    width, depth : int
        As for :class:`exitwave.networks.unet.UNet`.
    generator : torch.Generator, optional
        Draws the first weights; by default one of seed 0.
    """

    def __init__(
        self,
        ranges: Sequence[tuple[float, float]],
        *,
        width: int = 8,
        depth: int = 3,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.architecture = {"ranges": [list(each) for each in ranges], "width": width, "depth": depth}
        self.unet = UNet(3, 2, width=width, depth=depth, conditions=len(METADATA), generator=generator)
        self.scaled = Scaled(ranges)

    def forward(self, modulus: torch.Tensor, metadata: torch.Tensor) -> torch.Tensor:
        """Map moduli of images (sample, 1, y, x) to exit waves, real and imaginary part (sample, 2, y, x)."""
        modulus = modulus.float()
        start = as_channels(defocused(modulus[:, 0].to(torch.complex64), metadata, back=True))
        change = self.unet(torch.cat([modulus, start], 1), self.scaled(metadata))
        return start + _MOST * torch.tanh(change.float() / _MOST)


class ImageJudge(nn.Module):
    """D of Eq. 30: is the modulus real for its metadata? Three spectrally normed, modulated convolutions.

    Parameters
    ----------
    ranges : sequence of (float, float)
        Of the four metadata.
    width : int
        Channels of the first layer; doubled in each.
    generator : torch.Generator, optional
    """

    def __init__(
        self,
        ranges: Sequence[tuple[float, float]],
        *,
        width: int = 12,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_sizes(width=width)
        self.architecture = {"ranges": [list(each) for each in ranges], "width": width}
        channels = [1, width, 2 * width, 4 * width]
        with torch.device("meta"):
            self.layers = nn.ModuleList(_Spectral(one, two, 2) for one, two in pairwise(channels))
            self.modulations = nn.ModuleList(Modulation(len(METADATA), n) for n in channels[1:])
            self.last = nn.Conv2d(channels[-1], 1, 3, 1, 1)
        _begin(self, generator)
        self.scaled = Scaled(ranges)

    def forward(self, modulus: torch.Tensor, metadata: torch.Tensor) -> torch.Tensor:
        """Judge moduli (sample, 1, y, x): one number each, shape (sample,)."""
        conditions, x = self.scaled(metadata), (modulus - 1) / _CONTRAST
        for layer, told in zip(self.layers, self.modulations, strict=True):
            x = functional.leaky_relu(told(layer(x), conditions), _SLOPE)
        return torch.as_tensor(self.last(x)).float().mean((1, 2, 3))
