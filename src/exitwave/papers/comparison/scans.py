"""Phases from scans, all as the 4D-STEM chapter makes them."""

from __future__ import annotations

import torch
from torch import Tensor

from exitwave.networks.released import read_network
from exitwave.networks.scannet import scan_conditions
from exitwave.optics.aberrations import Aberrations
from exitwave.papers.cao2020 import deployed, methods
from exitwave.papers.cao2020.direct import gathered
from exitwave.papers.cao2020.scene import sampled
from exitwave.papers.comparison import exposures
from exitwave.papers.comparison.parameters import Parameters
from exitwave.project import released_file
from exitwave.retrieve import learned_scan, parallax, ptychography, scan_images, single_side_band
from exitwave.simulate import scanning


def centre_of_mass(parameters: Parameters, counts: Tensor) -> Tensor:
    """Return the integrated centre of mass, shape (scan_y, scan_x), rad."""
    scan = exposures.scan_of(parameters, 0.0)
    mass = scan_images.centre_of_mass(counts, methods.sampling_of(scan))
    return scan_images.integrate(mass, parameters.step)


def side_band(parameters: Parameters, counts: Tensor) -> Tensor:
    """Return the phase of single side bands of a probe in focus, rad."""
    kept = gathered(exposures.scan_of(parameters, 0.0), counts)
    return single_side_band.retrieve_phase(
        kept.stack, kept.frequencies, parameters.step, _lens(parameters, 0.0), pixels=kept.pixels
    ).phase


def aligned(parameters: Parameters, counts: Tensor) -> Tensor:
    """Return the phase of aligned bright-field images of a probe that is out of focus, rad."""
    kept = gathered(exposures.scan_of(parameters, parameters.blurred), counts)
    lens = _lens(parameters, parameters.blurred)
    moved = parallax.displacements(kept.frequencies, lens)
    mean = parallax.align(kept.stack, moved, parameters.step, weights=kept.pixels)
    return parallax.corrected(mean, (parameters.step,) * 2, lens, "wiener")


def _lens(parameters: Parameters, defocus: float) -> single_side_band.Lens:
    return single_side_band.Lens(
        parameters.energy, parameters.semiangle, Aberrations.from_defocus(defocus),
        edge=exposures.scan_of(parameters, defocus).pixel,
    )  # fmt: skip


def ptychographic(parameters: Parameters, counts: Tensor) -> Tensor:
    """Return the phase that ptychography finds, which changes the probe too, rad."""
    scan = exposures.scan_of(parameters, 0.0)
    sampling, shape = methods.sampling_of(scan), (scan.detector, scan.detector)
    probe = scanning.probe(shape, sampling, energy=scan.energy, semiangle=scan.semiangle)
    places, field = scanning.framed(exposures.positions(parameters), sampling, shape)
    measured = counts.flatten(0, 1)
    first = ptychography.begin(measured, probe, places.float(), field=field)
    found = ptychography.retrieve(
        measured, first, sampling, generator=torch.Generator().manual_seed(parameters.seed),
        epochs=parameters.epochs,
    )  # fmt: skip
    whole = methods.passed(found.slices[0].angle().double(), sampling, (parameters.step,) * 2)
    at = (found.positions.double() / sampling).numpy()
    return torch.as_tensor(sampled(whole.numpy(), at)).reshape(counts.shape[:2])


def networked(parameters: Parameters, counts: Tensor) -> Tensor:
    """Return the phase of the network of many materials, which is told the probe and the dose, rad."""
    network, about = read_network(released_file("cao2020", parameters.scanner, 0, parameters.scale))
    scan = exposures.scan_of(parameters, 0.0)
    told = scan_conditions(scan.dose, scan.semiangle, scan.defocus)
    seen = methods.coarse(counts / (scan.dose * parameters.step**2))
    return deployed.trained_with(about).unit * learned_scan.predict(network, seen, told).double()
