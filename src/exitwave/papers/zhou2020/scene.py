"""A film with its images: what a retrieval is given, and the truth it is judged by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import xarray as xr
from skimage.restoration import denoise_tv_chambolle

from exitwave import records
from exitwave.papers.zhou2020 import specimen
from exitwave.papers.zhou2020.parameters import Parameters
from exitwave.retrieve import gradient, quasi_newton, tie
from exitwave.simulate import imaging, lorentz
from exitwave.simulate.instrument import Instrument
from exitwave.specimens import magnets

# Tikhonov parameter of the regularised TIE, 1/Å: waves longer than half a micrometre are damped.
CUTOFF = 2e-4


@dataclass(frozen=True)
class Scene:
    """One specimen with its images.

    Attributes
    ----------
    film : Film
    truth : Tensor, shape (y, x), float64
        Phase of the exit wave, rad, not wrapped.
    amplitude : Tensor, shape (y, x), float32
        True amplitude of the exit wave.
    instrument : Instrument
        Of the defocused images.
    transfer : Tensor, shape (defocus, y, x), complex64
    defocused : Tensor, shape (defocus, y, x), float32
        Intensities over that of the incident wave.
    in_focus : Tensor, shape (y, x), float32
    parameters : Parameters
    """

    film: magnets.Film
    truth: torch.Tensor
    amplitude: torch.Tensor
    instrument: Instrument
    transfer: torch.Tensor
    defocused: torch.Tensor
    in_focus: torch.Tensor
    parameters: Parameters

    @property
    def sampling(self) -> tuple[float, float]:
        """Pixel size (y, x), Å."""
        return self.film.sampling

    @property
    def noise(self) -> float:
        """Standard deviation of the noise at vacuum intensity."""
        if self.parameters.dose is None:
            return self.parameters.noise
        return float((self.parameters.dose * self.sampling[0] * self.sampling[1]) ** -0.5)


def instrument(parameters: Parameters, sampling: tuple[float, float], defocus: Sequence[float]) -> Instrument:
    """Return the microscope of the parameters at given defoci (Å)."""
    return Instrument(
        energy=parameters.energy,
        sampling=sampling,
        defocus=torch.tensor(defocus, dtype=torch.float64),
        spherical_aberration=parameters.spherical_aberration,
        focal_spread=parameters.focal_spread,
        convergence=parameters.convergence,
    )


def wave_of(parameters: Parameters, film: magnets.Film) -> torch.Tensor:
    """Return the exit wave of a film, complex64."""
    wave = lorentz.exit_wave(
        film,
        energy=parameters.energy,
        inner_potential=parameters.inner_potential,
        absorption_length=parameters.absorption_length,
    )
    return wave.to(torch.complex64)


def noisy(parameters: Parameters, clean: torch.Tensor, sampling: tuple[float, float]) -> torch.Tensor:
    """Return images with the noise of the parameters.

    The noise has a generator of its own, so that it does not change with the draws of the specimen.
    """
    generator = torch.Generator().manual_seed(parameters.seed)
    if parameters.dose is not None:
        return imaging.add_poisson_noise(clean, parameters.dose, sampling, generator)
    return imaging.add_gaussian_noise(clean, parameters.noise, generator)


def simulate(parameters: Parameters, device: str = "cpu") -> Scene:
    """Simulate the specimen and its images: in focus and at every defocus."""
    film = specimen.film(parameters)
    shape = (film.coverage.shape[0], film.coverage.shape[1])
    wave = wave_of(parameters, film)
    microscope = instrument(parameters, film.sampling, (0.0, *parameters.defocus))
    transfer = microscope.transfer(shape)
    images = noisy(parameters, imaging.images(wave, transfer), film.sampling).to(device)
    # The angle of the wave is wrapped; the phases it is made of are not.
    truth = lorentz.magnetic_phase(film) + lorentz.electrostatic_phase(
        film, energy=parameters.energy, inner_potential=parameters.inner_potential
    )
    defocused = instrument(parameters, film.sampling, parameters.defocus)
    return Scene(
        film, truth, wave.abs(), defocused, transfer[1:].to(device), images[1:], images[0], parameters
    )


def denoised(image: torch.Tensor, noise: float) -> torch.Tensor:
    """Return an image after TV denoising at the level of its noise, at least 1e-3."""
    values = image.cpu().numpy()
    if noise > 0:
        values = denoise_tv_chambolle(values, weight=noise)  # type: ignore[no-untyped-call]
    return torch.as_tensor(values).clamp_min(1e-3).to(image)


def denoised_in_focus(scene: Scene) -> torch.Tensor:
    """Return the denoised image in focus, as the paper takes the amplitude from it."""
    return denoised(scene.in_focus, scene.noise)


def retrieve_tie(scene: Scene, *, cutoff: float = 0.0, symmetrise: bool = False) -> torch.Tensor:
    """Return the TIE phase of a scene, rad, shape (y, x)."""
    defocus = torch.tensor(scene.parameters.defocus, device=scene.defocused.device)
    derivative = tie.defocus_derivative(scene.defocused, defocus, scene.in_focus)
    return tie.solve(
        derivative, denoised_in_focus(scene), energy=scene.parameters.energy, sampling=scene.sampling,
        cutoff=cutoff, symmetrise=symmetrise,
    )  # fmt: skip


def retrieve_single(scene: Scene) -> torch.Tensor:
    """Return the phase from the last image alone (SITIE), with the regularised TIE."""
    image, defocus = scene.defocused[-1], scene.parameters.defocus[-1]
    even = torch.full_like(image, float(image.mean()))
    return tie.solve(
        tie.single_image_derivative(image, defocus), even, energy=scene.parameters.energy,
        sampling=scene.sampling, cutoff=CUTOFF,
    )  # fmt: skip


def retrieve_gradient(
    scene: Scene,
    iterations: int,
    observe: Callable[[int, torch.Tensor, float], None] | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return phase and losses of gradient retrieval as the paper describes it."""
    return gradient.retrieve_phase(
        scene.defocused,
        denoised_in_focus(scene).sqrt(),
        scene.transfer,
        start=scene.parameters.start_phase,
        iterations=iterations,
        rate=scene.parameters.rate,
        cycle=scene.parameters.cycle,
        observe=observe,
    )


def retrieve_better(scene: Scene, observe: Callable[[int, float], None] | None = None) -> quasi_newton.Fit:
    """Return the wave that the quasi-Newton method finds; it is told neither the noise nor the truth."""
    return quasi_newton.retrieve_phase(
        scene.defocused,
        denoised_in_focus(scene).sqrt(),
        scene.instrument,
        likelihood="gaussian" if scene.parameters.dose is None else "poisson",
        transfer=scene.transfer,
        generator=torch.Generator().manual_seed(scene.parameters.seed),
        observe=observe,
    )


def with_images(scene: Scene, images: torch.Tensor, microscope: Instrument) -> Scene:
    """Return a scene with other images, in focus first, and what is believed of the microscope."""
    shape = (images.shape[1], images.shape[2])
    return replace(
        scene, defocused=images[1:], in_focus=images[0], instrument=microscope,
        transfer=microscope.transfer(shape, images.device),
    )  # fmt: skip


def example_record(scene: Scene) -> xr.Dataset:
    """Return the images of a scene, in focus first, as a record of layout ``images``."""
    intensity = torch.cat([scene.in_focus[None], scene.defocused]).cpu().numpy()
    defocus = [0.0, *scene.parameters.defocus]
    return records.images(intensity, defocus=defocus, sampling=scene.sampling, energy=scene.parameters.energy)
