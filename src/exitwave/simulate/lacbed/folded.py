"""LACBED disks from few diagonalisations: one serves all tilts that differ by reciprocal lattice vectors.

By Bloch's theorem the waves of a crystal depend on the tilt only modulo the reciprocal lattice of the zero
layer. Let k + G be the in-plane part of the incident wave vector, k in the first Brillouin zone. Then

    A_g(t) = Σ_j C_(G+g)j C*_Gj exp(2πi κ λ_j t),   (diag(-|k + g|² / 2K) + U / 2K) C_j = λ_j C_j,

κ = K / K_z: another tilt with the same k takes other rows of the same eigenvectors. Where a whole number of
pixels goes into a reciprocal lattice vector, few k occur, whatever the size of the field: with eight, ten for
the bright field of a primitive cubic crystal along [001], 20 or 36 of fewer beams for a centred one. For
other disks, whose symmetry is not used, there are 64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from exitwave.errors import InputError
from exitwave.optics.scattering import ScatteringTable
from exitwave.simulate.lacbed.beams import Beams, Geometry, select_beams
from exitwave.simulate.lacbed.disks import Miller, Pattern, Report
from exitwave.simulate.lacbed.disks import _checked_thickness as checked_thickness
from exitwave.simulate.lacbed.potential import Absorption, potential_coefficients, reciprocal_cell
from exitwave.simulate.lacbed.propagation import eigenstates, sum_of_waves
from exitwave.simulate.lacbed.setup import Setup, check_memory, prepare
from exitwave.simulate.lacbed.symmetry import pattern_operations, real_origin
from exitwave.specimens.crystals import Crystal

# Convergence is measured against this times the resolution limit.
_CONVERGENCE_FACTOR = 1.3
# Beams, extinct ones included, that tell which lattice couples.
_FEW = 200
_NO_ABSORPTION = Absorption()


@dataclass(frozen=True)
class PeriodicGeometry(Geometry):
    """A field of tilts of which a whole number of pixels goes into the shortest reciprocal vector.

    ``half_angle`` follows from it and is not given: pixels / (2 `per_vector`) such vectors over K.

    Attributes
    ----------
    per_vector : int
        Pixels a vector.
    """

    per_vector: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.per_vector < 1:
            raise InputError(f"{self.per_vector} pixels a reciprocal vector: use 1 or more")
        if self.half_angle is not None:
            raise InputError(
                "half angle and pixels a reciprocal vector exclude one another: give one of them"
            )

    def angles(self, crystal: Crystal) -> np.ndarray:
        """Return the tilts along one side, rad: equal steps of the in-plane wave vector."""
        u = np.asarray(self.zone) @ crystal.cell / math.gcd(*self.zone)
        reach = math.sqrt(2 / math.sqrt(3) * float(np.linalg.norm(u)) / crystal.volume)
        shortest = select_beams(crystal, self, Beams(limit=reach))[1] @ np.linalg.inv(crystal.cell).T
        step = float(np.linalg.norm(shortest)) / self.per_vector
        along = (np.arange(self.pixels) - (self.pixels - 1) / 2) * step / self.wavenumber
        if along.size and along[-1] >= math.sin(0.5):
            raise InputError(
                f"{self.pixels} pixels reach {math.asin(min(along[-1], 1)):.2f} rad, beyond 0.5: "
                f"take more pixels a reciprocal vector than {self.per_vector}, or fewer pixels"
            )
        return np.asarray(np.arcsin(along))


@dataclass(frozen=True)
class _Folding:
    """Which k stands behind each pixel, and which of its rows.

    Attributes
    ----------
    zone_points : Tensor, shape (k, 2)
        In the first Brillouin zone, 1/Å.
    point : ndarray of int, shape (tilt,)
        Index of k of each different tilt.
    vector : ndarray of int, shape (tilt, 2)
        G of each different tilt, as coordinates of `Setup.lattice`.
    stretch : Tensor, shape (tilt,)
        κ of each different tilt.
    membership : ndarray of int, shape (pixels * pixels,)
        Which of the different tilts each pixel has.
    """

    zone_points: Tensor
    point: np.ndarray
    vector: np.ndarray
    stretch: Tensor
    membership: np.ndarray

    def tilts_of(self, i: int) -> np.ndarray:
        """Return which of the different tilts have a k."""
        return np.flatnonzero(self.point == i)


def simulate_folded(
    crystal: Crystal,
    thickness: Sequence[float],
    geometry: PeriodicGeometry,
    limit: float = 3.5,
    *,
    disks: Sequence[Miller] = ((0, 0, 0),),
    table: ScatteringTable = "kirkland",
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    verify: bool = True,
    report: Report | None = None,
) -> Pattern:
    """Simulate LACBED disks of the zero layer, without absorption, by one diagonalisation for many tilts.

    At a tilt with in-plane wave vector q those beams enter for which |q + g|² <= q_max² + limit², q_max being
    the largest tilt: at the corner of the field all that lie no farther outside the Ewald sphere than a beam
    of length `limit` at normal incidence, elsewhere more.

    Parameters
    ----------
    crystal, thickness, disks, table, device
        See :func:`simulate`.
    geometry : PeriodicGeometry
    limit : float
        1/Å.
    dtype : torch.float32 or torch.float64
        Of the diagonalisation.
    verify : bool
        Whether to measure the errors of :class:`Pattern`, at all tilts of one k: ``solver_error`` against
        float64, ``beam_error`` against 1.3 times the limit.
    report : callable, optional
        Called with (diagonalisations done, in all).

    Returns
    -------
    Pattern

    Raises
    ------
    InputError
        For an impossible thickness or disk, a field of which few tilts share a diagonalisation, or matrices
        beyond memory.
    """
    depth = checked_thickness(thickness)
    if not disks:
        raise InputError("no disk asked for: give one or more, such as (0, 0, 0)")
    calculation = _prepare(crystal, geometry, limit, disks, table, depth, device)
    folding = calculation.folding
    unique = torch.zeros(len(disks), len(depth), len(folding.point), dtype=torch.float64)
    entered, number = 0, len(folding.zone_points)
    for i in range(number):
        unique[..., folding.tilts_of(i)], beams = calculation.intensities(i, dtype)
        entered = max(entered, beams)
        if report is not None:
            report(i + 1, number)
    size = (len(disks), len(depth), geometry.pixels, geometry.pixels)
    intensity = unique[..., torch.as_tensor(folding.membership)].reshape(size).to(dtype)
    solver_error = beam_error = None
    if verify:
        i = number // 2
        found = unique[..., folding.tilts_of(i)]
        exact, _ = calculation.intensities(i, torch.float64)
        solver_error = (exact - found).abs().amax((0, 2)).float()
        beam_error = _beam_error(crystal, geometry, limit, disks, table, calculation, i, found)
    return Pattern(
        intensity, np.asarray(disks), entered, len(folding.point), "folded", solver_error, beam_error
    )


def _beam_error(
    crystal: Crystal, geometry: PeriodicGeometry, limit: float, disks: Sequence[Miller],
    table: ScatteringTable, known: _Calculation, i: int, found: Tensor,
) -> Tensor | None:  # fmt: skip
    try:
        wider = _CONVERGENCE_FACTOR * limit
        more = _prepare(crystal, geometry, wider, disks, table, known.thickness, known.device)
    except InputError:  # beyond memory
        return None
    better, _ = more.intensities(i, torch.float32)
    return (better[0] - found[0]).abs().amax(-1).float()


def _prepare(
    crystal: Crystal, geometry: PeriodicGeometry, limit: float, disks: Sequence[Miller],
    table: ScatteringTable, depth: Tensor, device: str,
) -> _Calculation:  # fmt: skip
    tilts = geometry.tilts(crystal)
    reach = math.hypot(float(tilts.norm(dim=-1).max()), limit)
    setup = _layer(crystal, geometry, reach, table)
    check_memory(len(setup.hkl), limit, len(tilts))
    index = {tuple(row): i for i, row in enumerate(setup.hkl.tolist())}
    for disk in disks:
        if tuple(disk) not in index:
            raise InputError(f"disk {disk} is extinct or outside the zero layer: choose another")
    only_bright = [tuple(disk) for disk in disks] == [(0, 0, 0)]
    return _Calculation(
        setup, _fold(setup, geometry, tilts, only_bright=only_bright),
        setup.lattice[[index[tuple(disk)] for disk in disks]], reach, geometry.wavenumber, depth, device,
    )  # fmt: skip


def _layer(crystal: Crystal, geometry: Geometry, reach: float, table: ScatteringTable) -> Setup:
    """Return the beams of the zero layer that may have |k + g| <= `reach` with k in the first zone.

    As :func:`exitwave.simulate.lacbed.setup.prepare`, but of thousands of beams: what couples is a lattice,
    which a few beams tell, and each U_g of it is computed once.
    """
    u = np.asarray(geometry.zone) @ crystal.cell / math.gcd(*geometry.zone)
    area = float(np.linalg.norm(u)) / crystal.volume
    few = prepare(crystal, geometry, Beams(limit=math.sqrt(_FEW * area / math.pi)), _NO_ABSORPTION, table)
    if len(few.hkl) < 3:
        raise InputError(
            f"{crystal.name} scatters to no two beams of the zero layer: choose another zone axis"
        )
    basis = (
        np.linalg.lstsq(few.lattice.astype(float), few.hkl.astype(float), rcond=None)[0].round().astype(int)
    )
    to_plane = reciprocal_cell(crystal.cell) @ geometry.frame(crystal).T
    vectors = (basis @ to_plane)[:, :2]
    limit = reach + np.linalg.norm(vectors, axis=1).sum() / 2
    # A point n of the lattice has |n_i| <= |g| / (distance of neighbouring lines i).
    most = int(limit * np.linalg.norm(np.linalg.inv(vectors), axis=0).max()) + 1
    check_memory((2 * most + 1) ** 2, limit)
    one = np.arange(-2 * most, 2 * most + 1)
    grid = np.stack(np.meshgrid(one, one, indexing="ij"), -1)
    lengths = np.linalg.norm(grid @ vectors, axis=-1)
    needed = lengths <= 2 * limit + 1e-9
    values = torch.zeros(needed.shape, dtype=torch.complex128)
    values[torch.as_tensor(needed)] = potential_coefficients(
        crystal, grid[needed] @ basis, geometry.energy, table=table
    )
    near = lengths <= limit
    lattice = grid[near][np.argsort(lengths[near].round(9), kind="stable")]
    difference = torch.as_tensor(lattice[:, None] - lattice[None] + 2 * most)
    coupling = values[difference[..., 0], difference[..., 1]]
    coupling.fill_diagonal_(0)
    first = coupling[:, 0].clone()
    origin = real_origin(lattice, first)
    if origin is not None:
        phase = torch.exp(2j * math.pi * torch.as_tensor(lattice @ origin))
        coupling = (phase[:, None] * coupling * phase.conj()).real
    hkl = lattice @ basis
    return Setup(hkl, torch.as_tensor(hkl @ to_plane), lattice, first, coupling, 0j)


@dataclass(frozen=True)
class _Calculation:
    """All that the diagonalisations need; `disks` (disk, 2) in coordinates of `Setup.lattice`."""

    setup: Setup
    folding: _Folding
    disks: np.ndarray
    reach: float
    wavenumber: float
    thickness: Tensor
    device: str

    def intensities(self, i: int, dtype: torch.dtype) -> tuple[Tensor, int]:
        """Return the intensities (disk, thickness, tilt) at the tilts of a k, and the number of beams."""
        wave = self.folding.zone_points[i] + self.setup.g[:, :2]
        inside = torch.nonzero(wave.norm(dim=-1) <= self.reach).flatten()
        kinetic = -(wave[inside] ** 2).sum(-1) / (2 * self.wavenumber)
        matrix = self.setup.coupling[inside][:, inside] / (2 * self.wavenumber)
        matrix = matrix + torch.diag(kinetic).to(matrix.dtype)
        kind = torch.promote_types(dtype, torch.complex64) if matrix.is_complex() else dtype
        energies, vectors, _ = eigenstates(matrix[None].to(self.device, kind), hermitian=True)
        rows = {tuple(n): row for row, n in enumerate(self.setup.lattice[inside.numpy()].tolist())}
        some = self.folding.tilts_of(i)
        incident = self.folding.vector[some]
        # A beam beyond reach has no intensity worth a pixel: it takes the row of zeros at the end.
        padded = torch.cat([vectors[0], vectors.new_zeros(1, vectors.shape[-1])])
        at = [[rows.get(tuple(n), -1) for n in (incident + disk).tolist()] for disk in self.disks]
        start = padded[[rows[tuple(n)] for n in incident.tolist()]].conj()
        found = torch.stack([padded[each] * start for each in at], 1)
        energies = self.folding.stretch[some].to(self.device)[:, None] * energies.double()
        return sum_of_waves(energies, found, self.thickness).abs().cpu() ** 2, len(inside)


def _fold(setup: Setup, geometry: Geometry, tilts: Tensor, *, only_bright: bool) -> _Folding:
    """Bring every tilt into the first zone, by lattice vectors and, for the bright field, by symmetry."""
    operations = [np.eye(2, dtype=int)]
    if only_bright:
        operations = pattern_operations(setup.g[:, :2], setup.lattice, setup.coefficients)
    # Rows: the vectors in whose coordinates `lattice` is.
    basis = np.linalg.lstsq(setup.lattice.astype(float), setup.g[:, :2].numpy(), rcond=None)[0]
    images = np.stack([tilts.numpy() @ operation.T for operation in operations])
    coordinates = images @ np.linalg.inv(basis)
    folded = np.round(coordinates - np.floor(coordinates + 1e-7), 6)
    # Of the images under symmetry the one whose k comes first.
    order = folded[..., 0] * 10 + folded[..., 1]
    first, every = order.argmin(0), np.arange(len(tilts))
    chosen_image = coordinates[first, every]
    k = folded[first, every]
    k -= np.rint(k)
    vector = np.rint(chosen_image - k).astype(int)
    _, where, point = np.unique(k, axis=0, return_index=True, return_inverse=True)
    # Rounded only to be sorted.
    points = (chosen_image - vector)[where]
    keys = np.concatenate([point.reshape(-1, 1), vector], 1)
    different, chosen, membership = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    if len(points) > max(64, len(different) // 4):
        raise InputError(
            f"the {len(different)} different tilts have {len(points)} wave vectors in the first zone, which "
            "shares little: take fewer pixels a reciprocal vector, or a half angle in place of them"
        )
    wavenumber = geometry.wavenumber
    stretch = wavenumber / (wavenumber**2 - (tilts[torch.as_tensor(chosen)] ** 2).sum(-1)).sqrt()
    return _Folding(
        torch.as_tensor(points @ basis), different[:, 0], different[:, 1:], stretch, membership.ravel()
    )
