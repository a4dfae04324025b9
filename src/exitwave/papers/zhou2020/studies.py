"""What is computed for Zhou et al. 2020: specimen, images, and both ways back to the phase."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from skimage.restoration import denoise_tv_chambolle

from exitwave import metrics, optics, records
from exitwave.papers.zhou2020.parameters import Parameters
from exitwave.readers import read_ovf
from exitwave.retrieve import gradient, tie
from exitwave.simulate import imaging, lorentz
from exitwave.specimens import magnets

# The profile across an edge that the Gaussian is fitted to reaches this far, in fields of view: it ends
# before the next bar begins. A coarse field needs some pixels all the same.
EDGE_WINDOW = 0.02
EDGE_PIXELS = 4
EDGE_BARS = 2


@dataclass(frozen=True)
class Scene:
    """One specimen with its images: what a retrieval is given, and the truth it is judged by."""

    film: magnets.Film
    truth: torch.Tensor
    transfer: torch.Tensor
    defocused: torch.Tensor
    in_focus: torch.Tensor
    parameters: Parameters

    @property
    def sampling(self) -> tuple[float, float]:
        """Pixel size (y, x), Å."""
        return self.film.sampling


def specimen(parameters: Parameters) -> magnets.Film:
    """Return ten bars of Permalloy drawn from the seed, or the film of an OVF file."""
    if parameters.magnetisation is not None:
        record = read_ovf(parameters.magnetisation, saturation=parameters.saturation)
        return magnets.film_of_magnetisation(record["magnetisation"].values, tuple(record.attrs["cell"]))
    side = parameters.pixels * parameters.sampling
    bars = magnets.ten_bars(side, np.random.default_rng(parameters.seed))
    shape, sampling = (parameters.pixels,) * 2, (parameters.sampling,) * 2
    return magnets.film_of_bars(
        bars, shape, sampling, thickness=parameters.thickness, saturation=parameters.saturation
    )


def transfer_functions(
    parameters: Parameters, shape: tuple[int, int], sampling: tuple[float, float], defocus: tuple[float, ...]
) -> torch.Tensor:
    """Return one transfer function for each defocus, shape (defocus, y, x), complex64."""
    aberrations = optics.Aberrations(
        C10=-torch.tensor(defocus, dtype=torch.float64), C30=parameters.spherical_aberration
    )
    return optics.transfer_function(
        shape,
        sampling,
        energy=parameters.energy,
        aberrations=aberrations,
        focal_spread=parameters.focal_spread,
        angular_spread=optics.convert_width(parameters.convergence, "1/e", "std"),
        coupled=True,
    )


def simulate(parameters: Parameters, device: str = "cpu") -> Scene:
    """Simulate the specimen and its images: in focus and at every defocus, with Gaussian noise."""
    film = specimen(parameters)
    shape = (film.coverage.shape[0], film.coverage.shape[1])
    wave = lorentz.exit_wave(
        film,
        energy=parameters.energy,
        inner_potential=parameters.inner_potential,
        absorption_length=parameters.absorption_length,
    )
    transfer = transfer_functions(parameters, shape, film.sampling, (0.0, *parameters.defocus))
    clean = imaging.images(wave.to(torch.complex64), transfer)
    # Noise has a generator of its own, so that it does not change with the draws of the specimen.
    generator = torch.Generator().manual_seed(parameters.seed)
    noisy = imaging.add_gaussian_noise(clean, parameters.noise, generator).to(device)
    # The angle of the wave is wrapped; the phases it is made of are not.
    truth = lorentz.magnetic_phase(film) + lorentz.electrostatic_phase(
        film, energy=parameters.energy, inner_potential=parameters.inner_potential
    )
    return Scene(film, truth, transfer[1:].to(device), noisy[1:], noisy[0], parameters)


def denoised_in_focus(scene: Scene) -> torch.Tensor:
    """Return the in-focus image after TV denoising at the level of its noise, at least 1e-3."""
    image = scene.in_focus.cpu().numpy()
    if scene.parameters.noise > 0:
        image = denoise_tv_chambolle(image, weight=scene.parameters.noise)  # type: ignore[no-untyped-call]
    return torch.as_tensor(image).clamp_min(1e-3).to(scene.in_focus)


def retrieve_tie(scene: Scene) -> torch.Tensor:
    """Return the TIE phase of a scene, rad, shape (y, x), plain (no regularisation)."""
    defocus = torch.tensor(scene.parameters.defocus, device=scene.defocused.device)
    derivative = tie.defocus_derivative(scene.defocused, defocus, scene.in_focus)
    return tie.solve(
        derivative, denoised_in_focus(scene), energy=scene.parameters.energy, sampling=scene.sampling
    )


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
        observe=observe,
    )


def slope(phase: torch.Tensor, sampling: tuple[float, float]) -> torch.Tensor:
    """Return |grad phase| in rad/Å, shape (y, x), float64."""
    slope_y, slope_x = torch.gradient(phase.double().cpu(), spacing=sampling)
    return torch.hypot(slope_y, slope_x)


def edge_profile(
    phase: torch.Tensor, bar: magnets.Bar, side: int, sampling: tuple[float, float]
) -> np.ndarray:
    """Return |grad phase| in rad/Å across a long edge, averaged over the middle half of its length.

    Parameters
    ----------
    phase : Tensor, shape (y, x)
    bar : Bar
    side : {-1, 1}
        Which of the two long edges.
    sampling : (float, float)
        Pixel size (y, x), Å.
    """
    dy, dx = sampling
    magnitude = slope(phase, sampling)
    across, along = bar.centre_x, bar.centre_y
    if not bar.vertical:
        magnitude, (dy, dx), across, along = magnitude.T, (dx, dy), bar.centre_y, bar.centre_x
    window = max(EDGE_WINDOW * magnitude.shape[1], EDGE_PIXELS) * dx
    edge = across + side * bar.width / 2
    first, last = round((along - bar.length / 4) / dy), round((along + bar.length / 4) / dy)
    start, stop = max(round((edge - window) / dx), 0), round((edge + window) / dx)
    return magnitude[first : last + 1, start : stop + 1].mean(0).numpy()


def edge_resolution(phase: torch.Tensor, scene: Scene) -> float:
    """Return the median FWHM in Å of the edges of the widest bars (Zhou 2020, Methods B).

    An edge too blurred to be fitted counts as wide as the window it was looked for in, so the
    result is then a lower bound. NaN for a specimen without bars.
    """
    widest = sorted(scene.film.bars, key=lambda bar: -bar.width)[: 2 * EDGE_BARS]
    widths = []
    for bar in widest:
        step = scene.sampling[1] if bar.vertical else scene.sampling[0]
        for side in (-1, 1):
            profile = edge_profile(phase, bar, side, scene.sampling)
            span = (len(profile) - 1) * step
            width = metrics.edge_fwhm(profile, step)
            widths.append(min(width, span) if np.isfinite(width) else span)
    return float(np.median(widths)) if widths else float("nan")


def evaluate(phase: torch.Tensor, scene: Scene) -> dict[str, float]:
    """Judge a retrieved phase by the truth.

    Returns
    -------
    dict
        ``accuracy`` (Eq. 2 as printed), ``correlation`` (mean removed), ``gradient_error`` (relative
        rms error of the phase gradient) and ``resolution`` (Å).
    """
    found = phase.double().cpu()
    return {
        "accuracy": float(metrics.absolute_correlation(found, scene.truth)),
        "correlation": float(metrics.correlation(found, scene.truth)),
        "gradient_error": float(metrics.gradient_rmse(found, scene.truth, scene.sampling)),
        "resolution": edge_resolution(found, scene),
    }


QUANTITIES = {
    "accuracy": ("1", "accuracy by Eq. 2 of Zhou 2020"),
    "correlation": ("1", "correlation with the true phase, means removed"),
    "gradient_error": ("1", "relative rms error of the phase gradient"),
    "resolution": ("Å", "FWHM of the phase gradient at edges"),
}


def judged(found: Mapping[str, tuple[Scene, Mapping[str, torch.Tensor]]]) -> xr.Dataset:
    """Return retrieved phases and what they are worth, as the chapter keeps them.

    Parameters
    ----------
    found : mapping
        Name of a scene to the scene and the phases retrieved from it, by title.

    Returns
    -------
    xarray.Dataset
        ``truth`` and one phase (y, x) for each retrieval, float32, and :data:`QUANTITIES` along
        ``retrieval``.
    """
    titles = [f"{name}, {title}" for name, (_, phases) in found.items() for title in phases]
    values = [evaluate(phase, scene) for scene, phases in found.values() for phase in phases.values()]
    stack = [phase.float().cpu().numpy() for _, phases in found.values() for phase in phases.values()]
    scene = next(iter(found.values()))[0]
    record = records.phase(
        scene.truth.float().numpy(), sampling=scene.sampling, energy=scene.parameters.energy
    ).rename(phase="truth")
    record["retrieval"] = xr.Variable("retrieval", titles, {"units": "1", "long_name": "scene and method"})
    record["phase"] = xr.Variable(
        ("retrieval", "y", "x"), np.stack(stack), {"units": "rad", "long_name": "retrieved phase"}
    )
    for name, (units, long_name) in QUANTITIES.items():
        record[name] = xr.Variable(
            "retrieval", [value[name] for value in values], {"units": units, "long_name": long_name}
        )
    return record


def _record(results: dict[str, dict[str, float]], scene: Scene) -> xr.Dataset:
    record = xr.Dataset()
    for method, values in results.items():
        for name, value in values.items():
            units, long_name = QUANTITIES[name]
            attrs = {"units": units, "long_name": f"{method}: {long_name}"}
            record[f"{method}_{name}"] = xr.Variable((), value, attrs)
    constant = float(metrics.absolute_correlation(torch.ones_like(scene.truth), scene.truth))
    record["constant_accuracy"] = xr.Variable(
        (), constant, {"units": "1", "long_name": "accuracy by Eq. 2 of a constant phase"}
    )
    return record


def tie_retrieval(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Simulate one scene and judge TIE on it."""
    scene = simulate(parameters, device)
    return _record({"tie": evaluate(retrieve_tie(scene), scene)}, scene)


