"""A small sound file of each format that exitwave reads, and how it is read."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tifffile
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1] / "readers"))

from test_cif import ANISOTROPIC, CELL, OXIDE, SITES
from test_scans import COUNTS, mib, py4dstem
from writers import IMAGE, OVF_REPRESENTATIONS, OVF_VERSIONS, STACK, dm_bytes, ovf_bytes, write

from exitwave import records
from exitwave.errors import InputError
from exitwave.networks import checkpoints, released, weights
from exitwave.networks.unet import UNet
from exitwave.readers import read_images, read_record
from exitwave.readers.ase_database import read_layers
from exitwave.readers.cif import read_cif
from exitwave.readers.ovf import read_ovf
from exitwave.readers.scans import read_scan
from exitwave.specimens import layers


@dataclass(frozen=True)
class Sample:
    """One format: `make` writes sound files of it into a folder, each of which `read` reads.

    A file may have another beside it, of the same stem, which is needed to read it. `slow` formats are tried
    in a process of their own by the reader. Of `sealed` ones the checksum at the end stays where it is.
    """

    make: Any
    read: Any
    slow: bool = False
    sealed: bool = False


# --- images -----------------------------------------------------------------------------------------------


def _images(kind):
    def make(folder):
        return [
            write(folder / f"one.{kind}", IMAGE, kind),
            write(folder / f"two.{kind}", STACK, kind),
        ]

    return make


def _dm(version):
    def make(folder):
        found = []
        for name, image in {
            "i": IMAGE,
            "s": STACK,
            "u": (100 * STACK).astype(np.uint16),
            "c": IMAGE + 1j,
        }.items():
            found.append(folder / f"{name}.dm{version}")
            found[-1].write_bytes(dm_bytes(image, version, defocus_um=-0.1))
        return found[:3]

    return make


def _tiffs(folder):
    image = (100 * IMAGE).astype(np.uint16)
    large = np.tile(image, (4, 4))
    kinds = {
        "plain": (image, {}),
        "deflated": (large, {"compression": "zlib", "predictor": True}),
        "tiled": (large, {"tile": (16, 16)}),
        "big": (image, {"bigtiff": True}),
        "imagej": (
            np.stack([image, image]),
            {"imagej": True, "metadata": {"unit": "nm"}, "resolution": (2, 2)},
        ),
        "swapped": (image, {"byteorder": ">"}),
        "lzw": (large, {"compression": "packbits"}),
    }
    found = [write(folder / "rosetta.tif", STACK, "tif")]
    for name, (values, how) in kinds.items():
        found.append(folder / f"{name}.tif")
        tifffile.imwrite(found[-1], values, **how)
    return found


def _read_images(path):
    """Read with what the file says, and with everything given."""
    try:
        read_images(path, in_focus=True)
    except InputError as error:
        check_line(path, error)
    _read_given(path)


def _read_in_focus(path):
    read_images(path, energy=3e5, in_focus=True)


def _read_given(path):
    record = read_images(path, defocus=list(100.0 * np.arange(_count(path))), sampling=5.0, energy=300e3)
    records.validate(record, "images")


def _count(path):
    return 1 if path.name.split(".")[0] in _ONE else 2


_ONE = ("one", "i", "plain", "deflated", "tiled", "big", "swapped", "lzw")


# --- records ----------------------------------------------------------------------------------------------


def _records(folder):
    complex_wave = np.exp(1j * IMAGE)
    made = {
        "images": records.images(STACK, defocus=[0.0, 10.0], sampling=2.0, energy=3e5),
        "wave": records.wave(complex_wave, sampling=2.0, energy=3e5),
        "large": records.phase(np.tile(IMAGE, (12, 12)), sampling=1.0, energy=2e5),  # compressed
        "magnetisation": records.magnetisation(np.ones((3, 1, 4, 5)), cell=(10.0, 20.0, 30.0)),
    }
    return [
        records.save(
            records.with_provenance(each, records.provenance("x", seconds=1.0)), folder / f"{name}.nc"
        )
        for name, each in made.items()
    ]


def _read_record(path):
    record = read_record(path)
    records.provenance_of(record)
    layout = {"large": "phase"}.get(path.stem, path.stem)
    try:
        records.validate(record, layout)
    except InputError as error:
        check_line(path, error, named=False)
    for name, variable in record.variables.items():  # what was loaded can be used
        str(name), np.asarray(variable.values), dict(variable.attrs)


def _read_sealed(path):
    """Our own file is refused whatever has changed in it: there is nothing that a library could trip over."""
    records.load(path)
    raise AssertionError("a damaged file was read")


# --- scans ------------------------------------------------------------------------------------------------


def _npy_scans(folder):
    found = [folder / "a.npy", folder / "flat.npy", folder / "f.npy", folder / "v2.npy"]
    np.save(found[0], COUNTS)
    np.save(found[1], COUNTS[:, :3].reshape(9, 8, 6))
    np.save(found[2], np.asfortranarray(COUNTS.astype(">f4")))
    with found[3].open("wb") as file:
        np.lib.format.write_array(file, COUNTS.astype("<u2"), version=(2, 0))
    return found


def _merlin(folder):
    (folder / "m.hdr").write_text(
        "HDR,\nFrames in Acquisition (Number):\t12\nFrames per Trigger (Number):\t4\n"
    )
    return [
        mib(folder / "m.mib", COUNTS, "U08"),
        mib(folder / "w.mib", COUNTS[:, :3], "U16", extension=False),
    ]


def _merlin_header(folder):
    _merlin(folder)
    return [folder / "m.hdr"]


def _empad(folder):
    (folder / "x.raw").write_bytes(np.ones((2, 130, 128), "<f4").tobytes())
    text = "<root><raw_file filename='x.raw'/><pix_x>2</pix_x><pix_y>1</pix_y><iom_measurements>"
    text += "<full_scan_field_of_view><x>1e-9</x></full_scan_field_of_view></iom_measurements></root>"
    (folder / "x.xml").write_text(text)
    return [folder / "x.raw"]


def _empad_xml(folder):
    _empad(folder)
    return [folder / "x.xml"]


def _hdf5_scans(folder):
    found = [folder / "old.h5", folder / "new.h5", folder / "any.h5", folder / "own.nc"]
    py4dstem(found[0], old=True)
    py4dstem(found[1], old=False)
    with h5py.File(found[2], "w") as file:
        data = file.create_dataset("a", data=COUNTS, chunks=(1, 2, 8, 6), compression="gzip")
        data.attrs.update(energy_eV=8e4, semi_angle_rad=0.02, scan_step_A=0.5, detector_px_rad=1e-3)
    ticks = {
        "scan_y": 0.5 * np.arange(3),
        "scan_x": 0.5 * np.arange(4),
        "ky": np.arange(8) - 4.0,
        "kx": np.arange(6) - 3.0,
    }
    records.save(records.make_record("diffraction4d", COUNTS, energy=8e4, **ticks), found[3])
    return found


def _read_scan(path):
    scan = read_scan(path.with_suffix(".mib") if path.suffix == ".hdr" else path, negative="keep")
    for _, patterns in scan.blocks():
        assert patterns.shape[1:] == (scan.scan_shape[1], *scan.detector_shape)
    try:
        scan.sampling()
    except InputError as error:
        check_line(path, error, named=False)


def _read_numbers(path):
    for _ in read_scan(path, dtype="<u2", detector=(4, 6), offset=16, shape=(2, 3), negative="keep").blocks():
        pass


def _numbers(folder):
    (folder / "n.dat").write_bytes(bytes(16) + np.arange(6 * 24, dtype="<u2").tobytes())
    return [folder / "n.dat"]


# --- specimens --------------------------------------------------------------------------------------------


def _ovf(folder):
    values = np.random.default_rng(0).normal(size=(2, 3, 4, 3))
    found = []
    for version in OVF_VERSIONS:
        for representation in OVF_REPRESENTATIONS:
            found.append(folder / f"{version}-{representation.replace(' ', '')}.ovf")
            found[-1].write_bytes(ovf_bytes(values, version=version, representation=representation))
    return found


_SYMBOL = "_symmetry_space_group_name_H-M 'F m -3 m'\n"
_LISTED = "loop_\n_symmetry_equiv_pos_as_xyz\n'x,y,z'\n'-x,-y,-z'\n'1/2+x,1/2-y,z'\n'1/2-x,1/2+y,-z'\n"


def _cif(folder):
    texts = {
        "number": OXIDE, "aniso": OXIDE + ANISOTROPIC, "symbol": "data_s\n" + CELL + _SYMBOL + SITES,
        "listed": "data_l\n" + CELL + _LISTED + SITES, "none": "data_n\n" + CELL + SITES,
    }  # fmt: skip
    for name, text in texts.items():
        (folder / f"{name}.cif").write_text(text)
    return [folder / f"{name}.cif" for name in texts]


def _database(suffix):
    def make(folder):
        from ase import Atoms
        from ase.db import connect

        path = folder / f"some{suffix}"
        box = np.diag([0, 0, 20.0])
        with connect(path) as rows:
            for one in (layers.mos2(), layers.known_layer("CrI3", "CrI3")):
                box[:2, :2] = one.cell
                rows.write(
                    Atoms(one.numbers, one.positions, cell=box, pbc=(True, True, False)),
                    crystal_type="AB3", data={"a": [1, 2]},
                )  # fmt: skip
        return [path]

    return make


# --- networks ---------------------------------------------------------------------------------------------


def _network():
    return UNet(1, 1, width=2, depth=1, generator=torch.Generator().manual_seed(0))


def _weights(folder):
    about = {"provenance": {"seed": 3}, "scale": 0.5}
    plain = weights.save_weights(folder / "plain.safetensors", _network(), about)
    return [plain, released.write_released(plain, folder / "packed.safetensors", {"run": "r", "seed": 0})]


def _read_weights(path):
    for read in (weights.read_tensors, weights.load_weights, weights.load_network, released.read_network):
        try:
            read(path)
        except InputError as error:
            check_line(path, error)
    weights.read_about(path)


def _training():
    torch.manual_seed(0)
    module = nn.Linear(3, 2)
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-3)
    module(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    return module, optimiser, checkpoints.fingerprint({"epochs": 2}, {}, {"m": module}, {"m": optimiser})


def _checkpoint(folder):
    module, optimiser, made_with = _training()
    checkpoints.save(
        folder / "checkpoint.safetensors",
        made_with,
        {"module": {"m": module}, "average": {}},
        {"m": optimiser},
        {"order": torch.arange(4)},
        {"step": 1, "seconds": 0.5, "curves": {}},
    )
    return [folder / "checkpoint.safetensors"]


def _read_checkpoint(path):
    module, optimiser, made_with = _training()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    try:
        checkpoints.load(path, made_with, {"module": {"m": module}, "average": {}}, {"m": optimiser})
    except InputError as error:
        check_line(path, error)
        assert all(torch.equal(before[name], value) for name, value in module.state_dict().items()), "changed"
    checkpoints.seconds(path)


# ----------------------------------------------------------------------------------------------------------


def check_line(path, error, *, named=True):
    """Refuse a message that is long, is not one line, or does not name the file."""
    text = str(error)
    assert len(text.splitlines()) == 1, f"the message is {len(text.splitlines())} lines"
    assert len(text) < 1000 + 2 * len(str(path)), f"the message has {len(text)} characters"
    assert not named or path.stem in text, f"the message names no file: {text[:200]}"
    text.encode()


SAMPLES = {
    "dm3": Sample(_dm(3), _read_images),
    "dm4": Sample(_dm(4), _read_images),
    "tif": Sample(_tiffs, _read_images),
    "mrc": Sample(_images("mrc"), _read_images),
    "npy": Sample(_images("npy"), _read_images),
    "emd": Sample(_images("emd"), _read_in_focus, slow=True),
    "velox.emd": Sample(_images("velox.emd"), _read_in_focus, slow=True),
    "hspy": Sample(_images("hspy"), _read_in_focus, slow=True),
    "images.nc": Sample(_images("nc"), _read_given, slow=True),
    "record": Sample(_records, _read_record, slow=True),
    "sealed": Sample(_records, _read_sealed, sealed=True),
    "ovf": Sample(_ovf, lambda path: _either(path, read_ovf, {}, {"cell": (1.0, 2.0, 3.0)})),
    "cif": Sample(_cif, read_cif),
    "ase.db": Sample(_database(".db"), read_layers),
    "ase.json": Sample(_database(".json"), read_layers),
    "weights": Sample(_weights, _read_weights),
    "checkpoint": Sample(_checkpoint, _read_checkpoint),
    "empad": Sample(_empad, _read_scan),
    "empad.xml": Sample(_empad_xml, _read_scan),
    "mib": Sample(_merlin, _read_scan),
    "mib.hdr": Sample(_merlin_header, _read_scan),
    "scan.npy": Sample(_npy_scans, _read_scan),
    "numbers": Sample(_numbers, _read_numbers),
    "scan.hdf5": Sample(_hdf5_scans, _read_scan, slow=True),
}  # fmt: skip


def _either(path, read, *arguments):
    """Read in several ways, each of which may be refused."""
    failed = None
    for given in arguments:
        try:
            read(path, **given)
        except InputError as error:
            failed = failed or error
            check_line(path, error)
    if failed is not None:
        raise failed
