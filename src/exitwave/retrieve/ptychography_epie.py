"""Ptychography by ePIE, the classical reference: Maiden and Rodenburg, Ultramicroscopy 109, 1256 (2009).

Each pattern is taken for true, noise and all: with few electrons it need not converge.
"""

from __future__ import annotations

import torch
from torch import Tensor

from exitwave.errors import InputError
from exitwave.retrieve.ptychography import Observe, Reconstruction, check
from exitwave.simulate import scanning


def epie(
    measured: Tensor, start: Reconstruction, sampling: float | tuple[float, float], *,
    generator: torch.Generator, epochs: int = 50, steps: tuple[float, float] = (1.0, 1.0),
    observe: Observe | None = None,
) -> Reconstruction:  # fmt: skip
    r"""Retrieve object and probe by ePIE, one position after the other in random order.

    With ψ = P O and ψ' that of the measured modulus,

    .. math:: O \leftarrow O + α \frac{P^*}{\max|P|^2} (ψ' - ψ), \qquad
        P \leftarrow P + β \frac{O^*}{\max|O|^2} (ψ' - ψ).

    Parameters
    ----------
    measured, start, sampling, generator, epochs, observe
        As for :func:`exitwave.retrieve.ptychography.retrieve`, of one slice and one mode.
    steps : (float, float)
        α and β; the probe under an empty object is held for the first epoch, and for all with β = 0.

    Returns
    -------
    exitwave.retrieve.ptychography.Reconstruction
        The loss is that of :func:`exitwave.retrieve.ptychography.amplitude_loss`.

    Raises
    ------
    InputError
        As :func:`exitwave.retrieve.ptychography.retrieve`, and for several slices or modes.
    """
    check(measured, start)
    if len(start.slices) > 1 or len(start.probe) > 1:
        raise InputError(
            f"ePIE through {len(start.slices)} slices with {len(start.probe)} modes: use retrieve for several"
        )
    if epochs < 1:
        raise InputError(f"{epochs} epochs: use 1 or more")
    thing, beam, moduli = start.slices[0].clone(), start.probe.clone(), measured.clamp_min(0).sqrt()
    positions, waits, means = start.positions.to(measured), len(start.loss) == 0, []
    for epoch in range(epochs):
        total = 0.0
        for i in torch.randperm(len(measured), generator=generator).tolist():
            seen = scanning.window(positions[i : i + 1], sampling, beam.shape[1:], thing.shape)
            moved, patch = scanning.moved(beam, seen.rest, sampling)[0], seen.cut(thing)
            wave = moved * patch
            far = torch.fft.fft2(wave, norm="ortho")
            total += 4 * float((far.abs() - moduli[i]).square().sum())
            change = torch.fft.ifft2(torch.polar(moduli[i], far.angle()[0]), norm="ortho") - wave
            thing = thing + seen.spread(
                steps[0] * moved.conj() / moved.abs().square().max() * change, thing.shape
            )
            if epoch >= waits and steps[1]:
                back = steps[1] * patch.conj() / patch.abs().square().max() * change
                beam = beam + scanning.moved(back, -seen.rest, sampling)[0]
        means.append(total / float(measured.sum()))
        if observe is not None:
            observe(epoch + 1, means[-1])
    loss = torch.cat([start.loss.to(measured), measured.new_tensor(means)])
    return Reconstruction(thing[None], beam, positions, loss)
