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
# # One specimen, every method
#
# :::{admonition} Before you begin
# :class: note
#
# | | |
# |---|---|
# | **Goals** | see what images, a hologram and a scan make of the same atoms with as many electrons; say what each method must know, and how it fails; choose one |
# | **You need** | Fourier transforms; [notation](../book/notation.md); the other chapters where you want to know how a method works |
# | **Time** | 30 minutes to read, 55 for the exercises; the live cells and solutions run in a minute on one core |
# | **Memory, GPU** | below 2 GB; no GPU |
# :::
#
# **The question.** Each chapter of this book judges its method on its own specimens, at its own dose, by its own measure. Here all of them get one flake of MoS₂ that lacks two sulphur atoms, one number of electrons per Å² in all, and one question: what is its projected potential?
#
# **What this page does.** It records images, a hologram and scans of the flake, free and on graphene; finds the phase by twelve methods of the other chapters; divides it by the interaction constant, so that beam energy drops out; and compares it with that of the atoms, frequency by frequency. It follows no paper and so has no claims.

# %% tags=["parameters"]
from typing import Optional

scale: str = "workshop"  # smoke, workshop, gpu or paper
seed: Optional[int] = None  # of the flake, the atoms it lacks, and the electrons
kind: Optional[str] = None  # free or supported, on graphene
trouble: Optional[str] = None  # what nobody is told: none, focus, astigmatism or thick
dose: Optional[float] = None  # electrons per Å² through the specimen, in all
box: Optional[float] = None  # side of the periodic box, Å
diameter: Optional[float] = None  # mean diameter of the flake, Å
vacancies: Optional[int] = None  # sulphur atoms that are missing
displacement: Optional[float] = None  # mean square displacement along each axis, Å²
energy: Optional[float] = None  # beam energy, eV
network_energy: Optional[float] = None  # of the images that the network of focal series knows, eV
pixel: Optional[float] = None  # of images, Å
defocus: Optional[float] = None  # of the first image, underfocus positive, Å
span: Optional[float] = None  # defocus from the first image to the last, Å
alone: Optional[float] = None  # defocus of the image that has to do alone, Å
focal_spread: Optional[float] = None  # standard deviation of the focus, Å
blur: Optional[float] = None  # standard deviation of the vibration of images, Å
fringes: Optional[float] = None  # carrier frequency of holograms, 1/Å
contrast: Optional[float] = None  # of the fringes without a specimen
semiangle: Optional[float] = None  # of the probe, rad
scan: Optional[int] = None  # probe positions along each side of the box
blurred: Optional[float] = None  # defocus of the probe for parallax, Å
evaluations: Optional[int] = None  # of the likelihood of images
iterations: Optional[int] = None  # of Gerchberg and Saxton's method at most
epochs: Optional[int] = None  # of ptychography
network: Optional[str] = None  # run of larsen2022 whose released network is used
scanner: Optional[str] = None  # run of cao2020 whose released network is used

# %% tags=["hide-cell"]
import time

from exitwave.papers.comparison.parameters import Parameters

started = time.perf_counter()
parameters = Parameters.collect(globals())
parameters

# %% tags=["hide-input"]
import numpy as np
from IPython.display import Markdown

from exitwave import records
from exitwave.chapters.reproduce import run_file
from exitwave.chapters.run import save_run
from exitwave.optics import interaction_constant
from exitwave.papers.cao2020 import figures as scan_figures
from exitwave.papers.comparison import exposures, images, specimens
from exitwave.papers.comparison import figures as drawn
from exitwave.papers.comparison.methods import Recorded, retrieved
from exitwave.papers.comparison.words import WORDS
from exitwave.papers.figures import row, setup, slider

setup()


# %% tags=["hide-cell"]
def stored(name):
    """Return a stored run, or None."""
    path = run_file("comparison", "workshop", name)
    return records.load(path) if path.is_file() else None


# %% [markdown]
# ## The specimen
#
# A flake of random outline, 13 Å wide, in vacuum; of two of its sulphur columns only one atom is left. The truth is the projected potential of all atoms, smeared by 0.003 Å² of motion along each axis, with all frequencies below 1.2 1/Å, which is what steps of 0.4 Å carry ({mod}`exitwave.papers.comparison.specimens`). The second one lies on graphene, 3.3 Å away:

# %%
supported = parameters.changed(kind="supported", network="supported")
truth = {each.kind: specimens.truth(each) for each in (parameters.changed(kind="free"), supported)}
row(
    drawn.potential(truth["free"].numpy(), parameters.step, "MoS₂"),
    drawn.potential(truth["supported"].numpy(), parameters.step, "MoS₂ on graphene"),
)

