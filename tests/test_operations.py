from pathlib import Path

import pytest
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from camo.measure.operations import GRID

SAMPLE = Path(__file__).parent.parent / "data" / "sample" / "test"


@pytest.fixture(scope="module")
def photo():
    return Image.open(sorted(SAMPLE.glob("*.jpg"))[0]).convert("RGB")


@pytest.mark.parametrize("name", GRID)
def test_every_operation_gives_an_rgb_picture_and_changes_it_little(name, photo):
    result = GRID[name](photo)
    assert result.mode == "RGB"
    if "shift" in name or "degrees" in name:
        assert 0 < photo.width - result.width < 32
        return
    assert result.size == photo.size
    change = pil_to_tensor(result.convert("L")).int() - pil_to_tensor(photo.convert("L")).int()
    if name == "none":
        assert not change.any()
    elif name != "flip":
        assert 0.2 < change.float().square().mean().sqrt() < 20


def test_operations_are_what_their_names_say(photo):
    assert GRID["flip"](photo).getpixel((0, 0)) == photo.getpixel((511, 0))
    assert GRID["shift by 4 px"](photo).getpixel((0, 0)) == photo.getpixel((4, 4))
    assert all(value % 8 == 0 for value in GRID["5 bits"](photo).getpixel((9, 9)))
    large = photo.resize((3000, 1000))
    assert GRID["at most 2048 px, JPEG 85"](large).size == (2048, 683)
    assert GRID["centre 512x384, JPEG 90"](large).size == (512, 384)
    assert GRID["centre 512x384, JPEG 90"](photo.resize((600, 300))).size == (512, 300)
    chroma = {name: GRID[name](photo).convert("YCbCr").getchannel("Cr") for name in ("JPEG 90", "JPEG 90 4:4:4")}
    assert chroma["JPEG 90"].tobytes() != chroma["JPEG 90 4:4:4"].tobytes()
