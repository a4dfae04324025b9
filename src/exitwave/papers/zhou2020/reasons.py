"""What two claims about many conditions compare, and no more, so that their reasons are tried in minutes."""

from __future__ import annotations

import math

import torch
import xarray as xr

from exitwave.papers.zhou2020.judge import evaluate, quantity, table
from exitwave.papers.zhou2020.parameters import Parameters
from exitwave.papers.zhou2020.scene import Scene, retrieve_gradient, retrieve_tie, simulate

# As in Fig. 5a, of a pair; four images of equal dose have more each by the square root of 2.
NOISE = 0.1


def few_conditions(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Judge the paper's two methods where "keeps its accuracy" and "phase gradient" look.

    The images are those of the study of all conditions; the steps of Adam are those of the parameters.

    Returns
    -------
    xarray.Dataset
        ``gradient_moderate_0_*``, ``gradient_moderate_10_*``, ``gradient_hybrid_10_*``,
        ``tie_moderate_10_*`` and ``tie_strong_10_*`` for each of ``QUANTITIES`` in
        :mod:`exitwave.papers.zhou2020.judge`; ``accuracy_lost`` and ``correlation_lost``, what noise takes
        from the gradient retrieval at moderate defocus.
    """
    clean = simulate(parameters.changed(focus="moderate", images=2, noise=0.0), device)
    moderate = simulate(parameters.changed(focus="moderate", images=2, noise=NOISE), device)
    strong = simulate(parameters.changed(focus="strong", images=2, noise=NOISE), device)
    hybrid = simulate(parameters.changed(focus="hybrid", images=4, noise=NOISE * math.sqrt(2)), device)

    def descended(scene: Scene) -> torch.Tensor:
        return retrieve_gradient(scene, parameters.iterations)[0]

    found = {
        "gradient_moderate_0": evaluate(descended(clean), clean),
        "gradient_moderate_10": evaluate(descended(moderate), moderate),
        "gradient_hybrid_10": evaluate(descended(hybrid), hybrid),
        "tie_moderate_10": evaluate(retrieve_tie(moderate), moderate),
        "tie_strong_10": evaluate(retrieve_tie(strong), strong),
    }
    result = table(found)
    for name in ("accuracy", "correlation"):
        lost = found["gradient_moderate_0"][name] - found["gradient_moderate_10"][name]
        result[f"{name}_lost"] = quantity(lost, "1", f"{name} lost by 10% noise, moderate defocus")
    return result
