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
# # 4D-STEM: learned phases beside ptychography
#
# *Cao et al. 2020, "Machine Learning for Phase Retrieval from 4D-STEM Data"* {cite}`cao2020`
#
# :::{admonition} Before you begin
# :class: note
#
# | | |
# |---|---|
# | **Goals** | know what a focused probe leaves on a detector; make images of it by dark field, centre of mass and ptychography; teach a network on half of a scan and see where it fails |
# | **You need** | Fourier transforms; [notation](../book/notation.md) |
# | **Time** | 40 minutes to read, 45 for the exercises; the live cells and solutions run in a minute and a half on one core |
# | **Memory, GPU** | below 2 GB; no GPU |
# :::
#
# **The paper in one paragraph.** A detector behind a scanned probe records a whole diffraction pattern at every position. An annular dark field image throws most of that away; ptychography uses it all, slowly, and not for thick specimens. The paper teaches
# networks to make the ptychographic image of monolayer MoS₂ from small clusters of patterns: a linear model with round masks, and two 4D convolutions. Both are then given patterns of thick PrScO₃. It is an abstract of two pages with two figures: no numbers and no code.
#
# **What this page does.** It is the experiment in numbers: simulated scans of both specimens at stated doses, ptychography, both networks, and measures of contrast, resolution and likeness to a truth that is known. Whatever the paper leaves out is a named parameter.

# %% tags=["parameters"]
from typing import Optional

scale: str = "workshop"  # smoke, workshop, gpu or paper
seed: Optional[int] = None  # of electrons and of networks
energy: Optional[float] = None  # beam energy, eV
semiangle: Optional[float] = None  # of the probe, rad
defocus: Optional[float] = None  # of the probe, underfocus positive, Å
dose: Optional[float] = None  # electrons per Å²
drift: Optional[float] = None  # of the specimen along y and x over the scan, Å
pixel: Optional[float] = None  # of the detector, rad
detector: Optional[int] = None  # pixels along each side of a pattern
inner: Optional[float] = None  # inner angle of the annular dark field, rad
repeats: Optional[int] = None  # cells of PrScO3 along each side of the field
grid: Optional[int] = None  # pixels along each side of the field
scan: Optional[int] = None  # probe positions along each side of the field
thickness: Optional[float] = None  # of PrScO3, Å
phonons: Optional[int] = None  # arrangements of atoms that move
displacement: Optional[float] = None  # mean square displacement along each axis, Å²
iterations: Optional[int] = None  # epochs of ptychography
cluster: Optional[int] = None  # patterns along each side of a cluster, odd
rings: Optional[int] = None  # parameters of the linear model's mask
channels: Optional[int] = None  # of the first 4D convolution
dropout: Optional[float] = None  # share of features that training leaves out
epochs: Optional[int] = None  # passes over the clusters
batch: Optional[int] = None  # clusters of one step
rate: Optional[float] = None  # learning rate of Adam
materials: Optional[int] = None  # scans that the network of many materials learns from
steps: Optional[int] = None  # updates of it
taught: Optional[int] = None  # updates of it by one scan alone, without a label
features: Optional[int] = None  # of a pattern
width: Optional[int] = None  # channels at full size
told: Optional[bool] = None  # it is told dose, semiangle and defocus

# %% tags=["hide-cell"]
import time

from exitwave.papers.cao2020.parameters import Parameters

started = time.perf_counter()
parameters = Parameters.collect(globals())
parameters

# %% tags=["hide-input"]

import numpy as np
import torch
from IPython.display import Markdown, display

from exitwave import records
from exitwave.chapters import ledger
from exitwave.chapters.reproduce import run_file
from exitwave.chapters.run import save_run
from exitwave.optics import wavelength
from exitwave.papers.cao2020 import figures as drawn
from exitwave.papers.cao2020 import methods, scene, transfer
from exitwave.papers.cao2020.judge import judge
from exitwave.papers.figures import row, setup

setup()


# %% tags=["hide-cell"]
def stored(name):
    """Return a stored run, or None."""
    path = run_file("cao2020", "workshop", name)
    return records.load(path) if path.is_file() else None


# %% [markdown]
# ## What is scanned
#
# A monolayer of MoS₂, of which the networks see the upper half; in the lower half one sulphur atom is missing. And PrScO₃ along the beam direction in which its praseodymium columns come in pairs, 0.59 Å apart ({mod}`exitwave.papers.cao2020.specimens`). What a phase image ought to show
# is the projected potential times the interaction constant, smeared by the motion of the atoms, with the frequencies that the steps of the scan can carry:

# %%
live = parameters.changed(phonons=1)
mos2 = scene.training_specimen(live)
scandate = scene.transfer_specimen(live)
[monolayer] = scene.expected(live, [mos2])
step_of_scandate = tuple(each / live.scan for each in scandate.size)
row(
    drawn.scanned(monolayer.phase, monolayer.step, "MoS₂", "phase", "rad"),
    drawn.scanned(
        scene.true_phase(live, scandate),
        step_of_scandate,
        f"PrScO₃, {scandate.thickness / 10:.0f} nm",
        "phase",
        "rad",
    ),
)

