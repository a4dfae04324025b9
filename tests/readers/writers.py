"""Writers of test files, independent of the readers under test.

RosettaSciIO writes no DM3, DM4 or Velox EMD, and OVF 0.99 and 1.0 have no writer at hand.
"""

import json
import struct

import h5py
import mrcfile
import numpy as np
import pytest

from exitwave import records
from exitwave.errors import InputError

# --- OVF ---------------------------------------------------------------------------------------------------

OVF_VERSIONS = ("0.99", "1.0", "2.0")
OVF_REPRESENTATIONS = ("text", "binary 4", "binary 8")


def ovf_bytes(
    values,
    cell=(3e-9, 2e-9, 1e-9),
    version="2.0",
    representation="binary 8",
    meshunit="m",
    valueunit="A/m",
    multiplier=None,
    extra=(),
):
    """Return an OVF file of vectors (z, y, x, 3) with cells (z, y, x) in `meshunit`."""
    two = version == "2.0"
    nz, ny, nx, dim = values.shape
    lines = ["OOMMF OVF 2.0" if two else f"OOMMF: rectangular mesh v{version}", "Segment count: 1"]
    lines += [
        "",
        "## a comment line",
        "Begin: Segment",
        "Begin: Header",
        "Title: test",
        "Desc: written: by a test",
    ]
    lines += ["meshtype: rectangular", f"meshunit: {meshunit}"]
    for axis, nodes, size in zip("xyz", (nx, ny, nz), cell[::-1], strict=True):
        lines += [f"{axis}base: {size / 2!r}", f"{axis.upper()}StepSize: {size!r} ## a comment"]
        lines += [f"{axis} nodes: {nodes}", f"{axis}min: 0", f"{axis}max: {nodes * size!r}"]
    if two:
        units = valueunit if valueunit.startswith("{") else " ".join([valueunit] * dim)
        lines += [f"valuedim: {dim}", "valuelabels: m_x m_y m_z", f"valueunits: {units}"]
    else:
        lines += [f"valueunit: {valueunit}", "ValueRangeMinMag: 1e-8", "ValueRangeMaxMag: 1"]
    if multiplier is not None:
        lines += [f"valuemultiplier: {multiplier!r}"]
    lines += [*extra, "End: Header", f"Begin: Data {representation.title()}"]
    head = "".join(f"# {line}\n" for line in lines).encode()
    tail = f"# End: Data {representation.title()}\n# End: Segment\n".encode()
    if representation == "text":
        rows = "".join(f" {x!r}\t{y!r}  {z!r}\n" for x, y, z in values.reshape(-1, 3).tolist())
        return head + rows.encode() + tail
    kind = ("<" if two else ">") + {"binary 4": "f", "binary 8": "d"}[representation]
    check = {"binary 4": 1234567.0, "binary 8": 123456789012345.0}[representation]
    return head + struct.pack(kind, check) + values.astype(kind).tobytes() + b"\n" + tail


# --- DigitalMicrograph -------------------------------------------------------------------------------------

_DM_TYPES = {
    "int16": (1, 2),
    "float32": (2, 6),
    "uint8": (6, 8),
    "uint16": (10, 4),
    "int32": (7, 3),
    "float64": (12, 7),
}


def dm_bytes(image, version=3, scale=0.5, unit="nm", volts=300e3, defocus_um=None):
    """Return a DM3 or DM4 file with one image or stack, calibrated in y and x.

    `defocus_um` is written as the Tecnai plug-in of DigitalMicrograph does, underfocus negative.
    """
    word = ">i" if version == 3 else ">q"

    def number(value):
        return struct.pack(word, value)

    def tag(kind, name, body):
        size = number(len(body)) if version == 4 else b""
        return struct.pack(">Bh", kind, len(name)) + name.encode("latin-1") + size + body

    def data(name, info, payload):
        return tag(21, name, b"%%%%" + number(len(info)) + b"".join(map(number, info)) + payload)

    def group(name, *members):
        return tag(20, name, b"\1\0" + number(len(members)) + b"".join(members))

    def integer(name, value):
        return data(name, [5], struct.pack("<I", value))

    def real(name, value):
        return data(name, [6], struct.pack("<f", value))

    def double(name, value):
        return data(name, [7], struct.pack("<d", value))

    def text(name, value):
        return data(name, [20, 4, len(value)], value.encode("utf-16-le"))

    def calibration(size, symbol):
        return group("", double("Origin", 0.0), double("Scale", size), text("Units", symbol))

    if np.iscomplexobj(image):  # an array of structs of two 4-byte reals
        code, info = 3, [20, 15, 0, 2, 0, 6, 0, 6, image.size]
    else:
        code, element = _DM_TYPES[image.dtype.name]
        info = [20, element, image.size]
    values = image.astype(image.dtype.newbyteorder("<"))
    dimensions = group("Dimensions", *(integer("", n) for n in image.shape[::-1]))
    axes = [calibration(scale, unit), calibration(scale, unit), calibration(1.0, "")][: image.ndim]
    brightness = group("Brightness", real("Origin", 0.0), real("Scale", 1.0), text("Units", ""))
    image_data = group(
        "ImageData",
        group("Calibrations", brightness, group("Dimension", *axes)),
        data("Data", info, values.tobytes()),
        integer("DataType", code),
        dimensions,
        integer("PixelDepth", image.itemsize),
    )
    microscope = group("Microscope Info", text("Imaging Mode", "IMAGING"), real("Voltage", volts))
    tags = [microscope]
    if defocus_um is not None:
        lines = [
            "Microscope Titan 300 kV",
            f"Mode TEM uP SA Zoom Image Defocus (um) {defocus_um!r} Magn 38000x",
            "",
        ]
        tags.append(group("Tecnai", text("Microscope Info", "\u2028".join(lines))))
    # A struct, as real files have among their display tags.
    display = group("ImageDisplayInfo", data("Rectangle", [15, 0, 2, 0, 2, 0, 2], struct.pack("<hh", 1, 2)))
    body = group("", image_data, group("ImageTags", *tags), text("Name", "test"))
    root = b"\1\0" + number(2) + group("ImageList", body) + display
    return struct.pack(">i", version) + number(len(root)) + struct.pack(">i", 1) + root + bytes(8)