# %% [markdown]
# **Takeaway.** Two sulphur atoms above each other are as strong as molybdenum, and one that is left alone half as strong. Graphene has less than a quarter of it.

# %% [markdown]
# ## What is recorded
#
# To a wave $\psi = e^{i\sigma V}$ with the transfer function $T$ of the lens, an *image*, a *hologram* with a reference wave of carrier $q$ and contrast $\mu$, and a *scan* with a probe $P$ at $R$ are
#
# $$I = |T * \psi|^2, \qquad H = 1 + |T * \psi|^2 + 2\mu\,\mathrm{Re}\big[(T * \psi)\,e^{-2\pi i q r}\big],$$
#
# $$D_R(k) = \big|F[P(r - R)\,\psi]\big|^2 .$$
#
# For a weak phase the first has the transfer $2\sin\chi$, nothing for long waves; the second $\mu$, whatever the frequency; the third something in between, once it is known how to read it. Waves are not that weak here: they come from multislice, and $\sigma V$ reaches half a radian and more in the band.
#
# *Dose* is what goes through the specimen, in all: three images have a third each, and the reference wave of a hologram, which passes beside, is not counted. Of what the specimen scatters far the lens loses some, as its focal spread is put into waves as an envelope: less than half a per cent here, 1 to 3% behind four layers. What was counted, divided by the area:

# %%
live = parameters
recorded = Recorded(live)
shown = ("single", "likelihood", "holography", "scanner")
counted = {name: recorded.electrons(name) for name in shown}
Markdown(
    f"asked for: {live.dose:.0f} electrons per Å²; "
    + "; ".join(f"{WORDS[name].title}: {number:.0f}" for name, number in counted.items())
)

# %%
taken = recorded.three
fringes = recorded.hologram
probe = exposures.scan_of(live, 0.0)
quarter = len(fringes.intensity) // 4
part = slice(quarter, -quarter)
row(
    drawn.recorded(taken.images[1].numpy(), live.pixel, f"image, {float(taken.lens.defocus[1]) / 10:.0f} nm"),
    drawn.recorded(fringes.intensity[part, part].numpy(), fringes.sampling, "hologram, its middle"),
    scan_figures.pattern(recorded.focused.mean((0, 1)).numpy(), probe.pixel, "mean pattern of the scan"),
    linked=False,
)

# %% [markdown]
# **Takeaway.** Out of focus the image shows a crystal, but not its long waves; in the hologram the phase is where fringes bend, which no eye sees; and in the scan it is in how patterns change from place to place.
#
# **The microscopes.** 80 keV, corrected, but for a focal spread of 7 Å; images as in Table 1 of Leth Larsen et al. {cite}`larsen2022`, over 10 nm of defocus, with an MTF; a hologram of fringes of 0.27 Å with a contrast of 0.3; a probe of 21.4 mrad in focus, for parallax 15 nm out of focus. All are told, and told the truth; what happens otherwise is shown below.
#
# **One energy?** The network of focal series has learned from images at 50 keV and is given such images; all else is at 80 keV. Slower electrons are scattered more, by 1.22 in phase: that is worth half as many electrons again, and is said where it matters.

# %% tags=["hide-cell"]
for number in counted.values():
    assert abs(number / live.dose - 1) < 0.02, counted
gain = float(interaction_constant(live.network_energy) / interaction_constant(live.energy))
assert abs(gain - 1.22) < 0.005, gain
assert 1.45 < gain**2 < 1.55
assert abs(1 / live.fringes - 0.27) < 0.005
assert 1.15 < specimens.highest(live) < 1.25

# %% [markdown]
# **The methods.** From images: maximum likelihood with atoms as the prior, of one image or three; Gerchberg and Saxton's method {cite}`gerchberg1972`; the network of the chapter on focal series, and its wave refined until it explains the images. From the hologram: its side band {cite}`lichte2008`. From scans: integrated centre of mass {cite}`lazic2016`, single side band {cite}`pennycook2015`, parallax, ptychography {cite}`maiden2009`, and the network of many materials of the 4D-STEM chapter. No network of this book takes a single image of such a flake: those of [the one-shot chapter](ede2020.ipynb) know crystals of 5 nm and more, in focus, and those of focal series want three images.
#
# ## Phases, here and now
#
# The likelihood of three images, the side band of the hologram, and two networks, recomputed on this page. Each phase is that of the wave in the middle plane of the specimen, in the common band, divided by $\sigma$; a constant, a plane and a displacement, which mean nothing, are taken off by the truth ({mod}`exitwave.papers.comparison.judge`).

