"""A network that goes on learning from the scan it is given: its phase must explain the patterns.

Nobody tells it a phase. That of a piece of the scan becomes an object, through which the known probe is sent;
what it learns from is the deviance of the counted electrons, as ptychography does for each pixel.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from exitwave.errors import InputError
from exitwave.networks.scannet import ScanNet, scan_conditions
from exitwave.networks.tasks import adam
from exitwave.papers.cao2020 import methods
from exitwave.papers.cao2020.parameters import Parameters
from exitwave.papers.cao2020.scene import Scan
from exitwave.retrieve.ptychography import poisson_loss
from exitwave.simulate import scanning

# Most positions along each side of a piece, whole blocks of the network, and those at its edges whose probes
# reach beyond it.
_PIECE, _BLOCK, _EDGE = 32, 8, 8
# Half width of the interpolating function, positions.
_LOBES = 4
_RATE = 1e-3


@dataclass(frozen=True, eq=False)
class Model:
    """How the phase of a piece of a scan becomes patterns.

    Attributes
    ----------
    probe : Tensor, shape (mode, y, x), complex
        Known, in electrons.
    places : Tensor, shape (position, 2)
        Of the probe in the field, for the positions away from the edges of the piece, Å.
    rows, columns : Tensor, shape (field_y, piece), (field_x, piece)
        From phases at the positions to those in the field.
    sampling : float
        Of field and probe, Å.
    """

    probe: Tensor
    places: Tensor
    rows: Tensor
    columns: Tensor
    sampling: float

    def patterns(self, phase: Tensor) -> Tensor:
        """Return expected electrons (position, ky, kx) of a phase (piece, piece), rad."""
        angle = self.rows @ phase @ self.columns.T
        thing = torch.polar(torch.ones_like(angle), angle)[None]
        return scanning.patterns(thing, self.probe, self.places, self.sampling)


def interpolation(count: int, sampling: float, step: float, first: float, nodes: int) -> Tensor:
    """Return a matrix from values at nodes to those at pixels, by a sinc under a wider one (Lanczos).

    Parameters
    ----------
    count : int
        Of pixels, `sampling` apart, the first at 0.
    sampling, step : float
        Distances of pixels and of nodes, Å.
    first : float
        Where the first node is, Å.
    nodes : int

    Returns
    -------
    Tensor, shape (count, nodes), float32
        Beyond the nodes there is nothing.
    """
    at = (torch.arange(count, dtype=torch.float64) * sampling - first) / step
    apart = at[:, None] - torch.arange(-_LOBES, nodes + _LOBES, dtype=torch.float64)
    weights = torch.sinc(apart) * torch.sinc(apart / _LOBES) * (apart.abs() < _LOBES)
    # A constant stays what it is, as if nodes went on.
    weights = weights / weights.sum(1, keepdim=True).clamp_min(0.5)
    return weights[:, _LOBES:-_LOBES].float()


def piece_of(counts: Tensor) -> int:
    """Return the positions along each side of a piece of a scan (scan_y, scan_x, ...).

    Raises
    ------
    InputError
        If the scan is too small for one.
    """
    found = min(_PIECE, *(n // _BLOCK * _BLOCK for n in counts.shape[:2]))
    if found <= 2 * _EDGE:
        raise InputError(
            f"a scan of {counts.shape[0]} x {counts.shape[1]} positions: give {2 * _EDGE + _BLOCK} or more "
            "along each side"
        )
    return found


def model_of(parameters: Parameters, counts: Tensor, scan: Scan) -> Model:
    """Return how phases of pieces of a scan, which does not drift, explain its counts.

    Parameters
    ----------
    parameters : Parameters
    counts : Tensor, shape (scan_y, scan_x, ky, kx)
    scan : Scan
    """
    _, first, sampling = methods.started(parameters, counts, scan)
    piece = piece_of(counts)
    lines = [torch.arange(_EDGE, piece - _EDGE, dtype=torch.float64) * step for step in scan.step]
    where = torch.stack(torch.meshgrid(*lines, indexing="ij"), -1).reshape(-1, 2)
    places, field = scanning.framed(where, sampling, (parameters.detector, parameters.detector))
    begin = (places[0] - where[0]).tolist()
    rows, columns = (
        interpolation(n, sampling, step, at, piece)
        for n, step, at in zip(field, scan.step, begin, strict=True)
    )
    return Model(first.probe, places.float(), rows, columns, sampling)


def teach(
    network: ScanNet, parameters: Parameters, counts: Tensor, scan: Scan, *, steps: int, unit: float,
    generator: torch.Generator,
) -> tuple[ScanNet, list[float]]:  # fmt: skip
    """Let a copy of a network learn from the electrons of one scan.

    Parameters
    ----------
    network : ScanNet
    parameters : Parameters
        Of the scan: what the network is told, if it takes it, and the probe.
    counts : Tensor, shape (scan_y, scan_x, ky, kx)
        At least 24 positions along each side.
    scan : Scan
    steps : int
        Each with one piece of the scan.
    unit : float
        Of the network's phase, rad.
    generator : torch.Generator

    Returns
    -------
    network : ScanNet
        In evaluation mode.
    loss : list of float
        Deviance of each step, over the mean of a pixel.
    """
    pupil = copy.deepcopy(network).train()
    model, optimiser = model_of(parameters, counts, scan), adam(pupil, _RATE)
    seen = methods.coarse(methods.shares(parameters, counts, scan))
    told = [scan_conditions(parameters.dose, parameters.semiangle, parameters.defocus)]
    told = told if network.architecture["conditions"] else []
    size = piece_of(counts)
    inner = slice(_EDGE, size - _EDGE)
    losses = []
    for step in range(steps):
        for group in optimiser.param_groups:
            # To nothing at the end, as each piece pulls elsewhere.
            group["lr"] = _RATE * (1 - step / steps)
        y, x = (int(torch.randint(0, n - size + 1, (), generator=generator)) for n in counts.shape[:2])
        piece = slice(y, y + size), slice(x, x + size)
        phase = unit * pupil(seen[piece][None].float(), *told)[0, 0]
        loss = poisson_loss(model.patterns(phase), counts[piece][inner, inner].flatten(0, 1))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(loss.item())
    return pupil.eval(), losses
