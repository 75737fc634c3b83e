import math

import pytest
import torch
from torch.nn.functional import avg_pool2d

from camo.measure.regularity import coherence, flat_windows, line_share, regularity

GREY = torch.full((1, 3, 96, 128), 0.5)


def grating(period, angle=0.0):
    rows, columns = torch.meshgrid(torch.arange(96.0), torch.arange(128.0), indexing="ij")
    return torch.sin(2 * math.pi * (columns * math.cos(angle) + rows * math.sin(angle)) / period).expand(1, 3, -1, -1) * 2 / 255


def test_white_noise_is_hardly_regular_and_a_grating_wholly():
    noise = 2 / 255 * torch.randn(1, 1, 384, 512, generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1)
    shares, coherences = regularity(torch.full((1, 3, 384, 512), 0.5), 0.5 + noise)
    assert len(shares) == len(coherences) == 23 * 31
    assert 0.04 < shares.median() < 0.07
    assert 0.12 < coherences.median() < 0.18
    for period, angle in [(3.0, 0.0), (4.7, 0.4), (8.0, math.pi / 2), (2.2, 1.0)]:
        shares, coherences = regularity(GREY, GREY + grating(period, angle))
        assert shares.min() > 0.95
        assert coherences.min() > 0.9


def test_a_weave_of_short_lines_is_coherent_though_not_regular():
    noise = torch.randn(1, 1, 384, 512, generator=torch.Generator().manual_seed(0))
    flat = torch.full((1, 3, 384, 512), 0.5)
    # Lines of 15 px, across in every other square of 16 px, down in those between
    across, down = (avg_pool2d(noise, size, stride=1, padding=[side // 2 for side in size]) for size in ([1, 15], [15, 1]))
    squares = (torch.arange(384)[:, None] // 16 + torch.arange(512) // 16) % 2 == 0
    weave = torch.where(squares, across, down).expand(-1, 3, -1, -1)
    shares, coherences = regularity(flat, flat + 8 / 255 * weave)
    assert shares.median() < 0.25
    assert coherences.median() > 0.4
    grain = avg_pool2d(noise, 3, stride=1, padding=1).expand(-1, 3, -1, -1)
    assert regularity(flat, flat + 8 / 255 * grain)[1].median() < 0.26


def test_the_strongest_of_several_lines_counts():
    both = GREY + grating(3.0) + grating(5.0, 1.2)
    assert regularity(GREY, both)[0].median() == pytest.approx(0.5, abs=0.1)


def test_textured_grounds_and_silent_residuals_are_left_out():
    texture = 0.5 + 0.1 * torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    assert [len(values) for values in regularity(texture, texture + grating(3.0))] == [0, 0]
    assert [len(values) for values in regularity(GREY, GREY + 0.05 * grating(3.0))] == [0, 0]
    assert [len(values) for values in regularity(GREY[..., :31], GREY[..., :31])] == [0, 0]


def test_a_ramp_is_flat_ground():
    ramp = (torch.linspace(0.2, 0.8, 128) + torch.linspace(0, 0.1, 96)[:, None]).expand(1, 3, -1, -1)
    assert flat_windows(ramp)[1].max() < 0.1
    assert [len(values) for values in regularity(ramp, ramp + grating(4.0))] == [5 * 7, 5 * 7]


def test_coherence_counts_on_smooth_ground_that_is_not_flat():
    wave = 255 / 2 * grating(96.0)
    shares, coherences = regularity(GREY + 0.15 * wave, GREY + 0.15 * wave + grating(4.0))
    assert len(shares) < len(coherences) == 5 * 7
    assert len(regularity(GREY + 0.4 * wave, GREY + 0.4 * wave + grating(4.0))[1]) == 0


@pytest.mark.parametrize("measure", [line_share, coherence])
def test_gradients_lower_the_measure(measure):
    residual = (grating(4.0) + 0.5 / 255 * torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))).requires_grad_()
    before = measure(residual)[0].mean()
    (gradient,) = torch.autograd.grad(before, residual)
    with torch.no_grad():
        after = measure(residual - 0.5 / 255 * gradient / gradient.abs().max())[0].mean()
    assert after < before


def test_the_gradient_of_coherence_is_finite_where_nothing_changes():
    residual = torch.zeros(1, 3, 96, 128, requires_grad=True)
    (gradient,) = torch.autograd.grad(coherence(residual)[0].sum(), residual)
    assert gradient.isfinite().all()
