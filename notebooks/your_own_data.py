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
# # Your own data
#
# Each `exitwave retrieve` on a file that another program wrote: what the file does not say, how to say it, what comes
# back, and what a mistake looks like. The files are written when the book is built, in the format of the program that
# each stands for, and never by this package. What is in them is simulated and small, so that the truth is known: hidden
# cells hold results against it, but for one-shot (its modulus only) and ptychography (its loss only).
#
# For all commands:
#
# - What a file says of itself need not be given. What is given comes first.
# - Numbers have units, `10nm` or `200keV`. Without one a length is in Å, an energy in eV, an angle in rad.
# - Underfocus is positive.
# - What cannot be is refused in one line, and no file is written. What is only doubtful is warned of.

# %% tags=["parameters"]
seed: int = 0  # of specimens, noise and electrons

# %% tags=["hide-input"]
import re
import tempfile
from pathlib import Path

import numpy as np
import torch
from IPython.display import Image, Markdown, display

from exitwave import exports, metrics, optics, records
from exitwave.cli.in_turn import Terminal
from exitwave.errors import InputError
from exitwave.papers import figures
from exitwave.papers.cao2020 import specimens
from exitwave.papers.pictures import shrunk
from exitwave.simulate import exit_waves, holograms, imaging, lorentz, scan_lines, scanning
from exitwave.specimens import flakes, layers, magnets

figures.setup()
temporary = tempfile.TemporaryDirectory()
folder = Path(temporary.name)
terminal = Terminal(folder, width=76)
generator = torch.Generator().manual_seed(seed)


def picture(name, width=900):
    """Show a preview that a command drew."""
    display(Image(shrunk((folder / name).read_bytes(), width)))


def signal(data, axes, **microscope):
    """Describe an array as RosettaSciIO's writer of .hspy takes it; axes of (name, scale, units, navigate)."""
    empty = {each: {} for each in ("original_metadata", "learning_results", "models", "tmp_parameters")}
    named = [dict(zip(("name", "scale", "units", "navigate"), axis, strict=True)) for axis in axes]
    described = [{"size": size, "offset": 0.0} | axis for size, axis in zip(data.shape, named, strict=True)]
    about = {
        "General": {"title": ""}, "Signal": {"signal_type": ""},
        "Acquisition_instrument": {"TEM": microscope},
    }  # fmt: skip
    rest = {
        "attributes": {"_lazy": False, "ragged": False},
        "package_info": {"package": "", "package_version": ""},
    }
    return {"data": data, "axes": described, "metadata": about} | empty | rest


def lacking(said):
    """Return what a command did not find in a file."""
    found = re.search(r": ([a-z, ]+) not found in the file", said.errors)
    return found[1].split(", ") if found else []


# %% tags=["hide-input"]
# What each file says of itself, and what a command asks for that is told nothing; checked below.
files = {
    "series.tif": ("ImageJ, a stack", "`lorentz`", "pixel size", ["energy", "defocus"]),
    "flake.hspy": ("HyperSpy, a stack", "`focal-series`", "pixel size, energy", ["defocus"]),
    "hologram.tif": ("a camera's tif", "`holography`", "nothing", ["sampling", "energy"]),
    "crystal.npy": ("abTEM, by NumPy", "`one-shot`", "nothing", ["sampling", "energy"]),
    "scan_x30_y24.raw": ("EMPAD", "`dpc`", "shape of the scan, by its name", ["energy", "step", "pixel"]),
    "scan.h5": ("py4DSTEM", "`parallax`, `ptychography`", "step, detector pixel", ["energy"]),
    "abtem.npy": ("abTEM, by NumPy", "`ssb`", "shape of the scan", ["energy", "step", "pixel"]),
    "scan.hspy": ("HyperSpy, 4D", "`network`", "energy, step, detector pixel", []),
}
options = {
    "sampling": "pixel size (`--pixel`)", "energy": "energy (`--energy`)", "defocus": "defoci (`--defocus`)",
    "step": "step (`--step`)", "pixel": "semi-angle (`--semiangle`) or detector pixel (`--detector-pixel`)",
}  # fmt: skip
also = {
    "hologram.tif": "which one is empty (`--reference`)",
    "crystal.npy": "thickness (`--thickness`)",
}
lines = ["| your file | written by | it says | `exitwave retrieve` | must be told |", "|---|---|---|---|---|"]
for name, (program, command, says, missing) in files.items():
    asked = [options[each] for each in missing] + ([also[name]] if name in also else [])
    lines.append(f"| `{name}` | {program} | {says} | {command} | {', '.join(asked) or 'nothing'} |")
