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
# # Lorentz microscopy: phase from defocus
#
# *Zhou, Cherukara and Phatak 2020, "High resolution functional imaging through Lorentz transmission
# electron microscopy and differentiable programming"* {cite}`zhou2020`
#
# :::{admonition} Before you begin
# :class: note
#
# | | |
# |---|---|
# | **Goals** | see how a magnetic film turns the phase of an electron wave; bring the phase back from defocused images in two ways; know when each of them fails, and why |
# | **You need** | Fourier transforms; [notation](../book/notation.md) and [conventions](conventions.ipynb) |
# | **Time** | 30 minutes to read, an hour with the exercises; the live cells run in about a minute on two cores |
# | **Memory, GPU** | below 2 GB; no GPU |
# :::
#
# **The paper in one paragraph.** In a Lorentz microscope the objective lens is off, so that its field does not
# disturb a magnetic specimen. The image in focus then shows next to nothing: the magnetisation changes the phase of
# the electron wave, and a detector records intensity. Defocus turns phase into intensity. The transport-of-intensity
# equation (TIE) inverts that for small defocus, in one step. The authors instead differentiate a model of the whole
# microscope and fit the phase by gradient descent (here *gradient retrieval*; AD in the paper), which has no such
# limit, and claim sharper and more accurate phases at equal dose, above all when weakly and strongly defocused
# images are combined.
#
# This page shows the first part of that comparison: pairs of opposite defocus, on ten bars of Permalloy whose phase is
# known in closed form. The paper's own specimen is a resolution target.

# %% tags=["parameters"]
from typing import Optional

scale: str = "workshop"  # smoke, workshop, gpu or paper
seed: Optional[int] = None  # of specimen and noise
pixels: Optional[int] = None  # along each side
sampling: Optional[float] = None  # pixel size, Å
magnetisation: Optional[str] = None  # OVF file to use instead of the ten bars
thickness: Optional[float] = None  # of the film, Å
saturation: Optional[float] = None  # saturation magnetisation, A/m
inner_potential: Optional[float] = None  # V
absorption_length: Optional[float] = None  # 1/e length of the amplitude, Å
energy: Optional[float] = None  # eV
spherical_aberration: Optional[float] = None  # Å
focal_spread: Optional[float] = None  # standard deviation, Å
convergence: Optional[float] = None  # 1/e half width of the illumination angles, rad
focus: Optional[str] = None  # moderate, strong or hybrid
images: Optional[int] = None  # number of defocused images, even
noise: Optional[float] = None  # standard deviation over vacuum intensity
iterations: Optional[int] = None  # steps of Adam in the stored studies
live_iterations: Optional[int] = None  # steps of Adam on this page
rate: Optional[float] = None  # learning rate of Adam, rad
start_phase: Optional[float] = None  # rad

# %% tags=["hide-cell"]
import time

from exitwave.papers.zhou2020.parameters import Parameters

started = time.perf_counter()
parameters = Parameters.collect(globals())
parameters

# %% tags=["hide-input"]
import numpy as np
import torch
from IPython.display import Markdown

from exitwave import records
from exitwave.chapters import ledger
from exitwave.chapters.reproduce import run_file
from exitwave.chapters.run import save_run
from exitwave.papers.figures import setup
from exitwave.papers.zhou2020 import figures, studies
from exitwave.simulate import lorentz

setup()

# %% [markdown]
# ## The phase of a magnetised film
#
# A wave $\exp(2\pi i k z)$ of electrons (charge $-e$) that crosses a film of thickness $t$ gains the phase
#
# $$\varphi = \sigma V t - \frac{e}{\hbar}\int A_z\,\mathrm dz ,$$
#
# from its mean inner potential $V$ and its magnetic vector potential. The second term follows the in-plane induction
# like a landscape follows its slope,
#
# $$\frac{\partial\varphi}{\partial x} = \frac{e}{\hbar} B_y t, \qquad
#   \frac{\partial\varphi}{\partial y} = -\frac{e}{\hbar} B_x t ,$$
#
# 0.0152 rad per nanometre for 1 T and 10 nm. Each bar below is magnetised along itself, so its phase is a ramp across
# it; the inner potential adds a step at its edges.

# %%
scene = studies.simulate(parameters)
figures.specimen(scene)

