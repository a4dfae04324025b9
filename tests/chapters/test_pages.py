"""What is made for the book beside its chapters."""

import io

import numpy as np
import pytest
from PIL import Image

from exitwave.chapters.pages import generated_pages
from exitwave.chapters.project import chapters


@pytest.mark.parametrize("paper", chapters())
def test_every_chapter_has_its_picture_for_the_first_page(paper):
    drawn = Image.open(io.BytesIO(generated_pages()[f"book/_static/cover_{paper}.png"]()))
    assert drawn.format == "PNG"
    assert drawn.width > 2 * drawn.height
    # Three images, none of them blank.
    for part in np.array_split(np.asarray(drawn.convert("L"), float), 3, axis=1):
        assert part.std() > 10