Markdown("\n".join(lines))

# %% [markdown]
# dm3, dm4, mrc, emd and mib are read, too: what each says, and how far it is believed, stands with
# {func}`exitwave.readers.read_images` and {func}`exitwave.readers.scans.read_scan`. Who does not know what a command needs runs
# it with the file alone, and is asked for all of it at once.
#
# ## Lorentz: a stack of ImageJ
#
# Three images of magnetic bars. ImageJ keeps the size of a pixel, here in nm, but nothing of a microscope, and of a
# stack only the order.

# %% tags=["hide-input"]
side, step = 96, 100.0  # pixels; Å
bars = magnets.ten_bars(side * step, np.random.default_rng(seed))
film = magnets.film_of_bars(bars, (side, side), (step, step), thickness=100.0)
film_wave = lorentz.exit_wave(film, energy=200e3, inner_potential=20.0, absorption_length=500.0)
through_focus = torch.tensor([-1.5e6, 0.0, 1.5e6], dtype=torch.float64)
transfer = optics.transfer_function(
    (side, side), step, energy=200e3, dtype=torch.complex128,
    aberrations=optics.Aberrations(C10=-through_focus),
)  # fmt: skip
counts = torch.poisson(1000 * imaging.images(film_wave, transfer), generator=generator)
# %%
import tifffile

tifffile.imwrite(
    folder / "series.tif", counts.numpy().astype(np.uint16), imagej=True, resolution=(0.1, 0.1),
    metadata={"axes": "ZYX", "unit": "nm"},
)  # fmt: skip

# %% [markdown]
# Told nothing, the command asks. Told a defocus in mm without its unit, it goes on, but warns:

# %%
nothing, done, unitless = terminal.run(
    "retrieve lorentz series.tif -o phase.nc",
    "retrieve lorentz series.tif --energy 200keV --defocus=-0.15mm,0,0.15mm -o phase.nc",
    "retrieve lorentz series.tif --energy 200keV --defocus=-0.15,0,0.15 --method tie --no-preview -o wrong.nc",
)
picture("phase.png")

# %% [markdown]
# **Takeaway.** A residual near that of noise alone means that the phase explains the image. The order of the defoci is
# that of the stack, and no error tells if it is turned round: the phase then has the other sign. [The
# chapter](zhou2020.ipynb) has the other methods, and what else can be let free.

# %% tags=["hide-cell"]
assert lacking(nothing) == files["series.tif"][-1]
assert [each.status for each in (nothing, done, unitless)] == [2, 0, 0]
assert "warning" not in done.errors and "did you mean -0.15 mm" in unitless.errors, unitless
film_phase = records.load(folder / "phase.nc", "phase")
truth = lorentz.magnetic_phase(film) + lorentz.electrostatic_phase(film, energy=200e3, inner_potential=20.0)
agreement = metrics.correlation(torch.as_tensor(film_phase["phase"].values).double(), truth)
assert agreement > 0.9, agreement
assert records.sampling_of(film_phase) == (step, step)

# %% [markdown]
# ## Focal series: a stack of HyperSpy
#
# A flake of MoS₂ at atomic resolution. `.hspy` holds axes with units and the energy of the beam. The axis of the images
# is only numbered here; one that is called `defocus` and has a unit of length is read as such, underfocus positive.

