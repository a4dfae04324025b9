"""Records: layouts, checks that name the field, netCDF whole or not at all."""

import json
import os
import re

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import exitwave
from exitwave import records
from exitwave.errors import InputError

ENERGY = 200e3
FEW = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

finite = st.floats(-1e6, 1e6, allow_nan=False, width=64)
sides = hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=5)


def one_line(error):
    return "\n" not in str(error.value)


def stack(count=2, shape=(4, 5)):
    return np.arange(count * shape[0] * shape[1], dtype=float).reshape(count, *shape)


def image_record(**changed):
    given = {"intensity": stack(), "defocus": [-10.0, 20.0], "sampling": 50.0, "energy": ENERGY} | changed
    return records.images(given.pop("intensity"), **given)


def example(layout):
    """Return a record of a layout, made by its own constructor where it has one."""
    shape = {
        "y": 4,
        "x": 5,
        "ky": 4,
        "kx": 5,
        "scan_y": 2,
        "scan_x": 3,
        "tilt_y": 4,
        "tilt_x": 5,
        "thickness": 2,
        "beam": 3,
    }
    constructors = {
        "images": image_record,
        "wave": lambda: records.wave(stack()[0] + 1j, sampling=(2.0, 3.0), energy=ENERGY),
        "phase": lambda: records.phase(stack()[0], sampling=(2.0, 3.0), energy=ENERGY),
        "magnetisation": lambda: records.magnetisation(np.ones((3, 1, 4, 5)), cell=(10.0, 20.0, 30.0)),
    }
    if layout in constructors:
        return constructors[layout]()
    dims = records.LAYOUTS[layout].dims
    coordinates = {dim: np.arange(shape[dim], dtype=float) for dim in dims}
    return records.make_record(layout, np.ones([shape[dim] for dim in dims]), energy=ENERGY, **coordinates)


every_layout = pytest.mark.parametrize("layout", records.LAYOUTS)


class TestLayouts:
    @every_layout
    def test_axes_and_units(self, layout):
        record, spec = example(layout), records.LAYOUTS[layout]
        assert record[spec.variable].dims == spec.dims
        assert record[spec.variable].attrs["units"] == spec.units
        for name, variable in record.variables.items():
            assert variable.attrs["units"], name
            assert variable.attrs["long_name"], name
        assert ("energy" in record.coords) == spec.needs_energy

    @every_layout
    def test_comes_back_from_a_file(self, layout, tmp_path):
        record = example(layout)
        path = records.save(record, tmp_path / "new folder" / "record.nc")
        assert path == tmp_path / "new folder" / "record.nc"
        again = records.load(path, layout)
        xr.testing.assert_equal(again, record)
        for name in record.variables:
            assert again[name].attrs == record[name].attrs, name

    def test_lengths_are_in_angstrom_and_energies_in_electronvolt(self):
        assert {records.COORDINATES[name][0] for name in ("x", "y", "z", "defocus", "thickness")} == {"Å"}
        assert records.COORDINATES["energy"][0] == "eV"

    def test_constructors_place_pixels(self):
        record = image_record(sampling=(2.0, 3.0))
        assert record["y"].values.tolist() == [0.0, 2.0, 4.0, 6.0]
        assert record["x"].values.tolist() == [0.0, 3.0, 6.0, 9.0, 12.0]
        assert records.sampling_of(record) == (2.0, 3.0)
        assert float(record["energy"]) == ENERGY
        assert record["defocus"].values.tolist() == [-10.0, 20.0]

    def test_images_from_a_list_of_images(self):
        xr.testing.assert_identical(image_record(intensity=list(stack())), image_record())

    def test_magnetisation_keeps_the_cell_of_a_single_layer(self):
        record = example("magnetisation")
        assert list(record.attrs["cell"]) == [10.0, 20.0, 30.0]
        assert list(record["component"].values) == ["x", "y", "z"]

    @pytest.mark.parametrize("number", [5, 5.0, np.float32(5), np.int64(5)])
    def test_any_number_is_a_pixel_size(self, number):
        assert records.sampling_pair(number) == (5.0, 5.0)