# %%
begin = time.perf_counter()
found = {name: retrieved(recorded, name).score for name in ("likelihood", "network", "holography", "scanner")}
took = time.perf_counter() - begin
row(*(drawn.potential(each.image.numpy(), live.step, WORDS[name].title) for name, each in found.items()))

# %% tags=["hide-input"]
Markdown(
    "| | error | after the best round filter | missing atom: share of the true drop | over noise |\n|---|---|---|---|---|\n"
    + "\n".join(
        f"| {WORDS[name].title} | {each.error:.2f} | {each.filtered:.2f} | {each.missing:.2f} | {each.significance:.1f} |"
        for name, each in found.items()
    )
    + f"\n\nIn all {took:.0f} s."
)

# %% [markdown]
# *Error* is the root mean square difference from the truth over that of the truth: an empty image has 1. *After the best round filter* each frequency is weighed as serves it best, which forgives a blur and noise where there is no signal, and which only the truth can tell. *Over noise* is the drop at columns that lack an atom over what whole columns have wrong.

# %% tags=["hide-cell"]
for each in found.values():
    assert each.filtered <= each.error + 1e-9
    assert each.filtered < 1
if parameters == Parameters.at("workshop"):
    assert (
        found["likelihood"].error
        < found["network"].error
        < found["scanner"].error
        < found["holography"].error
    )

# %% [markdown]
# ## The figure to pin to the wall
#
# The error of each ring of frequencies over what the specimen has there, means over three flakes; four of the phases below, on one scale. The slider changes the dose:

# %%
doses = {1e3: stored("free-low"), 1e4: stored("free"), 1e5: stored("free-high")}
doses = {dose: run for dose, run in doses.items() if run is not None}
main = doses.get(1e4)
at_workshop = Parameters.at("workshop")
slider(
    "electrons per Å²",
    [f"{dose:,.0f}".replace(",", " ") for dose in doses],
    [drawn.spectral(run, drawn.IMAGES, "images and hologram") for run in doses.values()],
    [drawn.spectral(run, drawn.SCANS, "scans") for run in doses.values()],
    *(
        [
            drawn.small(drawn.stored_picture(run, name), at_workshop.step, WORDS[name].title)
            for run in doses.values()
        ]
        for name in drawn.FEW
    ),
) if doses else None

# %% [markdown]
# All of them at 10⁴ electrons per Å², as they come, no filter, on the scale of the truth:

# %%
row(*drawn.gallery(main, at_workshop.step), width=130) if main is not None else None

# %% [markdown]
# **Takeaway.** Images lose long waves: of those above 13 Å Gerchberg and Saxton's method has 5%, whatever the dose. The likelihood has them, for it knows what the long waves of an atom are whose short ones it sees. Without such knowledge they come from the hologram, which is right to 8% there, and pays for its weak fringes with noise everywhere else; and from centres of mass, which fade towards short waves, for the probe is in them. Side band and parallax have little of the longest waves and end at 1 Å, where the two edges of the aperture do. Ptychography errs evenly, and less the more electrons there are. Data: {download}`1000 <../data/comparison/workshop/free-low.nc>`, {download}`10 000 <../data/comparison/workshop/free.nc>`, {download}`100 000 <../data/comparison/workshop/free-high.nc>`.

# %% tags=["hide-cell"]
if len(doses) == 3:
    rings = {dose: run["spectral"].mean("seed") for dose, run in doses.items()}
    error = {dose: run["error"].mean("seed") for dose, run in doses.items()}

    def of(name, dose=1e4):
        """Return the error of a method."""
        return float(error[dose].sel(way=name))

    first = {name: float(rings[1e4][:, 0].sel(way=name)) for name in WORDS}
    assert abs(1 / (2 * float(main["ring"][0])) - 13.2) < 0.2
    for each in rings.values():
        for name in ("moduli", "eleven"):
            assert 0.93 < float(each[:, 0].sel(way=name)) < 0.97
    assert first["likelihood"] < 0.03
    assert abs(first["holography"] - 0.08) < 0.01
    free_of_atoms = ("moduli", "eleven", "mass", "side_band", "parallax", "ptychography")
    assert first["holography"] < first["mass"] < min(first[name] for name in free_of_atoms if name != "mass")
    mass = rings[1e5].sel(way="mass").values
    assert (np.diff(mass) > 0).all(), mass
    beyond = rings[1e5].isel(ring=rings[1e5]["ring"] > 1.04)
    for name in ("side_band", "parallax"):
        assert first[name] > 0.7
        assert float(abs(beyond.sel(way=name) - 1).max()) < 0.03
    even = [float(each.sel(way="ptychography").max()) for each in rings.values()]
    assert even[0] > even[1] > even[2]

