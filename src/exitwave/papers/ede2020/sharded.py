"""Sharded deep holography (Appendix A), tried: waves learned from single images of known focus, no phase.

One material, thin, along few zone axes: the narrower the waves are, the more the images of others say of one.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from exitwave import metrics, records
from exitwave.networks import training
from exitwave.networks.layers import count_parameters
from exitwave.networks.sharded import ImageJudge, WaveGenerator, as_channels, as_wave, defocused
from exitwave.networks.sharded_tasks import Sharded, inside
from exitwave.networks.tasks import Regression, Validate, adam
from exitwave.networks.weights import save_weights
from exitwave.papers.ede2020 import judge
from exitwave.papers.ede2020.data import (
    _OF_NETWORKS,
    VOLTAGES,
    draw,
    library,
    one_material,
    partition,
    waves_of,
)
from exitwave.papers.ede2020.parameters import Parameters
from exitwave.papers.ede2020.training import crops_of
from exitwave.papers.quantities import quantity

_PLAIN = training.Training()
# Å: defoci are from U(-_SPAN, _SPAN), of the images and of the faux transfer functions.
_SPAN = 50.0
# λ, the weight of the own image, and rates: chosen by trials of a few hundred steps on other waves of the
# material (numbers from 10000 on of both splits), where λ = 1 ended in one answer and λ = 0.02 at twice the
# rate in waves without bounds (their correction is bounded since).
_CYCLE, _CONSISTENCY = 0.1, 0.3
_RATE, _RATE_JUDGE = 1e-3, 1e-3
# Of weights, over some hundred steps: a game goes to and fro.
_AVERAGE = 0.99
_SEED = 27
# Propagation takes what is cut out for periodic: so much of a field, and of a crop, is left out at each side.
_FRAME, EDGE = 8, 4
_BATCH, _VALIDATIONS, _FEW, _SHOWN = 24, 8, 48, 3


@dataclass(frozen=True)
class Shards:
    """Images, each of one wave at one focus, and what is kept from the networks.

    Attributes
    ----------
    images : Tensor, shape (sample, y, x)
        Moduli.
    metadata : Tensor, shape (sample, 4)
        As ``METADATA`` of :mod:`exitwave.networks.sharded`.
    waves, others : Tensor
        Exit waves, complex; moduli at another focus each, of `foci`, which are metadata too.
    """

    images: Tensor
    metadata: Tensor
    waves: Tensor
    others: Tensor
    foci: Tensor


def metadata_of(parameters: Parameters, split: str, count: int, *, first: int = 0) -> tuple[Tensor, Tensor]:
    """Return metadata of the waves of a split and of another focus each: one focus of a wave, for good.

    Both defoci follow from the number of the wave alone.

    Returns
    -------
    metadata, other : Tensor, shape (sample, 4)
    """
    rows = []
    for i in range(first, first + count):
        how = draw(parameters, 1, split, i)
        pair = np.random.default_rng([_SEED, len(split), i]).uniform(-_SPAN, _SPAN, 2)
        rows.append([(c, how.exposure.energy, how.exposure.depth, how.sampling) for c in pair])
    both = torch.tensor(rows)
    return both[:, 0], both[:, 1]


@lru_cache(maxsize=4)
def _waves(parameters: Parameters, split: str, count: int, first: int, device: str) -> Tensor:
    crystals = [one_material()] if parameters.scope == "single" else partition(library(parameters))[0]
    recipes = [draw(parameters, len(crystals), split, i) for i in range(first, first + count)]
    return waves_of(parameters, crystals, recipes, device)


def shards(parameters: Parameters, split: str, device: str = "cpu", *, first: int = 0) -> Shards:
    """Return the images of a split, ``train`` or ``parameters``; `first` is the number of the first wave."""
    count = parameters.waves if split == "train" else parameters.unseen
    # What a wave does not depend on must not compute it again.
    plain = Parameters.at(parameters.scale)
    same = {name: getattr(plain, name) for name in (*_OF_NETWORKS, "idea")}
    waves = _waves(parameters.changed(**same), split, count, first, device)
    metadata, foci = metadata_of(parameters, split, count, first=first)
    frame = parameters.field // _FRAME
    images, others = (inside(defocused(waves, each).abs(), frame) for each in (metadata, foci))
    return Shards(images, metadata, inside(waves, frame), others, foci)


def ranges_of(parameters: Parameters) -> list[tuple[float, float]]:
    """Return the ranges of the four metadata."""
    drawn = parameters.ranges
    low, high = ((width + 2 * parameters.margin) / parameters.grid for width in drawn.width)
    return [(-_SPAN, _SPAN), (VOLTAGES[0], VOLTAGES[-1]), drawn.depth, (low, high)]


def build(parameters: Parameters) -> WaveGenerator:
    """Return the generator, with the weights that the seed draws."""
    return WaveGenerator(
        ranges_of(parameters), width=parameters.width, depth=parameters.downsamplings,
        generator=torch.Generator().manual_seed(parameters.seed),
    )  # fmt: skip


def _cropped(parameters: Parameters, seed: int, *stacks: Tensor) -> list[Tensor]:
    """Return the same crops, flips and turns of several stacks."""
    return [crops_of(each, parameters.pixels, torch.Generator().manual_seed(seed)) for each in stacks]


def wave_loss(made: Tensor, truth: Tensor) -> Tensor:
    """Return the mean square error of waves (sample, 2, y, x) after the best global phase."""
    wave = as_wave(made)
    turned = metrics.align_phase(as_wave(truth), wave.detach())
    return (wave - turned).abs().square().mean()


def task_of(parameters: Parameters, network: WaveGenerator, measure: Validate) -> Sharded | Regression:
    """Return how a generator learns: by the idea, with its own image asked for too, or with true waves."""

    def augment(batch: training.Batch, generator: torch.Generator) -> training.Batch:
        seed = int(torch.randint(2**31, (), generator=generator))
        names = [name for name in ("image", "wave") if name in batch]
        crops = dict(zip(names, _cropped(parameters, seed, *(batch[n] for n in names)), strict=True))
        found = {"input": crops["image"][:, None], "conditions": batch["conditions"]}
        return found | ({"target": as_channels(crops["wave"])} if "wave" in crops else {})

    if parameters.idea == "supervised":
        return Regression(network, adam(network, _RATE, (0.5, 0.999)), wave_loss, augment, measure)
    first = torch.Generator().manual_seed(parameters.seed + 1_000_000)
    return Sharded(
        network, ImageJudge(ranges_of(parameters), width=parameters.judge_width, generator=first), _SPAN,
        edge=parameters.pixels // EDGE, rate=_RATE, rate_judge=_RATE_JUDGE, cycle=_CYCLE,
        consistency=_CONSISTENCY if parameters.idea == "consistent" else 0.0, augment=augment, judge=measure,
    )  # fmt: skip


def train(
    parameters: Parameters, seen: Shards, measure: Validate, *, device: str, how: training.Training
) -> tuple[WaveGenerator, training.Curves]:
    """Train a generator on images and metadata; on waves too where they are to be given."""
    network = build(parameters)
    task = task_of(parameters, network, measure)
    given = {"image": seen.images, "conditions": seen.metadata}
    if parameters.idea == "supervised":
        given["wave"] = seen.waves
    epochs = max(1, round(parameters.steps / (len(seen.images) // parameters.batch)))
    options = training.Options(
        epochs=epochs, batch=parameters.batch, average=_AVERAGE, device=device, devices=how.devices,
        budget_minutes=how.budget_minutes, validate_every=max(1, epochs // _VALIDATIONS),
    )  # fmt: skip
    curves = training.fit(
        task, given, options, generator=torch.Generator().manual_seed(parameters.seed + 1),
        folder=how.folder, resume=how.resume, report=how.report,
    )  # fmt: skip
    return network, curves


def unseen_crops(parameters: Parameters, of: Shards) -> Shards:
    """Return crops of images and waves that networks are judged by, each wave as often as every other."""
    chosen = torch.arange(parameters.examples) % len(of.images)
    stacks = (each[chosen] for each in (of.images, of.waves, of.others))
    images, waves, others = _cropped(parameters, _SEED, *stacks)
    return Shards(images, of.metadata[chosen], waves, others, of.foci[chosen])


def errors(made: Tensor, unseen: Shards, edge: int) -> dict[str, Tensor]:
    """Return how wrong waves (sample, y, x) are within a frame.

    Returns
    -------
    dict of str to Tensor, shape (sample,)
        ``cyclic``, of the phase, rad; ``wave``, relative rms error after the best global phase; ``image``
        and ``foci``, rms errors of moduli at the focus that was given and at another, over the contrast.
    """
    wave, truth = inside(made, edge), inside(unseen.waves, edge)
    found = {
        "cyclic": judge.cyclic_error(as_channels(wave), truth.angle()),
        "wave": metrics.wave_rmse(wave, truth) / truth.abs().square().mean((1, 2)).sqrt(),
    }
    pairs = {"image": (unseen.metadata, unseen.images), "foci": (unseen.foci, unseen.others)}
    for name, (metadata, image) in pairs.items():
        image = inside(image, edge)
        apart = inside(defocused(made, metadata).abs(), edge) - image
        found[name] = apart.square().mean((1, 2)).sqrt() / image.std((1, 2))
    return found


def predict(network: nn.Module, unseen: Shards) -> Tensor:
    """Return waves (sample, y, x) that a network makes of images, on the CPU."""
    made = training.predict(network, unseen.images[:, None], unseen.metadata, batch=_BATCH)
    return as_wave(made.cpu())


def guesses(unseen: Shards) -> dict[str, Tensor]:
    """Return what needs no network: the modulus as the wave, and as the image wave, brought back to focus."""
    modulus = unseen.images.to(torch.complex64)
    return {"constant": modulus, "start": defocused(modulus, unseen.metadata, back=True)}


_TEXT = {
    "cyclic": ("rad", "mean cyclic error of phases"),
    "wave": ("1", "relative error of waves after the best global phase"),
    "image": ("1", "error of the moduli that were given, over their contrast"),
    "foci": ("1", "error of moduli at foci never shown, over their contrast"),
}


def sharded(parameters: Parameters, device: str = "cpu", *, how: training.Training = _PLAIN) -> xr.Dataset:
    """Learn waves from single images and judge them on unseen parameters.

    Returns
    -------
    xarray.Dataset
        ``cyclic``, ``wave``, ``image``, ``foci``: see :func:`errors`; of waves that need no network,
        ``constant_NAME`` (the modulus as the wave) and ``start_NAME`` (that modulus brought back to focus,
        where networks begin); ``least_foci``, of the true waves: what the edges of crops cost. ``share`` and
        ``foci_share``: errors over the smaller of these two. ``fraction`` of the planned steps;
        ``parameters``; ``samples``. ``course`` (``epoch``): cyclic error during training; ``learned``
        (``loss``, ``step``): losses of each epoch. ``modulus``, ``phase``, ``made`` (``example``, ``y``,
        ``x``): a few crops, of the first seed.
    """
    seen, far = (shards(parameters, split, device) for split in ("train", "parameters"))
    unseen, edge = unseen_crops(parameters, far), parameters.pixels // EDGE
    few = Shards(*(getattr(unseen, each.name)[:_FEW] for each in fields(unseen)))

    def measure(network: nn.Module) -> dict[str, float]:
        return {"cyclic": float(errors(predict(network, few), few, edge)["cyclic"].mean())}

    network, curves = train(parameters, seen, measure, device=device, how=how)
    if how.weights is not None:
        made_by = records.provenance(
            "ede2020 sharded", paper="ede2020", scale=parameters.scale,
            parameters=parameters.model_dump(), seed=parameters.seed, device=device,
        )  # fmt: skip
        save_weights(how.weights, network, {"provenance": made_by})
    made = predict(network, unseen)
    waves = {"": made} | {f"{name}_": wave for name, wave in guesses(unseen).items()}
    result = xr.Dataset()
    for prefix, wave in waves.items():
        for name, value in errors(wave, unseen, edge).items():
            result[prefix + name] = quantity(float(value.mean()), *_TEXT[name])
    least = errors(unseen.waves, unseen, edge)["foci"].mean()
    result["least_foci"] = quantity(float(least), "1", "that error of the true waves")
    for share, name in (("share", "cyclic"), ("foci_share", "foci")):
        without = min(float(result[f"{guess}_{name}"]) for guess in ("constant", "start"))
        text = f"{_TEXT[name][1]}, over that without a network"
        result[share] = quantity(float(result[name]) / without, "1", text)
    result["fraction"] = quantity(curves.fraction, "1", "share of the planned steps")
    result["parameters"] = quantity(count_parameters(network), "1", "weights of the generator")
    result["samples"] = quantity(len(unseen.images), "1", "crops judged")
    result["course"] = quantity(curves.validation.get("cyclic", []), "rad", "cyclic error", ("epoch",))
    result["epoch"] = quantity([float(each) for each in curves.validated], "1", "epoch", ("epoch",))
    result["learned"] = quantity([*curves.losses.values()], "1", "loss", ("loss", "step"))
    result["loss"] = quantity([*curves.losses], "1", "loss", ("loss",))
    return result.merge(_examples(parameters, unseen, made, edge))


def _examples(parameters: Parameters, unseen: Shards, made: Tensor, edge: int) -> xr.Dataset:
    """Return a few crops within the frame, phases turned to the truth; of the first seed only."""
    truth, wave = (inside(each[:_SHOWN], edge) for each in (unseen.waves, made))
    images = {
        "modulus": (inside(unseen.images[:_SHOWN], edge), "1", "modulus of the image"),
        "phase": (truth.angle(), "rad", "true phase"),
        "made": (metrics.align_phase(wave, truth).angle(), "rad", "phase of the network"),
    }
    kept = 1 if parameters.seed == 0 else 0
    found = {k: quantity(kept * v.numpy(), units, text, ("example", "y", "x"))
             for k, (v, units, text) in images.items()}  # fmt: skip
    return xr.Dataset(found)