# %% [markdown]
# **Takeaway.** In the phase of the monolayer two sulphur atoms weigh nearly as much as one molybdenum atom, and the column that lacks one is plain to see. The projected potential of 20 nm of PrScO₃ would turn phases by tens of radians: no image of one phase can be right there, and what it ought to be is a question of taste.

# %% tags=["hide-cell"]
assert mos2.vacancy is not None
assert mos2.vacancy[0] > mos2.size[0] / 2
if parameters.scale == "workshop":
    assert float(monolayer.phase.max()) < 1.5
    assert float(scene.true_phase(live, scandate).max()) > 10
    assert 18 < scandate.thickness / 10 < 22

# %% [markdown]
# ## Patterns
#
# A probe of 21 mrad at 80 kV, in focus, at 67 × 67 positions, a prime number, so that no two cells of a crystal are met at the same places. Each plane wave of the aperture is carried through the specimen once; a probe at any position is a sum of what has become of them ({mod}`exitwave.simulate.scattering_matrix`), which is exact, and cheaper than 4489 probes. Square pixels of 3.6 mrad count electrons and never
# saturate, as those of the paper's detector do. Patterns of one molybdenum column, of a hollow, and the mean of all:

# %%
hollows, *columns = mos2.kinds()


def nearest(place):
    """Return the position of the scan that is nearest to a place (y, x), Å."""
    return tuple(int(round(each / by)) % live.scan for each, by in zip(place, monolayer.step, strict=True))


at_column, at_hollow = nearest(columns[-1][0]), nearest(hollows[0])
row(
    drawn.pattern(monolayer.patterns[at_column], live.pixel, "at molybdenum"),
    drawn.pattern(monolayer.patterns[at_hollow], live.pixel, "at a hollow"),
    drawn.pattern(monolayer.patterns.mean((0, 1)), live.pixel, "mean"),
)

# %% [markdown]
# **Takeaway.** Nearly every electron stays in the bright disk; what says where it has been are the few that leave it, and how those that stay lean to one side.

# %% tags=["hide-cell"]
counted_share = monolayer.patterns.sum((2, 3))
assert float(counted_share.max()) <= 1 + 1e-5
if parameters.scale == "workshop":
    assert float(counted_share.mean()) > 0.99
    angle = np.hypot(*np.meshgrid(*(np.fft.fftfreq(live.detector, 1 / live.detector),) * 2)) * live.pixel
    inside = float(
        monolayer.patterns.mean((0, 1))[torch.as_tensor(angle <= live.semiangle + live.pixel)].sum()
    )
    assert inside > 0.9, inside

# %% [markdown]
# ## Images without learning
#
# The electrons of each position are counted at 10⁵ per Å², some 10800 a position. Beside the dark field stands the integrated centre of mass ({mod}`exitwave.retrieve.scan_images`), which is the phase blurred by the probe. Ptychography ({mod}`exitwave.retrieve.ptychography`) looks for the object under which all patterns are likely. In these live cells atoms stand in one arrangement, displaced as by heat, so that columns are less alike than in the stored runs below, which average four:

# %%
counts = scene.counted(live, monolayer, torch.Generator().manual_seed(live.seed))
retrieved = methods.label(live, counts, monolayer)
direct = {
    "adf": methods.dark_field(live, counts),
    "com": methods.centre_of_mass(live, counts, monolayer),
    "label": retrieved.phase,
}
row(
    drawn.scanned(direct["adf"], monolayer.step, "annular dark field", "electrons"),
    drawn.scanned(direct["com"], monolayer.step, "integrated centre of mass", "phase", "rad"),
    drawn.scanned(direct["label"], monolayer.step, "ptychography", "phase", "rad"),
)

# %% tags=["hide-input"]
region = transfer.unseen_region(live)
lines = ["| | contrast over noise | resolution, Å | likeness to the truth |", "|---|---|---|---|"]
for name, image in direct.items():
    score = judge(image, monolayer, region, phase=name != "adf")
    lines.append(
        f"| {transfer.NAMES[name]} | {score.contrast:.1f} | {score.resolution:.2f} | {score.likeness:.3f} |"
    )
display(Markdown("\n".join(lines)))
display(
    Markdown(
        f"Ptychography took {retrieved.seconds:.1f} s here for {live.iterations} epochs of {len(counts) ** 2} patterns."
    )
)

# %% [markdown]
# **Takeaway.** Ptychography, in seconds, is nearest to the truth and takes the probe out of the image. The integrated centre of mass has it in, but hardly any noise; the dark field, made of two electrons in a thousand, has noise and hardly any sulphur.
#
# *Contrast* is the mean over kinds of columns less that of the hollows between them, over the noise among places that are alike; it has nothing to do with how dark an image is. *Resolution* is where the ring correlation with the truth falls to one half, of the rings in which the truth has any power; the steps of the scan end it at 0.7 Å. *Likeness* is the structural similarity with the truth, after the best scale: 1 is the same.

