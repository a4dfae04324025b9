"""Nanoflakes of two-dimensional materials, damaged, disordered, tilted, alone or on graphene.

Specimens as in Sec. 2 of Leth Larsen et al., Ultramicroscopy (2022), made in this order: :func:`nanoflake`,
:func:`on_graphene`, :func:`damaged`, :func:`disordered`, :func:`tilted`. The paper does not say how it cuts
its nanoflakes; the outlines here are this project's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from exitwave.errors import InputError
from exitwave.records import Array
from exitwave.specimens.layers import Layer, freeze, freeze_atoms, graphene

# Atoms this close, Å, across the beam are one column.
SAME_COLUMN = 0.1
# The paper tilts by up to so much.
LARGEST_TILT = math.radians(10)
# Turns of the flake against graphene in the paper, each as often; None is a random one.
TURNS = (0.0, math.radians(15), math.radians(30), None)

# Share of the outlines that are ellipses, and their shortest axis over the longest; the others are polygons.
_ELLIPSES, _FLATTEST = 0.25, 0.6
# Distances of the edges of a polygon from its centre, before scaling, and how far their normals turn from
# those of a regular one, over the angle between two.
_EDGES, _UNEVEN = (0.7, 1.3), 0.1
# Mean diameter of graphene over the room for it.
_COVER = (0.75, 1.0)


@dataclass(frozen=True, eq=False)
class Flake:
    """Atoms in a box that is open along the beam.

    Attributes
    ----------
    name : str
    numbers : int ndarray, shape (n,)
        Atomic numbers.
    positions : ndarray, shape (n, 3)
        Å, columns x, y, z. The beam runs along +z: the atoms of lowest z come first. x and y lie in the box,
        which begins at 0.
    column : int ndarray, shape (n,)
        The atomic column, seen along the untilted layer, that an atom belongs to: those of one column are
        within :data:`SAME_COLUMN` of its first. A support has columns of its own.
    support : bool ndarray, shape (n,)
        Which atoms belong to a support.
    size : (float, float)
        Of the box, y then x, Å.
    angle : float
        From x to the axis a of the layer, towards y, rad; for its untilted state.

    Raises
    ------
    InputError
        For no atoms, arrays of wrong shapes, numbers that are not finite, an unknown element, a box without
        area or an atom outside it.
    """

    name: str
    numbers: Array
    positions: Array
    column: Array
    support: Array
    size: tuple[float, float]
    angle: float = 0.0

    def __post_init__(self) -> None:
        n = freeze_atoms(self)
        freeze(self, "column", np.int64, (n,))
        freeze(self, "support", np.bool_, (n,))
        if not (len(self.size) == 2 and all(0 < side < math.inf for side in self.size)):
            raise InputError(f"{self.name}: a box of {self.size} Å: give two positive lengths, y and x")
        lateral = self.positions[:, :2]
        outside = ((lateral < 0) | (lateral > self.size[::-1])).any(axis=1)
        if outside.any():
            x, y = lateral[outside][0]
            raise InputError(
                f"{self.name}: an atom at y = {y:.2f} Å, x = {x:.2f} Å is outside the box of "
                f"{self.size[0]:g} x {self.size[1]:g} Å: give a larger box"
            )

    def kept(self, which: Array) -> Flake:
        """Return the flake with some of its atoms, given by indices or by a bool ndarray of shape (n,)."""
        chosen = {name: getattr(self, name)[which] for name in ("numbers", "positions", "column", "support")}
        return replace(self, **chosen)


def nanoflake(
    layer: Layer,
    generator: np.random.Generator,
    *,
    size: tuple[float, float] = (25.6, 25.6),
    diameter: tuple[float, float] = (10.0, 18.0),
    margin: float = 3.0,
    angle: float | None = None,
) -> Flake:
    """Cut a flake of random outline, orientation and place out of a layer.

    The outline is a convex polygon of three to eight sides or an ellipse. What stands out beyond the margin
    is cut off.

    Parameters
    ----------
    layer : Layer
        Its middle comes to z = 0.
    generator : numpy.random.Generator
    size : (float, float)
        Of the box, y then x, Å.
    diameter : (float, float)
        Bounds of the diameter of a disc as large as the outline, Å; uniform between them.
    margin : float
        Å from the atoms to the border of the box, also after a tilt by :data:`LARGEST_TILT`.
    angle : float, optional
        From x to the axis a of the layer, rad; random unless given.

    Returns
    -------
    Flake

    Raises
    ------
    InputError
        If the bounds are not two positive numbers in order, the largest flake and the margins are wider than
        the box, or the outline is so small that no atom is in it.
    """
    border = margin + math.sin(LARGEST_TILT) * np.ptp(layer.positions[:, 2]) / 2
    centre = np.array(size[::-1]) / 2
    room = 2 * (centre - border)
    if not (0 < diameter[0] <= diameter[1] <= room.min() and margin >= 0):
        raise InputError(
            f"{layer.name}: diameters {diameter[0]:.4g} to {diameter[1]:.4g} Å in a box of {size[0]:g} x "
            f"{size[1]:g} Å with a margin of {margin:.4g} Å: give 0 < smaller <= larger <= {room.min():.4g} Å"
        )
    mean = generator.uniform(*diameter)
    turn = generator.uniform(0, 2 * math.pi) if angle is None else angle
    middle = border + generator.uniform(mean / 2, room - mean / 2)
    edge = _outline(generator)
    numbers, positions = _sheet(layer, turn, generator.uniform(size=2), centre, float(np.hypot(*room)) / 2)
    apart = positions[:, :2] - middle
    inside = np.hypot(*apart.T) <= mean / 2 * edge(np.arctan2(apart[:, 1], apart[:, 0]))
    inside &= (np.abs(positions[:, :2] - centre) <= room / 2).all(axis=1)
    if not inside.any():
        raise InputError(f"{layer.name}: no atom within a diameter of {mean:.3g} Å: give larger diameters")
    positions = positions[inside]
    return Flake(
        name=layer.name,
        numbers=numbers[inside],
        positions=positions,
        column=_columns(positions),
        support=np.zeros(len(positions), bool),
        size=size,
        angle=turn,
    )


def _sheet(layer: Layer, turn: float, shift: Array, centre: Array, reach: float) -> tuple[Array, Array]:
    """Return numbers and positions, Å, of all atoms within `reach` of a point, and some beyond.

    The layer is turned by `turn`, and `shift` in fractions of its axes is added.
    """
    rotation = np.array([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]])
    cell = layer.cell @ rotation
    motif = layer.positions[:, :2] @ rotation
    origin = centre @ np.linalg.inv(cell) + shift
    # Atoms may stand outside the cell that they belong to.
    radius = reach + np.hypot(*motif.T).max() + np.abs(cell).sum()
    counts = np.ceil(radius * np.linalg.norm(np.linalg.inv(cell), axis=0)).astype(int)
    indices = np.stack(np.meshgrid(*(np.arange(-n, n + 1) for n in counts), indexing="ij"), -1).reshape(-1, 2)
    lateral = (((indices + origin) @ cell)[:, None] + motif).reshape(-1, 2)
    z = np.tile(layer.positions[:, 2], len(indices))
    return np.tile(layer.numbers, len(indices)), np.column_stack([lateral, z])


def _outline(generator: np.random.Generator) -> Callable[[Array], Array]:
    """Return the distance of the edge from the centre, by polar angle, for a shape of the area pi."""
    turn = generator.uniform(0, 2 * math.pi)
    if generator.random() < _ELLIPSES:
        ratio = generator.uniform(_FLATTEST, 1)
        return lambda polar: (ratio * np.cos(polar - turn) ** 2 + np.sin(polar - turn) ** 2 / ratio) ** -0.5
    sides = int(generator.integers(3, 9))
    uneven = generator.uniform(-_UNEVEN, _UNEVEN, size=sides)
    normals = turn + 2 * math.pi * (np.arange(sides) + uneven) / sides
    distances = generator.uniform(*_EDGES, size=sides)

    def edge(polar: Array) -> Array:
        facing = np.cos(polar[:, None] - normals)
        nearest: Array = (distances / np.maximum(facing, 1e-9)).min(axis=1)  # edges behind never limit
        return nearest

    # The area is half the integral of the squared radius.
    scale = float(np.sqrt(np.mean(edge(np.linspace(0, 2 * math.pi, 720, endpoint=False)) ** 2)))
    return lambda polar: edge(polar) / scale


def _columns(positions: Array) -> Array:
    """Return the number of the column of each atom, shape (n,)."""
    lateral = positions[:, :2]
    apart = np.linalg.norm(lateral[:, None] - lateral, axis=-1)
    first = (apart <= SAME_COLUMN).argmax(axis=1)
    return np.unique(first, return_inverse=True)[1]


def on_graphene(
    flake: Flake,
    generator: np.random.Generator,
    *,
    distance: tuple[float, float] = (3.3, 7.0),
    angles: Sequence[float | None] = TURNS,
    margin: float = 1.5,
) -> Flake:
    """Put a flake of graphene under a flake that has not been tilted.

    Graphene is on the exit side, at higher z; the paper leaves the side open. Its outline is random too, and
    nearly fills the box, so that the flake mostly, not always, lies on it as a whole. Tilted with it about
    their common middle, the flake may come nearer to the border, by 0.09 of the distance.

    Parameters
    ----------
    flake : Flake
        Without a support.
    generator : numpy.random.Generator
    distance : (float, float)
        Bounds, Å, of the distance between graphene and the atoms nearest to it; uniform between them.
    angles : sequence of float or None
        From the axis a of the flake to that of graphene, rad; each is drawn as often, None is a random one.
    margin : float
        As for :func:`nanoflake`, of graphene.

    Returns
    -------
    Flake
        Graphene's atoms last.

    Raises
    ------
    InputError
        If the flake has a support, the bounds are not two positive numbers in order, there are no angles, or
        there is no room in the box.
    """
    if flake.support.any():
        raise InputError(f"{flake.name}: has a support already: give a flake without")
    if not 0 < distance[0] <= distance[1] < math.inf:
        raise InputError(f"distances {distance} Å to graphene: give a smaller and a larger, both positive")
    if not angles:
        raise InputError("no angles to graphene: give at least one, or None for a random one")
    chosen = angles[int(generator.integers(len(angles)))]
    gap = generator.uniform(*distance)
    last = flake.positions[:, 2].max()
    # A tilt about the middle of both moves graphene sideways, as it would move a thick flake.
    border = margin + math.sin(LARGEST_TILT) * (last + gap - flake.positions[:, 2].min()) / 2
    room = min(flake.size) - 2 * border
    sheet = nanoflake(
        graphene(),
        generator,
        size=flake.size,
        diameter=(_COVER[0] * room, _COVER[1] * room),
        margin=border,
        angle=None if chosen is None else flake.angle + chosen,
    )
    return replace(
        flake,
        name=f"{flake.name} on graphene",
        numbers=np.concatenate([flake.numbers, sheet.numbers]),
        positions=np.concatenate([flake.positions, sheet.positions + [0, 0, last + gap]]),
        column=np.concatenate([flake.column, sheet.column + flake.column.max() + 1]),
        support=np.concatenate([flake.support, ~sheet.support]),
    )


def damaged(
    flake: Flake, generator: np.random.Generator, *, vacancies: float = 0.05, holes: float = 0.05
) -> Flake:
    """Remove single atoms, then whole columns.

    Parameters
    ----------
    flake : Flake
    generator : numpy.random.Generator
    vacancies : float
        Share of the atoms that are removed, those of a support included.
    holes : float
        Share of the atoms then left that are chosen and removed with their columns, each of the flake or of
        its support.

    Returns
    -------
    Flake

    Raises
    ------
    InputError
        If a share is not between 0 and 1, or no atom is left.
    """
    for name, share in (("vacancies", vacancies), ("holes", holes)):
        if not 0 <= share <= 1:
            raise InputError(f"{name} for a share of {share} of the atoms: give 0 to 1")
    order = generator.permutation(len(flake.numbers))
    left = flake.kept(np.sort(order[round(vacancies * len(order)) :]))
    order = generator.permutation(len(left.numbers))
    lost = left.column[order[: round(holes * len(order))]]
    return left.kept(~np.isin(left.column, lost))


def disordered(flake: Flake, generator: np.random.Generator, *, spread: float = 0.01) -> Flake:
    """Move each atom along each axis by a Gaussian of the standard deviation `spread`, Å.

    Raises
    ------
    InputError
        If `spread` is negative, or moves an atom out of the box.
    """
    if not 0 <= spread < math.inf:
        raise InputError(f"a spread of {spread} Å: give 0 or more")
    return replace(flake, positions=flake.positions + generator.normal(0, spread, flake.positions.shape))


def tilted(flake: Flake, generator: np.random.Generator, *, largest: float = LARGEST_TILT) -> Flake:
    """Tilt the flake by a random angle about a random axis across the beam.

    The axis runs through the middle of the box, half-way between the lowest and the highest atom.

    Parameters
    ----------
    flake : Flake
    generator : numpy.random.Generator
    largest : float
        The angle is uniform from 0 to this, rad.

    Returns
    -------
    Flake
        `column` stays that of the untilted layer.

    Raises
    ------
    InputError
        If `largest` is negative, or the tilt moves an atom out of the box.
    """
    if not 0 <= largest < math.inf:
        raise InputError(f"tilts up to {largest} rad: give 0 or more")
    tilt, direction = generator.uniform(0, largest), generator.uniform(0, 2 * math.pi)
    z = flake.positions[:, 2]
    centre = np.array([flake.size[1] / 2, flake.size[0] / 2, (z.min() + z.max()) / 2])
    # Rodrigues' formula.
    x, y = math.cos(direction), math.sin(direction)
    turned = np.array([[0, 0, y], [0, 0, -x], [-y, x, 0]])  # axis times vector
    rotation = np.eye(3) + math.sin(tilt) * turned + (1 - math.cos(tilt)) * turned @ turned
    return replace(flake, positions=(flake.positions - centre) @ rotation.T + centre)


def mean_square_displacement(
    mass: float, debye_temperature: float, temperature: float = 300.0, *, full: bool = False
) -> float:
    """Return the mean square displacement of an atom along one axis in Å^2, by the Debye model.

    Eq. 1 of the paper is <u^2> = 3 hbar^2 / (2 m k theta) (1/4 + T/theta). The Debye model has
    <u^2> = 3 hbar^2 / (m k theta) [1/4 + (T/theta)^2 D] with D the integral of x / (e^x - 1) from 0 to
    theta / T (B. E. Warren, X-ray Diffraction (1969), ch. 11): twice as much at 0 K and far above theta.

    Parameters
    ----------
    mass : float
        Atomic mass in u.
    debye_temperature, temperature : float
        theta and T in K.
    full : bool
        The Debye model instead of Eq. 1.

    Returns
    -------
    float

    Raises
    ------
    InputError
        If the mass or the Debye temperature is not positive, or the temperature is negative.
    """
    from scipy.constants import atomic_mass, hbar, k
    from scipy.integrate import quad

    for name, value in (("mass", mass), ("Debye temperature", debye_temperature)):
        if not 0 < value < math.inf:
            raise InputError(f"{name} {value}: give a positive number")
    if not 0 <= temperature < math.inf:
        raise InputError(f"temperature {temperature} K: give 0 or more")
    scale = float(3 * hbar**2 / (mass * atomic_mass * k * debye_temperature)) * 1e20  # m^2 to Å^2
    ratio = temperature / debye_temperature
    if not full:
        return scale / 2 * (0.25 + ratio)
    end = min(1 / ratio, 100.0) if ratio > 0 else 0.0  # beyond, the integrand is below 1e-40
    integral = float(quad(lambda x: -x * math.exp(-x) / math.expm1(-x) if x > 0 else 1.0, 0, end)[0])
    return scale * (0.25 + ratio**2 * integral)
