"""The paper's experiment: learn from half a scan of MoS2, and look at its other half and at thick PrScO3."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from exitwave import records
from exitwave.networks.layers import count_parameters
from exitwave.networks.radial import RadialModel
from exitwave.networks.training import Training
from exitwave.networks.weights import save_weights
from exitwave.papers.cao2020 import methods
from exitwave.papers.cao2020.judge import Region, Score, judge, likeness, missing
from exitwave.papers.cao2020.parameters import Parameters
from exitwave.papers.cao2020.scene import Scan, counted, load
from exitwave.papers.quantities import quantity

_PLAIN = Training()
# Of PrScO3, beside that of the parameters, Å.
THINNER = (50.0, 100.0)
# What makes images of every scan, and what of MoS2 only.
EVERYWHERE = ("adf", "com", "linear", "conv")
METHODS = (*EVERYWHERE, "label")
NAMES = {
    "adf": "annular dark field", "com": "integrated centre of mass", "linear": "linear model",
    "conv": "4D convolutions", "label": "ptychography",
}  # fmt: skip
_KINDS = {
    "contrast": ("1", "contrast over noise of hollows"),
    "resolution": ("Å", "resolution, ring correlation with the truth 1/2"),
    "likeness": ("1", "structural similarity with the truth"),
    "error": ("rad", "phase error"),
    "scaled_error": ("rad", "phase error after the best scale"),
}


def unseen_region(parameters: Parameters) -> Region:
    """Return the lower half of the scan, without what clusters at its edges lack."""
    edge, count = parameters.cluster // 2, parameters.scan
    return slice(count // 2 + edge, count - edge), slice(edge, count - edge)


def whole_region(parameters: Parameters) -> Region:
    """Return the scan without what clusters at its edges lack."""
    edge, count = parameters.cluster // 2, parameters.scan
    return slice(edge, count - edge), slice(edge, count - edge)


def transfer(parameters: Parameters, device: str = "cpu", *, how: Training = _PLAIN) -> xr.Dataset:
    """Train both models of the paper on the upper half of MoS2 and judge all methods elsewhere.

    Returns
    -------
    xarray.Dataset
        For each METHOD of ``adf``, ``com``, ``linear``, ``conv``, ``label``: ``METHOD_contrast``,
        ``METHOD_resolution`` (Å), ``METHOD_likeness``, ``METHOD_error`` (rad; nan of the dark field) and
        ``METHOD_scaled_error`` over the unseen half of MoS2
        (see :class:`exitwave.papers.cao2020.judge.Score`);
        ``METHOD_vacancy``, the share of the missing sulphur's drop that is there, and
        ``METHOD_significance``. The same of PrScO3, but for the label, as ``pso_METHOD_...``, and over
        thickness in ``thick_contrast``, ``thick_resolution``, ``thick_likeness`` (``way``, ``thickness``).
        ``like_label``, structural similarity of the network's image and the label, and ``contrast_share``,
        of their contrasts; ``seen_like_label`` in the upper half. ``label_seconds``, ``epie_seconds``,
        ``conv_seconds``, ``linear_seconds``, ``speed``. ``mask`` (``ring``), ``weight`` (``distance``), the
        linear model; ``effect`` (``ring``), the mask times how much the electrons of the ring vary, and
        ``effect_least``, ``effect_most``, its extremes, all over their largest modulus.
        ``electrons``, counted at a position; ``fraction``; ``weights``, of the network. Of the first seed
        ``images`` (``picture``, ``scan_y``, ``scan_x``) in 8 bits.
    """
    thin, *thick = load(parameters, THINNER, device)
    scans = [thin, *thick]
    counts = [
        counted(parameters, scan, torch.Generator().manual_seed(1000 * parameters.seed + i))
        for i, scan in enumerate(scans)
    ]
    taught = methods.label(parameters, counts[0], thin)
    seen = [methods.shares(parameters, each, scan) for each, scan in zip(counts, scans, strict=True)]
    models = {
        "linear": methods.linear(parameters, seen[0], taught.phase),
        "conv": methods.convolutional(parameters, seen[0], taught.phase, device, how=how),
    }
    result = xr.Dataset()
    images = [
        {
            "adf": methods.dark_field(parameters, count),
            "com": methods.centre_of_mass(parameters, count, scan),
            **{name: model.image(share) for name, model in models.items()},
        }
        for count, scan, share in zip(counts, scans, seen, strict=True)
    ]
    images[0]["label"] = taught.phase
    region, whole = unseen_region(parameters), whole_region(parameters)
    for name, image in images[0].items():
        score = judge(image, thin, region, phase=name != "adf")
        result = result.assign(_scores(name, score, NAMES[name]))
        gone = missing(image, thin, region)
        result[f"{name}_vacancy"] = quantity(gone.share, "1", f"share of the vacancy's drop, {NAMES[name]}")
        result[f"{name}_significance"] = quantity(
            gone.significance, "1", f"the drop over the spread of whole columns, {NAMES[name]}"
        )
    of_thick = [
        {name: judge(image, scan, whole, phase=name != "adf") for name, image in each.items()}
        for each, scan in zip(images[1:], thick, strict=True)
    ]
    main = [each.specimen.thickness for each in thick].index(thickest(parameters, thick))
    for name, score in of_thick[main].items():
        result = result.assign(_scores(f"pso_{name}", score, f"{NAMES[name]}, PrScO3"))
    for kind in ("contrast", "resolution", "likeness"):
        values = [[getattr(each[name], kind) for each in of_thick] for name in EVERYWHERE]
        units, text = _KINDS[kind]
        result[f"thick_{kind}"] = quantity(values, units, f"{text}, PrScO3", ("way", "thickness"))
    result = result.assign(_beside_label(parameters, images[0], result, region))
    slow = methods.epie_seconds(parameters, counts[0], thin)
    result = result.assign(_costs(models, seen[0], taught, slow))
    result = result.assign(_linear(parameters, models["linear"]))
    result["electrons"] = quantity(float(counts[0].sum((2, 3)).mean()), "1", "electrons of a position")
    result["fraction"] = quantity(models["conv"].fraction, "1", "share of the planned steps")
    result["weights"] = quantity(count_parameters(models["conv"].model), "1", "weights of the network")
    result["images"] = _pictures(parameters, images, [each.phase for each in scans], main)
    if how.weights is not None:
        made_by = records.provenance(
            "cao2020 transfer", paper="cao2020", scale=parameters.scale, parameters=parameters.model_dump(),
            seed=parameters.seed, device=device,
        )  # fmt: skip
        save_weights(how.weights, models["conv"].model, {"provenance": made_by})
    return result.assign_coords(
        way=quantity(list(EVERYWHERE), "1", "method", ("way",)),
        thickness=quantity(
            [each.specimen.thickness for each in thick], "Å", "thickness of PrScO3", ("thickness",)
        ),
    )


def thickest(parameters: Parameters, scans: list[Scan]) -> float:
    """Return the thickness of the scan that is nearest to that of the parameters, Å."""
    return min((each.specimen.thickness for each in scans), key=lambda t: abs(t - parameters.thickness))


def _scores(name: str, score: Score, text: str) -> dict[str, xr.Variable]:
    return {
        f"{name}_{kind}": quantity(value, _KINDS[kind][0], f"{_KINDS[kind][1]}, {text}")
        for kind, value in dataclasses.asdict(score).items()
    }


def _beside_label(
    parameters: Parameters, images: dict[str, Tensor], result: xr.Dataset, region: Region
) -> dict[str, xr.Variable]:
    """Compare what the network makes with its label, where it has seen it and where not."""
    count, edge = parameters.scan, parameters.cluster // 2
    above = slice(edge, count // 2 - edge), region[1]
    found = [
        likeness(*(images[name][part].double().numpy() for name in ("conv", "label")))
        for part in (region, above)
    ]
    share = float(result["conv_contrast"]) / float(result["label_contrast"])
    return {
        "like_label": quantity(found[0], "1", "structural similarity with the label, unseen half"),
        "seen_like_label": quantity(found[1], "1", "structural similarity with the label, seen half"),
        "contrast_share": quantity(share, "1", "contrast of the network over that of its label"),
    }


def _costs(
    models: dict[str, methods.Learned], seen: Tensor, taught: methods.Label, slow: float
) -> dict[str, xr.Variable]:
    """Measure how long a whole scan takes, the better of two."""
    found = {
        "label_seconds": quantity(taught.seconds, "s", "time of ptychography"),
        "epie_seconds": quantity(slow, "s", "time of ePIE for as many epochs"),
    }
    for name, model in models.items():
        times = []
        for _ in range(2):
            begin = time.perf_counter()
            model.image(seen)
            times.append(time.perf_counter() - begin)
        found[f"{name}_seconds"] = quantity(min(times), "s", f"time of the scan, {NAMES[name]}")
    speed = taught.seconds / float(found["conv_seconds"])
    return found | {"speed": quantity(speed, "1", "time of ptychography over that of the network")}


def _linear(parameters: Parameters, learned: methods.Learned) -> dict[str, xr.Variable]:
    """Keep the masks of the linear model, over its largest modulus."""
    model = learned.model
    assert isinstance(model, RadialModel)
    rings = model.ring_values().detach().double()
    mask, weights = rings / rings.abs().max(), model.weights.detach().double()
    effect = model.mask.detach().double()
    effect = effect / effect.abs().max()
    frequency = np.linspace(0, model.outer, parameters.rings)
    return {
        "mask": quantity(mask.numpy(), "1", "mask over its largest modulus", ("ring",)),
        "ring": quantity(frequency, "1/Å", "spatial frequency", ("ring",)),
        "weight": quantity((weights / weights.abs().max()).numpy(), "1", "weight of patterns", ("distance",)),
        "effect": quantity(effect.numpy(), "1", "effect of a ring over the largest", ("ring",)),
        "effect_least": quantity(float(effect.min()), "1", "least effect of a ring over the largest modulus"),
        "effect_most": quantity(float(effect.max()), "1", "most effect of a ring over the largest modulus"),
    }


def _pictures(
    parameters: Parameters, images: list[dict[str, Tensor]], truths: list[Tensor], main: int
) -> xr.Variable:
    """Return images of MoS2 and of thick PrScO3 in 8 bits from least to most; of the first seed only."""
    shown = [images[0][name] for name in METHODS] + [truths[0]]
    shown += [images[1 + main][name] for name in EVERYWHERE] + [truths[1 + main]]
    kept = np.zeros((len(shown), parameters.scan, parameters.scan), np.uint8)
    if parameters.seed == 0:
        for i, each in enumerate(shown):
            values = each.double().numpy()
            kept[i] = np.round(255 * (values - values.min()) / max(float(np.ptp(values)), 1e-12))
    return quantity(kept, "1", "images in 8 bits", ("picture", "scan_y", "scan_x"))


PICTURES = (
    *(("MoS2", name) for name in (*METHODS, "truth")), *(("PrScO3", name) for name in (*EVERYWHERE, "truth")),
)  # fmt: skip