# %% tags=["hide-cell"]
if parameters.scale == "workshop":
    assert 2 * max(monolayer.step) < 0.73
    assert abs(float(counts.sum((2, 3)).mean()) - 10800) < 100
    assert bool(retrieved.loss[-1] < retrieved.loss[0])
    found = {name: judge(image, monolayer, region, phase=name != "adf") for name, image in direct.items()}
    assert found["label"].likeness > max(found[name].likeness for name in ("adf", "com"))
    assert found["com"].contrast > 2 * found["adf"].contrast
    assert found["label"].resolution < 0.75 < found["com"].resolution
    assert 1.5e-3 < float(direct["adf"].mean() / counts.sum((2, 3)).mean()) < 3e-3

# %% [markdown]
# ## The linear model
#
# "The first layer weighs the individual patterns before stacking them. The second layer applies a single filter": both round, so that nothing of one crystal's symmetry is learned. Such a model is a product of two sets of parameters, weights by distance and a mask by angle, and is fitted in closed form, by turns, in a moment
# ({mod}`exitwave.networks.radial`). What the rings of the mask do, for three seeds at workshop scale, the edge of the bright disk dashed:

# %%
seen = methods.shares(live, counts, monolayer)
half = live.scan // 2
fitted = methods.linear(live, seen[:half], retrieved.phase[:half])
main = stored("transfer")
bright = live.semiangle / wavelength(live.energy)
row(
    drawn.scanned(fitted.image(seen), monolayer.step, "linear model, fitted here", "phase", "rad"),
    *([drawn.masks(main, bright)] if main is not None else []),
)

# %% [markdown]
# **Takeaway.** The model counts electrons just outside the bright disk, and takes others off: rings of both signs, which no annular detector has. Where electrons are few the masks of the three seeds differ; there they mean nothing.

# %% [markdown]
# ## Figure 2
#
# Both models, trained on the upper half of MoS₂, at 10⁵ electrons per Å². MoS₂, whole field; the lower half is what no network has seen:

# %%
row(*drawn.pictures(main, "MoS2", monolayer.step)) if main is not None else None

# %%
Markdown(drawn.scores(main, "", transfer.METHODS)) if main is not None else None

# %% [markdown]
# PrScO₃, 20 nm:

# %%
row(*drawn.pictures(main, "PrScO3", step_of_scandate)) if main is not None else None

# %%
Markdown(drawn.scores(main, "pso_", transfer.EVERYWHERE)) if main is not None else None

# %% [markdown]
# **Takeaway.** The paper's pictures come out as numbers. On MoS₂ the linear model stands out from noise twice as far as the dark field, and less than half as far as ptychography. The 4D convolutions resolve all that the scan can carry, and their columns stand out from hollows nine tenths as far as the label's; but they are
# noisier, and their likeness to it is 0.87, not quite what we had asked of "essentially matches". On 20 nm of PrScO₃ the linear model is worse than the dark field, and the convolutions show 0.74 Å where the dark field ends at 1.35 Å: likeness to the projected potential 0.88 against 0.67, a contrast over noise no better.
# The unseen half of MoS₂ is the same crystal, met at other places of its cells; what is new in it is the vacancy.
# Data: {download}`transfer <../data/cao2020/workshop/transfer.nc>`.

# %% tags=["hide-cell"]
if main is not None:
    of = {name: main[name].values for name in main.data_vars if main[name].dims == ("seed",)}
    assert (of["linear_contrast"] > 1.5 * of["adf_contrast"]).all()
    assert (of["linear_contrast"] < 0.5 * of["label_contrast"]).all()
    assert (of["conv_contrast"] < 0.5 * of["label_contrast"]).all()
    assert np.allclose(of["conv_resolution"], of["label_resolution"])
    assert abs(of["modulation_share"].mean() - 0.92) < 0.02, of["modulation_share"]
    assert abs(of["like_label"].mean() - 0.87) < 0.015, of["like_label"]
    assert (of["pso_linear_likeness"] < of["pso_adf_likeness"]).all()
    for name, wanted in (("conv", (0.74, 0.88)), ("adf", (1.35, 0.67))):
        both = of[f"pso_{name}_resolution"].mean(), of[f"pso_{name}_likeness"].mean()
        assert np.allclose(both, wanted, atol=0.01), both
    assert abs(of["pso_conv_contrast"].mean() / of["pso_adf_contrast"].mean() - 1) < 0.05
    assert of["effect_least"].max() < -0.1

# %%
row(
    drawn.over_thickness(main, "contrast", "contrast over noise"),
    drawn.over_thickness(main, "likeness", "likeness to the projected potential"),
) if main is not None else None