# %% [markdown]
# ## The table beside it
#
# At 10⁴ electrons per Å², means over three flakes. *Waves*: of neighbouring frequencies whose correlation with the truth is above one half those that hold most of the specimen; 20.8 Å is the box, 0.82 Å the end of the band. *Filtered*: error after the best round filter. *Atom*: the missing sulphur over the noise, a median. *s*: seconds of the processor in one thread, while the machine did other things, for the retrieval alone. *Fails worst*: of the troubles below, and its error.

# %%
troubles = {
    "on graphene": stored("supported"),
    "focus": stored("focus"),
    "astigmatism": stored("astigmatism"),
    "four layers": stored("thick"),
}
troubles = {title: run for title, run in troubles.items() if run is not None}
Markdown(drawn.smaller(drawn.wall_table(main, troubles))) if main is not None and troubles else None

# %% [markdown]
# **Takeaway.** One image with all the electrons is as good as three that share them, and eleven are no better than three. Whoever knows atoms, or has learned them, errs least; of those who know nothing of them ptychography does, by more than a factor of two, and takes longest. Single side bands alone do not show a missing atom by three times the noise.

# %% tags=["hide-cell"]
if len(doses) == 3:
    assert abs(of("single") / of("likelihood") - 1) < 0.05
    assert abs(of("eleven") / of("moduli") - 1) < 0.05
    best = sorted(WORDS, key=of)
    assert set(best[:4]) == {"likelihood", "single", "refined", "network"}, best
    assert best[4] == "ptychography"
    assert all(of(name) > 2 * of("ptychography") for name in (*free_of_atoms[:5], "holography"))
    assert main["seconds"].mean("seed").idxmax() == "ptychography"
    over_noise = main["significance"].median("seed")
    assert [name for name in WORDS if float(over_noise.sel(way=name)) < 3] == ["side_band"]

# %% [markdown]
# ## What more electrons buy

# %%
row(
    drawn.over_dose(doses, drawn.IMAGES),
    drawn.over_dose(doses, drawn.SCANS),
) if len(doses) > 1 else None

# %% [markdown]
# **Takeaway.** At 10³ electrons per Å² only those see anything well that know atoms or have learned them: likelihood and network of three images err by a quarter, the network of scans by a half, all others by 0.7 and more. At 10⁵ ptychography, 0.11, comes near the likelihood, 0.08. Networks end at 0.18 and 0.29, which more electrons hardly change. Others end too, for want of long waves or of short ones, as the figure above shows. Holography does not: ten times the electrons make a third of its error.

# %% tags=["hide-cell"]
if len(doses) == 3:
    assert all(0.24 <= of(name, 1e3) < 0.275 for name in ("single", "likelihood", "network", "refined"))
    assert abs(of("scanner", 1e3) - 0.5) < 0.02
    others = [name for name in WORDS if name not in ("single", "likelihood", "network", "refined", "scanner")]
    assert min(of(name, 1e3) for name in others) > 0.7
    for name, value in {"ptychography": 0.11, "likelihood": 0.08, "network": 0.18, "scanner": 0.29}.items():
        assert abs(of(name, 1e5) - value) < 0.006, of(name, 1e5)
    for name in ("moduli", "eleven", "mass", "parallax"):
        assert of(name, 1e5) > 0.85 * of(name, 1e4)
    for few, many in ((1e3, 1e4), (1e4, 1e5)):
        assert 0.3 < of("holography", many) / of("holography", few) < 0.4

# %% [markdown]
# ## Where each fails
#
# The same flake, the same dose, and something that nobody is told: the focus is off by 3 nm, there are 2 nm of astigmatism, or there are four layers in place of one, 2.2 nm thick. Errors, beside those on graphene, which everyone may know of:

# %%
every = ({"as told": main} if main is not None else {}) | troubles
Markdown(drawn.errors_table(every)) if every else None