# %% tags=["hide-input"]
few, fine, microscope = 80, 0.12, 50e3  # pixels; Å; eV
flake = flakes.nanoflake(
    layers.mos2(), np.random.default_rng(seed), size=(few * fine,) * 2, diameter=(5.5, 5.5), margin=1.0
)
multislice = exit_waves.Multislice(microscope, fine, (few, few), displacement=0.003)
flake_wave = exit_waves.smeared(exit_waves.simulate(flake.numbers, flake.positions, multislice), fine, 0.15)
heights = torch.tensor([20.0, 70.0, 120.0], dtype=torch.float64)
transfer = optics.transfer_function(
    (few, few), fine, energy=microscope, focal_spread=7.0, dtype=torch.complex128,
    aberrations=optics.Aberrations(C10=-heights),
)  # fmt: skip
counts = torch.poisson(100 * imaging.images(flake_wave.to(torch.complex128), transfer), generator=generator)

# %%
from rsciio import hspy

names = [("image", 1.0, "", True), ("y", fine / 10, "nm", False), ("x", fine / 10, "nm", False)]
hspy.file_writer(
    str(folder / "flake.hspy"),
    signal(counts.numpy().astype(np.float32), names, beam_energy=microscope / 1e3),
)

# %% [markdown]
# Three images need three defoci; with two it is refused:

# %%
nothing, two, done = terminal.run(
    "retrieve focal-series flake.hspy -o wave.nc",
    "retrieve focal-series flake.hspy --defocus 2nm,7nm -o wave.nc",
    "retrieve focal-series flake.hspy --defocus 2nm,7nm,12nm --focal-spread 0.7nm --iterations 60 -o wave.nc",
)
picture("wave.png")

# %% [markdown]
# **Takeaway.** The report has a line for each image; what a wave does not explain is named. Aberrations that all images
# share are found by what is known of atoms, and no image can check them: see [conventions](conventions.ipynb). [The
# chapter](larsen2022.ipynb) has the networks, what can be let free, and the warnings for a wrong unit, sign or order.

# %% tags=["hide-cell"]
assert lacking(nothing) == files["flake.hspy"][-1]
assert [each.status for each in (nothing, two, done)] == [2, 2, 0]
assert "3 images" in two.errors and "2 defoci" in two.errors, two
flake_found = records.load(folder / "wave.nc", "wave")
assert (flake_found["residual"] / flake_found["noise"]).max() < 1.2
top, left = (round(float(flake_found[name][0]) / fine) for name in ("y", "x"))
rows, columns = (flake_found.sizes[name] for name in ("y", "x"))
found_wave = torch.as_tensor(records.from_parts(flake_found["wave"]))
true_wave = flake_wave[top : top + rows, left : left + columns].to(found_wave.dtype)
flake_error = float(metrics.relative_wave_error(found_wave, true_wave, aligned=True))
assert flake_error < 0.3, flake_error

# %% [markdown]
# ## Holography: two tif of a camera
#
# A hologram and one without specimen. A camera's own program often writes dots per inch, which say nothing of the
# specimen and count as nothing.

# %%
size, pixel, fringes = 128, 2.0, (0.131, 0.047)  # pixels; Å; 1/Å
y, x = np.mgrid[:size, :size] / size
hill = 10 * np.exp(-((x - 0.6) ** 2 + (y - 0.55) ** 2) / 0.04) + 2 * np.exp(-((y - 0.2) ** 2) / 0.01)
for name, phase in (("hologram", hill), ("empty", np.zeros_like(hill))):
    image_wave = torch.polar(torch.ones(size, size, dtype=torch.float64), torch.as_tensor(phase))
    hologram = holograms.simulate(image_wave, sampling=pixel, carrier=fringes, contrast=0.5)
    counted = torch.poisson(400 * hologram, generator=generator).numpy().astype(np.uint16)
    tifffile.imwrite(folder / f"{name}.tif", counted, resolution=(72, 72), resolutionunit="INCH")

# %% [markdown]
# Where the carrier lies need not be said. Who says it has to give two frequencies:

# %%
nothing, one_number, done = terminal.run(
    "retrieve holography hologram.tif -o hologram.nc",
    "retrieve holography hologram.tif --reference empty.tif --energy 300keV --pixel 0.2nm --carrier 1.3/nm -o hologram.nc",
    "retrieve holography hologram.tif --reference empty.tif --energy 300keV --pixel 0.2nm -o hologram.nc",
)
picture("hologram.png", 700)