# %% [markdown]
# **Takeaway.** In 5 nm the integrated centre of mass is the best image; at 10 nm it is worth nothing, for the beam has been scattered more than once and contrast reverses. The network, which knows one layer of atoms only, goes the other way: the thicker the crystal, the more its image is like the projected potential. It has found,
# from a monolayer, something that electrons near columns do at any thickness.
#
# ## The missing sulphur

# %%
Markdown(drawn.vacancies(main)) if main is not None else None

# %% [markdown]
# **Takeaway.** That a sulphur atom is missing, as in no label, is seen by all methods with certainty, by nine times the spread of whole columns and more, but for the dark field, which has four to five. Ptychography and the linear model give its drop as it is. The convolutions, which never saw such a column, exaggerate it by half; that the drop is there may be believed, its size may not.
#

# %% tags=["hide-cell"]
if main is not None:
    for name in ("com", "linear", "conv", "label"):
        assert of[f"{name}_significance"].min() > 8.5, name
    assert 3.5 < of["adf_significance"].min() < of["adf_significance"].max() < 5.5
    for name in ("linear", "label"):
        assert np.abs(of[f"{name}_vacancy"] - 1).max() < 0.13, of[f"{name}_vacancy"]
    assert np.abs(of["conv_vacancy"] - 1.45).max() < 0.03, of["conv_vacancy"]
    thin, middling, thick = main["thick_likeness"].mean("seed").values.T
    assert thin.argmax() == transfer.EVERYWHERE.index("com")
    assert middling[1] < 0.1 < middling[3] < thick[3]
    assert (main["thick_likeness"].sel(way="conv").mean("seed").diff("thickness") > 0).all()
    assert 15 < of["speed"].mean() < 25, of["speed"]
    assert (of["label_seconds"] / of["linear_seconds"]).min() > 1000

# %% [markdown]
# ## Dose
#
# The same at other doses: 10³ electrons per Å² (`transfer-low`), 10⁴ (`transfer-middle`), 10⁵ and 10⁶ (`transfer-high`); networks and labels anew for each.

# %%
doses = {1e3: stored("transfer-low"), 1e4: stored("transfer-middle"), 1e5: main, 1e6: stored("transfer-high")}
doses = {each: run for each, run in doses.items() if run is not None}
row(
    drawn.against_dose(doses, "resolution", "", "resolution (Å)"),
    drawn.against_dose(doses, "contrast", "", "contrast over noise"),
    drawn.against_dose(doses, "likeness", "", "likeness to the truth"),
    drawn.against_dose(doses, "likeness", "pso_", "likeness, 20 nm of PrScO₃", transfer.EVERYWHERE),
) if doses else None

# %% [markdown]
# **Takeaway.** Where electrons are few, pupils surpass their teacher: at 10³ per Å², about a hundred electrons a position, both networks are nearer to the truth (0.70) than the ptychography that they learned from (0.57), for its noise cannot be learned. At 10⁵ it is the other way round. A dark field needs ten times the electrons that the networks need, and more.

# %% tags=["hide-cell"]
if 1e3 in doses:
    few = {name: float(doses[1e3][f"{name}_likeness"].mean()) for name in transfer.METHODS}
    assert np.allclose([few["linear"], few["conv"]], 0.70, atol=0.01), few
    assert abs(few["label"] - 0.57) < 0.01, few
    assert abs(float(doses[1e3]["electrons"].mean()) - 108) < 2
    assert float(main["label_likeness"].mean()) > float(main["conv_likeness"].mean())
if 1e4 in doses:
    assert float(doses[1e4]["adf_likeness"].mean()) < few["linear"]

# %% [markdown]
# ## Locality
#
# Clusters of one pattern (`cluster-1`), 3 × 3 (`cluster-3`), 5 × 5 and 7 × 7 (`cluster-7`):

# %%
clusters = {1: stored("cluster-1"), 3: stored("cluster-3"), 5: main, 7: stored("cluster-7")}
clusters = {each: run for each, run in clusters.items() if run is not None}
row(
    drawn.against_cluster(clusters, "scaled_error", "error after scaling (rad)"),
    drawn.against_cluster(clusters, "contrast", "contrast over noise"),
) if clusters else None

# %% [markdown]
# **Takeaway.** Locality is what the convolutions live on: their error halves from one pattern to 5 × 5, and 7 × 7 gain a little more. The linear model hardly knows the difference, which is its ring of weights. Data: {download}`cluster-7 <../data/cao2020/workshop/cluster-7.nc>`.

# %% tags=["hide-cell"]
if len(clusters) == 4:
    by_size = {
        name: [float(run[f"{name}_scaled_error"].mean()) for run in clusters.values()]
        for name in ("conv", "linear")
    }
    assert 0.48 < by_size["conv"][2] / by_size["conv"][0] < 0.52, by_size
    assert 0.85 < by_size["conv"][3] / by_size["conv"][2] < 0.95, by_size
    assert max(by_size["linear"]) / min(by_size["linear"]) < 1.06, by_size

