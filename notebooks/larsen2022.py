# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Focal series: exit waves of two-dimensional materials
#
# *Leth Larsen et al. 2022, "Reconstructing the exit wave of 2D materials in high-resolution transmission electron microscopy using
# machine learning"* {cite}`larsen2022`
#
# :::{admonition} Before you begin
# :class: note
#
# | | |
# |---|---|
# | **Goals** | compute the exit wave of a flake and the images that a microscope takes of it; get the wave back, by moduli, by likelihood and by a network; know when to trust it |
# | **You need** | Fourier transforms; [notation](../book/notation.md) |
# | **Time** | 60 minutes to read, 35 for the exercises; the live cells and solutions run in two minutes on one core |
# | **Memory, GPU** | below 2 GB; no GPU |
# :::
#
# **The paper in one paragraph.** Behind a thin specimen the electron wave holds, in its phase, what atoms there are and where. Images
# show only the squared modulus of that wave after the lens has changed it. The wave can be computed back from many images taken at
# different foci if the lens is known. The paper trains a U-Net on simulated series of three images, under microscope conditions drawn at
# random which the network is not told, for three sets of two-dimensional materials: MoS₂, MoS₂ on graphene, and a database of
# thousands of materials. It finds positions of atoms to a pixel, and errors well below those of a Gerchberg-Saxton reconstruction from eleven images.
#
# **What this page does.** Specimens, exit waves and images of its own, faster and as exact; the paper's iterative method; an iterative method
# that knows that specimens are made of atoms, and beats it by far; the paper's network, small; and all of them beside each other, also under
# conditions that none of them was told of. Rows of the [ledger](../book/ledger.md) that say *not run* are still to come.

# %% tags=["parameters"]
from typing import Optional

scale: str = "workshop"  # smoke, workshop, gpu or paper
seed: Optional[int] = None  # of the network
reads: Optional[str] = None  # stored files that a study reads: flakes or nothing
data: Optional[str] = None  # mos2, supported or materials
flakes: Optional[int] = None  # of a data set
seen: Optional[float] = None  # share of the flakes to learn from
box: Optional[float] = None  # side of the box, Å
smallest: Optional[float] = None  # least mean diameter of a flake, Å
largest: Optional[float] = None  # greatest mean diameter of a flake, Å
vacancies: Optional[float] = None  # share of the atoms that are removed
holes: Optional[float] = None  # share of the atoms, removed with their columns
disorder: Optional[float] = None  # standard deviation of what moves atoms, Å
tilt: Optional[float] = None  # largest tilt, rad
energy: Optional[float] = None  # eV
sampling: Optional[float] = None  # pixel size of the multislice calculation, Å
thickness: Optional[float] = None  # greatest extent of a slice, Å
displacement: Optional[float] = None  # mean square displacement of an atom, Å^2
beyond: Optional[float] = None  # from the last atom to the exit wave, Å
smear: Optional[float] = None  # standard deviation of the filter of the waves to learn, Å
images: Optional[int] = None  # of a series
span: Optional[float] = None  # defocus from the first image to the last, Å
least_pixel: Optional[float] = None  # smallest pixel of the images, Å
greatest_pixel: Optional[float] = None  # largest pixel of the images, Å
blur_unit: Optional[float] = None  # unit of the blur, Å
dose: Optional[float] = None  # electrons per Å^2 and image, for iteration; 0: drawn
judged: Optional[int] = None  # unseen flakes of iteration
pixels: Optional[int] = None  # along each side in training
field: Optional[int] = None  # pixels along each side of unseen images
method: Optional[str] = None  # fusionnet or unet
width: Optional[int] = None  # channels at full size
depth: Optional[int] = None  # poolings
epochs: Optional[int] = None  # passes over the flakes
batch: Optional[int] = None  # series of one step
rate: Optional[float] = None  # rate of RMSprop
outside: Optional[str] = None  # nothing, threefold, coma, drift or phonons
amount: Optional[float] = None  # of it, Å
network: Optional[str] = None  # run whose released network is used

# %% tags=["hide-cell"]
import time

from exitwave.papers.larsen2022.parameters import Parameters

started = time.perf_counter()
parameters = Parameters.collect(globals())
parameters

# %% tags=["hide-input"]
import numpy as np
import torch
from IPython.display import Markdown

from exitwave import metrics, records
from exitwave.chapters import ledger
from exitwave.chapters.reproduce import run_file
from exitwave.chapters.run import save_run
from exitwave.papers.figures import frames, row, setup
from exitwave.papers.larsen2022 import data as data_sets
from exitwave.papers.larsen2022 import figures as drawn
from exitwave.simulate import exit_waves, imaging

setup()


# %% tags=["hide-cell"]
def stored(name):
    """Return a stored run, or None."""
    path = run_file("larsen2022", "workshop", name)
    return records.load(path) if path.is_file() else None


# %% [markdown]
# ## Specimens
#
# A flake of random outline is cut out of a layer, put on graphene or not, loses one atom in twenty and then one column in
# twenty, is disordered by 0.01 Å and tilted by up to 10° ({mod}`exitwave.specimens.flakes`). Each data set has 300 flakes, a third of which
# no network sees: MoS₂, MoS₂ on graphene, and 150 materials of 25 structure types, two flakes each, where materials of the same
# elements are all on one side. The table of materials ({mod}`exitwave.specimens.layers`) stands in for the database C2DB, which is not free
# to be copied; {func}`exitwave.readers.ase_database.read_layers` reads it, or any database of ASE.

# %%
chosen = {}
for kind in ("mos2", "supported", "materials"):
    table = records.load(parameters.changed(data=kind).files()[kind]).isel(seed=0)
    chosen[kind] = data_sets.from_table(table)[0][1]
every = data_sets.from_table(table)[0]  # the many materials
chosen["materials"] = max(every, key=lambda flake: len(set(flake.numbers.tolist())))
row(*(drawn.structure(flake) for flake in chosen.values()))

# %% [markdown]
# **Takeaway.** One flake of each data set, of the third the one with most elements, seen along the beam: what is missing was taken away,
# and a tilt pulls columns apart.
#
# ## Exit waves
#
# The wave passes slices of the specimen, each of which turns its phase by the projected potential, and spreads between them,
#
# $$\psi \leftarrow P_{\Delta z} * \big(e^{i\sigma v}\,\psi\big).$$
#
# The paper cuts atoms into slices of 0.2 Å. A whole atom, projected at its own height, scatters the same but for the curvature of the
# Ewald sphere over its size. So here each atom is in one slice, slices stand at the mean height of their atoms, and where there
# are no atoms there are none ({func}`exitwave.simulate.exit_waves.simulate`). The same functions can be differentiated by the
# positions. How thick may a slice be?

# %%
sliced = stored("slices")
drawn.slices(sliced) if sliced is not None else None

# %% [markdown]
# **Takeaway.** Eq. A.1 is the squared error over the squared change that the specimen makes. MoS₂ on graphene, tilted, means over three
# flakes, against slices of 0.01 Å: at 0.2 Å, which the paper takes and this page too, it is a quarter of a thousandth, and a twentieth of that
# for the smeared wave that a network learns. Tests hold the wave against abTEM, which cuts atoms into slices, and against Kirkland's temsim;
# `make bench` measures how much longer abTEM takes.
# Data: {download}`slices <../data/larsen2022/workshop/slices.nc>`.

