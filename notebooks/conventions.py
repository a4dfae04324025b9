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
# # Conventions, shown by running them
#
# Signs are where electron microscopists disagree, silently. This page states each convention of the book and then
# makes the computer show it; every cell ends in a check that a different sign would fail.
#
# | quantity | convention |
# |---|---|
# | lengths, energies, angles, potentials | Å, eV, rad, V, everywhere inside; figures may show nm or mm |
# | arrays | index order `(y, x)`; row 0 at the top of a figure |
# | wave along the beam | $\exp(+2\pi i k z)$ |
# | transfer function | $\exp(-i\chi)$ |
# | defocus $\Delta f$ | positive is underfocus; $C_{10} = -\Delta f$ |
# | electrostatic phase | $+\sigma V t$ |
# | magnetic phase | $-\frac{e}{\hbar}\int A_z\,\mathrm dz$ |
# | widths of Gaussians | said each time: standard deviation, 1/e half width or half width at half maximum |

# %% tags=["parameters"]
pixels: int = 128  # along each side

# %% tags=["hide-input"]
import math

import torch

from exitwave import metrics, optics
from exitwave.papers import figures
from exitwave.simulate import imaging, lorentz
from exitwave.specimens.magnets import Bar, film_of_bars

figures.setup()

# %% [markdown]
# ## Wavelength and interaction constant
#
# $\lambda = hc / \sqrt{E(E + 2 m_0c^2)}$ and $\sigma = \frac{2\pi}{\lambda E}\,\frac{m_0c^2 + E}{2m_0c^2 + E}$:

# %%
for energy in (50e3, 80e3, 200e3, 300e3):
    print(
        f"{energy / 1e3:4.0f} keV  wavelength {optics.wavelength(energy):.7f} Å"
        f"  sigma {optics.interaction_constant(energy):.6e} rad/(V Å)"
    )

# %% [markdown]
# ## The wave, and a prism
#
# With waves $\exp(+2\pi i(\mathbf k\cdot\mathbf r))$ a phase that grows along $+x$ is a wave that travels towards $+x$.
# Propagating it by $z$ must move its envelope by $\lambda z\,k_x$ along $+x$:

# %%
sampling, energy, shift_pixels = 2.0, 200e3, 20
y, x = torch.meshgrid(*[torch.arange(pixels, dtype=torch.float64) * sampling] * 2, indexing="ij")
centre = pixels * sampling / 2
spot = torch.exp(-((x - centre) ** 2 + (y - centre) ** 2) / (2 * 20.0**2))
kx = 4 / (pixels * sampling)
prism = torch.polar(spot, 2 * math.pi * kx * x)
distance = shift_pixels * sampling / (optics.wavelength(energy) * kx)
propagate = optics.propagator((pixels, pixels), sampling, distance, energy=energy, dtype=torch.complex128)
there = torch.fft.ifft2(torch.fft.fft2(prism) * propagate).abs() ** 2
moved = float((there * x).sum() / there.sum()) - centre
assert abs(moved - shift_pixels * sampling) < 0.5, moved
figures.row(
    figures.image(spot**2, sampling, title="before"), figures.image(there.numpy(), sampling, title="after")
)

# %% [markdown]
# **Takeaway.** A phase that rises to the right sends the wave to the right.
#
# ## Defocus
#
# Underfocus ($\Delta f > 0$) shows the plane *before* the specimen's exit plane, so the transfer function is
# $\exp(+i\pi\lambda\Delta f q^2)$, the inverse of propagation. A patch of positive phase (a thicker place, a heavy atom)
# focuses the beam behind it, so it is bright in overfocus and dark in underfocus:

# %%
patch = torch.polar(torch.ones_like(spot), 0.2 * spot)
transfer = optics.transfer_function(
    (pixels, pixels), sampling, energy=energy, dtype=torch.complex128,
    aberrations=optics.Aberrations(C10=-torch.tensor([3000.0, -3000.0], dtype=torch.float64)),
)  # fmt: skip
under, over = imaging.images(patch, transfer)
middle = pixels // 2
assert under[middle, middle] < 1 < over[middle, middle]
limits = (0.97, 1.03)
figures.row(
    figures.image(under.numpy(), sampling, title="underfocus", limits=limits),
    figures.image(over.numpy(), sampling, title="overfocus", limits=limits),
)

# %% [markdown]
# **Takeaway.** Under weak defocus a patch of positive phase is dark in underfocus, $I \approx 1 + \frac{\lambda\Delta
# f}{2\pi}\nabla^2\varphi$.
#
# ## Magnetic deflection
#
# An electron that travels along $+z$ through an induction along $+y$ feels the force $-e\,\mathbf v\times\mathbf B$,
# towards $+x$; so the phase must rise along $+x$, by $eB t/\hbar$:

# %%
film = film_of_bars(
    (Bar(centre_y=6400.0, centre_x=6400.0, length=12500.0, width=3000.0, vertical=True, sign=1),),
    (pixels, pixels), (12800.0 / pixels,) * 2, thickness=100.0,
)  # fmt: skip
phase = lorentz.magnetic_phase(film)
assert phase[pixels // 2, pixels // 2 + 5] > phase[pixels // 2, pixels // 2 - 5]
mirrored = lorentz.magnetic_phase(film_of_bars(
    (Bar(6400.0, 6400.0, 12500.0, 3000.0, vertical=True, sign=-1),),
    (pixels, pixels), (12800.0 / pixels,) * 2, thickness=100.0,
))  # fmt: skip
assert metrics.correlation(phase, mirrored) < -0.99
figures.image(
    phase.numpy(),
    film.sampling,
    kind="difference",
    label="magnetic phase",
    unit="rad",
    title="B along +y (down)",
)

# %% [markdown]
# **Takeaway.** Rows count downwards and $y$ with them, so that $(x, y, z)$ is right-handed with $z$ into the page, along
# the beam.
#
# ## Widths of Gaussians
#
# | name in exitwave | is | in abTEM | in paper |
# |---|---|---|---|
# | `focal_spread` | standard deviation of the defocus | `focal_spread` divided by $\sqrt 2$ | $\Delta$ of Zhou 2020 |
# | `angular_spread` | standard deviation of each angle | `angular_spread` divided by $\sqrt 2$ | $\theta_c/\sqrt 2$ of Zhou 2020 |

# %%
for kind in ("1/e", "hwhm", "fwhm"):
    print(f"standard deviation 1 is {kind} {optics.convert_width(1.0, 'std', kind):.4f}")

# %% [markdown]
# ## What images cannot tell
#
# An aberration that all images of a series share can move into the wave without changing one pixel. Here a wave with
# an astigmatism of 5 µm that is told so, and one that carries the same astigmatism itself:

# %%
shared = optics.Aberrations(C12=5e4, phi12=0.3)
defoci = torch.linspace(-2000, 2000, 11, dtype=torch.float64)


def stack(**more):
    return optics.transfer_function(
        (pixels, pixels), sampling, energy=energy, dtype=torch.complex128,
        aberrations=optics.Aberrations(C10=-defoci, **more),
    )  # fmt: skip


own = optics.transfer_function(
    (pixels, pixels), sampling, energy=energy, dtype=torch.complex128, aberrations=shared
)
carrying = torch.fft.ifft2(torch.fft.fft2(patch) * own)
first = imaging.images(patch, stack(C12=5e4, phi12=0.3))
second = imaging.images(carrying, stack())
between_images = float((first - second).abs().max())
between_waves = metrics.wave_rmse(carrying, patch)
signal = float((patch - 1).abs().square().mean().sqrt())
assert between_images < 1e-12 and between_waves > 0.1 * signal
print(f"11 images differ by less than 1e-12; the waves by {between_waves / signal:.2f} of their signal")

# %% [markdown]
# **Takeaway.** Only differences between images are identifiable. What is common to all of them has to be fixed by
# something else (vacuum is 1, a specimen made of atoms), and this book says each time by what.
#
# ## Exercises
#
# **1** (5 minutes). By which angle does a film of 20 nm with an induction of 1 T deflect electrons of 200 keV, and how far does that move the image at
# 1 mm of defocus? Hint: the slope of the phase is $eBt/\hbar$, and a slope of $2\pi k_x$ sends the wave to the angle $\lambda k_x$.

# %% tags=["solution", "hide-cell"]
flux_quantum = 4.135667696e-15  # h / e, V s
deflection = optics.wavelength(200e3) * 1e-10 * 1.0 * 20e-9 / flux_quantum
print(f"{deflection * 1e6:.1f} µrad, {deflection * 1e-3 * 1e9:.0f} nm")
assert abs(deflection - 12.13e-6) < 1e-8, deflection

# %% [markdown]
# **2** (5 minutes). Take the conjugate wave at the opposite defocus. Which image is it, and what follows for a series whose sign of defocus is not known?

# %% tags=["solution", "hide-cell"]
conjugate = imaging.images(patch.conj(), transfer)
print(f"largest difference: {float((conjugate[1] - under).abs().max()):.0e}")
assert torch.allclose(conjugate[1], under, atol=1e-12)
assert not torch.allclose(conjugate[0], under, atol=1e-3)
# The same image: without the sign of the defocus, the sign of the phase is not known.
