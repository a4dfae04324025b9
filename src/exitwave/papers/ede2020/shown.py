"""What better networks are shown and told: waves in a fixed gauge, conditions, aberrated and noisy images.

What no amplitude knows is the global phase of its wave. Here it is fixed: the mean of a wave is positive.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from exitwave.networks.training import Batch
from exitwave.optics.aberrations import Aberrations
from exitwave.optics.transfer import transfer_function
from exitwave.papers.ede2020 import judge
from exitwave.papers.ede2020.data import VOLTAGES, Recipe, Samples, draw, library, partition
from exitwave.papers.ede2020.parameters import Parameters
from exitwave.papers.ede2020.prediction import SETS
from exitwave.papers.ede2020.training import crops_of
from exitwave.retrieve.one_shot import SAMPLING, conditions_of, in_gauge
from exitwave.simulate.imaging import add_poisson_noise, images

# Crops of the unseen sets are the same for every network, as are their foci, doses and noise.
_UNSEEN_SEED = 224
# Of images: pixels at each edge that defocus spoils, since the field wraps around, and the standard deviation
# of the defocus, Å. At 100 Å what comes from beyond 48 pixels is below a thousandth of the contrast.
EDGE, _FOCAL_SPREAD = 48, 20.0
# Conditions of images are given over these: Å, and per Å² the logarithm.
_DEFOCUS, _DOSE = 100.0, 1e4


def conditions_of_image(told: Tensor, defocus: Tensor, dose: Tensor) -> Tensor:
    """Return the conditions (sample, 5) of images: also defocus (Å) and dose (electrons per Å²)."""
    more = torch.stack([defocus / _DEFOCUS, (dose / _DOSE).log10()], 1).float()
    return torch.cat([told, more], 1)


def told(recipes: list[Recipe]) -> Tensor:
    """Return the conditions of waves, shape (sample, 3)."""
    known = [(each.exposure.energy, each.exposure.depth, each.sampling) for each in recipes]
    return torch.stack([conditions_of(*each) for each in known])


def recipes_of(parameters: Parameters, split: str) -> list[Recipe]:
    """Return the recipes of the waves of a split, in their order."""
    seen, unseen = partition(library(parameters))
    count = parameters.waves if split == "train" else parameters.unseen
    crystals = len(unseen) if split == "materials" else 1 if parameters.scope == "single" else len(seen)
    return [draw(parameters, crystals, split, i) for i in range(count)]


def plain(parameters: Parameters) -> Parameters:
    """Return parameters that have the same waves, with all that is only of networks as the scale has it."""
    same = type(parameters).at(parameters.scale)
    names = ("better", "shown", "unet_depth", "greatest_defocus", "least_dose", "greatest_dose")
    return parameters.changed(**{name: getattr(same, name) for name in names})


def shown(parameters: Parameters, waves: Tensor, conditions: Tensor, generator: torch.Generator) -> Batch:
    """Return what a network sees and learns, of a crop of each wave.

    Of images the field wraps around: where it has room, 48 pixels at each edge are left out of crops.

    Parameters
    ----------
    waves : Tensor, shape (sample, y, x), complex64
    conditions : Tensor, shape (sample, 3)
        As :func:`told` has them.
    generator : torch.Generator
        Draws crops and, of images, foci, doses and electrons.

    Returns
    -------
    dict
        ``input`` (sample, 1, y, x), the modulus, or that of a noisy image; ``target`` (sample, 2, y, x):
        phase components of a modulus, wave components of an image, in the gauge; ``conditions``; ``wave``,
        the crop.
    """
    if parameters.shown == "modulus":
        crops = crops_of(waves, parameters.crop, generator)
        batch = {"input": crops.abs()[:, None], "target": judge.components(in_gauge(crops).angle())}
        return batch | {"conditions": conditions, "wave": crops}
    defocus = parameters.greatest_defocus * (2 * torch.rand(len(waves), generator=generator) - 1)
    ends = np.log10([parameters.least_dose, parameters.greatest_dose])
    dose = 10 ** (ends[0] + (ends[1] - ends[0]) * torch.rand(len(waves), generator=generator))
    noisy = taken(waves, conditions, defocus, dose, generator)
    # The crop of an image is that of its wave.
    twin = torch.Generator()
    twin.set_state(generator.get_state())
    edge = min(EDGE, (parameters.field - parameters.crop) // 2)
    inner = (slice(None), *2 * (slice(edge, parameters.field - edge),))
    seen = crops_of(noisy[inner], parameters.crop, twin)
    crops = crops_of(waves[inner], parameters.crop, generator)
    gauged = in_gauge(crops)
    return {
        "input": seen[:, None], "target": torch.stack([gauged.real, gauged.imag], 1),
        "conditions": conditions_of_image(conditions, defocus.to(waves.device), dose.to(waves.device)),
        "wave": crops,
    }  # fmt: skip


def taken(
    waves: Tensor, conditions: Tensor, defocus: Tensor, dose: Tensor, generator: torch.Generator
) -> Tensor:
    """Return square roots of noisy images of waves, over their mean; the field counts as periodic.

    Parameters
    ----------
    waves : Tensor, shape (sample, y, x)
    conditions : Tensor, shape (sample, 3)
    defocus, dose : Tensor, shape (sample,)
        Å, underfocus positive; electrons per Å².
    """
    found = []
    for wave, known, focus, electrons in zip(waves, conditions, defocus, dose, strict=True):
        sampling = SAMPLING * (1 + float(known[2]))
        transfer = transfer_function(
            tuple(wave.shape), sampling, energy=_energy(float(known[0])),
            aberrations=Aberrations(C10=-float(focus)), focal_spread=_FOCAL_SPREAD, device=wave.device,
        )  # fmt: skip
        image = images(wave, transfer[None])[0]
        found.append(add_poisson_noise(image, float(electrons), (sampling, sampling), generator).sqrt())
    return torch.stack([each / each.mean().clamp_min(1e-12) for each in found])


def _energy(strength: float) -> float:
    """Return the energy (eV) of a first condition: one of the paper's three."""
    return min(VOLTAGES, key=lambda each: abs(float(conditions_of(each, 0.0, 0.0)[0]) - strength))


def unseen(parameters: Parameters, samples: Samples) -> dict[str, Batch]:
    """Return crops of the unseen sets as :func:`shown` has them; those of moduli are the ones of Table 2."""
    found = {}
    for name in SETS:
        waves = samples.train if name == "transforms" else getattr(samples, name)
        conditions = told(recipes_of(parameters, "train" if name == "transforms" else name))
        generator = torch.Generator().manual_seed(_UNSEEN_SEED)
        order = torch.randperm(len(waves), generator=generator).repeat(-(-parameters.examples // len(waves)))
        chosen = order[: parameters.examples]
        found[name] = shown(parameters, waves[chosen], conditions[chosen], generator) | {"chosen": chosen}
    return found