# %% tags=["hide-cell"]
if sliced is not None:
    chosen_error = float(sliced["error_chosen"].mean())
    assert 2e-4 < chosen_error < 3e-4, chosen_error
    assert 15 < chosen_error / float(sliced["smeared_error_chosen"].mean()) < 25

# %%
flake = chosen["supported"]
begin = time.perf_counter()
wave = exit_waves.simulate(flake.numbers, flake.positions, parameters.multislice)
took = time.perf_counter() - begin
Markdown(
    f"{len(flake.numbers)} atoms, {parameters.multislice.shape[0]} pixels along each side: {took:.2f} s."
)

# %%
row(*drawn.wave(wave[::2, ::2].numpy(), 2 * parameters.sampling, "exit wave"))

# %% [markdown]
# **Takeaway.** The wave 2 Å behind MoS₂ on graphene. Most of the signal is in the imaginary part, the phase; the real part is less than half as strong
# and ringed, for it is made on the way from the atoms to the plane.

# %% tags=["hide-cell"]
strength = [float(part.square().mean().sqrt()) for part in ((wave - 1).real, wave.imag)]
assert strength[1] > 2 * strength[0], strength

# %% [markdown]
# ### How much do atoms move?
#
# The paper smears potentials by $\langle u^2\rangle$ = 0.0030 Å² for all atoms, its Eq. 1 for sulphur with a Debye temperature of 580 K at 300 K. The Debye
# model has half as much again:

# %%
from exitwave.specimens.flakes import mean_square_displacement

sulphur = {full: mean_square_displacement(32.06, 580.0, full=full) for full in (False, True)}
warmer = exit_waves.simulate(
    flake.numbers, flake.positions, parameters.changed(displacement=sulphur[True]).multislice
)
change = float(metrics.relative_wave_error(*(each.to(torch.complex128) for each in (warmer, wave))))
Markdown(
    f"Eq. 1: {sulphur[False]:.4f} Å²; the Debye model, along each axis: {sulphur[True]:.4f} Å². The wave changes by {change:.1e} "
    "(Eq. A.1)."
)

# %% tags=["hide-cell"]
assert abs(sulphur[False] - 0.0030) < 5e-5, sulphur
assert abs(sulphur[True] - 0.0045) < 5e-5, sulphur
if sliced is not None and parameters.scale == "workshop":
    assert change > 2 * chosen_error, (change, chosen_error)
widest = 3.16 * np.sqrt(3) / 2  # spacing of the (10) planes of MoS₂, Å
assert abs(np.exp(-2 * np.pi**2 / widest**2) - 0.07) < 0.005  # what a blur of 1 Å leaves, said below

# %% [markdown]
# **Takeaway.** Eq. 1 leaves out a factor of two at high and at low temperature; between, at 300 K, a third of the motion. To the sharp
# wave that matters more than the thickness of slices.
#
# ## Images
#
# Each series is taken by another microscope: defocus, spherical aberration, astigmatism, coma, focal spread, blur, dose and detector are drawn
# from the ranges of Table 1 ({class}`exitwave.simulate.focal_series.Ranges`), new ones each time a network sees a flake.

# %%
from exitwave.simulate import focal_series

generator = torch.Generator().manual_seed(3)
conditions = focal_series.draw(parameters.ranges, 1, 3, generator)
half = data_sets.halved(wave)[None]
shots = focal_series.simulate(half, 2 * parameters.sampling, conditions, parameters.field, generator)[0]
pixel = float(conditions.sampling[0])
row(
    *(
        frames(shot[None].numpy(), pixel, title=f"defocus {float(focus) / 10:.1f} nm")[0]
        for shot, focus in zip(shots, conditions.defocus[0], strict=True)
    )
)

# %% tags=["hide-cell"]
Markdown(
    f"{float(conditions.dose[0]):.0f} electrons per Å² and image, pixel {pixel:.3f} Å, Cs {float(conditions.spherical_aberration[0]) / 1e4:.1f} µm, "
    f"astigmatism {float(conditions.astigmatism[0]):.0f} Å, coma {float(conditions.coma[0]):.0f} Å."
)

# %% [markdown]
# **Takeaway.** Three images of the flake above. A network is given these, divided by their mean, and nothing else.
#
# **What Table 1 leaves open.** *Blur 0.5 to 1.5 Å*: as a standard deviation, 1 Å would leave 7% of the contrast of MoS₂'s widest lattice planes. The
# authors' earlier code blurs by so many *pixels*, a tenth of that, and so does this page unless `blur_unit` says otherwise. *MTF*: with
# $c_1 < 0$ the formula goes below zero, where no detector does; it is clipped. *Focal spread* is $\sqrt2$ standard deviations, as abTEM has it.
#
# ## Back, by iteration
#
# Gerchberg and Saxton's method carries the wave to each image, gives it the measured modulus, and brings it back
# ({func}`exitwave.retrieve.gerchberg_saxton.retrieve_wave`). As the paper does, it gets eleven images over 10 nm, with their defocus, Cs and focal
# spread, but is not told of astigmatism and coma. Its dose here is the highest of Table 1, without blur and with a perfect detector; 60 iterations:

# %%
from dataclasses import replace

from exitwave.retrieve.gerchberg_saxton import retrieve_wave

eleven = focal_series.draw(parameters.ranges, 1, 11, generator)
eleven = replace(
    eleven, dose=torch.tensor([1e5]), blur=torch.zeros(1), mtf_floor=torch.ones(1),
    sampling=torch.tensor([2 * parameters.sampling]),
)  # fmt: skip
size = half.shape[-1]
measured = focal_series.simulate(half, 2 * parameters.sampling, eleven, size, generator)[0]
true_lens = eleven.transfer((size, size), 2 * parameters.sampling)[0]
none = torch.zeros(1)
assumed = replace(eleven, astigmatism=none, coma=none).transfer((size, size), 2 * parameters.sampling)[0]
found = {
    name: retrieve_wave(measured, lens, iterations=60).wave.to(torch.complex128)
    for name, lens in (("assumed", assumed), ("known", true_lens))
}
truth = half[0].to(torch.complex128)


def without_long_waves(one):
    """Return a wave without what a Gaussian of 0.9 Å leaves of it (Sec. 6 of the paper)."""
    return one - exit_waves.smeared(one - 1, 2 * parameters.sampling, 0.9)


def share(one, other):
    """Return the error of a wave over the strength of its signal, both root mean square."""
    return float(metrics.wave_rmse(one, other)) / float((other - other.mean()).abs().square().mean().sqrt())


compared = {
    name: {
        "rmse": float(metrics.wave_rmse(one, truth)),
        "rmse_short": float(metrics.wave_rmse(without_long_waves(one), without_long_waves(truth))),
        "short": share(without_long_waves(one), without_long_waves(truth)),
        "long": share(*(each - without_long_waves(each) + 1 for each in (one, truth))),
    }
    for name, one in found.items()
}
row(
    *(
        drawn.wave(one.numpy(), 2 * parameters.sampling, title)[1]
        for one, title in (
            (truth, "truth"),
            (found["assumed"], "aberrations not told"),
            (found["known"], "aberrations known"),
        )
    )
)

# %%
Markdown(
    "| | RMSE | RMSE without long waves | wrong share of the short waves | of the long ones |\n|---|---|---|---|---|\n"
    + "\n".join(
        f"| {title} | {compared[name]['rmse']:.3f} | {compared[name]['rmse_short']:.3f} | {compared[name]['short']:.2f} | "
        f"{compared[name]['long']:.2f} |"
        for name, title in (("assumed", "astigmatism and coma not told"), ("known", "all aberrations known"))
    )
)

