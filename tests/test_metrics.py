import pytest
import torch

from camo.measure.metrics import wilson_interval, worst_patch_psnr


def test_wilson_interval_of_known_cases():
    assert wilson_interval(0, 0) == (0, 1)
    assert wilson_interval(50, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)  # Newcombe 1998 gives the same to four places
    assert wilson_interval(32, 32) == pytest.approx((0.8928, 1.0), abs=1e-4)


def test_worst_patch_is_the_worst():
    image = torch.zeros(1, 3, 128, 192)
    changed = image.clone()
    changed[..., 32:96, 64:128] = 0.1
    assert worst_patch_psnr(image, changed).item() == pytest.approx(20, abs=1e-3)
    assert worst_patch_psnr(image[..., :10, :10], image[..., :10, :10] + 0.1).item() == pytest.approx(20, abs=1e-3)