# %% [markdown]
# **Takeaway.** The direction of a bar's magnetisation is the direction in which the phase does *not* change; its sense
# decides on which side the phase is higher.
#
# The film is made of pixels of constant magnetisation, and the phase of one such pixel is known in closed form. A
# convolution with it, padded so that nothing wraps, is therefore exact. The usual alternative is to multiply by
# $-i(k_x M_y - k_y M_x)/k^2$ in Fourier space {cite}`mansuripur1991`, which silently repeats the film in all
# directions:

# %%
figures.wrapping(scene)

# %% [markdown]
# **Takeaway.** Without padding the Fourier method is wrong by a good part of the phase itself, because stray fields
# reach across the border; padding helps slowly, and the convolution does not need it.

# %% tags=["hide-cell"]
# A long bar along +y must show the slope + e mu0 M t / hbar along x, less its own demagnetisation.
from exitwave.specimens.magnets import Bar, film_of_bars

_bar = (Bar(centre_y=6400.0, centre_x=6400.0, length=12000.0, width=400.0, vertical=True, sign=1),)
_film = film_of_bars(_bar, (256, 256), (50.0, 50.0), thickness=100.0, saturation=1 / (4e-7 * np.pi))
_slope = (
    float(lorentz.magnetic_phase(_film)[128, 128 + 1] - lorentz.magnetic_phase(_film)[128, 128 - 1]) / 10.0
)
assert abs(_slope - 0.01519 * (2 / np.pi) * np.arctan(12000 / 400)) < 1e-4, _slope

# %% [markdown]
# ## Images
#
# The wave $\psi = a\,e^{i\varphi}$ passes the microscope as $|\mathcal F^{-1}[\mathcal F\psi\; T]|^2$ with
# $T = e^{-i\chi} E$. The envelope $E$ stands for the finite source (convergence $\theta_c$) and the spread of energies
# ({func}`exitwave.optics.transfer_function`). Move the slider through the focal series:

# %%
figures.focal_series(parameters)

# %% [markdown]
# **Takeaway.** In focus only absorption is seen. Under- and overfocus show opposite contrast, growing and blurring
# with the distance from focus.
#
# ## The two methods
#
# **TIE** reads the phase from the difference of two images of opposite defocus,
#
# $$\nabla\cdot(I_0\nabla\varphi) = -\frac{2\pi}{\lambda}\frac{\partial I}{\partial z}
#   = +\frac{2\pi}{\lambda}\frac{\partial I}{\partial(\Delta f)} .$$
#
# Underfocus is positive here, and focusing further along the beam is overfocus: that is where the second sign comes
# from ({func}`exitwave.retrieve.tie.solve`).
#
# **Gradient retrieval** holds the amplitude at the square root of the (denoised) image in focus, starts from a constant
# phase of 0.5 rad, and follows the gradient of the mean squared difference of amplitudes with Adam at a rate of 1 rad
# ({func}`exitwave.retrieve.gradient.retrieve_phase`). Both are given the same images:

# %%
phases = {"TIE": studies.retrieve_tie(scene)}
phases["gradient, rate 1"], _ = studies.retrieve_gradient(scene, parameters.live_iterations)
figures.retrieved(scene, phases)


# %% tags=["hide-input"]
def table(scene, phases):
    rows = ["| method | correlation | accuracy (Eq. 2) | error of ∇φ | edge FWHM |", "|---|---|---|---|---|"]
    constant = {"constant": torch.ones_like(scene.truth), "TIE, sign reversed": -phases["TIE"]}
    for title, phase in (phases | constant).items():
        found = studies.evaluate(phase, scene)
        rows.append(
            f"| {title} | {found['correlation']:.3f} | {found['accuracy']:.3f} | {found['gradient_error']:.2f} "
            f"| {found['resolution'] / 10:.0f} nm |"
        )
    return Markdown("\n".join(rows))


table(scene, phases)

# %% [markdown]
# Read the columns with care. Equation 2 of the paper, $\sum|\varphi\varphi_0|/\sqrt{\sum\varphi^2\sum\varphi_0^2}$,
# has absolute values and does not remove the mean: a phase of the wrong sign scores as well as the right one, and a
# constant, which holds nothing of the specimen, is far from zero. This book prints it as the paper has it and judges by the **correlation with the means
# removed**.
#
# **Takeaway.** At moderate defocus and without noise TIE is nearly perfect, and gradient retrieval at the paper's rate
# is lost: a step of one radian throws neighbouring pixels onto different branches of $2\pi$, from which it never
# returns.

