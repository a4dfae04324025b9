"""The training loop: exact continuation, averages, budgets, refusals, and the two tasks."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from exitwave.errors import InputError, RunError
from exitwave.networks import engine, training
from exitwave.networks.pix2pix import (
    GlobalGenerator,
    MultiscaleDiscriminator,
    feature_matching_loss,
    least_squares_loss,
)
from exitwave.networks.tasks import Pix2Pix, Regression, adam
from exitwave.networks.training import CHECKPOINT, Options, fit
from exitwave.networks.unet import UNet
from exitwave.networks.weights import read_tensors

SAMPLES, BATCH = 18, 4  # four steps an epoch, two samples left out


pytestmark = pytest.mark.usefixtures("one_thread")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(samples=SAMPLES, seed=5):
    """Smooth pictures, and the same moved and squared."""
    coarse = torch.rand(samples, 1, 4, 4, generator=seeded(seed)) * 2 - 1
    fine = functional.interpolate(coarse, size=16, mode="bilinear")
    return {"input": fine, "target": torch.roll(fine, 2, -1).square()}


def shifted(batch, generator):
    """Another origin for each batch: what a step may draw."""
    move = int(torch.randint(16, (), generator=generator))
    return {name: torch.roll(value, move, -1) for name, value in batch.items()}


def game(seed=1, width=4):
    data = pictures(6, seed=9)
    return Pix2Pix(
        GlobalGenerator(1, 1, width=width, downsamplings=1, blocks=1, generator=seeded(seed)),
        MultiscaleDiscriminator(2, width=4, layers=2, generator=seeded(seed + 1)),
        augment=shifted,
        judge=lambda network: {"mse": error(network, data)},
    )


def regression(seed=1, rate=1e-3, **more):
    network = UNet(1, 1, width=4, depth=1, generator=seeded(seed))
    return Regression(network, adam(network, rate), **more)


def error(network, data):
    return float((training.predict(network, data["input"]) - data["target"]).square().mean())


def weights_of(task):
    return {
        f"{name} {key}": value.clone()
        for name, module in task.modules().items()
        for key, value in module.state_dict().items()
    }


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


class StoppedError(Exception):
    pass


class Clock:
    """A minute a look."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        self.now += 60.0
        return self.now


def interrupted_at(step):
    def report(progress):
        if progress.step == step:
            raise StoppedError

    return report


