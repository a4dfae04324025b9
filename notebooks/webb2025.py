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
# # LACBED: patterns of crystals, exact and fast
#
# *Webb, Beanland and Römer 2025, "Large-Angle Convergent-Beam Electron Diffraction Patterns via Conditional
# Generative Adversarial Networks"* {cite}`webb2025`
#
# :::{admonition} Before you begin
# :class: note
#
# | | |
# |---|---|
# | **Goals** | compute large-angle diffraction patterns of a crystal exactly and fast; see when such a pattern is converged and when not; judge what a network that predicts them is compared with |
# | **You need** | Fourier series, eigenvectors of a matrix; [notation](../book/notation.md) |
# | **Time** | 45 minutes to read, 50 for the exercises; the live cells and solutions run in two minutes on one core |
# | **Memory, GPU** | below 2 GB; no GPU |
# :::
#
# **The paper in one paragraph.** A convergent beam that is wider than the Bragg angle paints, in its central disk, how
# much of the beam a crystal transmits at each angle of incidence. Many beams exchange intensity on the way, so the
# pattern must be computed with all of them at once, and the authors' program FELIX needs minutes on a cluster for one. They
# compute 14,270 patterns of cubic crystals along [001], train a conditional generative adversarial network (pix2pixHD) to
# turn the image of a projected potential into the image of the pattern, which takes 20 ms, and train it in the opposite
# direction, from pattern to potential, for which no other method is known.
#
# **What this page does.** How fast can the exact calculation be, how far are the patterns converged that the network learns,
# and is it right? Then networks, forward and inverse, on a data set of its own, judged as the paper does and by measures
# that the paper's scores hide. At the end, what can be better.

# %% tags=["parameters"]
from typing import Optional

scale: str = "workshop"  # smoke, workshop, gpu or paper
seed: Optional[int] = None  # fold that is held out and start of the weights
crystals: Optional[int] = None  # of the data set
shard: Optional[int] = None  # crystals of one shard
largest_cell: Optional[float] = None  # largest lattice parameter, Å
version: Optional[str] = None  # felix, converged or dark
energy: Optional[float] = None  # eV
angular_range: Optional[float] = None  # half width of the field times a, rad Å
thickness: Optional[float] = None  # of the patterns that a network is trained on, Å
reads: Optional[str] = None  # stored files that a study reads: patterns, crystals or nothing
direction: Optional[str] = None  # forward or inverse
method: Optional[str] = None  # gan, regression, circular, conditioned or assisted
origin: Optional[str] = None  # of the potentials: given or canonical
disks: Optional[int] = None  # given to an inverse network of version dark
few_beams: Optional[int] = None  # of the pattern that an assisted network is given
split: Optional[str] = None  # random or prototype
folds: Optional[int] = None  # of cross-validation
part: Optional[float] = None  # of the training crystals that is used
pixels: Optional[int] = None  # of what the networks see
width: Optional[int] = None  # channels of the generator's first layer
downsamplings: Optional[int] = None  # strided convolutions of the generator
blocks: Optional[int] = None  # residual blocks of the generator
discriminator_width: Optional[int] = None  # channels of its first layer
discriminator_layers: Optional[int] = None  # its strided convolutions
feature_weight: Optional[float] = None  # of feature matching
epochs: Optional[int] = None  # passes over the training crystals
batch: Optional[int] = None  # crystals of one step
rate: Optional[float] = None  # rate of Adam

# %% tags=["hide-cell"]
import time

from exitwave.papers.webb2025.parameters import Parameters

started = time.perf_counter()
parameters = Parameters.collect(globals())
parameters

# %% tags=["hide-input"]
import numpy as np
from IPython.display import Markdown

from exitwave import records
from exitwave.chapters import ledger
from exitwave.chapters.reproduce import run_file
from exitwave.chapters.run import save_run
from exitwave.papers.figures import setup
from exitwave.papers.webb2025 import figures
from exitwave.papers.webb2025.patterns import THICKNESSES, geometry
from exitwave.simulate import lacbed

setup()


# %% tags=["hide-cell"]
def stored(name):
    """Return a stored run, or None."""
    path = run_file("webb2025", "workshop", name)
    return records.load(path) if path.is_file() else None


# %% [markdown]
# ## From a crystal to a disk
#
# The potential of a crystal is a Fourier series over its reciprocal lattice. In units of the wave equation its coefficients
# are
#
# $$U_g = \frac{\gamma}{\pi V}\sum_j o_j\, f_j(g)\, e^{-B_j g^2/4}\, e^{-2\pi i\, g\cdot r_j},$$
#
# with the scattering factors $f_j$, occupancies $o_j$ and Debye-Waller factors $B_j$ of the atoms in a cell of volume $V$,
# and $\gamma = 1 + E/mc^2$ ({func}`exitwave.simulate.lacbed.potential.potential_coefficients`). A plane wave that enters with the
# in-plane wave vector $k$ becomes a sum of diffracted beams. Their amplitudes obey
#
# $$\frac{\mathrm d\psi_g}{\mathrm dz} = 2\pi i\Big[s_g(k)\,\psi_g + \frac{1}{2K}\sum_{h\neq g} U_{g-h}\,\psi_h\Big],
#   \qquad s_g = \frac{K^2-|K+g|^2}{2K},$$
#
# so that behind a thickness $t$ they are $e^{2\pi i A t}$ applied to the incident beam. The pattern is $|\psi_0|^2$ as a
# function of $k$: one matrix exponential for each pixel. Here is SrTiO₃ along [001] at 200 kV:

# %%
from exitwave.specimens.prototypes import known_crystals

known = {(each.name, each.prototype): each for each in known_crystals()}
cold = known["SrTiO3", "perovskite"]  # atoms at rest
titanate = cold.with_debye_waller(0.5)
quickly = parameters.scale == "smoke"
size = 16 if quickly else 64
field = geometry(parameters, titanate, size)
begin = time.perf_counter()
pattern = lacbed.simulate(titanate, THICKNESSES, field, lacbed.Beams(limit=2.5 if quickly else 3.5))
took = time.perf_counter() - begin
half_angle = parameters.angular_range / titanate.lattice_parameter
Markdown(
    f"{size} × {size} pixels and {len(THICKNESSES)} thicknesses with {pattern.beams} beams in {took:.1f} s, "
    f"{pattern.tilts} tilts being different by symmetry. Largest difference to diagonalisation in double precision at a "
    f"few tilts: {float(pattern.solver_error.max()):.0e}. Largest difference to a calculation with more beams: "
    f"{float(pattern.beam_error.max()):.3f}."
)

