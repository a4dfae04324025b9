"""Ptychography that begins with an image of another method: how many epochs that saves."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from exitwave.networks.training import Training
from exitwave.papers.cao2020 import methods
from exitwave.papers.cao2020.judge import judge
from exitwave.papers.cao2020.parameters import Parameters
from exitwave.papers.cao2020.scene import Scan, counted, expected, sampled, training_specimen
from exitwave.papers.cao2020.transfer import unseen_region
from exitwave.papers.quantities import quantity
from exitwave.retrieve import ptychography

_PLAIN = Training()
# What an object begins as.
STARTS = ("empty", "com", "linear", "conv")
# Lengths of the retrievals, of which each is planned as such: steps fall to nothing at its end.
EPOCHS = (1, 2, 3, 4, 6, 8, 10)


def head_start(parameters: Parameters, device: str = "cpu", *, how: Training = _PLAIN) -> xr.Dataset:
    """Begin ptychography of MoS2 with images of other methods, for several numbers of epochs.

    Both networks learn from the ptychography of the upper half, as in
    :func:`exitwave.papers.cao2020.transfer.transfer`; judged is the lower half.

    Returns
    -------
    xarray.Dataset
        ``error`` (rad, ``start``, ``epoch``) of the phase, ``likeness`` and ``loss``, of the last epoch;
        ``before``, the error (rad, ``start``) of what each begins with. For each of STARTS but the empty
        object ``START_epochs``, the fewest that leave an error as small as the empty object's after all
        epochs, nan where none does. ``fraction`` of the network's planned steps.
    """
    [scan] = expected(parameters, [training_specimen(parameters)], device)
    counts = counted(parameters, scan, torch.Generator().manual_seed(1000 * parameters.seed))
    seen = methods.shares(parameters, counts, scan)
    half = parameters.scan // 2
    taught = methods.label(parameters, counts[:half], scan, device).phase
    conv = methods.convolutional(parameters, seen[:half], taught, device, how=how)
    images = {
        "empty": torch.zeros(parameters.scan, parameters.scan, dtype=torch.float64),
        "com": methods.centre_of_mass(parameters, counts, scan),
        "linear": methods.linear(parameters, seen[:half], taught).image(seen),
        "conv": conv.image(seen),
    }
    region = unseen_region(parameters)
    table: dict[str, list[list[float]]] = {"error": [], "likeness": [], "loss": []}
    for name in STARTS:
        rows = [continued(parameters, counts, scan, images[name], each, device) for each in EPOCHS]
        scores = [judge(phase, scan, region, phase=True) for phase, _ in rows]
        table["error"].append([each.error for each in scores])
        table["likeness"].append([each.likeness for each in scores])
        table["loss"].append([loss for _, loss in rows])
    before = [judge(images[name], scan, region, phase=True).error for name in STARTS]
    of = ("start", "epoch")
    result = xr.Dataset(
        {
            "error": quantity(table["error"], "rad", "phase error after so many epochs", of),
            "likeness": quantity(table["likeness"], "1", "structural similarity with the truth", of),
            "loss": quantity(table["loss"], "1", "deviance of counts over their mean, last epoch", of),
            "before": quantity(before, "rad", "phase error of the start", ("start",)),
            "fraction": quantity(conv.fraction, "1", "share of the planned steps"),
        }
    )
    for name, errors in zip(STARTS[1:], table["error"][1:], strict=True):
        text = f"epochs from {name} to the error of the empty object after {EPOCHS[-1]}"
        result[f"{name}_epochs"] = quantity(enough(errors, table["error"][0][-1]), "1", text)
    return result.assign_coords(
        start=quantity(list(STARTS), "1", "what ptychography begins with", ("start",)),
        epoch=quantity(list(EPOCHS), "1", "epochs of ptychography", ("epoch",)),
    )


def enough(errors: list[float], wanted: float) -> float:
    """Return the fewest of EPOCHS whose error is at most what is wanted; nan where none is."""
    return next(
        (float(each) for each, error in zip(EPOCHS, errors, strict=True) if error <= wanted), float("nan")
    )


def continued(
    parameters: Parameters, counts: Tensor, scan: Scan, image: Tensor, epochs: int, device: str = "cpu"
) -> tuple[Tensor, float]:
    """Return the phase (scan_y, scan_x), rad, and the loss of ptychography that begins with an image.

    Parameters
    ----------
    parameters : Parameters
    counts : Tensor, shape (scan_y, scan_x, ky, kx)
    scan : Scan
    image : Tensor, shape (scan_y, scan_x)
        A phase at the positions of the probe, rad.
    epochs : int
    device : str
    """
    measured, first, sampling = methods.started(parameters, counts.to(device), scan)
    first = replace(first, slices=under_probe(image, first, sampling, scan))
    found = ptychography.retrieve(
        measured, first, sampling, generator=torch.Generator().manual_seed(parameters.seed), epochs=epochs
    )
    phase = methods.passed(found.slices.prod(0).cpu().angle().double(), sampling, scan.step).numpy()
    at = (found.positions.cpu().double() / sampling).numpy()
    made = sampled(phase, at).reshape(counts.shape[:2])
    return torch.as_tensor(methods.without_plane(made)), float(found.loss[-1])


def under_probe(image: Tensor, first: ptychography.Reconstruction, sampling: float, scan: Scan) -> Tensor:
    """Return an object (1, field_y, field_x) of such a phase, flat beyond the positions of the scan.

    Parameters
    ----------
    image : Tensor, shape (scan_y, scan_x)
        rad.
    first : exitwave.retrieve.ptychography.Reconstruction
        With the field and the positions, which do not drift.
    sampling : float
        Of the field, Å.
    scan : Scan
    """
    from scipy import ndimage

    values = image.double().cpu().numpy()
    values = values - values.mean()
    rows, columns = (torch.arange(n, dtype=torch.float64) * sampling for n in first.slices.shape[1:])
    begin = first.positions[0].cpu().double()
    at = np.stack(
        np.meshgrid(
            ((rows - begin[0]) / scan.step[0]).numpy(), ((columns - begin[1]) / scan.step[1]).numpy(),
            indexing="ij",
        )
    )  # fmt: skip
    phase = torch.as_tensor(ndimage.map_coordinates(values, at, order=3, mode="constant"))
    return torch.polar(torch.ones_like(phase), phase)[None].to(first.slices)
