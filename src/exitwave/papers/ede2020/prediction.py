"""A network from an amplitude to a phase, trained on one scope and judged on three unseen sets."""

from __future__ import annotations

import math
import time

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from exitwave import records
from exitwave.networks.layers import count_parameters
from exitwave.networks.oneshot import OneShot
from exitwave.networks.oneshot_tasks import Direct
from exitwave.networks.released import load_released
from exitwave.networks.training import Training
from exitwave.networks.weights import save_weights
from exitwave.papers.ede2020 import judge
from exitwave.papers.ede2020.data import SHOWN, VOLTAGES, library, load, partition
from exitwave.papers.ede2020.parameters import Parameters
from exitwave.papers.ede2020.training import Crops, build, predict, train, unseen_crops
from exitwave.papers.quantities import quantity
from exitwave.retrieve.one_shot import SAMPLING, conditions_of

_PLAIN = Training()
# Crops of a set that are judged during training.
_FEW = 48
SETS = ("transforms", "parameters", "materials")


def prediction(parameters: Parameters, device: str = "cpu", *, how: Training = _PLAIN) -> xr.Dataset:
    """Train a network and judge it on three unseen sets (Table 2, Figs. 5 to 7).

    Returns
    -------
    xarray.Dataset
        For each set NAME of ``transforms``, ``parameters``, ``materials``: ``NAME_error`` and
        ``NAME_deviation``, mean and standard deviation over crops of the error of phase components (Table 2);
        ``NAME_cyclic``, the error around the circle after the best global phase, rad; ``NAME_by_batch``, the
        error with batch statistics at evaluation; ``NAME_beyond``, the share of the crops beyond 0.75.
        ``gap``, the error of unseen parameters less that of unseen transforms. ``capped``, share of the
        losses that were clipped; ``parameters``; ``fraction`` of the planned steps. Of each crop (``set``,
        ``example``): ``error_of``. ``course`` (``set``, ``epoch``): errors during training; ``learned``
        (``step``): the training error of each epoch. Of the unseen crystals of Fig. 7 that the tables have
        (``crystal``): ``figure_error``; ``silicon_error`` and that of the others, ``others_error``;
        ``amplitude``, ``phase``, ``made`` (``crystal``, ``y``, ``x``), a crop in 8 bits, of the first seed.
    """
    samples = load(parameters, device)
    unseen = unseen_crops(parameters, samples)
    few = {name: Crops(*(v[:_FEW] for v in (c.amplitude, c.phase, c.wave))) for name, c in unseen.items()}

    def measure(network: nn.Module) -> dict[str, float]:
        return {
            name: float(judge.component_error(predict(network, crops), crops.phase).mean())
            for name, crops in few.items()
        }

    network, curves, task = train(parameters, samples, measure, device=device, how=how)
    if how.weights is not None:
        made_by = records.provenance(
            "ede2020 prediction", paper="ede2020", scale=parameters.scale,
            parameters=parameters.model_dump(), seed=parameters.seed, device=device,
        )  # fmt: skip
        save_weights(how.weights, network, {"provenance": made_by})
    made = {name: predict(network, crops) for name, crops in unseen.items()}
    errors = {name: judge.component_error(made[name], crops.phase) for name, crops in unseen.items()}
    result = xr.Dataset()
    for name, crops in unseen.items():
        by_batch = judge.component_error(predict(network, crops, by_batch=True), crops.phase)
        result = result.assign(
            _scores(name, errors[name], judge.cyclic_error(made[name], crops.phase), by_batch)
        )
    gap = float(errors["parameters"].mean() - errors["transforms"].mean())
    result["gap"] = quantity(gap, "1", "error of unseen parameters less that of unseen transforms")
    capped = _capped(task)
    result["capped"] = quantity(capped, "1", "share of the losses that were clipped")
    result["samples"] = quantity(sum(len(c.phase) for c in unseen.values()), "1", "crops judged")
    result["parameters"] = quantity(count_parameters(network), "1", "weights of the network")
    result["fraction"] = quantity(curves.fraction, "1", "share of the planned steps")
    of_each = torch.stack([errors[name] for name in SETS]).numpy().astype(np.float32)
    result["error_of"] = quantity(of_each, "1", "error of phase components", ("set", "example"))
    course = [curves.validation.get(name, []) for name in SETS]
    result["course"] = quantity(course, "1", "error during training", ("set", "epoch"))
    result["epoch"] = quantity([float(each) for each in curves.validated], "1", "epoch", ("epoch",))
    result["learned"] = quantity(curves.losses.get("error", []), "1", "training error", ("step",))
    shown = _of_figure(parameters, unseen["materials"], made["materials"], errors["materials"])
    return result.merge(shown).assign_coords(set=quantity(list(SETS), "1", "what is unseen", ("set",)))


# Images that are timed, after two that are not.
_TIMED = 5
_SIZE = 224