def comparison(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Simulate one scene and judge TIE and gradient retrieval on the same images.

    Returns
    -------
    xarray.Dataset
        ``tie_*`` and ``gradient_*`` for each of :data:`QUANTITIES`, ``constant_accuracy``, and the
        course of the gradient retrieval: ``course_correlation`` and ``course_loss`` along ``step``.
    """
    scene = simulate(parameters, device)
    steps = np.unique(np.geomspace(1, parameters.iterations, 40).astype(int))
    course: dict[int, tuple[float, float]] = {}

    def observe(iteration: int, phase: torch.Tensor, loss: float) -> None:
        if iteration in steps:
            course[iteration] = (float(metrics.correlation(phase.double().cpu(), scene.truth)), loss)

    phase, _ = retrieve_gradient(scene, parameters.iterations, observe)
    results = {"tie": evaluate(retrieve_tie(scene), scene), "gradient": evaluate(phase, scene)}
    record = _record(results, scene)
    record["step"] = xr.Variable("step", list(course), {"units": "1", "long_name": "step of Adam"})
    for i, (name, long_name) in enumerate([("correlation", "correlation, means removed"), ("loss", "loss")]):
        values = [pair[i] for pair in course.values()]
        record[f"course_{name}"] = xr.Variable("step", values, {"units": "1", "long_name": long_name})
    return record


STUDIES: dict[str, Callable[..., xr.Dataset]] = {"tie": tie_retrieval, "comparison": comparison}


def example_record(scene: Scene) -> xr.Dataset:
    """Return the images of a scene, in focus first, as a record of layout ``images``."""
    intensity = torch.cat([scene.in_focus[None], scene.defocused]).cpu().numpy()
    defocus = [0.0, *scene.parameters.defocus]
    return records.images(intensity, defocus=defocus, sampling=scene.sampling, energy=scene.parameters.energy)
