r"""Off-axis electron holograms: the interference of an image wave with a tilted reference wave.

A biprism brings a wave that passed beside the specimen, ``exp(+2 pi i q·r)``, onto the image wave ψ. What is
recorded, in units of the intensity that either wave alone has in vacuum, is

.. math:: I = 1 + |\psi|^2 + 2\mu\,\mathrm{Re}\,(\psi\, e^{-2\pi i\, q\cdot r})

with μ the contrast of the fringes (H. Lichte and M. Lehmann, Rep. Prog. Phys. 71, 016102 (2008)).

**Signs.** With the transform ``F(k) = ∫ I exp(-2 pi i k·r)`` of this book the side band around **-q carries
the wave**, ``mu F[psi](k + q)``, and the one around +q its conjugate. The carrier q is that of the reference
wave, which travels towards +q against the image wave; a positive phase moves the fringes towards +q, by a
period for each 2 pi. Whoever takes the other side band, or q with the other sign, has the conjugate wave.

**Dose.** In vacuum the mean of a hologram is 2: one from either wave. A dose that is given to
:func:`exitwave.simulate.imaging.add_poisson_noise` is therefore what passes the *specimen*, per Å², as for
any other image; the reference wave brings as many electrons again, which do the specimen no harm. A
detector's response comes after that (:func:`exitwave.optics.apply_mtf`); it lowers the contrast by its value
at q.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from exitwave.errors import InputError
from exitwave.optics.grids import Value, checked, on_grid, sampling_pair

Carrier = Sequence[float] | Tensor


def checked_carrier(carrier: Carrier, sampling: float | tuple[float, float]) -> Carrier:
    """Return a carrier as it is if a detector can record its fringes.

    Parameters
    ----------
    carrier : (float, float) or Tensor of shape (2,)
        Spatial frequency (y, x), 1/Å.
    sampling : float or (float, float)
        Pixel size, Å, one number or (y, x).

    Raises
    ------
    InputError
        If it is not two finite numbers, is 0, or has two pixels a period or fewer along an axis.
    """
    seen = torch.as_tensor(carrier, dtype=torch.float64).detach()
    if seen.shape != (2,) or not bool(torch.isfinite(seen).all()):
        raise InputError(f"carrier {carrier} is not two finite numbers: give (qy, qx) in 1/Å")
    q = (float(seen[0]), float(seen[1]))
    if q == (0.0, 0.0):
        raise InputError("carrier (0, 0) makes no fringes: give (qy, qx) in 1/Å, for example (0, 0.5)")
    for name, each, step in zip("yx", q, sampling_pair(sampling), strict=True):
        if abs(each) * step >= 0.5:
            raise InputError(
                f"carrier {each:g} 1/Å along {name} has two pixels of {step:g} Å a period or fewer: "
                f"stay below {0.5 / step:g} 1/Å, or give finer pixels"
            )
    return carrier


def reference_wave(
    shape: tuple[int, int],
    *,
    sampling: float | tuple[float, float],
    carrier: Carrier,
    distortion: Tensor | None = None,
    dtype: torch.dtype = torch.complex128,
    device: torch.device | str | None = None,
) -> Tensor:
    """Return the reference wave ``exp(2 pi i q·r + i distortion)``, positions counted from the first pixel.

    Parameters
    ----------
    shape : (int, int)
        Number of pixels (y, x).
    sampling : float or (float, float)
        Pixel size, Å.
    carrier : (float, float) or Tensor of shape (2,)
        q as (y, x), 1/Å; a tensor may want a gradient.
    distortion : Tensor, shape (y, x), optional
        What lenses and detector do to the fringes, rad.
    dtype, device
        complex64 or complex128, and where.

    Returns
    -------
    Tensor, shape (y, x), complex
        Of modulus 1.

    Raises
    ------
    InputError
        For a carrier that cannot be recorded or a distortion of another shape.
    """
    dy, dx = sampling_pair(sampling)
    q = torch.as_tensor(checked_carrier(carrier, (dy, dx)), dtype=torch.float64, device=device)
    y = dy * torch.arange(shape[0], dtype=torch.float64, device=device)
    x = dx * torch.arange(shape[1], dtype=torch.float64, device=device)
    # Brought into one turn before single precision loses digits.
    turns = torch.remainder(q[0] * y, 1.0)[:, None] + torch.remainder(q[1] * x, 1.0)
    phase = 2 * math.pi * turns
    if distortion is not None:
        if tuple(distortion.shape) != tuple(shape):
            raise InputError(f"distortion of shape {tuple(distortion.shape)} for a field of {tuple(shape)}")
        phase = phase + distortion.to(phase)
    real = torch.float32 if dtype == torch.complex64 else torch.float64
    return torch.polar(torch.ones_like(phase, dtype=real), phase.to(real))


def simulate(
    wave: Tensor,
    *,
    sampling: float | tuple[float, float],
    carrier: Carrier,
    contrast: Value = 1.0,
    distortion: Tensor | None = None,
    transfer: Tensor | None = None,
) -> Tensor:
    r"""Return the off-axis hologram of a wave; differentiable in wave, carrier, contrast and transfer.

    Parameters
    ----------
    wave : Tensor, shape (\*batch, y, x), complex
        Image wave over the incident wave: 1 in vacuum. With `transfer`, the exit wave.
    sampling : float or (float, float)
        Pixel size, Å, one number or (y, x).
    carrier : (float, float) or Tensor of shape (2,)
        Spatial frequency q of the reference wave, (y, x), 1/Å.
    contrast : float or Tensor of shape (\*batch,)
        Contrast μ of the fringes in vacuum, 0 to 1: what is left of it by the size of the source,
        instabilities and inelastic scattering.
    distortion : Tensor, shape (y, x), optional
        Phase of the reference wave beside its carrier, rad: distorted fringes.
    transfer : Tensor, shape (y, x) or (\*batch, y, x), complex, optional
        Transfer function of the lens, in FFT order (:func:`exitwave.optics.transfer_function`); its envelopes
        damp both what interferes and what does not. The field is then taken as periodic.

    Returns
    -------
    Tensor, shape (\*batch, y, x), real
        ``1 + |wave|^2 + 2 contrast Re(wave conj(reference))``, without noise: 2 on average in vacuum.

    Raises
    ------
    InputError
        For a wave that is not complex, a contrast outside 0 to 1, or a carrier that cannot be recorded.

    Examples
    --------
    A hologram with 1000 electrons per Å² through the specimen, and that of the vacuum::

        hologram = holograms.simulate(wave, sampling=0.1, carrier=(0.0, 2.5), contrast=0.4)
        hologram = imaging.add_poisson_noise(hologram, 1000.0, (0.1, 0.1), generator)
        empty = holograms.simulate(torch.ones_like(wave), sampling=0.1, carrier=(0.0, 2.5), contrast=0.4)
    """
    if not wave.is_complex() or wave.ndim < 2:
        raise InputError(
            f"wave of {wave.dtype} and shape {tuple(wave.shape)}: give a complex one (..., y, x)"
        )
    contrast = checked(contrast, "contrast of the fringes", least=0.0)
    if bool((torch.as_tensor(contrast).detach() > 1).any()):
        raise InputError(f"contrast {contrast} of the fringes is above 1: give it as a fraction, 0 to 1")
    if transfer is not None:
        wave = torch.fft.ifft2(torch.fft.fft2(wave) * transfer)
    reference = reference_wave(
        (wave.shape[-2], wave.shape[-1]), sampling=sampling, carrier=carrier, distortion=distortion,
        dtype=wave.dtype, device=wave.device,
    )  # fmt: skip
    interference = (wave * reference.conj()).real
    intensity = wave.real.square() + wave.imag.square()
    return 1 + intensity + 2 * on_grid(contrast, intensity) * interference