# %% tags=["hide-input"]
if every:
    here = {title: float(run["ideal_error"].mean()) for title, run in every.items()}
    elsewhere = float(main["untrained_error"].mean()), float(main["error"].sel(way="network").mean())
    slower = float(main["slower_error"].mean()), float(main["error"].sel(way="likelihood").mean())
    display_lines = [
        "The phase of the *true* wave errs by "
        + ", ".join(f"{value:.2f} ({title})" for title, value in here.items())
        + ".",
        f"The network of three images, given those at 80 keV, which it has never seen: {elsewhere[0]:.2f} in place of {elsewhere[1]:.2f}. The likelihood, given the network's images at 50 keV: {slower[0]:.3f} in place of {slower[1]:.3f}.",
    ]
Markdown("\n\n".join(display_lines)) if every else None

# %% [markdown]
# **Takeaway.** A focus that is 3 nm off ruins what believes it: the likelihood errs by 0.75 in place of 0.10, Gerchberg and Saxton's method by 0.93, and the hologram tells less than an empty image. What finds its probe, as ptychography, or is told nothing, as the network of three images, hardly minds; nor does parallax, which is five times as far from focus anyway. Astigmatism harms those that are to know it and cannot find it, Gerchberg and Saxton's method and the hologram. Four layers are not what the network of three images has learned, and it falls to 0.8; the likelihood errs as much as the phase of the true wave, for behind several layers a phase is not a projected potential. On graphene the networks lose most. Energy matters little once phases are divided by $\sigma$.
#
# **Which to take?** For a thin specimen and a lens that is known the likelihood, with one image or several. For a lens of which little is known a network that has learned from such specimens, and not for any others. Where less is known of specimen and focus, and there are 10⁴ electrons per Å² or more, ptychography. For long waves beside vacuum a hologram. For a look while the scan still runs the centre of mass or the network of scans, which take a fraction of a second.
#
# Data: {download}`on graphene <../data/comparison/workshop/supported.nc>`, {download}`focus <../data/comparison/workshop/focus.nc>`, {download}`astigmatism <../data/comparison/workshop/astigmatism.nc>`, {download}`four layers <../data/comparison/workshop/thick.nc>`.

# %% tags=["hide-cell"]
if len(every) == 5 and len(doses) == 3:
    wrong = {title: run["error"].mean("seed") for title, run in every.items()}

    def cost(name, title):
        """Return by how much a trouble raises the error of a method."""
        return float(wrong[title].sel(way=name)) / of(name)

    for name, value in {"likelihood": 0.75, "single": 0.75, "moduli": 0.93, "eleven": 0.94}.items():
        assert abs(float(wrong["focus"].sel(way=name)) - value) < 0.01
    assert abs(of("likelihood") - 0.10) < 0.005
    assert float(wrong["focus"].sel(way="holography")) > 1
    assert all(cost(name, "focus") < 1.15 for name in ("ptychography", "network", "parallax", "scanner"))
    assert at_workshop.blurred == 5 * abs(exposures.UNTOLD_FOCUS)
    harmed = {name for name in WORDS if cost(name, "astigmatism") > 1.1}
    assert harmed == {"moduli", "eleven", "holography"}, harmed
    assert abs(float(wrong["four layers"].sel(way="network")) - 0.8) < 0.01
    ideal = float(every["four layers"]["ideal_error"].mean())
    assert abs(float(wrong["four layers"].sel(way="likelihood")) / ideal - 1) < 0.1
    losses = sorted(WORDS, key=lambda name: -cost(name, "on graphene"))
    assert set(losses[:3]) == {"network", "refined", "scanner"}, losses
    assert elsewhere[0] / elsewhere[1] < 1.1
    for title, low, high in (("as told", 0, 0.005), ("four layers", 0.01, 0.03)):
        lost = 1 - every[title]["electrons"].mean("seed") / at_workshop.dose
        for name in WORDS:
            assert name in drawn.SCANS or low < float(lost.sel(way=name)) < high, (title, name, lost.values)
    assert abs(slower[0] / slower[1] - 1) < 0.05
    fast = ("mass", "scanner")
    assert all(float(main["seconds"].sel(way=name).max()) < 0.5 for name in fast)

