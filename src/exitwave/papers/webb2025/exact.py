"""Studies of the exact calculation: what it costs, how far it is converged, what a projection decides."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
import xarray as xr

from exitwave import metrics, records
from exitwave.networks.pix2pix import GlobalGenerator
from exitwave.networks.training import predict
from exitwave.papers.webb2025.parameters import Parameters
from exitwave.papers.webb2025.patterns import (
    THICKNESSES,
    geometry,
    projected_potential,
    specimen,
    stored_crystals,
    stretched,
)
from exitwave.papers.webb2025.patterns import beams as beams_of
from exitwave.simulate import lacbed
from exitwave.specimens.crystals import Crystal
from exitwave.specimens.prototypes import known_crystals

# Time that the paper's data set took, "several weeks": three.
_WEEKS = 3 * 7 * 86400.0
# Limit at which abTEM is timed: 377 beams of SrTiO3.
_EQUAL_LIMIT = 2.82
# Structures of Fig. 5, all F-43m with atoms over one another.
_FIG5_PROTOTYPES = ("half-Heusler", "zincblende")
# Crystals that are timed.
_TIMED_CRYSTALS = 8
# Errors of the thickness, Å, and crystals over which their effect is averaged.
_CHANGES, _CHANGED_CRYSTALS = (5.0, 10.0, 20.0, 50.0), 12
_LIMITS, _BEST_LIMIT = (2.0, 2.5, 3.0, 3.5, 4.5), 6.0


def quantity(values: object, units: str, long_name: str, dims: tuple[str, ...] = ()) -> xr.Variable:
    """Return a variable with its units and name."""
    return xr.Variable(dims, np.asarray(values), {"units": units, "long_name": long_name})


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute in one thread, whose time is then that of the processor, busy machine or not."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def strontium_titanate(debye_waller: float = 0.0) -> Crystal:
    """Return SrTiO3 with one B for all atoms, Å²."""
    found = next(c for c in known_crystals() if c.name == "SrTiO3" and c.prototype == "perovskite")
    return found.with_debye_waller(debye_waller)


def cost(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Time patterns of some crystals of the data set, and return what the paper's would take.

    Returns
    -------
    xarray.Dataset
        ``pairs_in_three_weeks`` by one thread, ``seconds_a_crystal`` (four thicknesses); of a third of the
        data set, which the seed chooses, ``median_beam_error`` at the largest thickness and ``beam_error``
        (``crystal``, ``thickness``), over the largest intensity; ``samples`` (crystals timed).
    """
    stored = records.load(parameters.files()[parameters.version])
    stored = stored.isel(seed=slice(parameters.seed % 3, None, 3))
    error = (stored["beam_error"] / stored["scale"]).values.reshape(-1, len(THICKNESSES))
    crystals = stored_crystals(parameters)
    chosen = np.random.default_rng(parameters.seed).permutation(len(crystals))[:_TIMED_CRYSTALS]
    with one_thread():
        begin = time.process_time()
        for crystal in (specimen(parameters, crystals[i]) for i in chosen):
            field, how = geometry(parameters, crystal), beams_of(parameters, crystal)
            lacbed.simulate(crystal, THICKNESSES, field, how, device=device)
        seconds = (time.process_time() - begin) / len(chosen)
    return xr.Dataset(
        {
            "pairs_in_three_weeks": quantity(
                len(THICKNESSES) * _WEEKS / seconds, "1", "pairs of three weeks, one thread"
            ),
            "seconds_a_crystal": quantity(seconds, "s", "time of four patterns, one thread"),
            "median_beam_error": quantity(
                np.median(error[:, -1]), "1", "median error by the choice of beams"
            ),
            "beam_error": quantity(error, "1", "error by the choice of beams", ("crystal", "thickness")),
            "samples": quantity(len(chosen), "1", "crystals timed"),
        },
        coords={"thickness": quantity(list(THICKNESSES), "Å", "thickness", ("thickness",))},
    )


