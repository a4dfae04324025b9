"""The study of the comparison: every method on the same flake with the same number of electrons."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from exitwave.papers.comparison import specimens
from exitwave.papers.comparison.judge import Score, ring_frequencies
from exitwave.papers.comparison.methods import METHODS, Recorded, ideal, retrieved, slower, untrained
from exitwave.papers.comparison.parameters import Parameters
from exitwave.papers.quantities import quantity

# Of a score: unit and what it is.
KINDS = {
    "error": ("1", "error over the truth, root mean squares"),
    "filtered": ("1", "the same after the best round filter"),
    "longest": ("Å", "longest wave that is right"),
    "finest": ("Å", "shortest wave that is right"),
    "missing": ("1", "drop at columns that lack an atom, over the true drop"),
    "significance": ("1", "that drop over the deviation of whole columns"),
}
TRUTH = "truth"
# Of the pictures: levels 0 and 255, over the largest value of the truth. Å that are cut off at each side.
LEVELS = (-0.5, 1.2)
MARGIN = 2.8


def methods(parameters: Parameters, device: str = "cpu") -> xr.Dataset:  # noqa: ARG001
    """Retrieve the projected potential by every method from as many electrons, and judge it.

    Returns
    -------
    xarray.Dataset
        Over ``way``, a method: ``error``, ``filtered``, ``longest`` and ``finest`` (Å), ``missing``,
        ``significance`` (:class:`exitwave.papers.comparison.judge.Score`), ``electrons`` (counted, per Å²),
        ``seconds`` (of the processor); over ``way`` and ``ring`` (1/Å) ``spectral``, the error.
        ``ideal_error``: of the phase of the true wave. ``untrained_error``: of the network of three images
        given those of the energy of all others. ``slower_error``, ``slower_significance``: of the likelihood
        given the images of that network. ``image``, over ``picture`` (the truth and each method), y and x: of
        the first seed, in 8 bits between :data:`LEVELS` of the truth's largest value, ``largest`` (V Å);
        0 for other seeds.
    """
    recorded = Recorded(parameters)
    found = {name: retrieved(recorded, name) for name in METHODS}
    scores = {name: each.score for name, each in found.items()}
    result = xr.Dataset(
        {
            kind: quantity([getattr(each, kind) for each in scores.values()], unit, text, ("way",))
            for kind, (unit, text) in KINDS.items()
        }
    )
    result["electrons"] = quantity(
        [recorded.electrons(name) for name in METHODS], "1/Å^2", "electrons through the specimen", ("way",)
    )
    seconds = [each.seconds for each in found.values()]
    result["seconds"] = quantity(seconds, "s", "of the processor, for retrieval", ("way",))
    rows = np.array([each.spectral for each in scores.values()], np.float32)
    result["spectral"] = quantity(rows, "1", "error of each ring", ("way", "ring"))
    result["ideal_error"] = quantity(ideal(parameters).error, "1", "error of the phase of the true wave")
    result["untrained_error"] = quantity(untrained(recorded).error, "1", "network at another energy")
    slow = slower(recorded)
    result["slower_error"] = quantity(slow.error, "1", "likelihood at the network's energy")
    result["slower_significance"] = quantity(slow.significance, "1", "likelihood at the network's energy")
    return result.merge(_pictures(parameters, scores)).assign_coords(
        way=quantity(list(METHODS), "1", "method", ("way",)),
        ring=quantity(ring_frequencies(parameters), "1/Å", "spatial frequency", ("ring",)),
    )


def _pictures(parameters: Parameters, scores: dict[str, Score]) -> xr.Dataset:
    truth = specimens.truth(parameters)
    every = torch.stack([truth, *(each.image for each in scores.values())])
    largest = float(truth.max())
    levels = _levels(every / largest) if parameters.seed == 0 else torch.zeros_like(every, dtype=torch.uint8)
    edge = round(MARGIN / parameters.step)
    shown = levels[:, edge : parameters.scan - edge, edge : parameters.scan - edge].numpy()
    return xr.Dataset(
        {
            "image": quantity(shown, "1", "projected potential in levels", ("picture", "y", "x")),
            "largest": quantity(largest, "V Å", "largest projected potential of the truth"),
        }
    ).assign_coords(picture=quantity([TRUTH, *METHODS], "1", "what is shown", ("picture",)))


def _levels(images: Tensor) -> Tensor:
    low, high = LEVELS
    return (255 * (images - low) / (high - low)).round().clamp(0, 255).to(torch.uint8)