# %% tags=["hide-cell"]
if parameters.scale == "workshop":
    assert min(each["long"] for each in compared.values()) > 0.9, compared
    assert 0.4 < compared["known"]["short"] < 0.6 < 0.8 < compared["assumed"]["short"], compared

# %% [markdown]
# **Takeaway.** *Wrong share*: root mean square error over that of the signal, 1 for a constant. Long waves, which eleven foci over 10 nm hardly show, do not
# come back at all. Of the short ones half is wrong if the lens is known, and more than four fifths if astigmatism and coma are not told: the paper's filter,
# which takes the long waves out of both, lowers the RMSE but not the wrong share. Its 0.061 stands for a wave of which we do not know the signal.
# Aberrations that are common to all images cannot be found from them: they may as well belong to the wave.
#
# ## Back, by likelihood
#
# Aberrations that all images share cannot be found from them: give the wave the phase plate that is missing in the lens, and every image is
# the same. This gauge is fixed by what is known of the wave before any image is looked at. Here
# ({mod}`exitwave.retrieve.focal_series`) the wave is made by *atoms*:
#
# $$\psi = P_b\, e^{i\sigma V_3} P_s\, e^{i\sigma V_2} P_s\, e^{i\sigma V_1}\, 1, \qquad V_l = K * w_l, \quad w_l \ge 0 .$$
#
# Three planes, of which neither the distance *s* nor that to the wave, *b*, is told; K is the potential of a single atom, and *w* says how much of it there is
# at each pixel, little of it wherever the images allow. A quasi-Newton method finds *w*, *s*, *b*, astigmatism and coma together, as the images'
# Poisson likelihood asks for. The eleven images are those that Gerchberg and Saxton's method was given, and the same was told of the lens:

# %%
from exitwave.retrieve.focal_series import retrieve_wave as retrieve_by_likelihood
from exitwave.retrieve.lens import Lens

lens = Lens(
    parameters.energy, 2 * parameters.sampling, eleven.defocus[0].double(),
    spherical_aberration=float(eleven.spherical_aberration), focal_spread=float(eleven.focal_spread),
)  # fmt: skip
begin = time.perf_counter()
evaluations = 20 if parameters.scale == "smoke" else 200
fit = retrieve_by_likelihood(
    measured, lens, dose=float(eleven.dose) * lens.sampling**2, evaluations=evaluations
)
took = time.perf_counter() - begin
soft = [exit_waves.smeared(each, lens.sampling, parameters.smear) for each in (half[0], fit.wave)]
row(
    drawn.wave(soft[0].numpy(), lens.sampling, "truth, smeared")[1],
    drawn.wave(soft[1].numpy(), lens.sampling, "atoms, smeared")[1],
    frames(
        (soft[1] - soft[0]).imag[None].numpy(),
        lens.sampling,
        kind="difference",
        label="Im ψ",
        title="difference",
    )[0],
)

# %%
aligned = [each.to(torch.complex128) for each in soft]
by_atoms = {
    "relative": float(metrics.relative_wave_error(aligned[1], aligned[0], aligned=True)),
    "short": share(*(without_long_waves(each) for each in aligned[::-1])),
    "long": share(*(each - without_long_waves(each) + 1 for each in aligned[::-1])),
}
by_moduli = float(metrics.relative_wave_error(found["assumed"], aligned[0], aligned=True))
true_pair = torch.polar(
    torch.cat([eleven.astigmatism, eleven.coma]),
    torch.cat([2 * eleven.astigmatism_azimuth, eleven.coma_azimuth]),
)
Markdown(
    f"Eq. A.1: {by_atoms['relative']:.3f} (Gerchberg-Saxton, not told of astigmatism and coma: {by_moduli:.2f}). Wrong share of the short waves "
    f"{by_atoms['short']:.2f}, of the long ones {by_atoms['long']:.2f}. {took:.0f} s.\n\n"
    "| | C12a, Å | C12b, Å | C21a, Å | C21b, Å |\n|---|---|---|---|---|\n"
    f"| true | {true_pair[0].real:.1f} | {true_pair[0].imag:.1f} | {true_pair[1].real:.0f} | {true_pair[1].imag:.0f} |\n"
    f"| found | {fit.lens.astigmatism[0]:.1f} | {fit.lens.astigmatism[1]:.1f} | {fit.lens.coma[0]:.0f} | {fit.lens.coma[1]:.0f} |"
)

# %% tags=["hide-cell"]
off = [
    abs(complex(*pair) - complex(one)) / abs(complex(one))
    for pair, one in zip((fit.lens.astigmatism, fit.lens.coma), true_pair, strict=True)
]
if parameters.scale == "workshop":
    assert by_atoms["relative"] < 0.02 < 0.5 < by_moduli, (by_atoms, by_moduli)
    assert by_atoms["long"] < 0.1 < 0.9 < compared["assumed"]["long"], by_atoms
    assert off[0] < 0.05 < off[1] < 0.2, off

# %% [markdown]
# **Takeaway.** From the same images and the same knowledge, one hundredth of the signal is wrong instead of three fifths. Long waves come back too: no image shows
# them, but atoms have them. Astigmatism is found to a few per cent and coma, of which sharp images need less, to some fifteen. The price is that
# the specimen has to be thin and made of atoms that scatter alike; what is not, ends up in the difference.
#
# ## Back, by a network
#
# The network of the paper is a U-Net of residual blocks with 32 channels, trained for 200 epochs of a thousand flakes. At `workshop` scale it has
# half the channels ({class}`exitwave.networks.fusionnet.FusionNet`), 200 flakes and 24 epochs, new images in each: one in forty of the series that the
# paper's saw. It is given three images and told nothing of the microscope. Three networks for each data set; series and flakes of the test are the same for all.
# Their weights come with the project, in 8 bits (`data/larsen2022/weights`).

# %%
names = {"MoS₂": "mos2", "MoS₂ on graphene": "supported", "many materials": "materials"}
runs = {title: stored(name) for title, name in names.items()}
drawn.course(runs)

# %% [markdown]
# **Takeaway.** Mean square errors of real and imaginary part, of eight unseen flakes (solid) and of eight seen ones in new series (dotted), fall
# together, as in the paper: no series comes twice. They end noisy, for the rate of RMSprop stays what it is.

# %%
PAPER = {"MoS₂": (0.0062, 7), "MoS₂ on graphene": (0.0122, 9.7), "many materials": (0.0263, 8)}
lines = [
    "| median sample | RMSE | paper | Eq. A.1 | vacuum | largest displacement, pm | paper |",
    "|---|---|---|---|---|---|---|",
]
for title, run in runs.items():
    mean = {name: float(run[name].mean()) for name in ("rmse", "relative", "vacuum", "displacement")}
    error, distance = PAPER[title]
    lines.append(
        f"| {title} | {mean['rmse']:.4f} | {error} | {mean['relative']:.3f} | {mean['vacuum']:.0%} | "
        f"{mean['displacement']:.0f} | {distance} |"
    )
Markdown("\n".join(lines))

# %% [markdown]
# **Takeaway.** Samples in the middle by Eq. A.1, means over three networks. With a fortieth of the training, the RMSE is three times the
# paper's for MoS₂, on graphene or not, and the paper's for many materials. It flatters: most of an image is vacuum, which is easy. By Eq. A.1 6% of the signal
# of MoS₂ is wrong, twice as much on graphene, and over a fifth of that of many materials. Vacuum and grid are not known of the paper, so that its RMSE
# cannot be compared more closely. The largest displacement is of the one column that went wrong most.

