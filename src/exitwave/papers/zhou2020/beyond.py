"""Beyond the paper: the microscope retrieved with the phase, and an uncertainty that is checked."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import torch
import xarray as xr

from exitwave.metrics import relative_wave_error
from exitwave.papers.zhou2020.gallery import MILLIRADIAN
from exitwave.papers.zhou2020.judge import evaluate, quantity, table
from exitwave.papers.zhou2020.parameters import Parameters
from exitwave.papers.zhou2020.scene import (
    Scene,
    denoised,
    denoised_in_focus,
    instrument,
    noisy,
    retrieve_better,
    simulate,
    wave_of,
    with_images,
)
from exitwave.retrieve import quasi_newton
from exitwave.retrieve.uncertainty import bootstrap
from exitwave.simulate import imaging
from exitwave.simulate.instrument import Instrument

# How wrong the microscope is believed to be: standard deviations of what is drawn for each image, and
# the factor on the convergence. The shift is what registration by correlation leaves, half a pixel.
DEFOCUS_ERROR = 0.02
SHIFT_ERROR = 25.0  # Å
ASTIGMATISM = (2e4, -1e4)  # Å
CONVERGENCE_FACTOR = 1.5
# The weight that held-out pixels choose for four such images of a known microscope; pixels predicted by
# a wrong microscope would choose another.
RELEASED_WEIGHT = 20.0
RELEASED_EVALUATIONS = 150
PARAMETERS = ("defocus", "shift", "astigmatism", "convergence")

BOOTSTRAP_SAMPLES = 12
LEVELS = (0.6827, 0.95)


def misjudged(parameters: Parameters, device: str = "cpu") -> tuple[Scene, Instrument]:
    """Simulate images of a microscope that is not quite the one that is believed in.

    Returns
    -------
    scene : Scene
        Its ``instrument`` and ``transfer`` are what is believed.
    true : Instrument
        What made the images, the one in focus first.
    """
    scene = simulate(parameters, device)
    shape = (scene.truth.shape[0], scene.truth.shape[1])
    generator = np.random.default_rng([parameters.seed, 1])
    nominal = instrument(parameters, scene.sampling, (0.0, *parameters.defocus))
    defocus = torch.as_tensor(nominal.defocus)
    shift = SHIFT_ERROR * torch.as_tensor(generator.normal(size=(len(defocus), 2)))
    shift[0] = 0.0  # the image in focus says where the wave is
    true = replace(nominal, shift=shift, astigmatism=ASTIGMATISM)
    clean = imaging.images(wave_of(parameters, scene.film), true.transfer(shape))
    images = noisy(parameters, clean, scene.sampling).to(device)
    error = 1 + DEFOCUS_ERROR * torch.as_tensor(generator.normal(size=len(defocus) - 1))
    believed = replace(
        nominal, defocus=defocus[1:] * error, convergence=CONVERGENCE_FACTOR * parameters.convergence
    )
    return with_images(scene, images, believed), true


def release(scene: Scene, free: tuple[str, ...]) -> quasi_newton.Fit:
    """Retrieve the phase of a misjudged scene with what is free, from all images, in focus first."""
    believed = replace(
        scene.instrument,
        defocus=torch.cat([torch.zeros(1, dtype=torch.float64), torch.as_tensor(scene.instrument.defocus)]),
    )
    return quasi_newton.retrieve_phase(
        torch.cat([scene.in_focus[None], scene.defocused]),
        denoised_in_focus(scene).sqrt(),
        believed,
        free=free,
        weight=RELEASED_WEIGHT,
        polish=RELEASED_EVALUATIONS,
    )


def parameter_retrieval(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Retrieve the phase with wrong parameters held, then with them free, then with the amplitude too.

    Returns
    -------
    xarray.Dataset
        ``known_*`` (true parameters), ``held_*`` (wrong ones), ``free_*`` and ``wave_*`` (amplitude free
        too) for each quantity; relative amplitude errors; the errors of the parameters before and after;
        the relative error of the whole wave (Leth Larsen 2022, Eq. A.1, after the global phase).
    """
    begin = time.perf_counter()
    scene, true = misjudged(parameters, device)
    known = simulate(parameters, device)
    results = {"known": evaluate(retrieve_better(known).phase, known)}
    results["held"] = evaluate(retrieve_better(scene).phase, scene)
    fits = {"free": release(scene, PARAMETERS), "wave": release(scene, ("amplitude", *PARAMETERS))}
    record = table(results | {name: evaluate(fit.phase, scene) for name, fit in fits.items()})
    before = torch.as_tensor(scene.instrument.defocus) - torch.as_tensor(true.defocus)[1:]
    record["held_defocus_error"] = quantity(
        _relative(before, true), "1", "relative rms error of the defoci held"
    )
    truth = torch.polar(scene.amplitude.double(), scene.truth)
    given = denoised_in_focus(scene).sqrt().cpu()
    record["given_amplitude_error"] = quantity(
        _amplitude_error(given, scene), "1", "relative rms error of the amplitude given"
    )
    for name, fit in fits.items():
        found = fit.instrument
        after = torch.as_tensor(found.defocus)[1:].cpu() - torch.as_tensor(true.defocus)[1:]
        shift = torch.as_tensor(found.shift).cpu() - torch.as_tensor(true.shift)
        for label, value, units, long_name in (
            ("defocus_error", _relative(after, true), "1", "relative rms error of the defoci"),
            ("shift_error", float(shift[1:].square().mean().sqrt()), "Å", "rms error of the shifts"),
            (
                "convergence_ratio",
                float(found.convergence) / parameters.convergence,
                "1",
                "convergence over true",
            ),
            (
                "amplitude_error",
                _amplitude_error(fit.amplitude.cpu(), scene),
                "1",
                "relative rms amplitude error",
            ),
            ("evaluations", fit.evaluations, "1", "evaluations of model and gradient"),
            (
                "wave_error",
                _wave_error(fit, truth),
                "1",
                "relative error of the wave, Eq. A.1 of Leth Larsen 2022",
            ),
        ):
            record[f"{name}_{label}"] = quantity(value, units, f"{name}: {long_name}")
    record["seconds"] = quantity(time.perf_counter() - begin, "s", "time of all retrievals")
    return record