class TestRoundTrip:
    @FEW
    @given(data=st.data())
    def test_complex_wave(self, tmp_path, data):
        real = data.draw(hnp.arrays(float, sides, elements=finite))
        values = real + 1j * data.draw(hnp.arrays(float, real.shape, elements=finite))
        record = records.wave(values, sampling=(1.5, 2.5), energy=ENERGY)
        assert all(variable.dtype.kind != "c" for variable in record.variables.values())
        again = records.load(records.save(record, tmp_path / "wave.nc"), "wave")
        np.testing.assert_array_equal(records.from_parts(again["wave"]), values)

    def test_parts_are_found_by_name_not_by_place(self):
        values = np.array([[1 + 2j, 3 - 4j]])
        record = records.wave(np.repeat(values, 2, 0), sampling=1.0, energy=ENERGY)
        shuffled = record["wave"].isel(part=[1, 0]).transpose("y", "part", "x")
        np.testing.assert_array_equal(records.from_parts(shuffled), np.repeat(values, 2, 0))

    @FEW
    @given(
        values=hnp.arrays(
            st.sampled_from([np.float32, np.float64]), sides, elements=st.floats(-1, 1, width=32)
        )
    )
    def test_precision_is_kept(self, tmp_path, values):
        record = records.phase(values, sampling=1.0, energy=ENERGY)
        again = records.load(records.save(record, tmp_path / "phase.nc"))
        assert again["phase"].dtype == values.dtype
        np.testing.assert_array_equal(again["phase"].values, values)


class TestRefusals:
    @pytest.mark.parametrize(
        ("changed", "named"),
        [
            ({"intensity": np.where(stack() == 27, np.nan, stack())}, r"intensity.*defocus=1, y=1, x=2"),
            ({"intensity": np.where(stack() == 0, np.inf, stack())}, r"intensity.*defocus=0, y=0, x=0"),
            ({"intensity": [np.ones((4, 5)), np.ones((5, 4))]}, r"\(4, 5\), \(5, 4\)"),
            ({"intensity": stack(2), "defocus": [1.0, 2.0, 3.0]}, r"2 images but 3 defoci"),
            ({"intensity": np.ones((0, 4, 5)), "defocus": []}, r"images|empty"),
            ({"intensity": np.ones((2, 0, 5))}, r"empty.*\(2, 0, 5\)"),
            ({"intensity": np.ones((4, 5))}, r"\(4, 5\)"),
            ({"intensity": np.ones(4)}, r"\(4,\)"),
            ({"intensity": stack() * 1j}, r"intensity.*complex"),
            ({"defocus": [0.0, np.nan]}, r"defocus.*defocus=1"),
            ({"sampling": 0.0}, r"pixel size 0"),
            ({"sampling": -5.0}, r"pixel size -5"),
            ({"sampling": np.nan}, r"pixel size nan"),
            ({"sampling": np.inf}, r"pixel size inf"),
            ({"sampling": (5.0, 0.0)}, r"pixel size \(5.0, 0.0\)"),
            ({"sampling": (5.0, 5.0, 5.0)}, r"pixel size \(5.0, 5.0, 5.0\)"),
            ({"energy": 0.0}, r"energy 0 eV"),
            ({"energy": -1.0}, r"energy -1 eV"),
            ({"energy": np.nan}, r"energy nan eV"),
            ({"energy": None}, r"energy is missing"),
        ],
    )
    def test_images_name_the_field(self, changed, named):
        with pytest.raises(InputError, match=named) as error:
            image_record(**changed)
        assert one_line(error)

    def test_waves_and_phases_need_two_axes(self):
        for make in (records.wave, records.phase):
            with pytest.raises(InputError, match=r"shape \(3,\)"):
                make(np.ones(3), sampling=1.0, energy=ENERGY)

    @pytest.mark.parametrize("cell", [(0.0, 1.0, 1.0), (1.0, -1.0, 1.0), (np.nan, 1.0, 1.0), (1.0, 1.0)])
    def test_cell_of_a_magnetisation(self, cell):
        with pytest.raises(InputError, match="cell"):
            records.magnetisation(np.ones((3, 1, 2, 2)), cell=cell)

    def test_make_record(self):
        with pytest.raises(InputError, match="unknown layout 'sound'"):
            records.make_record("sound", np.ones(3))
        with pytest.raises(InputError, match="coordinate y is missing"):
            records.make_record("phase", np.ones((2, 2)), energy=ENERGY, x=[0, 1])
        with pytest.raises(InputError, match="3 values of x for 2"):
            records.make_record("phase", np.ones((2, 2)), energy=ENERGY, y=[0, 1], x=[0, 1, 2])

    def test_validate_names_what_is_wrong(self):
        record = example("phase")
        wrong = {
            r"'intensity' is missing": (record, "images"),
            r"axes \('x', 'y'\)": (record.transpose("x", "y"), "phase"),
            r"coordinate y is missing": (record.drop_vars("y"), "phase"),
            r"energy is missing": (record.drop_vars("energy"), "phase"),
            r"1 values of y are not finite.*y=2": (record.assign_coords(y=[0, 1, np.nan, 3]), "phase"),
            r"phase is not real numbers": (record.assign(phase=record["phase"].astype(str)), "phase"),
            r"energy.*not one number": (record.assign_coords(energy=("e", [1.0, 2.0])), "phase"),
            r"energy high is not one number": (record.assign_coords(energy="high"), "phase"),
        }
        assert records.validate(record, "phase") is record
        for message, (bad, layout) in wrong.items():
            with pytest.raises(InputError, match=message):
                records.validate(bad, layout)

    @pytest.mark.parametrize("x", [[0.0, 1.0, 3.0, 4.0, 5.0], [4.0, 3.0, 2.0, 1.0, 0.0], [0.0] * 5])
    def test_uneven_pixels_have_no_size(self, x):
        with pytest.raises(InputError, match="coordinate x"):
            records.sampling_of(example("phase").assign_coords(x=x))

    def test_one_pixel_has_no_size(self):
        with pytest.raises(InputError, match="coordinate y"):
            records.sampling_of(example("phase").isel(y=[0]))


