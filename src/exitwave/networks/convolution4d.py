"""4D convolutions over scan and detector, and the network of Cao et al. (2020) made of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from exitwave.errors import InputError
from exitwave.networks.layers import check_sizes, initialise
from exitwave.networks.radial import check_cluster

Pooling = Literal["average", "max"]
Scaling = Literal["mean", "root", "none"]


def gathered(x: Tensor, rows: int, columns: int) -> Tensor:
    """Return what is in each window of the scan as channels.

    Parameters
    ----------
    x : Tensor, shape (sample, channel, scan_y, scan_x, ky, kx)
    rows, columns : int
        Of a window.

    Returns
    -------
    Tensor, shape (sample, scan_y - rows + 1, scan_x - columns + 1, channel · rows · columns, ky, kx)
    """
    windows = x.unfold(2, rows, 1).unfold(3, columns, 1)  # sample, channel, y, x, ky, kx, row, column
    # Channels last in memory: on a CPU convolution and pooling then take half the time.
    return windows.permute(0, 2, 3, 4, 5, 1, 6, 7).flatten(5).movedim(5, 3)


class Convolution4d(nn.Conv2d):
    """Convolution over scan and detector, of stride 1.

    The scan axes of the kernel are folded into channels: one 2D convolution over the detector then does all,
    the fastest of six ways on a CPU. The weights have the shape (out, in · scan_y · scan_x, ky, kx).

    Parameters
    ----------
    in_channels, out_channels : int
    kernel : four of int
        Along (scan_y, scan_x, ky, kx), odd along the detector.
    padding : four of int, optional
        Zeros before and after, along each. By default none along the scan, and on the detector what keeps
        its size.
    bias : bool
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: Sequence[int] = (3, 3, 3, 3), *,
        padding: Sequence[int] | None = None, bias: bool = True,
    ) -> None:  # fmt: skip
        _check_four("kernel", kernel, 1)
        if padding is None:
            padding = (0, 0, kernel[2] // 2, kernel[3] // 2)
        _check_four("padding", padding, 0)
        check_sizes(in_channels=in_channels, out_channels=out_channels)
        folded = in_channels * kernel[0] * kernel[1]
        super().__init__(
            folded, out_channels, (kernel[2], kernel[3]), padding=(padding[2], padding[3]), bias=bias
        )
        self.scan_channels, self.scan_kernel = in_channels, (kernel[0], kernel[1])
        self.scan_padding = (padding[0], padding[1])

    def kernel(self) -> Tensor:
        """Return the weights as (out, in, scan_y, scan_x, ky, kx)."""
        return self.weight.reshape(
            self.out_channels, self.scan_channels, *self.scan_kernel, *self.kernel_size
        )

    def forward(self, x: Tensor) -> Tensor:
        """Convolve.

        Parameters
        ----------
        x : Tensor, shape (sample, in_channels, scan_y, scan_x, ky, kx)

        Returns
        -------
        Tensor, shape (sample, out_channels, scan_y, scan_x, ky, kx)
            Each axis as long as before, with the padding and less the kernel but one.

        Raises
        ------
        InputError
            For another number of axes or channels, or an axis shorter than the kernel.
        """
        size = (*self.scan_kernel, *self.kernel_size)
        padding = (*self.scan_padding, *(int(n) for n in self.padding))
        short = x.ndim != 6 or any(
            n + 2 * p < k for n, p, k in zip(x.shape[2:], padding, size, strict=True)
        )  # fmt: skip
        if short or x.shape[1] != self.scan_channels:
            raise InputError(
                f"a 4D convolution of {self.scan_channels} channels by a kernel {size} of an array "
                f"{tuple(x.shape)}: give (sample, {self.scan_channels}, scan_y, scan_x, ky, kx), "
                "as large as the kernel"
            )
        if any(self.scan_padding):
            y, x_ = self.scan_padding
            x = functional.pad(x, (0, 0, 0, 0, x_, x_, y, y))
        folded = gathered(x, *self.scan_kernel)
        made = super().forward(folded.flatten(0, 2))
        return made.reshape(*folded.shape[:3], *made.shape[1:]).movedim(3, 1)


class Pooling4d(nn.Module):
    """Mean or largest of blocks that do not overlap; what is left over at an end is dropped.

    Parameters
    ----------
    size : four of int
        Of a block along (scan_y, scan_x, ky, kx).
    kind : {"average", "max"}
    """

    def __init__(self, size: Sequence[int] = (1, 1, 2, 2), kind: Pooling = "average") -> None:
        super().__init__()
        _check_four("size", size, 1)
        if kind not in get_args(Pooling):
            raise InputError(f"unknown pooling {kind!r}: use {' or '.join(get_args(Pooling))}")
        self.size, self.kind = tuple(size), kind

    def forward(self, x: Tensor) -> Tensor:
        """Pool (sample, channel, scan_y, scan_x, ky, kx)."""
        pool = functional.avg_pool2d if self.kind == "average" else functional.max_pool2d
        # As the convolutions have it in memory, so that nothing is copied for the detector.
        ordered = x.movedim(1, 3)
        pooled = pool(ordered.flatten(0, 2), self.size[2:])
        pooled = pooled.reshape(*ordered.shape[:3], *pooled.shape[1:])
        if self.size[:2] != (1, 1):
            ahead = pooled.permute(0, 4, 5, 3, 1, 2)
            pooled = pool(ahead.flatten(0, 2), self.size[:2])
            pooled = pooled.reshape(*ahead.shape[:3], *pooled.shape[1:]).permute(0, 4, 5, 3, 1, 2)
        return torch.as_tensor(pooled.movedim(3, 1))


class Dropout(nn.Module):
    """Dropout that draws from its own seed and count, which are stored: a resumed training is the same.

    Parameters
    ----------
    share : float
        Of the values that are set to 0 in training, 0..1 exclusive; the others are raised.
    """

    seed: Tensor
    drawn: Tensor

    def __init__(self, share: float) -> None:
        super().__init__()
        if not 0 <= share < 1:
            raise InputError(f"a dropout of {share}: use 0 for none, or less than 1")
        self.share = share
        self.register_buffer("seed", torch.zeros((), dtype=torch.int64))
        self.register_buffer("drawn", torch.zeros((), dtype=torch.int64))

    def begin(self, generator: torch.Generator) -> None:
        """Draw the seed."""
        self.seed.copy_(torch.randint(2**40, (), generator=generator))
        self.drawn.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Drop in training; else return what is given."""
        if not self.training or not self.share:
            return x
        generator = torch.Generator().manual_seed(int(self.seed) + int(self.drawn))
        self.drawn += 1
        kept = torch.rand(x.shape, generator=generator) >= self.share
        return torch.as_tensor(x * (kept.to(x) / (1 - self.share)))


def scaled(patterns: Tensor, scaling: Scaling) -> Tensor:
    """Return patterns (..., ky, kx) in FFT order centred, and as a network takes them.

    ``mean``: each over its own mean, so that neither dose nor detector pixels set the scale; ``root``: the
    square root of that, after which counts have a like noise; ``none``: as they are. What is negative
    counts as 0 for ``root``; an empty pattern stays empty.
    """
    if scaling != "none":
        mean = patterns.mean((-2, -1), keepdim=True)
        patterns = patterns / torch.where(mean > 0, mean, 1)
    if scaling == "root":
        patterns = patterns.clamp_min(0).sqrt()
    return torch.as_tensor(torch.fft.fftshift(patterns, (-2, -1)))


class ClusterNet(nn.Module):
    """The network of Cao et al. (2020): twice a 4D convolution and pooling, then dropout and a dense layer.

    The paper gives no numbers and no ramp (here ReLU): all are choices. Convolutions are without padding
    along the scan, and pooling is over the detector alone: so a scan can be done at once (:meth:`image`).

    Parameters
    ----------
    detector : (int, int)
        Pixels (ky, kx) of the patterns.
    cluster : int
        Positions along each side, odd.
    channels : two of int
        Of the convolutions.
    kernel : four of int
        Of both, along (scan_y, scan_x, ky, kx). If two leave more than one position of the cluster, the
        dense layer sees all that are left.
    pooling : {"average", "max"}
    pool : int
        Pixels of the detector along each side of a block.
    dropout : float
        Share of values.
    outputs : int
        1 for an intensity; 2 for, say, intensity and phase.
    scaling : {"mean", "root", "none"}
        See :func:`scaled`.
    generator : torch.Generator, optional
        Draws first weights (He) and the seed of the dropout; by default one of seed 0.
    """

    def __init__(
        self, detector: Sequence[int] = (32, 32), *, cluster: int = 5, channels: Sequence[int] = (8, 16),
        kernel: Sequence[int] = (3, 3, 3, 3), pooling: Pooling = "average", pool: int = 2,
        dropout: float = 0.5, outputs: int = 1, scaling: Scaling = "root",
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        rest, left = _left(detector, cluster, kernel, pool)
        check_sizes(first_channels=channels[0], second_channels=channels[1], outputs=outputs)
        if scaling not in get_args(Scaling):
            raise InputError(f"unknown scaling {scaling!r}: use {', '.join(get_args(Scaling))}")
        self.detector, self.cluster, self.scaling, self.rest = tuple(detector), cluster, scaling, rest
        self.architecture = {
            "detector": list(detector), "cluster": cluster, "channels": list(channels),
            "kernel": list(kernel), "pooling": pooling, "pool": pool, "dropout": dropout,
            "outputs": outputs, "scaling": scaling,
        }  # fmt: skip
        with torch.device("meta"):
            self.body = nn.Sequential()
            for one, two in itertools.pairwise([1, *channels]):
                self.body.append(Convolution4d(one, two, kernel))
                self.body.append(nn.ReLU(inplace=True))
                self.body.append(Pooling4d((1, 1, pool, pool), pooling))
            self.drop = Dropout(dropout)
            self.dense = nn.Linear(channels[1] * math.prod(rest) * math.prod(left), outputs)
        if generator is None:
            generator = torch.Generator().manual_seed(0)
        initialise(self, generator)
        self.drop.begin(generator)

    def forward(self, clusters: Tensor) -> Tensor:
        """Map clusters of patterns to what is at their middles.

        Parameters
        ----------
        clusters : Tensor, shape (sample, cluster, cluster, ky, kx), real
            FFT order.

        Returns
        -------
        Tensor, shape (sample,), or (sample, outputs) if there are several

        Raises
        ------
        InputError
            For another shape.
        """
        if tuple(clusters.shape[1:]) != (self.cluster, self.cluster, *self.detector):
            raise InputError(
                f"clusters of shape {tuple(clusters.shape)}: give "
                f"(sample, {self.cluster}, {self.cluster}, {self.detector[0]}, {self.detector[1]})"
            )
        return torch.as_tensor(self._positions(clusters)[:, 0, 0])

    def image(self, patterns: Tensor, *, rows: int = 8) -> Tensor:
        """Map a whole scan: what clusters share is not computed again, and the result is the same.

        Parameters
        ----------
        patterns : Tensor, shape (scan_y, scan_x, ky, kx), real
            FFT order.
        rows : int
            Of the result, at a time: bounds the memory. Only what is shared across their joins is computed
            twice.

        Returns
        -------
        Tensor, shape (scan_y - cluster + 1, scan_x - cluster + 1), or (..., outputs) if there are several
            In evaluation mode what the clusters of :func:`exitwave.networks.radial.scan_clusters` give.

        Raises
        ------
        InputError
            For another shape, or a scan smaller than a cluster.
        """
        check_sizes(rows=rows)
        fits = patterns.ndim == 4 and tuple(patterns.shape[2:]) == self.detector
        if not fits or min(patterns.shape[:2]) < self.cluster:
            raise InputError(
                f"patterns of shape {tuple(patterns.shape)}: give (scan_y, scan_x, {self.detector[0]}, "
                f"{self.detector[1]}), {self.cluster} positions or more along each side"
            )
        beyond = self.cluster - 1
        starts = range(0, len(patterns) - beyond, rows)
        return torch.cat([self._positions(patterns[None, i : i + rows + beyond])[0] for i in starts])

    def _positions(self, patterns: Tensor) -> Tensor:
        """Map (sample, scan_y, scan_x, ky, kx) to (sample, y, x), with a last axis of several outputs."""
        x = self.body(scaled(patterns, self.scaling)[:, None])
        made = self.dense(self.drop(gathered(x, *self.rest).flatten(3)))
        return torch.as_tensor(made[..., 0] if made.shape[-1] == 1 else made)


def _left(
    detector: Sequence[int], cluster: int, kernel: Sequence[int], pool: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return what two layers leave of a cluster, and of a detector."""
    check_cluster(cluster)
    _check_four("kernel", kernel, 1)
    check_sizes(pool=pool)
    rest = (cluster - 2 * (kernel[0] - 1), cluster - 2 * (kernel[1] - 1))
    if min(rest) < 1:
        raise InputError(f"a cluster of {cluster} for two kernels {tuple(kernel)}: use a larger cluster")
    if any(n % 2 == 0 for n in kernel[2:]):
        raise InputError(f"a kernel {tuple(kernel)}: use odd numbers along the detector")
    if len(detector) != 2 or any(n < 1 or n % pool**2 for n in detector):
        raise InputError(
            f"a detector of {tuple(detector)} pixels: use multiples of {pool**2}, or bin, or pad"
        )
    return rest, (detector[0] // pool**2, detector[1] // pool**2)


def _check_four(name: str, sizes: Sequence[int], least: int) -> None:
    """Raise InputError if these are not four whole numbers, of at least `least`."""
    if len(sizes) != 4 or any(n != int(n) or n < least for n in sizes):
        raise InputError(
            f"{name} {tuple(sizes)}: give four whole numbers for (scan_y, scan_x, ky, kx), {least} or more"
        )
