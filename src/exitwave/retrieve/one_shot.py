"""A wave from one modulus, by a network that learned what waves of crystals are like.

Nothing in a modulus says what its phase is: it is the training that does, and nothing checks the result. So a
second network may draw other phases that its training makes as likely, whose spread says how far the modulus
leaves it open.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from exitwave import records
from exitwave.errors import InputError
from exitwave.optics import interaction_constant
from exitwave.retrieve.focal_series import is_blank
from exitwave.retrieve.quasi_newton import estimate_noise
from exitwave.retrieve.tiles import Tiles
from exitwave.units import length_text

Network = Callable[[Tensor, Tensor], Tensor]
Flow = Callable[[Tensor, Tensor, Tensor], Tensor]
Observe = Callable[[int, float], None]
Warn = Callable[[str], None]

# What a network is told: energy, thickness, pixel size.
CONDITIONS = 3
_ENERGY, _THICKNESS, SAMPLING = 200e3, 200.0, 0.2

_SAME = 0.01  # relative, of energies and pixel sizes
_SQUARE = 1e-3  # by which the sides of a pixel may differ
_LEAST_SIDE = 16  # pixels
_NOISE = 4.0  # standard deviations by which noise may make a pixel negative: one in thirty thousand
_TILES = 32  # at once
_MOST = 16_000  # tiles of all alternatives, which are kept: some 2 GB


@dataclass(frozen=True)
class Trained:
    """What a network was trained on: simulated waves some Å behind their crystals, without noise.

    Attributes
    ----------
    energies : tuple of float
        eV.
    thickness, sampling : (float, float)
        Least and greatest thickness and pixel size, Å.
    pixels : int
        Along each side of the crops.
    waves, crystals, steps : int
        How many waves, of crystals of a library of so many, in how many updates.
    scope : str
        Of the waves: ``multi``, ``restricted`` or ``single``, as the chapter has them.
    terms : int
        n of the potentials.
    """

    energies: tuple[float, ...]
    thickness: tuple[float, float]
    sampling: tuple[float, float]
    pixels: int
    waves: int
    crystals: int
    steps: int
    scope: str
    terms: int

    def statement(self) -> str:
        """Return all that in words."""
        of = "one crystal" if self.scope == "single" else f"a library of {self.crystals} crystals"
        return (
            f"trained in at most {self.steps} steps on crops of {self.pixels} x {self.pixels} pixels of "
            f"{self.waves} simulated waves of {of} (scope {self.scope}, n_terms {self.terms}), in focus and "
            f"without noise: {_volts(self.energies)}, thickness {_range(self.thickness)}, pixels of "
            f"{self.sampling[0]:.3g} to {self.sampling[1]:.3g} Å"
        )

    def doubts(self, *, energy: float, thickness: float, sampling: float) -> list[str]:
        """Return what about a wave (eV, Å) is not as in the training, a line each."""
        found = []
        if min(abs(energy / each - 1) for each in self.energies) > _SAME:
            found.append(
                f"an energy of {energy / 1e3:g} keV, but the network was trained with {_volts(self.energies)}"
            )
        if not self.thickness[0] <= thickness <= self.thickness[1]:
            found.append(
                f"a thickness of {thickness / 10:g} nm, but the network was trained with "
                f"{_range(self.thickness)}"
            )
        if not self.sampling[0] * (1 - _SAME) <= sampling <= self.sampling[1] * (1 + _SAME):
            found.append(
                f"pixels of {sampling:.3g} Å, but the network was trained with {self.sampling[0]:.3g} to "
                f"{self.sampling[1]:.3g} Å: resample the image"
            )
        return found


def _volts(energies: tuple[float, ...]) -> str:
    *most, last = (f"{each / 1e3:g}" for each in energies)
    return f"{', '.join(most)} and {last} keV" if most else f"{last} keV"


def _range(lengths: tuple[float, float]) -> str:
    return f"{lengths[0] / 10:g} to {lengths[1] / 10:g} nm"


def conditions_of(energy: float, thickness: float, sampling: float) -> Tensor:
    """Return what a network is told of energy (eV), thickness and pixel size (Å), shape (3,).

    Each over one that is usual, less 1; of the energy, its interaction constant.
    """
    strength = float(interaction_constant(energy)) / float(interaction_constant(_ENERGY))
    return torch.tensor([strength - 1, thickness / _THICKNESS - 1, sampling / SAMPLING - 1])


def check_network(network: Any, *, inputs: int = 1, conditions: int = CONDITIONS) -> None:
    """Refuse a network that takes other inputs than are given here, or makes no two components.

    Raises
    ------
    InputError
    """
    wanted = {"in_channels": inputs, "out_channels": 2, "conditions": conditions}
    told = getattr(network, "architecture", wanted)
    for name, value in wanted.items():
        if told.get(name, 0) != value:
            raise InputError(
                f"the network has {name} {told.get(name, 0)}, not {value}: it was trained for something "
                "else, use another"
            )


def retrieve(
    record: xr.Dataset, *, network: Network, trained: Trained, thickness: float | None = None,
    alternatives: int = 4, flow: Flow | None = None, flow_trained: Trained | None = None,
    modulus: bool = False, seed: int = 0, observe: Observe | None = None, warn: Warn | None = None,
    device: str = "cpu",
) -> xr.Dataset:  # fmt: skip
    """Retrieve a wave from one modulus, or one image in focus.

    Parameters
    ----------
    record : xarray.Dataset
        Layout ``images`` with one image, in any unit.
    network : callable
        From moduli over their mean, shape (sample, 1, y, x), and :func:`conditions_of`, shape (sample, 3), to
        cosine and sine of phases, shape (sample, 2, y, x), as long as it trusts them.
    trained : Trained
    thickness : float
        Of the specimen, Å.
    alternatives : int
        Phases that `flow` draws besides; 0 for none.
    flow : callable, optional
        From noise, shape (sample, 2, y, x), moduli and conditions to cosine and sine of phases, such as
        ``partial(exitwave.networks.flow.follow, network)``.
    flow_trained : Trained, optional
        Of `flow`; by default that of the network.
    modulus : bool
        The image is a modulus; else it is an intensity, whose square root is taken.
    seed : int
        Of the noise of the alternatives.
    observe : callable, optional
        Called with (step, nan) when the wave and each alternative are there.
    warn : callable, optional
        Called at once with a text for what is not as in the training.
    device : str
        Where the networks are.

    Returns
    -------
    xarray.Dataset
        Layout ``wave``: the measured modulus, root mean square 1, with the phase of the network, the mean of
        the wave being positive; with ``disagreement``, and, of alternatives, ``alternatives``
        (``alternative``, ``y``, ``x``) and ``spread`` (``y``, ``x``). The attribute ``trained`` says what
        the networks know, ``field`` how they were applied, ``warning`` repeats what `warn` was told.

    Raises
    ------
    InputError
        For more than one image, one that is blank, too small or negative, pixels that are not square, no
        thickness, one alternative, or networks that make something else.

    Notes
    -----
    The field is cut into :class:`~exitwave.retrieve.tiles.Tiles` of the size that the network was trained
    with: its norms average over the field. All alternatives of a tile are compared as they are drawn, each
    two after the best constant, and only their distances are blended: where the tiles of one alternative
    contradict each other, their blend is none of them. Tiles of one alternative share their noise.
    """
    told: list[str] = []

    def tell(text: str) -> None:
        if text not in told:
            told.append(text)
            if warn is not None:
                warn(text)

    known = known_of(record, thickness, alternatives)
    check_network(network)
    others = flow_trained or trained
    if alternatives and flow is None:
        raise InputError(f"{alternatives} alternatives, but no flow that draws them: pass flow=...")
    measured = _measured(record, modulus, tell)
    for each in (trained, others) if alternatives else (trained,):
        for text in each.doubts(**known):
            tell(text)
    conditions, contrast = conditions_of(**known), measured / measured.mean()
    tiles = Tiles((measured.shape[0], measured.shape[1]), trained.pixels)
    phases, apart = _predicted(network, tiles, contrast, conditions, device)
    wave = in_gauge(torch.polar(measured / measured.square().mean().sqrt(), phases))
    said = {"trained": f"network {trained.statement()}", "field": field_text(tiles)}
    result = _record(record, wave, known)
    result["disagreement"] = _angle(apart, (), "mean distance of the phases of tiles from their blend")
    if observe is not None:
        observe(1, math.nan)
    if flow is not None and alternatives:
        other = Tiles(tiles.shape, others.pixels)
        if alternatives * len(other) > _MOST:
            raise InputError(
                f"{alternatives} alternatives of {len(other)} tiles are more than {_MOST}: give a part of "
                "the image, or alternatives=0"
            )
        noise = torch.Generator().manual_seed(seed)
        drawn, spread = _drawn(flow, other, contrast, conditions, alternatives, noise, device, observe)
        drawn = aligned(torch.polar(wave.abs(), drawn), wave).angle()
        result["alternatives"] = _angle(drawn, ("alternative", "y", "x"), "phases that another network drew")
        result["spread"] = _angle(spread, ("y", "x"), "mean distance of two alternatives")
        if others != trained:
            said["trained"] += f"; that of the alternatives {others.statement()}"
    return result.assign_attrs(said | ({"warning": "; ".join(told)} if told else {}))


def in_gauge(waves: Tensor) -> Tensor:
    """Return waves (..., y, x) turned so that their means are positive."""
    mean = waves.mean((-2, -1), keepdim=True)
    return waves * torch.polar(torch.ones_like(mean.real), -mean.angle())


def aligned(waves: Tensor, wave: Tensor) -> Tensor:
    """Return waves (..., y, x), each turned to agree best with one of shape (y, x)."""
    overlap = (waves.conj() * wave).sum((-2, -1), keepdim=True)
    return waves * torch.polar(torch.ones_like(overlap.real), overlap.angle())


def field_text(tiles: Tiles) -> str:
    """Return in words how a field was given to a network."""
    height, width = tiles.shape
    side = f"{tiles.pixels} x {tiles.pixels}"
    if (height, width) == (tiles.pixels, tiles.pixels):
        return f"the field has the {side} pixels that the network was trained with"
    padded = f"padded by reflection from {height} x {width} pixels" if min(tiles.shape) < tiles.pixels else ""
    if len(tiles) == 1:
        return f"the field was {padded} to the {side} that the network was trained with"
    cut = f"cut into {len(tiles)} tiles of {side} pixels, half over each other, which were turned to agree"
    return f"the field was {padded + ' and ' if padded else ''}{cut}"


def known_of(record: xr.Dataset, thickness: float | None, alternatives: int = 0) -> dict[str, float]:
    """Return energy (eV), thickness and pixel size (Å) of a record, which a network can take.

    Raises
    ------
    InputError
        As :func:`retrieve`, but for the pixels themselves and the networks.
    """
    if alternatives < 0 or alternatives == 1:
        raise InputError(f"alternatives={alternatives} have no spread: use 2 or more, or alternatives=0")
    records.validate(record, "images")
    images = record.sizes["defocus"]
    if images != 1:
        raise InputError(f"{images} images, but one is taken: give one alone")
    dy, dx = records.sampling_of(record)
    if abs(dy / dx - 1) > _SQUARE:
        raise InputError(f"pixels of {dy:g} x {dx:g} Å (y, x): resample the image to square ones")
    if thickness is None:
        raise InputError("the thickness is not known: pass thickness=... (Å), the network is told it")
    if not 0 < thickness < math.inf:
        raise InputError(f"thickness={thickness:g} is not positive: give that of the specimen, Å")
    return {"energy": float(record["energy"]), "thickness": thickness, "sampling": dx}


def _measured(record: xr.Dataset, modulus: bool, tell: Warn) -> Tensor:
    """Return the modulus, shape (y, x), float32, in any unit."""
    image = torch.as_tensor(record["intensity"].values[0].astype(np.float64))
    if min(image.shape) < _LEAST_SIDE:
        raise InputError(f"image of {tuple(image.shape)} pixels: give at least {_LEAST_SIDE} along each side")
    if is_blank(image):
        raise InputError("the image is blank: give one of a specimen")
    noise, negative = float(estimate_noise(image)), int((image < 0).sum())
    beyond = int((image < -_NOISE * noise).sum())
    if beyond:
        raise InputError(
            f"{beyond} pixels are negative beyond noise, the least {float(image.min()):.3g} at a noise of "
            f"{noise:.3g}: check the dark correction, and that the file holds "
            f"{'a modulus' if modulus else 'an intensity'}"
        )
    if negative:
        tell(f"{negative} pixels are negative by noise and count as 0, but the network knows no noise")
    defocus = float(record["defocus"][0])
    if defocus:
        tell(
            f"the file tells a defocus of {length_text(defocus)}, but the network knows images in focus only"
        )
    image = image.clamp_min(0)
    return (image if modulus else image.sqrt()).float()


def _record(given: xr.Dataset, wave: Tensor, known: dict[str, float]) -> xr.Dataset:
    result = records.make_record(
        "wave", records.to_parts(wave.numpy()), energy=known["energy"], y=given["y"].values,
        x=given["x"].values,
    )  # fmt: skip
    units, long_name = records.COORDINATES["thickness"]
    thickness = xr.Variable((), known["thickness"], {"units": units, "long_name": long_name})
    return result.assign_coords(thickness=thickness)


def _angle(values: Tensor, dims: tuple[str, ...], long_name: str) -> xr.Variable:
    return xr.Variable(dims, values.numpy(), {"units": "rad", "long_name": long_name})


def _components(network: Callable[..., Tensor], conditions: Tensor, device: str, *inputs: Tensor) -> Tensor:
    """Return what a network makes of inputs (tile, channel, y, x): complex (tile, y, x) on the CPU."""
    found = []
    with torch.no_grad():
        for some in zip(*(torch.split(each, _TILES) for each in inputs), strict=True):
            told = conditions.expand(len(some[0]), -1)
            found.append(network(*(each.to(device) for each in (*some, told))).float().cpu())
    made = torch.cat(found)
    if made.shape != (len(inputs[0]), 2, *inputs[0].shape[2:]) or not bool(made.isfinite().all()):
        raise InputError(
            f"the network makes {tuple(made.shape)} of {tuple(inputs[0].shape)}, not the finite cosine and "
            "sine of a phase: use another"
        )
    return torch.complex(made[:, 0], made[:, 1])


def _predicted(
    network: Network, tiles: Tiles, contrast: Tensor, conditions: Tensor, device: str
) -> tuple[Tensor, Tensor]:
    """Return phases, shape (y, x), and how far those of tiles are from their blend."""
    given = tiles.cut(contrast)
    made = _components(network, conditions, device, given[:, None])
    turned = made * tiles.turned(given * made)[:, None, None]
    blend = tiles.join(turned)
    # Joined, so that what is beside the field does not count.
    apart = tiles.join((turned * tiles.cut(blend).conj()).angle().abs()).mean()
    return blend.angle(), apart


def _drawn(
    flow: Flow, tiles: Tiles, contrast: Tensor, conditions: Tensor, count: int, generator: torch.Generator,
    device: str, observe: Observe | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return phases, shape (alternative, y, x), and their mean distance, shape (y, x)."""
    given, drawn = tiles.cut(contrast), []
    # Noise is as large as the padded field: reflected, it would be none.
    sides = [side + sum(around) for side, around in zip(tiles.shape, tiles.padding, strict=True)]
    padded = Tiles((sides[0], sides[1]), tiles.pixels)
    for i in range(count):
        noise = padded.cut(torch.randn(2, *padded.shape, generator=generator)).movedim(1, 0)
        made = _components(flow, conditions, device, noise, given[:, None])
        drawn.append(made / made.abs().clamp_min(torch.finfo(made.real.dtype).tiny))
        if observe is not None:
            observe(2 + i, math.nan)
    made = torch.stack(drawn)
    turned = made * tiles.turned(given * made)[..., None, None]
    apart = torch.stack([_distance(a, b) for a, b in combinations(made, 2)]).mean(0)
    return tiles.join(turned).angle(), tiles.join(apart)


def _distance(first: Tensor, second: Tensor) -> Tensor:
    """Return the distance of two phases at each pixel after the best constant of each tile, rad."""
    apart = first * second.conj()
    mean = apart.mean((-2, -1), keepdim=True)
    return (apart * mean.conj()).angle().abs()
