"""What needs no network: random phases, size of the data, Eqs. 1 and 26, the focal series of Appendix B."""

from __future__ import annotations

import math
import time

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from exitwave import metrics
from exitwave.optics import interaction_constant, propagator, wavelength
from exitwave.papers.ede2020 import data, judge
from exitwave.papers.ede2020.optics import roughness, supports, two_beam_potential
from exitwave.papers.ede2020.parameters import Parameters
from exitwave.papers.quantities import quantity
from exitwave.retrieve.gerchberg_saxton import retrieve_wave
from exitwave.simulate import imaging
from exitwave.simulate.crystal_waves import (
    Beams,
    Exposure,
    frequencies_of,
    potentials,
    shape_of,
    simulate,
)
from exitwave.simulate.exit_waves import BAND
from exitwave.specimens.structures import known_structures
from exitwave.specimens.zones import along

# Pixels of phases that the baselines are taken over, and waves of the data beside them.
_PIXELS, _WAVES = 1000, 32
# Waves by which the cost of the data is measured.
_TIMED = 24


def baseline(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Measure what random guesses err (Eq. 25): components from U(-1, 1), and uniform phases.

    Returns
    -------
    xarray.Dataset
        Against uniform phases: ``error`` and ``deviation`` (of a pixel) of components from U(-1, 1);
        ``phases_error`` of uniform phases, ``constant_error`` of 0. Against phases of the data:
        ``data_error``, ``data_phases_error``, ``data_constant_error`` (the best constant), and their cyclic
        errors ``cyclic`` (random phases) and ``data_cyclic`` (a constant phase), rad.
    """
    generator = torch.Generator().manual_seed(parameters.seed)
    uniform = 2 * math.pi * torch.rand(1, _PIXELS, _PIXELS, generator=generator, dtype=torch.float64)
    crystals, _ = data.partition(data.library(parameters))
    recipes = [
        data.draw(parameters, len(crystals), "train", parameters.seed * _WAVES + i) for i in range(_WAVES)
    ]
    real = data.waves_of(parameters, crystals, recipes, device).angle().double()
    values: dict[str, tuple[float, str, str]] = {}
    for prefix, truth in (("", uniform), ("data_", real)):
        made = judge.random_components(truth, generator)
        phases = judge.random_phases(truth, generator)
        apart = (made - judge.components(truth)).abs()
        constant = judge.components(truth).transpose(0, 1).flatten(1).median(1).values
        still = constant[None, :, None, None].expand(len(truth), 2, *truth.shape[1:])
        named = {
            "error": (apart.mean(), "1", "mean absolute error of random components"),
            "deviation": (apart.std(), "1", "standard deviation of a pixel's error"),
            "phases_error": (
                judge.component_error(phases, truth).mean(),
                "1",
                "that of uniform random phases",
            ),
            "constant_error": (judge.component_error(still, truth).mean(), "1", "that of the best constant"),
            "cyclic": (judge.cyclic_error(phases, truth).mean(), "rad", "cyclic error of random phases"),
            "constant_cyclic": (judge.cyclic_error(still, truth).mean(), "rad", "that of one constant phase"),
        }
        values |= {prefix + name: (float(v), units, text) for name, (v, units, text) in named.items()}
    return xr.Dataset({name: quantity(v, units, text) for name, (v, units, text) in values.items()})


def dataset(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Count the data sets (Table 1), and measure what their waves cost and are like.

    Returns
    -------
    xarray.Dataset
        ``waves`` of the five data sets, ``crystals``, ``families``, ``unseen_crystals``,
        ``unseen_families``; ``seconds_a_wave``; ``lost`` (share of the electrons beyond the band limit,
        mean), ``slope`` (of slices, rad, the largest), ``unlike`` (relative difference of waves of n = 1
        and 3).
    """
    crystals = data.library(parameters)
    seen, unseen = data.partition(crystals)
    first = parameters.seed * _TIMED
    recipes = [data.draw(parameters, len(seen), "train", first + i) for i in range(_TIMED)]
    begin = time.perf_counter()
    beams = data.beams_of(parameters, seen, recipes, device)
    seconds = (time.perf_counter() - begin) / _TIMED
    other = data.beams_of(parameters.changed(n_terms=1), seen, recipes, device)
    power = np.array([float(each.amplitudes.abs().square().sum()) for each in beams])
    pairs = zip(beams, other, strict=True)
    unlike = [float((a.amplitudes - b.amplitudes).norm() / a.amplitudes.norm()) for a, b in pairs]
    slopes = [along(seen[each.crystal], each.zone).slope for each in recipes]
    values = {
        "waves": (5 * (parameters.waves + 2 * parameters.unseen), "1", "waves of five data sets"),
        "crystals": (len(crystals), "1", "crystals"),
        "unseen_crystals": (len(unseen), "1", "crystals that are not learned from"),
        "families": (len({c.prototype for c in crystals}), "1", "structure types"),
        "unseen_families": (len({c.prototype for c in unseen}), "1", "structure types not learned from"),
        "seconds_a_wave": (seconds, "s", "time of a wave"),
        "lost": (1 - power.mean(), "1", "electrons beyond the band limit"),
        "slope": (max(slopes), "rad", "largest slope of slices"),
        "unlike": (np.mean(unlike), "1", "relative difference of waves of one and three terms"),
    }
    return xr.Dataset({name: quantity(float(v), units, text) for name, (v, units, text) in values.items()})


# Appendix B and the authors' script: so many images, in focus in the seventh.
_IMAGES, _FOCUS = 14, 6
# Å; not in the paper. Bases that are tried, over the true one.
_BASE = 20.0
_TRIED = np.linspace(0.6, 1.4, 9)
_KEPT = 96


def defoci(base: float) -> Tensor:
    """Return the quadratic defocus series, Å, shape (image,)."""
    steps = torch.arange(_IMAGES) - _FOCUS
    return base * (steps.sign() * steps.square()).double()


def _transfer(values: Tensor, sampling: float) -> Tensor:
    """Return the transfer functions of a lens that only defocuses: to underfocus is to propagate back."""
    return propagator((_KEPT, _KEPT), sampling, -values, 200e3, dtype=torch.complex128)


def _wrong(wave: Tensor, truth: Tensor) -> float:
    """Return the share of what is scattered that is wrong, after the best global phase and scale."""
    turned = metrics.align_phase(wave * (truth.abs().mean() / wave.abs().mean()), truth)
    return float((turned - truth).norm() / (truth - truth.mean()).norm())


def focal_series(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Retrieve a wave from a quadratic series of 14 images by plain iteration (Appendix B).

    The wave of the material, from [001], on a whole number of cells, without noise; its thickness follows
    from the seed.

    Returns
    -------
    xarray.Dataset
        Relative errors after the global phase, of what is scattered: ``error``; ``start_error`` of a plane
        wave; ``unrooted_error`` with intensities in place of moduli, as in the code; ``linear_error`` of a
        linear series of the same span. ``base_ratio``: the base of the series that leaves the smallest
        residual, over the true one; ``base_offset``. ``residual`` (``iteration``);
        ``phase`` and ``phase_truth`` (``y``,
        ``x``), rad, of the first seed.
    """
    slab = along(data.one_material(), (0, 0, 1))
    sampling = float(slab.cell[0, 0]) * 3 / _KEPT
    depth = 50.0 + 50.0 * parameters.seed
    [beams] = simulate([slab], [Exposure(200e3, depth, limit=BAND / 2 / sampling)], device=device)
    truth = beams.image(_KEPT, sampling).to(torch.complex128)

    span = defoci(_BASE)
    true = _transfer(span, sampling)
    even = _transfer(torch.linspace(float(span[0]), float(span[-1]), _IMAGES, dtype=torch.float64), sampling)
    images = imaging.images(truth, true)
    found = retrieve_wave(images, true, iterations=parameters.iterations)
    unrooted = retrieve_wave(images.square(), true, iterations=parameters.iterations)
    linear = retrieve_wave(imaging.images(truth, even), even, iterations=parameters.iterations)
    assumed = (_transfer(defoci(_BASE * r), sampling) for r in _TRIED)
    residuals = [
        float(retrieve_wave(images, each, iterations=parameters.iterations).residual[-1]) for each in assumed
    ]
    fitted = float(_TRIED[int(np.argmin(residuals))])
    values = {
        "error": (_wrong(found.wave, truth), "error by plain iteration"),
        "start_error": (_wrong(torch.ones_like(truth), truth), "error of a plane wave"),
        "unrooted_error": (_wrong(unrooted.wave, truth), "error with intensities taken for moduli"),
        "linear_error": (_wrong(linear.wave, truth), "error from a linear series of the same span"),
        "base_ratio": (fitted, "fitted over true base of the series"),
        "base_offset": (abs(fitted - 1), "relative error of the fitted base"),
    }
    result = xr.Dataset({name: quantity(v, "1", text) for name, (v, text) in values.items()})
    result["residual"] = quantity(found.residual.numpy(), "1", "rms difference of moduli", ("iteration",))
    result["base_residual"] = quantity(np.array(residuals), "1", "last residual", ("base",))
    shown = parameters.seed == 0
    pair = {"phase": metrics.align_phase(found.wave, truth).angle(), "phase_truth": truth.angle()}
    for name, phase in pair.items():
        kept = phase.float().numpy() if shown else np.zeros((_KEPT, _KEPT), np.float32)
        result[name] = quantity(kept, "rad", "phase", ("y", "x"))
    return result.assign_coords(base=quantity(_TRIED, "1", "tried over true base", ("base",)))


# Thicknesses, Å, and camera pixels, Å, at which the two equations are tried.
_DEPTHS = (10.0, 20.0, 50.0, 100.0, 200.0, 400.0)
_CAMERA, _FINER = (0.05, 0.1, 0.2, 0.4, 0.8), 5


def equations(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Put Eqs. 1 and 26 to use: a potential from the waves of a crystal, and pixels that average.

    One crystal for each seed, NaCl first, along [001] at 300 kV.

    Returns
    -------
    xarray.Dataset
        ``potential_correlation`` (``depth``) of Eq. 1, as a weak phase object, with the projected
        potential within the band, and ``potential_ratio``, the factor between them;
        ``turned_correlation``, with the φ of Eq. 1 that fits the potential best, which one must know it
        for; ``pixel_error`` (``pixel``) of Eq. 26. Of the thinnest and the thickest: ``thin_correlation``,
        ``thick_correlation``; of pixels of 0.1 and 0.8 Å: ``fine_error``, ``coarse_error``.
    """
    name, family = (("NaCl", "rock salt"), ("CdTe", "zincblende"), ("Si", "diamond"))[parameters.seed % 3]
    crystal = next(c for c in known_structures() if (c.formula, c.prototype) == (name, family))
    slab, energy, limit = along(crystal, (0, 0, 1)), 300e3, 1.5
    exposures = [Exposure(energy, depth, limit=limit) for depth in _DEPTHS]
    waves = simulate([slab] * len(_DEPTHS), exposures, beyond=0.0, device=device)
    sampling = float(slab.cell[0, 0]) / 64
    shape = shape_of(slab, limit)
    # U = 2 m e V / h² with the relativistic mass: σ V = π λ U.
    strength = interaction_constant(energy) / (math.pi * wavelength(energy) * slab.period)
    spectrum = torch.fft.fft2(strength * potentials(slab, shape, 1)[0], norm="forward")
    frequencies = frequencies_of(slab, shape)
    inside = frequencies.square().sum(-1) <= limit**2
    truth = Beams(spectrum[inside], frequencies[inside]).image(64, sampling).real
    correlation, ratio, turned = [], [], []
    level = truth - truth.mean()
    for beams, depth in zip(waves, _DEPTHS, strict=True):
        image = beams.image(64, sampling)
        found = two_beam_potential(image, energy, depth).double()
        correlation.append(float((found * level).sum() / (found.norm() * level.norm())))
        ratio.append(float((found * level).sum() / level.square().sum()))
        # Of any φ it is a sum of these two; what fits best is theirs by least squares.
        quarter = two_beam_potential(image, energy, depth, phase=math.pi / 2).double()
        both = torch.stack([found.flatten(), quarter.flatten()], 1)
        best = both @ torch.linalg.lstsq(both, level.flatten()[:, None].double()).solution[:, 0]
        turned.append(float((best * level.flatten()).sum() / (best.norm() * level.norm())))
    errors = []
    for pixel in _CAMERA:
        size, step, origin = supports(40, pixel, _FINER)
        errors.append(float(roughness(waves[3].image(size, step, origin=(origin, origin)), _FINER)))
    dims = ("depth",)
    return xr.Dataset(
        {
            "potential_correlation": quantity(correlation, "1", "of Eq. 1 with the potential", dims),
            "potential_ratio": quantity(ratio, "1", "Eq. 1 over the potential", dims),
            "turned_correlation": quantity(turned, "1", "of Eq. 1 with the best φ", dims),
            "pixel_error": quantity(errors, "1", "rms error of Eq. 26 over the mean", ("pixel",)),
            "thin_correlation": quantity(correlation[0], "1", "of Eq. 1 at 10 Å"),
            "thick_correlation": quantity(correlation[-1], "1", "of Eq. 1 at 400 Å"),
            "fine_error": quantity(errors[1], "1", "of Eq. 26 with pixels of 0.1 Å"),
            "coarse_error": quantity(errors[-1], "1", "of Eq. 26 with pixels of 0.8 Å"),
        },
        coords={
            "depth": quantity(list(_DEPTHS), "Å", "thickness", dims),
            "pixel": quantity(list(_CAMERA), "Å", "camera pixel", ("pixel",)),
        },
    )
