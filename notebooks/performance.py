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
# # Performance
#
# How fast the methods of this book are beside the program that one would use instead, what the chapters promise of
# time, memory and size and whether it holds, and how costs grow with the size of the problem.
#
# `make bars` measures all of it anew on your machine and says in one line of JSON for each figure whether its bar is met
# (`make bars FRESH=1` also clones the project and times `make book` there). A bar that was not measured, for want of a
# program or a GPU, has not been met. What is known not to be met is in the list with its reason, and stays "not met".

# %% tags=["parameters"]
from typing import Optional

numbers: Optional[str] = None  # those of another run, such as runs/bars/benchmarks.json

# %% tags=["hide-input"]
from pathlib import Path

from IPython.display import HTML, Markdown, display

from exitwave.chapters import bars, measuring, performance
from exitwave.papers import figures

figures.setup()
measured = measuring.stored() if numbers is None else measuring.read(Path(numbers))
judged = [] if measured is None else performance.judged(measured)
Markdown(performance.NOTHING if measured is None else performance.machine(measured))

# %% tags=["hide-input"]
if measured is not None:
    display(Markdown(bars.summary(judged)), HTML(performance.download(measured)))

# %% [markdown]
# ## Simulation
#
# A ratio is how many times longer the other program takes, at equal error where the row says so. For times that are
# compared both sides had the same processor, in turns or one after the other; the least of several runs counts, for
# whatever else a machine does only adds to it. Bars are limits that must hold, aims decide nothing.

# %% tags=["hide-input"]
if measured is not None:
    simulation = {"wave-0-deg", "wave-5-deg", "wave-10-deg", "wave-5-deg-thin", "transfer-function"}
    chosen = [each for each in judged if each.bar.name in simulation or each.bar.chapter == "webb2025"]
    chosen = [each for each in chosen if not each.bar.name.startswith("time-")]
    display(Markdown(performance.table(chosen)))

# %% [markdown]
# The exit waves are multislice in both programs; this package puts slices only where there are atoms, takes the thickest
# that err no more, and computes once what all of them share. In the LACBED rows Bloch waves in abTEM solve one
# eigenproblem for each tilt; here tilts that differ by a reciprocal vector share one, or none is solved at all (Chebyshev
# expansion).
#
# ## Retrieval and networks

# %% tags=["hide-input"]
if measured is not None:
    names = {each.bar.name for each in chosen}
    papers = performance.of_chapter(judged, "zhou2020", "larsen2022", "ede2020", "cao2020", "comparison")
    rest = [each for each in papers if each.bar.name not in names and not each.bar.name.startswith("time-")]
    display(Markdown(performance.table(rest)))

# %% [markdown]
# Other programs' ptychography takes part where it is installed (`exitwave bars --peers PYTHON` names an environment
# that holds it). "Here" marks another method of this package, where no other program does the same.
#
# ## The book

# %% tags=["hide-input"]
if measured is not None:
    book = [each for each in judged if each.bar.chapter == "book" or each.bar.name.startswith("time-")]
    display(Markdown(performance.table(book)))

# %% [markdown]
# ## How costs grow
#
# Each method at several sizes, on one core. Points are measured, lines are what theory expects, through the largest
# problem: a diagonalisation costs the cube of the number of beams, Fourier transforms $N\log N$ of the pixels, an epoch of
# ptychography the number of patterns, a convolutional network the number of pixels.

# %% tags=["hide-input"]
if measured is not None:
    display(performance.growth_figures(measured))

# %% tags=["hide-input"]
if measured is not None:
    display(Markdown(performance.growth_table(measured)))

# %% [markdown]
# **Takeaway.** Points above a line, at the left, are work that does not shrink with the problem, such as the start of a
# transform; the exponent fitted to the upper half of the sizes is the one to compare with theory. Whoever doubles a
# field of view pays by the line.

# %% tags=["hide-cell"]
if measured is not None:
    for growth in performance.GROWTHS:
        sizes, costs = performance.curve(measured, growth)
        if len(sizes) > 1:
            assert (costs > 0).all(), growth
            assert 0 < performance.exponent(sizes, costs) < 4, growth