# %%
drawn.histograms(runs)

# %% [markdown]
# **Takeaway.** RMSE of all unseen flakes (Fig. 4). MoS₂ alone is the easiest, as in the paper. That many materials are harder than MoS₂ on graphene
# is true by Eq. A.1 only: by RMSE the graphene, which fills the image, costs more. To take another flake's wave for the answer is more than twice as bad as
# any network.

# %%
drawn.medians({title: runs[title] for title in ("MoS₂", "MoS₂ on graphene")})

# %% [markdown]
# **Takeaway.** The median samples of MoS₂ and of MoS₂ on graphene (Figs. 1 and 2): two of the three images, then truth and network, imaginary part and real part. Vacancies and holes of
# the flake come out; the graphene is faint.

# %%
drawn.examples(runs["many materials"])

# %% [markdown]
# **Takeaway.** On the slider, samples of which 5, 25, 50, 75 and 95% are as bad or worse (Figs. S5 to S12), many materials: two of the three images, then truth and
# network. The network finds lattices, vacancies and holes. It makes the real part, of which a series shows less, too small.

# %%
drawn.argand(runs["MoS₂"])

# %% [markdown]
# **Takeaway.** Peak values of the columns of the median sample of MoS₂ (Fig. 5). Over all unseen flakes, single sulphur atoms are farther from pairs
# than the two clouds are wide, as in the paper. Molybdenum and sulphur pairs, which the true waves hardly tell apart, this network does not.
# Data: {download}`MoS2 <../data/larsen2022/workshop/mos2.nc>`, {download}`MoS2 on graphene <../data/larsen2022/workshop/supported.nc>`,
# {download}`many materials <../data/larsen2022/workshop/materials.nc>`.

# %% tags=["hide-cell"]
# What the takeaways say in words.
free, carried, many = (
    {name: float(run[name].mean()) for name in run.data_vars if run[name].dims == ("seed",)}
    for run in runs.values()
)
assert 2.5 < free["rmse"] / 0.0062 < 3.5, free
assert 2.5 < carried["rmse"] / 0.0122 < 3.5, carried
assert 0.9 < many["rmse"] / 0.0263 < 1.1, many
assert 0.05 < free["relative"] < 0.07, free
assert 1.7 < carried["relative"] / free["relative"] < 2.3, (free, carried)
assert 0.2 < many["relative"] < 0.25, many
assert min(each["vacuum"] for each in (free, carried, many)) > 0.5
assert free["rmse_mean"] < many["rmse_mean"] < carried["rmse_mean"]
assert free["relative_mean"] < carried["relative_mean"] < many["relative_mean"]
assert max(each["rmse_mean"] / each["scrambled"] for each in (free, carried, many)) < 0.5
assert free["sulphur_apart_network"] > 1, free
assert free["molybdenum_apart_network"] < 0.5 < free["molybdenum_apart_truth"] < 1, free

# %% [markdown]
# ### How many images, and which specimens?

# %%
numbers = {
    1: stored("one-image"), 2: stored("two-images"), 3: runs["many materials"], 4: stored("four-images")
}  # fmt: skip
numbers = {count: run for count, run in numbers.items() if run is not None}
drawn.against(numbers, "images over the same 10 nm", {"relative_mean": "network"})

# %% [markdown]
# **Takeaway.** Eq. A.1 of unseen flakes of many materials: points are networks. One image leaves half of the signal wrong, a second takes more than a third of that
# away, a third image an eighth of the rest, and a fourth as much again (Fig. 6); the last two are no more than what networks of one kind differ by.

# %% tags=["hide-cell"]
one, two, three = (float(numbers[count]["relative_mean"].mean()) for count in (1, 2, 3))
assert 0.45 < one < 0.55, one
assert 0.6 < two / one < 0.66, (one, two)
assert 0.85 < three / two < 0.9, (two, three)
four = float(numbers[4]["relative_mean"].mean())
assert 0.84 < four / three < 0.9, (three, four)
assert float(np.ptp(numbers[3]["relative_mean"].values)) > max(two - three, three - four)

# %%
others = {
    "network of many materials": (runs["many materials"], "many materials"),
    "network of MoS₂ on graphene": (stored("supported-on-materials"), "many materials"),
    "network of MoS₂ on graphene ": (runs["MoS₂ on graphene"], "MoS₂ on graphene"),
    "network of many materials ": (stored("materials-on-supported"), "MoS₂ on graphene"),
}
Markdown(
    "| | judged by | Eq. A.1 | RMSE |\n|---|---|---|---|\n"
    + "\n".join(
        f"| {title} | {judged} | {float(run['relative_mean'].mean()):.3f} | {float(run['rmse_mean'].mean()):.4f} |"
        for title, (run, judged) in others.items()
    )
)

# %% [markdown]
# **Takeaway.** Each network does worse than the other on what the other was trained for, as in Fig. 4, and both about as much by RMSE. By Eq. A.1 that of many materials, which has never seen
# graphene under anything, loses a factor of two on it, as does that of MoS₂ on other materials.

# %% tags=["hide-cell"]
for kind, low, high in (("relative_mean", 1.8, 2.2), ("rmse_mean", 1.3, 1.5)):
    of = [float(run[kind].mean()) for run, _ in others.values()]
    assert low < of[1] / of[0] < high, of
    assert low < of[3] / of[2] < high, of

# %% [markdown]
# ### How long, how much, how fine?
#
# What a network owes to a setting is seen by changing that alone: a quarter of the epochs; a quarter and half of the flakes to learn from;
# pixels of 0.215 to 0.235 Å.

# %%
short, coarse = stored("supported-short"), stored("coarse")
by_flakes = {50: stored("materials-50"), 100: stored("materials-100"), 200: runs["many materials"]}
changed = {
    "MoS₂ on graphene": runs["MoS₂ on graphene"],
    "the same, 6 epochs instead of 24": short,
    "many materials": runs["many materials"],
    "the same, pixels of 0.215 to 0.235 Å": coarse,
}
drawn.against(by_flakes, "flakes of many materials to learn from", {"relative_mean": "network"})

# %%
Markdown(
    "| | Eq. A.1 | RMSE | columns lost in the median sample |\n|---|---|---|---|\n"
    + "\n".join(
        f"| {title} | {float(run['relative_mean'].mean()):.3f} | {float(run['rmse_mean'].mean()):.4f} | {float(run['lost'].mean()):.1%} |"
        for title, run in changed.items()
    )
)

# %% tags=["hide-cell"]
fewer = {count: float(run["relative_mean"].mean()) for count, run in by_flakes.items()}
assert fewer[50] > 1.5 * fewer[200], fewer
quick = float(short["relative_mean"].mean()) / carried["relative_mean"]
assert 1.4 < quick < 1.6, quick
assert abs(float(short["lost"].mean()) - carried["lost"]) < 0.05, (short["lost"], carried["lost"])
assert abs(float(coarse["relative_mean"].mean()) / many["relative_mean"] - 1) < 0.05
assert np.allclose([float(short["rmse"].mean()), carried["rmse"]], (0.046, 0.038), atol=5e-4), short["rmse"]
moved = [
    float(run["displacement"].mean())
    for run in (short, runs["MoS₂ on graphene"], by_flakes[50], by_flakes[200])
]
assert np.allclose(moved, (58, 53, 33, 32), atol=0.6), moved
brief, same = stored("mos2-short"), runs["MoS₂"].sel(seed=[0])
if brief is not None:
    both = [float(run[name].mean()) for name in ("rmse", "displacement") for run in (brief, same)]
    assert np.allclose(both, (0.032, 0.018, 36, 24), rtol=0.02), both
