"""The paper's experiment: learn from half a scan of MoS2, and look at its other half and at thick PrScO3."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

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
from exitwave.papers.cao2020.judge import Region, Score, judge, likeness, missing, modulation
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
    "contrast": ("1", "contrast over noise"),
    "resolution": ("Å", "resolution, ring correlation with the truth 1/2"),
    "likeness": ("1", "structural similarity with the truth"),
    "error": ("rad", "phase error"),
    "scaled_error": ("rad", "phase error after the best scale"),
}


def unseen_region(parameters: Parameters) -> Region:
    """Return the lower half of the scan, without its edges."""
    half = parameters.scan // 2
    return slice(half + methods.MARGIN, parameters.scan - methods.MARGIN), whole_region(parameters)[1]


def seen_region(parameters: Parameters) -> Region:
    """Return the upper half of the scan, without its edges."""
    return slice(methods.MARGIN, parameters.scan // 2 - methods.MARGIN), whole_region(parameters)[1]


def whole_region(parameters: Parameters) -> Region:
    """Return the scan without its edges."""
    inner = slice(methods.MARGIN, parameters.scan - methods.MARGIN)
    return inner, inner


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
        ``like_label``, structural similarity of the network's image and the label, and
        ``modulation_share``, columns less hollows of the one over that of the other; ``seen_like_label`` in
        the upper half. ``label_seconds``, ``epie_seconds``,
        ``conv_seconds``, ``linear_seconds``, ``speed``. ``mask`` (``ring``), ``weight`` (``distance``), the
        linear model; ``effect`` (``ring``), the mask times how much the electrons of the ring vary, and
        ``effect_least``, ``effect_most``, its extremes, all over their largest modulus.
        ``electrons``, counted at a position; ``fraction``; ``weights``, of the network. Of the first seed
        ``images`` (``picture``, ``scan_y``, ``scan_x``) in 8 bits.
    """
    thin, *thick = load(parameters, THINNER, device)
    counts = [
        counted(parameters, scan, torch.Generator().manual_seed(1000 * parameters.seed + i))
        for i, scan in enumerate((thin, *thick))
    ]
    seen = [methods.shares(parameters, each, scan) for each, scan in zip(counts, (thin, *thick), strict=True)]
    # What is learned from knows nothing of the lower half.
    half = parameters.scan // 2
    taught = methods.label(parameters, counts[0][:half], thin, device)
    models = {
        "linear": methods.linear(parameters, seen[0][:half], taught.phase),
        "conv": methods.convolutional(parameters, seen[0][:half], taught.phase, device, how=how),
    }
    images = [
        {
            "adf": methods.dark_field(parameters, count),
            "com": methods.centre_of_mass(parameters, count, scan),
            **{name: model.image(share) for name, model in models.items()},
        }
        for count, scan, share in zip(counts, (thin, *thick), seen, strict=True)
    ]
    whole = methods.label(parameters, counts[0], thin, device)
    images[0]["label"] = whole.phase
    main = nearest([each.specimen.thickness for each in thick], parameters.thickness)
    result = xr.Dataset(_of_monolayer(parameters, images[0], thin))
    result = result.assign(_of_crystal(parameters, images[1:], thick, main))
    result = result.assign(_beside_label(parameters, images[0], taught.phase, thin))
    slow = methods.epie_seconds(parameters, counts[0], thin)
    result = result.assign(_costs(models, seen[0], whole.seconds, slow))
    result = result.assign(_linear(parameters, models["linear"]))
    result["electrons"] = quantity(float(counts[0].sum((2, 3)).mean()), "1", "electrons of a position")
    result["fraction"] = quantity(models["conv"].fraction, "1", "share of the planned steps")
    result["weights"] = quantity(count_parameters(models["conv"].model), "1", "weights of the network")
    result["images"] = _pictures(parameters, images, [each.phase for each in (thin, *thick)], main)
    if how.weights is not None:
        made_by = records.provenance(
            "cao2020 transfer", paper="cao2020", scale=parameters.scale, parameters=parameters.model_dump(),
            seed=parameters.seed, device=device,
        )  # fmt: skip
        save_weights(how.weights, models["conv"].model, {"provenance": made_by})
    thicknesses = [each.specimen.thickness for each in thick]
    return result.assign_coords(
        way=quantity(list(EVERYWHERE), "1", "method", ("way",)),
        thickness=quantity(thicknesses, "Å", "thickness of PrScO3", ("thickness",)),
    )


