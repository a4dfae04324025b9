"""How waves are learned from single images, each of one known focus, and from no phase at all.

Sharded deep holography, Appendix A of Ede et al. 2020.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.optim import Optimizer

from exitwave.networks.engine import Engine, in_precision
from exitwave.networks.sharded import as_wave, defocused
from exitwave.networks.tasks import Augment, Validate, _nothing, _unchanged, _update, adam
from exitwave.networks.training import Batch


def refocused(metadata: torch.Tensor, span: float, generator: torch.Generator) -> torch.Tensor:
    """Return metadata m' of a faux transfer function: the defocus anew from U(-span, span), the rest kept."""
    drawn = span * (2 * torch.rand(len(metadata), 1, generator=generator) - 1)
    return torch.cat([drawn.to(metadata), metadata[:, 1:]], 1)


def inside(images: torch.Tensor, edge: int) -> torch.Tensor:
    """Return images (..., y, x) without a frame of so many pixels."""
    return images[..., edge : images.shape[-2] - edge, edge : images.shape[-1] - edge]


@dataclass
class Sharded:
    """A generator makes waves of images; a judge sees what they look like at another focus (Eqs. 27 to 31).

    The batch has ``input``, moduli (sample, 1, y, x), and ``conditions``, metadata (sample, 4).

    Read from the equations where they leave something open:

    - The judge learns 0 for real and 1 for made moduli (Eq. 30), the other way round than is usual, and the
      generator asks for 0 (Eq. 31): taken as printed, the two fit together.
    - Eq. 31 gives the judge m beside a modulus made with c', where Eq. 30 has m'. A judge that is told the
      focus would have to take a right image for a wrong one: m' is given in both.
    - The norm is a mean over pixels here, and λ is that of such a norm.
    - What is made and made again is compared without a frame of `edge` pixels, as are moduli: a wave that is
      cut out is not periodic.

    No term asks that the wave has the image it was made from. If the judge is never deceived by any other
    distribution of waves, the cycle says it all the same: G is then a map T of waves onto such waves with
    T T = T, which is the identity. `consistency` says it directly; with it and without a judge this is
    learning from many incomplete measurements (J. Tachella et al., arXiv:2201.12151).

    Attributes
    ----------
    generator : Module
        Of (moduli, metadata): waves, real and imaginary part.
    discriminator : Module
        Of (moduli, metadata): one number each.
    span : float
        Faux defoci are from U(-span, span), Å.
    edge : int
        Pixels of the frame.
    rate, rate_judge : float
        Of the two Adams.
    cycle : float
        λ of Eq. 31.
    consistency : float
        Weight of the mean square of ``|CTF_c(G)| - |ψ_img|``, which the appendix does not have.
    augment, judge : callable
        As for :class:`exitwave.networks.tasks.Regression`.
    """

    generator: nn.Module
    discriminator: nn.Module
    span: float
    edge: int = 0
    rate: float = 1e-3
    rate_judge: float = 1e-3
    cycle: float = 1.0
    consistency: float = 0.0
    augment: Augment = _unchanged
    judge: Validate = _nothing
    both: dict[str, Optimizer] = field(init=False)

    def __post_init__(self) -> None:
        rates = {"generator": self.rate, "discriminator": self.rate_judge}
        self.both = {name: adam(each, rates[name], (0.5, 0.999)) for name, each in self.modules().items()}

    def modules(self) -> dict[str, nn.Module]:
        """Return both networks."""
        return {"generator": self.generator, "discriminator": self.discriminator}

    def optimisers(self) -> dict[str, Optimizer]:
        """Return both optimisers."""
        return self.both

    def step(self, batch: Batch, engine: Engine) -> dict[str, torch.Tensor]:
        """Update both networks."""
        batch = self.augment(batch, engine.generator)
        real, metadata = batch["input"], batch["conditions"]
        faux = refocused(metadata, self.span, engine.generator)
        made = engine.modules["generator"](real, metadata)
        image = defocused(as_wave(made), faux).abs()[:, None]
        shown = inside(torch.cat([real, image.detach()]), self.edge)
        on_real, on_false = engine.modules["discriminator"](shown, torch.cat([metadata, faux])).chunk(2)
        loss = on_real.square().mean() + (on_false - 1).square().mean()
        terms = self._terms(batch, made, image, faux, engine)
        _update(engine, "generator", torch.stack([*terms.values()]).sum())
        _update(engine, "discriminator", loss)
        return {"discriminator": loss.detach(), **{name: value.detach() for name, value in terms.items()}}

    def _terms(
        self, batch: Batch, made: torch.Tensor, image: torch.Tensor, faux: torch.Tensor, engine: Engine
    ) -> dict[str, torch.Tensor]:
        """Return the weighted terms of Eq. 31; the discriminator is fixed here."""
        # Not the module of the engine, which would wait for gradients of the judge.
        judge = in_precision(self.discriminator, engine.precision, engine.device)
        self.discriminator.requires_grad_(False)
        verdict = judge(inside(image, self.edge), faux)
        self.discriminator.requires_grad_(True)
        again = engine.modules["generator"](image, faux)
        apart = inside(made - again, self.edge).square().sum(1)
        terms = {"generator": verdict.square().mean(), "cycle": self.cycle * apart.mean()}
        if self.consistency:
            own = defocused(as_wave(made), batch["conditions"]).abs()[:, None]
            wrong = inside(own - batch["input"], self.edge).square()
            terms["consistency"] = self.consistency * wrong.mean()
        return terms

    def validate(self, modules: Mapping[str, nn.Module]) -> Mapping[str, float]:
        """Judge the generator."""
        return self.judge(modules["generator"])
