import pytest
import torch

from camo.generator import Filter
from camo.jnd import JustNoticeableDifference


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (383, 511), (384, 512), (427, 640), (16, 400), (700, 70)])
def test_any_size_comes_back_in_range(small_filter, size):
    image = torch.rand(2, 3, *size)
    filtered = small_filter(image)
    assert filtered.shape == image.shape
    assert 0 <= filtered.min() <= filtered.max() <= 1
    assert not torch.equal(filtered, image)


def test_shipped_size_is_small():
    assert sum(parameter.numel() for parameter in Filter().parameters()) <= 2_500_000


def test_residual_is_bounded_by_the_jnd(small_filter, photos):
    middle = 0.25 + 0.5 * photos  # far from the clamp
    luma, red = (residual := small_filter(middle) - middle).mul(small_filter.jnd.luma).sum(1, keepdim=True), residual[:, :1]
    bound = small_filter.gain * small_filter.jnd(middle)
    assert (luma.abs() <= bound + 1e-5).all()
    assert ((red - luma).abs() <= 1.402 * small_filter.CHROMA * bound + 1e-5).all()
    assert (red - luma).abs().max() > 0.1 * bound.max()


def test_unshaped_residual_is_bounded_everywhere_alike(photos):
    torch.manual_seed(0)
    flat = Filter(width=8, gain=10.0, shaped=False)
    for parameter in flat.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    residual = flat(middle := 0.25 + 0.5 * photos) - middle
    assert 9 / 255 < residual.abs().max() <= 10 / 255 + 1e-6


def test_strength_scales_the_residual(small_filter, photos):
    middle = 0.25 + 0.5 * photos  # far from the clamp
    assert torch.equal(small_filter(middle, 0.0), middle)
    full, half = small_filter(middle, 1.0) - middle, small_filter(middle, 0.5) - middle
    assert torch.allclose(half, full / 2, atol=1e-6)


def test_an_image_is_filtered_alike_in_any_batch(small_filter, photos):
    together = small_filter(photos)
    alone = torch.cat([small_filter(photo[None]) for photo in photos])
    assert torch.allclose(together, alone, atol=1e-5)


def test_scripts(small_filter):
    scripted = torch.jit.script(small_filter)
    for size in [(33, 47), (427, 640)]:
        image = torch.rand(1, 3, *size)
        assert torch.allclose(scripted(image, 0.7), small_filter(image, 0.7), atol=1e-6)


def test_every_parameter_learns(photos):
    model = Filter(width=8)
    for block in model.modules():
        if isinstance(block, torch.nn.Conv2d):
            torch.nn.init.normal_(block.weight, std=0.1)
    model(photos[..., :64, :64]).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


def test_jnd_of_flat_areas_follows_luminance():
    jnd = JustNoticeableDifference()
    grey, black, white = (255 * jnd(torch.full((1, 3, 20, 20), value)).mean().item() for value in (127 / 255, 0.0, 1.0))
    assert grey == pytest.approx(0.9, abs=0.03)
    assert black == pytest.approx(1.8, abs=0.03)
    assert white == pytest.approx(1.8, abs=0.03)


def test_jnd_is_larger_in_texture():
    noise = (0.5 + 0.3 * torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))).expand(1, 3, 64, 64)
    jnd = JustNoticeableDifference()
    assert jnd(noise.clamp(0, 1)).mean() > 2 * jnd(torch.full((1, 3, 64, 64), 0.5)).mean()
