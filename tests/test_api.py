"""The public interface: three kinds of images in, the same kind out, and nothing of the host program's is changed."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import camo
from camo import CamoError
from camo.api import PhotoFilter
from camo.filter.checkpoint import load_filter, save_filter
from camo.filter.full_size import FullSize
from camo.photos.images import jpeg_bytes, to_float, to_uint8
from camo.quality import models


@pytest.fixture(scope="module")
def shipped():
    return camo.load_filter(device="cpu")


@pytest.fixture(scope="module")
def scorer():
    return camo.load_quality(device="cpu")


@pytest.fixture
def pixels(photos):
    """One photo's centre, (1, 3, 96, 128) uint8."""
    return to_uint8(photos[:1, :, 144:240, 192:320])


def as_array(pixels):
    return np.ascontiguousarray(pixels[0].numpy().transpose(1, 2, 0))


def run_python(code, *arguments):
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=True).stdout


def test_the_three_kinds_of_images_get_the_pixels_that_the_command_line_writes(shipped, pixels):
    expected = FullSize(load_filter())(pixels)
    assert not torch.equal(expected, pixels)
    array = as_array(pixels)
    before = array.copy()
    filtered = shipped(array)
    assert filtered.dtype == np.uint8
    assert np.array_equal(filtered, as_array(expected))
    assert np.array_equal(array, before)  # the caller's own array
    assert np.array_equal(np.asarray(shipped(Image.fromarray(array))), as_array(expected))
    assert torch.equal(shipped(pixels), expected)


def test_the_three_lines_of_the_documentation_lower_a_photos_score(tmp_path, photos):
    (tmp_path / "photo.jpg").write_bytes(jpeg_bytes(to_uint8(photos[1]), 95))
    photo = Image.open(tmp_path / "photo.jpg")
    filtered = camo.load_filter(device="cpu")(photo)
    scorer = camo.load_quality(device="cpu")
    assert scorer(filtered) < models.THRESHOLD < scorer(photo)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_float_tensors_come_back_as_the_same_floats_in_eight_bit_steps(shipped, pixels, dtype):
    image = to_float(pixels).to(dtype)
    filtered = shipped(image)
    assert filtered.dtype == dtype
    assert torch.equal(filtered, to_float(shipped(to_uint8(image))).to(dtype))


def test_a_batch_is_filtered_image_by_image(shipped, photos):
    batch = to_uint8(photos[:2, :, :64, :80])
    filtered = shipped(batch)
    alone = torch.cat([shipped(image) for image in batch.split(1)])
    assert (filtered.int() - alone.int()).abs().max() <= 1  # sums in another order may round otherwise
    assert filtered.shape == batch.shape


def test_a_large_photo_gets_the_second_pass(small_filter):
    pixels = torch.full((1, 3, 800, 1000), 128, dtype=torch.uint8)
    full_size = FullSize(small_filter)
    filtered = PhotoFilter(full_size)(as_array(pixels))
    assert np.array_equal(filtered, as_array(full_size(pixels)))
    assert not np.array_equal(filtered, as_array(to_uint8(small_filter(to_float(pixels)))))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA"])
def test_pillow_images_keep_mode_size_alpha_and_info(shipped, pixels, mode):
    photo = Image.fromarray(as_array(pixels)).convert(mode)
    if "A" in mode:
        photo.putalpha(Image.linear_gradient("L").resize(photo.size))
    photo.info["icc_profile"] = b"profile"
    before = photo.tobytes()
    filtered = shipped(photo)
    assert (filtered.mode, filtered.size, filtered.info) == (mode, photo.size, photo.info)
    assert photo.tobytes() == before
    assert filtered.tobytes() != before
    if "A" in mode:
        assert filtered.getchannel("A").tobytes() == photo.getchannel("A").tobytes()
    if mode == "L":
        assert np.array_equal(np.asarray(filtered), np.asarray(shipped(photo.convert("RGB")).convert("L")))


def test_strength_scales_the_change(shipped, pixels):
    array = as_array(pixels)
    assert np.array_equal(shipped(array, strength=0), array)
    changes = [np.abs(shipped(array, strength).astype(int) - array).mean() for strength in (0.5, 1.0, 2.0)]
    assert 0 < changes[0] < changes[1] < changes[2]


@pytest.mark.parametrize(
    ("view", "what"),
    [
        (lambda array: array[:, ::-1], "mirrored"),
        (lambda array: np.asfortranarray(array), "in Fortran order"),
        (lambda array: np.asarray(Image.fromarray(array)), "read-only"),
    ],
)
def test_arrays_of_any_layout_are_taken(shipped, pixels, view, what):
    image = view(as_array(pixels))
    assert np.array_equal(shipped(image), shipped(image.copy(order="C"))), what


