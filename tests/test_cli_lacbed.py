"""``exitwave simulate lacbed``: from a CIF to disks that add up, and what it refuses."""

import numpy as np
import pytest

from exitwave import optics, records
from exitwave.cli import crystals
from exitwave.simulate.lacbed import setup as setting_up

A = 4.11
CAESIUM_CHLORIDE = f"""\
data_CsCl
_cell_length_a {A}
_cell_length_b {A}
_cell_length_c {A}
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_space_group_name_H-M_alt 'P m -3 m'
_space_group_IT_number 221
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_U_iso_or_equiv
"""
CAESIUM = "Cs1 Cs 0 0 0 0.02\n"
ATOMS = CAESIUM + "Cl1 Cl 0.5 0.5 0.5 0.02\n"
BRAGG = 0.5 * optics.wavelength(200e3) / A  # rad, of {100}
# Within this limit, 1/Å, lie the direct beam and the four {100}.
FIVE = ("--limit", "0.25", "--pixels", "6")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.cif").write_text(CAESIUM_CHLORIDE + ATOMS)
    return tmp_path


@pytest.fixture
def call(here, exitwave):
    def run(*arguments, structure="x.cif"):
        return exitwave("simulate", "lacbed", structure, "-o", "out.nc", *arguments)

    return run


def simulated(call, *arguments):
    """Return the record that a call writes, and the lines it says."""
    status, output, errors = call(*arguments)
    assert (status, errors) == (0, "")
    first, *lines = output.splitlines()
    assert first == "out.nc"
    return records.load("out.nc"), lines


class TestSharedDiagonalisations:
    def test_record(self, call):
        record, lines = simulated(
            call, "--per-vector", "4", "--pixels", "8", "--limit", "1.5", "--thickness", "500,1000"
        )
        records.validate(record, "lacbed")
        assert record.attrs["solver"] == "folded"
        step = np.diff(np.sin(record["tilt_x"].values) / optics.wavelength(200e3))
        np.testing.assert_allclose(step, 1 / (4 * A), rtol=1e-9)
        assert float(record["solver_error"].max()) < 1e-3
        assert "folded" in lines[0]

    def test_disks(self, call):
        record, _ = simulated(
            call, "--per-vector", "2", "--pixels", "4", "--limit", "1", "--disk", "0 0 0", "--disk", "1 0 0"
        )
        assert record.attrs["layout"] == "lacbed_disks"
        assert float(record["intensity"].min()) >= 0

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("--half-angle", "0.05"), "half angle and pixels a reciprocal vector exclude one another"),
            (("--rule", "felix"), "--rule felix does not go with --per-vector"),
            (("--layers", "1"), "--layers 1 does not go with --per-vector"),
            (("--absorption", "einstein"), "--absorption einstein does not go with --per-vector"),
            (("--solver", "diagonalise"), "--solver diagonalise does not go with --per-vector"),
        ],
    )
    def test_what_cannot_be_shared(self, call, here, arguments, words):
        status, _, errors = call("--per-vector", "4", *arguments)
        assert status == 2
        assert words in errors.replace("\n", " ")
        assert not (here / "out.nc").exists()


def five_disks():
    return [text for disk in ("0 0 0", "1 0 0", "-1 0 0", "0,1,0", "0,-1,0") for text in ("--disk", disk)]


