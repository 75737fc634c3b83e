import pytest
import torch
from torch import Generator

from camo.measure.metrics import psnr
from camo.photos.images import jpeg_roundtrip, to_float, to_uint8
from camo.training.channel import Channel, mirror_out, soft_jpeg, straight_through_jpeg, turn


# Measured on the four photos: 41.9, 45.1, 47.2 and 47.1 dB on average.
@pytest.mark.parametrize(("quality", "least"), [(50, 39.0), (75, 40.0), (90, 40.0), (95, 40.0)])
def test_soft_jpeg_is_near_the_real_file(photos, quality, least):
    soft = soft_jpeg(photos, torch.full((len(photos),), quality))
    assert psnr(soft, jpeg_roundtrip(photos, quality)).mean() > least


def test_soft_jpeg_takes_any_size_and_a_quality_each(photos):
    crop = photos[..., :183, :211]
    both = soft_jpeg(crop[:2], torch.tensor([10, 90]))
    assert both.shape == crop[:2].shape
    assert psnr(both, crop[:2]).diff() > 5
    assert torch.allclose(both[1:], soft_jpeg(crop[1:2], torch.tensor([90])), atol=1e-5)


def test_soft_jpeg_gradient_matches_finite_differences():
    image = (0.3 + 0.4 * torch.rand(1, 3, 16, 16, generator=Generator().manual_seed(0))).double().requires_grad_()
    direction = torch.randn(image.shape, generator=Generator().manual_seed(1)).double()
    weights = torch.randn(image.shape, generator=Generator().manual_seed(2)).double()
    quality = torch.tensor([90.0])
    (gradient,) = torch.autograd.grad((soft_jpeg(image, quality) * weights).sum(), image)
    step = 1e-6
    with torch.no_grad():
        ends = [(soft_jpeg(image + sign * step * direction, quality) * weights).sum() for sign in (1, -1)]
    assert ((ends[0] - ends[1]) / (2 * step)).item() == pytest.approx((gradient * direction).sum().item(), rel=1e-3)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_gradient_lives_on_at_clipped_pixels(value):
    image = torch.full((1, 3, 32, 32), value, requires_grad=True)
    soft_jpeg(image, torch.tensor([90])).sum().backward()
    assert (image.grad.abs() > 0).all()


def test_straight_through_is_the_real_file_with_the_gradient_of_the_identity(photos):
    image = photos[:2].clone().requires_grad_()
    result = straight_through_jpeg(image, torch.tensor([50, 90]))
    assert torch.allclose(result[1:], jpeg_roundtrip(photos[1:2], 90), atol=1e-6)
    assert torch.allclose(result[:1], jpeg_roundtrip(photos[:1], 50), atol=1e-6)
    result.sum().backward()
    assert torch.equal(image.grad, torch.ones_like(image))


def test_channel_is_drawn_from_its_generator_alone(photos):
    channel = Channel()
    first = channel(photos, Generator().manual_seed(3))
    torch.manual_seed(99)
    assert torch.equal(first, channel(photos, Generator().manual_seed(3)))
    assert first.shape != channel(photos, Generator().manual_seed(4)).shape


def test_channel_yields_odd_sizes_resizes_and_both_codecs(photos):
    small, channel = photos[:1, :, :128, :160], Channel(resize_rate=0.5, shift=8)
    shapes = {tuple(channel(small, Generator().manual_seed(seed)).shape[-2:]) for seed in range(30)}
    assert {height % 2 for height, _ in shapes} == {0, 1}
    assert min(height for height, _ in shapes) < 112
    assert max(height for height, _ in shapes) > 128
    still = {"resize_rate": 0, "shift": 0, "turn_rate": 0, "real_rate": 1, "quality": (80, 80)}
    real = Channel(**still, flip_rate=0)(small, Generator())
    assert torch.allclose(real, to_float(to_uint8(jpeg_roundtrip(small, 80))), atol=1e-6)
    mirrored = Channel(**still, flip_rate=1)(small, Generator())
    assert torch.allclose(mirrored, to_float(to_uint8(jpeg_roundtrip(small.flip(-1), 80))), atol=1e-6)


@pytest.mark.parametrize("degrees", [-3.0, 0.0, 2.0])
def test_turn_leaves_no_corner_black_and_comes_back(photos, degrees):
    white = torch.ones(1, 3, 96, 128)
    turned = turn(white, degrees)
    assert turned.shape == (1, 3, 96, 128) if degrees == 0 else turned.shape[-1] < 128
    assert turned.min() > 0.999
    back = turn(turn(photos[:1], degrees), -degrees)
    rows, columns = ((whole - part) // 2 for whole, part in zip(photos.shape[-2:], back.shape[-2:], strict=True))
    middle = photos[:1, :, rows : photos.shape[-2] - rows, columns : photos.shape[-1] - columns]
    assert psnr(back, middle).item() > 25  # turned the wrong way it is below 20


def test_turn_passes_the_gradient_on(photos):
    image = photos[:1].clone().requires_grad_()
    turn(image, 2.0).sum().backward()
    assert (image.grad[..., 60:-60, 60:-60] > 0).all()


@pytest.mark.parametrize("least", [(1, 1), (100, 128), (200, 300), (96, 500), (700, 128)])
def test_a_short_side_is_continued_by_its_mirror_image(photos, least):
    photo = photos[:1, :, :96, :128]
    result = mirror_out(photo, least)
    height, width = max(96, least[0]), max(128, least[1])
    assert result.shape[-2:] == (height, width)
    top, left = ((height - 96) // 2, (width - 128) // 2) if max(height - 192, width - 256) <= 0 else (None, None)
    if top is not None:
        assert torch.equal(result[..., top : top + 96, left : left + 128], photo)
    assert set(result.unique().tolist()) == set(photo.unique().tolist())


@pytest.mark.parametrize("window", [(384, 512), (100, 100)])
def test_no_scorer_sees_a_border_that_no_evaluation_has(window):
    """White photos of the training crops' size, which a black border would darken."""
    white, channel = torch.ones(1, 3, 240, 320), Channel(least=window)
    for seed in range(20):
        shared = channel(white, Generator().manual_seed(seed))
        assert shared.shape[-2] >= window[0]
        assert shared.shape[-1] >= window[1]
        assert shared.min() > 0.98
