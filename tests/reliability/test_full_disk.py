"""A full disk: one clear line, the old file as it was, and nothing else left."""

import contextlib
import os
import resource
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from test_book import PARAMETERS, write_book, write_notebook

from exitwave import records
from exitwave.chapters import book
from exitwave.chapters.execute import execute
from exitwave.chapters.points import Point, run_points
from exitwave.cli import pictures
from exitwave.networks.tasks import Regression, adam
from exitwave.networks.training import CHECKPOINT, Options, fit
from exitwave.networks.unet import UNet
from exitwave.networks.weights import save_weights, write_tensors
from exitwave.papers.webb2025 import studies
from exitwave.papers.webb2025.parameters import Parameters
from exitwave.readers import write_ovf

UNITS = {"units": "1", "long_name": "number"}
# Bytes of the disk, and of the largest file where there is no disk to fill.
DISK, LARGEST = 2**20, 2**16


@contextlib.contextmanager
def no_file_larger():
    """Let the system refuse larger files, as a disk without room would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(params=["a full disk", "a limit on files"])
def disk(request, tmp_path):
    """A folder, and a block in which no more than some kilobytes go into it."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if request.param == "a limit on files":
        yield SimpleNamespace(folder=folder, full=no_file_larger, said=("File too large",))
        return
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    if os.name != "posix" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can be mounted by root alone: the limit on files stands for it")

    @contextlib.contextmanager
    def full():
        room = os.statvfs(folder)
        (folder / "ballast").write_bytes(bytes(room.f_bavail * room.f_bsize - LARGEST // 2))
        try:
            yield
        finally:
            (folder / "ballast").unlink()

    yield SimpleNamespace(folder=folder, full=full, said=("No space left on device",))
    subprocess.run(["umount", "-l", str(folder)], check=True)


def large(seed=0):
    """Return a record that no compression makes smaller than the room there is."""
    return records.phase(np.random.default_rng(seed).random((200, 200)), sampling=1.0, energy=2e5)


def contents(folder):
    return {
        path.name: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "ballast"
    }


def refused(disk, work, named=""):
    """Check that work is refused in one line, which names the file, and that all is as before."""
    before = contents(disk.folder)
    with disk.full(), pytest.raises(OSError, match="|".join(disk.said)) as caught:
        work()
    assert len(str(caught.value).splitlines()) == 1
    assert named in str(caught.value)
    assert contents(disk.folder) == before
    work()  # when there is room again
    assert contents(disk.folder) != before


def test_a_record(disk):
    path = records.save(records.phase(np.ones((4, 4)), sampling=1.0, energy=2e5), disk.folder / "some.nc")
    refused(disk, lambda: records.save(large(), path), "some.nc")


def test_weights(disk):
    path = write_tensors(disk.folder / "some.safetensors", {"a": torch.ones(3)}, {})
    refused(disk, lambda: save_weights(path, torch.nn.Linear(200, 200), {}), "some.safetensors")


def test_a_checkpoint(disk):
    """The training ends with one line and goes on from the last checkpoint that there was room for."""
    generator = torch.Generator().manual_seed(0)
    given = torch.rand(8, 1, 8, 8, generator=generator)

    def task():
        network = UNet(1, 1, width=8, depth=2, generator=torch.Generator().manual_seed(0))
        return Regression(network, adam(network, 1e-3))

    def train(epochs, stop=None):
        def report(progress):
            if progress.step == stop:
                raise KeyboardInterrupt

        options = Options(epochs, 4, "32", checkpoint_minutes=0)
        data = {"input": given, "target": given**2}
        fit(task(), data, options, generator=generator, folder=disk.folder, resume=True, report=report)

    with pytest.raises(KeyboardInterrupt):
        train(4, stop=3)
    refused(disk, lambda: train(4), CHECKPOINT)


def test_points(disk, project, monkeypatch):
    """The points that there was room for are kept, and the sweep ends with one line."""

    def random(parameters, device="cpu"):
        side = 4 if parameters.seed == 0 else 200
        values = np.random.default_rng(0).random((side, side))
        return xr.Dataset({"values": (("y", "x"), values, UNITS)})

    monkeypatch.setitem(studies.STUDIES, "random", random)
    monkeypatch.setenv("EXITWAVE_RUNS", str(disk.folder))
    points = [Point("webb2025", "random", Parameters.at("smoke", seed=seed)) for seed in (0, 1)]
    run_points(points[:1], in_process=True)
    refused(disk, lambda: run_points(points, in_process=True), points[1].path.name)


def test_a_preview(disk):
    def draw():
        figure = pictures.new_figure(8, 6)
        axes = figure.subplots()
        axes.imshow(np.random.default_rng(0).random((400, 400, 3)), interpolation="nearest")
        pictures.save_figure(figure, disk.folder / "some.png")

    (disk.folder / "some.png").write_bytes(b"the preview before")
    refused(disk, draw, "some.png")


def test_a_film(disk):
    path = disk.folder / "some.ovf"
    path.write_text("the film before")
    film = records.magnetisation(np.random.default_rng(0).random((3, 1, 80, 80)), cell=(10.0, 10.0, 10.0))
    refused(disk, lambda: write_ovf(film, path), "some.ovf")


def test_a_notebook(disk, tmp_path):
    source = write_notebook(tmp_path / "a.ipynb", PARAMETERS, "import os\nprint(os.urandom(150_000).hex())")
    output = disk.folder / "a.ipynb"
    output.write_text("the run before")
    refused(disk, lambda: execute(source, output, progress=False), "a.ipynb")


def test_the_book(disk, tmp_path, monkeypatch):
    """With the pages of Sphinx written by hand: its own words would be another matter."""
    root = write_book(disk.folder / "book")

    def write(staging, output, log, echo):
        html = output / "_build" / "html"
        (html / "_sources").mkdir(parents=True)
        text = (staging / "book" / "welcome.md").read_text()
        (html / "index.html").write_text(text)
        (html / "picture.png").write_bytes(b"x" if text.endswith("old") else bytes(3 * LARGEST))

    monkeypatch.setattr(book, "_jupyter_book", write)
    monkeypatch.setattr(book.offline, "make_offline", lambda html: None)
    monkeypatch.setattr(
        "exitwave.chapters.execute_many.execute",
        lambda source, output, parameters: (
            output.parent.mkdir(parents=True) or output.write_bytes(source.read_bytes())
        ),
    )

    def build(text):
        (root / "book" / "welcome.md").write_text(text)
        return book.build(root, generated={"book/made.md": lambda: "# Made"}, echo=lambda _: None)

    build("old")
    before = contents(root / "_build" / "html")
    with disk.full(), pytest.raises(OSError, match="|".join(disk.said)) as caught:
        build("new")
    assert len(str(caught.value).splitlines()) == 1
    assert contents(root / "_build" / "html") == before
    assert not list((root / "_build").glob("tmp-*"))
    build("new")
    assert (root / "_build" / "html" / "index.html").read_text() == "new"


def test_the_command_line(disk, exitwave):
    """One line on standard error, status 1, and the output of before."""
    path = disk.folder / "images.nc"
    command = ("simulate", "lorentz", "-o", path, "-p", "scale=smoke")
    path.write_bytes(b"the images before")
    with disk.full():
        status, _, said = exitwave(*command)
    assert status == 1
    [line] = [each for each in said.splitlines() if each.startswith("exitwave:")]
    assert said.splitlines()[-1] == line
    assert any(each in line for each in disk.said)
    assert "images.nc" in line
    assert contents(disk.folder) == {"images.nc": b"the images before"}
