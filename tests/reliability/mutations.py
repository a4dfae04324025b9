"""Seeded damage to files: from a flipped bit to a header that claims a petabyte."""

import json
import re
import struct

import h5py
import numpy as np

# Sizes and offsets at which counters turn over, and beyond any disk.
INTEGERS = (
    0,
    1,
    -1,
    2,
    127,
    255,
    256,
    32767,
    -32768,
    65535,
    2**31 - 1,
    -(2**31),
    2**32 - 1,
    2**62,
    2**63 - 1,
)
REALS = (0.0, -1.0, 1e-300, 1e300, float("inf"), float("-inf"), float("nan"))
NUMBERS = ("0", "-1", "1e999", "-1e999", "nan", "inf", "9" * 25, "9" * 5000, "1e-320", "0x10", "٣", "1/0", "")
MAGICS = (
    b"\x89HDF\r\n\x1a\n",
    b"CDF\1",
    b"CDF\5",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"\x93NUMPY\1\0",
    b"PK\3\4",
    b"\x1f\x8b\x08",
    b"SQLite format 3\0",
    b"MQ1,000001,",
    b"# OOMMF OVF 2.0\n",
    b"\x80\4\x95",
    b"data_a\n",
    b"{",
    b"[",
    b"\0\0\0\3",
    b"\0\0\0\4",
)


def payloads(mark):
    """Return texts and pickles that would make the file `mark`, if anything ran them."""
    shell = f"touch {mark}"
    return (
        f"__import__('os').system('{shell}')".encode(),
        f"cos\nsystem\n(S'{shell}'\ntR.".encode(),
        b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c" + bytes([len(shell)]) + shell.encode() + b"\x85R.",
        f"!!python/object/apply:os.system ['{shell}']".encode(),
        f"$({shell})`{shell}`;{shell};".encode(),
        b"../../../../../../etc/passwd",
        b"file:///etc/passwd",
        b"%s%n%x" * 4,
    )


def _places(rng, content, width=1):
    """Return a place; half of the time near the beginning, where headers are."""
    end = max(len(content) - width, 0) + 1
    return int(rng.integers(min(end, 512) if rng.random() < 0.5 else end))


def _run(rng, content, pattern, limit=4000):
    """Return the span of a piece of text, None where there is none."""
    found = [match.span() for match in re.finditer(pattern, content[: 2**16])][:limit]
    return found[int(rng.integers(len(found)))] if found else None


def flip(rng, content, mark):
    out = bytearray(content)
    for _ in range(int(rng.integers(1, 9))):
        if out:
            out[_places(rng, out)] ^= 1 << int(rng.integers(8))
    return bytes(out)


def noise(rng, content, mark):
    out = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        place, size = _places(rng, out), int(rng.integers(1, 9))
        out[place : place + size] = rng.bytes(len(out[place : place + size]))
    return bytes(out)


def cut(rng, content, mark):
    return content[: _places(rng, content)]


def insert(rng, content, mark):
    place, size = _places(rng, content), int(2 ** rng.integers(0, 13))
    new = rng.bytes(size) if rng.random() < 0.5 else bytes(size)
    return content[:place] + new + content[place:]


def remove(rng, content, mark):
    place, size = _places(rng, content), int(2 ** rng.integers(0, 13))
    return content[:place] + content[place + size :]


def swap(rng, content, mark):
    size = int(2 ** rng.integers(0, 10))
    first, second = sorted((_places(rng, content), _places(rng, content)))
    if second < first + size:
        return content[first:] + content[:first]
    middle = content[first + size : second]
    return (
        content[:first]
        + content[second : second + size]
        + middle
        + content[first : first + size]
        + content[second + size :]
    )


def repeat(rng, content, mark):
    place, size = _places(rng, content), int(2 ** rng.integers(0, 9))
    return content[:place] + content[place : place + size] * int(2 ** rng.integers(1, 8)) + content[place:]


def magic(rng, content, mark):
    new = MAGICS[int(rng.integers(len(MAGICS)))]
    return new + content[len(new) :]