def _relative(error: torch.Tensor, true: Instrument) -> float:
    return float((error / torch.as_tensor(true.defocus)[1:]).square().mean().sqrt())


def _amplitude_error(amplitude: torch.Tensor, scene: Scene) -> float:
    difference = amplitude - scene.amplitude
    return float(difference.square().mean().sqrt() / scene.amplitude.std())


def _wave_error(fit: quasi_newton.Fit, truth: torch.Tensor) -> float:
    wave = torch.polar(fit.amplitude.double(), fit.phase.double()).cpu()
    return float(relative_wave_error(wave, truth, aligned=True))


def uncertainty(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Map the uncertainty of a phase by the bootstrap and measure how often it covers the truth.

    The wave found is taken as the truth of :data:`BOOTSTRAP_SAMPLES` further simulations with the
    estimated noise; the root mean square of what these retrievals miss is the uncertainty of each pixel.

    Returns
    -------
    xarray.Dataset
        ``deviation`` and ``error`` (y, x), in whole mrad, of the first seed, 0 for others;
        ``phase_coverage`` along ``level``: the share of pixels whose phase lies within the interval of that
        confidence, and ``gradient_coverage`` the same for the gradient.
    """
    scene = simulate(parameters, device)
    fit = retrieve_better(scene)
    sigma = quasi_newton.estimate_noise(scene.defocused)

    def amplitude(generator: torch.Generator) -> torch.Tensor:
        image = fit.amplitude.square()
        noise = scene.noise * torch.randn(image.shape, generator=generator)
        return denoised(image + noise.to(image.device), scene.noise).sqrt()

    again = bootstrap(
        fit, sigma, samples=BOOTSTRAP_SAMPLES, amplitude=amplitude,
        generator=torch.Generator().manual_seed(parameters.seed + 1000),
    ).cpu()  # fmt: skip
    error = fit.phase.cpu() - scene.truth.float()
    missed = again - fit.phase.cpu()
    record = xr.Dataset()
    record["level"] = quantity(list(LEVELS), "1", "nominal confidence", ("level",))
    maps = {"phase": (_centred(error)[None], _centred(missed)), "gradient": (_slopes(error), _slopes(missed))}
    for name, (actual, samples) in maps.items():
        if name == "phase":
            deviation = samples.square().mean(0)[None].sqrt()
        else:
            deviation = samples.square().mean(1).sqrt()
        covered = [float((actual.abs() <= _width(level) * deviation).float().mean()) for level in LEVELS]
        record[f"{name}_coverage"] = quantity(covered, "1", f"share of pixels covered, {name}", ("level",))
        ratio = float((actual.square().mean() / deviation.square().mean()).sqrt())
        record[f"{name}_ratio"] = quantity(ratio, "1", f"rms error over rms uncertainty, {name}")
    deviation = _centred(missed).square().mean(0).sqrt()
    shown = {"deviation": (deviation, "uncertainty"), "error": (_centred(error), "error")}
    for name, (values, text) in shown.items():
        steps = np.round(values.numpy() / MILLIRADIAN).astype(np.int16) * np.int16(parameters.seed == 0)
        record[name] = quantity(steps, "mrad", f"{text} of the phase", ("y", "x"))
    record["coverage_95"] = quantity(record["phase_coverage"].values[1], "1", "share covered at 95%, phase")
    return record.merge(table({"fit": evaluate(fit.phase, scene)}))


def _centred(values: torch.Tensor) -> torch.Tensor:
    return values - values.mean((-2, -1), keepdim=True)


def _slopes(phase: torch.Tensor) -> torch.Tensor:
    """Return the two first differences, shape (2, ..., y, x)."""
    return torch.stack([phase.roll(-1, -2) - phase, phase.roll(-1, -1) - phase])


def _width(level: float) -> float:
    """Return the half width of a normal interval in standard deviations."""
    return float(torch.special.ndtri(torch.tensor(0.5 + level / 2, dtype=torch.float64)))