# %%
figures.thicknesses(pattern, half_angle)

# %% [markdown]
# **Takeaway.** Deficiency lines, where a Bragg condition takes intensity from the transmitted beam, fill the field; with
# thickness every fringe splits, and the contrast at the centre, where most beams are excited at once, changes fastest.
#
# ## How to compute it fast
#
# Only the diagonal of $A$ changes with the tilt. Programs that diagonalise start from nothing at every pixel. Here, the
# exponential is expanded in Chebyshev polynomials of the matrix {cite}`talezer1984`,
#
# $$e^{2\pi i A t} = \sum_k c_k(t)\,T_k(\tilde A), \qquad x_{k+1} = 2\tilde A x_k - x_{k-1},$$
#
# for hundreds of tilts at once. One step is the product of the matrix $U$, common to all tilts, with a matrix that holds the
# vectors of all tilts, which a processor does near its peak speed; the diagonal part costs next to nothing. Three things
# make it cheaper still ({func}`exitwave.simulate.lacbed.disks.simulate`):
#
# - Every cubic [001] projection has a two-fold axis. With the origin on it, $U$ is real.
# - The transmitted beam needs the numbers $\langle 0|T_k|0\rangle$ only, and each vector gives two of them, since
#   $T_{2k} = 2T_k^2 - 1$ and $T_{2k+1} = 2T_{k+1}T_k - T_1$. They serve all thicknesses.
# - The symmetry of the pattern leaves an eighth or a quarter of the tilts.
#
# The expansion works with absorption, with higher Laue zones, on a GPU, and can be differentiated in $U$.

# %%
speed = stored("speed")


def speed_table(run):
    mean = {name: float(run[name].mean()) for name in run.data_vars}
    rows = [
        ("exact, 593 beams, four thicknesses (this code)", "exact_seconds"),
        ("with FELIX's beams, four thicknesses (this code)", "felix_seconds"),
        ("abTEM, 377 beams, as many tilts, four thicknesses", "abtem_seconds"),
        ("the paper's generator, 182 million parameters, one thickness", "network_seconds"),
        ("a compact generator, one thickness", "compact_seconds"),
    ]
    lines = ["| SrTiO₃, 128 × 128 pixels, B = 0 | seconds |", "|---|---|"]
    lines += [f"| {title} | {mean[name]:.3g} |" for title, name in rows]
    return "\n".join(lines) + (
        f"\n\nOn {mean['threads']:.0f} thread(s) of one processor, in one run. Exact over network: **{mean['ratio']:.0f}**; a tilt "
        f"with 377 beams is {mean['abtem_ratio']:.0f} times as fast as in abTEM."
    )


Markdown(speed_table(speed) if speed is not None else "nothing is stored: run `exitwave reproduce webb2025`")

# %% [markdown]
# **Takeaway.** The paper compares a network on a GPU with FELIX on a cluster and finds four orders of magnitude. On one and
# the same processor, the exact calculation batched, thirty to forty are left, for four thicknesses against one; with the
# beams that FELIX takes, both need about the same time. A compact generator is a thousand times faster, if it is as good.
# Data: {download}`speed <../data/webb2025/workshop/speed.nc>`.
#
# ### Tilts that share their waves
#
# A wide field asks one question many times. The waves of a crystal depend on the tilt only modulo the reciprocal lattice of the
# zero layer (Bloch's theorem). With the incident wave vector $k + G$, $k$ in the first Brillouin zone,
#
# $$\psi_g(t) = \sum_j C_{G+g,\,j}\,C^*_{G,\,j}\,e^{2\pi i\kappa\lambda_j t},\qquad
#   \Big(-\frac{|k+g|^2}{2K}\,\delta_{gh} + \frac{U_{g-h}}{2K}\Big)\,C_j = \lambda_j\,C_j,$$
#
# $\kappa = K/K_z$: another tilt with the same $k$ takes other rows of the same eigenvectors. The field of the paper is some 17
# reciprocal vectors wide, so that almost three hundred tilts stand behind each $k$. What is needed is a whole number of pixels
# a vector. With eight, ten diagonalisations make the bright field of SrTiO₃ in 128 × 128 pixels, all thicknesses included, and 64
# make its diffracted disks as well ({func}`exitwave.simulate.lacbed.folded.simulate_folded`, `--per-vector` on the command line). The
# beams are those with $|k+g|$ below one limit for all tilts. It is set so that at the corner of the field none is left out that lies
# nearer to the Ewald sphere than a beam of 3.5 Å⁻¹ does at normal incidence.

