"""Large photos are worked on in strips, get a second residual in the centre, and nothing else changes."""

import copy
from pathlib import Path

import pytest
import torch

from camo.filter.checkpoint import load_filter
from camo.filter.full_size import FullSize
from camo.filter.generator import Filter
from camo.filter.settings import CentreSettings
from camo.filter.two_pass import TwoPass
from camo.photos.images import read, to_float, to_uint8


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


@pytest.mark.parametrize("size", [(96, 128), (901, 1203)])
def test_one_run_of_the_network_serves_any_strength(full_size, size):
    pixels = noise(*size, 0, 1)
    prepared = full_size.prepare(pixels)
    strengths = (0.0, 0.4, 1.3)
    results = [prepared(strength) for strength in strengths]
    assert torch.equal(results[0], pixels)
    assert all(torch.equal(result, full_size(pixels, strength)) for result, strength in zip(results, strengths, strict=True))


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


def test_the_network_sees_whole_batches(full_size, small_filter):
    batches = []
    small_filter.unet.register_forward_pre_hook(lambda module, inputs: batches.append(len(inputs[0])))
    for count in (4, 4, 3):
        full_size(noise(32, 48).repeat(count, 1, 1, 1))
    assert batches == [4, 4, 3]


def test_photos_in_a_batch_differ_from_single_ones_by_one_step_in_few_values():
    pixels = torch.stack(
        [read(file).pixels[:, 100:228, 100:260] for file in sorted((Path(__file__).parent.parent / "data" / "sample" / "test").glob("*.jpg"))[:4]]
    )
    full_size = FullSize(load_filter())
    together, alone = full_size(pixels).int(), torch.cat([full_size(photo[None]) for photo in pixels]).int()
    assert (together - alone).abs().max() <= 1
    assert (together != alone).float().mean() < 1e-4
    assert (together != pixels).float().mean() > 0.1


def test_bf16_is_near_float32_and_leaves_the_filter_as_it_was(full_size, small_filter, photos):
    pixels = to_uint8(photos[:1, :, :128, :160])
    plain = full_size(pixels)
    mixed = FullSize(small_filter, bf16=True)(pixels)
    assert 0 < (mixed.int() - plain.int()).abs().float().mean() < 0.1 * (plain.int() - pixels.int()).abs().float().mean()
    assert torch.equal(FullSize(small_filter)(pixels), plain)


@torch.inference_mode()
@pytest.mark.parametrize("size", [(48, 64), (901, 1203), (301, 3001)])
def test_both_passes_on_floats_are_those_on_pixels(full_size, small_filter, size):
    pixels = noise(*size, 0, 1)
    at_once, in_strips = to_uint8(TwoPass(small_filter)(to_float(pixels), 0.7)), full_size(pixels, 0.7)
    assert (at_once.int() - in_strips.int()).abs().max() <= 1
    assert (at_once != in_strips).float().mean() < 0.01
    assert (at_once != pixels).float().mean() > 0.1


@pytest.mark.parametrize("change", [{"height": 100}, {"width": 100}, {"reduction": 3.0}, {"louder": 2.0}, {"fade": 90}], ids=str)
def test_each_setting_of_the_second_pass_changes_large_photos_alone(small_filter, change):
    arguments = {"width": 8, "working_area": 4096}
    one, other = (
        Filter(**arguments, centre=settings).eval()
        for settings in (CentreSettings(200, 200), CentreSettings(**{"height": 200, "width": 200} | change))
    )
    for model in (one, other):
        model.load_state_dict(small_filter.state_dict())
    small, large = noise(48, 64), noise(140, 150)
    if "height" in change or "width" in change:
        large = noise(240, 230)
    assert torch.equal(FullSize(one)(small), FullSize(other)(small))
    assert not torch.equal(FullSize(one)(large), FullSize(other)(large))


def test_compiled_gives_the_same_for_any_size(full_size, small_filter, monkeypatch):
    compile_ = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: compile_(self, backend="eager", **options))  # seconds, not minutes
    sizes = [(48, 64), (61, 83)]
    plain = [full_size(noise(*size)).int() for size in sizes]
    before = copy.copy(small_filter.unet.__dict__)
    compiled = FullSize(small_filter, compiled=True)
    assert small_filter.unet.__dict__ == before
    for size, expected in zip(sizes, plain, strict=True):
        assert (compiled(noise(*size)).int() - expected).abs().max() <= 1
