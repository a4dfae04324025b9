"""Relaxation of a patterned film by magnum.np."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from exitwave.errors import InputError, RunError


@dataclass(frozen=True)
class Relaxed:
    """A relaxed magnetisation.

    Attributes
    ----------
    direction : ndarray, shape (3, y, x), float64
        Unit vectors (x, y, z) inside the film, zero outside.
    torque : float
        Largest component of ``dm/dt / gamma`` at damping 1, A/m: zero at rest.
    energy : float
        Demagnetising and exchange energy, J.
    steps : int
        Steps of 10 ps taken.
    """

    direction: np.ndarray
    torque: float
    energy: float
    steps: int


def _magnumnp() -> Any:
    """Import magnum.np, which sets torch's default number type and logs at import, without either."""
    number = torch.get_default_dtype()
    try:
        import magnumnp
    finally:
        torch.set_default_dtype(number)
    logging.getLogger("magnum.np").setLevel(logging.ERROR)
    return magnumnp


def _window(occupied: np.ndarray) -> slice:
    """Return a slice around the occupied cells whose length suits a Fourier transform."""
    from scipy.fft import next_fast_len

    first, last = np.flatnonzero(occupied)[[0, -1]]
    length = min(next_fast_len(int(last - first + 1), real=True), occupied.size)
    begin = min(int(first), occupied.size - length)
    return slice(begin, begin + length)


def relax(
    start: np.ndarray,
    *,
    cell: tuple[float, float, float],
    saturation: float,
    exchange: float,
    tolerance: float,
    max_steps: int = 2000,
    observe: Callable[[int, float], None] | None = None,
) -> Relaxed:
    """Relax a film by the Landau-Lifshitz-Gilbert equation at a damping of 1.

    Parameters
    ----------
    start : ndarray, shape (3, y, x)
        Unit vectors (x, y, z) where there is film, zero elsewhere.
    cell : (float, float, float)
        Cell size (z, y, x), Å; the film is one cell thick.
    saturation : float
        A/m.
    exchange : float
        Exchange constant, J/m.
    tolerance : float
        Torque at which the film counts as relaxed, A/m.
    max_steps : int
        Steps of 10 ps after which to give up.
    observe : callable, optional
        Called with (step, torque) after each step.

    Returns
    -------
    Relaxed

    Raises
    ------
    InputError
        If the start has not this shape or is not made of unit vectors and zeros.
    RunError
        If the tolerance is not reached.
    """
    length = np.linalg.norm(start, axis=0) if start.ndim == 3 and start.shape[0] == 3 else np.array(0.5)
    film = length > 0.5
    if not np.allclose(length, film, atol=1e-6) or not film.any():
        raise InputError(
            f"start of shape {start.shape} is not made of unit vectors, shape (3, y, x), and zeros"
        )
    shape = film.shape
    window = tuple(_window(film.any(axis=axis)) for axis in (1, 0))  # type: ignore[arg-type]
    start, film = start[:, *window], film[window]
    mn = _magnumnp()
    number = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        # magnum.np orders its arrays (x, y, z, component) and counts in metres.
        mesh = mn.Mesh((start.shape[2], start.shape[1], 1), tuple(1e-10 * c for c in reversed(cell)))
        state = mn.State(mesh)
        inside = torch.as_tensor(film.T.astype(float))[..., None]
        state.material = {"Ms": saturation * inside, "A": exchange * inside, "alpha": 1.0}
        state.m = torch.as_tensor(start.transpose(2, 1, 0).copy())[:, :, None, :]
        # Only the end counts: loose errors let the step grow to where the integrator is just stable.
        solver = mn.LLGSolver([mn.DemagField(), mn.ExchangeField()], atol=1e-3, rtol=1e-3)
        torque = float("inf")
        for step in range(1, max_steps + 1):
            solver.step(state, 1e-11, alpha=1.0)
            torque = float(
                solver.dm(state.t, state.m, state=state, alpha=1.0).abs().max() / mn.constants.gamma
            )
            if observe is not None:
                observe(step, torque)
            if torque < tolerance:
                direction = np.zeros((3, *shape))
                direction[:, *window] = state.m[:, :, 0].numpy().transpose(2, 1, 0)
                return Relaxed(direction, torque, float(solver.E(state)), step)
    finally:
        torch.set_default_dtype(number)
    raise RunError(
        f"the film did not relax to {tolerance:g} A/m in {max_steps} steps of 10 ps, but to {torque:.3g}: "
        "allow more steps or a larger torque"
    )
