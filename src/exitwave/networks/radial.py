"""The linear model of Cao et al. (2020): weights of the patterns of a cluster, then one round mask."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from exitwave.errors import InputError
from exitwave.networks.layers import check_sizes
from exitwave.optics.grids import frequency_grid, sampling_pair


def scan_clusters(patterns: Tensor, cluster: int) -> Tensor:
    """Return the cluster of patterns around each scan position that has one; nothing is copied.

    Parameters
    ----------
    patterns : Tensor, shape (scan_y, scan_x, ...)
        ky and kx, or whatever there is at each position.
    cluster : int
        Positions along each side, odd.

    Returns
    -------
    Tensor, shape (scan_y - cluster + 1, scan_x - cluster + 1, cluster, cluster, ...)
        The first is centred at position (cluster // 2, cluster // 2).

    Raises
    ------
    InputError
        For a cluster that is even or larger than the scan.
    """
    check_cluster(cluster)
    if patterns.ndim < 2 or min(patterns.shape[:2]) < cluster:
        raise InputError(
            f"a cluster of {cluster} in a scan of {tuple(patterns.shape[:2])}: use a smaller one"
        )
    return patterns.unfold(0, cluster, 1).unfold(1, cluster, 1).movedim((-2, -1), (2, 3))


def check_cluster(cluster: int) -> None:
    """Raise InputError for a cluster that has no position in its middle."""
    if cluster < 1 or cluster % 2 == 0:
        raise InputError(f"a cluster of {cluster}: use an odd number, so that a position is in its middle")


class RadialModel(nn.Module):
    """Intensity = Σ over a cluster of w(distance) Σ over the detector of m(abs(k)) pattern, + bias.

    Both layers are round by construction. There is one weight for each distinct distance from the middle of
    the cluster. The mask is linear in abs(k) between rings at equal distances from 0 to `outer`, and falls
    to 0 within one more: given in 1/Å, it means the same on any detector.

    Parameters
    ----------
    cluster : int
        Positions along each side, odd.
    rings : int
        Parameters of the mask, 2 or more.
    outer : float
        abs(k) of the last ring, 1/Å.
    sampling : float or (float, float)
        Of the probe (y, x), Å: patterns have pixels of 1 / (shape · sampling). Each call may have its own.
    generator : torch.Generator, optional
        Draws the first mask; by default one of seed 0. The cluster begins as a mean.

    Attributes
    ----------
    weights : Tensor, shape (distance,)
        By increasing distance.
    mask : Tensor, shape (ring,)
        Over 2^exponents, so that all have a like effect on the output.
    exponents : Tensor, shape (ring,), int64
        See :func:`standardise`. Powers of two, which half precision keeps.
    bias : Tensor, shape ()
    """

    exponents: Tensor
    places: Tensor

    def __init__(
        self, *, cluster: int = 3, rings: int = 16, outer: float = 2.0,
        sampling: float | tuple[float, float] = 0.25, generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        check_sizes(rings=rings - 1)
        check_cluster(cluster)
        if not (math.isfinite(outer) and outer > 0):
            raise InputError(f"a last ring at {outer} 1/Å: use a positive number")
        self.cluster, self.rings, self.outer = cluster, rings, float(outer)
        self.sampling = sampling_pair((sampling[0], sampling[1]) if isinstance(sampling, list) else sampling)
        self.architecture = {
            "cluster": cluster, "rings": rings, "outer": self.outer, "sampling": list(self.sampling),
        }  # fmt: skip
        places = _places(cluster)
        distances = int(places.max()) + 1
        if generator is None:
            generator = torch.Generator().manual_seed(0)
        self.weights = nn.Parameter(torch.full((distances,), 1 / cluster**2))
        self.mask = nn.Parameter(torch.empty(rings).normal_(0, rings**-0.5, generator=generator))
        self.bias = nn.Parameter(torch.zeros(()))
        self.register_buffer("exponents", torch.zeros(rings, dtype=torch.int64))
        self.register_buffer("places", places, persistent=False)

    def kernel(self) -> Tensor:
        """Return the weights of the patterns of a cluster, shape (cluster, cluster)."""
        return self.weights[self.places]

    def ring_values(self) -> Tensor:
        """Return the mask at its rings, shape (rings,): at abs(k) from 0 to `outer`."""
        return self.mask * torch.exp2(-self.exponents.to(self.mask))

    def detector(self, shape: tuple[int, int], sampling: float | tuple[float, float] | None = None) -> Tensor:
        """Return the mask on a detector, shape (ky, kx), FFT order."""
        return (self._hats(shape, sampling).to(self.mask) @ self.ring_values()).reshape(shape)

    def features(self, patterns: Tensor, sampling: float | tuple[float, float] | None = None) -> Tensor:
        """Reduce patterns to their rings.

        Parameters
        ----------
        patterns : Tensor, shape (..., ky, kx), real
            FFT order.
        sampling : float or (float, float), optional
            Å; by default that of the model.

        Returns
        -------
        Tensor, shape (..., ring)
            Sums over the detector of pattern times hat function of each ring.

        Raises
        ------
        InputError
            For patterns that are not real (..., ky, kx).
        """
        hats = self._hats(_detector_of(patterns), sampling)
        return patterns.flatten(-2) @ hats.to(patterns)

    def forward(self, clusters: Tensor, sampling: float | tuple[float, float] | None = None) -> Tensor:
        """Map clusters of patterns to intensities.

        Parameters
        ----------
        clusters : Tensor, shape (sample, cluster, cluster, ky, kx), real
            FFT order.
        sampling : float or (float, float), optional
            Å; by default that of the model.

        Returns
        -------
        Tensor, shape (sample,)

        Raises
        ------
        InputError
            For another shape.
        """
        if clusters.ndim != 5 or tuple(clusters.shape[1:3]) != (self.cluster, self.cluster):
            raise InputError(
                f"clusters of shape {tuple(clusters.shape)}: "
                f"give (sample, {self.cluster}, {self.cluster}, ky, kx)"
            )
        return (self._masked(clusters, sampling) * self.kernel()).sum((1, 2)) + self.bias

    def image(self, patterns: Tensor, sampling: float | tuple[float, float] | None = None) -> Tensor:
        """Map a whole scan to intensities: the mask is applied once to each pattern.

        Parameters
        ----------
        patterns : Tensor, shape (scan_y, scan_x, ky, kx), real
            FFT order.
        sampling : float or (float, float), optional
            Å; by default that of the model.

        Returns
        -------
        Tensor, shape (scan_y - cluster + 1, scan_x - cluster + 1)
            What the clusters of :func:`scan_clusters` give.

        Raises
        ------
        InputError
            For another shape, or a scan smaller than a cluster.
        """
        if patterns.ndim != 4 or min(patterns.shape[:2]) < self.cluster:
            raise InputError(
                f"patterns of shape {tuple(patterns.shape)}: give (scan_y, scan_x, ky, kx), "
                f"{self.cluster} positions or more along each side"
            )
        masked = self._masked(patterns, sampling)
        return functional.conv2d(masked[None, None], self.kernel()[None, None])[0, 0] + self.bias

    def cluster_sums(self, features: Tensor) -> Tensor:
        """Sum the features of a scan over equal distances, for :func:`fit`.

        Parameters
        ----------
        features : Tensor, shape (scan_y, scan_x, ring)

        Returns
        -------
        Tensor, shape (scan_y - cluster + 1, scan_x - cluster + 1, distance, ring)
        """
        clusters = scan_clusters(features, self.cluster).flatten(2, 3)
        chosen = functional.one_hot(self.places.flatten()).to(features)
        return torch.einsum("yxpr,pd->yxdr", clusters, chosen)

    def _masked(self, patterns: Tensor, sampling: float | tuple[float, float] | None) -> Tensor:
        """Return the sum over the detector of patterns (..., ky, kx) times the mask."""
        mask = self.detector(_detector_of(patterns), sampling)
        return patterns.flatten(-2) @ mask.to(patterns).flatten()

    def _hats(self, shape: tuple[int, int], sampling: float | tuple[float, float] | None) -> Tensor:
        """Return the hat function of each ring, shape (ky · kx, ring), float64."""
        grids = frequency_grid(shape, self.sampling if sampling is None else sampling, self.mask.device)
        found = torch.hypot(*grids).flatten() * ((self.rings - 1) / self.outer)
        rings = torch.arange(self.rings, dtype=found.dtype, device=found.device)
        return (1 - (found[:, None] - rings).abs()).clamp_min(0)


def _detector_of(patterns: Tensor) -> tuple[int, int]:
    if patterns.ndim < 2 or not patterns.is_floating_point():
        raise InputError(
            f"patterns of shape {tuple(patterns.shape)}, {patterns.dtype}: give real (..., ky, kx)"
        )
    return patterns.shape[-2], patterns.shape[-1]


def _places(cluster: int) -> Tensor:
    """Return which of the distinct distances each position of a cluster has, shape (cluster, cluster)."""
    along = torch.arange(cluster) - cluster // 2
    squares = along[:, None] ** 2 + along**2
    return torch.as_tensor(torch.unique(squares, return_inverse=True)[1])


def standardise(model: RadialModel, sums: Tensor) -> None:
    """Set the scales of a model by data, so that one step or ridge suits bright and dark rings.

    Parameters
    ----------
    model : RadialModel
        Its mask keeps its numbers, which then mean another mask.
    sums : Tensor, shape (sample, distance, ring)
        Of :meth:`RadialModel.cluster_sums`. A ring that never varies keeps its scale.
    """
    deviation = (sums - sums.mean(0)).square().mean((0, 1)).sqrt()
    found = torch.where(deviation > 0, deviation, 1).log2().round()
    model.exponents.copy_(found.to(model.exponents))


def fit(
    model: RadialModel, sums: Tensor, target: Tensor, *, ridge: float = 1e-6, iterations: int = 200,
    tolerance: float = 1e-10,
) -> list[float]:  # fmt: skip
    """Fit a model in closed form: least squares for the mask and for the weights by turns.

    All data go into second moments once, so that an iteration costs nothing. It starts at the best product
    of weights and mask to the unconstrained least squares over distances and rings, and ends with weights of
    norm 1 whose kernel has a sum that is not negative.

    Parameters
    ----------
    model : RadialModel
        Changed, its scales too (:func:`standardise`).
    sums : Tensor, shape (sample, distance, ring)
        Of :meth:`RadialModel.cluster_sums`, of one scan or several.
    target : Tensor, shape (sample,)
    ridge : float
        Times norm(weights)² norm(mask)² is added to the mean square: features have a variance near 1.
    iterations : int
        At most.
    tolerance : float
        Ends when the objective falls by less than this part of the variance of the target.

    Returns
    -------
    list of float
        The objective over the variance of the target: of the start and after each iteration.

    Raises
    ------
    InputError
        For shapes that do not match, a ridge that is not positive, or a target that does not vary.
    """
    _check(model, sums, target, ridge)
    standardise(model, sums)
    scales = torch.exp2(-model.exponents.double())
    scaled, wanted = sums.double() * scales, target.double()
    middle, level = scaled.mean(0), wanted.mean()
    scaled, wanted = scaled - middle, wanted - level
    moments = torch.einsum("ndr,nes->dres", scaled, scaled) / len(wanted)
    cross = torch.einsum("ndr,n->dr", scaled, wanted) / len(wanted)
    variance = float(wanted.square().mean())

    def objective(weights: Tensor, mask: Tensor) -> float:
        both = torch.outer(weights, mask)
        fitted = torch.einsum("dr,dres,es->", both, moments, both) + ridge * both.square().sum()
        return float(1 + (fitted - 2 * (both * cross).sum()) / variance)

    weights, mask = _start(moments, cross, ridge)
    course = [objective(weights, mask)]
    for _ in range(iterations):
        mask = _solved(torch.einsum("d,dres,e->rs", weights, moments, weights), weights @ cross, ridge)
        weights = _solved(
            torch.einsum("r,dres,s->de", mask, moments, mask),
            cross @ mask,
            ridge * float(mask.square().sum()),
        )
        norm = weights.norm().clamp_min(torch.finfo(weights.dtype).tiny)
        weights, mask = weights / norm, mask * norm
        course.append(objective(weights, mask))
        if course[-2] - course[-1] < tolerance:
            break
    sign = -1.0 if float(weights[model.places.cpu()].sum()) < 0 else 1.0
    with torch.no_grad():
        model.weights.copy_(sign * weights)
        model.mask.copy_(sign * mask)
        model.bias.copy_(level - weights @ middle @ mask)
    return course


def _start(moments: Tensor, cross: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
    """Return weights of norm 1 and a mask: the largest part of the least squares without their structure."""
    free = _solved(moments.flatten(2).flatten(0, 1), cross.flatten(), ridge).reshape(cross.shape)
    left, sizes, right = torch.linalg.svd(free, full_matrices=False)
    return left[:, 0], sizes[0] * right[0]


def _solved(matrix: Tensor, right: Tensor, ridge: float) -> Tensor:
    added = ridge * torch.eye(len(right), dtype=matrix.dtype, device=matrix.device)
    return torch.as_tensor(torch.linalg.solve(matrix + added, right))


def _check(model: RadialModel, sums: Tensor, target: Tensor, ridge: float) -> None:
    expected = (*target.shape, len(model.weights), model.rings)
    if target.ndim != 1 or tuple(sums.shape) != expected:
        raise InputError(
            f"sums of shape {tuple(sums.shape)} for {tuple(target.shape)} intensities: "
            f"give (sample, {len(model.weights)}, {model.rings}) and (sample,)"
        )
    if not ridge > 0:
        raise InputError(f"a ridge of {ridge}: use a small positive number")
    if not (bool(sums.isfinite().all()) and bool(target.isfinite().all())):
        raise InputError("sums or intensities that are not finite: mask dead pixels first")
    if not float(target.double().var(correction=0)) > 0:
        raise InputError("intensities that do not vary: nothing can be learnt from them")