def nearest(values: Sequence[float], wanted: float) -> int:
    """Return the index of the value that is nearest to what is wanted."""
    return min(range(len(values)), key=lambda i: abs(values[i] - wanted))


def _of_monolayer(parameters: Parameters, images: dict[str, Tensor], scan: Scan) -> dict[str, xr.Variable]:
    """Judge images of MoS2 in its unseen half."""
    found: dict[str, xr.Variable] = {}
    region = unseen_region(parameters)
    for name, image in images.items():
        found |= _scores(name, judge(image, scan, region, phase=name != "adf"), NAMES[name])
        gone = missing(image, scan, region)
        found[f"{name}_vacancy"] = quantity(gone.share, "1", f"share of the vacancy's drop, {NAMES[name]}")
        found[f"{name}_significance"] = quantity(
            gone.significance, "1", f"the drop over the spread of whole columns, {NAMES[name]}"
        )
    return found


def _of_crystal(
    parameters: Parameters, images: list[dict[str, Tensor]], scans: list[Scan], main: int
) -> dict[str, xr.Variable]:
    """Judge images of PrScO3 of each thickness; those of one have names of their own."""
    region = whole_region(parameters)
    scores = [
        {name: judge(image, scan, region, phase=name != "adf") for name, image in each.items()}
        for each, scan in zip(images, scans, strict=True)
    ]
    found: dict[str, xr.Variable] = {}
    for name, score in scores[main].items():
        found |= _scores(f"pso_{name}", score, f"{NAMES[name]}, PrScO3")
    for kind in ("contrast", "resolution", "likeness"):
        values = [[getattr(each[name], kind) for each in scores] for name in EVERYWHERE]
        units, text = _KINDS[kind]
        found[f"thick_{kind}"] = quantity(values, units, f"{text}, PrScO3", ("way", "thickness"))
    return found


def _scores(name: str, score: Score, text: str) -> dict[str, xr.Variable]:
    return {
        f"{name}_{kind}": quantity(value, _KINDS[kind][0], f"{_KINDS[kind][1]}, {text}")
        for kind, value in dataclasses.asdict(score).items()
    }


def _beside_label(
    parameters: Parameters, images: dict[str, Tensor], taught: Tensor, scan: Scan
) -> dict[str, xr.Variable]:
    """Compare what the network makes with its label: where it learned from it, and where not."""
    conv, whole = (images[name].double().numpy() for name in ("conv", "label"))
    above, below = seen_region(parameters), unseen_region(parameters)
    share = modulation(conv, scan, below) / modulation(whole, scan, below)
    return {
        "like_label": quantity(
            likeness(conv[below], whole[below]), "1", "structural similarity with the label, unseen half"
        ),
        "seen_like_label": quantity(
            likeness(conv[above], taught.numpy()[above]),
            "1",
            "structural similarity with the label, seen half",
        ),
        "modulation_share": quantity(share, "1", "columns less hollows, of the network over its label"),
    }


def _costs(
    models: dict[str, methods.Learned], seen: Tensor, seconds: float, slow: float
) -> dict[str, xr.Variable]:
    """Measure how long a whole scan takes."""
    found = {
        "label_seconds": quantity(seconds, "s", "time of ptychography"),
        "epie_seconds": quantity(slow, "s", "time of ePIE for as many epochs"),
    }
    for name, model in models.items():
        begin = time.perf_counter()
        model.image(seen)
        found[f"{name}_seconds"] = quantity(
            time.perf_counter() - begin, "s", f"time of the scan, {NAMES[name]}"
        )
    speed = seconds / float(found["conv_seconds"])
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