# --- EMD ---------------------------------------------------------------------------------------------------


def write_velox(path, frames, pixel_m=5e-10, volts=300e3, defocus_m=None, unit="m"):
    """Write a Velox EMD file with frames (frame, y, x), each described by the same metadata."""
    optics = {"AccelerationVoltage": repr(volts)}
    if defocus_m is not None:
        optics["Defocus"] = repr(defocus_m)
    metadata = {
        "Core": {},
        "Acquisition": {"AcquisitionStartDatetime": {"DateTime": "1700000000"}},
        "Optics": optics,
        "BinaryResult": {
            "DetectorIndex": "0",
            "PixelSize": {"width": repr(pixel_m), "height": repr(pixel_m)},
            "Offset": {"x": "0", "y": "0"},
            "PixelUnitX": unit,
            "PixelUnitY": unit,
        },
        "Detectors": {"Detector-0": {"DetectorName": "BM-Ceta", "ExposureTime": "1"}},
        "Scan": {"FrameTime": "1"},
        "CustomProperties": "",
    }
    coded = np.frombuffer(json.dumps(metadata).encode(), np.uint8)
    padded = np.zeros((coded.size + 16, len(frames)), np.uint8)
    padded[: coded.size] = coded[:, None]
    with h5py.File(path, "w") as file:
        file["Version"] = [json.dumps({"format": "Velox", "version": "11"})]
        group = file.create_group("Data/Image/0123456789abcdef")
        group.create_dataset("Data", data=np.moveaxis(frames, 0, -1), chunks=(*frames.shape[1:], 1))
        group["Metadata"] = padded


# --- what RosettaSciIO writes ------------------------------------------------------------------------------


def signal(image, sampling=0.5, unit="nm", energy_kev=None, stack=("stack", None, 1.0, 0.0)):
    """Return an image (y, x) or stack (image, y, x) as RosettaSciIO's writers take it."""
    axes = []
    for index, size in enumerate(image.shape):
        name, units, scale, offset = ("image", "y", "x")[index - image.ndim], unit, sampling, 0.0
        navigate = index < image.ndim - 2
        if navigate:
            name, units, scale, offset = stack
        axes.append(
            {
                "_type": "UniformDataAxis",
                "name": name,
                "units": units,
                "scale": scale,
                "offset": offset,
                "size": size,
                "navigate": navigate,
                "index_in_array": index,
                "is_binned": False,
            }
        )
    metadata = {"General": {"title": "test"}, "Signal": {"signal_type": ""}}
    if energy_kev is not None:
        metadata["Acquisition_instrument"] = {"TEM": {"beam_energy": energy_kev}}
    return {
        "data": image,
        "axes": axes,
        "metadata": metadata,
        "original_metadata": {},
        "attributes": {"_lazy": False, "ragged": False},
        "tmp_parameters": {},
        "learning_results": {},
        "models": {},
        "package": "",
        "package_version": "",
        "package_info": {"package": "", "package_version": ""},
    }


# --- all formats -------------------------------------------------------------------------------------------

IMAGE = np.random.default_rng(0).random((6, 9), dtype=np.float32)
STACK = np.stack([IMAGE, IMAGE + 1])
KNOWN = {"sampling": 5.0, "energy": 300e3}
FORMATS = ("dm3", "dm4", "tif", "mrc", "emd", "velox.emd", "hspy", "npy", "nc")
HDF5 = ("emd", "velox.emd", "hspy", "nc")


def write(path, image, kind, **options):
    """Write an image or stack; options: sampling (nm), unit, energy_kev, stack."""
    sampling = options.pop("sampling", 0.5)
    if kind in ("dm3", "dm4"):
        volts = 1e3 * options.pop("energy_kev", 0.0)
        path.write_bytes(dm_bytes(image, int(kind[-1]), sampling, volts=volts, **options))
    elif kind == "mrc":
        with mrcfile.new(path, overwrite=True) as file:
            file.set_data(image)
            file.voxel_size = 10 * sampling
    elif kind == "npy":
        np.save(path, image)
    elif kind == "velox.emd":
        write_velox(path, image.reshape(-1, *image.shape[-2:]), sampling * 1e-9, **options)
    elif kind == "nc":
        foci = 100.0 * np.arange(len(image)) if image.ndim == 3 else [0.0]
        images = image.reshape(-1, *image.shape[-2:])
        records.save(records.images(images, defocus=foci, sampling=10 * sampling, energy=300e3), path)
    else:
        plugin = {"tif": "tiff"}.get(kind, kind)
        writer = pytest.importorskip(f"rsciio.{plugin}").file_writer
        path.unlink(missing_ok=True)
        writer(str(path), signal(image, sampling, **options))
    return path


def refused(read, *paths, **arguments):
    """Return the message with which a reader refuses; it must be one line."""
    with pytest.raises(InputError) as caught:
        read(*paths, **arguments)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message
