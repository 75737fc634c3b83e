from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from camo import CamoError
from camo.measure.after import scores_after, unscorable
from camo.measure.operations import GRID
from camo.photos.images import jpeg_roundtrip, read, to_float
from camo.quality import models

SAMPLE = Path(__file__).parent.parent / "data" / "sample" / "test"


@pytest.fixture(scope="module")
def pixels():
    """Two small pictures of one size, (2, 3, 96, 128) uint8."""
    files = sorted(SAMPLE.glob("*.jpg"))[:2]
    return torch.stack([pil_to_tensor(to_pil_image(read(file).pixels).resize((128, 96))) for file in files])


@pytest.fixture(scope="module")
def scorer():
    return models.load("bundled")


@pytest.mark.parametrize("operation", ["JPEG 75", 75])
def test_a_jpeg_by_name_or_quality_is_the_real_one(pixels, scorer, operation):
    expected = scorer(jpeg_roundtrip(to_float(pixels), 75))
    assert scores_after(scorer, pixels, operation) == expected.tolist()


def test_without_an_operation_the_pixels_are_scored_as_they_are(pixels, scorer):
    assert scores_after(scorer, pixels) == scorer(to_float(pixels)).tolist()


@pytest.mark.parametrize("operation", ["flip", "resize 0.5 and back"])
def test_pixels_and_pictures_of_pillow_give_the_same(pixels, scorer, operation):
    pictures = [to_pil_image(one) for one in pixels]
    expected = scorer(torch.stack([to_float(pil_to_tensor(GRID[operation](picture))) for picture in pictures])).tolist()
    assert scores_after(scorer, pictures, operation) == scores_after(scorer, pixels, operation) == expected


def test_a_score_that_is_no_number_is_an_error(pixels):
    with pytest.raises(RuntimeError, match="the quality model gave nan"):
        scores_after(lambda image: image.mean((1, 2, 3)) * torch.tensor([1, float("nan")]), pixels)


@pytest.mark.parametrize(("side", "operation"), [(70_000, 90), (20_000, "WebP 80")])
def test_what_pillow_refuses_is_one_line_that_names_the_photo(side, operation):
    with pytest.raises(CamoError, match=r"^'a.png': cannot be scored: ") as caught, unscorable("'a.png': cannot be scored"):
        scores_after(lambda image: image.mean((1, 2, 3)), [Image.new("RGB", (side, 1))], operation)
    assert len(str(caught.value).splitlines()) == 1


def test_a_fault_of_a_torchscript_model_is_told_without_its_traceback(pixels):
    class Refuses(torch.nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            if image.shape[3] > 1:
                raise RuntimeError("too wide for me")
            return image.mean(dim=(1, 2, 3))

    with pytest.raises(CamoError, match=r"^a: [^\n]*too wide for me$"), unscorable("a"):
        scores_after(torch.jit.script(Refuses()), pixels)
