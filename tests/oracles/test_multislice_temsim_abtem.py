"""Exit waves beside Kirkland's temsim and beside abTEM."""

import numpy as np
import pytest
import torch

from exitwave import metrics
from exitwave.simulate.exit_waves import Multislice, simulate, smeared

pytestmark = pytest.mark.oracle

# Of temsim's files: cell, repetitions, energy, slice.
TEMSIM = {
    "mos2_mono_80kV": ("mos2.xyz", (10, 6, 1), 80e3, 4.0),
    "sto_100_t39A": ("srt.xyz", (8, 8, 10), 200e3, 1.95255),
}
# Of the norm: another independent program agrees with temsim to 1.6%.
TOLERANCE = 0.02


def error(made, reference):
    return float((made - reference).norm() / reference.norm())


@pytest.mark.external
@pytest.mark.parametrize("name", TEMSIM)
def test_waves_are_those_of_temsim(external_data, name):
    structure, cells, energy, step = TEMSIM[name]
    folder = external_data / "oracle_temsim"
    if not folder.is_dir():
        pytest.skip("no oracle_temsim in EXITWAVE_EXTERNAL_DATA")
    lines = (folder / structure).read_text().splitlines()
    cell = np.array(lines[1].split(), float)
    atoms = np.array([line.split()[:4] for line in lines[2:] if len(line.split()) >= 5], float)
    shifts = np.stack(np.meshgrid(*map(np.arange, cells), indexing="ij"), -1).reshape(-1, 3) * cell
    places = (atoms[None, :, 1:] + shifts[:, None]).reshape(-1, 3)
    numbers = np.tile(atoms[:, 0].astype(int), len(shifts))
    # Its first slice ends at three quarters of a step, and each is followed by a whole step.
    places[:, 2] = step * np.ceil((places[:, 2] - 0.75 * step) / step - 1e-9).clip(0)
    stored = np.load(folder / f"{name}.npz")
    width, height = stored["size_A_x_y"]
    how = Multislice(energy, (height / 512, width / 512), thickness=0.0, beyond=step)
    reference = torch.as_tensor(stored["exit_wave"]).to(torch.complex128)
    wave = metrics.align_phase(simulate(numbers, places, how, dtype=torch.complex128), reference)
    assert error(wave, reference) < TOLERANCE
    assert error(metrics.align_phase(wave.conj(), reference), reference) > 5 * TOLERANCE
    assert error(wave.flip(0), reference) > 5 * TOLERANCE


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("projection", ["infinite", "finite"])
def test_waves_are_those_of_abtem(projection):
    """In 0.1 Å slices, whole atoms in one or cut by many, without any phase to choose.

    Atoms stand in the middle of abTEM's slices, which transmit before they propagate: 2 Å to its end.
    """
    import abtem
    import ase

    generator = np.random.default_rng(0)
    places = generator.uniform([3, 3, 0], [9.8, 9.8, 6], (12, 3))
    numbers = generator.choice([6, 16, 42], 12)
    places[:, 2] = 0.1 * np.round(places[:, 2] / 0.1)
    places[:, 2] -= places[:, 2].min()
    deep = float(places[:, 2].max())
    atoms = ase.Atoms(numbers, places + [0, 0, 3.05], cell=[12.8, 12.8, deep + 5.0])
    with abtem.config.set({"precision": "float64"}):
        potential = abtem.Potential(
            atoms, gpts=(256, 256), slice_thickness=0.1, projection=projection, parametrization="kirkland"
        )
        made = abtem.PlaneWave(energy=50e3).multislice(potential).compute(progress_bar=False).array
    theirs = torch.as_tensor(np.asarray(made)).T.to(torch.complex128)
    ours = simulate(numbers, places, Multislice(shape=(256, 256), thickness=0.0), dtype=torch.complex128)
    assert error(theirs, ours) < TOLERANCE
    assert error(theirs.conj(), ours) > 5 * TOLERANCE
    # What networks learn: the smeared wave, by Eq. A.1.
    soft = [smeared(each, 0.05, 0.15) for each in (theirs, ours)]
    assert float(metrics.relative_wave_error(*soft)) < 1e-3
