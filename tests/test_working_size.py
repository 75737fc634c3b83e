import pytest
import torch

from camo.photos.working_size import working_size

AREA = 512 * 384


def rounded(height, width, smallest):
    scale = min(1.0, (AREA / (height * width)) ** 0.5)
    return [max(smallest, round(height * scale)), max(smallest, round(width * scale))]


def test_is_the_rounded_size_of_that_area_and_never_larger():
    for height in range(16, 5000, 37):
        for width in range(16, 7000, 41):
            assert working_size(height, width, AREA, 16) == rounded(height, width, 16), (height, width)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_scripts():
    scripted = torch.jit.script(working_size)
    for size in [(16, 16), (384, 512), (427, 640), (509, 684), (16, 50000)]:
        assert scripted(*size, AREA, 16) == working_size(*size, AREA, 16) == rounded(*size, 16)
