"""Flow matching: a flow that is known exactly, samples of a learned distribution."""

import pytest
import torch
from torch import nn

from exitwave.errors import InputError
from exitwave.networks import flow, training
from exitwave.networks.tasks import adam

pytestmark = pytest.mark.usefixtures("one_thread")


class Known(nn.Module):
    """The velocity of the flow from N(0, 1) to N(m, s²), m being the input: exact for straight paths."""

    def __init__(self, deviation):
        super().__init__()
        self.deviation = nn.Parameter(torch.tensor(deviation))

    def forward(self, x, conditions):
        t = ((conditions[:, 0] + 1) / 2)[:, None, None, None]
        at, mean = x[:, :1], x[:, 1:]
        s = self.deviation
        variance = (1 - t) ** 2 + (t * s) ** 2
        return mean + (t * s**2 - (1 - t)) / variance * (at - t * mean)


def test_a_known_flow_ends_in_its_distribution():
    mean = torch.full((64, 1, 16, 16), 1.5)
    found = flow.sample(
        Known(0.5), mean, torch.zeros(64, 0), torch.Generator().manual_seed(0), channels=1, steps=32
    )
    # 16384 draws; Heun's error with 32 steps is below 1%.
    assert float(found.mean().detach()) == pytest.approx(1.5, abs=0.02)
    assert float(found.std().detach()) == pytest.approx(0.5, rel=0.03)


def test_more_steps_come_nearer():
    mean = torch.zeros(16, 1, 16, 16)
    ends = [
        flow.sample(
            Known(0.3), mean, torch.zeros(16, 0), torch.Generator().manual_seed(1), channels=1, steps=steps
        ).detach()
        for steps in (4, 16, 256)
    ]
    apart = [float((each - ends[2]).abs().mean()) for each in ends[:2]]
    assert apart[1] < 0.3 * apart[0]


def test_a_flow_from_given_noise_is_that_of_samples():
    mean = torch.linspace(-1, 1, 5 * 256).reshape(5, 1, 16, 16)
    told = torch.zeros(5, 0)
    for steps in (1, 5):
        drawn = flow.sample(
            Known(0.3), mean, told, torch.Generator().manual_seed(2), channels=1, steps=steps, batch=2
        )
        start = torch.randn(5, 1, 16, 16, generator=torch.Generator().manual_seed(2))
        torch.testing.assert_close(flow.follow(Known(0.3), start, mean, told, steps=steps), drawn)


def test_what_is_drawn_follows_from_the_generator():
    mean = torch.zeros(2, 1, 16, 16)
    one, two, other = (
        flow.sample(Known(0.3), mean, torch.zeros(2, 0), torch.Generator().manual_seed(n), channels=1)
        for n in (0, 0, 1)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert not torch.equal(one[0], one[1])


def test_no_step_is_refused():
    with pytest.raises(InputError, match="0 steps"):
        flow.sample(
            Known(0.3), torch.zeros(1, 1, 8, 8), torch.zeros(1, 0), torch.Generator(), channels=1, steps=0
        )


class Line(nn.Module):
    """A velocity for each time: a polynomial in x whose coefficients a small network makes of the time."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(
            nn.Linear(4, 64), nn.SiLU(), nn.Linear(64, 64), nn.SiLU(), nn.Linear(64, 1)
        )
        for layer in self.inner:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight, generator=torch.Generator().manual_seed(0))

    def forward(self, x, conditions):
        told = conditions[:, :, None, None].expand(-1, -1, *x.shape[2:])
        values = torch.cat([x[:, :1], told], 1).movedim(1, -1)
        return self.inner(values).movedim(-1, 1)


def test_two_answers_are_both_drawn_where_a_mean_would_be_neither():
    generator = torch.Generator().manual_seed(3)
    answers = torch.where(torch.rand(512, 1, 4, 4, generator=generator) < 0.7, 1.0, -1.0)
    network = Line()
    task = flow.FlowMatching(network, adam(network, 5e-3), augment=lambda batch, _: batch)
    data = {"target": answers, "input": torch.zeros_like(answers), "conditions": torch.zeros(512, 0)}
    options = training.Options(epochs=60, batch=64, validate_every=0, precision="32")
    training.fit(task, data, options, generator=torch.Generator().manual_seed(4))
    found = flow.sample(
        network, torch.zeros(400, 1, 4, 4), torch.zeros(400, 0), torch.Generator().manual_seed(5),
        channels=1, steps=16, batch=400,
    ).detach()  # fmt: skip
    positive = float((found > 0).float().mean())
    assert positive == pytest.approx(0.7, abs=0.08)
    # Near one of the two, not between them.
    assert float(found.abs().median()) == pytest.approx(1, abs=0.2)