def integer(rng, content, mark):
    out = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        width = int(2 ** rng.integers(0, 4))
        value = INTEGERS[int(rng.integers(len(INTEGERS)))] % 2 ** (8 * width)
        place = _places(rng, out, width)
        if rng.random() < 0.7:
            place -= place % min(width, 4)
        if place + width <= len(out):
            out[place : place + width] = value.to_bytes(width, ("little", "big")[int(rng.integers(2))])
    return bytes(out)


def real(rng, content, mark):
    out = bytearray(content)
    letter, width = (("f", 4), ("d", 8))[int(rng.integers(2))]
    value = REALS[int(rng.integers(len(REALS)))]
    place = _places(rng, out, width)
    value = value if letter == "d" or abs(value) < 1e38 or not np.isfinite(value) else 1e38
    if place + width <= len(out):
        out[place : place + width] = struct.pack("<>"[int(rng.integers(2))] + letter, value)
    return bytes(out)


def number(rng, content, mark):
    span = _run(rng, content, rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
    if span is None:
        return integer(rng, content, mark)
    new = NUMBERS[int(rng.integers(len(NUMBERS)))].encode()
    if rng.random() < 0.5:  # of the same length, so that what follows stays where it was
        size = span[1] - span[0]
        new = new[:size].ljust(size)
    return content[: span[0]] + new + content[span[1] :]


def payload(rng, content, mark):
    known = payloads(mark)
    new = known[int(rng.integers(len(known)))]
    span = _run(rng, content, rb"[A-Za-z_]{2,}|'[^'\n]*'|\"[^\"\n]*\"")
    if span is None or rng.random() < 0.2:
        place = _places(rng, content)
        return content[:place] + new + content[place + (len(new) if rng.random() < 0.5 else 0) :]
    return content[: span[0]] + new + content[span[1] :]


def word(rng, content, mark):
    """Put one word of the file in the place of another, or change its case."""
    one, two = (_run(rng, content, rb"[A-Za-z_]{2,}") for _ in range(2))
    if one is None or two is None:
        return swap(rng, content, mark)
    new = content[two[0] : two[1]] if rng.random() < 0.7 else content[one[0] : one[1]].swapcase()
    return content[: one[0]] + new + content[one[1] :]


PLAIN = (flip, noise, cut, insert, remove, swap, repeat, magic, integer, real, number, payload, word)


# --- what knows the structure of a file -------------------------------------------------------------------

_VALUES = (
    None,
    True,
    [],
    {},
    [[]],
    "",
    "x",
    0,
    -1,
    1.5,
    1e308,
    5000,
    10**9,
    10**30,
    "9" * 30,
    [1, "a", None],
    {"a": {}},
    [[1, 2], [3]],
)


def _tree(rng, tree, mark, depth=0):
    """Return a JSON tree of which one part is something else, gone, or there twice."""
    if isinstance(tree, dict | list) and tree and (depth == 0 or rng.random() < 0.8):
        keys = list(tree) if isinstance(tree, dict) else range(len(tree))
        key = keys[int(rng.integers(len(keys)))]
        new = dict(tree) if isinstance(tree, dict) else list(tree)
        chance = rng.random()
        if chance < 0.15:
            del new[key]
        elif chance < 0.25 and isinstance(new, dict):
            new[f"{key}_"] = new.pop(key)
        elif chance < 0.35 and isinstance(new, list):
            new.append(new[key])
        else:
            new[key] = _tree(rng, tree[key], mark, depth + 1)
        return new
    known = (*_VALUES, *(each.decode("latin-1") for each in payloads(mark)))
    return known[int(rng.integers(len(known)))]


def json_tree(rng, content, mark):
    try:
        return json.dumps(_tree(rng, json.loads(content), mark)).encode()
    except ValueError:
        return number(rng, content, mark)


def safetensors_tree(rng, content, mark):
    """Change the header of a safetensors file, or what exitwave says there; its length is right."""
    try:
        length = int.from_bytes(content[:8], "little")
        head = json.loads(content[8 : 8 + length])
        head["__metadata__"].pop("exitwave crc32", None)  # as in older files, else it finds out at once
        if rng.random() < 0.7:
            about = json.loads(head["__metadata__"]["exitwave"])
            head["__metadata__"]["exitwave"] = json.dumps(_tree(rng, about, mark))
        else:
            head = _tree(rng, head, mark)
    except (ValueError, KeyError, TypeError, AttributeError):  # changed before
        return number(rng, content, mark)
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[8 + length :]


def hdf5_items(rng, content, mark):
    """Change attributes and data sets of an HDF5 file by the HDF5 library: it is sound, and yet wrong."""
    import io

    buffer = io.BytesIO(content)
    values = (
        "",
        "x",
        "days since 1900-01-01",
        "seconds since never",
        b"\xff\xfe",
        1e300,
        -1.0,
        np.nan,
        np.inf,
        0,
        2**63 - 1,
        np.array([], float),
        np.array([1.0, 2.0]),
        np.array(["a", "b"], dtype="S1"),
        np.ones((3, 3)),
        "y x",
        "../../x",
        payloads(mark)[0].decode(),
        payloads(mark)[2],
        h5py.Empty("f8"),
        np.complex128(1j),
        np.bool_(True),
    )
    names = (
        "units",
        "_FillValue",
        "missing_value",
        "scale_factor",
        "add_offset",
        "coordinates",
        "calendar",
        "dtype",
        "long_name",
        "layout",
        "provenance",
        "_Unsigned",
        "grid_mapping",
        "bounds",
        "scale",
        "size",
        "navigate",
        "_NCProperties",
        "DIMENSION_LIST",
        "REFERENCE_LIST",
        "CLASS",
        "NAME",
        "_Netcdf4Dimid",
        "_Netcdf4Coordinates",
        "file_format",
        "version_major",
        "emd_group_type",
        "signal_type",
        "_type",
        "is_binned",
        "index_in_array",
        "beam_energy",
    )
    try:
        with h5py.File(buffer, "r+") as file:
            items = ["/"]
            file.visit(items.append)
            for _ in range(int(rng.integers(1, 4))):
                item = file[items[int(rng.integers(len(items)))]]
                value = values[int(rng.integers(len(values)))]
                known = [*item.attrs, *names]
                chance = rng.random()
                if chance < 0.6:
                    item.attrs[known[int(rng.integers(len(known)))]] = value
                elif chance < 0.7 and len(item.attrs):
                    del item.attrs[list(item.attrs)[int(rng.integers(len(item.attrs)))]]
                elif chance < 0.8 and item.name != "/":
                    del file[item.name]
                elif item.name != "/":
                    name = item.name
                    shapes = ((), (0,), (1,), (3, 1), (2, 2, 2), (10**12,), (10**6, 10**6))
                    shape = shapes[int(rng.integers(len(shapes)))]
                    kinds = ("f8", "i1", "S5", h5py.string_dtype(), "c16", np.dtype([("a", "f4")]))
                    kind = kinds[int(rng.integers(len(kinds)))]
                    del file[name]
                    file.create_dataset(name, shape, kind, chunks=True if np.prod(shape) > 10**6 else None)
    except Exception:  # a damaged file, or a value that HDF5 does not take
        return integer(rng, content, mark)
    return buffer.getvalue()


SPECIAL = {
    "json": json_tree, "safetensors": safetensors_tree,
    **dict.fromkeys(("nc", "emd", "hspy", "h5", "hdf5"), hdf5_items),
}  # fmt: skip


def mutated(rng, content, suffix, mark):
    """Return a damaged copy of a file, and how it was damaged.

    Parameters
    ----------
    rng : numpy.random.Generator
    content : bytes
    suffix : str
        Of the file, without its dot: some formats are known better than others.
    mark : str
        A file that must never come into being.
    """
    special = SPECIAL.get(suffix)
    names = []
    for _ in range(1 + int(rng.random() < 0.4) + int(rng.random() < 0.1)):
        how = special if special and rng.random() < 0.4 else PLAIN[int(rng.integers(len(PLAIN)))]
        content = how(rng, content, mark)
        names.append(how.__name__)
    return content, names
