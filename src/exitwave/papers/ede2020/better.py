"""A better network than those of Table 2, no larger, in as many steps: in a fixed gauge, and told more.

It does not norm its output, so that where it cannot know, it may say so by a small modulus, and learns by
the mean absolute error, the measure of Table 2. It may learn from aberrated, noisy images as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from torch.nn import functional

from exitwave import records
from exitwave.networks import training
from exitwave.networks.layers import count_parameters
from exitwave.networks.oneshot_tasks import Direct
from exitwave.networks.tasks import Regression, adam
from exitwave.networks.training import Training
from exitwave.networks.unet import UNet
from exitwave.networks.weights import save_weights
from exitwave.papers.ede2020 import judge
from exitwave.papers.ede2020 import training as paper
from exitwave.papers.ede2020.data import Samples, load
from exitwave.papers.ede2020.parameters import Parameters
from exitwave.papers.ede2020.prediction import SETS
from exitwave.papers.ede2020.shown import plain, recipes_of, shown, told, unseen
from exitwave.papers.quantities import quantity
from exitwave.retrieve.one_shot import in_gauge

_PLAIN = Training()
# Of Adam, whose weights are averaged.
_RATE, _AVERAGE = 2e-3, 0.99
# Crops of a set that are judged during training, and that are kept for a figure.
_FEW, _SHOWN = 48, 4


def build(parameters: Parameters) -> nn.Module:
    """Return the network, with the weights that the seed draws; that of ``gauge`` is the paper's."""
    if parameters.better == "gauge":
        return paper.build(parameters)
    return UNet(
        1, 2, width=parameters.width, depth=parameters.unet_depth, conditions=_conditions(parameters),
        generator=torch.Generator().manual_seed(parameters.seed),
    )  # fmt: skip


def _conditions(parameters: Parameters) -> int:
    """Return how many numbers the network is told."""
    if parameters.better != "all":
        return 0
    return 3 if parameters.shown == "modulus" else 5


def predict(parameters: Parameters, network: nn.Module, batch: training.Batch) -> Tensor:
    """Return components (sample, 2, y, x) that a network makes of a batch."""
    conditions = [batch["conditions"]] if _conditions(parameters) else []
    return training.predict(network, batch["input"], *conditions, batch=24).float().cpu()


