"""A microscope without an objective lens: what turns the exit wave of a magnet into a focal series."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from exitwave import optics
from exitwave.errors import InputError
from exitwave.optics.grids import Value, is_zero


@dataclass(frozen=True, eq=False)
class Instrument:
    """What forms a focal series; lengths in Å, angles in rad.

    Every field but `energy` and `sampling` may be a tensor that wants a gradient: the transfer
    functions are differentiable in all of them.

    Attributes
    ----------
    energy : float
        eV.
    sampling : (float, float)
        Pixel size (y, x).
    defocus : Tensor, shape (defocus,), or sequence of float
        Underfocus positive.
    spherical_aberration : float or Tensor
        C30.
    focal_spread : float or Tensor
        Standard deviation of the defocus.
    convergence : float or Tensor
        1/e half width of the illumination angles.
    astigmatism : Tensor, shape (2,), or (float, float)
        Twofold, (C12a, C12b) as in :meth:`exitwave.optics.Aberrations.from_cartesian`.
    shift : Tensor, shape (defocus, 2), optional
        By how much each image is displaced (y, x).
    """

    energy: float
    sampling: tuple[float, float]
    defocus: torch.Tensor | Sequence[float]
    spherical_aberration: Value = 0.0
    focal_spread: Value = 0.0
    convergence: Value = 0.0
    astigmatism: torch.Tensor | tuple[float, float] = (0.0, 0.0)
    shift: torch.Tensor | None = None

    def transfer(
        self, shape: tuple[int, int], device: str | torch.device = "cpu", dtype: torch.dtype = torch.complex64
    ) -> torch.Tensor:
        """Return one transfer function for each defocus, shape (defocus, y, x), FFT order.

        A displacement s multiplies it by ``exp(-2 pi i k·s)``.
        """
        defocus = torch.as_tensor(self.defocus, dtype=torch.float64, device=device)
        a, b = self.astigmatism
        round_beam = is_zero(a) and is_zero(b)
        stigmator: dict[str, Value] = {} if round_beam else {"C12a": a, "C12b": b}
        aberrations = optics.Aberrations.from_cartesian(
            C10=-defocus, C30=self.spherical_aberration, **stigmator
        )
        transfer = optics.transfer_function(
            shape,
            self.sampling,
            energy=self.energy,
            aberrations=aberrations,
            focal_spread=self.focal_spread,
            angular_spread=optics.convert_width(self.convergence, "1/e", "std"),
            coupled=True,
            dtype=dtype,
            device=device,
        )
        if self.shift is None:
            return transfer
        if self.shift.shape != (len(defocus), 2):
            raise InputError(
                f"shift of shape {tuple(self.shift.shape)} for {len(defocus)} images: "
                "give one (y, x) for each"
            )
        ky, kx = optics.frequency_grid(shape, self.sampling, device=device)
        turn = -2 * math.pi * (self.shift[:, 0, None, None] * ky + self.shift[:, 1, None, None] * kx)
        real = torch.float32 if dtype == torch.complex64 else torch.float64
        turned: torch.Tensor = transfer * torch.polar(torch.ones_like(turn, dtype=real), turn.to(real))
        return turned

    def phase_curvature(self, shape: tuple[int, int], device: str | torch.device = "cpu") -> torch.Tensor:
        """Return how strongly the images fix each Fourier component of a weak phase, shape (y, x//2 + 1).

        A weak phase ``phi(k)`` changes image n by ``2 sin(chi_n) E_n phi(k)``; the result is the sum over
        images of ``4 sin^2(chi) E^2``, and of its mean, ``2 E^2``, from where it is first reached
        (``chi = pi / 4``). Of the aberrations only the defocus counts.
        """
        with torch.no_grad():
            envelope = self.transfer(shape, device).abs().square()[..., : shape[1] // 2 + 1]
            ky, kx = optics.frequency_grid(shape, self.sampling, device=device)
            k2 = (ky**2 + kx**2)[..., : shape[1] // 2 + 1]
            defocus = torch.as_tensor(self.defocus, dtype=torch.float64, device=device)[:, None, None]
            chi = (math.pi * optics.wavelength(self.energy) * defocus * k2).abs()
            curvature = torch.where(chi < math.pi / 4, 4 * torch.sin(chi) ** 2, torch.full_like(chi, 2.0))
            return (curvature * envelope).sum(0)
