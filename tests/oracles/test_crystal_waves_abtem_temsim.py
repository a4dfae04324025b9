"""Exit waves of crystals beside Kirkland's temsim and beside abTEM."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from exitwave import metrics
from exitwave.simulate.crystal_waves import Exposure, simulate
from exitwave.simulate.exit_waves import BAND
from exitwave.specimens.crystals import Crystal
from exitwave.specimens.structures import known_structures
from exitwave.specimens.zones import along

pytestmark = [pytest.mark.oracle, pytest.mark.usefixtures("one_thread")]

# Of the norm: another independent program agrees with temsim to 1.6%.
TOLERANCE = 0.02


def error(made, reference):
    return float((metrics.align_phase(made, reference) - reference).norm() / reference.norm())


@pytest.mark.external
def test_strontium_titanate_is_that_of_temsim(external_data):
    """39 Å along [001] at 200 kV, 8 x 8 cells on 512 pixels; slices of half a cell."""
    folder = external_data / "oracle_temsim"
    if not folder.is_dir():
        pytest.skip("no oracle_temsim in EXITWAVE_EXTERNAL_DATA")
    lines = (folder / "srt.xyz").read_text().splitlines()
    cell = np.array(lines[1].split(), float)
    atoms = np.array([line.split()[:4] for line in lines[2:] if len(line.split()) >= 5], float)
    count = len(atoms)
    crystal = Crystal(
        "SrTiO3", np.diag(cell), atoms[:, 0].astype(int), atoms[:, 1:] / cell, np.ones(count), np.zeros(count)
    )
    slab = along(crystal, [0, 0, 1])
    # Its first slice ends at three quarters of a step, and each is followed by a whole step.
    fractions = slab.fractions.copy()
    step = slab.period / 2
    fractions[:, 2] = 0.5 * np.ceil((fractions[:, 2] * slab.period - 0.75 * step) / step - 1e-9).clip(0)
    assert set(fractions[:, 2]) == {0.0, 0.5}
    stored = np.load(folder / "sto_100_t39A.npz")
    width, height = stored["size_A_x_y"]
    reference = torch.as_tensor(stored["exit_wave"]).to(torch.complex128)
    sampling = (height / 512, width / 512)
    exposure = Exposure(200e3, 10 * slab.period, limit=BAND / 2 / max(sampling))
    [beams] = simulate(
        [replace(slab, fractions=fractions)], [exposure], thickness=step + 1e-6, beyond=step / 2,
        dtype=torch.complex128,
    )  # fmt: skip
    wave = beams.image(512, sampling)
    assert error(wave, reference) < TOLERANCE
    assert error(wave.conj(), reference) > 5 * TOLERANCE


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("family", "formula", "zone", "energy"),
    [
        ("zincblende", "GaAs", [1, 1, 0], 200e3),
        ("rutile", "TiO2", [0, 0, 1], 80e3),
        ("calcite", "CaCO3", [0, 1, 0], 300e3),
    ],
)
def test_waves_are_those_of_abtem(family, formula, zone, energy):
    """Some 40 Å of a crystal, turned by this project and handed to abTEM as atoms, in slices of 1 Å or so.

    abTEM limits the band of the transmission too, of which less is seen the finer the pixels are.
    """
    import abtem
    import ase

    crystal = next(c for c in known_structures() if (c.prototype, c.formula) == (family, formula))
    slab = along(crystal, zone)
    assert abs(slab.cell[1, 0]) < 1e-9
    repeats = max(1, round(40 / slab.period))
    count = math.ceil(slab.period)
    step = slab.period / count
    # Atoms in the middle of slices, to which abTEM and we project them.
    depth = np.concatenate(
        [
            step * (np.floor(slab.fractions[:, 2] * count + 1e-6) + 0.5) + i * slab.period
            for i in range(repeats)
        ]
    )
    places = np.column_stack([np.tile(slab.fractions[:, :2] @ slab.cell, (repeats, 1)), depth])
    box = [slab.cell[0, 0], slab.cell[1, 1], repeats * slab.period]
    gpts = (200, 200)
    atoms = ase.Atoms(np.tile(slab.numbers, repeats), places, cell=box, pbc=True)
    with abtem.config.set({"precision": "float64"}):
        potential = abtem.Potential(
            atoms,
            gpts=gpts,
            slice_thickness=step,
            projection="infinite",
            parametrization="kirkland",
            periodic=True,
        )
        made = abtem.PlaneWave(energy=energy).multislice(potential).compute(progress_bar=False).array
    theirs = torch.as_tensor(np.asarray(made)).T.to(torch.complex128)
    sampling = (box[1] / gpts[1], box[0] / gpts[0])
    exposure = Exposure(energy, repeats * slab.period, limit=BAND / 2 / max(sampling))
    # abTEM transmits and then propagates through each whole slice.
    [beams] = simulate([slab], [exposure], beyond=step / 2, dtype=torch.complex128)
    ours = beams.image(gpts[::-1], sampling)
    assert error(ours, theirs) < TOLERANCE
    assert error(ours.conj(), theirs) > 5 * TOLERANCE
