"""Phases of 4D-STEM scans by a network that was trained elsewhere, and that may learn on from the scan.

Then nobody tells it a phase: that of a piece of the scan becomes an object, through which the known probe is
sent, and what is learned from is the deviance of the counted electrons, as in ptychography.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from exitwave.errors import InputError
from exitwave.retrieve.ptychography import poisson_loss
from exitwave.simulate import scanning

# Observes the step, from 1, and its loss.
Observe = Callable[[int, float], object]

# Positions that the network takes at a time: whole blocks of it.
BLOCK = 8
# Most positions along each side of a piece, and those at its edges whose probes reach beyond it.
_PIECE, _EDGE = 32, 8
# Half width of the interpolating function, positions.
_LOBES = 4


def predict(network: nn.Module, seen: Tensor, told: Tensor | None = None) -> Tensor:
    """Return what a network makes of a whole scan.

    Parameters
    ----------
    network : Module
        From patterns, shape (1, scan_y, scan_x, ky, kx), and what it is told, to (1, 1, scan_y, scan_x).
    seen : Tensor, shape (scan_y, scan_x, ky, kx)
        Patterns in the pixels that it takes. A scan of no whole blocks is mirrored at its end.
    told : Tensor, shape (1, conditions), optional

    Returns
    -------
    Tensor, shape (scan_y, scan_x), float32
        Of mean 0, in the unit of the network.

    Raises
    ------
    InputError
        For a scan that is too small, or a network that makes no finite image of it.
    """
    rows, columns = seen.shape[:2]
    if min(rows, columns) < 2 * BLOCK:
        raise InputError(f"a scan of {rows} x {columns} positions: give {2 * BLOCK} or more along each side")
    down, along = (torch.arange(n + (-n) % BLOCK) for n in (rows, columns))
    down, along = torch.minimum(down, 2 * rows - 2 - down), torch.minimum(along, 2 * columns - 2 - along)
    with torch.no_grad():
        made = network(seen[down[:, None], along].float()[None], *([] if told is None else [told]))
    if made.shape != (1, 1, len(down), len(along)) or not bool(made.isfinite().all()):
        raise InputError(
            f"the network makes {tuple(made.shape)} of {len(down)} x {len(along)} positions, not a finite "
            "image of them: use another"
        )
    image: Tensor = made[0, 0, :rows, :columns].float()
    return image - image.mean()


@dataclass(frozen=True, eq=False)
class Model:
    """How the phase of a piece of a scan becomes patterns.

    Attributes
    ----------
    probe : Tensor, shape (mode, y, x), complex
        In electrons.
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

    @property
    def piece(self) -> int:
        """Positions along each side of a piece."""
        return self.rows.shape[1]

    def patterns(self, phase: Tensor) -> Tensor:
        """Return expected electrons (position, ky, kx) of a phase (piece, piece), rad."""
        angle = self.rows @ phase @ self.columns.T
        thing = torch.polar(torch.ones_like(angle), angle)[None]
        return scanning.patterns(thing, self.probe, self.places, self.sampling)

    def counted(self, counts: Tensor) -> Tensor:
        """Return those of the patterns (piece, piece, ky, kx) of a piece that are explained."""
        inner = slice(_EDGE, self.piece - _EDGE)
        return counts[inner, inner].flatten(0, 1)


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


def model_of(shape: tuple[int, int], step: tuple[float, float], probe: Tensor, sampling: float) -> Model:
    """Return how pieces of a scan explain their patterns.

    Parameters
    ----------
    shape : (int, int)
        Positions of the scan.
    step : (float, float)
        Of the scan (y, x), Å, along the axes of the detector.
    probe : Tensor, shape (mode, ky, kx), complex64
        FFT order, in electrons.
    sampling : float
        Of the probe, Å.

    Raises
    ------
    InputError
        If the scan is too small for a piece.
    """
    # Smaller than the scan where that can be: a piece that never moves teaches nothing about its edges.
    piece = max(min(_PIECE, *((n - BLOCK) // BLOCK * BLOCK for n in shape)), 2 * _EDGE + BLOCK)
    if piece > min(shape):
        raise InputError(
            f"a scan of {shape[0]} x {shape[1]} positions: give {2 * _EDGE + BLOCK} or more along each side"
        )
    lines = [torch.arange(_EDGE, piece - _EDGE, dtype=torch.float64) * each for each in step]
    where = torch.stack(torch.meshgrid(*lines, indexing="ij"), -1).reshape(-1, 2)
    places, field = scanning.framed(where, sampling, (probe.shape[-2], probe.shape[-1]))
    begin = (places[0] - where[0]).tolist()
    rows, columns = (
        interpolation(n, sampling, each, at, piece) for n, each, at in zip(field, step, begin, strict=True)
    )
    return Model(probe, places.float(), rows, columns, sampling)


def teach(
    network: nn.Module, counts: Tensor, seen: Tensor, told: Tensor | None, model: Model, *, steps: int,
    unit: float, generator: torch.Generator, rate: float = 1e-4, observe: Observe | None = None,
) -> nn.Module:  # fmt: skip
    """Let a copy of a network learn from the electrons of one scan.

    Parameters
    ----------
    network, seen, told
        As for :func:`predict`.
    counts : Tensor, shape (scan_y, scan_x, ky, kx)
        Electrons in the pixels of the detector, FFT order.
    model : Model
    steps : int
        Each with one piece of the scan.
    unit : float
        Of the network's phase, rad.
    generator : torch.Generator
    rate : float
        Of Adam at the beginning; for a network that knows something. One that knows nothing needs 1e-3.
    observe : callable, optional

    Returns
    -------
    Module
        In evaluation mode.

    Raises
    ------
    InputError
        If what it learns is not finite.
    """
    pupil, size = copy.deepcopy(network).train(), model.piece
    optimiser = torch.optim.Adam(pupil.parameters(), rate)
    for step in range(steps):
        for group in optimiser.param_groups:
            # To nothing at the end, as each piece pulls elsewhere.
            group["lr"] = rate * (1 - step / steps)
        y, x = (int(torch.randint(0, n - size + 1, (), generator=generator)) for n in counts.shape[:2])
        piece = slice(y, y + size), slice(x, x + size)
        made = pupil(seen[piece][None].float(), *([] if told is None else [told]))
        loss = poisson_loss(model.patterns(unit * made[0, 0]), model.counted(counts[piece]))
        if not bool(loss.isfinite()):
            raise InputError("the network's phase explains nothing: check energy, step, pixel and defocus")
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if observe is not None:
            observe(step + 1, loss.item())
    return pupil.eval()
