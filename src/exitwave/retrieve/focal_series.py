r"""Exit waves from focal series by maximum likelihood, with atoms as the prior.

Aberrations that are common to all images cannot be found from the images: with :math:`\hat\psi e^{i\chi}`
for the spectrum of the wave and :math:`T_n e^{-i\chi}` for the transfer functions the images are the same,
whatever :math:`\chi` is. What fixes this gauge is what is known of the wave. Here it is that of a thin
specimen,

.. math:: \psi = P_b\, e^{i\sigma V_L} P_s \cdots P_s\, e^{i\sigma V_1}\, 1, \qquad V_l = K * w_l, \quad
    w_l \ge 0,

a few planes a distance s apart, whose potentials are sums of atoms of one shape K, and atoms are sparse:
:math:`\sum w` has a weight, and then, so that large w are not made too small,
:math:`\sum w_0 \ln(1 + w/w_0)`. Vacuum is then 1, the potential is real and positive, and what is not seen is
not there. A lens whose common aberrations are wrong makes rings around atoms, which no such potential has;
so the aberrations can be free, and defoci, shifts, focal spread and blur as well. Long waves, which images
at small defocus hardly show, follow from the shape of the atoms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from exitwave.errors import InputError
from exitwave.optics import interaction_constant
from exitwave.retrieve.lens import FreeLens, Lens, noise_below, restored
from exitwave.retrieve.quasi_newton import deviance
from exitwave.simulate.exit_waves import Multislice, projected_potential

Observe = Callable[[int, float], None]

# Of the gradient that noise alone gives a missing atom (see _Atoms.threshold).
WEIGHT = 2.0
# Atoms of every plane at the start, 1/Å².
_DENSITY = 0.25
# w_0: what is below counts as nothing that has to be there.
_FAINT = 0.01
# Largest change of the logarithm of a distance from its start.
_FARTHEST = 3.0


@dataclass(frozen=True)
class Fit:
    """A retrieved wave and what was retrieved with it.

    Attributes
    ----------
    wave : Tensor, shape (y, x), complex64
        In the plane to which the defoci refer.
    lens : Lens
        With what was free.
    modelled : Tensor, shape (image, y, x)
        Images of the wave; of the detector only its limit.
    deviance : Tensor, shape (image,)
        Mean of each image, about 1 for the right model and noise.
    evaluations : int
    atoms : Tensor, shape (plane, y, x), optional
        w, in atoms of the shape for each pixel; first the plane that the beam meets first.
    spacing, beyond : float, optional
        From plane to plane and from the last one to the wave, Å.
    """

    wave: Tensor
    lens: Lens
    modelled: Tensor
    deviance: Tensor
    evaluations: int
    atoms: Tensor | None = None
    spacing: float | None = None
    beyond: float | None = None


def retrieve_wave(
    measured: Tensor,
    lens: Lens,
    *,
    dose: float | None = None,
    response: Tensor | None = None,
    free: Sequence[str] = ("astigmatism", "coma"),
    planes: int = 3,
    spacing: float = 2.5,
    beyond: float = 3.0,
    element: int = 16,
    displacement: float = 0.003,
    weight: float = WEIGHT,
    margin: int = 0,
    evaluations: int = 200,
    observe: Observe | None = None,
) -> Fit:
    """Retrieve the exit wave of a thin specimen, and what is free of the lens, from one image or several.

    Parameters
    ----------
    measured : Tensor, shape (image, y, x)
        Intensities over that of vacuum.
    lens : Lens
        One defocus for each image.
    dose : float, optional
        Electrons per pixel and image; by default from the noise of the images
        (:func:`exitwave.retrieve.lens.noise_below`).
    response : Tensor, shape (y, x), optional
        MTF of the detector, FFT order; 1 by default.
    free : sequence of str
        Of ``exitwave.retrieve.lens.FREE``. A free defocus or shift is relative to the first image.
    planes : int
    spacing, beyond : float
        Å, from where they are fitted.
    element : int
        Atomic number of the atom whose shape K is. Heavier atoms count as more.
    displacement : float
        Mean square displacement of the atoms, Å², which smears K.
    weight : float
        Of the prior, in units of what noise alone would make of an empty place.
    margin : int
        Pixels around the images for what lies beside the field; 0 takes the field as periodic.
    evaluations : int
    observe : callable, optional
        Called with (evaluations, value) after each evaluation.

    Returns
    -------
    Fit

    Raises
    ------
    InputError
        For shapes that do not match, values that are not finite, blank images, an unknown free
        parameter, or a number that is out of range.
    """
    _check_numbers(planes=planes, spacing=spacing, beyond=beyond, weight=weight)
    data = _Data(measured, lens, free, dose, response, margin)
    atoms = _Atoms(data, planes, spacing, beyond, element, displacement)
    atoms.weight = weight * atoms.threshold()
    count = _minimise(data, atoms, -(-evaluations // 2), observe)
    atoms.concave = True
    count = _minimise(data, atoms, max(1, evaluations // 2), observe, count)
    with torch.no_grad():
        found = _result(data, atoms, count)
        return replace(
            found, atoms=data.inside(atoms.counts()), spacing=float(atoms.distance("spacing")),
            beyond=float(atoms.distance("beyond")),
        )  # fmt: skip


def refine_wave(
    measured: Tensor,
    lens: Lens,
    start: Tensor,
    *,
    doubt: float = 0.3,
    dose: float | None = None,
    response: Tensor | None = None,
    free: Sequence[str] = ("astigmatism", "coma"),
    evaluations: int = 60,
    observe: Observe | None = None,
) -> Fit:
    """Change a wave that is nearly right until it explains the images.

    What is minimised is the deviance and the square of the change over that expected: for each frequency
    `doubt` times the signal that waves of `start` of such a frequency have on average.

    Parameters
    ----------
    measured : Tensor, shape (image, y, x)
        Intensities over that of vacuum; the field is taken as periodic.
    lens : Lens
        One defocus for each image.
    start : Tensor, shape (y, x), complex
        For example what a network makes of the images.
    doubt : float
        Expected relative error of `start`.
    dose, response, free, evaluations, observe
        See :func:`retrieve_wave`.

    Returns
    -------
    Fit

    Raises
    ------
    InputError
        As there, and for a wave of another shape.
    """
    _check_numbers(doubt=doubt)
    data = _Data(measured, lens, free, dose, response, 0)
    if start.shape != measured.shape[-2:] or not bool(torch.isfinite(start.abs()).all()):
        raise InputError(
            f"a wave of shape {tuple(start.shape)} to start from: give a finite one of "
            f"{tuple(measured.shape[-2:])}"
        )
    around = _Around(start.to(data.measured.device, torch.complex64), doubt, data)
    count = _minimise(data, around, evaluations, observe)
    with torch.no_grad():
        return _result(data, around, count)


class _Unknown(Protocol):
    """What is looked for: a wave made of unknowns, and what speaks against it before any image does."""

    unknowns: dict[str, Tensor]

    def wave(self) -> Tensor:
        """Return the wave."""

    def prior(self) -> Tensor:
        """Return the penalty."""


class _Data:
    """Images and the lens that took them."""

    def __init__(
        self, measured: Tensor, lens: Lens, free: Sequence[str], dose: float | None,
        response: Tensor | None, margin: int,
    ) -> None:  # fmt: skip
        _check_images(measured, lens)
        _check_numbers(dose=dose)
        if margin < 0:
            raise InputError(f"a margin of {margin} pixels: use 0 or more")
        limit = math.inf
        self.likelihood = "poisson"
        if response is not None:
            # Of restored images some pixels are negative, and none are counts.
            measured, limit = restored(measured, response.to(measured))
            self.likelihood = "gaussian"
        self.measured, self.margin = measured.float(), margin
        white = (
            noise_below(self.measured, limit) if dose is None else torch.full((len(measured),), dose**-0.5)
        )
        self.sigma = white.to(self.measured)[:, None, None]
        self.shape = (measured.shape[-2] + 2 * margin, measured.shape[-1] + 2 * margin)
        self.lens = FreeLens(lens, free, self.shape, measured.device, limit)

    def inside(self, values: Tensor) -> Tensor:
        """Return what is inside the field."""
        height, width = self.measured.shape[-2:]
        return values[..., self.margin : self.margin + height, self.margin : self.margin + width]

    def deviance(self, modelled: Tensor) -> Tensor:
        """Return the deviance of each pixel."""
        return deviance(modelled, self.measured, self.sigma, self.likelihood)


class _Atoms:
    """Planes of atoms of one shape, as many of them at each pixel as it takes."""

    def __init__(
        self, data: _Data, planes: int, spacing: float, beyond: float, element: int, displacement: float
    ) -> None:
        lens, self.lens, self.sigma = data.lens.lens, data.lens, data.sigma
        device = data.measured.device
        how = Multislice(lens.energy, lens.sampling, data.shape, displacement=displacement)
        shape = projected_potential(np.array([element]), torch.zeros(1, 2, dtype=torch.float64), how)
        phase = shape.to(device) * float(interaction_constant(lens.energy))
        self.shape = torch.fft.rfft2(phase).real.float()
        self.starts = {"spacing": spacing, "beyond": beyond}
        begin = math.sqrt(_DENSITY) * lens.sampling
        # Squared they are what there is of atoms, so that the sum of squares is a penalty on their number.
        self.unknowns = {"atoms": torch.full((planes, *data.shape), begin, device=device)}
        self.unknowns |= {name: torch.zeros((), device=device) for name in self.starts if planes > 1 or
                          name == "beyond"}  # fmt: skip
        for each in self.unknowns.values():
            each.requires_grad_(True)
        self.weight = 0.0
        self.concave = False

    def threshold(self) -> float:
        """Return the standard deviation of the gradient that noise gives an atom where there is none.

        An atom changes image n by 2 Re(iσK * T_n), whose power is 2 |σK T_n|² where the phase of T_n is
        anything.
        """
        half = self.shape.shape[-1]
        passed = self.lens.transfer().detach().abs() * self.lens.damping()
        power = 2 * (passed[..., :half] * self.shape).square().sum((-2, -1))
        # Half a spectrum counts twice.
        changes = 2 * power / math.prod(self.lens.shape)
        return float((changes / self.sigma[:, 0, 0].square()).sum().sqrt())

    def distance(self, name: str) -> Tensor:
        """Return a distance, Å."""
        each = self.unknowns.get(name, torch.zeros(()))
        made: Tensor = self.starts[name] * each.clamp(-_FARTHEST, _FARTHEST).exp()
        return made

    def counts(self) -> Tensor:
        """Return the atoms of each pixel, shape (plane, y, x)."""
        return self.unknowns["atoms"].square()

    def wave(self) -> Tensor:
        """Return the wave on the whole grid."""
        size = self.lens.shape
        phases = torch.fft.irfft2(self.shape * torch.fft.rfft2(self.counts()), s=size)
        passed = torch.polar(torch.ones_like(phases), phases)
        wave = passed[0]
        for each in passed[1:]:
            wave = self._spread(wave, self.distance("spacing")) * each
        made: Tensor = self._spread(wave, self.distance("beyond"))
        return made

    def _spread(self, wave: Tensor, distance: Tensor) -> Tensor:
        # Free space does to a wave what underfocus does.
        phase = distance * self.lens.phases["defocus"]
        made: Tensor = torch.fft.ifft2(torch.fft.fft2(wave) * torch.polar(torch.ones_like(phase), phase))
        return made

    def prior(self) -> Tensor:
        """Return the penalty on atoms."""
        counts = self.counts()
        if self.concave:
            counts = _FAINT * torch.log1p(counts / _FAINT)
        return self.weight * counts.sum(dtype=torch.float64)


class _Around:
    """A wave near a given one."""

    def __init__(self, start: Tensor, doubt: float, data: _Data) -> None:
        self.start = start
        power = torch.fft.fft2(start - 1).abs().square()
        smooth = _radial(power, data.lens.squared.sqrt())
        self.expected = doubt * smooth.sqrt()
        self.unknowns = {"change": torch.zeros(2, *start.shape, device=start.device, requires_grad=True)}

    def wave(self) -> Tensor:
        """Return the wave."""
        change = torch.complex(*self.unknowns["change"]) * (self.expected * math.sqrt(0.5))
        made: Tensor = self.start + torch.fft.ifft2(change)
        return made

    def prior(self) -> Tensor:
        """Return the penalty on the change."""
        return 0.5 * self.unknowns["change"].square().sum(dtype=torch.float64)


def _radial(power: Tensor, k: Tensor) -> Tensor:
    """Return a spectrum averaged over rings one pixel wide."""
    ring = (k / k[0, 1]).round().long()
    total = torch.zeros(int(ring.max()) + 1, device=power.device)
    count = total.index_add(0, ring.flatten(), torch.ones_like(power).flatten())
    mean = total.index_add(0, ring.flatten(), power.flatten()) / count.clamp_min(1)
    made: Tensor = mean[ring]
    return made


def _minimise(
    data: _Data, unknown: _Unknown, evaluations: int, observe: Observe | None, count: int = 0
) -> int:
    """Take quasi-Newton steps, and return how often the images have been computed."""
    if evaluations < 1:
        raise InputError(f"{evaluations} evaluations: use 1 or more")
    free = [*unknown.unknowns.values(), *data.lens.unknowns.values()]
    optimiser = torch.optim.LBFGS(
        free, max_iter=evaluations, max_eval=evaluations, history_size=12, line_search_fn="strong_wolfe",
        tolerance_grad=0.0, tolerance_change=1e-9,
    )  # fmt: skip

    def closure() -> Tensor:
        nonlocal count
        optimiser.zero_grad()
        modelled = data.inside(data.lens.images(unknown.wave()))
        value = 0.5 * data.deviance(modelled).sum(dtype=torch.float64) + unknown.prior()
        value.backward()  # type: ignore[no-untyped-call]
        count += 1
        if observe is not None:
            observe(count, float(value.detach()))
        return value

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return count


def _result(data: _Data, unknown: _Unknown, evaluations: int) -> Fit:
    wave = unknown.wave()
    modelled = data.inside(data.lens.images(wave))
    each = data.deviance(modelled).mean((-2, -1)) / data.lens.share
    if not bool(each.isfinite().all()):
        raise InputError("the model of the images is not finite: check defocus, energy and pixel size")
    return Fit(data.inside(wave), data.lens.retrieved(), modelled, each, evaluations)


def _check_images(measured: Tensor, lens: Lens) -> None:
    if measured.ndim != 3 or len(measured) != len(lens.defocus):
        raise InputError(
            f"images of shape {tuple(measured.shape)} and {len(lens.defocus)} defoci: give (image, y, x) and "
            "one defocus for each"
        )
    if not bool(measured.isfinite().all()):
        raise InputError("the images hold values that are not finite: mask or replace them first")
    for i, image in enumerate(measured):
        if is_blank(image):
            raise InputError(f"image {i + 1} is blank: leave it out")


def is_blank(image: Tensor) -> bool:
    """Tell whether an image holds nothing: no electrons, or one value everywhere."""
    return not float(image.mean()) > 0 or float(image.std()) == 0


def _check_numbers(**numbers: float | None) -> None:
    for name, value in numbers.items():
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"{name}={value}: use a positive number")