# %%
figures.edges(scene, phases)

# %% [markdown]
# **Takeaway.** The peak is the step of the inner potential at an edge, and its width is what the paper calls
# resolution. A noisy phase has no width that means anything.

# %% tags=["hide-cell"]
if parameters.magnetisation is None and parameters.focus == "moderate" and parameters.noise == 0:
    assert studies.evaluate(phases["TIE"], scene)["correlation"] > 0.95
    assert studies.evaluate(-phases["TIE"], scene)["correlation"] < -0.95

# %% [markdown]
# ## Strong defocus, and what decides there
#
# The paper's case for gradient retrieval is a pair at ±1.6 mm, where TIE is out of its depth. The same specimen there,
# once at the paper's rate and once at a tenth of it:

# %%
strong = studies.simulate(parameters.changed(focus="strong"))
gentle = studies.simulate(parameters.changed(focus="strong", rate=0.1 * parameters.rate))
far = {"TIE": studies.retrieve_tie(strong)}
far["gradient, rate 1"], _ = studies.retrieve_gradient(strong, parameters.live_iterations)
far["gradient, rate 0.1"], _ = studies.retrieve_gradient(gentle, parameters.live_iterations)
figures.retrieved(strong, far)

# %% tags=["hide-input"]
table(strong, far)

# %% [markdown]
# **Takeaway.** At ±1.6 mm TIE blurs. Gradient retrieval beats it, sharp edges included, but not at the rate that the
# paper states: a tenth of it decides between failure and success. Equation 2 would rank the two the other way round,
# because it counts the constant of the phase, which no image determines.
#
# The stored studies repeat this to the paper's 5000 steps on five specimens each:

# %%
names = {
    "strong-clean": "±1.6 mm, rate 1",
    "strong-clean-gentle": "±1.6 mm, rate 0.1",
    "moderate-clean": "±0.15 mm, rate 1",
}
stored = {
    title: records.load(path)
    for name, title in names.items()
    if (path := run_file("zhou2020", "workshop", name)).is_file()
}
figures.course(stored) if stored else "nothing is stored: run exitwave reproduce zhou2020"

# %% [markdown]
# **Takeaway.** The rate of 1 rad rises fast and then drifts away from the truth; the rate of 0.1 rad keeps climbing.
# Bands show the range over five specimens. Data:
# {download}`rate 1 <../data/zhou2020/workshop/strong-clean.nc>`,
# {download}`rate 0.1 <../data/zhou2020/workshop/strong-clean-gentle.nc>`,
# {download}`moderate <../data/zhou2020/workshop/moderate-clean.nc>`.

# %%
figures.replicates(stored, "correlation", "correlation with the truth") if stored else None

# %% [markdown]
# **Takeaway.** What a single specimen shows holds for each of the five.
#
# ## What the paper and its code leave open
#
# - Eq. 3 prints $+\frac{e}{\hbar}\int A_z\mathrm dz$; with $+\sigma V t$ and waves $\exp(+2\pi i k z)$ the sign is minus.
# - Eq. 1 used with "underfocus positive" and $\partial I/\partial z$ read as $\partial I/\partial(\Delta f)$ gives the
#   negative phase, and Eq. 2 cannot tell.
# - Aberrations, convergence, focal spread, inner potential and absorption are not stated; the values here are those of
#   the templates in the public code of the same group, and how the resolution target was modified is not known.
# - The learning rate is stated as 1; on these specimens it does not lead where the paper's figures do.
#
# ## Beyond the paper
#
# Two things on this page go beyond it: a phase without wrap-around (above), and the rate. The reason for the second is
# general. Adam moves every pixel by about its rate in each step, whatever the gradient; a phase is an angle, so a step
# of a radian is a third of the way to a different but equally valid answer. Starting from the TIE phase avoids most of
# it, which is what `exitwave retrieve lorentz --method gradient` does.
#
# ## Limits
#
# - The field is periodic in the images and in both retrievals: what happens at its border is the same for model and
#   data here, which is kinder than an experiment.
# - The envelope multiplies the wave (quasi-coherent approximation); at strong defocus a real source does more.
# - Each image is registered, its defocus known, its noise Gaussian.
#
# ## Your own data
#
# A magnetisation from mumax or OOMMF goes the same way, `exitwave run zhou2020 -p magnetisation=FILE.ovf`, and
# images from a microscope go
#
# ```
# exitwave retrieve lorentz under.dm3 focus.dm3 over.dm3 --defocus 0.15mm,0,-0.15mm --method tie -o phase.nc
# ```
#
# where energy and pixel size are read from the files if they have them, and asked for if not.
#
# ## Exercises
#
# **1** (5 minutes). What do you expect TIE to do with 10% noise at ±0.15 mm, and at ±1.6 mm? Try it.

