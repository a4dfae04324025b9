"""How far a predicted image is from the truth: as the paper scores it, and without what that hides."""

from __future__ import annotations

import torch
from torch import Tensor

from exitwave import metrics
from exitwave.papers.webb2025.patterns import stretched

# What the paper calls the centre of a pattern: here the middle third of the field along each side.
_CENTRE = 3
# What it calls a shift by 1/8 [110], with its equivalents.
_EIGHTHS = [(y, x) for y in (-1, 1) for x in (-1, 1)]


def unit(images: Tensor) -> Tensor:
    """Return images between -1 and 1 on a scale from 0 to 1."""
    return (images.float().cpu() + 1) / 2


def mean_square(made: Tensor, target: Tensor, *, stretch: bool = True) -> Tensor:
    """Return Eq. 3 of each image, on a scale from 0 to 1.

    Parameters
    ----------
    made, target : Tensor, shape (sample, 1, y, x)
        Between -1 and 1.
    stretch : bool
        Stretch each prediction to the whole range first, as the authors' code does before scoring.

    Returns
    -------
    Tensor, shape (sample,)
    """
    made, target = unit(made), unit(target)
    if stretch:
        made = stretched(made)
    return (made - target).square().mean((1, 2, 3))


def index_of(made: Tensor, target: Tensor) -> Tensor:
    """Return R (Eq. 4) of each image, shape (sample,)."""
    found: Tensor = metrics.correlation_index(made[:, 0].double().cpu(), target[:, 0].double().cpu())
    return found


def aligned_mean_square(made: Tensor, target: Tensor) -> Tensor:
    """Return Eq. 3 of each image after the best cyclic shift of the prediction: blind to the origin.

    Parameters
    ----------
    made, target : Tensor, shape (sample, 1, y, x)
        Between -1 and 1.
    """
    one, two = stretched(unit(made)).double(), unit(target).double()
    product = torch.fft.ifft2(torch.fft.fft2(one).conj() * torch.fft.fft2(two)).real
    best = product.amax((1, 2, 3)) / one[0].numel()
    # Rounding of the transform, where both are equal.
    error: Tensor = one.square().mean((1, 2, 3)) + two.square().mean((1, 2, 3)) - 2 * best
    return error.clamp_min(0)


def best_shifted(image: Tensor, truth: Tensor) -> Tensor:
    """Return an image (y, x) cyclically shifted to where its cross-correlation with another is highest."""
    alike = torch.fft.ifft2(torch.fft.fft2(truth.double()) * torch.fft.fft2(image.double()).conj()).real
    row, column = divmod(int(alike.argmax()), alike.shape[1])
    return torch.roll(image, (row, column), (0, 1))


def eighth_mean_square(made: Tensor, target: Tensor) -> Tensor:
    """Return Eq. 3 of each image after the best shift by 1/8 of the cell along both axes.

    The size of the images is a multiple of 8.
    """
    step = made.shape[-1] // 8
    shifted = [torch.roll(made, (step * y, step * x), (-2, -1)) for y, x in _EIGHTHS]
    return torch.stack([mean_square(each, target) for each in shifted]).amin(0)


def explained_by_eighth(made: Tensor, target: Tensor) -> Tensor:
    """Return the share of the worst tenth of the images whose error a shift by 1/8 [110] more than halves."""
    error = mean_square(made, target)
    worst = error.argsort(descending=True)[: max(1, len(error) // 10)]
    explained = torch.lt(eighth_mean_square(made[worst], target[worst]), error[worst] / 2)
    return explained.double().mean()


def symmetrised(images: Tensor) -> Tensor:
    """Return the average of each image over the symmetry 2mm that every disk of the data set has."""
    return (images + images.flip(-1) + images.flip(-2) + images.flip(-1, -2)) / 4


def asymmetry(made: Tensor) -> Tensor:
    """Return the mean square difference of stretched predictions to their average over 2mm."""
    image = stretched(unit(made))
    return (image - symmetrised(image)).square().mean()


def centre_and_rim(made: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean square error in the middle third of the field along each side, and outside of it."""
    difference = (stretched(unit(made)) - unit(target)).square()[:, 0]
    size = difference.shape[-1]
    inside = torch.zeros(size, size, dtype=torch.bool)
    first, last = size // _CENTRE, size - size // _CENTRE
    inside[first:last, first:last] = True
    return difference[:, inside].mean(), difference[:, ~inside].mean()
