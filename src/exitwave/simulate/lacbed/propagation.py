"""Amplitudes of beams behind a crystal: exp(2πi A t) applied to the incident beam, for many tilts.

For tilt n the matrix is A_n = κ_n (diag d_n + U), κ = K / K_z, with one and the same U for all tilts: what
changes with the tilt is diagonal. The Chebyshev expansion therefore costs one product of two real
matrices for a whole block of tilts and term, which runs near the speed limit of the processor, whereas
diagonalisation is one after the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.special
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

# Numbers of elements of one block, such that its three vectors stay in cache (CPU) or fill the device.
_BLOCK = {"cpu": 1 << 17, "cuda": 1 << 25}
_SEGMENT = 24  # terms between two checkpoints when gradients are wanted
# With absorption a Chebyshev polynomial grows where the wave decays, by exp(2π t |Im λ|) inside the interval
# and by far more at its ends. So the crystal is crossed in steps that keep this exponent below _GROWTH, and
# the interval is wider than the spectrum by _WIDER, where growth is at most 2.4 times that of the middle.
_GROWTH, _WIDER = 1.0, 1.1


@dataclass(frozen=True)
class Problem:
    """Matrices A_n = κ_n (diag d_n + U) of all tilts.

    Attributes
    ----------
    coupling : Tensor, shape (beam, beam)
        U = U_(g-h) / 2K without diagonal, 1/Å; real symmetric, Hermitian, or neither (absorption).
    diagonal : Tensor, shape (beam, tilt)
        d: excitation errors, with the mean absorption where there is one, 1/Å.
    stretch : Tensor, shape (tilt,)
        κ = K / K_z.
    hermitian : bool
        Whether nothing is absorbed.
    """

    coupling: Tensor
    diagonal: Tensor
    stretch: Tensor
    hermitian: bool

    def at(self, chosen: Tensor | slice, rows: Tensor | None = None) -> Problem:
        """Return the problem of some tilts, and of some of the beams."""
        coupling, diagonal = self.coupling, self.diagonal[:, chosen]
        if rows is not None:
            coupling, diagonal = coupling[rows][:, rows], diagonal[rows]
        return Problem(coupling, diagonal, self.stretch[chosen], self.hermitian)

    def to(self, device: torch.device | str, real: torch.dtype) -> Problem:
        """Return the problem on a device in a precision."""
        kinds = {torch.float32: torch.complex64, torch.float64: torch.complex128}

        def kind(x: Tensor) -> torch.dtype:
            return kinds[real] if x.is_complex() else real

        return Problem(
            self.coupling.to(device, kind(self.coupling)), self.diagonal.to(device, kind(self.diagonal)),
            self.stretch.to(device, real), self.hermitian,
        )  # fmt: skip

    def matrices(self) -> Tensor:
        """Return all matrices, shape (tilt, beam, beam)."""
        return self.stretch[:, None, None] * (self.coupling + torch.diag_embed(self.diagonal.T))


def diagonalise(problem: Problem, thickness: Tensor, recorded: Tensor) -> Tensor:
    """Return amplitudes by diagonalising one matrix after the other: the reference.

    Parameters
    ----------
    problem : Problem
    thickness : Tensor, shape (thickness,)
        Å.
    recorded : Tensor of int, shape (recorded,)
        Rows of the beams that are wanted.

    Returns
    -------
    Tensor, shape (recorded, thickness, tilt), complex
    """
    values, vectors, start = eigenstates(problem.matrices(), problem.hermitian)
    found = vectors[:, recorded, :] * start[:, None, :]
    return sum_of_waves(values, found, thickness)


def eigenstates(matrices: Tensor, hermitian: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return eigenvalues (tilt, state), eigenvectors (tilt, beam, state), and excitations (tilt, state)."""
    if hermitian:
        values, vectors = torch.linalg.eigh(matrices)
        return values, vectors, vectors[:, 0, :].conj()
    values, vectors = torch.linalg.eig(matrices)
    first = torch.zeros(matrices.shape[:2], dtype=vectors.dtype, device=vectors.device)
    first[:, 0] = 1
    return values, vectors, torch.linalg.solve(vectors, first)