# %% tags=["solution", "hide-cell"]
for focus_ in ("moderate", "strong"):
    noisy = studies.simulate(parameters.changed(focus=focus_, noise=0.1))
    print(focus_, f"{studies.evaluate(studies.retrieve_tie(noisy), noisy)['correlation']:.2f}")
# The derivative divides the noise by the defocus: strong defocus tolerates it, at the price of blur.

# %% [markdown]
# **2** (10 minutes). The noise of TIE sits at low spatial frequencies. Why? Add a Tikhonov cutoff to
# {func}`exitwave.retrieve.tie.solve` and find the best one for ±0.15 mm and 10% noise.

# %% tags=["solution", "hide-cell"]
from exitwave.retrieve import tie

noisy = studies.simulate(parameters.changed(focus="moderate", noise=0.1))
derivative = tie.defocus_derivative(noisy.defocused, torch.tensor(noisy.parameters.defocus), noisy.in_focus)
for cutoff in (0.0, 5e-5, 1e-4, 2e-4, 4e-4):
    found = tie.solve(
        derivative,
        studies.denoised_in_focus(noisy),
        energy=parameters.energy,
        sampling=noisy.sampling,
        cutoff=cutoff,
    )
    print(f"{cutoff:.0e} 1/Å: {studies.evaluate(found, noisy)['correlation']:.3f}")
# The inverse Laplacian 1/q² amplifies white noise most where q is smallest.

# %% [markdown]
# **3** (10 minutes). A constant phase scores well by Eq. 2 in the table above. What does it score for a phase of zero mean, and why?

# %% tags=["solution", "hide-cell"]
from exitwave import metrics

centred = scene.truth - scene.truth.mean()
print(f"{float(metrics.absolute_correlation(torch.ones_like(centred), centred)):.2f}")
# It is mean|φ| / rms(φ), the ratio of two averages of the same phase: below 1 only by how uneven |φ| is.

# %% [markdown]
# **4** (20 minutes). Start gradient retrieval from the TIE phase at ±1.6 mm instead of from 0.5 rad. How many steps does
# it need now to pass a correlation of 0.95, and how sharp are the edges then?

# %% tags=["solution", "hide-cell"]
from exitwave.retrieve import gradient

found, _ = gradient.retrieve_phase(
    strong.defocused,
    studies.denoised_in_focus(strong).sqrt(),
    strong.transfer,
    start=far["TIE"],
    iterations=max(1, parameters.live_iterations // 3),
    rate=0.1,
)
print({name: round(value, 3) for name, value in studies.evaluate(found, strong).items()})

# %% [markdown]
# ## This paper's claims
#
# Each row is computed from `data/` by a rule that was fixed before it was run; see the [ledger](../book/ledger.md).

# %% tags=["hide-input"]
Markdown(ledger.markdown(ledger.ledger(["zhou2020"], ["workshop"])))

# %% [markdown]
# ## Keep this run
#
# Every execution of this page leaves its phases and numbers in `runs/zhou2020/`, named by a hash of the parameters;
# `exitwave runs list` shows them. Those of the figures above: {download}`phases <../data/live/zhou2020.nc>`.

# %%
result = studies.judged({"moderate": (scene, phases), "strong": (strong, far)})
path = save_run("zhou2020", parameters, result, time.perf_counter() - started)

# %% [markdown]
# ## References
#
# See the [list of references](../book/references.md).
