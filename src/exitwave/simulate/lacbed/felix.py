"""Bloch waves with a set of strong beams of its own for each tilt, as FELIX chooses it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from exitwave.simulate.lacbed.propagation import Problem, eigenstates, masked_chebyshev, sum_of_waves

# FELIX: a beam is strong if |s| < limit or |U_g / s| >= 0.5, with s in rad/Å and U in 1/Å²; the limit
# rises in these steps until there are enough.
_STEP = 0.005
_COUPLING = 0.5
_BLOCK = 1 << 22  # elements of a batch of matrices


def strong_beams(problem: Problem, coefficients: Tensor, least: int) -> Tensor:
    """Tell which beams are strong at which tilt.

    Parameters
    ----------
    problem : Problem
    coefficients : Tensor, shape (beam,)
        U_g, 1/Å².
    least : int

    Returns
    -------
    Tensor of bool, shape (beam, tilt)
    """
    errors = 2 * math.pi * problem.diagonal.real.double().cpu()
    strength = coefficients.abs().cpu()[:, None] / errors.abs().clamp_min(1e-12)
    sure = strength >= _COUPLING
    sure[0] = True
    # The limit at which a beam becomes strong, in whole steps; then the least that gives enough beams.
    needed = torch.where(sure, 1.0, torch.floor(errors.abs() / _STEP) + 1)
    least = min(least, len(needed))
    limit = torch.sort(needed, 0).values[least - 1]
    return needed <= limit


def felix_amplitudes(
    problem: Problem, thickness: Tensor, recorded: Tensor, coefficients: Tensor, least: int,
    *, bethe: bool = False, tilts: Tensor | None = None,
    report: Callable[[int, int], None] | None = None,
) -> tuple[Tensor, int]:  # fmt: skip
    """Return amplitudes as FELIX has them, each tilt with its own strong beams.

    Parameters
    ----------
    problem : Problem
        With all beams of the pool.
    thickness : Tensor, shape (thickness,)
        Å.
    recorded : Tensor of int, shape (recorded,)
        A beam that is weak at a tilt has amplitude 0 there.
    coefficients : Tensor, shape (beam,)
        U_g, 1/Å².
    least : int
        Strong beams that every tilt must have.
    bethe : bool
        Fold the weak beams in to second order (Bethe potentials): U_gh - Σ_w U_gw U_wh / s_w and the like on
        the diagonal.
    tilts : Tensor, shape (tilt, 2), optional
        In-plane wave vectors, 1/Å. With them, the transmitted beam alone is computed for patches of
        neighbouring tilts at once, whose strong beams are nearly the same.
    report : callable, optional

    Returns
    -------
    amplitudes : Tensor, shape (recorded, thickness, tilt), complex
    beams : int
        Most strong beams of any tilt.
    """
    strong = strong_beams(problem, coefficients, least)
    counts = strong.sum(0)
    if tilts is not None and recorded.tolist() == [0] and problem.hermitian and not bethe:
        return _in_patches(problem, thickness, strong, tilts, report), int(counts.max())
    order = torch.argsort(counts)
    # Strong beams first, each class in the order of the pool.
    arranged = torch.argsort(strong.to(torch.int8), dim=0, descending=True, stable=True)
    found, start, number = [], 0, len(order)
    while start < number:
        size = max(1, _BLOCK // int(counts[order[min(start + 63, number - 1)]]) ** 2)
        chosen = order[start : start + min(size, 64)]
        found.append(_block(problem, thickness, recorded, strong, arranged, chosen, bethe))
        start += len(chosen)
        if report is not None:
            report(start, number)
    return torch.cat(found, -1)[..., torch.argsort(order)], int(counts.max())


def _in_patches(
    problem: Problem, thickness: Tensor, strong: Tensor, tilts: Tensor,
    report: Callable[[int, int], None] | None,
) -> Tensor:  # fmt: skip
    """Return the transmitted amplitude patch by patch, each with the union of its strong beams."""
    # Squares of the field with some 64 pixels each.
    step = (tilts.amax(0) - tilts.amin(0)).clamp_min(1e-12) / max(1, round(math.sqrt(len(tilts) / 64)))
    patch = torch.floor((tilts - tilts.amin(0)) / (1.0001 * step)).long()
    order = torch.argsort(patch[:, 0] * (int(patch[:, 1].max()) + 1) + patch[:, 1], stable=True)
    found = []
    for start in range(0, len(order), 64):
        chosen = order[start : start + 64]
        rows = torch.nonzero(strong[:, chosen].any(1)).flatten()
        device = problem.coupling.device
        block = problem.at(chosen.to(device), rows.to(device))
        found.append(masked_chebyshev(block, strong[rows][:, chosen].to(device), thickness))
        if report is not None:
            report(min(start + 64, len(order)), len(order))
    return torch.cat(found, -1)[..., torch.argsort(order)]


def _block(
    problem: Problem, thickness: Tensor, recorded: Tensor, strong: Tensor, arranged: Tensor,
    chosen: Tensor, bethe: bool,
) -> Tensor:  # fmt: skip
    device = problem.coupling.device
    most = int(strong[:, chosen].sum(0).max())
    rows = arranged[:most, chosen].T.to(device)  # (tilt, strong)
    inside = strong[arranged[:most, chosen], chosen].T.to(device)
    matrix = problem.coupling[rows[:, :, None], rows[:, None, :]]
    diagonal = problem.diagonal[rows, chosen.to(device)[:, None]]
    if bethe:
        weak = arranged[:, chosen].T.to(device)
        is_weak = ~strong[arranged[:, chosen], chosen].T.to(device)
        error = problem.diagonal[weak, chosen.to(device)[:, None]]
        inverse = torch.where(is_weak, 1 / torch.where(is_weak, error, 1), 0)
        left = problem.coupling[rows[:, :, None], weak[:, None, :]]
        right = problem.coupling[weak[:, :, None], rows[:, None, :]]
        folded = (left * inverse[:, None, :]) @ right
        matrix = matrix - folded
        diagonal = diagonal - torch.diagonal(folded, dim1=1, dim2=2)
        matrix = matrix - torch.diag_embed(torch.diagonal(matrix, dim1=1, dim2=2))
    both = inside[:, :, None] & inside[:, None, :]
    # What pads the smaller sets is decoupled.
    matrix = torch.where(both, matrix, 0) + torch.diag_embed(torch.where(inside, diagonal, 0))
    stretch = problem.stretch[chosen.to(device)]
    matrix = matrix * stretch[:, None, None]
    values, vectors, excitation = eigenstates(matrix, problem.hermitian)
    found = []
    for beam in recorded.tolist():
        match = (rows == beam) & inside
        row = vectors[torch.arange(len(chosen)), match.to(torch.int8).argmax(1)]
        found.append(torch.where(match.any(1)[:, None], row * excitation, 0))
    return sum_of_waves(values, torch.stack(found, 1), thickness)
