"""Whether the defoci of a series of atoms are in the order of its images.

Three images tell a wave, and the wave what every image would look like at every defocus. So each image finds
the defocus that explains it, all of them together, as an assignment; the wave is found anew with what came
out, and so on until nothing changes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from exitwave.errors import InputError
from exitwave.retrieve.alignment import align, coarser
from exitwave.retrieve.focal_series import retrieve_wave
from exitwave.retrieve.lens import FreeLens, Lens
from exitwave.units import length_text

_TURNED = 0.85  # of the deviance: what another order must reach at least
_EXPLAINED = 1 / _TURNED  # deviance that no order can better so much, for noise leaves 1
_MIDDLE = 24.0  # Å: so much of the field tells an order
_MARGIN, _EVALUATIONS = 3.2, 25  # Å; of the fit of three images
_ROUNDS = 4
_NAMED = 4  # images that a warning names at most
_CLOSEST = 0.999  # correlation that counts as perfect


def check_order(measured: Tensor, lens: Lens, *, dose: float, periodic: bool = False) -> str | None:
    """Return a warning if atoms explain the images better with their defoci in another order, else None.

    Parameters
    ----------
    measured : Tensor, shape (image, y, x)
        Over vacuum; they may be displaced.
    lens : Lens
        One defocus for each image, as it is listed.
    dose : float
        Electrons per pixel and image.
    periodic : bool
        Whether the field repeats beyond its borders.

    Returns
    -------
    str or None
        One line that says which images are better explained at which defoci.

    Notes
    -----
    Displacements are found for each order anew, for in a wrong one they are wrong, and hide it. Up to three
    images are tried in all orders, if what was given leaves more than noise in the middle of the field.

    Of more, three from the least, the middle and the greatest third of the defoci are aligned. Their wave
    predicts every image at every defocus; the assignment that is likeliest is looked at next, and so on, four
    times at most, and as often from the reverse if that explains too little. The last word has the deviance
    of three of the images that would change: it must fall by 15%. An exchange of neighbours that differ less
    than noise is not seen, nor, always, a long series that is turned by one place (six images of the tests).

    A series in order costs one alignment of three images and a fit of them, whatever its length, and none
    more than ten alignments and eight fits.
    """
    if len(measured) < 2:
        return None
    side = round(_MIDDLE / lens.sampling)
    whole = min(measured.shape[-2:]) <= side
    images = measured if whole else _cropped(measured, side)
    series = _Series(images, replace(lens, shift=None), dose, periodic and whole)
    listed = lens.defocus.tolist()
    found = _of_few(series, listed) if len(listed) <= 3 else _of_many(series, listed)
    return None if found is None else _told(listed, found)


@dataclass(frozen=True)
class _Series:
    """Images of the middle of the field."""

    images: Tensor
    lens: Lens
    dose: float
    periodic: bool

    def deviance(self, some: Sequence[int], defoci: Sequence[float]) -> float:
        """Return what some of the images leave at defoci, displacements found; infinity if too far."""
        lens = replace(self.lens, defocus=torch.tensor(defoci, dtype=torch.float64))
        try:
            return align(self.images[list(some)], lens, dose=self.dose, periodic=self.periodic).deviance
        except InputError:
            return math.inf


def _of_few(series: _Series, listed: list[float]) -> list[float] | None:
    """Return another order of all defoci that explains the images better."""
    every = list(range(len(listed)))
    given = series.deviance(every, listed)
    if given < _EXPLAINED:
        return None
    others = [list(each) for each in itertools.permutations(listed)][1:]
    left, best = min((series.deviance(every, each), each) for each in others)
    return best if left <= _TURNED * given else None


@dataclass(frozen=True)
class _State:
    """Defoci of all images, how little they explain them (the less the better), and better ones."""

    defoci: list[float]
    deviance: float
    badness: float
    better: list[float]


def _of_many(series: _Series, listed: list[float]) -> list[float] | None:
    """Return defoci in another order that explain more than three images better."""
    best = min(_settled(series, listed), key=lambda state: state.badness)
    if best.deviance > _EXPLAINED:
        ranked = sorted(listed)
        mirrored = [ranked[-1 - ranked.index(each)] for each in best.defoci]
        best = min([best, *_settled(series, mirrored)], key=lambda state: state.badness)
    changed = [i for i, (one, other) in enumerate(zip(listed, best.defoci, strict=True)) if one != other]
    if not changed:
        return None
    judges = _judges(best.defoci, changed)
    given, found = (series.deviance(judges, [each[i] for i in judges]) for each in (listed, best.defoci))
    return best.defoci if found <= _TURNED * given else None


def _thirds(defoci: Sequence[float]) -> list[int]:
    """Return the images in the middle of the least, the middle and the greatest third of the defoci."""
    ranked = sorted(range(len(defoci)), key=lambda i: defoci[i])
    return [ranked[round(share * len(ranked) - 0.5)] for share in (1 / 6, 1 / 2, 5 / 6)]


def _judges(defoci: Sequence[float], changed: Sequence[int]) -> list[int]:
    """Return three images: of those that change the outermost and the middle one, or what is far off."""
    ranked = sorted(changed, key=lambda i: defoci[i])
    chosen = list(dict.fromkeys((ranked[0], ranked[-1], ranked[len(ranked) // 2])))
    while len(chosen) < 3:
        rest = [i for i in range(len(defoci)) if i not in chosen]
        chosen.append(max(rest, key=lambda i: min(abs(defoci[i] - defoci[j]) for j in chosen)))
    return chosen


def _settled(series: _Series, defoci: list[float]) -> list[_State]:
    """Return the states from a start until nothing changes."""
    states: list[_State] = []
    while len(states) < _ROUNDS and defoci not in [state.defoci for state in states]:
        try:
            states.append(_looked_at(series, defoci))
        except InputError:  # too far displaced, or nothing to fit
            states.append(_State(defoci, math.inf, math.inf, defoci))
        defoci = states[-1].better
    return states


def _looked_at(series: _Series, defoci: list[float]) -> _State:
    """Return how well defoci explain the images, and the assignment that explains them best."""
    few = _thirds(defoci)
    some, lens = series.images[few], replace(
        series.lens, defocus=torch.tensor([defoci[i] for i in few], dtype=torch.float64)
    )  # fmt: skip
    found = align(some, lens, dose=series.dose, periodic=series.periodic)
    small, coarse, counted = coarser(series.images, replace(lens, shift=found.shift), series.dose)
    reach = _MARGIN + float(found.shift.abs().max())
    fit = retrieve_wave(
        small[few], coarse, dose=counted, free=("astigmatism", "coma", "shift"), planes=1,
        margin=0 if series.periodic else math.ceil(reach / coarse.sampling), evaluations=_EVALUATIONS,
    )  # fmt: skip
    size = int(fit.wave.shape[0]), int(fit.wave.shape[1])

    def predicted(planes: list[float]) -> Tensor:
        seen = replace(fit.lens, defocus=torch.tensor(planes, dtype=torch.float64), shift=None)
        return FreeLens(seen, (), size, fit.wave.device).images(fit.wave)

    badness, better = _assigned(small, predicted, defoci)
    return _State(defoci, found.deviance, badness, better)


def _assigned(
    images: Tensor, predicted: Callable[[list[float]], Tensor], defoci: list[float]
) -> tuple[float, list[float]]:
    """Return how little the defoci explain the images, and the assignment of them that explains the most.

    Three images that are all one place off are those of a wave in another plane; so planes are tried, too.
    """
    count = len(defoci)
    step = (max(defoci) - min(defoci)) / (count - 1)
    moved = [step * n for n in range(-(count // 2), count // 2 + 1)]
    planes = sorted({_plane(each, by) for each in defoci for by in moved})
    column = {plane: place for place, plane in enumerate(planes)}
    unlike = _unlikeness(images, predicted(planes))
    tables = [unlike[:, [column[_plane(each, by)] for each in defoci]].numpy() for by in moved]
    places = [linear_sum_assignment(table) for table in tables]
    total = [float(table[place].sum()) for table, place in zip(tables, places, strict=True)]
    # Of planes that explain them alike that of the list.
    best = min(range(len(moved)), key=lambda n: (round(total[n], 6), abs(moved[n])))
    return float(tables[count // 2].trace()), [defoci[place] for place in places[best][1].tolist()]


def _plane(defocus: float, moved: float) -> float:
    return round(defocus + moved, 6)


def _unlikeness(images: Tensor, predicted: Tensor) -> Tensor:
    """Return ln(1 - c²) of the best correlation of images with predictions, shape (image, prediction).

    Parameters
    ----------
    images : Tensor, shape (image, y, x)
    predicted : Tensor, shape (prediction, y, x)
        Both fade to their edges first, for displaced images show other things there.
    """
    height, width = images.shape[-2:]
    window = torch.hann_window(height, periodic=False)[:, None] * torch.hann_window(width, periodic=False)

    def spectra(some: Tensor) -> Tensor:
        faded = (some - some.mean((1, 2), keepdim=True)) * window.to(some)
        faded = faded - faded.mean((1, 2), keepdim=True)
        made: Tensor = torch.fft.rfft2(
            faded / faded.square().sum((1, 2), keepdim=True).sqrt().clamp_min(1e-12)
        )
        return made

    given, modelled = spectra(images), spectra(predicted).conj()
    best = torch.stack([torch.fft.irfft2(each * modelled, s=(height, width)).amax((1, 2)) for each in given])
    return torch.log1p(-best.clamp(0, _CLOSEST).square()).double().cpu()


def _told(listed: list[float], found: list[float]) -> str:
    """Say which images are explained better at which other defoci."""
    ranked = sorted(range(len(listed)), key=lambda i: listed[i])
    if [found[i] for i in ranked] == [listed[i] for i in ranked[::-1]]:
        return (
            "atoms explain the images better with the defoci in reverse order, or of the other sign: check "
            "order and sign, underfocus is positive, and the spherical aberration"
        )
    places = [i for i, (one, other) in enumerate(zip(listed, found, strict=True)) if one != other]
    meant = ", ".join(f"image {i + 1} at {length_text(found[i])}" for i in places[:_NAMED])
    more = f" and {len(places) - _NAMED} more elsewhere" if len(places) > _NAMED else ""
    hint = " (they are as if sorted by name, 1, 10, 2)" if _by_name(listed, found) else ""
    return (
        f"atoms explain the images better with {meant}{more}{hint}: check the order of the defoci, and of "
        "the files"
    )


def _by_name(listed: list[float], found: list[float]) -> bool:
    """Return whether images, or their defoci, stand where their numbers stand as words, from 0 or from 1."""

    def orders() -> Iterable[list[int]]:
        for first in (0, 1):
            numbers = sorted(range(first, len(listed) + first), key=str)
            order = [number - first for number in numbers]
            yield order
            yield [order.index(i) for i in range(len(order))]

    return any(found == [listed[i] for i in order] for order in orders() if order != sorted(order))


def _cropped(images: Tensor, side: int) -> Tensor:
    """Return the middle of images."""
    top, left = ((size - min(size, side)) // 2 for size in images.shape[-2:])
    return images[:, top : top + side, left : left + side]