class TestSave:
    def test_complex_is_refused_before_anything_is_written(self, tmp_path):
        record = example("phase").assign(
            psi=(("y", "x"), np.ones((4, 5)) * 1j, {"units": "1", "long_name": "psi"})
        )
        with pytest.raises(InputError, match=r"psi is complex.*to_parts"):
            records.save(record, tmp_path / "record.nc")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("name", ["phase", "y"])
    @pytest.mark.parametrize("missing", ["units", "long_name"])
    def test_units_and_names_are_required(self, name, missing, tmp_path):
        record = example("phase")
        del record[name].attrs[missing]
        with pytest.raises(InputError, match=f"{name} has no {missing}"):
            records.save(record, tmp_path / "record.nc")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("broken", ["to_netcdf", "replace"])
    def test_a_failing_write_leaves_the_old_file_and_nothing_else(self, broken, tmp_path, monkeypatch):
        path = records.save(example("phase"), tmp_path / "record.nc")
        before = path.read_bytes(), path.stat().st_mtime_ns

        def half_written(self, target, **_):
            with open(target, "wb") as file:
                file.write(b"half a file")
            raise OSError(28, "No space left on device")

        def refused(source, target):
            assert os.path.exists(source)  # the temporary file is complete by now
            raise PermissionError(13, "Permission denied")

        if broken == "to_netcdf":
            monkeypatch.setattr(xr.Dataset, "to_netcdf", half_written)
        else:
            monkeypatch.setattr(records.os, "replace", refused)
        for target in (path, tmp_path / "new.nc"):
            with pytest.raises(OSError, match=r"No space|Permission"):
                records.save(example("phase"), target)
        assert [found.name for found in tmp_path.iterdir()] == ["record.nc"]
        assert (path.read_bytes(), path.stat().st_mtime_ns) == before

    def test_the_temporary_file_is_on_the_same_disk(self, tmp_path, monkeypatch):
        # A rename is atomic within one folder only.
        seen = []
        real = os.replace
        monkeypatch.setattr(records.os, "replace", lambda a, b: (seen.append((a, b)), real(a, b)))
        path = records.save(example("phase"), tmp_path / "record.nc")
        [(temporary, target)] = seen
        assert target == path
        assert temporary.parent == path.parent
        assert temporary.name != path.name

    def test_many_numbers_take_little_room(self, tmp_path):
        # As in a stored run: forty quantities of three seeds.
        units = {"units": "1", "long_name": "number"}
        several = {f"quantity_{i}": ("seed", np.arange(3) + i / 7, units) for i in range(40)}
        record = xr.Dataset(several, {"seed": ("seed", np.arange(3), units)})
        path = records.save(record, tmp_path / "run.nc")
        assert path.stat().st_size < 40 * 1500
        again = records.load(path)
        xr.testing.assert_identical(again, record)
        # What was read is written in the same way.
        assert records.save(again, tmp_path / "again.nc").stat().st_size == path.stat().st_size

    def test_large_variables_are_compressed_whatever_file_they_come_from(self, tmp_path):
        record = records.phase(np.zeros((200, 200)), sampling=1.0, energy=ENERGY)
        record.to_netcdf(tmp_path / "plain.nc", unlimited_dims=["x"])
        again = records.load(tmp_path / "plain.nc")
        path = records.save(again, tmp_path / "record.nc")
        assert path.stat().st_size < record["phase"].nbytes / 5
        xr.testing.assert_identical(records.load(path), again)
        few = again.isel(x=slice(2), y=slice(2))
        xr.testing.assert_identical(records.load(records.save(few, tmp_path / "few.nc")), few)