# %% [markdown]
# **Takeaway.** A hologram has two side bands, and they give phases of opposite sign. The report says which was taken. If a
# specimen that is neither charged nor a magnet has a smaller phase than the vacuum beside it, take the other one
# (`--conjugate`). [The comparison](comparison.ipynb) sets holography beside the other methods.

# %% tags=["hide-cell"]
assert lacking(nothing) == files["hologram.tif"][-1]
assert [each.status for each in (nothing, one_number, done)] == [2, 2, 0]
assert "not two frequencies" in one_number.errors
hologram_phase = records.load(folder / "hologram.nc", "wave")["phase"].values
assert abs(metrics.correlation(hologram_phase, hill)) > 0.99
hologram_sign = float(metrics.correlation(hologram_phase, hill))
assert np.std((hologram_phase - np.sign(hologram_sign) * hill)[8:-8, 8:-8]) < 0.2

# %% [markdown]
# ## One shot: an image of abTEM
#
# abTEM keeps its measurements in zarr, which no command here reads: [NumPy](#going-on-elsewhere) is the way over. **Axes of
# abTEM are (x, y)**, those of this package, and of most files of images, (y, x): transpose.

# %%
import abtem
import ase.build

abtem.config.set({"local_diagnostics.progress_bar": False, "diagnostics.progress_bar": False})
salt = ase.build.bulk("NaCl", "rocksalt", a=5.64, cubic=True) * (2, 2, 18)
potential = abtem.Potential(salt, gpts=64, slice_thickness=2.82)
crystal_wave = abtem.PlaneWave(energy=200e3).multislice(potential).compute()
crystal_wave.intensity().to_zarr(str(folder / "crystal.zarr"), overwrite=True)

stored = abtem.from_zarr(str(folder / "crystal.zarr")).compute()
np.save(folder / "crystal.npy", stored.array.T)
thickness, (crystal_step, _) = salt.cell.lengths()[2], stored.sampling
print(f"pixels of {crystal_step:.4f} Å, {thickness:.1f} Å thick")

# %%
told = f"--energy 200keV --pixel {crystal_step:.5f} --thickness {thickness / 10:.2f}nm --alternatives 2"
zarr, nothing, thin, done = terminal.run(
    "retrieve one-shot crystal.zarr -o crystal.nc",
    "retrieve one-shot crystal.npy -o crystal.nc",
    f"retrieve one-shot crystal.npy --energy 200keV --pixel {crystal_step:.5f} -o crystal.nc",
    f"retrieve one-shot crystal.npy {told} -o crystal.nc",
)
picture("crystal.png")

# %% [markdown]
# **Takeaway.** One image says nothing of its phase: what comes back is what the training makes of it. The alternatives show
# where it is open. [The chapter](ede2020.ipynb) says how often to believe it.

# %% tags=["hide-cell"]
assert lacking(nothing) == files["crystal.npy"][-1]
assert [each.status for each in (zarr, nothing, thin, done)] == [2, 2, 2, 0]
assert "thickness" in thin.errors and "crystal.zarr" in zarr.errors
crystal = records.load(folder / "crystal.nc", "wave")
np.testing.assert_allclose(
    np.abs(records.from_parts(crystal["wave"])), np.sqrt(stored.array.T / stored.array.mean()), rtol=1e-3
)

# %% [markdown]
# ## 4D-STEM
#
# All five commands open a scan in one way, and have the options of it in common. They need the energy, the step of the
# scan, and a scale of the detector: the size of a pixel, or the semi-angle of the probe, for then the bright disk is the
# scale. How the detector lies against the scan they find out.
#
# ### Centres of mass: a raw file of EMPAD
#
# A sheet of MoS₂, the probe in focus. EMPAD writes frames of 130 rows, the last two of which are no image, and
# nothing else; the shape of the scan is in the name of the file, as its program has it. This camera is mounted a quarter
# turn round.