fewer_images = stored("two-images")["relative_mean"]
better_than_two = [int((run["relative_mean"] < fewer_images).sum()) for run in (by_flakes[200], coarse)]
assert better_than_two == [3, 2], better_than_two

# %% [markdown]
# **Takeaway.** Four times the flakes, seen as often each, take more than a third of the error away, while in the courses above unseen flakes fare no worse than seen ones: these networks want data (Fig. S3). MoS₂ alone, with an eighth of the epochs and one network, has an RMSE of 0.032 in the median sample instead of 0.018 (paper: 0.006), and a largest displacement of 36 pm instead of 24. With a quarter of the epochs half as
# much again is wrong on graphene (Sec. 3), and the RMSE of the median sample is 0.046 instead of 0.038, where the paper has 0.012: its rows of the ledger want training too.
# Its largest displacement hardly minds, 58 pm instead of 53, nor does that of many materials, 33 pm with a quarter of the flakes instead of 32. In the median sample half of the columns, carbon among them, show no peak either way: the longer training here
# has a tenth of the series of the paper's short one. Pixels twice as coarse cost nothing that three networks could tell, as the paper says.
# That it is less than an image is worth, as the ledger asks, does not come out: with fine pixels the same rule holds, for each of three networks of three images is better than that of two, with coarse ones only two of three are.
# The paper says it of MoS₂ on graphene; here many materials were asked.

# %%
sharp = stored("sharp")
WAYS = {
    "sharp": "network of sharp waves, by the sharp truth",
    "after": "the same, smeared afterwards, by the smeared truth",
    "smeared": "network of smeared waves, by the smeared truth",
}
Markdown(
    "| MoS₂ on graphene | error of peak values | Eq. A.1 | S from S₂, over spreads |\n|---|---|---|---|\n"
    + "\n".join(
        f"| {title} | "
        + " | ".join(
            f"{float(sharp[f'{name}_{kind}'].mean()):.3f}" for kind in ("peak", "relative", "sulphur_apart")
        )
        + " |"
        for name, title in WAYS.items()
    )
)

# %% tags=["hide-cell"]
peaks = {name: sharp[f"{name}_peak"].values for name in WAYS}
assert (peaks["smeared"] < 0.8 * peaks["sharp"]).all(), peaks
assert (peaks["smeared"] < peaks["after"]).all(), peaks
assert 0 < 1 - peaks["smeared"].mean() / peaks["after"].mean() < 0.05, peaks
assert float(sharp["after_relative"].mean()) < float(sharp["smeared_relative"].mean())

# %% [markdown]
# **Takeaway.** Networks that learn waves smeared by 15 pm have a quarter less error in the peak values of columns than those that learn sharp waves, as the paper says (Fig. S4). But nearly all of this is an easier question, not a better
# answer: smear what the sharp network makes, ask the smeared truth, and of the difference less than a twentieth of the error is left, if in the same direction for all three seeds; by Eq. A.1 the smeared waves of the sharp networks are no worse.

# %%
apart = stored("filtered")
Markdown(
    "| distance over spreads | S from S₂ | Mo from S₂ |\n|---|---|---|\n"
    + "\n".join(
        f"| {title} | {float(apart[f'sulphur_apart_{name}'].mean()):.2f} | {float(apart[f'molybdenum_apart_{name}'].mean()):.2f} |"
        for name, title in (
            ("truth", "truth"),
            ("truth_filtered", "truth, graphene filtered out"),
            ("network", "network"),
            ("network_filtered", "network, graphene filtered out"),
        )
    )
)

# %% tags=["hide-cell"]
part = {name: float(apart[name].mean()) for name in apart.data_vars}
assert 1.4 < part["sulphur_apart_truth_filtered"] / part["sulphur_apart_truth"] < 1.7, part
assert part["molybdenum_apart_truth"] < part["molybdenum_apart_truth_filtered"] < 0.5, part
assert part["molybdenum_apart_truth_filtered"] < free["molybdenum_apart_truth"], (part, free)
for kind in ("sulphur", "molybdenum"):
    assert abs(part[f"{kind}_apart_network_filtered"] / part[f"{kind}_apart_network"] - 1) < 0.02, part
assert 1 / 9 < part["removed_network"] / part["removed_truth"] < 1 / 7, part

# %% [markdown]
# **Takeaway.** To tell molybdenum from pairs of sulphur on graphene, Chen et al. took the graphene's frequencies out of the wave; the paper cites it and does not try. Here the filter is told
# where the carbon atoms are ({mod}`exitwave.papers.larsen2022.filtered`). In the true waves it sets single sulphur atoms half as far again apart from pairs; molybdenum and pairs, nearer each other
# than half their spread, stay mixed, more so than without graphene. In the networks' waves it changes nothing: at these frequencies they have an eighth of the
# power that they should have. With this little training the network sees the flake and not the lattice below it, as the paper says of short training.

# %% [markdown]
# ### When does it fail, and who tells?

# %%
pair = stored("agreement")
drawn.disagreement(pair)

# %%
drawn.worst(pair)

# %% [markdown]
# **Takeaway.** On the slider, the three flakes on which the first two networks disagree most (Figs. 7 and 8). On each of them the two have more wrong than on half of the flakes.

# %% tags=["hide-cell"]
apart_of, wrong_of = (pair[f"{name}_of"].sel(seed=0).values for name in ("disagreement", "relative"))
assert (wrong_of[np.argsort(apart_of)[-3:]] > np.median(wrong_of)).all()

# %%
truthless = stored("consistency")
told = {
    name: float(run[key].mean())
    for name, run, key in (
        ("rank correlation of disagreement and error", pair, "rank_correlation"),
        ("the worst tenth of the flakes disagrees more than another", pair, "worst_found"),
        ("errors within one standard deviation of the pair", pair, "coverage_one"),
        ("the same, calibrated on flakes that were seen", pair, "calibrated_one"),
        ("within two", pair, "coverage_two"),
        ("the same, calibrated", pair, "calibrated_two"),
        ("factor of the calibration", pair, "factor"),
        ("rank correlation of error and misfit of the images", truthless, "misfit_correlation"),
    )
}
Markdown("| | |\n|---|---|\n" + "\n".join(f"| {name} | {value:.2f} |" for name, value in told.items()))

# %% [markdown]
# **Takeaway.** Two networks that disagree tell which flakes went wrong (Fig. 8): those of the worst tenth disagree more than nine in ten others, without
# any truth. As an uncertainty of each pixel the difference of a pair is too small by a factor of nearly three; scaled by what flakes that were seen ask for, it holds
# two thirds of the errors of unseen ones within one standard deviation, as it should, but only four fifths within two: the tails are heavy. Who
# knows the microscope has one more sign: how badly the images of the network's wave fit those that were taken goes with the error even more closely.

# %% tags=["hide-cell"]
assert told["the worst tenth of the flakes disagrees more than another"] > 0.9, told
assert 2.5 < told["factor of the calibration"] < 3.1, told
assert 0.63 < told["the same, calibrated on flakes that were seen"] < 0.7, told
assert 0.78 < told["the same, calibrated"] < 0.84, told
assert (
    told["rank correlation of disagreement and error"] + 0.05
    < told["rank correlation of error and misfit of the images"]
), told