def sum_of_waves(values: Tensor, found: Tensor, thickness: Tensor) -> Tensor:
    """Return Σ_j found_j exp(2πi λ_j t), shape (beam, thickness, tilt).

    Parameters
    ----------
    values : Tensor, shape (tilt, state)
        1/Å.
    found : Tensor, shape (tilt, beam, state)
    thickness : Tensor, shape (thickness,)
        Å.
    """
    phases = torch.exp(2j * math.pi * values[:, None, :] * thickness.to(values.device)[None, :, None])
    return torch.einsum("nbe,nte->btn", found.to(phases.dtype), phases)


def chebyshev(
    problem: Problem,
    thickness: Tensor,
    recorded: Tensor,
    *,
    tolerance: float = 1e-6,
    report: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Return amplitudes by an expansion of the exponential in Chebyshev polynomials of the matrix.

    exp(2πi A t) = exp(2πi a t) Σ_k (2 - δ_k0) i^k J_k(2π b t) T_k((A - a) / b) (Tal-Ezer and Kosloff 1984),
    where [a - b, a + b] holds all eigenvalues. Where the transmitted beam alone is wanted and nothing is
    absorbed, each product x_k = T_k|0> gives two coefficients, <0|T_2k|0> = 2 <x_k|x_k> - <0|T_0|0> and
    <0|T_2k+1|0> = 2 <x_k+1|x_k> - <0|T_1|0>, which halves the work. With absorption the eigenvalues leave the
    real axis, where the polynomials grow: the crystal is then crossed in steps. Differentiable in the
    coupling.

    Parameters
    ----------
    problem, thickness, recorded
        As for :func:`diagonalise`.
    tolerance : float
        Bound of the coefficients that are left out.
    report : callable, optional
        Called with (tilts done, tilts in all).

    Returns
    -------
    Tensor, shape (recorded, thickness, tilt), complex128
    """
    device = problem.coupling.device
    tilts = problem.stretch.numel()
    low, high = _eigenvalue_range(problem.coupling)
    weakest, strongest = _absorption_range(problem)
    size = max(16, _BLOCK.get(device.type, _BLOCK["cpu"]) // problem.coupling.shape[0])
    # Tilts of one length need the same number of terms: the wider the tilt, the wider the spectrum.
    spread = problem.diagonal.real.detach().abs().amax(0)
    order = torch.argsort(spread)
    only_first = recorded.numel() == 1 and int(recorded[0]) == 0 and problem.hermitian
    found = []
    for start in range(0, tilts, size):
        block = problem.at(order[start : start + size])
        d = (block.stretch * block.diagonal.real).detach()
        kappa = float(block.stretch.max())
        bounds = (float(d.min()) + kappa * low, float(d.max()) + kappa * high)
        middle: complex = sum(bounds) / 2
        half = max((bounds[1] - bounds[0]) / 2, 1e-9)
        if not problem.hermitian:
            middle += 0.5j * kappa * (weakest + strongest)
            excess = 0.5 * kappa * (strongest - weakest)
            found.append(_cross(block, middle, _WIDER * half, excess, thickness, recorded, tolerance))
        elif only_first:
            coefficients = _coefficients(middle, half, thickness, tolerance).to(device)
            found.append(_moments(_Recursion.of(block, middle, half), coefficients))
        else:
            coefficients = _coefficients(middle, half, thickness, tolerance).to(device)
            found.append(_accumulate(block, middle, half, coefficients, recorded))
        if report is not None:
            report(min(start + size, tilts), tilts)
    result = torch.cat(found, -1)
    return result[..., torch.argsort(order)]


def masked_chebyshev(
    problem: Problem, present: Tensor, thickness: Tensor, *, tolerance: float = 1e-6
) -> Tensor:
    """Return the amplitude of the transmitted beam where each tilt has beams of its own.

    Beams that are absent at a tilt are held at zero in its vector; all tilts keep the one coupling.

    Parameters
    ----------
    problem : Problem
        Hermitian, of tilts with similar beams: the union of them.
    present : Tensor of bool, shape (beam, tilt)
    thickness : Tensor, shape (thickness,)
        Å.
    tolerance : float

    Returns
    -------
    Tensor, shape (1, thickness, tilt), complex128
    """
    low, high = _eigenvalue_range(problem.coupling)
    d = (problem.stretch * problem.diagonal)[present]
    kappa = float(problem.stretch.max())
    bounds = (float(d.min()) + kappa * min(low, 0.0), float(d.max()) + kappa * max(high, 0.0))
    middle, half = sum(bounds) / 2, max((bounds[1] - bounds[0]) / 2, 1e-9)
    coefficients = _coefficients(middle, half, thickness, tolerance).to(problem.coupling.device)
    # Absent beams: nothing flows in, so that they stay at the zero with which they begin.
    stretch = problem.stretch * present
    recursion = _Recursion(
        problem.coupling,
        2 / half * (problem.stretch * problem.diagonal - middle) * present,
        2 / half * stretch,
    )
    return _moments(recursion, coefficients)


def _eigenvalue_range(coupling: Tensor) -> tuple[float, float]:
    """Return bounds of the eigenvalues of the Hermitian part of the coupling."""
    if coupling.shape[0] == 1:
        return 0.0, 0.0
    values = torch.linalg.eigvalsh(0.5 * (coupling + coupling.mH).detach())
    margin = 1e-3 * float(values.abs().max())
    return float(values[0]) - margin, float(values[-1]) + margin


def _absorption_range(problem: Problem) -> tuple[float, float]:
    """Return bounds of the anti-Hermitian part over i, before the stretch."""
    if problem.hermitian:
        return 0.0, 0.0
    coupling = problem.coupling.detach()
    low, high = _eigenvalue_range((coupling - coupling.mH) / 2j)
    # Real where nothing stands on the diagonal.
    mean = problem.diagonal.detach().to(torch.complex128).imag
    return low + float(mean.min()), high + float(mean.max())


def _cross(
    block: Problem, middle: complex, half: float, excess: float, thickness: Tensor, recorded: Tensor,
    tolerance: float,
) -> Tensor:  # fmt: skip
    """Cross an absorbing crystal in steps; `excess` is the largest |Im (λ - middle)|, 1/Å."""
    rows = torch.arange(block.coupling.shape[0])
    state: Tensor | None = None
    found: dict[int, Tensor] = {}
    reached = 0.0
    depths = thickness.tolist()
    for i in sorted(range(len(depths)), key=depths.__getitem__):
        steps = max(1, math.ceil(2 * math.pi * excess * (depths[i] - reached) / _GROWTH))
        depth = torch.tensor([(depths[i] - reached) / steps], dtype=torch.float64)
        # As many errors add up as there are steps, each enlarged by the growth.
        bound = tolerance / (steps * math.exp(2.4 * _GROWTH))
        coefficients = _coefficients(middle, half, depth, bound).to(block.coupling.device)
        for _ in range(steps):
            state = _accumulate(block, middle, half, coefficients, rows, state)[:, 0]
        reached = depths[i]
        assert state is not None
        found[i] = state[recorded.to(state.device)]
    return torch.stack([found[i] for i in range(len(depths))], 1)


def _coefficients(middle: complex, half: float, thickness: Tensor, tolerance: float) -> Tensor:
    """Return the factor of each Chebyshev polynomial, shape (term, thickness), complex128."""
    t = thickness.double().cpu().numpy()
    argument = 2 * math.pi * half * t
    most = int(np.abs(argument).max()) + 20 + int(12 * np.abs(argument).max() ** (1 / 3))
    k = np.arange(most + 1)
    values = scipy.special.jv(k[:, None], argument[None, :])
    kept = int(np.nonzero(np.abs(values).max(1) > tolerance)[0].max()) + 1
    factors = np.where(k == 0, 1.0, 2.0)[:, None] * 1j ** (k % 4)[:, None] * values
    return torch.as_tensor((factors * np.exp(2j * math.pi * middle * t))[:kept])


@dataclass(frozen=True)
class _Recursion:
    """x_(k+1) = 2 (A - a) / b x_k - x_(k-1) for a block of tilts."""

    coupling: Tensor
    diagonal: Tensor
    stretch: Tensor

    @classmethod
    def of(cls, block: Problem, middle: complex, half: float) -> _Recursion:
        return cls(
            block.coupling, 2 / half * (block.stretch * block.diagonal - middle), 2 / half * block.stretch
        )

    def start(self, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return T_0 and T_1 of the matrix applied to a state, (beam, tilt), or to the incident beam."""
        kind = torch.promote_types(self.coupling.dtype, self.diagonal.dtype)
        if state is None:
            before = torch.zeros(self.diagonal.shape, dtype=kind, device=self.diagonal.device)
            before[0] = 1
        else:
            before = state.to(kind)
        return before, 0.5 * (self.diagonal * before + self.stretch * (self.coupling @ before))

    def step(self, before: Tensor, now: Tensor, spare: Tensor | None = None) -> Tensor:
        if spare is None:
            return self.stretch * (self.coupling @ now) + self.diagonal * now - before
        torch.mm(self.coupling, now, out=spare)
        return spare.mul_(self.stretch).addcmul_(self.diagonal, now).sub_(before)


def _moments(recursion: _Recursion, coefficients: Tensor) -> Tensor:
    before, now = recursion.start()
    # Copies: the vectors are overwritten.
    moments = [before[0].real.clone(), now[0].real.clone()]
    needed = len(coefficients)

    def products(one: Tensor, two: Tensor) -> tuple[Tensor, Tensor]:
        # one = x_k, two = x_(k+1)
        return 2 * _inner(two, one) - moments[1], 2 * _inner(two, two) - moments[0]

    if not recursion.coupling.requires_grad:
        moments.append(2 * _inner(now, now) - moments[0])
        spare = torch.empty_like(now)
        while len(moments) < needed:
            following = recursion.step(before, now, spare)
            moments += products(now, following)
            before, now, spare = now, following, before
    else:

        def segment(before: Tensor, now: Tensor) -> tuple[Tensor, ...]:
            found: list[Tensor] = []
            for _ in range(_SEGMENT):
                following = recursion.step(before, now)
                found += products(now, following)
                before, now = now, following
            return before, now, torch.stack(found)

        moments.append(2 * _inner(now, now) - moments[0])
        while len(moments) < needed:
            before, now, more = checkpoint(segment, before, now, use_reentrant=False)
            moments += list(more)
    return _series(moments, coefficients)


def _series(moments: list[Tensor], coefficients: Tensor) -> Tensor:
    """Return Σ_k c_k(t) μ_k, shape (1, thickness, tilt)."""
    values = torch.stack(moments[: len(coefficients)]).to(torch.float64)
    return torch.complex(coefficients.real.mT @ values, coefficients.imag.mT @ values)[None]


def _inner(one: Tensor, two: Tensor) -> Tensor:
    """Return the real part of <two|one> of each column."""
    if not one.is_complex():
        return (one * two).sum(0)
    return (torch.view_as_real(one) * torch.view_as_real(two)).sum((0, 2))


def _accumulate(
    block: Problem, middle: complex, half: float, coefficients: Tensor, recorded: Tensor,
    state: Tensor | None = None,
) -> Tensor:  # fmt: skip
    recursion = _Recursion.of(block, middle, half)
    before, now = recursion.start(state)
    rows = recorded.to(now.device)
    differentiable = block.coupling.requires_grad
    total = _weighted(coefficients[:2], torch.stack([before[rows], now[rows]])[: len(coefficients)])

    def segment(before: Tensor, now: Tensor, factors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        spare = None if differentiable else torch.empty_like(now)
        kept = []
        for _ in range(len(factors)):
            following = recursion.step(before, now, spare)
            kept.append(following[rows])
            before, now, spare = now, following, None if differentiable else before
        return before, now, _weighted(factors, torch.stack(kept))

    for first in range(2, len(coefficients), _SEGMENT):
        factors = coefficients[first : first + _SEGMENT]
        if differentiable:
            before, now, part = checkpoint(segment, before, now, factors, use_reentrant=False)
        else:
            before, now, part = segment(before.clone(), now.clone(), factors)
        total = total + part
    return total


def _weighted(factors: Tensor, vectors: Tensor) -> Tensor:
    """Return Σ_k factors[k, thickness] vectors[k, beam, tilt], summed in the precision of the vectors."""
    if vectors.is_complex():
        return torch.einsum("kt,kbn->btn", factors.to(vectors.dtype), vectors).to(torch.complex128)
    real, imaginary = (
        torch.einsum("kt,kbn->btn", each.to(vectors.dtype), vectors) for each in (factors.real, factors.imag)
    )
    return torch.complex(real, imaginary).to(torch.complex128)
