"""The phases behind the numbers: one specimen at every focus, noise and method (Figs. 2, S4, S5)."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr

from exitwave.papers.zhou2020.judge import quantity
from exitwave.papers.zhou2020.parameters import Parameters
from exitwave.papers.zhou2020.scene import retrieve_better, retrieve_gradient, retrieve_tie, simulate

FOCUSES = ("moderate", "strong", "hybrid")
NOISES = (0.0, 0.05, 0.1, 0.2)
METHODS = ("tie", "gradient", "fit")
STEPS = 500  # of Adam, at most
PIXELS = 170  # along each side of what is kept, at most
MILLIRADIAN = 1e-3


def reduced(phase: torch.Tensor) -> np.ndarray:
    """Return a phase as an angle about its median in whole mrad, int16, binned to :data:`PIXELS`."""
    factor = -(-phase.shape[-1] // PIXELS)
    turned = torch.polar(torch.ones_like(phase), phase - phase.median()).cpu()
    parts = torch.view_as_real(turned).permute(2, 0, 1)[None]
    real, imaginary = torch.nn.functional.avg_pool2d(parts, factor)[0]
    return np.round(torch.atan2(imaginary, real).numpy() / MILLIRADIAN).astype(np.int16)


def gallery(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Retrieve one specimen at every focus and noise by every method, at equal dose.

    Returns
    -------
    xarray.Dataset
        ``phase`` (focus, noise, method, y, x) and ``truth`` (y, x) in mrad, angles about the median.
    """
    rows = []
    for focus in FOCUSES:
        images = 4 if focus == "hybrid" else 2
        for noise in NOISES:
            sigma = float(noise * np.sqrt(images / 2))
            scene = simulate(parameters.changed(focus=focus, images=images, noise=sigma), device)
            descended, _ = retrieve_gradient(scene, min(parameters.iterations, STEPS))
            phases = (retrieve_tie(scene), descended, retrieve_better(scene).phase)
            rows.append(np.stack([reduced(phase) for phase in phases]))
    truth = reduced(scene.truth.float())
    stack = np.stack(rows).reshape(len(FOCUSES), len(NOISES), len(METHODS), *truth.shape)
    return xr.Dataset(
        {
            "phase": quantity(stack, "mrad", "retrieved phase", ("focus", "noise", "method", "y", "x")),
            "truth": quantity(truth, "mrad", "true phase", ("y", "x")),
        },
        coords={
            "focus": quantity(list(FOCUSES), "1", "kind of defocus", ("focus",)),
            "noise": quantity(list(NOISES), "1", "noise of a pair of equal dose", ("noise",)),
            "method": quantity(list(METHODS), "1", "method", ("method",)),
        },
    )