# %% [markdown]
# ## Beside each other
#
# Three flakes on graphene, those at 25, 50 and 75% by what the network makes of its own series, each in a new series of eleven images under conditions of Table 1.
# The network is given the first, the middle and the last image, the others are told defocus, Cs, focal spread, dose and detector. Gerchberg and Saxton's method
# amplifies noise if it goes on for too long or if the detector's MTF is taken out of the images before. It is given the best of twenty ways (12 to 200 iterations, with
# the MTF and without, smeared after or not), chosen by the truth, which no user can.

# %%
from exitwave.papers.larsen2022.comparison import METHODS as COMPARED

together = stored("compared")
drawn.side_by_side(together, {name: COMPARED[name] for name in ("network", "gerchberg_saxton", "gradient")})

# %%
Markdown(
    "| | Eq. A.1 | RMSE | RMSE to the truth without long waves |\n|---|---|---|---|\n"
    + "\n".join(
        f"| {title} | "
        + " | ".join(
            f"{float(together[f'{name}_{kind}'].mean()):.3f}" for kind in ("relative", "rmse", "short")
        )
        + " |"
        for name, title in COMPARED.items()
    )
)

# %% [markdown]
# **Takeaway.** Imaginary part of the waves; means over nine series. Told the same and given the same eleven images, the method by likelihood has less than a twentieth of what
# Gerchberg and Saxton's has wrong, long waves included, and on each series less than an eighth. With three images it has less than half of what the network has
# wrong, which is told nothing. The paper's comparison, by RMSE and with long waves taken off the truth of Gerchberg and Saxton's method alone, hides
# most of this. A network's wave that is changed until it explains its three images, with what is then told of the lens, has an eighth less wrong.
# Data: {download}`beside each other <../data/larsen2022/workshop/compared.nc>`.

# %% tags=["hide-cell"]
mean = {name: float(together[f"{name}_relative"].mean()) for name in COMPARED}
assert mean["gradient"] < mean["gerchberg_saxton"] / 20, mean
assert float((together["gradient_relative_of"] / together["gerchberg_saxton_relative_of"]).max()) < 1 / 8
assert mean["gradient_few"] < mean["network"] / 2, mean
assert 0.85 < mean["refined"] / mean["network"] < 0.9, mean

# %%
from exitwave.papers.larsen2022.iterative import METHODS as ITERATIVE

by_number = {
    1: stored("iterative-1"), 3: stored("iterative-3"), 11: stored("iterative-11"), 20: stored("iterative-20")
}  # fmt: skip
by_number = {count: run for count, run in by_number.items() if run is not None}
by_dose = {1e3: stored("iterative-3-low"), 1e4: by_number[3], 1e5: stored("iterative-3-high")}
of_methods = {f"{name}_relative": title for name, title in ITERATIVE.items()}
row(
    drawn.against(by_number, "images", of_methods),
    drawn.against(by_dose, "electrons per Å² and image, three images", of_methods),
)

# %% [markdown]
# **Takeaway.** MoS₂ on graphene; points are means of six series, or of three for twenty images and at the lowest and the highest dose. Of a single image the method by likelihood makes a wave of which a twentieth is wrong, less than half of what
# the network has wrong with three images; three images bring that to a sixtieth and eleven to a hundredth; twenty add nothing that three series could tell. The gauge is what does it: with astigmatism and coma held at zero,
# where they were not told, ten times as much is wrong. Gerchberg and Saxton's method, at its best, does not get below a third even where all aberrations are told; at
# 1000 electrons per Å² it leaves more than half wrong, where the likelihood has less than a tenth.

# %% tags=["hide-cell"]
wrong = {
    count: {name: float(run[f"{name}_relative"].mean()) for name in ITERATIVE}
    for count, run in by_number.items()
}
assert 0.04 < wrong[1]["gradient"] < 0.06, wrong
assert wrong[1]["gradient"] < carried["relative_mean"] / 2, wrong
assert 1 / 70 < wrong[3]["gradient"] < 1 / 55, wrong
assert 1 / 120 < wrong[11]["gradient"] < 1 / 90, wrong
assert abs(wrong[20]["gradient"] / wrong[11]["gradient"] - 1) < 0.15, wrong
assert wrong[3]["ungauged"] > 10 * wrong[3]["gradient"], wrong
assert min(each["told_all"] for each in wrong.values()) > 1 / 3, wrong
assert float(by_dose[1e3]["told_all_relative"].mean()) > 1 / 2
assert float(by_dose[1e3]["gradient_relative"].mean()) < 1 / 10

# %%
by_data = {
    "MoS₂": stored("iterative-mos2"),
    "MoS₂ on graphene": by_number[3],
    "many materials": stored("iterative-materials"),
}
Markdown(
    "| three images, Eq. A.1 | "
    + " | ".join(ITERATIVE.values())
    + " | network, all unseen flakes and doses |\n|---|"
    + "---|" * (len(ITERATIVE) + 1)
    + "\n"
    + "\n".join(
        f"| {title} | "
        + " | ".join(f"{float(run[f'{name}_relative'].mean()):.3f}" for name in ITERATIVE)
        + f" | {float(runs[title]['relative_mean'].mean()):.3f} |"
        for title, run in by_data.items()
    )
)

# %% [markdown]
# **Takeaway.** Series of a dose of 10⁴ electrons per Å² and image, 18 of MoS₂ on graphene and nine of the others. The method by likelihood is as good for MoS₂ on graphene as for MoS₂ alone, and has
# twice as much wrong for many materials, of which it knows none. The networks' numbers, for any dose of Table 1, rise by a factor of four.

# %% tags=["hide-cell"]
by_likelihood = [float(run["gradient_relative"].mean()) for run in by_data.values()]
assert abs(by_likelihood[1] / by_likelihood[0] - 1) < 0.15, by_likelihood
assert 1.7 < by_likelihood[2] / by_likelihood[1] < 2.3, by_likelihood
assert 3.5 < many["relative_mean"] / free["relative_mean"] < 4.5, (many, free)

# %% [markdown]
# ### Outside Table 1
#
# What if the microscope has more than any method was told or trained for? Three images of the same flakes, with 500 Å of three-fold astigmatism, three times
# the largest coma of Table 1, a drift of 0.2 Å from image to image, or atoms that move from electron to electron
# ({mod}`exitwave.papers.larsen2022.outside`).

# %%
from exitwave.papers.larsen2022.outside import METHODS as OUTSIDE

strange = {
    "nothing": stored("outside-nothing"),
    "three-fold astigmatism": stored("outside-threefold"),
    "coma": stored("outside-coma"),
    "drift": stored("outside-drift"),
    "moving atoms": stored("outside-phonons"),
}


def errors_table(cases):
    """Return a table of what each method has wrong in each case."""
    lines = ["| Eq. A.1 | " + " | ".join(OUTSIDE.values()) + " |", "|---|" + "---|" * len(OUTSIDE)]
    for title, case in cases.items():
        values = (f"{float(case[f'{name}_relative'].mean()):.3f}" for name in OUTSIDE)
        lines.append(f"| {title} | " + " | ".join(values) + " |")
    return Markdown("\n".join(lines))


errors_table(strange)

