"""Whether the losses of sharded deep holography (Appendix A) can know a phase, asked without a network."""

from __future__ import annotations

import torch
import xarray as xr
from torch import Tensor

from exitwave.networks.sharded import Scaled, defocused
from exitwave.networks.sharded_tasks import inside
from exitwave.papers.ede2020.parameters import Parameters
from exitwave.papers.ede2020.sharded import EDGE, Shards, guesses, ranges_of, shards, unseen_crops
from exitwave.papers.quantities import quantity


def traits(images: Tensor, known: Tensor, *, told: bool) -> Tensor:
    """Return what a judge without a network sees of moduli, shape (sample, trait), float64.

    1, mean, standard deviation, skewness, fourth moment and steepness, each of them times 1, defocus, its
    square, energy, depth and pixel size, with |defocus| in place of defocus where its sign is not told.

    Parameters
    ----------
    images : Tensor, shape (sample, y, x)
    known : Tensor, shape (sample, 4)
        Metadata, scaled to -1..1.
    told : bool
    """
    x, known = images.double().flatten(1), known.double()
    deviation = x.std(1)
    z = (x - x.mean(1, keepdim=True)) / deviation[:, None]
    steep = (images.diff(dim=1).square().mean((1, 2)) + images.diff(dim=2).square().mean((1, 2))).double()
    one = torch.ones_like(deviation)
    of_image = torch.stack([one, x.mean(1), deviation, z.pow(3).mean(1), z.pow(4).mean(1), steep.log()], 1)
    defocus = known[:, 0] if told else known[:, 0].abs()
    of_known = torch.stack([one, defocus, defocus.square(), *known[:, 1:].T], 1)
    return (of_image[:, :, None] * of_known[:, None]).flatten(1)


# Keeps the least squares of the judge finite.
_RIDGE = 1e-3


def judged(real: list[Tensor], false: list[Tensor]) -> float:
    """Return the loss of Eq. 30 of the best linear judge of traits: fitted to the first, tried on the last.

    A judge that cannot tell has 1/2, one that is never wrong 0.
    """
    fitted = torch.cat([real[0], false[0]])
    mean, deviation = fitted.mean(0), fitted.std(0) + 1e-12
    target = torch.cat([torch.zeros(len(real[0])), torch.ones(len(false[0]))]).double() - 0.5
    x = (fitted - mean) / deviation
    weights = torch.linalg.solve(
        x.T @ x + _RIDGE * len(x) * torch.eye(x.shape[1], dtype=x.dtype), x.T @ target
    )
    on_real, on_false = (((each[-1] - mean) / deviation) @ weights + 0.5 for each in (real, false))
    return float(on_real.square().mean() + (on_false - 1).square().mean())


def sharded_losses(parameters: Parameters, device: str = "cpu") -> xr.Dataset:
    """Ask without a network whether Eqs. 30 and 31 know the phase.

    A wave ψ at defocus c has the image of ψ* at -c. Where metadata tell |c| only, and defoci of both signs
    are as frequent, both terms are the same for a generator of ψ*.

    Returns
    -------
    xarray.Dataset
        ``mirrored``: largest difference of moduli of ψ at c and ψ* at -c, float64. The loss of Eq. 30 of a
        judge of simple traits for faux images of the true waves, ``true_judged``, of a constant phase,
        ``constant_judged`` and, brought back to focus, ``start_judged``, and of conjugated waves,
        ``conjugated_judged``; ``untold_judged`` of those where the sign of the defocus is not told: 1/2 if
        they pass for real. ``constant_cycle``, ``start_cycle``: the second term of Eq. 31 (λ = 1) of
        generators that answer so, where one of the truth has 0, as has one with a single answer.
    """
    sets = [unseen_crops(parameters, shards(parameters, s, device)) for s in ("train", "parameters")]
    edge, scaled = parameters.pixels // EDGE, Scaled(ranges_of(parameters))
    last = sets[-1]
    double, mirror = last.waves.to(torch.complex128), last.foci * torch.tensor([-1.0, 1, 1, 1])
    apart = defocused(double, last.foci).abs() - defocused(double.conj().resolve_conj(), mirror).abs()

    def told(moduli: list[Tensor], of: str, sign: bool) -> list[Tensor]:
        return [
            traits(inside(each, edge), scaled(getattr(crops, of)), told=sign)
            for each, crops in zip(moduli, sets, strict=True)
        ]

    def tried(waves: list[Tensor], sign: bool = True) -> float:
        images = [defocused(each, crops.foci).abs() for each, crops in zip(waves, sets, strict=True)]
        return judged(told([crops.images for crops in sets], "metadata", sign), told(images, "foci", sign))

    still = [guesses(crops) for crops in sets]
    conjugated = [crops.waves.conj().resolve_conj() for crops in sets]
    verdicts = {
        "true": tried([crops.waves for crops in sets]),
        "constant": tried([each["constant"] for each in still]),
        "start": tried([each["start"] for each in still]),
        "conjugated": tried(conjugated),
        "untold": tried(conjugated, sign=False),
    }
    result = xr.Dataset({"mirrored": quantity(float(apart.abs().max()), "1", "of mirrored images, apart")})
    for name, value in verdicts.items():
        result[f"{name}_judged"] = quantity(value, "1", f"loss of a judge of images of waves, {name}")
    for name, wave in still[-1].items():
        faux = Shards(defocused(wave, last.foci).abs(), last.foci, last.waves, last.others, last.foci)
        cycle = inside(wave - guesses(faux)[name], edge).abs().square().mean()
        result[f"{name}_cycle"] = quantity(float(cycle), "1", f"cycle term of waves, {name}")
    result["samples"] = quantity(len(last.images), "1", "crops judged")
    return result
