"""The microscope of a focal series, of which any part may be free in a fit of the wave."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from exitwave.errors import InputError
from exitwave.optics import Aberrations, frequency_grid, transfer_function, wavelength
from exitwave.retrieve.quasi_newton import estimate_noise

# What can be retrieved besides the wave.
FREE = (
    "defocus", "shift", "astigmatism", "coma", "threefold", "spherical_aberration", "focal_spread", "blur",
)  # fmt: skip
_PAIRS = {"astigmatism": "C12", "coma": "C21", "threefold": "C23"}
# Where the scale of an aberration makes a phase of 1 rad, 1/Å.
_RESOLUTION = 1.0
# A free blur starts here, Å: from nothing it could not grow.
_LEAST_BLUR = 0.05
# Largest change of a logarithm from its start.
_FARTHEST = 3.0
# Frequencies that a detector passes less of are left out.
_LEAST_RESPONSE = 0.05
# Mean square of the filter of estimate_noise where nothing is left out.
_WHITE = 36.0
# Least noise of images that show none: no model is better.
_LEAST_NOISE = 1e-3


@dataclass(frozen=True)
class Lens:
    """The microscope of a focal series; lengths in Å.

    Attributes
    ----------
    energy : float
        eV.
    sampling : float
        Pixel size.
    defocus : Tensor, shape (image,), float64
        Underfocus positive.
    spherical_aberration : float
        C30.
    astigmatism, coma, threefold : (float, float)
        Cartesian C12a, C12b; C21a, C21b; C23a, C23b (:meth:`exitwave.optics.Aberrations.from_cartesian`).
    focal_spread : float
        Standard deviation of the defocus.
    blur : float
        Standard deviation of a Gaussian by which the intensity is blurred.
    shift : Tensor, shape (image, 2), float64, optional
        How far each image is displaced (y, x).
    """

    energy: float
    sampling: float
    defocus: Tensor
    spherical_aberration: float = 0.0
    astigmatism: tuple[float, float] = (0.0, 0.0)
    coma: tuple[float, float] = (0.0, 0.0)
    threefold: tuple[float, float] = (0.0, 0.0)
    focal_spread: float = 0.0
    blur: float = 0.0
    shift: Tensor | None = None

    def transfer(self, shape: tuple[int, int], device: str | torch.device = "cpu") -> Tensor:
        """Return the transfer functions, shape (image, y, x), complex64, FFT order; without the blur."""
        named = {
            f"{aberration}{part}": value
            for name, aberration in _PAIRS.items()
            for part, value in zip("ab", getattr(self, name), strict=True)
        }
        lens = Aberrations.from_cartesian(
            C10=-self.defocus.to(device, torch.float64), C30=self.spherical_aberration, **named
        )
        made = transfer_function(
            shape, self.sampling, energy=self.energy, aberrations=lens, focal_spread=self.focal_spread,
            device=device,
        )  # fmt: skip
        if self.shift is None:
            return made
        ky, kx = frequency_grid(shape, self.sampling, device)
        y, x = self.shift.to(device, torch.float64).T[:, :, None, None]
        turn = torch.remainder(ky * y + kx * x, 1.0) * (-2 * math.pi)
        return made * torch.polar(torch.ones_like(turn), turn).to(made.dtype)


class FreeLens:
    """Images of a wave through a lens of which some parameters are unknowns of a fit.

    Parameters
    ----------
    lens : Lens
        Where the fit starts.
    free : sequence of str
        Of :data:`FREE`. A free defocus or shift is relative to the first image.
    shape : (int, int)
        Pixels (y, x) of the wave.
    device : torch.device or str
    limit : float
        Largest frequency of the images, cycles per pixel (see :func:`restored`).

    Attributes
    ----------
    unknowns : dict of str to Tensor
        Zero at the start, scaled so that 1 makes a phase of about 1 rad at 1 Å, or a factor of e.
    phases : dict of str to Tensor
        Phase of each aberration for a coefficient of 1 Å, FFT order.
    share : float
        Of the frequencies that are below the limit, and so of the noise.
    """

    def __init__(
        self, lens: Lens, free: Sequence[str], shape: tuple[int, int], device: torch.device | str = "cpu",
        limit: float = math.inf,
    ) -> None:  # fmt: skip
        for name in free:
            if name not in FREE:
                raise InputError(f"cannot retrieve {name!r}: use {', '.join(FREE)}")
        if "focal_spread" in free and not lens.focal_spread > 0:
            raise InputError("focal_spread=0 cannot be fitted: start from a positive value, for example 10")
        if "blur" in free:
            lens = replace(lens, blur=max(lens.blur, _LEAST_BLUR))
        self.lens, self.free, self.shape = lens, tuple(free), shape
        # A free envelope is not part of it: to take one off again divides zero by zero.
        self._fixed = (replace(lens, focal_spread=0.0) if "focal_spread" in free else lens).transfer(
            shape, device
        )
        ky, kx = (each.expand(shape) for each in frequency_grid(shape, lens.sampling, device))
        self.squared = (ky**2 + kx**2).float()
        self._band = (self.squared <= (limit / lens.sampling) ** 2).float() if math.isfinite(limit) else None
        self.share = 1.0 if self._band is None else float(self._band.mean())
        length = float(wavelength(lens.energy))
        ay, ax = length * ky, length * kx
        turn, round_ = 2 * math.pi / length, ay**2 + ax**2
        phases = {
            "defocus": -0.5 * turn * round_,
            "astigmatism": torch.stack([0.5 * turn * (ax**2 - ay**2), turn * ax * ay]),
            "coma": turn / 3 * torch.stack([round_ * ax, round_ * ay]),
            "threefold": turn / 3 * torch.stack([ax**3 - 3 * ax * ay**2, 3 * ax**2 * ay - ay**3]),
            "spherical_aberration": 0.25 * turn * round_**2,
            "shift": 2 * math.pi * torch.stack([ky, kx]),
        }
        self.phases = {name: each.float() for name, each in phases.items()}
        angle = length * _RESOLUTION
        self._scales = {
            "defocus": 2 / (turn * angle**2), "astigmatism": 2 / (turn * angle**2),
            "coma": 3 / (turn * angle**3), "threefold": 3 / (turn * angle**3),
            "spherical_aberration": 4 / (turn * angle**4), "shift": 1 / (2 * math.pi * _RESOLUTION),
        }  # fmt: skip
        others = len(lens.defocus) - 1
        sizes = {"defocus": (others,), "shift": (others, 2)} | dict.fromkeys(_PAIRS, (2,))
        self.unknowns = {
            name: torch.zeros(sizes.get(name, ()), device=device, requires_grad=True) for name in self.free
        }

    def change(self, name: str) -> Tensor:
        """Return by how much a free parameter has changed; of a width, the factor."""
        each = self.unknowns[name]
        if name in ("focal_spread", "blur"):
            return each.clamp(-_FARTHEST, _FARTHEST).exp()
        if name in ("defocus", "shift"):  # of the first image none: its place is that of the wave
            each = torch.cat([each.new_zeros(1, *each.shape[1:]), each])
        return self._scales[name] * each

    def images(self, wave: Tensor) -> Tensor:
        """Return the images of a wave, shape (image, y, x)."""
        spectrum = torch.fft.fft2(wave)
        common = [
            torch.tensordot(self.change(name), self.phases[name], dims=self.phases[name].ndim - 2)
            for name in (*_PAIRS, "spherical_aberration")
            if name in self.free
        ]
        if common:
            phase = torch.stack(common).sum(0)
            spectrum = spectrum * torch.polar(torch.ones_like(phase), -phase)
        passed = torch.fft.ifft2(spectrum * self.transfer())
        made: Tensor = passed.real.square() + passed.imag.square()
        blur = self._blur()
        if blur is None and self._band is None:
            return made
        half = self.shape[1] // 2 + 1
        damped: Tensor = torch.fft.irfft2(torch.fft.rfft2(made) * self.damping(blur)[:, :half], s=self.shape)
        return damped

    def transfer(self) -> Tensor:
        """Return the transfer functions, without aberrations that all images share and are free."""
        transfer = self._fixed
        if "focal_spread" in self.free:
            spread = self.lens.focal_spread * self.change("focal_spread")
            transfer = transfer * torch.exp(-0.5 * (spread * self.phases["defocus"]).square())
        each = []
        if "defocus" in self.free:
            each.append(self.change("defocus")[:, None, None] * self.phases["defocus"])
        if "shift" in self.free:
            each.append(torch.einsum("ia,ayx->iyx", self.change("shift"), self.phases["shift"]))
        if each:
            phase = torch.stack(each).sum(0)
            transfer = transfer * torch.polar(torch.ones_like(phase), -phase)
        return transfer

    def _blur(self) -> Tensor | float | None:
        if "blur" in self.free:
            return self.lens.blur * self.change("blur")
        return self.lens.blur or None

    def damping(self, blur: Tensor | float | None = None) -> Tensor:
        """Return what a blur, that of the lens by default, leaves of each frequency, shape (y, x)."""
        width = torch.as_tensor(self.lens.blur if blur is None else blur, device=self.squared.device)
        left = torch.exp(-2 * math.pi**2 * width.square() * self.squared)
        return left if self._band is None else left * self._band

    def retrieved(self) -> Lens:
        """Return the lens with what was free."""
        changes: dict[str, object] = {}
        for name in self.free:
            change = self.change(name).detach().cpu().double()
            before = getattr(self.lens, name)
            if name in ("focal_spread", "blur"):
                changes[name] = before * float(change)
            elif name in _PAIRS:
                changes[name] = tuple(b + float(c) for b, c in zip(before, change, strict=True))
            elif name == "spherical_aberration":
                changes[name] = before + float(change)
            else:
                changes[name] = change if before is None else before.cpu() + change
        return replace(self.lens, **changes)  # type: ignore[arg-type]


def restored(measured: Tensor, response: Tensor) -> tuple[Tensor, float]:
    """Undo what a detector does to images, as far as it leaves anything of them.

    A detector that passes less of high frequencies passes as much less of the noise of the electrons, so
    that this makes the noise white.

    Parameters
    ----------
    measured : Tensor, shape (image, y, x)
    response : Tensor, shape (y, x)
        Its MTF, FFT order (:func:`exitwave.optics.mtf`).

    Returns
    -------
    images : Tensor, shape (image, y, x)
    limit : float
        Their largest frequency, cycles per pixel: less than a twentieth is passed of the next ones.

    Raises
    ------
    InputError
        For shapes that do not match.
    """
    if response.shape != measured.shape[-2:]:
        raise InputError(
            f"an MTF of shape {tuple(response.shape)} for images of shape {tuple(measured.shape)}: make it "
            "for these pixels, exitwave.optics.mtf"
        )
    q = torch.hypot(*frequency_grid((measured.shape[-2], measured.shape[-1]), 1.0, measured.device))
    lost = q[response <= _LEAST_RESPONSE]
    limit = float(lost.min()) - 1e-9 if len(lost) else math.inf
    inverse = torch.where(q <= limit, 1 / response.clamp_min(_LEAST_RESPONSE), 0.0)
    return torch.fft.ifft2(torch.fft.fft2(measured) * inverse).real.to(measured.dtype), limit


def noise_below(images: Tensor, limit: float = math.inf) -> Tensor:
    """Return the standard deviation of white noise of which images have what is below a limit.

    :func:`exitwave.retrieve.quasi_newton.estimate_noise` looks at the highest frequencies, which
    :func:`restored` images may lack.

    Parameters
    ----------
    images : Tensor, shape (image, y, x)
        Over vacuum.
    limit : float
        Cycles per pixel.

    Returns
    -------
    Tensor, shape (image,)
        At least a thousandth.
    """
    found = estimate_noise(images)
    if math.isfinite(limit):
        qy, qx = frequency_grid((images.shape[-2], images.shape[-1]), 1.0, images.device)
        filtered = (2 - 2 * torch.cos(2 * math.pi * qy)) * (2 - 2 * torch.cos(2 * math.pi * qx))
        left = (filtered.square() * (torch.hypot(qy, qx) <= limit)).mean() / _WHITE
        found = found / left.sqrt().to(found)
    return found.clamp_min(_LEAST_NOISE)