# %% [markdown]
# ## A head start
#
# What the other methods make can be where ptychography begins, instead of an empty object (`head-start`). Each point is a retrieval that was planned for so many epochs, MoS₂ at 10⁵ electrons per Å², judged in the unseen half:

# %%
begun = stored("head-start")
row(
    drawn.from_starts(begun, "error", "phase error (rad)"),
    drawn.from_starts(begun, "likeness", "likeness to the truth"),
) if begun is not None else Markdown(
    "*No stored run yet: `exitwave train cao2020 --run head-start` makes it.*"
)

# %% [markdown]
# **Takeaway.** There is nothing to save. After one epoch the start still shows, in the order of its own error: 0.038 rad from an empty object, 0.034 from the network's image. After two it is forgotten, and an empty object too is within 6% of its best. A start could help where ptychography needs hundreds of epochs; with steps in units of the curvature it does not. Data: {download}`head-start <../data/cao2020/workshop/head-start.nc>`.

# %% tags=["hide-cell"]
if begun is not None:
    errors = begun["error"].mean("seed")
    once = errors.sel(epoch=1)
    assert list(once.sortby(begun["before"].mean("seed"))["start"].values) == [
        "conv",
        "linear",
        "com",
        "empty",
    ]
    assert list(once.sortby(once)["start"].values) == ["conv", "linear", "com", "empty"]
    assert (
        abs(float(once.sel(start="empty")) - 0.038) < 5e-4
        and abs(float(once.sel(start="conv")) - 0.034) < 5e-4
    )
    twice = errors.sel(epoch=2)
    assert float(twice.max() / twice.min()) < 1.02
    assert float(twice.sel(start="empty") / errors.sel(start="empty").min()) < 1.065

# %% [markdown]
# ## A network for any thin specimen
#
# The paper's networks know half a scan of one crystal, and what ptychography made of it. A network of another kind ({class}`exitwave.networks.scannet.ScanNet`) learns from 160 small scans of as many two-dimensional materials, whose phases are known because they are simulated, with probes of 15 to 30 mrad within 100 Å of focus and 300 to 10⁶ electrons per Å². It reads each pattern once, looks at the whole field, and is told dose, semi-angle and defocus ({mod}`exitwave.papers.cao2020.general`). No material of just molybdenum and sulphur is among them, but relatives are, with one of both elements or of the same structure type. Error over the spread of the true phase, 10⁵ electrons per Å², median over 24 scans each:

# %%
general = stored("general")
if general is not None:
    lines = ["| | materials it learned from | other combinations of elements |", "|---|---|---|"]
    for title, kind in (("integrated centre of mass", "com_share"), ("network of many materials", "share")):
        cells = [f"{float(general[f'{each}_{kind}'].mean()):.3f}" for each in ("seen", "unseen")]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    display(Markdown("\n".join(lines)))

# %% [markdown]
# Small scans of MoS₂ with other probes; what the network has learned from is shaded:

# %%
from exitwave.papers.cao2020 import general as many

row(
    drawn.beyond_training(general, "semiangle", "semi-angle (mrad)", many.SEMIANGLES, "21.4 mrad", 1e3),
    drawn.beyond_training(general, "defocus", "defocus (Å)", many.DEFOCI, "in focus"),
) if general is not None else None

# %% [markdown]
# **Takeaway.** On materials whose combination of elements it has not met it errs by 0.29 of the spread of the phase, by 0.26 on those it knows, and the centre of mass by 0.80: it has learned how patterns become phases more than materials. To be told the probe matters little in focus and more at the end of what it has learned, 100 Å away, where a wrong word makes its error two thirds larger. Beyond, at 200 Å, it is worth less than an empty image, while ptychography, which knows optics and no materials, errs by 0.3 and 0.6. Nor does it know thick crystals: its image of 20 nm of PrScO₃ is like the projected potential by 0.80, that of the 4D convolutions by 0.88, the dark field by 0.67. Data: {download}`general <../data/cao2020/workshop/general.nc>`.

# %% tags=["hide-cell"]
if general is not None:
    assert Parameters.at("workshop").materials == 160
    mean = {name: general[name].mean("seed") for name in general.data_vars}
    assert abs(float(mean["unseen_share"]) - 0.29) < 0.005, float(mean["unseen_share"])
    assert abs(float(mean["seen_share"]) - 0.26) < 0.005, float(mean["seen_share"])
    assert abs(float(mean["unseen_com_share"]) - 0.80) < 0.01
    wrong = mean["defocus_untrue_share"] / mean["defocus_share"]
    assert 1.6 < float(wrong.sel(defocus=[-100, 100]).mean()) < 1.8, wrong.values
    assert float(abs(wrong.sel(defocus=[-50, 50]) - 1).max()) < 0.2, wrong.values
    far = mean["defocus_share"].sel(defocus=[-200, 200])
    assert float(far.min()) > 1, far.values
    label_far = mean["defocus_label_share"].sel(defocus=[200, -200]).values
    assert np.allclose(label_far, [0.3, 0.64], atol=0.015), label_far
    assert abs(float(mean["thick_likeness"][-1]) - 0.80) < 0.01
    if main is not None:
        thick_scores = [float(main[f"pso_{name}_likeness"].mean()) for name in ("conv", "adf")]
        assert np.allclose(thick_scores, [0.88, 0.67], atol=0.01), thick_scores
        assert float(main["label_seconds"].mean() / general["seconds"].mean()) > 100

