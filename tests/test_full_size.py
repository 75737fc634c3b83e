"""Large photos get a second residual in the centre, and nothing else changes."""

import pytest
import torch

from camo.full_size import FullSize


@pytest.fixture
def full_size(small_filter):
    return FullSize(small_filter).eval()


@torch.inference_mode()
@pytest.mark.parametrize("size", [(384, 512), (427, 640), (700, 1000)])
def test_photos_of_about_the_working_size_are_the_filters_alone(full_size, small_filter, size):
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    assert torch.equal(full_size(image), small_filter(image))


@torch.inference_mode()
@pytest.mark.parametrize("size", [(901, 1203), (1203, 901), (301, 3001)])
def test_the_centre_of_a_large_photo_gets_its_own_residual_without_a_seam(full_size, small_filter, size):
    image = 0.45 + 0.1 * torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    second = (full_size(image) - small_filter(image, 1.15)).abs().amax((0, 1))
    height, width = min(384, size[0]), 512
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    inside = second[top : top + height, left : left + width]
    assert second.count_nonzero() == inside.count_nonzero()
    assert inside[16:-16, 16:-16].mean() > 1e-3
    border = torch.cat([inside[0], inside[-1], inside[:, 0], inside[:, -1]])
    assert border.mean() < inside[16:-16, 16:-16].mean() / 10
    alone = small_filter(image[..., top : top + height, left : left + width]) - image[..., top : top + height, left : left + width]
    assert torch.allclose(inside[16:-16, 16:-16], alone.abs().amax((0, 1))[16:-16, 16:-16], atol=1e-5)


@torch.inference_mode()
def test_strength_scales_both(full_size):
    image = torch.rand(1, 3, 900, 1200, generator=torch.Generator().manual_seed(0))
    assert torch.equal(full_size(image, 0.0), image)
    assert (full_size(image, 1.0) - image).abs().mean() > 1.5 * (full_size(image, 0.5) - image).abs().mean()