# %% tags=["hide-input"]
setup = scan_lines.ScanSetup(
    energy=80e3, semiangle=0.0214, scan=(24, 30), step=(0.33, 0.33), detector=128, pixel=0.0014, dose=1e5, seed=seed
)  # fmt: skip
sheet = specimens.monolayer(layers.mos2(), (12.0, 12.0))
box = scan_lines.Box(
    tuple(sheet.numbers), tuple(map(tuple, sheet.positions)), sheet.size, sheet.thickness, sheet.spacing
)
atoms = scan_lines.matrices(box, setup)
electrons = torch.stack([scan_lines.line(row, box, setup, atoms) for row in range(setup.scan[0])]).numpy()

# %%
frames = np.zeros((*setup.scan, 130, 128), np.float32)
frames[:, :, :128] = np.rot90(electrons, axes=(2, 3))
frames.tofile(folder / "scan_x30_y24.raw")

# %% [markdown]
# A shape is given as rows x columns, and must hold all patterns. One that is turned round, 30x24, holds them, too, and no
# error tells.

# %%
probe = "--energy 80keV --semiangle 21.4mrad --step 0.33Å"
nothing, square, done = terminal.run(
    "retrieve dpc scan_x30_y24.raw -o dpc.nc",
    f"retrieve dpc scan_x30_y24.raw {probe} --shape 24x24 -o dpc.nc",
    f"retrieve dpc scan_x30_y24.raw {probe} -o dpc.nc",
)
picture("dpc.png")

# %% [markdown]
# **Takeaway.** The quarter turn is found, with its sign. The curl says how far the centres of mass are from a gradient: much
# of it means a wrong rotation, or noise.

# %% tags=["hide-cell"]
assert lacking(nothing) == files["scan_x30_y24.raw"][-1]
assert [each.status for each in (nothing, square, done)] == [2, 2, 0]
assert "do not fill a scan" in square.errors
dpc = records.load(folder / "dpc.nc", "phase")
assert abs(np.degrees(float(dpc["rotation"])) - 90) < 2 and not int(dpc["transposed"])
assert float(dpc["curl"]) < 0.1

# %% [markdown]
# ### Parallax and ptychography: HDF5 of py4DSTEM
#
# A weak object without order, the probe 12 nm under focus, the scan turned by half a radian against the detector. py4DSTEM is
# none of this book's packages: its layout is written by h5py. It keeps both pixel sizes, but no energy.

# %% tags=["hide-input"]
grid, spacing, turn, under = 48, 0.25, 0.5, 120.0  # pixels; Å; rad; Å
where, field = scanning.framed(scanning.raster((24, 28), 0.8, rotation=turn), spacing, (grid, grid))
rng = np.random.default_rng(seed)
middles, widths = rng.uniform(0, spacing, (110, 2)) * field, rng.uniform(0.7, 1.2, 110)


def bumps(y, x):
    """Return the phase of the object, rad."""
    return sum(
        0.05 * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * width**2))
        for (cy, cx), width in zip(middles, widths, strict=True)
    )


weak = torch.as_tensor(bumps(*np.meshgrid(*(spacing * np.arange(n) for n in field), indexing="ij"))).float()
beam = scanning.probe(
    (grid, grid), spacing, energy=80e3, semiangle=0.03, aberrations=optics.Aberrations.from_defocus(under)
)
expected = torch.cat([
    scanning.patterns(torch.polar(torch.ones_like(weak), weak)[None], beam, some, spacing)
    for some in where.split(64)
]).reshape(24, 28, grid, grid)  # fmt: skip
detected = torch.poisson(4e4 * torch.fft.fftshift(expected, (2, 3)), generator=generator)
# %%
import h5py

with h5py.File(folder / "scan.h5", "w") as file:
    cube = file.create_group("datacube_root/datacube")
    cube["data"] = detected.numpy().astype(np.uint16)
    known = file.create_group("datacube_root/metadatabundle/calibration")
    known["R_pixel_size"], known["R_pixel_units"] = 0.8, "A"
    known["Q_pixel_size"], known["Q_pixel_units"] = 1 / (grid * spacing), "A^-1"