# %% [markdown]
# And it can go on: let its phase of a piece of the scan be an object, send the known probe through it, and let it learn from how far the patterns are from the counted ones, 200 times ({func}`exitwave.retrieve.learned_scan.teach`). Nobody tells it a phase. All methods of this page from the same electrons, in the half of MoS₂ that the paper's networks do not see:

# %%
without = stored("direct")
every = doses if general is not None and without is not None else {}
row(
    drawn.every_method(every, without, general, "scaled_error", "error after scaling (rad)"),
    drawn.every_method(every, without, general, "resolution", "resolution (Å)"),
) if every else None

# %% [markdown]
# **Takeaway.** The figure to decide by. At 10³ electrons per Å² the network of many materials, although it has seen no MoS₂, errs little more than half as much as the networks that learned from the other half of this very crystal, and half as much as ptychography or anything that learns nothing; at 10⁴ it is still the best. From 10⁵ on ptychography is the best. Side bands and parallax end at 1.2 Å, where the lens does; a defocused probe helps neither side bands nor ptychography. A network that learns from this scan alone, without a label or a truth, is better than the direct methods at 10⁵, and not as good as ptychography, which learns from the same. To let the network of many materials learn on in that way does not pay: its errors grow, and most of that is a wrong scale. A reason may be, which is not tested here, that neither what atoms have beyond the steps of the scan nor the electrons that moving atoms scatter are in the model. Data: {download}`direct <../data/cao2020/workshop/direct.nc>`.

# %% tags=["hide-cell"]
if every:
    assert Parameters.at("workshop").taught == 200
    errors = {
        dose: {name: float(run[f"{name}_scaled_error"].mean()) for name in transfer.METHODS}
        for dose, run in every.items()
    }
    for dose, each in errors.items():
        at = {name: float(mean[f"{name}scaled_error"].sel(dose=dose)) for name in ("", "adapted_", "alone_")}
        plain_ways = without["scaled_error"].mean("seed").sel(dose=dose)
        each |= {"many": at[""], "adapted": at["adapted_"], "alone": at["alone_"]}
        each |= {name: float(plain_ways.sel(way=name)) for name in ("ssb", "parallax")}
        best = min(each, key=each.get)
        assert best in (("many", "adapted") if dose < 1e5 else ("label",)), each
        # Learning on: no nearer to the truth.
        assert each["adapted"] > 0.97 * each["many"], each
        assert float(mean["adapted_error"].sel(dose=dose)) > float(mean["error"].sel(dose=dose))
    few = errors[1e3]
    assert 0.5 < few["many"] / min(few["linear"], few["conv"]) < 0.65, few
    others = min(few[name] for name in ("label", "adf", "com", "ssb", "parallax"))
    assert 0.4 < few["many"] / others < 0.55, few
    blurred = without["scaled_error"].mean("seed").sel(dose=1e5)
    assert float(blurred.sel(way="ssb_defocused") / blurred.sel(way="ssb")) > 0.98
    assert float(blurred.sel(way="ptychography_defocused")) > errors[1e5]["label"]
    for dose in (1e5, 1e6):
        direct_ways = [errors[dose][name] for name in ("adf", "com", "ssb", "parallax")]
        assert errors[dose]["label"] < errors[dose]["alone"] < min(direct_ways), errors[dose]
    ends = without["resolution"].mean("seed").sel(way=["ssb", "parallax"], dose=1e6)
    assert float(abs(ends - 1.2).max()) < 0.06, ends.values

# %% [markdown]
# ## Seconds against hours?

# %%
if main is not None:
    seconds = {name: float(main[f"{name}_seconds"].mean()) for name in ("epie", "label", "conv", "linear")}
    display(
        Markdown(
            f"4489 patterns on one core: ePIE, one position after the other, {seconds['epie']:.0f} s for {Parameters.at('workshop').iterations} epochs; ptychography of this package {seconds['label']:.0f} s; "
            f"the 4D convolutions {seconds['conv']:.1f} s, {seconds['label'] / seconds['conv']:.0f} times less; the linear model {1000 * seconds['linear']:.0f} ms."
            + (
                f" The network of many materials, whole scan at once, {float(general['seconds'].mean()):.2f} s."
                if general is not None
                else ""
            )
        )
    )