def live(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Time the paper's generator, the compact one and a released network on images of 224 x 224 pixels.

    Returns
    -------
    xarray.Dataset
        Medians over single images, ``milliseconds``, and ``parameters`` of the paper's generator;
        ``compact_milliseconds`` and ``compact_parameters`` of that of the parameters;
        ``released_milliseconds`` and ``released_parameters`` of the released network of the run and the
        seed that the parameters name, if they name a run.
    """
    result = xr.Dataset()
    image = torch.rand(1, 1, _SIZE, _SIZE, generator=torch.Generator().manual_seed(parameters.seed)) + 0.5
    timed: dict[str, nn.Module] = {"": OneShot(), "compact_": build(parameters)}
    if parameters.network:
        # Those of workshop scale come with the project.
        timed["released_"] = load_released("ede2020", parameters.network, parameters.seed)
    known = conditions_of(VOLTAGES[1], sum(parameters.ranges.depth) / 2, SAMPLING)[None].to(device)
    for prefix, network in timed.items():
        network = network.eval().to(device)
        more = (known,) if prefix == "released_" else ()
        seconds = []
        with torch.no_grad():
            for _ in range(_TIMED + 2):
                begin = time.perf_counter()
                network(image.to(device), *more).cpu()
                seconds.append(time.perf_counter() - begin)
        median = 1000 * float(np.median(seconds[2:]))
        result[f"{prefix}milliseconds"] = quantity(median, "ms", "time of an image of 224 x 224 pixels")
        result[f"{prefix}parameters"] = quantity(count_parameters(network), "1", "weights")
    return result


def _scores(name: str, error: Tensor, cyclic: Tensor, by_batch: Tensor) -> dict[str, xr.Variable]:
    """Return the numbers of one set."""
    values = {
        "error": (error.mean(), "1", "mean error of phase components"),
        "deviation": (error.std(), "1", "standard deviation of it over crops"),
        "cyclic": (cyclic.mean(), "rad", "mean cyclic error"),
        "by_batch": (by_batch.mean(), "1", "mean error with batch statistics"),
        "beyond": ((error > 0.75).double().mean(), "1", "share of crops beyond 0.75"),
    }
    return {
        f"{name}_{kind}": quantity(float(value), units, f"{text}, unseen {name}")
        for kind, (value, units, text) in values.items()
    }


def _capped(task: object) -> float:
    """Return the share of the losses that were clipped; 0 where nothing clips."""
    if not isinstance(task, Direct) or task.clipping is None or not float(task.clipping.seen):
        return 0.0
    return float(task.clipping.capped / task.clipping.seen)


def _of_figure(parameters: Parameters, crops: Crops, made: Tensor, errors: Tensor) -> xr.Dataset:
    """Return errors and one crop of each crystal of Fig. 7, in 8 bits: phases in 256ths of a turn."""
    _, crystals = partition(library(parameters))
    size = (len(SHOWN), *crops.phase.shape[1:])
    images = {name: np.zeros(size, np.uint8) for name in ("amplitude", "phase", "made")}
    of_crystal = np.full(len(SHOWN), np.nan)
    for i, family in enumerate(SHOWN):
        first = next((k for k, crystal in enumerate(crystals) if crystal.prototype == family), -1)
        mine = torch.nonzero(crops.wave % len(crystals) == first)[:, 0]
        if len(mine):
            of_crystal[i] = float(errors[mine].mean())
            one = int(mine[0])
            amplitude = crops.amplitude[one]
            images["amplitude"][i] = (255 * amplitude / amplitude.max()).round().numpy()
            images["phase"][i] = _turns(crops.phase[one])
            images["made"][i] = _turns(torch.atan2(made[one, 1], made[one, 0]))
    names = [formula or family for family, formula in SHOWN.items()]
    silicon = names.index("Si")
    found = {
        "figure_error": quantity(of_crystal, "1", "error of phase components", ("crystal",)),
        "silicon_error": quantity(of_crystal[silicon], "1", "error of unseen Si"),
        "others_error": quantity(np.delete(of_crystal, silicon).mean(), "1", "error of the others of Fig. 7"),
    }
    text = {
        "amplitude": "amplitude, 255 at the largest",
        "phase": "true phase",
        "made": "phase of the network",
    }
    # Of the first seed only.
    kept = 1 if parameters.seed == 0 else 0
    for name, values in images.items():
        found[name] = quantity(kept * values, "1", text[name], ("crystal", "y", "x"))
    return xr.Dataset(found, {"crystal": quantity(names, "1", "crystal of Fig. 7", ("crystal",))})


def _turns(phase: Tensor) -> np.ndarray:
    """Return phases in 256ths of a turn."""
    turns = (phase / (2 * math.pi) * 256).round().long() % 256
    return turns.to(torch.uint8).numpy()