def convergence(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Compare choices of beams for SrTiO3 with the best one, with B = 0 and 1 Å².

    Returns
    -------
    xarray.Dataset
        ``error`` (rule, B, thickness): root mean square difference of intensity to a limit of 6 1/Å, which
        takes in all beams on the Ewald sphere at the corner of the field; ``largest``, at one of the tilts;
        ``beams`` (rule, B); scalars ``felix_error`` and ``limit_error`` (root mean square) at 2000 Å and
        B = 0, and ``limit_error_thermal`` with B = 1 Å².
    """
    rules = {"FELIX": lacbed.Beams("felix")} | {f"{x:g}": lacbed.Beams(limit=x) for x in _LIMITS}
    factors = (0.0, 1.0)
    # Other tilts for other seeds: the field's size changes by up to 5%.
    scale = 1 + 0.05 * np.random.default_rng(parameters.seed).uniform(-1, 1)
    errors, largest = (np.zeros((len(rules), len(factors), len(THICKNESSES))) for _ in range(2))
    beams = np.zeros((len(rules), len(factors)), int)
    for j, b in enumerate(factors):
        crystal = strontium_titanate(b)
        field = lacbed.Geometry(
            parameters.energy,
            half_angle=scale * parameters.angular_range / crystal.lattice_parameter,
            pixels=12,
        )
        how = {"verify": False, "device": device}
        best = lacbed.simulate(crystal, THICKNESSES, field, lacbed.Beams(limit=_BEST_LIMIT), **how)  # type: ignore[arg-type]
        for i, rule in enumerate(rules.values()):
            found = lacbed.simulate(crystal, THICKNESSES, field, rule, **how)  # type: ignore[arg-type]
            difference = (found.intensity - best.intensity)[0].cpu()
            errors[i, j] = difference.square().mean((1, 2)).sqrt().numpy()
            largest[i, j] = difference.abs().amax((1, 2)).numpy()
            beams[i, j] = found.beams
    names = list(rules)
    at = dict(zip(names, range(len(names)), strict=True))
    return xr.Dataset(
        {
            "error": quantity(errors, "1", "root mean square error", ("rule", "B", "thickness")),
            "largest": quantity(largest, "1", "largest error", ("rule", "B", "thickness")),
            "beams": quantity(beams, "1", "beams", ("rule", "B")),
            "felix_error": quantity(errors[at["FELIX"], 0, -1], "1", "FELIX's beams, B = 0, 2000 Å"),
            "limit_error": quantity(errors[at["3.5"], 0, -1], "1", "3.5 1/Å, B = 0, 2000 Å"),
            "limit_error_thermal": quantity(errors[at["3.5"], 1, -1], "1", "3.5 1/Å, B = 1 Å², 2000 Å"),
        },
        coords={
            "rule": quantity(names, "1", "resolution limit in 1/Å, or FELIX's rule", ("rule",)),
            "B": quantity(list(factors), "Å^2", "Debye-Waller factor", ("B",)),
            "thickness": quantity(list(THICKNESSES), "Å", "thickness", ("thickness",)),
        },
    )


def same_projection(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Compare exact patterns of four F-43m crystals whose atoms project onto one another (Fig. 5).

    Returns
    -------
    xarray.Dataset
        ``pattern`` and ``potential`` (crystal, y, x), uint8; ``pattern_index``, mean R (Eq. 4) between the
        patterns of two different crystals at 2000 Å, and ``lowest_index``.
    """
    rng = np.random.default_rng(parameters.seed)
    alike = [c for c in known_crystals() if c.prototype in _FIG5_PROTOTYPES]
    chosen = [alike[i] for i in rng.permutation(len(alike))[:4]]
    disks = torch.stack(
        [
            lacbed.simulate(
                c, [2000.0], geometry(parameters, c, 64), lacbed.Beams("felix"), verify=False, device=device
            ).intensity[0, 0].cpu()
            for c in chosen
        ]
    )  # fmt: skip
    potentials = torch.stack([projected_potential(c, 64, parameters.energy) for c in chosen])
    pairs = list(itertools.combinations(range(len(chosen)), 2))
    index = [float(metrics.correlation_index(disks[i].double(), disks[j].double())) for i, j in pairs]
    return xr.Dataset(
        {
            "pattern": quantity(_bytes(disks), "1", "255 x stretched intensity", ("crystal", "y", "x")),
            "potential": quantity(
                _bytes(potentials), "1", "255 x stretched potential", ("crystal", "y", "x")
            ),
            "pattern_index": quantity(np.mean(index), "1", "mean R between two patterns"),
            "lowest_index": quantity(np.min(index), "1", "lowest R between two patterns"),
            "name": quantity([f"{c.name}, {c.prototype}" for c in chosen], "1", "crystal", ("crystal",)),
        }
    )


def _bytes(images: torch.Tensor) -> np.ndarray:
    values: np.ndarray = (255 * stretched(images)).round().to(torch.uint8).numpy()
    return values


def thickness_change(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Return what a wrong thickness does to the patterns of some crystals: the scale for a network's error.

    Returns
    -------
    xarray.Dataset
        ``mse_of_change`` (change, thickness), mean over crystals of Eq. 3 between stretched patterns, and
        ``mse_1nm`` at the thickness of the parameters, and ``samples``.
    """
    crystals = stored_crystals(parameters)
    chosen = np.random.default_rng(parameters.seed).permutation(len(crystals))[:_CHANGED_CRYSTALS]
    depths = [t + change for change in (0.0, *_CHANGES) for t in THICKNESSES]
    errors = np.zeros((len(_CHANGES), len(THICKNESSES)))
    for crystal in (specimen(parameters, crystals[i]) for i in chosen):
        found = lacbed.simulate(
            crystal, depths, geometry(parameters, crystal, parameters.pixels), beams_of(parameters, crystal),
            verify=False, device=device,
        ).intensity[0].cpu()  # fmt: skip
        images = stretched(found).reshape(1 + len(_CHANGES), len(THICKNESSES), *found.shape[1:])
        errors += (images[1:] - images[0]).square().mean((-2, -1)).numpy() / len(chosen)
    return xr.Dataset(
        {
            "mse_of_change": quantity(
                errors, "1", "mean square error of a wrong thickness", ("change", "thickness")
            ),
            "mse_1nm": quantity(
                errors[_CHANGES.index(10.0), THICKNESSES.index(parameters.thickness)],
                "1",
                "mean square error of 1 nm too much",
            ),
            "samples": quantity(len(chosen), "1", "crystals"),
        },
        coords={
            "change": quantity(list(_CHANGES), "Å", "error of the thickness", ("change",)),
            "thickness": quantity(list(THICKNESSES), "Å", "thickness", ("thickness",)),
        },
    )


def speed(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Time the exact calculation, abTEM and networks for one SrTiO3 pattern in one run.

    The networks have random weights: their time does not depend on them.

    Returns
    -------
    xarray.Dataset
        ``exact_seconds`` (128 x 128 pixels, four thicknesses, 593 beams), ``felix_seconds`` (FELIX's beams),
        ``abtem_seconds`` (377 beams; one tilt times those that are different), ``network_seconds`` (the
        paper's generator, one image), ``compact_seconds``; ``ratio`` exact over network, ``compact_ratio``,
        and ``abtem_ratio``, seconds a tilt at 377 beams of abTEM over ours.
    """
    crystal = strontium_titanate()
    field = geometry(parameters, crystal)

    def exact(beams: lacbed.Beams, pixels: int = field.pixels) -> float:
        return _timed(
            lambda: lacbed.simulate(
                crystal,
                THICKNESSES,
                geometry(parameters, crystal, pixels),
                beams,
                verify=False,
                device=device,
            )
        )

    seconds = {"exact": exact(lacbed.Beams()), "felix": exact(lacbed.Beams("felix"))}
    image = torch.zeros(1, 1, 128, 128)
    for name, network in (
        ("network", GlobalGenerator(1, 1)),
        ("compact", GlobalGenerator(1, 1, width=16, downsamplings=3, blocks=3)),
    ):
        network = network.to(device).eval()
        predict(network, image)  # first call
        seconds[name] = _timed(lambda network=network: predict(network, image))  # type: ignore[misc]
    equal = lacbed.Beams(limit=_EQUAL_LIMIT)
    ours, theirs = exact(equal, 32) / _different(32), _abtem(crystal, parameters.energy, equal)
    values = {
        "exact_seconds": (seconds["exact"], "s", "exact pattern, four thicknesses"),
        "felix_seconds": (seconds["felix"], "s", "pattern with FELIX's beams"),
        "abtem_seconds": (theirs * _different(field.pixels), "s", "abTEM for as many tilts as are different"),
        "network_seconds": (seconds["network"], "s", "the paper's generator, one image"),
        "compact_seconds": (seconds["compact"], "s", "compact generator, one image"),
        "ratio": (seconds["exact"] / seconds["network"], "1", "exact over network"),
        "compact_ratio": (seconds["exact"] / seconds["compact"], "1", "exact over compact network"),
        "abtem_ratio": (theirs / ours, "1", "abTEM over this code, a tilt"),
        "threads": (torch.get_num_threads(), "1", "threads"),
    }
    return xr.Dataset({name: quantity(*value) for name, value in values.items()})


def _different(pixels: int) -> int:
    """Return how many tilts of a field of 4mm symmetry are different; pixels even."""
    half = pixels // 2
    return half * (half + 1) // 2


def _timed(call: Callable[[], object]) -> float:
    """Return the shorter of two times, s."""
    times = []
    for _ in range(2):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return min(times)


def _abtem(crystal: Crystal, energy: float, beams: lacbed.Beams) -> float:
    """Return abTEM's seconds a tilt for all four thicknesses: our beams, single precision, threads at best.

    Its numerics alone are timed: to turn the crystal and choose the beams would come on top.
    """
    import abtem
    from abtem.bloch import dynamical
    from threadpoolctl import threadpool_limits

    hkl = lacbed.select_beams(crystal, lacbed.Geometry(energy), beams)
    atoms = crystal.to_atoms()
    with abtem.config.set({"precision": "float32"}):
        factors = dynamical.StructureFactor(
            atoms, g_max=2 * beams.limit + 0.3, parametrization="kirkland", cutoff="hard", centering="P"
        )
        values = factors.build(lazy=False).array

        def one_tilt() -> object:
            matrix = dynamical.calculate_structure_matrix(
                np.asarray(values), factors.hkl, hkl, atoms.cell, energy, factors.gpts, use_wave_eq=True
            )
            return dynamical.calculate_dynamical_scattering(
                matrix, hkl, atoms.cell, energy, np.array(THICKNESSES), use_wave_eq=True
            )

        # One eigenproblem after the other: more threads often make it slower.
        times = []
        for threads in (1, torch.get_num_threads()):
            with threadpool_limits(threads):
                times.append(_timed(one_tilt))
        return min(times)
