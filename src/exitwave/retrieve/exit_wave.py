"""From a record of high-resolution images to a record of the exit wave."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import xarray as xr

from exitwave.errors import InputError
from exitwave.retrieve import focal_series, gerchberg_saxton, learned
from exitwave.retrieve.alignment import align
from exitwave.retrieve.focal_series import Fit
from exitwave.retrieve.lens import FREE, FreeLens, Lens
from exitwave.retrieve.wave_order import check_order
from exitwave.retrieve.wave_plausibility import check_sign, check_unit
from exitwave.retrieve.wave_record import describe
from exitwave.retrieve.wave_record import unexplained as unexplained
from exitwave.retrieve.wave_series import WaveSeries, read_series

METHODS = ("gradient", "gerchberg-saxton", "network")

_STEPS = {"gradient": 200, "gerchberg-saxton": 100, "network": 60}
_MARGIN = 32
_FREE = ("astigmatism", "coma")
# What only one method takes.
_ONLY = {
    "planes": ("gradient",), "weight": ("gradient",), "margin": ("gradient",),
    "free": ("gradient", "network"), "refine_defocus": ("gradient", "network"),
    "network": ("network",), "doubt": ("network",),
}  # fmt: skip
_SIZES = {"spherical_aberration": 1, "astigmatism": 2, "coma": 2, "threefold": 2, "mtf": 3}
_RIGID = 1e-3  # doubt in a wave that is to stay as it is

Observe = Callable[[int, float], None]
Warn = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """How to retrieve.

    Attributes
    ----------
    method : {"gradient", "gerchberg-saxton", "network"}
        ``gradient`` is :func:`exitwave.retrieve.focal_series.retrieve_wave`: maximum likelihood with atoms as
        the prior; it takes one image or several. ``gerchberg-saxton`` is
        :func:`exitwave.retrieve.gerchberg_saxton.retrieve_wave`. ``network`` is whatever `network` makes of
        the images.
    vacuum : float, optional
        Intensity of vacuum in the unit of the images; by default the mean of each image, which it is where
        the specimen absorbs nothing and all that it scatters is recorded.
    register : bool
        Find how far the images are displaced (:func:`exitwave.retrieve.alignment.align`).
    refine_defocus : bool
        Retrieve the defoci, too, relative to the first image.
    free : sequence of str, optional
        What ``gradient`` retrieves besides the wave, of ``exitwave.retrieve.lens.FREE``; astigmatism and coma
        by default. With ``network``, what is fitted to its wave to say how well that explains the images.
    planes, weight, margin : optional
        Of ``gradient``: planes of atoms (3), weight of the prior, pixels around the field for what lies
        beside it (32; 0 for a field that repeats).
    iterations : int, optional
        Evaluations of ``gradient`` (200), iterations of ``gerchberg-saxton`` (100), evaluations of the fit
        to the wave of ``network`` (60).
    dose : float, optional
        Electrons per Å² and image; by default from the noise of the images.
    spherical_aberration, astigmatism, coma, threefold
        C30, (C12a, C12b), (C21a, C21b), (C23a, C23b), Å: where they are retrieved, from where the fit starts.
    focal_spread, blur : float
        Standard deviations of the defocus, and of a Gaussian by which the intensity is blurred, Å.
    mtf : (float, float, float), optional
        c1, c2, c3 of :func:`exitwave.optics.mtf`; a perfect detector by default.
    network : callable, optional
        From images over their mean less 1, shape (1, image, y, x), in order of defocus, to the real part
        less 1 and the imaginary part of the wave, shape (1, 2, y, x).
    trained : mapping
        Parameters that the network was trained with, as its file says.
    doubt : float, optional
        Expected relative error of the wave of ``network``, by which it is changed until it explains the
        images (:func:`exitwave.retrieve.focal_series.refine_wave`); by default it stays as it is.
    device : str
        Torch device.
    """

    method: str = "gradient"
    vacuum: float | None = None
    register: bool = True
    refine_defocus: bool = False
    free: Sequence[str] | None = None
    planes: int | None = None
    weight: float | None = None
    margin: int | None = None
    iterations: int | None = None
    dose: float | None = None
    spherical_aberration: float = 0.0
    astigmatism: tuple[float, float] = (0.0, 0.0)
    coma: tuple[float, float] = (0.0, 0.0)
    threefold: tuple[float, float] = (0.0, 0.0)
    focal_spread: float = 0.0
    blur: float = 0.0
    mtf: tuple[float, float, float] | None = None
    network: learned.Network | None = None
    trained: Mapping[str, Any] = field(default_factory=dict)
    doubt: float | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"unknown method {self.method!r}: use one of {', '.join(METHODS)}")
        for name, methods in _ONLY.items():
            if getattr(self, name) and self.method not in methods:
                raise InputError(f"method {self.method} takes no {name}: leave it out, or use {methods[0]}")
        if self.method == "network" and self.network is None:
            raise InputError("method network has no network: give one, network=...")
        for name in ("vacuum", "weight", "dose", "doubt"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name} {value} is not a positive number: leave it out for the default")
        for name, least in (("planes", 1), ("margin", 0), ("iterations", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name} {value} is below {least}: use {least} or more")
        self._check_microscope()

    def _check_microscope(self) -> None:
        for name in ("focal_spread", "blur"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} {getattr(self, name)} Å is not 0 or more: use 0 for none")
        for name, count in _SIZES.items():
            value = getattr(self, name)
            if value is not None and not (np.size(value) == count and np.isfinite(value).all()):
                raise InputError(f"{name} {value}: give {count} finite number{'s'[: count > 1]}")
        for name in self.free or ():
            if name not in FREE:
                raise InputError(f"cannot retrieve {name!r}: use {', '.join(FREE)}")

    @property
    def steps(self) -> int:
        """Evaluations or iterations, for a progress bar; the last line search may take a few more."""
        return self.iterations or _STEPS[self.method]

    def freed(self, images: int) -> list[str]:
        """Return what is free with so many images."""
        names = [*(_FREE if self.free is None else self.free), *(["defocus"] * self.refine_defocus)]
        if self.method == "gerchberg-saxton":
            return []
        if self.method == "gradient" and self.register:
            names.append("shift")
        # Of one image neither can be told.
        return [name for name in dict.fromkeys(names) if images > 1 or name not in ("defocus", "shift")]


def retrieve(
    record: xr.Dataset, *, observe: Observe | None = None, warn: Warn | None = None, **options: Any
) -> xr.Dataset:
    """Retrieve the exit wave from high-resolution images at several defoci.

    Parameters
    ----------
    record : xarray.Dataset
        Layout ``images``; intensities in any unit.
    observe : callable, optional
        Called with (step, value) as the method goes on.
    warn : callable, optional
        Called at once with a text, if something looks wrong: defoci
        (:mod:`exitwave.retrieve.wave_plausibility`, :mod:`exitwave.retrieve.wave_order`),
        displacements that may be off by a period of the lattice, or images unlike those that a network was
        trained with.
    **options
        The fields of :class:`Options`.

    Returns
    -------
    xarray.Dataset
        Layout ``wave``, in the plane to which the defoci refer, with

        - for each image (``defocus``): its number ``image``; ``residual`` and ``noise``, of modelled minus
          given intensities, over the contrast of the image; ``exposure``; ``shift``;
        - what was free: ``retrieved_defocus``, ``astigmatism``, ``coma``, ``threefold``,
          ``spherical_aberration``, ``focal_spread``, ``blur``;
        - ``evaluations``; for ``gradient``, ``atoms`` of each plane, ``spacing`` and ``beyond``.

        The field is that of the first image; of displaced images ``gerchberg-saxton`` and ``network``
        only use what is common to all. The attribute ``warning`` repeats what `warn` was told.

    Raises
    ------
    InputError
        If the record is no such series, or an option is out of range.

    Notes
    -----
    Aberrations that all images share, and with them the plane of focus, cannot be told from the images alone
    (:mod:`exitwave.retrieve.focal_series`): ``gradient`` finds them by its prior, ``gerchberg-saxton`` takes
    those that are given.
    """
    chosen = Options(**options)
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        if warn is not None:
            warn(text)

    read = _read(record, chosen, tell)
    images, dose = read.sharp()[0], read.dose
    doubt = check_unit(images, read.lens, dose=dose)
    if doubt is None:
        doubt = check_order(images, read.lens, dose=dose, periodic=chosen.margin == 0)
    if doubt is not None:  # nothing below can be right
        tell(doubt)
    given = _aligned(read, chosen, tell)
    if doubt is None:
        _check_aligned(given.in_place(), chosen, tell)
    if chosen.method == "gradient":
        series, corner = given, (0, 0)
        fit = _by_gradient(series, chosen, observe)
    else:
        series, corner = given.common()
        by = _by_iteration if chosen.method == "gerchberg-saxton" else _by_network
        fit = by(series, chosen, observe)
        # The displacements that are left come on top.
        moved = [each for each in (given.lens.shift, fit.lens.shift) if each is not None]
        fit = replace(fit, lens=replace(fit.lens, shift=sum(moved[1:], moved[0]) if moved else None))
    result = describe(fit, series, given, free=chosen.freed(len(given.images)), corner=corner)
    return result.assign_attrs(warning="; ".join(told)) if told else result


def _read(record: xr.Dataset, options: Options, tell: Warn) -> WaveSeries:
    """Return the series, which the method can take."""
    lens = Lens(
        1.0, 1.0, torch.zeros(0), spherical_aberration=options.spherical_aberration,
        astigmatism=options.astigmatism, coma=options.coma, threefold=options.threefold,
        focal_spread=options.focal_spread, blur=options.blur,
    )  # fmt: skip
    series = read_series(
        record, lens, vacuum=options.vacuum, detector=options.mtf, dose=options.dose, device=options.device
    )
    if options.method == "gerchberg-saxton" and len(series.images) < 2:
        raise InputError("gerchberg-saxton needs two images or more: use gradient for one")
    if options.network is not None:
        learned.check_network(options.network, len(series.images))
        for text in learned.doubts(options.trained, series.lens):
            tell(text)
    return series


def _check_aligned(series: WaveSeries, options: Options, tell: Warn) -> None:
    images, dose = series.sharp()[0], series.dose
    doubt = check_unit(images, series.lens, dose=dose) if options.register else None
    if doubt is None:
        doubt = check_sign(images, series.lens, dose=dose, periodic=options.margin == 0)
    if doubt is not None:
        tell(doubt)


def _aligned(series: WaveSeries, options: Options, tell: Warn) -> WaveSeries:
    """Return the series with the displacements of its images in its lens."""
    if not options.register or len(series.images) < 2:
        return series
    found = align(series.sharp()[0], series.lens, dose=series.dose, periodic=options.margin == 0)
    for i, (y, x) in found.doubt.items():
        tell(
            f"the displacement of image {i + 1} may be off by ({y:.1f}, {x:.1f}) Å, for the lattice repeats: "
            "align the images before, and use register=False"
        )
    return replace(series, lens=replace(series.lens, shift=found.shift))


def _by_gradient(series: WaveSeries, options: Options, observe: Observe | None) -> Fit:
    margin = _MARGIN if options.margin is None else options.margin
    if margin and series.lens.shift is not None:  # displaced images show more of what lies beside the first
        margin += math.ceil(float(series.lens.shift.abs().max()) / series.lens.sampling)
    given = {name: getattr(options, name) for name in ("planes", "weight")}
    return focal_series.retrieve_wave(
        series.images, series.lens, dose=series.electrons, response=series.response,
        free=options.freed(len(series.images)), margin=margin, evaluations=options.steps, observe=observe,
        **{name: value for name, value in given.items() if value is not None},
    )  # fmt: skip


def _by_iteration(series: WaveSeries, options: Options, observe: Observe | None) -> Fit:
    # The method takes all that images say for true, their noise too.
    quiet, limit = series.quiet()
    found = gerchberg_saxton.retrieve_wave(
        quiet, series.lens.transfer(series.shape, quiet.device), iterations=options.steps,
        observe=None if observe is None else lambda step, _, residual: observe(step, residual),
    )  # fmt: skip
    modelled = FreeLens(series.lens, (), series.shape, quiet.device, limit).images(found.wave)
    return Fit(found.wave, series.lens, modelled, modelled.new_zeros(len(modelled)), options.steps)


def _by_network(series: WaveSeries, options: Options, observe: Observe | None) -> Fit:
    assert options.network is not None
    order = series.lens.defocus.argsort()
    wave = learned.predict(options.network, series.images[order.to(series.images.device)])
    return focal_series.refine_wave(
        series.images, series.lens, wave, doubt=options.doubt or _RIGID, dose=series.electrons,
        response=series.response, free=options.freed(len(order)), evaluations=options.steps, observe=observe,
    )  # fmt: skip