# %% [markdown]
# **Takeaway.** Means over nine series. The likelihood fails where its lens lacks what the microscope has: three-fold astigmatism and drift cost it ten times and more. Once they are free
# they cost at most some half as much again, so that it pays to free what one is not sure of. Coma of three times the table's largest it does not find from zero: the fit ends in another minimum, of which its
# lens tells nothing. The network hardly notices three-fold astigmatism; coma beyond what it has seen, or drift, takes its error up by three quarters. That
# atoms move, which all methods take for a blur of the potential, costs the likelihood three quarters more and the others nothing.

# %% tags=["hide-cell"]
lost = {
    title: {name: float(run[f"{name}_relative"].mean()) for name in OUTSIDE} for title, run in strange.items()
}
usual = lost["nothing"]
for title in ("three-fold astigmatism", "drift"):
    assert lost[title]["gradient"] > 10 * usual["gradient"], lost
    assert lost[title]["freer"] < 1.55 * usual["freer"], lost
assert lost["three-fold astigmatism"]["network"] < 1.1 * usual["network"], lost
assert 1.6 < lost["moving atoms"]["gradient"] / usual["gradient"] < 1.9, lost
assert max(lost["moving atoms"][name] / usual[name] for name in ("network", "gerchberg_saxton")) < 1.1, lost
assert lost["coma"]["freer"] > 10 * usual["freer"], lost
for title in ("coma", "drift"):
    assert 1.65 < lost[title]["network"] / usual["network"] < 1.85, lost

# %% [markdown]
# And what if the user is wrong about the microscope, or the specimen is not what the likelihood takes it for? Simulation and likelihood share their atoms
# and their lens here, which flatters it. So once all defoci are told 5% too large, once the focal spread half as much again as it is, once a detector
# without MTF, and once the atoms move twice as much as the likelihood takes them to:

# %%
misled = {
    "all as told": stored("outside-nothing"),
    "defoci 5% too large": stored("outside-defocus"),
    "focal spread half as much again": stored("outside-spread"),
    "MTF not told": stored("outside-detector"),
    "atoms that move twice as much": stored("outside-motion"),
}
errors_table(misled)

# %% tags=["hide-cell"]
cost_of = {
    title: float(case["gradient_relative"].mean()) / usual["gradient"] for title, case in misled.items()
}
assert 3 < cost_of["defoci 5% too large"] < 4, cost_of
assert 6 < cost_of["MTF not told"] < 7, cost_of
for title in ("focal spread half as much again", "atoms that move twice as much"):
    assert 1.2 < cost_of[title] < 2, cost_of
for case in misled.values():
    means = {name: float(case[f"{name}_relative"].mean()) for name in OUTSIDE}
    assert means["gradient"] < means["network"] < means["gerchberg_saxton"], means

# %% [markdown]
# **Takeaway.** Wrong defoci cost the likelihood a factor of three to four and an MTF that is not told more than six, the other two less than two. In each case it has still less
# wrong than the network, which is told nothing, and the network less than Gerchberg and Saxton's method, which is told the same.
#
# **Which to take?** Whoever knows defocus and Cs, and has a thin flake, takes the likelihood, with one image or more. Whoever knows nothing of the
# microscope takes a network trained for it, and a second one that says where the first fails.

# %% [markdown]
# ### What it costs

# %%
from exitwave.networks.released import load_released
from exitwave.papers.larsen2022.training import predict

costs = {title: stored(f"cost-{name}") for title, name in names.items()}
TABLE_A2 = {"MoS₂": (66, 69, 25), "MoS₂ on graphene": (73, 72, 24), "many materials": (337, 343, 88)}
compact = load_released("larsen2022", "supported", 0)
empty = torch.zeros(1, 3, 512, 512)
predict(compact, empty)
begin = time.perf_counter()
predict(compact, empty)
took = time.perf_counter() - begin
Markdown(
    "| core hours | exit waves | paper | series | paper | training, one core | paper, one GPU |\n|---|---|---|---|---|---|---|\n"
    + "\n".join(
        f"| {title} | "
        + " | ".join(
            f"{float(run[f'{kind}_hours'].mean()):.3g} | {paper}"
            for kind, paper in zip(("wave", "series", "training"), TABLE_A2[title], strict=True)
        )
        + " |"
        for title, run in costs.items()
        if run is not None
    )
    + f"\n\nThe wave of three images of 512 x 512 pixels, by a released network, here and now: {took:.2f} s."
)

# %% tags=["hide-cell"]
for title, run in costs.items():
    hours = [float(run[f"{kind}_hours"].mean()) for kind in ("wave", "series", "training")]
    assert hours[0] < TABLE_A2[title][0] / 100, (title, hours)
    assert hours[1] < TABLE_A2[title][1] / 100, (title, hours)
    assert 3 < hours[2] / TABLE_A2[title][2] < 5, (title, hours)

# %% [markdown]
# **Takeaway.** Table A.2, extrapolated from a few waves, series and steps of 224 pixels (the paper does not say how many it has). Exit waves and series cost less than a hundredth of the core
# hours that the paper's took, so that series are made anew in every epoch. The paper's network would train on one core three to five times as long as it did on a GPU.

# %% [markdown]
# ## What the paper and its code disagree about
#
# The code of this paper was not at hand; an earlier one of the same group was, for nanoparticles of gold. There
#
# - images are blurred by 5 to 7 *pixels* where Table 1 speaks of Å;
# - the detector's noise is filtered by the *square root* of the function that the paper calls the MTF;
# - convolutions are followed by a leaky ramp and then by batch norm, with a learned slope for each channel;
# - smearing is 15 pm in the text and 20 pm in Fig. S4.
#
# ## Limits
#
# - Atoms are independent, at rest but for a common smear; bonds and phonons are not in it.
# - The lens is linear and coherent but for focal spread; beam tilt, drift and three-fold astigmatism are not drawn for training.
# - The method by likelihood takes a specimen of a few thin planes, in vacuum or on a film, in a field that repeats or has a margin. Atoms of all
#   elements have one shape in it; nothing is absorbed.
# - A network knows the materials that it has seen; the two-dimensional materials of the table are idealised.
#
# ## Your own series
#
# One command takes images to a wave, a preview and a report. It registers them, finds what is free of the lens, and says of each image how
# much of it the wave does not explain:
#
# ```
# exitwave retrieve focal-series a.dm3 b.dm3 c.dm3 --defocus=-9nm,-4nm,1nm --energy 50keV --pixel 0.0108nm \
#     --spherical-aberration=-14um --focal-spread 1nm --mtf '0 0.15 1.2' -o wave.nc
# ```
#
# It reads dm3, dm4, tif, mrc, emd, hspy, npy and exitwave's own records; what the files say of themselves need not be given. Underfocus is positive, and numbers
# without a unit are in Å and eV. Here it is given the middle of the three images above, of which the flake fills more than the field, once for the
# likelihood and once for a network, whose wave it judges by the images:

# %%
import os
import shlex
import shutil
import sys
import tempfile
from pathlib import Path
from subprocess import run

from IPython.display import Image, display

from exitwave.papers.pictures import shrunk
from exitwave.project import released_file

