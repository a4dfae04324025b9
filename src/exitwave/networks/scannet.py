"""A network from a whole 4D-STEM scan to the phase of the object: an encoder of patterns, then a U-Net."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from exitwave.errors import InputError
from exitwave.networks.convolution4d import scaled
from exitwave.networks.layers import Padding, check_sizes, convolution, initialise
from exitwave.networks.unet import UNet
from exitwave.optics.grids import Value, check_batch, checked

_SMALL = 0.1  # by which what the deep path adds to the linear one begins smaller
_AT_ONCE = 512  # patterns, of which all layers stay in the cache, where nothing is kept for gradients


def scan_conditions(dose: Value, semiangle: Value, defocus: Value) -> Tensor:
    """Return what a :class:`ScanNet` is told, as numbers near -1..1.

    Parameters
    ----------
    dose : float or Tensor
        Electrons per Å²; what is above 1e8 counts as that, infinity too.
    semiangle : float or Tensor
        Of the probe, rad.
    defocus : float or Tensor
        Å, underfocus positive.

    Returns
    -------
    Tensor, shape (sample, 3), float32
        (log10(dose) - 4) / 4, semiangle / 20 mrad - 1, defocus / 200 Å.

    Raises
    ------
    InputError
        For a dose or an angle that is not positive, or what is not finite.
    """
    dose = torch.as_tensor(dose).double().clamp_max(1e8)
    told = (
        (torch.as_tensor(checked(dose, "dose", positive=True)).log10() - 4) / 4,
        torch.as_tensor(checked(semiangle, "semiangle", positive=True)) / 0.02 - 1,
        torch.as_tensor(checked(defocus, "defocus")) / 200,
    )
    check_batch(*told)
    shape = torch.broadcast_shapes((1,), *(each.shape for each in told))  # type: ignore[no-untyped-call]
    return torch.stack([each.float().expand(shape) for each in told], -1)


class _Encoder(nn.Module):
    """Features of each pattern: linear ones of the intensity, plus those of a small network of its root.

    The linear ones can be virtual detectors and centres of mass, which are unbiased at any dose.
    """

    def __init__(self, detector: tuple[int, int], features: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.linear = nn.Linear(math.prod(detector), features)
        self.layers = nn.ModuleList(
            convolution(one, two, 3, "zero", 2) for one, two in itertools.pairwise([1, *channels])
        )
        left = [-(-n // 2 ** len(channels)) for n in detector]
        self.last = nn.Linear(channels[-1] * math.prod(left), features)

    def forward(self, patterns: Tensor) -> Tensor:
        """Map (pattern, ky, kx), FFT order, to (pattern, feature)."""
        if not torch.is_grad_enabled() and len(patterns) > _AT_ONCE:
            # Of like sizes: sums over a few patterns are rounded otherwise.
            parts = patterns.tensor_split(math.ceil(len(patterns) / _AT_ONCE))
            return torch.cat([self(some) for some in parts])
        x = scaled(patterns, "mean")
        found = self.linear(x.flatten(1))
        # On a CPU the root of a zero takes ten times as long as that of another number.
        seen = x > 0
        x = (torch.where(seen, x, 1.0).sqrt() * seen)[:, None]
        for layer in self.layers:
            x = functional.silu(layer(x))
        return torch.as_tensor(found + self.last(x.flatten(1)))


class ScanNet(nn.Module):
    """Phase on the scan grid, from all patterns of a scan.

    Each pattern is made features of its position by one small network, the same everywhere; a
    :class:`exitwave.networks.unet.UNet` over the scan makes the phase of them. A phase has no origin: its
    mean is 0.

    Parameters
    ----------
    detector : (int, int)
        Pixels (ky, kx) of the patterns.
    features : int
        Of a pattern.
    encoder : sequence of int
        Channels of the strided convolutions over a pattern.
    width, depth : int
        Of the U-Net.
    upsampling : int
        Pixels of the phase for each step of the scan.
    padding : {"zero", "reflect", "circular"}
        Of the U-Net; ``circular`` for a scan of a whole period.
    conditions : int
        3 for those of :func:`scan_conditions`, 0 for none.
    generator : torch.Generator, optional
        Draws the first weights; by default one of seed 0.
    """

    def __init__(
        self, detector: Sequence[int] = (32, 32), *, features: int = 16, encoder: Sequence[int] = (8, 16, 32),
        width: int = 16, depth: int = 3, upsampling: int = 1, padding: Padding = "reflect",
        conditions: int = 3, generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        check_sizes(
            features=features, upsampling=upsampling, layers=len(encoder), channels=min(encoder, default=1)
        )
        if len(detector) != 2 or min(detector) < 1:
            raise InputError(f"a detector of {tuple(detector)} pixels: give (ky, kx)")
        if generator is None:
            generator = torch.Generator().manual_seed(0)
        self.detector, self.upsampling = (detector[0], detector[1]), upsampling
        self.architecture = {
            "detector": list(detector), "features": features, "encoder": list(encoder), "width": width,
            "depth": depth, "upsampling": upsampling, "padding": padding, "conditions": conditions,
        }  # fmt: skip
        with torch.device("meta"):
            self.encoder = _Encoder(self.detector, features, encoder)
        initialise(self, generator)
        with torch.no_grad():
            self.encoder.last.weight.mul_(_SMALL)
        # Channels last in memory: on a CPU half the time, forward and backward.
        self.encoder.layers.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.body = UNet(
            features, upsampling**2, width=width, depth=depth, padding=padding, conditions=conditions,
            generator=generator,
        )  # fmt: skip

    def encode(self, patterns: Tensor) -> Tensor:
        """Return the features of each pattern.

        Parameters
        ----------
        patterns : Tensor, shape (sample, scan_y, scan_x, ky, kx), real
            FFT order.

        Returns
        -------
        Tensor, shape (sample, feature, scan_y, scan_x)

        Raises
        ------
        InputError
            For another shape.
        """
        if patterns.ndim != 5 or tuple(patterns.shape[3:]) != self.detector:
            raise InputError(
                f"patterns of shape {tuple(patterns.shape)}: give "
                f"(sample, scan_y, scan_x, {self.detector[0]}, {self.detector[1]})"
            )
        found = self.encoder(patterns.flatten(0, 2))
        return torch.as_tensor(found.unflatten(0, patterns.shape[:3]).movedim(3, 1).contiguous())

    def forward(self, patterns: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Map scans to phases.

        Parameters
        ----------
        patterns : Tensor, shape (sample, scan_y, scan_x, ky, kx), real
            FFT order; scan_y and scan_x multiples of 2^depth and at least twice that.
        conditions : Tensor, shape (sample, conditions), optional

        Returns
        -------
        Tensor, shape (sample, 1, upsampling · scan_y, upsampling · scan_x)
            rad if it was trained so, of mean 0.

        Raises
        ------
        InputError
            For another shape, or conditions that do not fit the network.
        """
        made = functional.pixel_shuffle(self.body(self.encode(patterns), conditions), self.upsampling)
        return made - made.mean((-2, -1), keepdim=True)