class TestLoad:
    @pytest.mark.parametrize("kind", ["text", "random", "empty", "truncated", "folder", "missing"])
    def test_what_is_no_record_is_one_line(self, kind, tmp_path):
        path = tmp_path / "record.nc"
        if kind == "text":
            path.write_text("defocus 1 2 3\n" * 100)
        elif kind == "random":
            path.write_bytes(np.random.default_rng(0).bytes(5000))
        elif kind == "empty":
            path.touch()
        elif kind == "truncated":
            whole = records.save(example("images"), path).read_bytes()
            path.write_bytes(whole[: len(whole) // 2])
        elif kind == "folder":
            path.mkdir()
        with pytest.raises(InputError, match=re.escape(str(path))) as error:
            records.load(path)
        assert one_line(error)

    def test_another_layout_names_the_file_and_the_field(self, tmp_path):
        path = records.save(example("phase"), tmp_path / "record.nc")
        with pytest.raises(InputError, match=r"record\.nc: .*'intensity' is missing"):
            records.load(path, "images")

    def test_the_file_is_closed_and_may_be_replaced(self, tmp_path):
        path = records.save(example("phase"), tmp_path / "record.nc")
        record = records.load(path)
        path.unlink()
        assert float(record["phase"].sum()) == stack()[0].sum()


class TestProvenance:
    def test_says_what_made_a_record(self):
        made = records.provenance(
            "exitwave test",
            paper="zhou2020",
            scale="smoke",
            parameters={"noise": 0.1},
            seed=3,
            seconds=1.5,
            study="tie",
        )
        assert made["command"] == "exitwave test"
        assert (made["paper"], made["scale"], made["seed"], made["seconds"]) == ("zhou2020", "smoke", 3, 1.5)
        assert made["parameters"] == {"noise": 0.1}
        assert made["study"] == "tie"
        assert made["device"] == "cpu"
        assert made["versions"]["exitwave"] == exitwave.__version__
        assert made["versions"]["numpy"] == np.__version__
        assert {"python", "torch", "xarray", "abtem"} <= set(made["versions"])
        assert re.fullmatch(r"[0-9a-f]{12}\+?|unknown", made["commit"])
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", made["made"])

    def test_has_no_name_of_this_machine_or_user(self):
        text = json.dumps(records.provenance("exitwave test"))
        assert os.uname().nodename not in text
        assert os.path.expanduser("~") not in text

    def test_survives_the_file(self, tmp_path):
        made = records.provenance("exitwave test", parameters={"noise": 0.1}, seed=3)
        path = records.save(records.with_provenance(example("phase"), made), tmp_path / "record.nc")
        assert records.provenance_of(records.load(path)) == made

    @pytest.mark.parametrize("attribute", ["not JSON", "[1, 2]", 7])
    def test_is_empty_where_there_is_none(self, attribute):
        assert records.provenance_of(example("phase")) == {}
        assert records.provenance_of(example("phase").assign_attrs(provenance=attribute)) == {}

    def test_command_has_no_folder_of_this_machine(self, monkeypatch):
        monkeypatch.setattr("sys.argv", ["/somewhere/bin/exitwave", "reproduce", "zhou2020"])
        assert records.command_line() == "exitwave reproduce zhou2020"


def test_repeated_numbers_are_packed_whole_and_smooth_ones_byte_by_byte(tmp_path):
    """Each kind takes less of the disk than packed the other way."""
    repeated = np.random.default_rng(0).permutation(np.resize(np.linspace(0.1, 0.9, 7), 20_000))
    smooth = np.sin(np.linspace(0, 3, 20_000))
    about = {"units": "1", "long_name": "numbers"}
    record = xr.Dataset({name: ("i", values, about) for name, values in (("a", repeated), ("b", smooth))})
    stored = xr.open_dataset(records.save(record, tmp_path / "a.nc"), engine="netcdf4")
    assert [bool(stored[name].encoding["shuffle"]) for name in "ab"] == [False, True]
    for name in "ab":
        np.testing.assert_array_equal(stored[name], record[name])
        sizes = []
        for shuffle in (True, False):
            path = tmp_path / f"{shuffle}.nc"
            encoding = {name: {"zlib": True, "complevel": 6, "shuffle": shuffle}}
            record[[name]].to_netcdf(path, engine="netcdf4", encoding=encoding)
            sizes.append(path.stat().st_size)
        assert (sizes[0] < sizes[1]) == stored[name].encoding["shuffle"]