# %% [markdown]
# Parallax needs a probe out of focus: the scan of EMPAD above is refused. Ptychography starts from what parallax
# finds.

# %%
nothing, focused, done = terminal.run(
    "retrieve parallax scan.h5 -o parallax.nc",
    f"retrieve parallax scan_x30_y24.raw {probe} -o parallax.nc",
    "retrieve parallax scan.h5 --energy 80keV -o parallax.nc",
)
picture("parallax.png")

# %%
thick, more = terminal.run(
    "retrieve ptychography scan.h5 --energy 80keV --slices 2 -o object.nc",
    "retrieve ptychography scan.h5 --energy 80keV --epochs 8 -o object.nc",
)
picture("object.png")

# %% [markdown]
# **Takeaway.** Defocus and rotation come out of the data, and need not be told; told, they are a check. Where two of them
# explain the images alike, a warning says which was taken for granted.

# %% tags=["hide-cell"]
assert lacking(nothing) == files["scan.h5"][-1]
assert [each.status for each in (nothing, focused, done, thick, more)] == [2, 2, 0, 2, 0]
assert "too near to focus" in focused.errors and "2 slices" in thick.errors
parallax, refined = records.load(folder / "parallax.nc", "phase"), records.load(folder / "object.nc", "wave")
assert abs(float(parallax["retrieved_defocus"]) - under) < 5
assert abs(float(parallax["rotation"]) - turn) < np.radians(2) and not int(parallax["transposed"])
truth, inner = torch.as_tensor(bumps(*where.T.numpy()).reshape(24, 28)), (slice(4, -4), slice(4, -4))
agreement = metrics.correlation(torch.as_tensor(parallax["phase"].values)[inner].double(), truth[inner])
assert agreement > 0.9, agreement
assert float(refined["loss"][-1]) < float(refined["loss"][0])
assert "underfocus is taken for granted" in done.errors

# %% [markdown]
# ### Side bands: a scan of abTEM
#
# The same way over by NumPy, with **both pairs of axes** turned round. This sheet lacks an atom of sulphur. A box that is no square gives patterns whose pixels are
# none either; `resample="uniform"` mends that.

# %%
sheet = abtem.orthogonalize_cell(ase.build.mx2("MoS2", a=3.16, thickness=3.17, vacuum=2)) * (4, 3, 1)
gone = sheet.pop(20).position
potential = abtem.Potential(sheet, sampling=0.15, slice_thickness=2)
measured = abtem.Probe(energy=80e3, semiangle_cutoff=21.4).scan(
    potential, scan=abtem.GridScan(gpts=(24, 30), potential=potential),
    detectors=abtem.PixelatedDetector(max_angle=50, resample="uniform"),
).compute()  # fmt: skip
measured.to_zarr(str(folder / "abtem.zarr"), overwrite=True)

stored = abtem.from_zarr(str(folder / "abtem.zarr")).compute()
np.save(folder / "abtem.npy", stored.array.transpose(1, 0, 3, 2))
scanned = [axis.sampling for axis in stored.ensemble_axes_metadata][::-1]
print(
    f"steps of {scanned[0]:.4f} and {scanned[1]:.4f} Å (y, x); pixels of {stored.angular_sampling[0]:.4f} mrad"
)
print(f"an atom less at y {gone[1]:.1f} Å, x {gone[0]:.1f} Å")

# %%
told = f"--energy 80keV --step {scanned[0]:.4f},{scanned[1]:.4f} --detector-pixel {stored.angular_sampling[0]:.4f}mrad"
nothing, unit, done = terminal.run(
    "retrieve ssb abtem.npy -o ssb.nc",
    f"retrieve ssb abtem.npy {told.replace('mrad', 'mm')} -o ssb.nc",
    f"retrieve ssb abtem.npy {told} --defocus 0 --rotation 0 -o ssb.nc",
)
picture("ssb.png")

# %% [markdown]
# **Takeaway.** The column with one atom less is where abTEM has it. Had the axes been left as they are, it would lie at the
# mirror image of that place, and the phase would look as good.