# %%
whole_vectors = lacbed.PeriodicGeometry(parameters.energy, pixels=2 * size, per_vector=max(1, size // 8))
begin = time.perf_counter()
shared = lacbed.simulate_folded(titanate, THICKNESSES, whole_vectors)
took = time.perf_counter() - begin
Markdown(
    f"{2 * size} × {2 * size} pixels and {len(THICKNESSES)} thicknesses with {shared.beams} beams in {took:.1f} s, both errors "
    f"measured: {float(shared.solver_error.max()):.0e} against double precision, {float(shared.beam_error.max()):.3f} against "
    "more beams."
)

# %%
folding = stored("folding")


def folding_table(run):
    mean = {name: float(run[name].mean()) for name in run.data_vars if run[name].dims == ("seed",)}
    cold, warm = (
        {name: float(run[name].sel(B=b, thickness=2000.0).max()) for name in ("folded_error", "limit_error")}
        for b in (0.0, 0.5)
    )
    lines = [
        "| SrTiO₃, 128 × 128 pixels, four thicknesses, one thread | beams | seconds | error, B = 0 | B = 0.5 Å² |",
        "|---|---|---|---|---|",
        f"| all beams to 3.5 Å⁻¹ around the incident one, Chebyshev | {mean['chebyshev_beams']:.0f} | {mean['chebyshev_seconds']:.3g} | "
        f"{cold['limit_error']:.2g} | {warm['limit_error']:.1g} |",
        f"| shared diagonalisations | {mean['folded_beams']:.0f} | {mean['folded_seconds']:.3g} | "
        f"{cold['folded_error']:.2g} | {warm['folded_error']:.1g} |",
        f"| the paper's generator, one thickness | | {mean['network_seconds']:.3g} | | |",
    ]
    return "\n".join(lines) + (
        f"\n\nErrors: largest difference at 200 nm to all beams to 6 Å⁻¹, at {run.sizes['seed']} × 16 tilts. Shared over network: "
        f"**{mean['ratio']:.1f}**. A tilt is **{mean['abtem_ratio']:.0f}** times as fast as in abTEM with 377 beams."
    )


Markdown(
    folding_table(folding) if folding is not None else "nothing is stored: run `exitwave reproduce webb2025`"
)

# %% tags=["hide-cell"]
if folding is not None:
    assert (folding["ratio"] < 10).all(), folding["ratio"].values
    assert (folding["abtem_ratio"] > 20).all(), folding["abtem_ratio"].values
    largest = folding[["folded_error", "limit_error"]].max("seed").sel(thickness=2000.0)
    assert (
        largest["folded_error"] < [0.06 * largest["limit_error"][0], 0.25 * largest["limit_error"][1]]
    ).all()

# %% [markdown]
# **Takeaway.** Of the paper's four orders of magnitude less than one is left, both on one thread of one processor, for four thicknesses
# against one, and with a largest error that is a quarter (B = 0.5 Å²) or less (B = 0) of that of the beams that the paper speaks of. The field is then as wide as the lattice
# has it, here 0.2006 rad Å over a, not 0.21. Data: {download}`folding <../data/webb2025/workshop/folding.nc>`.

# %%
figures.costs(folding) if folding is not None else None

# %% [markdown]
# **Takeaway.** What each costs against the edge of a primitive cubic cell. Beams grow as its square, a diagonalisation as the cube of
# their number; a network costs the same for all. FELIX's beams, a small part of all, stay cheap, at the error shown below.
#
# ## Is it right?
#
# The tests of this book compare the calculation with abTEM's Bloch waves (intensities to 10⁻³), with multislice, and with
# disks that FELIX itself wrote for GaAs: 77 of them at 200 kV and 93 nm. With FELIX's own choice of beams, nine disks in
# ten correlate above 0.99 with FELIX's.
#
# A sign error is easily missed, because the transmitted beam does not notice it: conjugating all structure factors is the
# same as turning the crystal over, and by reciprocity the bright field does not change. Dark-field disks of a crystal without
# a centre do, once the crystal is tilted. GaAs along [110]:

# %%
from dataclasses import replace

arsenide = known["GaAs", "zincblende"]
mirrored = replace(arsenide, name="GaAs, conjugated", positions=-arsenide.positions)
wide = lacbed.Geometry(
    parameters.energy, zone=(1, 1, 0), half_angle=0.02, pixels=size // 2, x_direction=(0, 0, 1)
)
few = lacbed.Beams(limit=2.0)
two = [
    lacbed.simulate(each, [500.0], wide, few, disks=[(0, 0, 0), (1, -1, 1)], verify=False).intensity[:, 0]
    for each in (arsenide, mirrored)
]
change = (two[0] - two[1]).abs().amax((1, 2))
figures.beside({"dark field 1-11, conjugated": two[1][1].numpy(), "dark field 1-11": two[0][1].numpy()}, 0.02)

# %% tags=["hide-cell"]
assert change[0] < 1e-4, change
assert change[1] > 0.1, change

# %% [markdown]
# **Takeaway.** With conjugated structure factors the dark-field disk is another one, while the bright field stays as it is to
# the last digit. A test on bright fields, which are all that the paper uses, cannot see the sign.
#
# ## Is it converged?
#
# A pattern is exact for the beams that enter. FELIX sorts a pool of beams and keeps, at each tilt, those nearest to the
# Ewald sphere or strongly coupled, until it has a quarter of the pool: some 65 for SrTiO₃. The rest is left out. The paper
# speaks of a resolution limit of 3.5 Å⁻¹, which would be 593 beams. How far is either from the end?

# %%
converged = stored("convergence")
figures.convergence(converged) if converged is not None else None

# %% tags=["hide-cell"]
# What the takeaways say in words.
if converged is not None:
    felix, limit, warm = (
        float(converged[name].mean()) for name in ("felix_error", "limit_error", "limit_error_thermal")
    )
    assert 0.15 < felix < 0.25, felix
    assert 0.045 < limit < 0.065, limit
    assert 0.015 < warm < 0.025, warm
if speed is not None:
    assert 20 < float(speed["ratio"].mean()) < 50
    assert 0.5 < float((speed["felix_seconds"] / speed["network_seconds"]).mean()) < 2
    assert float(speed["compact_ratio"].mean()) > 1000

# %% [markdown]
# **Takeaway.** With the beams that FELIX keeps, the pattern of a 200 nm thick crystal is off by a fifth of the incident
# intensity, root mean square, where atoms are at rest ($B = 0$, what the paper takes when a CIF says nothing). All beams to
# 3.5 Å⁻¹ leave 5%, or 2% with $B$ = 1 Å²: at the corner of the field beams twice as far out as the tilt, up to 6 Å⁻¹, lie
# on the Ewald sphere and draw narrow lines. Points are means over three fields of tilts.
# Data: {download}`convergence <../data/webb2025/workshop/convergence.nc>`.

# %%
reach = 3.0 if quickly else 4.5
quick = lacbed.simulate(cold, [2000.0], field, lacbed.Beams("felix"), verify=False)
full = lacbed.simulate(cold, [2000.0], field, lacbed.Beams(limit=reach), verify=False)
figures.beside(
    {"FELIX's beams": quick.intensity[0, 0].numpy(), f"{reach} 1/Å": full.intensity[0, 0].numpy()}, half_angle
)

# %% tags=["hide-cell"]
differing = (quick.intensity - full.intensity).abs()
assert differing.max() > 0.2, differing.max()

# %% [markdown]
# **Takeaway.** The pattern that a network is asked to learn at 200 nm is not the pattern of the crystal: all over the field,
# along most of its lines, some pixels differ by more than a fifth of the incident intensity.
#
# ## What a projection decides
#
# Zincblende and half-Heusler crystals have their atoms over the same places of the cell. What differs is which atoms. The
# paper shows that their patterns can still be quite different (Fig. 5):

# %%
alike = stored("same-projection")
figures.same_projection(alike, parameters, known.values()) if alike is not None else None

# %% [markdown]
# **Takeaway.** The images of the potential differ in a few grey levels, the patterns in where their fringes lie. The index
# $R$ of Eq. 4 is 0.5 where two images have nothing in common, and 1 where they are alike.
# Data: {download}`same projection <../data/webb2025/workshop/same-projection.nc>`.
#
# ## The data set
#
# The ICSD, from which the paper takes its 14,270 crystals, is not free. Here are 420 of them from other sources: known
# structures by prototype, relatives with other elements, and random ones in every cubic space group at sensible distances,
# some with the other origin of the International Tables ({mod}`exitwave.papers.webb2025.library`). Cells up to 7.2 Å keep it
# to a quarter of an hour on a laptop. Patterns are those of FELIX's beams, with $B$ as a structure states it; the error that
# this choice of beams makes is stored with each.

# %%
from exitwave.papers.webb2025 import network_figures
from exitwave.papers.webb2025.patterns import load_samples

workshop = Parameters.at("workshop", reads="patterns")
samples = load_samples(workshop)
patterns_stored = records.load(workshop.files()["felix"])
network_figures.data_set(samples, range(4), workshop)

# %% [markdown]
# **Takeaway.** What a network is given and what it is to give, both stretched to the full range: the projected potential
# of one cell (Eq. 1) and the disk, whose field is as wide as 0.21/a. That the cell is large or the contrast low is
# lost on the way.

# %%
network_figures.beam_errors(patterns_stored)

# %% tags=["hide-cell"]
relative = (patterns_stored["beam_error"] / patterns_stored["scale"]).values.reshape(-1, len(THICKNESSES))
median_errors = np.median(relative, 0)
assert 0.15 < median_errors[0] < 0.25, median_errors
assert 0.3 < median_errors[-1] < 0.5, median_errors
minutes = float(stored("cost")["seconds_a_crystal"].mean()) * len(samples.crystals) / 60 / 2  # on two cores
assert 8 < minutes < 15, minutes

# %% [markdown]
# **Takeaway.** Half of the patterns of FELIX's beams are off by a fifth of the largest intensity or more at some pixel at
# 50 nm, and by more than a third at 200 nm. A network that learned this data set perfectly would be as far from the crystals.
#
# The same crystals in a second version: $B$ between 0.5 and 1 Å², by shared diagonalisations, with beams as for a limit of 3 Å⁻¹. The
# error by the choice of beams is again stored with each:

# %%
converged_path = workshop.changed(version="converged").files()["converged"]
converged_stored = records.load(converged_path)
network_figures.beam_errors(converged_stored)

# %% tags=["hide-cell"]
converged_errors = (converged_stored["beam_error"] / converged_stored["scale"]).values.reshape(
    -1, len(THICKNESSES)
)
assert np.isfinite(converged_errors).all()
assert (np.median(converged_errors, 0) < median_errors / 10).all(), np.median(converged_errors, 0)

# %% [markdown]
# **Takeaway.** The median error is less than a tenth of what FELIX's beams leave, at every thickness. This is what a network should be
# asked for.
#
# ## From potential to pattern
#
# The paper trains pix2pixHD's generator, 182 million parameters, on 12,843 crystals for 100 epochs. At `workshop` scale,
# which a laptop can do, it is the same game with a compact generator at 64 × 64 pixels, on 378 crystals for 40 epochs, on
# three of the ten folds. The `gpu` scale has the paper's generator and 3003 crystals: `exitwave train webb2025 --scale gpu`.

# %%
forward = {t: stored(f"forward-{t:.0f}") for t in THICKNESSES}
inverse = {t: stored(f"inverse-{t:.0f}") for t in THICKNESSES}
changes = stored("thickness-change")
network_figures.course(forward[500.0])

# %% [markdown]
# **Takeaway.** Unseen crystals end well below the mean of the training patterns (dashed), and far above the paper's
# $8\cdot10^{-4}$: the network sees one in ninety of the images that the original saw, from one in thirty of the crystals. Mean and
# range over three folds. At the paper's 128 × 128 pixels, the first fold ends 15% worse than at 64 × 64: more detail, as many
# crystals. Data: {download}`forward, 50 nm <../data/webb2025/workshop/forward-500.nc>`.

# %% tags=["hide-cell"]
finer = float(stored("forward-128")["mse_test"].sel(seed=0) / forward[500.0]["mse_test"].sel(seed=0))
assert 1.1 < finer < 1.2, finer

# %%
network_figures.translations(forward[500.0], workshop)

# %% [markdown]
# **Takeaway.** Crystals that the network has not seen, the first four of a fold, not chosen by result. Lines, their widths and the
# contrast come out; the fine structure at the centre is invented. A fifth of the error is what breaks the symmetry 2mm
# of every disk: three quarters would, had the network learned nothing of it, none if it had learned all. To average a
# prediction over the symmetry costs nothing and takes a sixth of the error away.

# %% tags=["hide-cell"]
one = {
    name: float(forward[500.0][name].mean())
    for name in ("mse_test", "symmetrised_mse", "asymmetry_share", "samples_seen")
}
assert 0.15 < one["asymmetry_share"] < 0.25, one
assert 0.12 < 1 - one["symmetrised_mse"] / one["mse_test"] < 0.2, one
assert 80 < 1 / one["samples_seen"] < 100, one

# %%
network_figures.by_thickness(forward, changes)

# %% [markdown]
# **Takeaway.** By the mean square error, thick crystals do not fare worse here, against the paper; by $R$ they do (0.86 at 50 nm, 0.82
# beyond), since thick patterns have less contrast, so that a network that says little errs little. Grey: what patterns
# change if the crystal is 1 or 5 nm thicker than it is said to be. A network below the dotted line would be as good as
# thickness is known at best, and the paper's $8\cdot10^{-4}$ lies there; this one is worse than 5 nm.

# %% tags=["hide-cell"]
r_of = {t: float(run["r_mean"].mean()) for t, run in forward.items()}
assert 0.85 < r_of[500.0] < 0.87, r_of
assert all(0.81 < r_of[t] < 0.83 for t in THICKNESSES[1:]), r_of
errors = {t: float(run["mse_test"].mean()) for t, run in forward.items()}
contrast = {t: float(run["mse_mean_image"].mean()) for t, run in forward.items()}
assert contrast[2000.0] < 0.8 * contrast[500.0], contrast
assert errors[2000.0] < errors[500.0], errors
one_nm = changes["mse_of_change"].mean("seed").sel(change=10.0)
five_nm = changes["mse_of_change"].mean("seed").sel(change=50.0)
assert all(errors[t] > float(five_nm.sel(thickness=t)) for t in THICKNESSES), five_nm.values
assert 7e-4 < float(one_nm.min()) < float(one_nm.max()) < 1.1e-3, one_nm.values

# %%
network_figures.over_thickness(forward, workshop, network_figures.typical(forward[500.0]))

# %% [markdown]
# **Takeaway.** The crystal with the median error among the six. In thick crystals the centre is where the error lies: there many
# beams are excited at once and the pattern changes fastest with the potential. At 50 nm it lies at the rim.

# %% tags=["hide-cell"]
thick, thin = forward[2000.0], forward[500.0]
assert float(thick["centre_mse"].mean()) > 1.1 * float(thick["rim_mse"].mean())
assert float(thin["centre_mse"].mean()) < float(thin["rim_mse"].mean())

# %%
network_figures.space_groups(forward[500.0])

# %% [markdown]
# **Takeaway.** Error and index of 126 unseen crystals. Fewer than half of the groups are better than the mean of all crystals,
# unlike in the paper. Groups of which the data set has four crystals or fewer, most of them random, are all worse than
# the mean; it is the rare ones that suffer, as the paper says of its own.

# %% tags=["hide-cell"]
from collections import Counter

members = Counter(crystal.space_group for crystal in samples.crystals)
groups, group_errors = (forward[500.0][name].values.ravel() for name in ("space_group", "mse"))
rare = [group for group in set(groups.tolist()) if members[group] <= 4]
assert len(rare) > 10, rare
assert all(group_errors[groups == group].mean() > group_errors.mean() for group in rare)

# %% [markdown]
# ## From pattern to potential

# %%
backward = workshop.changed(direction="inverse")
network_figures.translations(inverse[500.0], backward)

# %% [markdown]
# **Takeaway.** The network finds the atoms of most unseen crystals: the median of $R$ is 0.98 over three folds. The mean square
# error flatters: a potential is dark but for a few pixels, so that the mean of all training potentials, which shows no crystal
# at all, is as good as 0.0045, and the network's mean is not far below.

# %%
network_figures.over_thickness(inverse, backward, network_figures.typical(inverse[500.0]))

# %% [markdown]
# **Takeaway.** The way back depends little on thickness, as the paper says: mean errors of four thicknesses lie within a tenth of
# one another.

# %% tags=["hide-cell"]
back = {t: float(run["mse_test"].mean()) for t, run in inverse.items()}
assert max(back.values()) < 1.15 * min(back.values()), back
assert 0.97 < float(inverse[500.0]["r_median"].mean()) < 0.99
assert float(inverse[500.0]["mse_mean_image"].mean()) < 1.5 * back[500.0], back
assert float(forward[500.0]["groups_below"].mean()) < 0.5

# %% [markdown]
# ### The origin

# %%
network_figures.origins({"forward": forward[500.0], "inverse": inverse[500.0]})

# %% [markdown]
# **Takeaway.** Unseen crystals whose space group has two origins, each in both; a line is a fold. On the way back the first
# origin, which few of the crystals have, does worse in each fold; on the way forward in two of three. Of the worst tenth of the
# answers of the inverse, a shift by 1/8 [110] more than halves the error of some six in ten. If every answer may be
# shifted, the mean error falls from 0.0037 to 0.0022. A pattern does not tell the origin: no network can.
# What helps is to give all crystals the same one, below.

# %% tags=["hide-cell"]
first, second = (inverse[500.0][f"{which}_origin_mse"].values for which in ("first", "second"))
assert (first > second).all(), (first, second)
first, second = (forward[500.0][f"{which}_origin_mse"].values for which in ("first", "second"))
assert sum(first > second) == 2, (first, second)
assert 0.5 < float(inverse[500.0]["eighth_share"].mean()) < 0.7
assert 0.0020 < float(inverse[500.0]["aligned_mse"].mean()) < 0.0024

# %% [markdown]
# ## Better than the paper
#
# ### The network

# %%
names = {
    "as the paper": "forward-500", "no adversary": "forward-regression", "any origin": "forward-circular",
    "one origin": "forward-canonical", "told cell, thickness": "forward-conditioned",
    "given 49 beams": "forward-assisted",
    "a quarter of the data": "forward-quarter", "new prototypes": "forward-prototype",
    "converged patterns": "forward-converged",
}  # fmt: skip
kinds = {title: run for title, name in names.items() if (run := stored(name)) is not None}
network_figures.methods(kinds)

# %% [markdown]
# **Takeaway.** Points are folds, the dashed line is the mean of the training patterns; all had as many steps. From the left:
#
# - *No adversary.* The same generator, trained on the mean square error alone, errs a quarter less than the game.
# - *Any origin.* Periodic convolutions and random origins sound right and fail together: such a network moves its answer with
#   its input, while the pattern stays, so that the best it can do is a constant.
# - *One origin.* What works is to move every potential to an origin of its own, where it is most symmetric
#   ({func}`exitwave.papers.webb2025.projection.canonical`), before the network sees it. The two origins of the tables then
#   are one, and crystals that have both fare a quarter better than without adversary alone; all crystals together hardly do.
# - *Told cell and thickness*, one network serves all four thicknesses, with a quarter of the steps for each, and is still better
#   than the game.
# - *Given 49 beams.* With the exact pattern of about 49 beams as a second image, which takes less than a tenth of a second, the error
#   falls to less than a third. Nothing else comes near.
# - *A quarter of the data*, for as many steps: unseen crystals fare worse by a fifth, seen ones better
#   by almost a half. It is crystals that this network lacks, not steps.
# - *New prototypes.* With whole structure types held out, the network is no better than the mean pattern: what it does well it
#   has seen in relatives. The paper's random folds, with near-duplicates on both sides, cannot tell.
# - *Converged patterns*, without adversary: in each fold 8 to 10% harder to learn than FELIX's are without it.

# %% tags=["hide-cell"]
ratio = {
    title: float((run["mse_test"] / kinds["as the paper"]["mse_test"]).mean()) for title, run in kinds.items()
}
assert 0.7 < ratio["no adversary"] < 0.8, ratio
assert ratio["any origin"] > 2, ratio
one_origin = kinds["one origin"]
np.testing.assert_allclose(one_origin["first_origin_mse"], one_origin["second_origin_mse"], rtol=1e-3)
of_both = {
    title: sum(float(kinds[title][f"{which}_origin_mse"].mean()) for which in ("first", "second"))
    for title in ("one origin", "no adversary")
}
assert 0.7 < of_both["one origin"] / of_both["no adversary"] < 0.8, of_both
assert 0.93 < ratio["one origin"] / ratio["no adversary"] < 1, ratio
assert 0.75 < ratio["told cell, thickness"] < 0.9, ratio
assert ratio["given 49 beams"] < 1 / 3, ratio
assert 1.15 < ratio["a quarter of the data"] < 1.3, ratio
harder = (kinds["converged patterns"]["mse_test"] / kinds["no adversary"]["mse_test"]).values
assert len(harder) == 3 and harder.min() > 1.075 and harder.max() < 1.105, harder
few_seen, many_seen = (float(kinds[t]["mse_train"].mean()) for t in ("a quarter of the data", "as the paper"))
assert 0.5 < few_seen / many_seen < 0.65, (few_seen, many_seen)
new = kinds["new prototypes"]
assert float(new["mse_test"].mean()) > 0.95 * float(new["mse_mean_image"].mean())

# %%
names = {
    "as the paper": "inverse-500", "no adversary": "inverse-regression", "one origin": "inverse-canonical",
    "better beams": "inverse-bright", "and dark fields": "inverse-dark", "new prototypes": "inverse-prototype",
}  # fmt: skip
kinds_inverse = {title: run for title, name in names.items() if (run := stored(name)) is not None}
network_figures.methods(kinds_inverse)

# %% [markdown]
# **Takeaway.** The way back. The adversary neither helps nor harms. With *one origin* for all potentials the mean error falls by
# three tenths and the median by almost two thirds, to 0.00016, near the paper's $10^{-4}$: much of what a network gets wrong, and
# of what it must learn, is where a crystal begins. New prototypes are again what the network cannot do: by its error it is
# no better than the mean of the training potentials. The ledger asks its row of mean errors by these trainings, at 50 nm:
# fifteen times the paper's as the paper trains, fourteen times without adversary, ten times with one origin, eight times with
# dark fields and better beams. Each is part of the reason, none is all of it.
#
# The paper also hopes for the disks of diffracted beams. Here are those of 200 and 220 beside the transmitted beam, at the same
# tilts, with 193 beams:

# %%
from exitwave.papers.webb2025 import variation

dark = workshop.changed(direction="inverse", version="dark", disks=3)
network_figures.dark_field(variation.load(dark), range(3), dark)

# %% [markdown]
# **Takeaway.** A dark-field disk shows other fringes, and breaks the symmetry that its reflection breaks. But a network that is given
# all three (*and dark fields*, above) is no better than one that is given the same bright fields alone (*better beams*). What is missing
# is not in the pattern: seen crystals are four times better than unseen ones.

# %% tags=["hide-cell"]
mean_back = {
    title: {name: float(run[name].mean()) for name in ("mse_test", "mse_train", "mse_median", "aligned_mse")}
    for title, run in kinds_inverse.items()
}
assert 0.9 < mean_back["no adversary"]["aligned_mse"] / mean_back["as the paper"]["aligned_mse"] < 1.1, (
    mean_back
)
one, given = mean_back["one origin"], mean_back["no adversary"]
assert 0.65 < one["mse_test"] / given["mse_test"] < 0.75, mean_back
assert 0.33 < one["mse_median"] / given["mse_median"] < 0.42, mean_back
assert 0.00015 < one["mse_median"] < 0.00017, mean_back
with_dark, bright = mean_back["and dark fields"], mean_back["better beams"]
assert 0.95 < with_dark["mse_test"] / bright["mse_test"] < 1.05, mean_back
assert 3.5 < bright["mse_test"] / bright["mse_train"] < 4.5, mean_back
new = kinds_inverse["new prototypes"]
assert float(new["mse_test"].mean()) > 0.95 * float(new["mse_mean_image"].mean())
from exitwave.papers.verdicts import load_claims

(printed,) = (claim.value[0] for claim in load_claims("webb2025").claims if claim.id == "webb-inverse-mse")
times = [
    mean_back[t]["mse_test"] / printed
    for t in list(kinds_inverse)
    if t not in ("better beams", "new prototypes")
]
assert np.allclose(times, [15, 14, 10, 8], atol=0.5), times

# %% [markdown]
# ### Few beams, exactly
#
# A network buys time with error. So does an exact calculation with few beams. Here are both errors against many beams, for
# crystals with $B$ of 0.5 to 1 Å², and the time of one thread for 64 × 64 pixels and all four thicknesses:

# %%
frontier = stored("frontier")
network_figures.frontier(frontier)

# %% [markdown]
# **Takeaway.** FELIX's choice of beams (crosses) is not the best: 193 beams by a plain resolution limit take half its time and
# err a quarter as much at 50 nm, two thirds at 200 nm. Forty-nine beams, which take less than a tenth of a second for all
# four thicknesses, err against many by about as much as the networks of this page do against FELIX's pattern. Whoever wants
# a pattern fast and can live with such an error needs no network.
# Data: {download}`frontier <../data/webb2025/workshop/frontier.nc>`.

# %% tags=["hide-cell"]
mean_frontier = frontier.mean("seed")
at_50nm = mean_frontier["mse"].sel(thickness=500.0)
at_200nm = mean_frontier["mse"].sel(thickness=2000.0)
assert 0.2 < float(at_50nm.sel(rule="193") / at_50nm.sel(rule="FELIX")) < 0.3
assert 0.6 < float(at_200nm.sel(rule="193") / at_200nm.sel(rule="FELIX")) < 0.75
seconds = mean_frontier["seconds"]
assert 0.4 < float(seconds.sel(rule="193") / seconds.sel(rule="FELIX")) < 0.6
assert float(seconds.sel(rule="49")) < 0.1
assert 0.02 < float(at_50nm.sel(rule="49")) < 0.04, at_50nm.values

# %% [markdown]
# ### From pattern to potential by physics
#
# "There is no conventional method which can perform this calculation", the paper says of the way from pattern to potential. Here is
# one. The exact calculation can be differentiated: once the matrix of a tilt is diagonalised, two products give the
# derivative of its intensity by every coefficient of the potential, so that steps are those of Levenberg and Marquardt
# ({func}`exitwave.papers.webb2025.inversion.retrieve_potential`). Known are lattice, thickness, the intensity of the incident beam, and the
# symmetry 4mm of the projection. What it begins with decides. Without any start, a search puts atoms of random strengths on
# the special positions of the cell.

# %%
network_figures.inversions(stored("inversion"))

# %% [markdown]
# **Takeaway.** Mean square error of the stretched potential after the best shift, one crystal of ten each. Alone, eight are found to
# better than $10^{-4}$, in seconds. The two others, tungsten, which scatters most, and CaB₆, whose boron is on
# no special position, tell of their failure by a misfit above a tenth. From coefficients that are 20% off, nine are
# found; from 80% off one; from random coefficients, which are no atoms, none. Truth and model have the same 61 beams, nothing is
# noisy, and the settings were found by trial on half of these crystals. Data:
# {download}`inversion <../data/webb2025/workshop/inversion.nc>`.

# %% tags=["hide-cell"]
fits = stored("inversion")
alone = fits["atoms_mse_shifted"].values
assert sum(alone < 1e-4) == 8, alone
assert (fits["atoms_misfit"].values[alone > 1e-4] > 0.1).all()
assert fits["atoms_seconds"].max() < 60
near, far = (fits["perturbed_mse_shifted"].sel(perturbation=error).values for error in (0.2, 0.8))
assert sum(near < 1e-4) == 9, near
assert sum(far < 1e-4) == 1, far
assert (fits["flat_mse_shifted"].values > 0.05).all()

# %% [markdown]
# A network knows where to begin, and physics how to go on. These are the network's answers of the fold above whose
# projection has the symmetry 4mm, fitted to the exact patterns of the crystals, live:

# %%
from itertools import islice

from exitwave.papers.webb2025.refinement import refine

refined = list(islice(refine(backward, inverse[500.0]), 1 if quickly else None))
network_figures.refined(refined)

# %% tags=["hide-cell"]
gains = [each.before["mse_shifted"] / each.after["mse_shifted"] for each in refined]
assert min(gains) > 5, gains
assert len(refined) == (1 if quickly else 4), [each.name for each in refined]

# %%
Markdown(
    "\n".join(
        [
            "| crystal | network | after the fit | misfit of the pattern | time |", "|---|---|---|---|---|",
            *(
                f"| {each.name} | {each.before['mse_shifted']:.1e} | {each.after['mse_shifted']:.1e} | "
                f"{each.fit.misfit[0]:.2f} → {each.fit.misfit[-1]:.0e} | {each.fit.seconds:.0f} s |"
                for each in refined
            ),
        ]
    )
)  # fmt: skip

# %% [markdown]
# **Takeaway.** Mean square errors of the potential after the best shift, which is not determined by a pattern, fall by a factor of
# ten or more in seconds. The misfit of the pattern (1 for a constant) is what a user can see without the truth: a network
# alone gives no such sign. The truth has the same 60 beams as the model and no noise; with experimental patterns, thickness,
# absorption and background would have to be fitted too.
#
# ### What the height of an atom would tell
#
# The paper hopes for the $z$ coordinates of the atoms as a further channel. In the zero-order Laue zone, to which its patterns are
# confined, the height of an atom does not enter. Here all atoms of a crystal are moved up and down at random:

# %%
drawn = np.random.default_rng(0).uniform(-0.3, 0.3, len(titanate.numbers))
scattered = replace(titanate, positions=titanate.positions + np.stack([0 * drawn, 0 * drawn, drawn], -1))
disks = [
    lacbed.simulate(each, [2000.0], geometry(parameters, titanate, 16), few, verify=False).intensity
    for each in (titanate, scattered)
]
height_changes = float((disks[0] - disks[1]).abs().max())
Markdown(f"Largest change of the pattern at 200 nm: {height_changes:.0e}.")

# %% tags=["hide-cell"]
assert height_changes < 1e-5, height_changes

# %% [markdown]
# **Takeaway.** A network cannot learn from these patterns what they do not hold. With higher Laue zones (`--layers`) it could.
#
# ## What the paper and its code disagree about
#
# - The paper describes pix2pixHD with two generators and the loss of Eq. 2. The code trains the single global generator,
#   with a least-squares loss, feature matching, and a perceptual loss on a network trained on ImageNet photographs,
#   although nothing is said to be pre-trained.
# - The angular range is $0.21/a$ in the text and about $0.182/a$ in FELIX's input files.
# - A constant resolution of 3.5 Å⁻¹ is said for all but the largest cells. The input files ask for a pool of $225a - 650$
#   beams, of which a quarter are strong.
# - Images are stretched one by one to the full range before they are scored, so an error of scale or offset costs
#   nothing.
# - The mean squared error is $8.15\cdot10^{-4}$ in the text and 0.00815 in the caption of Fig. 4; the thickness of Fig. 3
#   is 50 nm and 500 nm.
# - About half of the structures are near-duplicates of others by a perceptual hash, and random folds separate them.
#
# ## Limits
#
# - Bloch waves assume a perfect crystal of even thickness with its surface normal to the zone axis.
# - The absorption of `--absorption einstein` stands for thermal diffuse scattering of independent atoms; inelastic scattering
#   by electrons is not in it.
# - The higher Laue zones enter with `--layers`; their fine lines need many more pixels than these images have.
# - Beams grow as the area of the cell: 7,500 at 3.5 Å⁻¹ for 14 Å. Memory grows as their square; the program says so before it
#   begins.
#
# ## Your own data
#
# ```
# exitwave simulate lacbed SrTiO3.cif --energy 200e3 --thickness '500 1000 1500 2000' --pixels 128 -o out.nc
# ```
#
# writes the disks with two errors beside them: against double-precision diagonalisation, and against more beams. Occupancies
# and displacement parameters are read from the CIF. `--zone`, `--disk`, `--absorption`, `--layers` and `--limit` do what their
# names say; `--debye-waller 0.5` gives atoms without one a $B$ in Å². `--per-vector 8` in place of a half width lets tilts
# share diagonalisations, for bright and dark fields of the zero layer without absorption.
#
# ## Exercises
#
# **1** (10 minutes). How thick must SrTiO₃ with its atoms at rest (`cold`) be before FELIX's beams are off by more than 0.05 somewhere? A few tilts
# will do, such as `geometry(parameters, cold, 8)`, and beams to 3.5 Å⁻¹ stand for all.

# %% tags=["solution", "hide-cell"]
some_tilts = geometry(parameters, cold, 8)
depths = [12.5, 25.0, 50.0, 100.0, 200.0, 400.0]
all_beams, felix_beams = (
    lacbed.simulate(cold, depths, some_tilts, each, verify=False).intensity
    for each in (lacbed.Beams(limit=3.5), lacbed.Beams("felix"))
)
missed = (all_beams - felix_beams).abs().amax((0, 2, 3))
for depth, error in zip(depths, missed, strict=True):
    print(f"{depth:.0f} Å: {float(error):.3f}")
assert missed[0] < 0.05 < missed[-1], missed
# Missing beams shift the phases of the others, and a phase error grows with thickness.

# %% [markdown]
# **2** (10 minutes). Show that the origin of the cell does not matter for the pattern although it does for the image of the
# potential. Hint: `titanate.shifted`, and `few` beams are enough.

# %% tags=["solution", "hide-cell"]
moved = titanate.shifted((0.13, 0.29, 0.41))
here, there = (
    lacbed.simulate(each, [1000.0], geometry(parameters, each, 8), few, verify=False).intensity
    for each in (titanate, moved)
)
print(f"largest difference: {float((here - there).abs().max()):.0e}")
assert (here - there).abs().max() < 1e-4
# A shift multiplies each coefficient by a phase that is linear in g: a change of basis.

# %% [markdown]
# **3** (15 minutes). Two beams: keep only 000 and 200. Solve the equation above for excitation errors of ±0.01 Å⁻¹, compare with the formula
# $1-\sin^2(\pi t\sqrt{s^2+|U_g/K|^2})/(1+(sK/|U_g|)^2)$, and find the thickness at which the transmitted beam is empty. Hint:
# `lacbed.potential_coefficients(titanate, np.array([[2, 0, 0]]), parameters.energy)`, `field.wavenumber`, `torch.linalg.matrix_exp`.

# %% tags=["solution", "hide-cell"]
import torch

u = abs(complex(lacbed.potential_coefficients(titanate, np.array([[2, 0, 0]]), parameters.energy)[0]))
extinction = field.wavenumber / u
s, t = torch.linspace(-0.01, 0.01, 101, dtype=torch.float64), extinction / 2
two_beams = torch.zeros(len(s), 2, 2, dtype=torch.complex128)
two_beams[:, 1, 1] = s
two_beams[:, 0, 1] = two_beams[:, 1, 0] = 1 / (2 * extinction)
transmitted = torch.linalg.matrix_exp(2j * np.pi * t * two_beams)[:, 0, 0].abs() ** 2
formula = 1 - torch.sin(np.pi * t * torch.sqrt(s**2 + extinction**-2)) ** 2 / (1 + (s * extinction) ** 2)
print(f"extinction distance {extinction:.0f} Å; the transmitted beam is empty at half of it")
assert torch.allclose(transmitted, formula, atol=1e-10)
assert transmitted[50] < 1e-10, transmitted[50]  # where s = 0

# %% [markdown]
# **4** (15 minutes). Which is worse for a pattern: a thickness that is wrong by 1 nm, or $B$ that is wrong by 0.1 Å²? Measure the mean
# squared error of both at 100 nm, with `few` beams.

# %% tags=["solution", "hide-cell"]
some_tilts = geometry(parameters, titanate, 8)
as_said = lacbed.simulate(titanate, [1000.0, 1010.0], some_tilts, few, verify=False).intensity[0]
warmer = lacbed.simulate(cold.with_debye_waller(0.6), [1000.0], some_tilts, few, verify=False).intensity[0]
by_thickness, by_warmth = ((as_said[0] - each).square().mean() for each in (as_said[1], warmer[0]))
print(f"1 nm: {float(by_thickness):.1e}\n0.1 Å²: {float(by_warmth):.1e}")
assert by_thickness > 2 * by_warmth, (by_thickness, by_warmth)
# A nanometre moves every fringe; vibrations weaken the outer beams, which here are few.

# %% [markdown]
# ## This paper's claims
#
# Each row is computed from `data/` by a rule that was fixed before it was run; see the [ledger](../book/ledger.md).

# %% tags=["hide-input"]
Markdown(ledger.markdown(ledger.ledger(["webb2025"], ["workshop"])))

# %% [markdown]
# ## Keep this run
#
# Every execution of this page leaves its pattern in `runs/webb2025/`, named by a hash of the parameters;
# `exitwave runs list` shows them. That of the figures above: {download}`pattern <../data/live/webb2025.nc>`.

# %%
result = lacbed.record(pattern, titanate, field, THICKNESSES)
path = save_run("webb2025", parameters, result, time.perf_counter() - started)

# %% [markdown]
# ## References
#
# See the [list of references](../book/references.md).