# %% [markdown]
# **Takeaway.** The network of the paper is some twenty times faster, not orders of magnitude: with steps in units of the curvature ptychography needs ten epochs, which take seconds, where the paper speaks of hours. The linear model is thousands of times faster, and the network of many materials some tens of times ([performance](performance.ipynb), measured on an idle machine), for they read each pattern once. The ledger asks the row by the runs of other clusters (*Locality*): with one pattern a cluster the network is 46 to 210 times faster, with 3 × 3 22 to 36 times, with 7 × 7 10 to 13. So it is the cluster that costs, and an hour of ptychography, some two thousand epochs, would make any of them orders of magnitude. Times were taken while the machine had other work to do, those of ptychography with one pattern most of all.

# %% tags=["hide-cell"]
if len(clusters) == 4:
    faster = [clusters[size]["speed"].values for size in (1, 3, 7)]
    ends = [end for speed in faster for end in (speed.min(), speed.max())]
    assert np.allclose(ends, (46, 210, 22, 36, 10, 13), atol=0.5), ends
    assert 1000 < 3600 * Parameters.at("workshop").iterations / float(main["label_seconds"].mean()) < 3000

# %% [markdown]
# ## What the paper leaves open
#
# - **Sizes.** Of the cluster, the kernels, the channels, the pooling, the dropout: none is given. Here kernels along the scan are as large as leave one position, those along the detector are 3 × 3, there are 8 and 16 channels, means over 2 × 2 pixels, and a ramp after each convolution.
# - **The label.** The paper's is the ptychographic image; nothing is said of its scale, or of what is done with the phase ramp that no pattern can tell. Here a plane is taken off.
# - **The sign.** In focus a round mask makes the same of a phase and of its negative, for the patterns of the one are those of the other turned by half a turn: such a model sees squares of phases, or what thickness and the edge of the detector leave.
#
# ## A measured scan
#
# Simulated scans flatter the method that shares their model. So here is one that nobody simulated: frozen rotavirus and beads of gold beside an edge of carbon, 300 keV, a probe of 1.03 mrad far out of focus (the example of [Ptycho.jl](https://github.com/SeanXPWu/Ptycho.jl) by X. Wu and Y. Lei, MIT licence; 34 × 127 patterns). Its authors wrote down a defocus of 13.5 µm and a detector turned by −126°. Both commands get neither. The file is not part of this book: `make experiment DATA=FILE` ran what follows.
#
# ```{literalinclude} ../book/_static/rotavirus/parallax.txt
# :language: text
# ```
#
# ![Parallax: mean bright field, aligned bright field, phase, displacements](../book/_static/rotavirus/parallax.png)
#
# ```{literalinclude} ../book/_static/rotavirus/ptychography.txt
# :language: text
# ```
#
# ![Ptychography: phase, modulus, probe, loss](../book/_static/rotavirus/ptychography.png)
#
# **Takeaway.** From no start value the displacements of the bright-field images tell the defocus to 5% and the rotation to 6° of what was written down, and ptychography begins there. Shells of the virus, their spikes and the beads, which the mean bright field does not show, stand out in either phase; ptychography has finer pixels, and finds how much the beads absorb and what the probe was like.
#
# ## Your own scan
#
# Each method has a command, for files of EMPAD, mib, HDF5, emd, hspy, numpy and records of this package; what the file does not say is asked for:
#
# ```bash
# exitwave retrieve network scan.h5 --energy 80keV --semiangle 21.4mrad --step 0.33A -o phase.nc
# exitwave retrieve ptychography scan.h5 --energy 80keV --semiangle 21.4mrad --step 0.33A --defocus search -o object.nc
# ```
#
# `parallax`, `ssb` and `dpc` take the same. Who has no scan simulates one, of any CIF or of a sheet: `exitwave simulate scan MoS2 --vacancy --defocus 10nm --dose 1e4 -o scan.nc`. The network of many materials says where a scan is not as in its training, and how much of the patterns its phase leaves unexplained. Here it is given a corner of the scan above, in a file, by its command:

# %%
import os
import shlex
import sys
import tempfile
from pathlib import Path
from subprocess import run as run_command

from IPython.display import Image

from exitwave.papers.pictures import shrunk