# %% tags=["hide-cell"]
assert lacking(nothing) == files["abtem.npy"][-1]
assert [each.status for each in (nothing, unit, done)] == [2, 2, 0]
from scipy.ndimage import gaussian_filter

ssb = records.load(folder / "ssb.nc", "phase")["phase"].values
projected = gaussian_filter(potential.build().compute().project().array.T, 0.3 / 0.15, mode="wrap")
at = [np.round(np.arange(n) * m / n).astype(int) for n, m in zip(ssb.shape, projected.shape, strict=True)]
agreement = np.corrcoef(ssb.ravel(), projected[np.ix_(*at)].ravel())[0, 1]
assert agreement > 0.9, agreement
columns = sheet.positions[(sheet.numbers == 16) & (sheet.positions[:, 2] > 3), 1::-1]
places = np.round(columns / scanned).astype(int) % ssb.shape
values = ssb[tuple(places.T)]
lesser = np.linalg.norm(columns - gone[1::-1], axis=1) < 0.1
assert lesser.sum() == 1 and values[lesser] < 0.8 * values[~lesser].min(), values

# %% [markdown]
# ### A network: 4D of HyperSpy
#
# The scan of EMPAD again, its pixels summed by fours, as HyperSpy would keep it: with everything that the command needs.

# %%
summed = electrons.reshape(*setup.scan, 64, 2, 64, 2).sum((3, 5))
names = [
    ("y", 0.033, "nm", True),
    ("x", 0.033, "nm", True),
    ("ky", 2.8, "mrad", False),
    ("kx", 2.8, "mrad", False),
]
hspy.file_writer(
    str(folder / "scan.hspy"), signal(summed, names, beam_energy=80.0, convergence_angle=21.4)
)  # fmt: skip

# %% [markdown]
# What is given comes before what the file says, also where it is wrong. An energy of 80 is one of 80 eV:

# %%
volts, done = terminal.run(
    "retrieve network scan.hspy --energy 80 -o network.nc",
    "retrieve network scan.hspy --defocus 0 --rotation 0 -o network.nc",
)
picture("network.png")

# %% [markdown]
# Two phases of one scan, by centres of mass from the file of EMPAD and by the network from that of HyperSpy:

# %%
dpc, network = (records.load(folder / f"{name}.nc", "phase") for name in ("dpc", "network"))
figures.row(*(
    figures.image(each["phase"].values, records.sampling_of(each), label="phase", unit="rad", title=title)
    for each, title in ((dpc, "centres of mass"), (network, "network"))
))  # fmt: skip

# %% [markdown]
# **Takeaway.** Both see the same atoms, though one file had to be told everything and the other nothing. Centres of mass
# give the phase as the probe blurs it; the network's is sharper because it has learned what sheets of atoms look like, and the
# report says how much of the patterns it leaves unexplained. [The chapter](cao2020.ipynb) compares all methods on one scan.

# %% tags=["hide-cell"]
assert lacking(done) == files["scan.hspy"][-1] == []
assert [each.status for each in (volts, done)] == [2, 0]
assert "did you mean 80keV" in volts.errors
alike = metrics.correlation(*(torch.as_tensor(each["phase"].values).double() for each in (dpc, network)))
assert alike > 0.5, alike
assert float(network["phase"].std()) > float(dpc["phase"].std())
assert 0 < float(network["unexplained"]) < 0.8

# %% [markdown]
# (going-on-elsewhere)=
# ## Going on elsewhere
#
# A result is a netCDF file, and `exitwave export` writes one variable of it for others:

# %%
to_hspy, to_tif, to_npy, again, unknown = terminal.run(
    "export wave.nc -o wave.hspy",
    "export wave.nc -o wave.tif",
    "export wave.nc -o wave.npy",
    "export wave.nc -o wave.tif",
    "export wave.nc -o phase.tif --variable phase",
)

# %% [markdown]
# **xarray** (and whatever reads netCDF) reads it whole. netCDF has no complex numbers: real and imaginary part lie along
# `part`.

# %%
import xarray as xr