few = 160
first = (parameters.field - few) // 2
cut = slice(first, first + few)
place = pixel * np.arange(shots[0, cut].shape[0])
series = records.make_record(
    "images",
    shots[:, cut, cut].numpy(),
    energy=parameters.energy,
    defocus=conditions.defocus[0].numpy(),
    y=place,
    x=place,
)
told = (
    f"--spherical-aberration={float(conditions.spherical_aberration[0]) / 1e4:.2f}um --focal-spread {float(conditions.focal_spread[0]):.1f} "
    f"--mtf '{float(conditions.mtf_floor[0]):.2f} {float(conditions.mtf_scale[0]):.2f} {float(conditions.mtf_exponent[0]):.2f}' "
    "--free astigmatism,coma,blur"
)
commands = {
    "wave": f"retrieve focal-series images.nc {told} -o wave.nc",
    "network": f"retrieve focal-series images.nc --method network --weights supported-0.safetensors {told} -o network.nc",
}
plain = {name: value for name, value in os.environ.items() if "COLOR" not in name} | {"TERM": "dumb"}
own = {}
with tempfile.TemporaryDirectory() as folder:
    records.save(series, Path(folder) / "images.nc")
    shutil.copy(
        released_file("larsen2022", "supported", 0, "workshop"), Path(folder) / "supported-0.safetensors"
    )
    for name, command in commands.items():
        full = [sys.executable, "-m", "exitwave.cli", *shlex.split(command)]
        done = run(full, cwd=folder, env=plain, capture_output=True, text=True, check=True)
        print(f"$ exitwave {command}\n{done.stdout}")
        own[name] = records.load(Path(folder) / f"{name}.nc")
        display(Image(shrunk((Path(folder) / f"{name}.png").read_bytes(), 1000)))

# %% [markdown]
# **Takeaway.** What the likelihood makes of the images explains them as well as noise allows; the network's wave does not, and is named for each image. Both see flake and graphene, but only
# who has the residual knows which to believe.
#
# - `--method gradient` (the default) is the likelihood of this page, `gerchberg-saxton` the older method, which gets images with their noise filtered, `network` takes `--weights`, and with `--doubt 0.3` changes
#   its wave until it explains the images.
# - `--free defocus,shift,astigmatism,coma,threefold,spherical_aberration,focal_spread,blur` lets go of more of the lens. Free what you are not sure of.
# - Displacements of more than half a lattice period, and a field that turns or is distorted from image to image, are to be corrected before.
# - Defoci in a wrong unit, of the wrong sign, or in another order than the images are warned of, with what explains the images better (of more than three images each is asked at which defocus the wave of three explains it best; a series whose order is off all round may be missed); so is a pixel size, an energy or a span of defocus for which a network was not trained, with the range.

# %% tags=["hide-cell"]
if parameters.scale == "workshop":
    beyond = {name: (one["residual"] / one["noise"]).values for name, one in own.items()}
    assert beyond["wave"].max() < 1.1 < beyond["network"].min(), beyond
    lens_pair = own["wave"]["astigmatism"].values
    true_astigmatism = torch.polar(conditions.astigmatism[0], 2 * conditions.astigmatism_azimuth[0])
    assert abs(complex(*lens_pair) - complex(true_astigmatism)) < 2.0, lens_pair

# %% [markdown]
# ## Exercises
#
# **1** (10 minutes). Which matters more to the wave: to place all atoms into one slice, or to forget their thermal motion? Use Eq. A.1. Hint: `parameters.changed(thickness=..., displacement=...).multislice`.

# %% tags=["solution", "hide-cell"]
reference = wave.to(torch.complex128)
worse = {}
for title, changed in (("one slice", {"thickness": 50.0}), ("at rest", {"displacement": 0.0})):
    coarser = exit_waves.simulate(
        flake.numbers, flake.positions, parameters.changed(**changed).multislice, dtype=torch.complex128
    )
    worse[title] = float(metrics.relative_wave_error(coarser, reference))
    print(f"{title}: {worse[title]:.1e}")
assert worse["one slice"] > worse["at rest"], worse
# By far the slices: the flake is tilted and lies on graphene, so that its atoms are at many heights.

# %% [markdown]
# **2** (10 minutes). Show that the sign of the defocus can be told from images only together with the sign of the phase: take the complex conjugate of the
# wave, and of all transfer functions (`assumed`). For which lenses does it hold?

# %% tags=["solution", "hide-cell"]
for title, lens_ in (("assumed", assumed), ("with coma", true_lens)):
    one, other = (
        imaging.images(each, how) for each, how in ((half[0], lens_), (half[0].conj(), lens_.conj()))
    )
    print(f"{title}: largest difference {float((one - other).abs().max()):.1e}")
    assert ((one - other).abs().max() < 1e-4) == (title == "assumed")
# For a lens that is even. Coma is odd: with it the two are told apart.

# %% [markdown]
# **3** (10 minutes). A weak phase object shows in an image what $|T(k) - T^*(-k)|/2$ lets through. Which share of all frequencies below 1 Å⁻¹ is lost (less than 0.1) in each image alone, and which in all? Hint: $-k$ is
# `assumed.flip(-2, -1).roll((1, 1), (-2, -1))`, and `exitwave.optics.frequency_grid` gives the frequencies.

# %% tags=["solution", "hide-cell"]
from exitwave.optics import frequency_grid

mirrored = assumed.flip(-2, -1).roll((1, 1), (-2, -1))
through = (assumed - mirrored.conj()).abs() / 2
k = torch.hypot(*frequency_grid(tuple(assumed.shape[-2:]), 2 * parameters.sampling))
alone = [float((each[k < 1] < 0.1).double().mean()) for each in through]
together = float((through.amax(0)[k < 1] < 0.1).double().mean())
print("each alone:", [f"{each:.2f}" for each in alone], f"all: {together:.2f}")
assert together < 0.5 * min(alone), (together, alone)

# %% [markdown]
# **4** (5 minutes). Take a wave that scatters a tenth too much, and put it into a field twice as wide, the rest vacuum. What becomes of its RMSE, and what of Eq. A.1?

# %% tags=["solution", "hide-cell"]
wrong = half[0].to(torch.complex128) * 1.1 - 0.1  # too strong by a tenth
right = half[0].to(torch.complex128)
both_errors = []
for title, margin in (("as it is", 0), ("twice as wide", right.shape[-1] // 2)):
    a, b = (torch.nn.functional.pad(each - 1, (margin,) * 4) + 1 for each in (wrong, right))
    both_errors.append((float(metrics.wave_rmse(a, b)), float(metrics.relative_wave_error(a, b))))
    print(f"{title}: RMSE {both_errors[-1][0]:.4f}, Eq. A.1 {both_errors[-1][1]:.4f}")
assert abs(both_errors[1][0] / both_errors[0][0] - 0.5) < 0.05, both_errors
# Vacuum, which is right, dilutes the RMSE: four times the pixels, half the error.

# %% [markdown]
# ## This paper's claims
#
# Each row is computed from `data/` by a rule that was fixed before it was run; see the [ledger](../book/ledger.md).

# %% tags=["hide-input"]
Markdown(ledger.markdown(ledger.ledger(["larsen2022"], ["workshop"])))

# %% [markdown]
# ## Keep this run
#
# Every execution of this page leaves its exit wave in `runs/larsen2022/`, named by a hash of the parameters;
# `exitwave runs list` shows them. That of the figures above: {download}`exit wave <../data/live/larsen2022.nc>`.

# %%
axis = 2 * parameters.sampling * np.arange(size)
result = records.make_record(
    "wave", np.stack([half[0].real.numpy(), half[0].imag.numpy()]), energy=parameters.energy, y=axis, x=axis
)
path = save_run("larsen2022", parameters, result, time.perf_counter() - started)

# %% [markdown]
# ## References
#
# See the [list of references](../book/references.md).
