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
# | **Time** | 30 minutes to read, an hour with the exercises; the live cells run in about a minute on two cores |
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
# **What this page holds so far.** The first half of the answer is the exact calculation itself: how fast can it be, how far
# are the patterns converged that the network learns, and is it right? The data set of crystals and the networks, forward
# and inverse, are the second half. Their code is in the package and their results are not: those rows of the ledger still
# say *not run*.

# %% tags=["parameters"]
from typing import Optional

scale: str = "workshop"  # smoke, workshop, gpu or paper
seed: Optional[int] = None  # fold that is held out and start of the weights
crystals: Optional[int] = None  # of the data set
shard: Optional[int] = None  # crystals of one shard
largest_cell: Optional[float] = None  # largest lattice parameter, Å
version: Optional[str] = None  # felix or converged
energy: Optional[float] = None  # eV
angular_range: Optional[float] = None  # half width of the field times a, rad Å
thickness: Optional[float] = None  # of the patterns that a network is trained on, Å
reads: Optional[str] = None  # stored files that a study reads: patterns, crystals or nothing
direction: Optional[str] = None  # forward or inverse
method: Optional[str] = None  # gan, regression or circular
split: Optional[str] = None  # random or prototype
folds: Optional[int] = None  # of cross-validation
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
from exitwave.papers.webb2025 import exact, figures
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
size = 16 if parameters.scale == "smoke" else 64
titanate = exact.strontium_titanate(0.5)
field = geometry(parameters, titanate, size)
begin = time.perf_counter()
pattern = lacbed.simulate(titanate, THICKNESSES, field)
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
# the same processor, the exact calculation batched, some thirty are left, for four thicknesses against one; with the
# beams that FELIX takes, both need about the same time. A compact generator is a thousand times faster, if it is as good.
# Data: {download}`speed <../data/webb2025/workshop/speed.nc>`.
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

from exitwave.specimens.prototypes import known_crystals

arsenide = next(c for c in known_crystals() if c.name == "GaAs" and c.prototype == "zincblende")
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
quick = lacbed.simulate(exact.strontium_titanate(), [2000.0], field, lacbed.Beams("felix"), verify=False)
full = lacbed.simulate(exact.strontium_titanate(), [2000.0], field, lacbed.Beams(limit=4.5), verify=False)
figures.beside(
    {"FELIX's beams": quick.intensity[0, 0].numpy(), "4.5 1/Å": full.intensity[0, 0].numpy()}, half_angle
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
figures.same_projection(alike, parameters) if alike is not None else None

# %% [markdown]
# **Takeaway.** The images of the potential differ in a few grey levels, the patterns in where their fringes lie. The index
# $R$ of Eq. 4 is 0.5 where two images have nothing in common, and 1 where they are alike.
# Data: {download}`same projection <../data/webb2025/workshop/same-projection.nc>`.
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
# names say; `--debye-waller 0.5` gives atoms without one a $B$ in Å².
#
# ## Exercises
#
# **1** (10 minutes). How thick must SrTiO₃ be before FELIX's beams are off by more than 0.05 somewhere? A few tilts will do.

# %% tags=["solution", "hide-cell"]
coarse = geometry(parameters, titanate, 12)
depths = [50.0, 100.0, 200.0, 400.0, 800.0]
best = lacbed.simulate(exact.strontium_titanate(), depths, coarse, lacbed.Beams(limit=4.5), verify=False)
fast = lacbed.simulate(exact.strontium_titanate(), depths, coarse, lacbed.Beams("felix"), verify=False)
for depth, error in zip(depths, (best.intensity - fast.intensity).abs().amax((0, 2, 3)), strict=True):
    print(f"{depth:.0f} Å: {float(error):.3f}")
# Missing beams shift the phases of the others, and a phase error grows with thickness.

# %% [markdown]
# **2** (10 minutes). Show that the origin of the cell does not matter for the pattern although it does for the image of the
# potential. Hint: `crystal.shifted`.

# %% tags=["solution", "hide-cell"]
moved = titanate.shifted((0.13, 0.29, 0.41))
one, other = (
    lacbed.simulate(each, [1000.0], coarse, few, verify=False).intensity for each in (titanate, moved)
)
print(f"largest difference: {float((one - other).abs().max()):.0e}")
# A shift multiplies each coefficient by a phase that is linear in g: a change of basis.

# %% [markdown]
# **3** (15 minutes). Two beams: keep only 000 and one other. Compare the disk with the formula
# $1-\sin^2(\pi t\sqrt{s^2+|U_g/K|^2})/(1+(sK/|U_g|)^2)$, and find the thickness at which the transmitted beam is empty.

# %% tags=["solution", "hide-cell"]
g = np.array([[0, 0, 0], [2, 0, 0]])
u = abs(complex(lacbed.potential_coefficients(titanate, g[1:], parameters.energy)[0]))
print(f"extinction distance {field.wavenumber / u:.0f} Å; the transmitted beam is empty at half of it")

# %% [markdown]
# **4** (15 minutes). Which is worse for a pattern: a thickness that is wrong by 1 nm, or $B$ that is wrong by 0.1 Å²? Measure the mean
# squared error of both at 100 nm.

# %% tags=["solution", "hide-cell"]
base = lacbed.simulate(titanate, [1000.0, 1010.0], coarse, few, verify=False).intensity[0]
warm = lacbed.simulate(exact.strontium_titanate(0.6), [1000.0], coarse, few, verify=False).intensity[0]
print(f"1 nm: {float((base[0] - base[1]).square().mean()):.1e}")
print(f"0.1 Å²: {float((base[0] - warm[0]).square().mean()):.1e}")

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
