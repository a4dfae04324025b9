"""Phases of large 4D-STEM scans by a network, in little memory.

Patterns are encoded some at a time, which changes nothing, for each is by itself. What the network makes of
the features of a field needs little. Of fields that are still too large tiles are made: each is known but for
a constant, for a phase has no origin. Where tiles overlap their constants are told apart, and there they fade
into each other (:mod:`exitwave.retrieve.tiles`).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from exitwave.retrieve import learned_scan
from exitwave.retrieve.learned_scan import BLOCK
from exitwave.retrieve.tiles import Tiles

# Positions along each side of a scan that a network takes at once, and of the tiles of a larger one.
MOST = 512
# Patterns that are encoded at a time.
_AT_ONCE = 4096


class _InParts(nn.Module):
    """An encoder of patterns, each by itself, that takes some of them at a time."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, patterns: Tensor) -> Tensor:
        """Map (pattern, ky, kx) to (pattern, feature)."""
        return torch.cat([self.encoder(part) for part in torch.split(patterns, _AT_ONCE)])


def in_parts(network: nn.Module) -> nn.Module:
    """Return a network that makes the same of a scan in less memory.

    Parameters
    ----------
    network : Module
        Whose ``encoder``, if it has one, maps patterns (pattern, ky, kx), each by itself, to features
        (pattern, feature), as that of :class:`exitwave.networks.scannet.ScanNet`.
    """
    if not isinstance(getattr(network, "encoder", None), nn.Module):
        return network
    made = copy.deepcopy(network)
    made.encoder = _InParts(made.encoder)  # type: ignore[arg-type]
    return made


def predict(network: nn.Module, seen: Tensor, told: Tensor | None = None, *, most: int = MOST) -> Tensor:
    """Return what a network makes of a whole scan, of a large one in tiles that overlap by half.

    Parameters
    ----------
    network, seen, told
        As for :func:`exitwave.retrieve.learned_scan.predict`.
    most : int
        Positions along each side that are taken at once, a multiple of 8.

    Returns
    -------
    Tensor, shape (scan_y, scan_x), float32
        Of mean 0, in the unit of the network.

    Raises
    ------
    InputError
        As :func:`exitwave.retrieve.learned_scan.predict`.

    Notes
    -----
    Norms over a field take its mean and variance. So networks that have them make of a small tile something a
    little else than of the same part of a whole scan; where there are no tiles, nothing changes but rounding.
    """
    network = in_parts(network)
    rows, columns = seen.shape[:2]
    if max(rows, columns) <= most or min(rows, columns) < 2 * BLOCK:
        return learned_scan.predict(network, seen, told)
    tiles = Tiles((rows, columns), min(most, *(n // BLOCK * BLOCK for n in (rows, columns))))
    side = tiles.pixels
    made = torch.stack(
        [
            learned_scan.predict(network, seen[y : y + side, x : x + side], told)
            for y in tiles.corners[0]
            for x in tiles.corners[1]
        ]
    )
    # As the angles of waves that are, from one end to the other, well within one turn, constants follow from
    # all overlaps together.
    across = sum(map(len, tiles.corners)) * float(made.max() - made.min())
    scale = 1 / max(across, 1e-12)
    angle = made.double() * scale
    fade = torch.hann_window(side, periodic=False, dtype=torch.float64).to(angle)  # edges know less
    factors = tiles.turned(torch.polar(fade[:, None] * fade + 0 * angle, angle))
    constant = (factors * factors.sum().conj()).angle() / scale  # known but for one that all share
    image = tiles.join(made.double() + constant[:, None, None].to(made.device))
    return (image - image.mean()).to(made)