def train(
    parameters: Parameters, samples: Samples, measure: Callable[[nn.Module], dict[str, float]], *,
    device: str, how: Training,
) -> tuple[nn.Module, training.Curves]:  # fmt: skip
    """Train a network, which sees other crops of the waves in every epoch; it ends in evaluation mode."""
    network = build(parameters)

    def augment(batch: training.Batch, generator: torch.Generator) -> training.Batch:
        made = shown(parameters, batch["wave"], batch["conditions"], generator)
        return made if _conditions(parameters) else {k: v for k, v in made.items() if k != "conditions"}

    task: training.Task = Regression(
        network, adam(network, _RATE), loss=functional.l1_loss, augment=augment, judge=measure
    )
    if parameters.better == "gauge":
        # As in the paper but for what is learned.
        task = Direct(network, schedule=parameters.schedule, augment=augment, judge=measure)
    epochs = max(1, round(parameters.steps / (len(samples.train) // parameters.batch)))
    options = training.Options(
        epochs=epochs, batch=parameters.batch, device=device, devices=how.devices,
        average=0.0 if parameters.better == "gauge" else _AVERAGE, budget_minutes=how.budget_minutes,
        validate_every=max(1, epochs // 8),
    )  # fmt: skip
    data = {"wave": samples.train, "conditions": told(recipes_of(parameters, "train"))}
    curves = training.fit(
        task, data, options, generator=torch.Generator().manual_seed(parameters.seed + 1),
        folder=how.folder, resume=how.resume, report=how.report,
    )  # fmt: skip
    return network, curves


def better(parameters: Parameters, device: str = "cpu", *, how: Training = _PLAIN) -> xr.Dataset:
    """Train a better network and judge it on the unseen crops of Table 2.

    Returns
    -------
    xarray.Dataset
        For each set NAME of ``transforms``, ``parameters``, ``materials``: ``NAME_cyclic``, the error around
        the circle after the best global phase, and ``NAME_constant``, that of a constant phase, rad;
        ``NAME_error``, the error of phase components (Table 2) in the gauge, of what the network gives and,
        ``NAME_normed``, of that over its modulus; ``NAME_wave``, the share of the wave that is wrong after
        the best global phase, with the modulus that was measured or, of images, that of the network.
        ``cyclic_of`` (``set``, ``example``); ``course`` (``set``, ``epoch``), cyclic errors during training;
        ``parameters``; ``fraction``; ``samples``. ``input``, ``phase``, ``made`` (``shown``, ``y``, ``x``):
        crops of unseen materials in 8 bits, phases in 256ths of a turn, of the first seed.
    """
    samples = load(plain(parameters), device)
    sets = unseen(parameters, samples)
    few = {name: {key: value[:_FEW] for key, value in batch.items()} for name, batch in sets.items()}

    def measure(network: nn.Module) -> dict[str, float]:
        return {
            name: float(cyclic(predict(parameters, network, batch), batch).mean())
            for name, batch in few.items()
        }

    network, curves = train(parameters, samples, measure, device=device, how=how)
    if how.weights is not None:
        made_by = records.provenance(
            "ede2020 better", paper="ede2020", scale=parameters.scale, parameters=parameters.model_dump(),
            seed=parameters.seed, device=device,
        )  # fmt: skip
        save_weights(how.weights, network, {"provenance": made_by})
    made = {name: predict(parameters, network, batch) for name, batch in sets.items()}
    result = xr.Dataset()
    for name, batch in sets.items():
        result = result.assign(_scores(parameters, name, made[name], batch))
    of_each = torch.stack([cyclic(made[name], batch) for name, batch in sets.items()])
    result["cyclic_of"] = quantity(
        of_each.numpy().astype(np.float32), "rad", "cyclic error", ("set", "example")
    )
    course = [curves.validation.get(name, []) for name in SETS]
    result["course"] = quantity(course, "rad", "cyclic error during training", ("set", "epoch"))
    result["epoch"] = quantity([float(each) for each in curves.validated], "1", "epoch", ("epoch",))
    result["parameters"] = quantity(count_parameters(network), "1", "weights of the network")
    result["samples"] = quantity(of_each.numel(), "1", "crops judged")
    result["fraction"] = quantity(curves.fraction, "1", "share of the planned steps")
    result = result.assign(_pictures(parameters, sets["materials"], made["materials"]))
    return result.assign_coords(set=quantity(list(SETS), "1", "what is unseen", ("set",)))


def cyclic(made: Tensor, batch: training.Batch) -> Tensor:
    """Return the cyclic error of each crop, rad, shape (sample,)."""
    return judge.cyclic_error(made, batch["wave"].angle())


def _scores(parameters: Parameters, name: str, made: Tensor, batch: training.Batch) -> dict[str, xr.Variable]:
    """Return the numbers of one set."""
    wave, phase = batch["wave"], in_gauge(batch["wave"]).angle()
    found = torch.complex(made[:, 0], made[:, 1])
    normed = found / found.abs().clamp_min(1e-12)
    if parameters.shown == "modulus":
        found = wave.abs() * normed
    overlap = (found.conj() * wave).sum((-2, -1), keepdim=True)
    aligned = found * overlap / overlap.abs().clamp_min(1e-12)
    wrong = (aligned - wave).abs().square().sum((-2, -1)) / wave.abs().square().sum((-2, -1))
    constant = torch.stack([torch.ones_like(phase), torch.zeros_like(phase)], 1)
    values = {
        "cyclic": (cyclic(made, batch), "rad", "mean cyclic error"),
        "constant": (judge.cyclic_error(constant, phase), "rad", "that of a constant phase"),
        "error": (judge.component_error(made, phase), "1", "mean error of phase components in the gauge"),
        "normed": (
            judge.component_error(torch.stack([normed.real, normed.imag], 1), phase),
            "1",
            "that of components of modulus 1",
        ),
        "wave": (wrong, "1", "share of the wave that is wrong"),
    }
    return {
        f"{name}_{kind}": quantity(float(value.mean()), units, f"{text}, unseen {name}")
        for kind, (value, units, text) in values.items()
    }


def _pictures(parameters: Parameters, batch: training.Batch, made: Tensor) -> dict[str, xr.Variable]:
    """Return crops in 8 bits, phases in 256ths of a turn, both in the gauge; of the first seed only."""
    some = slice(0, _SHOWN if parameters.seed == 0 else 0)
    seen = batch["input"][:_SHOWN, 0]
    seen = (255 * seen / seen.amax((1, 2), keepdim=True)).round()
    turns = {
        "phase": in_gauge(batch["wave"][:_SHOWN]).angle(),
        "made": torch.atan2(made[:_SHOWN, 1], made[:_SHOWN, 0]),
    }
    images = {"input": seen} | {k: (v / (2 * math.pi) * 256).round() % 256 for k, v in turns.items()}
    found = {}
    for (name, values), text in zip(
        images.items(), ("what the network is shown", "true phase", "phase of the network"), strict=True
    ):
        kept = torch.zeros(values.shape, dtype=torch.uint8)
        kept[some] = values[some].to(torch.uint8)
        found[name] = quantity(kept.numpy(), "1", text, ("shown", "y", "x"))
    return found