class TestOneDisk:
    def test_record(self, call):
        record, lines = simulated(
            call, *FIVE, "--energy", "300keV", "--thickness", "50 nm, 1000 1.5e3", "--double"
        )
        records.validate(record, "lacbed")
        assert record.attrs["layout"] == "lacbed"
        assert record["thickness"].values.tolist() == [500.0, 1000.0, 1500.0]
        assert record["intensity"].dtype == np.float64
        assert float(record["energy"]) == 300e3
        # Pixel centres of a field 0.21 rad / a to either side.
        expected = 0.21 / A * np.array([-5, -3, -1, 1, 3, 5]) / 6
        for name in ("tilt_x", "tilt_y"):
            np.testing.assert_allclose(record[name], expected, rtol=1e-12)
        assert record.attrs["beams"] == 5
        assert lines[0].startswith("5 beams")

    def test_errors_stand_beside_it(self, call):
        record, lines = simulated(call, *FIVE, "--thickness", "500,1000")
        assert record["solver_error"].dims == record["beam_error"].dims == ("thickness",)
        # Single precision over phases of some tens of radians.
        assert float(record["solver_error"].max()) < 1e-4
        # 1.3 times the limit, 0.325, lets no beam in: {110} lies at 0.344.
        assert float(record["beam_error"].max()) < 1e-4
        for line, depth, error in zip(lines[1:], (500, 1000), record["beam_error"].values, strict=True):
            assert line.startswith(f"{depth} Å")
            assert line.endswith(f"against more beams {error:.1e}")

    def test_says_when_beams_are_too_few(self, call):
        record, lines = simulated(call, "--limit", "0.5", "--pixels", "4", "--thickness", "1000")
        assert float(record["beam_error"].max()) > crystals._CONVERGED
        assert lines[-1].startswith("not converged in the number of beams: raise --limit")
        *_, felix = simulated(call, "--rule", "felix", "--pixels", "2", "--thickness", "2000")[1]
        assert "--limit" not in felix

    def test_provenance(self, call):
        record, _ = simulated(
            call, *FIVE, "--energy", "300keV", "--half-angle", "20mrad", "--solver", "diagonalise"
        )
        made = records.provenance_of(record)
        assert "simulate lacbed x.cif" in made["command"]
        assert made["parameters"] == {
            "structure": "x.cif", "energy": 300e3, "thickness": [500.0], "zone": [0, 0, 1], "pixels": 6,
            "half_angle": 0.02, "per_vector": None, "disks": [[0, 0, 0]],
            "rule": "resolution", "limit": 0.25, "layers": 0, "absorption": "none",
            "fraction": 0.1, "debye_waller": None, "factors": "kirkland", "solver": "diagonalise",
            "double": False,
        }  # fmt: skip

    def test_debye_waller_fills_what_the_file_leaves_out(self, call, here):
        options = ("--limit", "1", "--pixels", "2")
        given, _ = simulated(call, *options, "--debye-waller", "9")
        plain, _ = simulated(call, *options)
        np.testing.assert_array_equal(given["intensity"], plain["intensity"])  # the file has them all
        unknown = CAESIUM_CHLORIDE + ATOMS.replace("0.02", "?")
        (here / "x.cif").write_text(unknown)
        filled, _ = simulated(call, *options, "--debye-waller", 8 * np.pi**2 * 0.02)
        np.testing.assert_allclose(filled["intensity"], plain["intensity"], atol=1e-5)  # float32
        bare, _ = simulated(call, *options)
        assert float(abs(bare["intensity"] - plain["intensity"]).max()) > 0.01

    def test_absorption_only_takes_away(self, call):
        # Of all beams together: five of five.
        lossless, _ = simulated(call, *FIVE, *five_disks(), "--double")
        lossy, _ = simulated(call, *FIVE, *five_disks(), "--double", "--absorption", "proportional")
        assert (lossy["intensity"].sum("beam") < lossless["intensity"].sum("beam")).all()


class TestSeveralDisks:
    @pytest.fixture
    def record(self, call):
        # Pixels stand at -5, -3, -1, 1, 3, 5 Bragg angles of {100}.
        field = ("--half-angle", 6 * BRAGG, "--thickness", "100 1000")
        return simulated(call, *FIVE, *field, *five_disks(), "--double")[0]

    def test_have_an_axis_and_their_indices(self, record):
        records.validate(record, "lacbed_disks")
        assert record.sizes == {"beam": 5, "thickness": 2, "tilt_y": 6, "tilt_x": 6}
        indices = np.stack([record[name].values for name in "hkl"], -1)
        assert indices.tolist() == [[0, 0, 0], [1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]]
        assert [record[name].dims for name in "hkl"] == [("beam",)] * 3

    def test_all_beams_together_hold_all_electrons(self, record):
        np.testing.assert_allclose(record["intensity"].sum("beam"), 1, atol=1e-12)
        assert float(record["intensity"].isel(beam=0).min()) < 0.9

    def test_opposite_beams_at_opposite_tilts(self, record):
        # The four-fold axis holds a two-fold one.
        disks = record["intensity"].values
        np.testing.assert_allclose(disks[1], disks[2, :, ::-1, ::-1], atol=1e-12)
        # It also turns 100 into 010.
        np.testing.assert_allclose(disks[1].swapaxes(-1, -2), disks[3], atol=1e-12)

    def test_bragg_condition(self, record):
        # s = -(g² + 2 g·K) / 2K is smaller where K leans away from g than where it leans as far towards it.
        thin = record["intensity"].isel(thickness=0)
        along_x, along_y = (thin.sel(beam=1).mean("tilt_y").values, thin.sel(beam=4).mean("tilt_x").values)
        assert (along_x[:3] > along_x[:2:-1]).all()
        assert (along_y[:3] < along_y[:2:-1]).all()


