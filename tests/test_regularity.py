import math

import pytest
import torch

from camo.measure.regularity import flat_windows, line_share, regularity

GREY = torch.full((1, 3, 96, 128), 0.5)


def grating(period, angle=0.0):
    rows, columns = torch.meshgrid(torch.arange(96.0), torch.arange(128.0), indexing="ij")
    return torch.sin(2 * math.pi * (columns * math.cos(angle) + rows * math.sin(angle)) / period).expand(1, 3, -1, -1) * 2 / 255


def test_white_noise_is_hardly_regular_and_a_grating_wholly():
    noise = 2 / 255 * torch.randn(1, 1, 384, 512, generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1)
    shares = regularity(torch.full((1, 3, 384, 512), 0.5), 0.5 + noise)
    assert len(shares) == 23 * 31
    assert 0.04 < shares.median() < 0.07
    for period, angle in [(3.0, 0.0), (4.7, 0.4), (8.0, math.pi / 2), (2.2, 1.0)]:
        assert regularity(GREY, GREY + grating(period, angle)).min() > 0.95


def test_the_strongest_of_several_lines_counts():
    both = GREY + grating(3.0) + grating(5.0, 1.2)
    assert regularity(GREY, both).median() == pytest.approx(0.5, abs=0.1)


def test_textured_grounds_and_silent_residuals_are_left_out():
    texture = 0.5 + 0.1 * torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    assert len(regularity(texture, texture + grating(3.0))) == 0
    assert len(regularity(GREY, GREY + 0.05 * grating(3.0))) == 0
    assert len(regularity(GREY[..., :31], GREY[..., :31])) == 0


def test_a_ramp_is_flat_ground():
    ramp = (torch.linspace(0.2, 0.8, 128) + torch.linspace(0, 0.1, 96)[:, None]).expand(1, 3, -1, -1)
    assert flat_windows(ramp)[1].max() < 0.1
    assert len(regularity(ramp, ramp + grating(4.0))) == 5 * 7


def test_gradients_lower_the_share():
    residual = (grating(4.0) + 0.5 / 255 * torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))).requires_grad_()
    before = line_share(residual)[0].mean()
    (gradient,) = torch.autograd.grad(before, residual)
    with torch.no_grad():
        after = line_share(residual - 0.5 / 255 * gradient / gradient.abs().max())[0].mean()
    assert after < before
