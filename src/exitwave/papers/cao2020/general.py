"""A network for scans of any thin specimen, which learns from many materials, probes and doses.

The paper's networks learn from one half of one scan, and from its ptychography. This one learns from the true
phases of simulated scans, and is told probe and dose; no scan of MoS2 is among them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from exitwave import records
from exitwave.networks import training
from exitwave.networks.layers import count_parameters
from exitwave.networks.scannet import ScanNet, scan_conditions
from exitwave.networks.tasks import Regression, adam
from exitwave.networks.training import Batch, Training
from exitwave.networks.weights import save_weights
from exitwave.papers.cao2020 import methods
from exitwave.papers.cao2020.judge import judge, missing
from exitwave.papers.cao2020.parameters import Parameters
from exitwave.papers.cao2020.scene import Scan, counted, expected, load
from exitwave.papers.cao2020.specimens import Specimen, monolayer
from exitwave.papers.cao2020.transfer import THINNER, unseen_region, whole_region
from exitwave.papers.quantities import quantity
from exitwave.retrieve import learned_scan, scan_images
from exitwave.specimens.layers import Layer, known_layers, mos2, split_by_elements

_PLAIN = Training()
# Scans to learn from: Å, pixels and positions along each side, arrangements of atoms, share that is missing.
_SIDE, _GRID, _POSITIONS, _PHONONS, _HOLES = 11.0, 108, 32, 2, 0.03
_CROP = 24
# What is drawn for them: rad, Å, electrons per Å² (by their logarithm).
SEMIANGLES, DEFOCI, DOSES = (0.015, 0.030), (-100.0, 100.0), (3e2, 1e6)
# What the network is asked beside: the last of each lies beyond what it has learned.
ASKED_DOSES = (1e3, 1e4, 1e5, 1e6)
ASKED_SEMIANGLES = (0.010, 0.015, 0.0214, 0.030, 0.040)
ASKED_DEFOCI = (-200.0, -100.0, -50.0, 0.0, 50.0, 100.0, 200.0)
# Materials by which it is judged, of each set.
_JUDGED = 24
_DATA_SEED = 77
_AVERAGE = 0.995
# Rates of learning from one scan, of a network that has learned before, and of one that has not.
_KNOWING, _NEW = 1e-4, 1e-3
# rad: what 1 of the network is, and what is added to the variance of a phase, by which its error is divided.
_UNIT, _FLOOR = 0.1, 0.03
# For those who use the network; stored results know the other name.
UNIT = _UNIT


@dataclass(frozen=True, eq=False)
class Scans:
    """Small scans of many materials.

    Attributes
    ----------
    patterns : Tensor, shape (scan, scan_y, scan_x, ky, kx), float32
        Expected shares of the electrons of a position in the network's pixels, FFT order. Scans repeat.
    phase : Tensor, shape (scan, scan_y, scan_x), float32
        rad.
    step : Tensor, shape (scan, 2)
        Of the scan (y, x), Å.
    semiangle, defocus : Tensor, shape (scan,)
        rad, Å.
    """

    patterns: Tensor
    phase: Tensor
    step: Tensor
    semiangle: Tensor
    defocus: Tensor

    @property
    def area(self) -> Tensor:
        """Å² for each position, shape (scan,)."""
        return self.step.prod(1)


def partition(parameters: Parameters) -> tuple[list[Layer], list[Layer]]:
    """Divide two-dimensional materials by their sets of elements; that of MoS2 is never learned.

    Returns
    -------
    learned, unseen : list of Layer
        In an order that chance decides. Of the first as many as the parameters say.
    """
    generator = np.random.default_rng(_DATA_SEED)
    layers = [each for each in known_layers() if each.elements != mos2().elements]
    first, second = split_by_elements(layers, 0.8, generator)
    learned, unseen = ([layers[i] for i in generator.permutation(some)] for some in (first, second))
    return learned[: parameters.materials], unseen


def turned(specimen: Specimen, generator: np.random.Generator) -> Specimen:
    """Return a specimen mirrored by chance along x, y and their diagonal, with a few atoms missing."""
    positions, size = specimen.positions.copy(), specimen.size
    for axis, length in ((0, size[1]), (1, size[0])):
        if generator.random() < 0.5:
            positions[:, axis] = (length - positions[:, axis]) % length
    if generator.random() < 0.5:
        positions, size = positions[:, [1, 0, 2]], size[::-1]
    kept = generator.random(len(positions)) >= _HOLES
    return replace(specimen, numbers=specimen.numbers[kept], positions=positions[kept], size=size)


def small(parameters: Parameters, **changed: float) -> Parameters:
    """Return the parameters of a small scan."""
    return parameters.changed(scan=_POSITIONS, grid=_GRID, phonons=_PHONONS, drift=0.0, **changed)


def scanned(parameters: Parameters, layers: Sequence[Layer], seed: int, device: str = "cpu") -> Scans:
    """Scan one specimen of each material, each with a probe of its own."""
    generator = np.random.default_rng(seed)
    patterns, phases, rows = [], [], []
    for layer in layers:
        specimen = turned(monolayer(layer, (_SIDE, _SIDE)), generator)
        semiangle, defocus = (float(generator.uniform(*each)) for each in (SEMIANGLES, DEFOCI))
        [scan] = expected(small(parameters, semiangle=semiangle, defocus=defocus), [specimen], device)
        patterns.append(methods.coarse(scan.patterns))
        phases.append(scan.phase.float())
        rows.append((*scan.step, semiangle, defocus))
    told = torch.tensor(rows)
    return Scans(torch.stack(patterns), torch.stack(phases), told[:, :2], told[:, 2], told[:, 3])


@lru_cache(maxsize=2)
def _learned_and_unseen(parameters: Parameters, device: str) -> tuple[Scans, Scans, Scans]:
    """Return scans to learn from, of their materials with other atoms missing, and of unseen materials."""
    learned, unseen = partition(parameters)
    parts = (learned, learned[:_JUDGED], unseen[:_JUDGED])
    made = [scanned(parameters, part, _DATA_SEED + i, device) for i, part in enumerate(parts)]
    return made[0], made[1], made[2]


def data_sets(parameters: Parameters, device: str = "cpu") -> tuple[Scans, Scans, Scans]:
    """Return scans to learn from, others of the same materials, and those of unseen materials."""
    plain = type(parameters).at(parameters.scale, materials=parameters.materials, pixel=parameters.pixel,
                                detector=parameters.detector, energy=parameters.energy)  # fmt: skip
    return _learned_and_unseen(plain, device)


def counted_shares(patterns: Tensor, electrons: Tensor, generator: torch.Generator) -> Tensor:
    """Return shares (scan, scan_y, scan_x, ky, kx) as they are counted, of electrons (scan,) a position."""
    each = electrons.to(patterns).view(-1, 1, 1, 1, 1)
    return torch.poisson(patterns * each, generator=generator) / each


def _augment(parameters: Parameters, batch: Batch, generator: torch.Generator) -> Batch:
    """Begin each scan somewhere, cut it, and count electrons at a dose of its own."""
    patterns, phase = batch["patterns"], batch["phase"]
    rows, columns = torch.randint(0, _POSITIONS, (2, len(phase)), generator=generator).tolist()
    cut = slice(0, _CROP)
    patterns, phase = (
        torch.stack(
            [one.roll((y, x), (0, 1))[cut, cut] for one, y, x in zip(each, rows, columns, strict=True)]
        )
        for each in (patterns, phase)
    )
    low, high = np.log(DOSES)
    dose = torch.exp(low + (high - low) * torch.rand(len(phase), generator=generator))
    made = {
        "input": counted_shares(patterns, dose * batch["step"].prod(1), generator),
        "target": (phase - phase.mean((1, 2), keepdim=True))[:, None] / _UNIT,
    }
    if parameters.told:
        made["conditions"] = scan_conditions(dose, batch["semiangle"], batch["defocus"])
    return made


def relative_loss(made: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean square error of each phase over its variance, so that light layers count as heavy."""
    power = wanted.square().mean((1, 2, 3)) + (_FLOOR / _UNIT) ** 2
    return ((made.float() - wanted).square().mean((1, 2, 3)) / power).mean()


