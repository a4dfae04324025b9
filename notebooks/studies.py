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
# # Parameter studies
#
# A chapter answers at the settings of its paper. What about others? A *sweep* calls one study of a chapter for every
# point of a grid of parameters and keeps what it gives as one dataset along the axes of the grid. Three sweeps come
# with the book and are shown here; [your own](#your-own-sweeps) appear below them after the next build. Everything on
# this page is read from files: no cell computes anything.
#
# In the figures one axis is drawn and each other one has a slider. Lines are means over seeds, bands reach from the
# lowest to the highest seed.

# %% tags=["parameters"]
shown: int = 12  # of your own sweeps, how many are drawn at most, the newest first

# %% tags=["hide-input"]
from IPython.display import Markdown, display

from exitwave.chapters.stored_sweeps import own_sweeps, shipped_sweep
from exitwave.chapters.sweep_page import drawn, heading, table
from exitwave.papers import figures, sweep_figures
from exitwave.papers.webb2025.sweep_figures import disks

figures.setup()


# %% tags=["hide-cell"]
def shipped(paper, name):
    """Return a sweep that comes with the book, and say what is wrong with it."""
    found = shipped_sweep(paper, name)
    if found.fault:
        display(Markdown(f"**The sweep {name} is {found.fault}.**"))
    return found.result


def show(draw, sweep, *more, **how):
    """Draw a sweep, if it is there."""
    return None if sweep is None else draw(sweep, *more, **how)


# %% [markdown]
# ## Lorentz microscopy: noise and images
#
# *Zhou et al. 2020* combine images on both sides of focus. How many are worth taking? Each image here has the noise
# that stands on the axis (its standard deviation over the vacuum intensity), so that more images are also more
# electrons. Series are hybrid, half of the images near focus and half far from it, on 256 × 256 pixels of 10 nm, and
# gradient retrieval has 500 steps, a tenth of the paper's; two specimens. The methods are those of [the
# chapter](zhou2020.ipynb): TIE, gradient retrieval and the quasi-Newton method.

# %% tags=["hide-input"]
lorentz = shipped("zhou2020", "noise-images")
of_methods = {
    "tie_correlation": "TIE",
    "gradient_correlation": "gradient, 500 steps",
    "fit_correlation": "quasi-Newton",
    "": "correlation with the true phase",
    "noise": "noise of an image",
}
names = [name for name in of_methods if name.endswith("_correlation")]
show(sweep_figures.curves, lorentz, names, along="noise", titles=of_methods)

# %% [markdown]
# The same numbers along the other axis:

# %% tags=["hide-input"]
show(sweep_figures.curves, lorentz, names, along="images", titles=of_methods)

# %% [markdown]
# **Takeaway.** More images pay where they are noisy: with the quasi-Newton method eight of the noisiest do as well as
# two of half the noise. Without noise two are enough for it. Gradient retrieval, with so few steps, then does worse
# with eight than with two, and TIE gains from neither electrons nor images.
#
# ## Focal series: dose and images
#
# *Leth Larsen et al. 2022* take three images of a flake on graphene over 10 nm of defocus. Is it better to spend
# electrons on more images, or on each? Here the dose is that of *one* image: at the same place of the slider a series
# of eight has had eight times the electrons of a single image. The flake and the microscope of a seed are the same at
# all points
# (three seeds, one flake each); pixels are 0.2 Å wide, twice those of [the chapter](larsen2022.ipynb). Maximum likelihood is told defocus, focal
# spread, dose and detector. Gerchberg and Saxton's method is told the same and stopped where it is best, which it
# takes the truth to know.

# %% tags=["hide-input"]
focal = shipped("larsen2022", "dose-images")
of_series = {
    "gerchberg_saxton_relative": "Gerchberg-Saxton at its best",
    "gradient_relative": "maximum likelihood",
    "": "error, Eq. A.1",
    "dose": "dose (electrons per Å² and image)",
}
errors = [name for name in of_series if name.endswith("_relative")]
show(sweep_figures.curves, focal, errors, along="dose", titles=of_series)

# %% tags=["hide-input"]
show(sweep_figures.curves, focal, errors, along="images", titles=of_series)

# %% [markdown]
# **Takeaway.** Maximum likelihood gains from every electron, and more if they are spread: eight images do better than
# one of ten times the dose, with fewer electrons in all. Gerchberg and Saxton's method needs a second image; from
# there on three hundred times the dose takes no more than a third off its error, so that it is not noise that it
# mostly errs by.
#
# ## LACBED: thickness and beams
#
# *Webb et al. 2025* learn from patterns that were computed with a limited number of beams. How many does a pattern
# need? The bright-field disk of SrTiO₃ along [001] (200 kV, B = 0.5 Å² for all atoms) at six thicknesses, with more
# and more beams; errors are root mean square differences to a disk of about 700 beams, over the incident intensity.
# The other line is how far that disk may itself be wrong at any one tilt. The sweep is over the beams alone, for all
# thicknesses follow from the same Bloch waves ([the chapter](webb2025.ipynb)).

# %% tags=["hide-input"]
lacbed = shipped("webb2025", "thickness-beams")
of_disks = {
    "rms_error": "difference to 700 beams",
    "reference_error": "largest error of these",
    "": "error of the intensity",
    "few_beams": "beams",
    "thickness": "thickness (Å)",
}
show(sweep_figures.curves, lacbed, ["rms_error", "reference_error"], along="few_beams", titles=of_disks)

# %% [markdown]
# The disks themselves, beside those of the most beams:

# %% tags=["hide-input"]
show(disks, lacbed)

# %% [markdown]
# **Takeaway.** How many beams are enough is a question of thickness: what a hundred do at 25 nm takes about four
# times as many at 200 nm. Too few beams do not make a noisy pattern but another one, as clear to the eye as the right
# one.
#
# (your-own-sweeps)=
# ## Your own
#
# Three commands, in a checkout with `.venv/bin` on the path. The first names a chapter, one of its studies (its name
# wrong, the command lists them) and the values of each parameter; add `--workers 8`, or `--scheduler ADDRESS` for [a
# cluster](../book/scaling_out.md). The second lists what was computed, and the third builds the book again, in which
# only this page is run anew.
#
# ```
# exitwave sweep zhou2020 pair -p scale=smoke -p noise=0,0.1,0.2 -p focus=moderate,strong
# exitwave runs list
# exitwave book
# ```
#
# What is killed goes on at the next call: each finished point is in `runs/` already. A sweep is a netCDF file,
# `runs/<chapter>/sweeps/<study>-<hash>.nc`, which `xarray.open_dataset` reads wherever you like; what is drawn here
# is the first quantity with those whose names end alike, along the first axis
# ({func}`exitwave.papers.sweep_figures.curves` takes others).

# %% tags=["reads-sweeps"]
own = own_sweeps()
Markdown(table(own))

# %% tags=["hide-input"]
for each in drawn(own)[:shown]:
    display(Markdown(heading(each)))
    display(sweep_figures.curves(each.result))
