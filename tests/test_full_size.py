"""Large photos are worked on in strips, get a second residual in the centre, and nothing else changes."""

import pytest
import torch

from camo.filter.full_size import FullSize
from camo.photos.images import to_float, to_uint8


@pytest.fixture
def full_size(small_filter):
    return FullSize(small_filter).eval()


def noise(height, width, low=0.45, high=0.55):
    image = low + (high - low) * torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    return to_uint8(image)


@torch.inference_mode()
@pytest.mark.parametrize("size", [(16, 16), (384, 512), (427, 640), (700, 1000)])
def test_photos_of_about_the_working_size_are_the_filters_alone(full_size, small_filter, size):
    pixels = noise(*size, 0, 1)
    assert torch.equal(full_size(pixels), to_uint8(small_filter(to_float(pixels))))


@torch.inference_mode()
@pytest.mark.parametrize("size", [(901, 1203), (1203, 901), (301, 3001), (3001, 301)])
@pytest.mark.parametrize("gain", [1.0, 20.0])
def test_strips_give_what_the_filter_gives_at_once(full_size, small_filter, monkeypatch, size, gain):
    monkeypatch.setattr(FullSize, "STRIP", 7 * size[1])  # the last strip of another height
    monkeypatch.setattr(FullSize, "_fade", lambda self, length: torch.zeros(length))  # no second residual
    small_filter.gain = gain  # the louder one meets the limit
    pixels = noise(*size, 0, 1)
    at_once = to_uint8(small_filter(to_float(pixels), 1.15 * 0.7))
    in_strips = full_size(pixels, 0.7)
    assert (in_strips.int() - at_once.int()).abs().max() <= 1
    assert (in_strips != at_once).float().mean() < 0.01  # roundings that fell the other way
    assert (in_strips != pixels).float().mean() > 0.1


@torch.inference_mode()
@pytest.mark.parametrize("size", [(901, 1203), (1203, 901), (301, 3001)])
def test_the_centre_of_a_large_photo_gets_its_own_residual_without_a_seam(full_size, small_filter, size):
    pixels = noise(*size)
    first = to_float(to_uint8(small_filter(to_float(pixels), 1.15)))
    second = (to_float(full_size(pixels)) - first).abs().amax((0, 1))
    second[second < 1.5 / 255] = 0  # one step is rounding
    height, width = min(384, size[0]), 512
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    inside = second[top : top + height, left : left + width]
    assert second.count_nonzero() == inside.count_nonzero()
    assert inside[16:-16, 16:-16].mean() > 1e-3
    border = torch.cat([inside[0], inside[-1], inside[:, 0], inside[:, -1]])
    assert border.mean() < inside[16:-16, 16:-16].mean() / 10
    centre = to_float(pixels)[..., top : top + height, left : left + width]
    alone = (small_filter(centre) - centre).abs().amax((0, 1))
    assert (inside - alone)[16:-16, 16:-16].abs().max() < 2.5 / 255


@torch.inference_mode()
def test_strength_scales_both(full_size):
    pixels = noise(900, 1200)
    assert torch.equal(full_size(pixels, 0.0), pixels)
    change = {strength: (to_float(full_size(pixels, strength)) - to_float(pixels)).abs().mean() for strength in (0.5, 1.0)}
    assert change[1.0] > 1.5 * change[0.5]


def test_a_batch_of_large_photos_gives_what_each_gives_alone(full_size):
    pixels = torch.cat([noise(900, 1200), noise(900, 1200, 0, 1)])
    assert torch.equal(full_size(pixels), torch.cat([full_size(photo[None]) for photo in pixels]))


def test_a_batch_is_used_only_where_it_gives_the_same_floats():
    calls = []

    def steady(original, strength):
        calls.append(len(original))
        return original * strength

    def unsteady(original, strength):
        return steady(original, strength) + (len(original) > 1) * 1e-7

    original = torch.full((3, 3, 16, 16), 0.5)
    full_size = FullSize(steady)
    for _ in range(2):
        assert torch.equal(full_size._alike(original, 0.5), original * 0.5)
    assert calls == [1, 1, 1, 3, 3]
    calls.clear()
    full_size = FullSize(unsteady)
    for _ in range(2):
        assert torch.equal(full_size._alike(original, 0.5), original * 0.5)
    assert calls == [1, 1, 1, 3, 1, 1, 1]


def test_bf16_is_near_float32(full_size, small_filter, photos):
    pixels = to_uint8(photos[:1])
    plain = full_size(pixels).int()
    mixed = FullSize(small_filter, bf16=True)(pixels).int()
    assert 0 < (mixed - plain).abs().float().mean() < 0.1 * (plain - pixels.int()).abs().float().mean()


def test_compiled_gives_the_same_for_any_size(full_size, small_filter, monkeypatch):
    compile_ = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: compile_(self, backend="aot_eager", **options))  # seconds, not minutes
    sizes = [(48, 64), (61, 83)]
    plain = [full_size(noise(*size)).int() for size in sizes]
    compiled = FullSize(small_filter, compiled=True)
    for size, expected in zip(sizes, plain, strict=True):
        assert (compiled(noise(*size)).int() - expected).abs().max() <= 1
