"""From electrons to images of a scan: dark field, centre of mass, ptychography, the paper's two networks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from exitwave.networks import radial, training
from exitwave.networks.convolution4d import ClusterNet
from exitwave.networks.tasks import Regression, adam
from exitwave.networks.training import Training
from exitwave.optics import Aberrations, frequency_grid, wavelength
from exitwave.papers.cao2020.judge import sampled
from exitwave.papers.cao2020.parameters import Parameters
from exitwave.papers.cao2020.scene import Scan, positions_of
from exitwave.retrieve import ptychography, ptychography_epie, scan_images
from exitwave.simulate import scanning

_PLAIN = Training()
# Pixels of the detector along each side of one of the patterns that the network sees.
BINNING = 2
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


def label(parameters: Parameters, counts: Tensor, scan: Scan, *, iterations: int | None = None) -> Label:
    """Retrieve the phase by ptychography, which knows positions and aperture.

    Parameters
    ----------
    parameters : Parameters
    counts : Tensor, shape (scan_y, scan_x, ky, kx)
    scan : Scan
    iterations : int, optional
        Epochs; by default those of the parameters.
    """
    measured, first, sampling = started(parameters, counts, scan)
    begin = time.perf_counter()
    found = ptychography.retrieve(
        measured, first, sampling, generator=torch.Generator().manual_seed(parameters.seed),
        epochs=iterations or parameters.iterations,
    )  # fmt: skip
    seconds = time.perf_counter() - begin
    phase = passed(found.slices.prod(0).angle().double(), sampling, scan.step).numpy()
    at = (found.positions.double() / sampling).numpy()
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
    places, field = scanning.framed(positions_of(parameters, scan.specimen), sampling, shape)
    measured = counts.flatten(0, 1)
    return measured, ptychography.begin(measured, probe, places.float(), field=field), sampling


def epie_seconds(parameters: Parameters, counts: Tensor, scan: Scan) -> float:
    """Return how long ePIE takes for as many epochs, from one of them."""
    measured, first, sampling = started(parameters, counts, scan)
    begin = time.perf_counter()
    ptychography_epie.epie(measured, first, sampling, generator=torch.Generator().manual_seed(0), epochs=1)
    return parameters.iterations * (time.perf_counter() - begin)


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


def upper(parameters: Parameters, image: Tensor) -> Tensor:
    """Return what of an image (scan_y, scan_x) lies in the middle of a cluster of the upper half."""
    edge = parameters.cluster // 2
    return image[edge : len(image) // 2 - edge, edge : image.shape[1] - edge]


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
    """Fit the linear model to the label of the upper half, in closed form.

    Parameters
    ----------
    parameters : Parameters
    seen : Tensor, shape (scan_y, scan_x, ky, kx)
        :func:`shares`.
    wanted : Tensor, shape (scan_y, scan_x)
        The label, rad.
    """
    sampling = sampling_of(parameters)
    model = radial.RadialModel(
        cluster=parameters.cluster, rings=parameters.rings, outer=0.5 / sampling, sampling=sampling
    )
    half = len(seen) // 2
    sums = model.cluster_sums(model.features(seen[:half]))
    radial.fit(model, sums.flatten(0, 1), upper(parameters, wanted).flatten())

    def image(patterns: Tensor) -> Tensor:
        with torch.no_grad():
            return widened(model.image(patterns), parameters.cluster)

    return Learned(image, model)


def coarse(patterns: Tensor) -> Tensor:
    """Return patterns (..., ky, kx) of larger pixels, the network's, in FFT order.

    Blocks of an order are those of the other, since half the detector holds whole ones.
    """
    made = functional.avg_pool2d(patterns.flatten(0, -3)[:, None], BINNING)[:, 0] * BINNING**2
    return made.reshape(*patterns.shape[:-2], *made.shape[1:])


def convolutional(
    parameters: Parameters, seen: Tensor, wanted: Tensor, device: str = "cpu", *, how: Training = _PLAIN
) -> Learned:
    """Train the network of 4D convolutions on the label of the upper half.

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
    target = upper(parameters, wanted).flatten()
    level, scale = target.mean(), target.std()
    half = len(seen) // 2
    clusters = radial.scan_clusters(coarse(seen[:half]), parameters.cluster).flatten(0, 1)
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