class TestResume:
    @pytest.mark.parametrize("precision", ["32", "bf16"])
    @pytest.mark.parametrize("average", [0.0, 0.9])
    def test_interrupted_in_the_middle_of_an_epoch(self, tmp_path, monkeypatch, average, precision):
        options = Options(3, BATCH, precision, average, checkpoint_minutes=0)
        whole = game()
        curves = fit(whole, pictures(), options, generator=seeded(7))
        assert curves.step == [4, 8, 12]
        # A minute passes with each look at the clock, so that not every step is kept and some are done twice.
        monkeypatch.setattr(training, "time", Clock())
        options = replace(options, checkpoint_minutes=5)
        repeated = 0
        for step in (5, 7, 10):
            with pytest.raises(StoppedError):
                # From the second on, with other first weights and another seed: the checkpoint decides.
                fit(game(seed=step - 4), pictures(), options, generator=seeded(step + 2),
                    folder=tmp_path, resume=True, report=interrupted_at(step))  # fmt: skip
            _, about = read_tensors(tmp_path / CHECKPOINT)
            repeated += step - about["scalars"]["step"]
        assert repeated > 0
        parts = game(seed=99)
        again = fit(parts, pictures(), options, generator=seeded(99), folder=tmp_path, resume=True)
        assert same(weights_of(whole), weights_of(parts))
        assert again.losses == curves.losses
        assert again.validation == curves.validation
        assert again.step == curves.step

    def test_killed(self, tmp_path):
        script = tmp_path / "train.py"
        script.write_text(
            "import sys, torch\n"
            f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            "import test_training as t\n"
            "from pathlib import Path\n"
            "torch.set_num_threads(1)\n"
            "options = t.Options(400, t.BATCH, '32', 0.9, checkpoint_minutes=0, validate_every=0)\n"
            "folder = Path(sys.argv[1])\n"
            "t.fit(t.game(), t.pictures(), options, generator=t.seeded(7), folder=folder)\n"
        )
        folder = tmp_path / "run"
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        running = subprocess.Popen([sys.executable, str(script), str(folder)], env=environment)
        path, changes, last = folder / CHECKPOINT, 0, None
        until = time.monotonic() + 60
        while changes < 6 and time.monotonic() < until:
            assert running.poll() is None, "ended before it was killed"
            now = path.stat().st_ino if path.exists() else None
            changes, last = changes + (now != last), now
            time.sleep(0.002)
        running.send_signal(signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL
        step = read_tensors(path)[1]["scalars"]["step"]
        assert 0 < step < 1600
        # Shortened: three epochs beyond the kill, so that both ends are quick.
        epochs = step // 4 + 3
        options = Options(400, BATCH, "32", 0.9, validate_every=0)
        whole, parts = game(), game(seed=99)
        for task, more in ((whole, {}), (parts, {"folder": folder, "resume": True})):
            stop = interrupted_at(4 * epochs)
            with pytest.raises(StoppedError):
                fit(task, pictures(), options, generator=seeded(7), report=stop, **more)
        assert same(weights_of(whole), weights_of(parts))

    def test_a_finished_run_is_only_read(self, tmp_path):
        options = Options(2, BATCH)
        first = regression()
        curves = fit(first, pictures(), options, generator=seeded(), folder=tmp_path)
        before = (tmp_path / CHECKPOINT).stat().st_mtime_ns
        second = regression(seed=5)
        again = fit(second, pictures(), options, generator=seeded(), folder=tmp_path, resume=True)
        assert again.to_dict() == curves.to_dict()
        assert same(weights_of(first), weights_of(second))
        assert (tmp_path / CHECKPOINT).stat().st_mtime_ns == before

    def test_nothing_to_resume_begins(self, tmp_path):
        curves = fit(
            regression(), pictures(), Options(1, BATCH), generator=seeded(), folder=tmp_path, resume=True
        )
        assert curves.fraction == 1.0

    def test_memory_layout_of_the_optimiser_state_is_kept(self, tmp_path):
        tasks = []
        for _ in range(2):
            task = regression()
            task.network.to(memory_format=torch.channels_last)
            tasks.append(task)
            fit(task, pictures(), Options(1, BATCH), generator=seeded(), folder=tmp_path, resume=True)
        state = tasks[1].optimiser.state[tasks[1].network.middle.first.weight]
        assert state["exp_avg"].is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(
            state["exp_avg"], tasks[0].optimiser.state[tasks[0].network.middle.first.weight]["exp_avg"]
        )


class TestBudget:
    def test_stops_and_goes_on(self, tmp_path, monkeypatch):
        whole, parts = regression(), regression()
        options = Options(3, BATCH, "32")
        fit(whole, pictures(), options, generator=seeded())
        monkeypatch.setattr(training, "time", Clock())
        short = replace(options, budget_minutes=8)
        curves = fit(parts, pictures(), short, generator=seeded(), folder=tmp_path)
        assert 0 < curves.fraction < 1
        steps = round(12 * curves.fraction)
        assert curves.epoch == list(range(1, steps // 4 + 1))
        # The time before counts: nothing is left of the same budget.
        same_budget = fit(parts, pictures(), short, generator=seeded(), folder=tmp_path, resume=True)
        assert same_budget.fraction == curves.fraction
        full = fit(parts, pictures(), options, generator=seeded(), folder=tmp_path, resume=True)
        assert full.fraction == 1.0
        assert full.seconds == sorted(full.seconds)
        assert same(weights_of(whole), weights_of(parts))


class TestRefusals:
    @pytest.fixture
    def folder(self, tmp_path):
        fit(regression(), pictures(), Options(1, BATCH, "32"), generator=seeded(), folder=tmp_path)
        return tmp_path

    @pytest.mark.parametrize(
        "damage", [lambda b: b[:-5], lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda b: b""]
    )
    def test_a_damaged_checkpoint_is_named_and_left_alone(self, folder, damage):
        path = folder / CHECKPOINT
        path.write_bytes(damage(path.read_bytes()))
        before = path.read_bytes()
        with pytest.raises(InputError, match=f"{CHECKPOINT}: (damaged|not a readable)"):
            fit(
                regression(),
                pictures(),
                Options(1, BATCH, "32"),
                generator=seeded(),
                folder=folder,
                resume=True,
            )
        assert path.read_bytes() == before

    @pytest.mark.parametrize(
        ("change", "match"),
        [
            ({"options": Options(2, BATCH, "32")}, "made with option epochs 1, not 2"),
            ({"options": Options(1, 6, "32")}, "option batch 4, not 6"),
            ({"options": Options(1, BATCH, "bf16")}, "option precision 32, not bf16"),
            ({"options": Options(1, BATCH, "32", 0.5)}, "option average 0.0, not 0.5"),
            ({"data": pictures(seed=6)}, "made with data input"),
            ({"task": regression(rate=1e-2)}, "lr of optimiser network, group 0 0.001, not 0.01"),
            ({"task": game()}, "made with shape of generator"),
        ],
    )
    def test_a_checkpoint_of_something_else(self, folder, change, match):
        given = {"task": regression(), "data": pictures(), "options": Options(1, BATCH, "32"), **change}
        before = weights_of(given["task"])
        with pytest.raises(InputError, match=match):
            fit(**given, generator=seeded(), folder=folder, resume=True)
        assert same(before, weights_of(given["task"]))

    def test_a_run_is_not_overwritten(self, folder):
        with pytest.raises(InputError, match="is there already: resume it, or remove it"):
            fit(regression(), pictures(), Options(1, BATCH, "32"), generator=seeded(), folder=folder)

    def test_a_checkpoint_is_no_weights_of_another_kind(self, folder):
        from exitwave.networks.weights import save_weights

        save_weights(folder / CHECKPOINT, regression().network, {})
        with pytest.raises(InputError, match="no checkpoint of this version"):
            fit(
                regression(),
                pictures(),
                Options(1, BATCH, "32"),
                generator=seeded(),
                folder=folder,
                resume=True,
            )

    def test_a_loss_that_is_not_finite_ends_it_before_it_is_kept(self, tmp_path):
        calls = []

        def loss(made, target):
            calls.append(1)
            return (made - target).square().mean() * (float("nan") if len(calls) > 6 else 1.0)

        with pytest.raises(RunError, match="the loss loss is nan by step 7"):
            fit(
                regression(loss=loss), pictures(), Options(3, BATCH, checkpoint_minutes=0),
                generator=seeded(), folder=tmp_path,
            )  # fmt: skip
        tensors, about = read_tensors(tmp_path / CHECKPOINT)
        assert about["scalars"]["step"] == 6
        assert all(bool(each.isfinite().all()) for each in tensors.values())

    @pytest.mark.parametrize(
        ("call", "match"),
        [
            (lambda: Options(0), "epochs 0"),
            (lambda: Options(1, precision="16"), "unknown precision '16'"),
            (lambda: Options(1, average=1.0), "decay 1.0"),
            (lambda: Options(1, batch=3, devices=2), "batch of 3 on 2 devices"),
            (lambda: Options(1, budget_minutes=0), "budget of 0 minutes"),
            (lambda: Options(1, budget_minutes=float("nan")), "budget of nan minutes"),
            (lambda: Options(1, checkpoint_minutes=-1), "minutes between checkpoints"),
            (lambda: fit(regression(), pictures(), Options(1, 19), generator=seeded()), "18 samples .* 19"),
            (
                lambda: fit(
                    regression(), {**pictures(), "target": torch.ones(2)}, Options(1), generator=seeded()
                ),
                "unequal lengths",
            ),
            (
                lambda: fit(regression(), pictures(), Options(1, 4), generator=seeded(), resume=True),
                "no folder to resume",
            ),
            (lambda: engine.checked_device("tpu7"), "unknown device 'tpu7'"),
            (lambda: engine.checked_device("meta"), "trained on cpu or cuda"),
            (lambda: engine.checked_device("cuda:77"), "device 'cuda:77', but torch sees"),
        ],
    )
    def test_bad_input(self, call, match):
        with pytest.raises(InputError, match=match):
            call()

    def test_several_devices_need_fabric(self, monkeypatch):
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(InputError, match="2 devices need Lightning Fabric"):
            fit(regression(), pictures(), Options(1, BATCH, devices=2), generator=seeded())


class TestLoop:
    def test_each_sample_once_an_epoch_in_an_order_of_the_generator(self):
        seen = []

        class Watch(Regression):
            def step(self, batch, engine):
                seen.append((batch["number"].tolist(), engine.fraction))
                return super().step(batch, engine)

        network = UNet(1, 1, width=4, depth=1)
        task = Watch(network, adam(network, 1e-3))
        data = {**pictures(), "number": torch.arange(SAMPLES)}
        fit(task, data, Options(2, BATCH), generator=seeded(3))
        generator = seeded(3)
        for epoch in range(2):
            order = torch.randperm(SAMPLES, generator=generator)[:16].tolist()
            assert [n for numbers, _ in seen[4 * epoch : 4 * epoch + 4] for n in numbers] == order
        assert [fraction for _, fraction in seen] == pytest.approx([k / 8 for k in range(8)])

    def test_curves(self):
        losses, reports = [], []

        class Watch(Regression):
            def step(self, batch, engine):
                found = super().step(batch, engine)
                losses.append(float(found["loss"]))
                return found

        network = UNet(1, 1, width=4, depth=1)
        validated = []

        def judge(network):
            assert not network.training
            assert not torch.is_grad_enabled()
            validated.append(error(network, pictures()))
            return {"mse": validated[-1]}

        task = Watch(network, adam(network, 1e-3), judge=judge)
        curves = fit(
            task, pictures(), Options(5, BATCH, "32", validate_every=2), generator=seeded(),
            report=lambda p: reports.append((p.epoch, p.step, p.steps)),
        )  # fmt: skip
        assert curves.losses["loss"] == pytest.approx([sum(losses[i : i + 4]) / 4 for i in range(0, 20, 4)])
        assert curves.epoch == [1, 2, 3, 4, 5]
        assert curves.step == [4, 8, 12, 16, 20]
        assert curves.validated == [2, 4, 5]
        assert curves.validation == {"mse": validated}
        assert reports == [((k - 1) // 4 + 1, k, 20) for k in range(1, 21)]
        assert (curves.fraction, curves.precision) == (1.0, "32")
        assert not task.network.training
        # The last validation is of what is left in the task.
        assert error(task.network, pictures()) == validated[-1]

    def test_averaged_weights(self):
        history = []

        class Watch(Regression):
            def step(self, batch, engine):
                found = super().step(batch, engine)
                history.append(self.network.last.weight.detach().clone())
                return found

        network = UNet(1, 1, width=4, depth=1)
        mean = network.last.weight.detach().clone()
        fit(Watch(network, adam(network, 1e-2)), pictures(), Options(3, BATCH, "32", 0.4), generator=seeded())
        for step, each in enumerate(history, 1):
            decay = min(0.4, step / (10 + step))
            mean = decay * mean + (1 - decay) * each
        assert torch.allclose(network.last.weight.detach(), mean, atol=1e-6)
        assert not torch.allclose(mean, history[-1], atol=1e-5)

    def test_auto_precision_is_told(self):
        curves = fit(regression(), pictures(), Options(1, BATCH), generator=seeded())
        assert curves.precision == engine.fastest_precision(torch.device("cpu"))

    def test_bf16_computes_in_it_and_learns_as_well(self):
        kinds = set()

        class Spy(UNet):
            def forward(self, x, conditions=None):
                kinds.add(self.last(x.repeat(1, 8, 1, 1)).dtype)
                return super().forward(x, conditions)

        errors, data = {}, pictures()
        data["target"] = torch.roll(data["input"], 2, -1)
        for precision in ("32", "bf16"):
            network = Spy(1, 1, width=8, depth=1, padding="circular")
            task = Regression(network, adam(network, 1e-2))
            fit(task, data, Options(25, BATCH, precision), generator=seeded())
            errors[precision] = error(network, data)
            assert network.last.weight.dtype == torch.float32
        assert kinds == {torch.float32, torch.bfloat16}
        assert errors["32"] < 0.1 * float(data["target"].var())
        # 8 bits of mantissa: a relative error of 2^-8 of values of about 1, far below what is left.
        assert errors["bf16"] == pytest.approx(errors["32"], rel=0.5)

    def test_predict_is_the_network_whatever_the_batch(self):
        network = UNet(1, 1, width=4, depth=1, conditions=2)
        torch.nn.init.normal_(network.middle.modulation.last.weight, generator=seeded())
        x, conditions = pictures(7)["input"], torch.rand(7, 2, generator=seeded())
        with torch.no_grad():
            expected = network(x, conditions)
        found = training.predict(network, x, conditions, batch=3)
        assert torch.allclose(found, expected, atol=1e-6)
        assert not found.requires_grad


class TestPix2Pix:
    def test_step_is_that_of_pix2pixhd(self):
        """Both gradients against the losses written out, with three passes of the discriminator."""
        task = game()
        task.augment = lambda batch, _: batch
        batch = {name: value[:4] for name, value in pictures().items()}
        judge = task.discriminator
        made = task.generator(batch["input"])
        real = judge(torch.cat([batch["input"], batch["target"]], 1))
        pool = judge(torch.cat([batch["input"], made.detach()], 1))
        fake = judge(torch.cat([batch["input"], made], 1))
        of_g = least_squares_loss(fake, 1.0) + 10 * feature_matching_loss(fake, real)
        of_d = (least_squares_loss(pool, 0.0) + least_squares_loss(real, 1.0)) / 2
        g = torch.autograd.grad(of_g, list(task.generator.parameters()), retain_graph=True)
        d = torch.autograd.grad(of_d, list(judge.parameters()))
        ready = engine.start(
            task.modules(), task.optimisers(), seeded(), device=torch.device("cpu"), devices=1, precision="32"
        )
        losses = task.step(batch, ready)
        assert float(losses["discriminator"]) == pytest.approx(float(of_d.detach()), rel=1e-5)
        assert float(losses["generator"] + losses["matching"]) == pytest.approx(
            float(of_g.detach()), rel=1e-5
        )
        for expected, module in ((g, task.generator), (d, judge)):
            scale = max(float(each.abs().max()) for each in expected)
            for one, parameter in zip(expected, module.parameters(), strict=True):
                assert torch.allclose(one, parameter.grad, rtol=1e-3, atol=1e-5 * scale)

    def test_learns(self):
        task = game(width=8)
        task.augment = lambda batch, _: batch
        data = pictures(16)
        before = error(task.generator, data)
        curves = fit(task, data, Options(40, BATCH), generator=seeded())
        assert error(task.generator, data) < 0.5 * before
        assert curves.losses["matching"][-1] < 0.7 * curves.losses["matching"][0]
        assert 0.3 < curves.losses["discriminator"][-1] < 0.7


class TestFabric:
    def test_on_one_device_equals_torch_alone(self, monkeypatch):
        pytest.importorskip("lightning_fabric")
        plain, fabric = game(), game()
        fit(plain, pictures(), Options(2, BATCH, "32"), generator=seeded())

        def through_fabric(modules, optimisers, generator, *, device, devices, precision):
            return engine._with_fabric(modules, optimisers, generator, device, devices, precision)

        monkeypatch.setattr(training, "start", through_fabric)
        fit(fabric, pictures(), Options(2, BATCH, "32"), generator=seeded())
        assert same(weights_of(plain), weights_of(fabric))

    def test_two_processes_equal_one_and_one_goes_on_with_their_checkpoint(self, tmp_path):
        pytest.importorskip("lightning_fabric")
        script = tmp_path / "train.py"
        script.write_text(
            "import sys, torch\n"
            f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            "import test_training as t\n"
            "from pathlib import Path\n"
            "torch.set_num_threads(1)\n"
            "options = t.Options(2, t.BATCH, '32', devices=2)\n"
            "t.fit(t.game(), t.pictures(), options, generator=t.seeded(7), folder=Path(sys.argv[1]))\n"
        )
        folder = tmp_path / "run"
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, str(script), str(folder)],
            env=environment,
            timeout=100,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        one, two = game(), game(seed=50)
        curves = fit(one, pictures(), Options(2, BATCH, "32"), generator=seeded(7))
        again = fit(two, pictures(), Options(2, BATCH, "32"), generator=seeded(7), folder=folder, resume=True)
        # Sums in another order change the last bits of gradients, and biases below an instance norm, whose
        # gradient is nothing but rounding, wander: so the predictions, against what the training did.
        first, x = game().generator, pictures()["input"]
        begin, alone, together = (training.predict(each, x) for each in (first, one.generator, two.generator))
        assert float((alone - together).abs().max()) < 1e-2 * float((alone - begin).abs().max())
        assert again.losses["matching"] == pytest.approx(curves.losses["matching"], rel=1e-3)


def test_a_bare_machine_suffices():
    """Neither import nor training needs more than torch and numpy, nor does saving more than safetensors."""
    code = """
import sys
missing = {"abtem", "ase", "netCDF4", "xarray", "scipy", "h5py", "lightning_fabric"}
class Gone:
    def find_spec(self, name, path=None, target=None):
        if name in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
from importlib import util
found = util.find_spec
util.find_spec = lambda name, package=None: None if name in missing else found(name, package)
sys.meta_path.insert(0, Gone())
import exitwave.provenance, torch
from exitwave.networks import tasks, training, unet, weights
assert not (missing | {"safetensors"}) & set(sys.modules)
network = unet.UNet(1, 1, width=4, depth=1)
x = torch.rand(4, 1, 8, 8)
task = tasks.Regression(network, tasks.adam(network, 1e-3))
curves = training.fit(task, {"input": x, "target": x}, training.Options(1, 2), generator=torch.Generator())
print(curves.fraction)
"""
    done = subprocess.run([sys.executable, "-c", code], timeout=100, capture_output=True, text=True)
    assert done.stdout == "1.0\n", done.stderr