# %% [markdown]
# ## What is not fair
#
# - **The likelihood of images knows atoms.** It looks for planes of atoms of one shape, taken from the same table of scattering factors that the simulation uses, with the same motion. Its images are simulated by multislice at the true heights of the atoms, of two or three elements, and it fits three planes of one; but a wrong shape is not among its troubles here. What scans and holograms would make of the same knowledge is not tried here. [The chapter on focal series](larsen2022.ipynb) says what atoms that move otherwise cost it.
# - **The networks know such specimens.** That of three images has learned from flakes of MoS₂, at this dose, with worse lenses. That of scans has seen other materials, and whole layers, no flakes.
# - **Gerchberg and Saxton's method is stopped by the truth**, at the best of three iterations.
# - **The others know nothing of atoms**, and are given no filter: noise where there is no signal counts against them. That is what the column after the best filter forgives.
# - **Electrons are all that counts.** Nothing is said of the time at the microscope, of drift, of how hard a biprism with a contrast of 0.3 at these fringes is to have, or of a detector of 48 × 48 pixels that counts each electron 2700 times over.
#
# ## Limits
#
# - One material, one thickness but for the trouble, no amorphous support, no damage: the dose is spread over a flake that stays.
# - Thermal motion smears the potential and scatters nothing to high angles.
# - The lens is corrected, coherent but for its focal spread, and told exactly. Partial coherence of the probe is not in it.
# - Flakes of 13 Å have no long waves beyond: what methods do at tens of nanometres, where holography is at home, is not seen here.
# - Three flakes: differences of a few per cent mean nothing.
#
# ## Exercises
#
# **1** (10 minutes). Show that the hologram counts a fair dose: that its electrons per Å² are twice those asked for, and that half of them never met the specimen.

# %% tags=["solution", "hide-cell"]
all_of_them = float(fringes.intensity.mean()) * live.dose
vacuum = float(fringes.empty.mean()) * live.dose / 2
print(
    f"{all_of_them:.0f} electrons per Å² in all, {vacuum:.0f} of the reference wave, asked for {live.dose:.0f}"
)

# %% [markdown]
# **2** (10 minutes). The phase of the true wave in its exit plane, 2 Å behind the last atom, is not that of the middle plane. How much worse is it as a projected potential?

# %% tags=["solution", "hide-cell"]
from exitwave.papers.comparison.judge import judge

wave = exposures.wave(live, live.energy)
sigma = float(interaction_constant(live.energy))
for title, phase in (
    ("exit plane", specimens.in_band(wave.angle(), live)),
    ("middle plane", images.phase(live, wave, live.energy)),
):
    print(f"{title}: error {judge(live, phase / sigma).error:.3f}")

# %% [markdown]
# **3** (10 minutes). Give the likelihood one image with all the dose, at 2, 8 and 20 nm of defocus. Does it matter which?

# %% tags=["solution", "hide-cell"]
for focus in (20.0, 80.0, 200.0):
    score = retrieved(Recorded(live.changed(alone=focus)), "single").score
    print(f"{focus / 10:.0f} nm: error {score.error:.3f}, over noise {score.significance:.1f}")

# %% [markdown]
# **4** (10 minutes). Take the complex conjugate of a wave that was found. By which of the measures of this page would you notice?

# %% tags=["solution", "hide-cell"]
from exitwave.papers.comparison.judge import judge

wave = images.by_likelihood(live, taken)
for title, each in (("as found", wave), ("conjugate", wave.conj())):
    score = judge(live, images.phase(live, each, live.energy) / float(interaction_constant(live.energy)))
    print(f"{title}: error {score.error:.2f}, filtered {score.filtered:.2f}, missing {score.missing:.2f}")

# %% [markdown]
# **5** (15 minutes). With which contrast of its fringes would holography reach the error of the network of scans at this dose?

# %% tags=["solution", "hide-cell"]
for fringe_contrast in (0.3, 0.6, 1.0):
    score = retrieved(Recorded(live.changed(contrast=fringe_contrast)), "holography").score
    print(f"contrast {fringe_contrast}: error {score.error:.2f}, filtered {score.filtered:.2f}")

# %% [markdown]
# ## Keep this run
#
# Every execution of this page leaves the phase of its likelihood in `runs/comparison/`, named by a hash of the parameters;
# `exitwave runs list` shows them. That of the figures above: {download}`phase <../data/live/comparison.nc>`. Another dose, another specimen:
#
# ```bash
# exitwave run comparison -p dose=1e3 -p kind=supported -p network=supported
# exitwave sweep comparison methods -p dose=3e2,1e3,3e3 -p seed=0,1,2
# ```

# %%
phase = found["likelihood"].image.numpy() * float(interaction_constant(live.energy))
result = records.phase(phase, sampling=live.step, energy=live.energy)
path = save_run("comparison", parameters, result, time.perf_counter() - started)

# %% [markdown]
# ## References
#
# See the [list of references](../book/references.md).