class TestRefusals:
    def assert_refused(self, called, here, *named):
        status, output, errors = called
        assert (status, output) == (2, "")
        [line] = errors.splitlines()
        assert line.startswith("exitwave: ")
        for text in named:
            assert text in line
        assert [path.name for path in here.iterdir()] == ["x.cif"]

    @pytest.mark.parametrize(
        ("given", "named"),
        [
            (["--thickness", "0"], ["thickness 0 Å", "above 0"]),
            (["--thickness", "500 -1nm"], ["thickness -10 Å", "above 0"]),
            (["--thickness", "abc"], ["thickness 'abc'", "5nm"]),
            (["--thickness", "500, abc"], ["thickness '500, abc'"]),
            (["--thickness", ""], ["thickness ''"]),
            (["--thickness", "nan"], ["thickness 'nan'"]),
            (["--energy", "fast"], ["energy 'fast'", "200keV"]),
            (["--energy", "0"], ["energy"]),
            (["--half-angle", "wide"], ["half angle 'wide'"]),
            (["--half-angle", "0"], ["half angle 0.0"]),
            (["--zone", "0 0 0"], ["zone axis is [0 0 0]"]),
            (["--zone", "0 1"], ["zone axis '0 1'", "'0 0 1'"]),
            (["--disk", "1 x 0"], ["disk '1 x 0'", "'0 0 1'"]),
            (["--disk", "0 0 1"], ["disk (0, 0, 1)", "Laue zones"]),
            (["--rule", "best"], ["'best'", "resolution, excitation or felix"]),
            (["--limit", "0"], ["limit 0.0"]),
            (["--limit", "100"], ["lower the beam limit 100"]),
            (["--absorption", "some"], ["'some'", "none, proportional or einstein"]),
            (["--fraction", "2"], ["fraction 2.0"]),
            (["--debye-waller", "-1"], ["Debye-Waller factor -1"]),
            (["--debye-waller", "nan"], ["Debye-Waller factor nan"]),
            (["--factors", "doyle"], ["'doyle'", "kirkland or lobato"]),
            (["--solver", "guess"], ["'guess'", "auto, chebyshev or diagonalise"]),
            (["--device", "abacus"], ["device 'abacus'"]),
        ],
    )
    def test_options(self, call, here, given, named):
        self.assert_refused(call("--pixels", "4", *given), here, *named)

    @pytest.mark.parametrize("given", [("--limit", "abc"), ("--pixels", "0"), ("--fraction", "half")])
    def test_no_number(self, call, here, given):
        status, output, errors = call(*given)
        assert (status, output) == (2, "")
        assert f"Invalid value for '{given[0]}'" in errors
        assert [path.name for path in here.iterdir()] == ["x.cif"]

    def test_an_extinct_disk(self, call, here):
        # Two equal atoms, one in the middle of the cell: h + k + l is even.
        (here / "x.cif").write_text(CAESIUM_CHLORIDE + CAESIUM + CAESIUM.replace("0 0 0", "0.5 0.5 0.5"))
        self.assert_refused(
            call("--pixels", "4", "--limit", "1", "--disk", "1 0 0"), here, "(1, 0, 0)", "extinct"
        )

    def test_beams_beyond_memory(self, call, here, monkeypatch):
        monkeypatch.setattr(setting_up, "_free_memory", lambda: 2.0**30)
        self.assert_refused(
            call("--pixels", "4", "--limit", "10"), here, "GiB", "lower the beam limit", "10 1/Å"
        )

    @pytest.mark.parametrize(
        ("text", "named"),
        [
            (CAESIUM_CHLORIDE, ["atoms", "give"]),
            (CAESIUM_CHLORIDE + ATOMS.replace("Cl1 Cl", "Qq1 Qq"), ["Qq", "no element"]),
            (CAESIUM_CHLORIDE.replace(f"length_a {A}", "length_a 0") + ATOMS, ["_cell_length_a is 0"]),
            ("half a page of prose\n", []),
            ("", []),
        ],
    )
    def test_files(self, call, here, text, named):
        (here / "x.cif").write_text(text)
        self.assert_refused(call("--pixels", "4"), here, "x.cif", *named)

    def test_a_missing_file(self, call, here):
        self.assert_refused(call(structure="y.cif"), here, "y.cif: no such file")

    def test_a_folder_that_takes_no_files(self, call, here):
        status, output, errors = call(*FIVE, "-o", "x.cif/out.nc")
        assert (status, output) == (1, "")  # the disk's fault
        assert len(errors.splitlines()) == 1
        assert [path.name for path in here.iterdir()] == ["x.cif"]