with xr.open_dataset(folder / "wave.nc") as dataset:
    complex_wave = dataset["wave"].sel(part="real") + 1j * dataset["wave"].sel(part="imag")
    for name, variable in dataset.data_vars.items():
        print(f"{name} {variable.dims}: {variable.attrs['long_name']} ({variable.attrs['units']})")

# %% [markdown]
# **HyperSpy** opens `wave.hspy`, or is given a signal in Python. It is none of this book's packages and may be missing, which
# is then said here:

# %%
record = records.load(folder / "wave.nc", "wave")
try:
    made = exports.to_hyperspy(record)
    print(
        made,
        *(f"{axis.name}: {axis.scale:g} {axis.units}" for axis in made.axes_manager.signal_axes),
        sep="\n",
    )
except InputError as error:
    made = None
    print(error)

# %% [markdown]
# **ImageJ** gets the phase, then the amplitude, in 32 bits, with the pixel size in nm:

# %%
with tifffile.TiffFile(folder / "wave.tif") as tif:
    (phase_page, amplitude_page), about = tif.asarray(), tif.imagej_metadata
    count, length = tif.pages[0].tags["XResolution"].value
print(about["Labels"], f"pixels of {length / count:.4g} {about['unit']}")
figures.row(
    figures.image(phase_page, fine, kind="phase", label="phase", unit="rad", title="first page"),
    figures.image(amplitude_page, fine, label="amplitude", title="second page"),
)

# %% [markdown]
# **Takeaway.** The same wave in four programs. Atoms are bright in phase: that is a convention, and not everybody's.
#
# What to be careful of:
#
# | | here | elsewhere |
# |---|---|---|
# | sign of a phase | atoms and thickness make it larger ([conventions](conventions.ipynb)) | programs whose waves run the other way, $\exp(-2\pi i kz)$, have the conjugate wave: turn the sign |
# | constant of a phase | not known: mean 0, or the mean of the wave positive | subtract that of vacuum before two results are compared |
# | defocus | underfocus positive, $C_{10}=-\Delta f$ | abTEM's `defocus` alike; Thermo Fisher counts underfocus negative, which the readers of emd and dm turn round |
# | lengths | Å | `.hspy` keeps Å, `.tif` says nm, `.npy` nothing |
# | axes | (y, x), row 0 at the top | arrays of abTEM are (x, y); HyperSpy keeps arrays (y, x), but its indices `isig[x, y]` are not |
# | complex numbers | along `part` in netCDF | complex in `.hspy` and `.npy`; phase and amplitude in `.tif` |
# | what made it | `record.attrs["provenance"]` | in `original_metadata` of `.hspy` and in *Image > Show Info* of ImageJ; lost in `.npy` |

# %% tags=["hide-cell"]
statuses = [each.status for each in (to_hspy, to_tif, to_npy, again, unknown)]
assert statuses == [0, 0, 0, 2, 2]
assert "is there already" in again.errors and "no variable 'phase'" in unknown.errors
whole = records.from_parts(record["wave"])
np.testing.assert_array_equal(complex_wave.values, whole)
np.testing.assert_array_equal(np.load(folder / "wave.npy"), whole)
[back] = hspy.file_reader(str(folder / "wave.hspy"))
np.testing.assert_array_equal(back["data"], whole)
assert [axis["units"] for axis in back["axes"]] == ["Å", "Å"] and about["unit"] == "nm"
np.testing.assert_allclose(phase_page, np.angle(whole), atol=1e-6)
np.testing.assert_allclose(amplitude_page, np.abs(whole), atol=1e-6)
# Atoms are bright in phase.
bright = phase_page > np.quantile(phase_page, 0.95)
assert true_wave.angle().numpy()[bright].mean() > true_wave.angle().mean() + 0.1
if made is not None:
    assert made.isig[5, 3].data[0] == whole[3, 5]
lens = abtem.CTF(energy=200e3, defocus=100.0)
assert lens.C10 == -100.0
assert "command" in records.provenance_of(record)
assert "provenance" in record.attrs and "provenance" in str(back["original_metadata"])
assert "provenance" in about["Info"]
terminal.close()
temporary.cleanup()
