"""From electrons to images of a scan: dark field, centre of mass, ptychography, the paper's two networks."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from exitwave.networks import radial, training
from exitwave.networks.convolution4d import ClusterNet
from exitwave.networks.tasks import Regression, adam
from exitwave.networks.training import Training
from exitwave.optics import Aberrations, frequency_grid, wavelength
from exitwave.papers.cao2020.parameters import Parameters
from exitwave.papers.cao2020.scene import Scan, positions_of, sampled
from exitwave.retrieve import ptychography, ptychography_epie, scan_images
from exitwave.simulate import scanning

_PLAIN = Training()
# Pixels of the detector along each side of one of the patterns that the network sees.
BINNING = 2
# Positions at each side of a scan that are neither learned from nor judged: the largest cluster lacks them.
MARGIN = 3
_AVERAGE = 0.99


def sampling_of(parameters: Parameters) -> float:
    """Return the pixel size of a probe whose patterns are those of the detector, Å."""
    return wavelength(parameters.energy) / (parameters.pixel * parameters.detector)


def dark_field(parameters: Parameters, counts: Tensor) -> Tensor:
    """Return the annular dark field image, electrons."""
    ring = scan_images.annulus(
        (parameters.detector, parameters.detector), sampling_of(parameters), energy=parameters.energy,
        inner=parameters.inner, outer=parameters.pixel * parameters.detector / 2,
    )  # fmt: skip
    return scan_images.virtual_image(counts, ring)


def centre_of_mass(parameters: Parameters, counts: Tensor, scan: Scan) -> Tensor:
    """Return the integrated centre of mass, rad."""
    return scan_images.integrate(scan_images.centre_of_mass(counts, sampling_of(parameters)), scan.step)


@dataclass(frozen=True, eq=False)
class Label:
    """What ptychography makes of a scan.

    Attributes
    ----------
    phase : Tensor, shape (scan_y, scan_x)
        At the positions of the probe, without a plane, rad.
    loss : Tensor, shape (epoch,)
    seconds : float
    """

    phase: Tensor
    loss: Tensor
    seconds: float


def label(
    parameters: Parameters, counts: Tensor, scan: Scan, device: str = "cpu", *, iterations: int | None = None
) -> Label:
    """Retrieve the phase by ptychography, which knows positions and aperture.

    Parameters
    ----------
    parameters : Parameters
    counts : Tensor, shape (scan_y, scan_x, ky, kx)
        Of the first rows of the scan, or all.
    scan : Scan
    device : str
    iterations : int, optional
        Epochs; by default those of the parameters.
    """
    measured, first, sampling = started(parameters, counts.to(device), scan)
    begin = time.perf_counter()
    found = ptychography.retrieve(
        measured, first, sampling, generator=torch.Generator().manual_seed(parameters.seed),
        epochs=iterations or parameters.iterations,
    )  # fmt: skip
    whole = found.slices.prod(0).cpu()
    seconds = time.perf_counter() - begin
    phase = passed(whole.angle().double(), sampling, scan.step).numpy()
    at = (found.positions.cpu().double() / sampling).numpy()
    image = sampled(phase, at).reshape(counts.shape[:2])
    return Label(torch.as_tensor(without_plane(image)), found.loss, seconds)


def started(
    parameters: Parameters, counts: Tensor, scan: Scan
) -> tuple[Tensor, ptychography.Reconstruction, float]:
    """Return patterns (position, ky, kx), an empty object under the known probe, and their pixel size, Å."""
    sampling, shape = sampling_of(parameters), (parameters.detector, parameters.detector)
    probe = scanning.probe(
        shape, sampling, energy=parameters.energy, semiangle=parameters.semiangle,
        aberrations=Aberrations(C10=-parameters.defocus),
    )  # fmt: skip
    measured = counts.flatten(0, 1)
    where = positions_of(parameters, scan.specimen)[: len(measured)]
    places, field = scanning.framed(where, sampling, shape)
    return measured, ptychography.begin(measured, probe, places.float(), field=field), sampling


def epie_seconds(parameters: Parameters, counts: Tensor, scan: Scan) -> float:
    """Return how long ePIE takes for as many epochs, from two: in the first the probe is held."""
    measured, first, sampling = started(parameters, counts, scan)
    ends = [time.perf_counter()]
    ptychography_epie.epie(
        measured, first, sampling, generator=torch.Generator().manual_seed(0), epochs=2,
        observe=lambda *_: ends.append(time.perf_counter()),
    )  # fmt: skip
    return (ends[1] - ends[0]) + (parameters.iterations - 1) * (ends[2] - ends[1])


def passed(image: Tensor, sampling: float, step: tuple[float, float]) -> Tensor:
    """Return an image (y, x) with the frequencies that a scan of steps (y, x), Å, can carry."""
    ky, kx = frequency_grid((image.shape[0], image.shape[1]), sampling)
    kept = (ky.abs() < 0.5 / step[0]) & (kx.abs() < 0.5 / step[1])
    return torch.as_tensor(torch.fft.ifft2(torch.fft.fft2(image) * kept).real)


def without_plane(image: np.ndarray) -> np.ndarray:
    """Return an image less the plane that fits it best: nothing in patterns tells it from a moved probe."""
    y, x = np.indices(image.shape)
    basis = np.stack([np.ones(image.size), y.ravel(), x.ravel()], 1)
    fit = np.linalg.lstsq(basis, image.ravel(), rcond=None)[0]
    found: np.ndarray = image - (basis @ fit).reshape(image.shape)
    return found


def shares(parameters: Parameters, counts: Tensor, scan: Scan) -> Tensor:
    """Return counts over those that reach each position, so that networks know no dose."""
    return counts / (parameters.dose * scan.area)


def middles(image: Tensor, edge: int = 0) -> Tensor:
    """Return what of an image (scan_y, scan_x, ...) is judged and learned, the same for all clusters.

    Parameters
    ----------
    image : Tensor
        That of a scan, without `edge` positions at each side.
    edge : int
    """
    cut = MARGIN - edge
    return image[cut : len(image) - cut, cut : image.shape[1] - cut]


def widened(image: Tensor, cluster: int) -> Tensor:
    """Return an image of the middles of clusters with its edge repeated to the size of the scan."""
    edge = cluster // 2
    return torch.as_tensor(np.pad(image.double().numpy(), edge, mode="edge"))


@dataclass(frozen=True, eq=False)
class Learned:
    """A trained model.

    Attributes
    ----------
    image : callable
        From :func:`shares` of a scan to its image, as large as the scan, rad.
    model : Module
    fraction : float
        Of the planned steps.
    """

    image: Callable[[Tensor], Tensor]
    model: nn.Module
    fraction: float = 1.0


def linear(parameters: Parameters, seen: Tensor, wanted: Tensor) -> Learned:
    """Fit the linear model to a label, in closed form.

    Parameters
    ----------
    parameters : Parameters
    seen : Tensor, shape (scan_y, scan_x, ky, kx)
        :func:`shares`, of the part of the scan that is learned from.
    wanted : Tensor, shape (scan_y, scan_x)
        Its label, rad.
    """
    sampling = sampling_of(parameters)
    model = radial.RadialModel(
        cluster=parameters.cluster, rings=parameters.rings, outer=0.5 / sampling, sampling=sampling
    )
    sums = middles(model.cluster_sums(model.features(seen)), parameters.cluster // 2)
    radial.fit(model, sums.flatten(0, 1), middles(wanted).flatten())

    def image(patterns: Tensor) -> Tensor:
        with torch.no_grad():
            return widened(model.image(patterns), parameters.cluster)

    return Learned(image, model)


def coarse(patterns: Tensor) -> Tensor:
    """Return patterns (..., ky, kx) of larger pixels, the network's, in FFT order.

    Blocks of an order are those of the other, since half the detector holds whole ones.
    """
    # In the order of torch's pooling, which takes three times as long.
    parts = [patterns[..., i::BINNING, j::BINNING] for i, j in itertools.product(range(BINNING), repeat=2)]
    made = parts[0].clone()
    for part in parts[1:]:
        made += part
    return made


def convolutional(
    parameters: Parameters, seen: Tensor, wanted: Tensor, device: str = "cpu", *, how: Training = _PLAIN
) -> Learned:
    """Train the network of 4D convolutions on a label.

    Parameters
    ----------
    parameters, seen, wanted
        As for :func:`linear`.
    device : str
    how : Training
    """
    side, kernel = parameters.detector // BINNING, (parameters.cluster + 1) // 2
    network = ClusterNet(
        (side, side), cluster=parameters.cluster, channels=(parameters.channels, 2 * parameters.channels),
        kernel=(kernel, kernel, 3, 3), dropout=parameters.dropout, scaling="root",
        generator=torch.Generator().manual_seed(parameters.seed),
    )  # fmt: skip
    target = middles(wanted).flatten()
    level, scale = target.mean(), target.std()
    clusters = radial.scan_clusters(coarse(seen), parameters.cluster)
    clusters = middles(clusters, parameters.cluster // 2).flatten(0, 1)
    task = Regression(network, adam(network, parameters.rate))
    options = training.Options(
        epochs=parameters.epochs, batch=parameters.batch, average=_AVERAGE, device=device,
        devices=how.devices, budget_minutes=how.budget_minutes, validate_every=0,
    )  # fmt: skip
    curves = training.fit(
        task, {"input": clusters, "target": ((target - level) / scale).float()}, options,
        generator=torch.Generator().manual_seed(parameters.seed + 1), folder=how.folder, resume=how.resume,
        report=how.report,
    )  # fmt: skip

    def image(patterns: Tensor) -> Tensor:
        with torch.no_grad():
            made = network.image(coarse(patterns).to(device)).cpu()
        return widened(made * scale + level, parameters.cluster)

    return Learned(image, network, curves.fraction)