NO_IMAGES = [
    ([[0]], TypeError, "a PIL.Image, a NumPy array or a tensor, got list"),
    (np.zeros((32, 32), np.uint8), ValueError, r"\(H, W, 3\) array of uint8, got \(32, 32\)"),
    (np.zeros((3, 32, 32), np.uint8), ValueError, r"got \(3, 32, 32\)"),
    (np.zeros((32, 32, 3), np.float32), ValueError, "got .* of float32"),
    (np.zeros((0, 32, 3), np.uint8), ValueError, r"got \(0, 32, 3\)"),
    (torch.zeros(3, 32, 32), ValueError, r"\(B, 3, H, W\) tensor, got \(3, 32, 32\)"),
    (torch.zeros(1, 32, 32, 3), ValueError, r"got \(1, 32, 32, 3\)"),
    (torch.zeros(0, 3, 32, 32), ValueError, r"got \(0, 3, 32, 32\)"),
    (torch.zeros(1, 3, 32, 32, dtype=torch.int64), ValueError, "uint8 or floats, got torch.int64"),
    (torch.full((1, 3, 32, 32), 255.0), ValueError, r"floats in \[0, 1\], got 255 to 255"),
    (torch.full((1, 3, 32, 32), torch.nan), ValueError, "got nan to nan"),
    (Image.new("P", (32, 32)), ValueError, "mode P: convert it"),
    (Image.new("I;16", (32, 32)), ValueError, "mode I;16: convert it"),
    (Image.new("CMYK", (32, 32)), ValueError, "mode CMYK: convert it"),
]


@pytest.mark.parametrize(("image", "error", "message"), NO_IMAGES)
def test_what_is_no_image_is_refused_in_one_line(shipped, scorer, image, error, message):
    for take in (shipped, scorer):
        with pytest.raises(error, match=message) as caught:
            take(image)
        assert "\n" not in str(caught.value)


def test_an_image_with_a_transparent_colour_is_refused(shipped):
    photo = Image.new("RGB", (32, 32))
    photo.info["transparency"] = (0, 0, 0)
    with pytest.raises(ValueError, match="transparent colour: convert it to RGBA"):
        shipped(photo)


def test_too_small_an_image_and_a_senseless_strength_are_refused(shipped):
    with pytest.raises(ValueError, match="15x32 px: the filter needs 16 px"):
        shipped(np.zeros((32, 15, 3), np.uint8))
    for strength in (-1, torch.inf, torch.nan):
        with pytest.raises(ValueError, match=r"strength (-1|inf|nan): should be"):
            shipped(np.zeros((32, 32, 3), np.uint8), strength)


def test_rounding_errors_beyond_one_are_taken(shipped, scorer):
    image = torch.full((1, 3, 32, 32), 1.0000002)
    assert shipped(image).max() <= 1
    assert scorer(image).isfinite().all()


def test_a_checkpoint_can_be_named(tmp_path, small_filter, pixels):
    save_filter(tmp_path / "own.safetensors", small_filter, {})
    for path in (tmp_path / "own.safetensors", str(tmp_path / "own.safetensors")):
        assert torch.equal(camo.load_filter(path, "cpu")(pixels), FullSize(small_filter)(pixels))


def test_what_cannot_be_loaded_is_reported_as_a_fault_of_the_user(tmp_path):
    with pytest.raises(CamoError, match="no such checkpoint"):
        camo.load_filter(tmp_path / "missing.safetensors")
    with pytest.raises(CamoError, match="unknown quality model 'best'"):
        camo.load_quality("best")


def test_scores_are_those_of_the_quality_model(scorer, photos):
    expected = models.load("bundled")(photos[:2])
    assert torch.equal(scorer(photos[:2]), expected)
    assert torch.equal(scorer(to_uint8(photos[:2])), expected)
    array = as_array(to_uint8(photos[:1]))
    for image in (array, Image.fromarray(array), Image.fromarray(array).convert("RGBA")):
        score = scorer(image)
        assert isinstance(score, float)
        assert score == pytest.approx(expected[0].item(), abs=1e-3)  # alone or in a batch


def test_scores_of_tensors_can_be_differentiated(scorer, photos):
    image = photos[:2, :, :96, :128].clone().requires_grad_()
    scorer(image).sum().backward()
    assert image.grad.abs().amax(dim=(1, 2, 3)).min() > 0


def test_importing_camo_does_not_import_torch():
    code = "import sys, camo; assert camo.__version__ and camo.CamoError; print(*{'torch', 'numpy', 'PIL'} & sys.modules.keys())"
    assert run_python(code).strip() == ""


def test_an_unknown_name_is_no_attribute():
    with pytest.raises(AttributeError, match="no attribute 'load_everything'"):
        _ = camo.load_everything


def test_using_camo_changes_no_warning_filter_and_no_limit_of_the_host_program():
    code = """
import warnings
from PIL import Image
import torch, torchvision, safetensors.torch, timm, kornia  # their own filters are theirs
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
before = list(warnings.filters), Image.MAX_IMAGE_PIXELS, torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()
import camo, camo.photos.images, camo.photos.metadata
camo.load_filter(device="cpu")(Image.new("RGB", (32, 32)))
camo.load_quality(device="cpu")(Image.new("RGB", (32, 32)))
after = list(warnings.filters), Image.MAX_IMAGE_PIXELS, torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()
print(before == after)
"""
    assert run_python(code).strip() == "True"