def build(parameters: Parameters) -> ScanNet:
    """Return the network, with the weights that the seed draws."""
    side = parameters.detector // methods.BINNING
    return ScanNet(
        (side, side), features=parameters.features, width=parameters.width,
        depth=int(math.log2(learned_scan.BLOCK)), conditions=3 if parameters.told else 0,
        generator=torch.Generator().manual_seed(parameters.seed),
    )  # fmt: skip


def train(
    parameters: Parameters, scans: Scans, device: str = "cpu", *, how: Training = _PLAIN
) -> tuple[ScanNet, training.Curves]:
    """Train the network; it ends in evaluation mode."""
    network = build(parameters)
    task = Regression(
        network, adam(network, parameters.rate), loss=relative_loss,
        augment=lambda batch, generator: _augment(parameters, batch, generator),
    )  # fmt: skip
    batch = min(8, len(scans.phase))
    options = training.Options(
        epochs=max(1, round(parameters.steps / (len(scans.phase) // batch))), batch=batch, average=_AVERAGE,
        device=device, devices=how.devices, budget_minutes=how.budget_minutes, validate_every=0,
    )  # fmt: skip
    names = ("patterns", "phase", "step", "semiangle", "defocus")
    curves = training.fit(
        task, {name: getattr(scans, name) for name in names}, options,
        generator=torch.Generator().manual_seed(parameters.seed + 1), folder=how.folder, resume=how.resume,
        report=how.report,
    )  # fmt: skip
    return network.eval(), curves


def image(
    network: ScanNet, seen: Tensor, *, dose: float, semiangle: float, defocus: float, device: str = "cpu"
) -> Tensor:
    """Return the network's phase of one scan.

    Parameters
    ----------
    network : ScanNet
    seen : Tensor, shape (scan_y, scan_x, ky, kx)
        Shares in the network's pixels (:func:`exitwave.papers.cao2020.methods.coarse`), FFT order.
    dose, semiangle, defocus : float
        What it is told, if it takes it: electrons per Å², rad, Å.
    device : str

    Returns
    -------
    Tensor, shape (scan_y, scan_x), float32
        rad, of mean 0.
    """
    told = scan_conditions(dose, semiangle, defocus).to(device)
    given = told if network.architecture["conditions"] else None
    return _UNIT * learned_scan.predict(network, seen.to(device), given).cpu()


def taught_by(
    network: ScanNet, parameters: Parameters, counts: Tensor, scan: Scan, device: str = "cpu", *,
    rate: float = _KNOWING,
) -> ScanNet:  # fmt: skip
    """Return a copy of a network that has learned from the electrons of a scan, which does not drift."""
    _, first, sampling = methods.started(parameters, counts.to(device), scan)
    told = scan_conditions(parameters.dose, parameters.semiangle, parameters.defocus).to(device)
    rows, columns = counts.shape[:2]
    pupil = learned_scan.teach(
        network, counts.to(device), methods.coarse(methods.shares(parameters, counts, scan)).to(device),
        told if network.architecture["conditions"] else None,
        learned_scan.model_of((rows, columns), scan.step, first.probe, sampling), steps=parameters.taught,
        unit=_UNIT, generator=torch.Generator().manual_seed(parameters.seed), rate=rate,
    )  # fmt: skip
    assert isinstance(pupil, ScanNet)
    return pupil


def share(phase: Tensor, truth: Tensor) -> float:
    """Return the standard deviation of a phase's error over that of the truth, away from the edges."""
    inner = slice(methods.MARGIN, -methods.MARGIN)
    wanted = truth.double()[inner, inner]
    return float((phase.double()[inner, inner] - wanted).std() / wanted.std())


def general(parameters: Parameters, device: str = "cpu", *, how: Training = _PLAIN) -> xr.Dataset:
    """Train the network and judge it on other scans, materials, doses and probes.

    Returns
    -------
    xarray.Dataset
        ``seen_share``, ``unseen_share``: error over the spread of the true phase at 10⁵ electrons per Å²,
        median over scans of materials that it has learned from and of others; ``..._com_share``, of the
        integrated centre of mass. Over ``dose``, in the half of MoS2 that the paper's networks do not see,
        from the same electrons as theirs: ``error``, ``scaled_error`` (rad), ``likeness``, ``contrast``,
        ``resolution`` (Å), ``vacancy``, ``significance``. The same as ``adapted_...``, where it has gone on
        learning from the electrons of this scan alone (:func:`exitwave.retrieve.learned_scan.teach`),
        and as ``alone_...``, where it has learned from nothing else. Over ``thickness`` of PrScO3:
        ``thick_likeness``, ``thick_contrast``, ``thick_resolution``. ``semiangle_share``, ``defocus_share``
        (``semiangle``, ``defocus``): error over spread of a small scan of MoS2, ``..._com_share`` of the
        centre of mass and ``..._label_share`` of ptychography; ``..._untrue_share`` where it is told the
        probe of the parameters instead.
        ``seconds``, of a scan; ``taught_seconds``, of learning from it; ``weights``; ``fraction`` of the
        planned steps.
    """
    learned, seen, unseen = data_sets(parameters, device)
    network, curves = train(parameters, learned, device, how=how)
    if how.weights is not None:
        made_by = records.provenance(
            "cao2020 general", paper="cao2020", scale=parameters.scale, parameters=parameters.model_dump(),
            seed=parameters.seed, device=device,
        )  # fmt: skip
        save_weights(how.weights, network, {"provenance": made_by})
    result = xr.Dataset(_of_materials(parameters, network, {"seen": seen, "unseen": unseen}, device))
    result = result.assign(_of_doses(parameters, network, device))
    result = result.assign(_of_probes(parameters, network, device))
    result["weights"] = quantity(count_parameters(network), "1", "weights of the network")
    result["fraction"] = quantity(curves.fraction, "1", "share of the planned steps")
    return result


def _of_materials(
    parameters: Parameters, network: ScanNet, sets: dict[str, Scans], device: str
) -> dict[str, xr.Variable]:
    """Judge scans of many materials."""
    found = {}
    for name, scans in sets.items():
        generator = torch.Generator().manual_seed(1000 * parameters.seed + 7)
        shares = counted_shares(scans.patterns, parameters.dose * scans.area, generator)
        rows = []
        for i, one in enumerate(shares):
            told = {"semiangle": float(scans.semiangle[i]), "defocus": float(scans.defocus[i])}
            made = image(network, one, dose=parameters.dose, device=device, **told)
            mass = scan_images.centre_of_mass(one, methods.sampling_of(parameters))
            integrated = scan_images.integrate(mass, (float(scans.step[i, 0]), float(scans.step[i, 1])))
            rows.append((share(made, scans.phase[i]), share(integrated, scans.phase[i])))
        for kind, values in zip(("share", "com_share"), np.array(rows).T, strict=True):
            text = f"phase error over the spread of the truth, {name} materials"
            found[f"{name}_{kind}"] = quantity(float(np.median(values)), "1", text)
    return found


def _of_doses(parameters: Parameters, network: ScanNet, device: str) -> dict[str, xr.Variable]:
    """Judge the scans of the paper's experiment, of MoS2 at each dose and of PrScO3."""
    thin, *thick = load(parameters, THINNER, device)
    probe = {"semiangle": parameters.semiangle, "defocus": parameters.defocus}
    region = unseen_region(parameters)
    rows: dict[str, list[float]] = {}
    seconds, taught = [], []
    for dose in ASKED_DOSES:
        at = parameters.changed(dose=dose)
        counts = counted(at, thin, torch.Generator().manual_seed(1000 * parameters.seed))
        shares = methods.coarse(methods.shares(at, counts, thin))
        pupils = {"": network}
        for name, start, rate in (
            ("adapted_", network, _KNOWING),
            ("alone_", build(parameters), _NEW),
        ):
            begin = time.perf_counter()
            pupils[name] = taught_by(start, at, counts, thin, device, rate=rate)
            taught.append(time.perf_counter() - begin)
        for prefix, each in pupils.items():
            begin = time.perf_counter()
            made = image(each, shares, dose=dose, device=device, **probe)
            seconds.append(time.perf_counter() - begin)
            score, gone = judge(made, thin, region, phase=True), missing(made, thin, region)
            values = vars(score) | {"vacancy": gone.share, "significance": gone.significance}
            for name, value in values.items():
                rows.setdefault(f"{prefix}{name}", []).append(value)
    units = {"error": "rad", "resolution": "Å"}
    found = {
        name: quantity(
            values, units.get(name.split("_")[-1], "1"),
            f"{name}, unseen half of MoS2".replace("_", " "), ("dose",),
        )
        for name, values in rows.items()
    }  # fmt: skip
    found["seconds"] = quantity(min(seconds), "s", "time of the scan of MoS2")
    found["taught_seconds"] = quantity(min(taught), "s", "time of learning from the scan of MoS2")
    found["dose"] = quantity(list(ASKED_DOSES), "1/Å^2", "electrons per Å²", ("dose",))
    crystals = []
    for i, scan in enumerate(thick):
        counts = counted(parameters, scan, torch.Generator().manual_seed(1000 * parameters.seed + 1 + i))
        shares = methods.coarse(methods.shares(parameters, counts, scan))
        made = image(network, shares, dose=parameters.dose, device=device, **probe)
        crystals.append(judge(made, scan, whole_region(parameters), phase=True))
    for kind in ("likeness", "contrast", "resolution"):
        column = [getattr(each, kind) for each in crystals]
        found[f"thick_{kind}"] = quantity(column, units.get(kind, "1"), f"{kind}, PrScO3", ("thickness",))
    thicknesses = [each.specimen.thickness for each in thick]
    found["thickness"] = quantity(thicknesses, "Å", "thickness of PrScO3", ("thickness",))
    return found


def _of_probes(parameters: Parameters, network: ScanNet, device: str) -> dict[str, xr.Variable]:
    """Judge small scans of MoS2 with probes inside and outside of what was learned, told rightly and not."""
    specimen = monolayer(mos2(), (_SIDE, _SIDE))
    usual = {"semiangle": parameters.semiangle, "defocus": parameters.defocus}
    found = {}
    for name, values, units in (("semiangle", ASKED_SEMIANGLES, "rad"), ("defocus", ASKED_DEFOCI, "Å")):
        rows = []
        for value in values:
            at = small(parameters, **(usual | {name: value}))
            [scan] = expected(at, [specimen], device)
            counts = counted(at, scan, torch.Generator().manual_seed(1000 * parameters.seed + 11))
            shares = methods.coarse(methods.shares(at, counts, scan))
            rows.append([
                *(share(image(network, shares, dose=at.dose, device=device, **told), scan.phase)
                  for told in (usual | {name: value}, usual)),
                share(methods.centre_of_mass(at, counts, scan), scan.phase),
                share(methods.label(at, counts, scan, device).phase, scan.phase),
            ])  # fmt: skip
        text = f"phase error over the spread of the truth, small scan of MoS2, by {name}"
        kinds = ("share", "untrue_share", "com_share", "label_share")
        for kind, column in zip(kinds, np.array(rows).T, strict=True):
            found[f"{name}_{kind}"] = quantity(list(column), "1", text, (name,))
        found[name] = quantity(list(values), units, f"{name} of the probe", (name,))
    return found