if general is not None and live.scan >= 40:
    piece = torch.fft.fftshift(counts[:40, :40], (2, 3))
    frequency = (np.arange(live.detector) - live.detector // 2) * live.pixel / wavelength(live.energy)
    record = records.make_record(
        "diffraction4d", piece.numpy(), energy=live.energy, scan_y=np.arange(40) * monolayer.step[0],
        scan_x=np.arange(40) * monolayer.step[1], ky=frequency, kx=frequency,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        records.save(record, Path(folder) / "scan.nc")
        command = "retrieve network scan.nc --defocus 0 --rotation 0 -o phase.nc"
        plain = {name: value for name, value in os.environ.items() if "COLOR" not in name}
        done = run_command(
            [sys.executable, "-m", "exitwave.cli", *shlex.split(command)], cwd=folder, env=plain,
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        print(f"$ exitwave {command}\n{done.stdout}{done.stderr}")
        mine = records.load(Path(folder) / "phase.nc")
        display(Image(shrunk((Path(folder) / "phase.png").read_bytes(), 1000)))

# %% [markdown]
# ## Limits
#
# - Simulated patterns of one microscope, without aberrations, partial coherence or scan noise. Atoms move, each on its own.
# - What is right for a thick specimen is not defined; the projected potential is what one would like to have.
#
# ## Exercises
#
# **1** (10 minutes). How many electrons of the bright disk does the dark field detector of this page see? At which dose has a column of sulphur a dark field signal of ten electrons?

# %% tags=["solution", "hide-cell"]
ring = direct["adf"].mean() / counts.sum((2, 3)).mean()
[light] = [each for each in columns if len(each) > 1][:1]
signal = np.mean([float(direct["adf"][nearest(each)]) for each in light])
wanted_dose = live.dose * 10 / signal
print(f"{1e3 * float(ring):.2f} of 1000; {wanted_dose:.0f} electrons per Å²")
assert wanted_dose > 0

# %% [markdown]
# **2** (10 minutes). Show that a round detector gives the same image of an object and of its complex conjugate if the probe is in focus, and not if it is out of focus.

# %% tags=["solution", "hide-cell"]
from exitwave.optics import Aberrations
from exitwave.retrieve import scan_images
from exitwave.simulate import scanning

count, spacing = 32, 0.25
y, x = torch.meshgrid(*(torch.arange(count, dtype=torch.float64) * spacing,) * 2, indexing="ij")
bump = 0.8 * torch.exp(-((y - 3) ** 2 + (x - 5) ** 2) / 0.5)
thing = torch.polar(torch.ones_like(bump), bump)[None]
disk = scan_images.annulus((count, count), spacing, energy=live.energy, outer=live.semiangle / 2)
places = torch.stack([y[::4, ::4].flatten(), x[::4, ::4].flatten()], 1)
for focus in (0.0, 100.0):
    beam = scanning.probe(
        (count, count), spacing, energy=live.energy, semiangle=live.semiangle,
        aberrations=Aberrations(C10=-focus), dtype=torch.complex128,
    )  # fmt: skip
    one, other = (
        scan_images.virtual_image(scanning.patterns(each, beam, places, spacing), disk)
        for each in (thing, thing.conj())
    )
    apart = float((one - other).abs().max() / one.std())
    print(f"defocus {focus:3.0f} Å: they differ by {apart:.3f} of the contrast")
    assert (apart < 0.01) == (focus == 0), (focus, apart)

# %% [markdown]
# **3** (15 minutes). Give ptychography a probe that is 30 Å out of focus, and see what its loss says after three epochs. Hint: `methods.label(live.changed(defocus=...), counts, monolayer, iterations=3)`.

# %% tags=["solution", "hide-cell"]
losses = {}
for focus in (-30.0, 0.0, 30.0):
    tried = methods.label(live.changed(defocus=focus), counts, monolayer, iterations=3)
    losses[focus] = float(tried.loss[-1])
    print(f"{focus:4.0f} Å: loss {losses[focus]:.4f}")
assert parameters.scale == "smoke" or min(losses, key=losses.get) == 0, losses

# %% [markdown]
# **4** (10 minutes). Train the linear model on every other position only. Does it change? Hint: what `methods.linear` does, and {mod}`exitwave.networks.radial`.

# %% tags=["solution", "hide-cell"]
from exitwave.networks import radial

model = radial.RadialModel(
    cluster=live.cluster,
    rings=live.rings,
    outer=0.5 / methods.sampling_of(live),
    sampling=methods.sampling_of(live),
)
sums = model.cluster_sums(model.features(seen[:half]))
sums = methods.middles(sums, live.cluster // 2).flatten(0, 1)
wanted = methods.middles(retrieved.phase[:half]).flatten()
radial.fit(model, sums[::2], wanted[::2])
both = [each.image(seen) for each in (fitted.model, model)]
difference = float(((both[0] - both[1]).std() / both[0].std()).detach())
print(f"the images differ by {difference:.3f} of their spread")
assert parameters.scale == "smoke" or difference < 0.2, difference
# A handful of parameters for hundreds of positions: half of them are as good as all.

# %% [markdown]
# ## This paper's claims
#
# Each row is computed from `data/` by a rule that was fixed before it was run; see the [ledger](../book/ledger.md).

# %% tags=["hide-input"]
Markdown(ledger.markdown(ledger.ledger(["cao2020"], ["workshop"])))

# %% [markdown]
# ## Keep this run
#
# Every execution of this page leaves its ptychographic phase in `runs/cao2020/`, named by a hash of the parameters;
# `exitwave runs list` shows them. That of the figures above: {download}`phase <../data/live/cao2020.nc>`.

# %%
result = records.phase(retrieved.phase.numpy(), sampling=monolayer.step, energy=live.energy)
path = save_run("cao2020", parameters, result, time.perf_counter() - started)

# %% [markdown]
# ## References
#
# See the [list of references](../book/references.md).
