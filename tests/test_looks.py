"""What every look promises: nothing at amount 0, nothing clipped, no bands, grey kept, bounded slopes, and the same picture at any size."""

from pathlib import Path

import kornia
import pytest
import torch
import torch.nn.functional as F

from camo.filter.grain import Grain, autoregressive_tile
from camo.filter.look_pixels import Looked, LookPixels, dithered, dress
from camo.filter.look_settings import LOOKS, MOST, LookChoice, LookSettings, parse_look
from camo.filter.looks import Look, seed_of
from camo.measure.appeal import newly_clipped
from camo.measure.metrics import psnr
from camo.photos.images import Photo, read, to_float, to_uint8

SAMPLE = Path(__file__).parent.parent / "data" / "sample" / "dev"
AMOUNTS = (0.5, 1.0, MOST)
every_look = pytest.mark.parametrize("name", LOOKS)
CALM = {"vignette": 0.0, "grain": 0.0}


def settings_of(name, **changes):
    numbers = {key: getattr(LOOKS[name], key) for key in LookSettings.__dataclass_fields__}
    return LookSettings(**numbers | changes)


def ramp(low=0.0, high=1.0, steps=1001):
    """Greys from dark to bright, (1, 3, 1, steps)."""
    return torch.linspace(low, high, steps).expand(1, 3, 1, -1)


@pytest.fixture(scope="module")
def colours():
    """Random pixels, with black, white and pure colours among them, (1, 3, 40, 60) uint8."""
    pixels = torch.randint(0, 256, (1, 3, 40, 60), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pixels[..., :8] = (255 * torch.tensor([[int(bit) for bit in f"{corner:03b}"] for corner in range(8)]).T)[None, :, None]
    return pixels


# Numbers


@every_look
def test_a_look_has_few_numbers_within_their_bounds_at_any_amount(name):
    assert len(LookSettings.__dataclass_fields__) <= 16
    for amount in AMOUNTS:
        LOOKS[name].at(amount)  # raises where a number is out of its bounds


@pytest.mark.parametrize(("number", "value"), [("contrast", 0.3), ("warmth", -0.2), ("grain", -0.01), ("mono", float("nan")), ("red", 1.5)])
def test_a_number_out_of_its_bounds_is_named(number, value):
    with pytest.raises(ValueError, match=f"{number} {value!r}: should be "):
        LookSettings(**{number: value})


@every_look
def test_slopes_are_bounded_over_the_whole_tone_range(name):
    for amount in AMOUNTS:
        look = Look(settings_of(name, **CALM), amount).double()
        tones = look.curves(ramp(steps=2001).double())[0, :, 0]
        slopes = (tones[:, 1:] - tones[:, :-1]) * 2000
        tone = (slopes * look.luma.view(3, 1)).sum(0)
        assert tone.min() >= 0.5
        assert tone.max() <= 2
        assert (slopes / tone).min() >= 0.9
        assert (slopes / tone).max() <= 1.1


@every_look
def test_the_range_is_kept_whatever_the_pixels(name, colours):
    for amount in AMOUNTS:
        looked = Look(LOOKS[name], amount)(to_float(colours))
        assert looked.min() >= -1e-6
        assert looked.max() <= 1 + 1e-6


@every_look
def test_gradients_exist(name):
    image = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(0)).double().mul(0.8).add(0.1).requires_grad_()
    look, seed = Look(LOOKS[name]).double(), torch.tensor([7])
    looked = look.part(image, seed, 0, 6)
    (slope,) = torch.autograd.grad(looked.sum(), image)
    assert slope.isfinite().all()
    assert slope.abs().mean() > 0.3
    direction = torch.randn(image.shape, generator=torch.Generator().manual_seed(1)).double()
    step = 1e-6 * direction
    difference = (look.part(image + step, seed, 0, 6) - look.part(image - step, seed, 0, 6)).sum() / 2e-6
    assert (slope * direction).sum().item() == pytest.approx(difference.item(), rel=1e-3)


@every_look
@pytest.mark.parametrize("amount", [0.3, MOST])
def test_the_amount_may_be_given_later(name, amount, colours):
    seed = torch.tensor([7])
    given_later = Look(LOOKS[name]).part(to_float(colours), seed, 0, 40, amount)
    assert (given_later - Look(LOOKS[name], amount).part(to_float(colours), seed, 0, 40)).abs().max() < 1e-6
    as_tensor = Look(LOOKS[name]).part(to_float(colours), seed, 0, 40, torch.tensor(amount))  # an input of an exported graph
    assert torch.allclose(as_tensor, given_later, atol=1e-6)


# Building blocks


@pytest.mark.parametrize("warmth", [0.1, -0.1])
def test_colour_temperature_is_a_gain_in_linear_light(warmth, photos):
    look = Look(LookSettings(warmth=warmth))
    linear = kornia.color.rgb_to_linear_rgb(photos[:1]) * look.gains**2.2
    assert (look(photos[:1]) - kornia.color.linear_rgb_to_rgb(linear)).abs().max() < 0.012  # sRGB is not quite a power


def test_saturation_keeps_luma_and_spares_skin(photos):
    look = Look(LookSettings(saturation=0.5, skin=1.0))
    changed = look(photos)
    assert ((changed - photos) * look.luma).sum(1).abs().max() < 1e-5
    skin, leaf = (torch.tensor(colour).view(1, 3, 1, 1) for colour in ([0.85, 0.65, 0.55], [0.4, 0.6, 0.3]))
    assert (look(skin) - skin).abs().max() < 0.25 * (look(leaf) - leaf).abs().max()


def test_less_saturation_and_black_and_white(photos):
    assert (Look(LookSettings(saturation=-0.5))(photos).std(1).mean() / photos.std(1).mean()).item() == pytest.approx(0.5, abs=1e-3)
    grey = Look(LookSettings(mono=1.0, red=0.6, blue=0.1))(photos)
    assert torch.equal(grey[:, 0], grey[:, 2])
    assert torch.allclose(grey[:, 0], 0.6 * photos[:, 0] + 0.3 * photos[:, 1] + 0.1 * photos[:, 2], atol=1e-6)


def test_a_vignette_leaves_the_centre_and_darkens_the_corners_alike():
    looked = Look(LookSettings(vignette=0.2))(torch.full((1, 3, 60, 90), 0.5))[0, 0]
    assert looked[30, 45].item() == pytest.approx(0.5, abs=1e-4)
    assert torch.equal(looked, looked.flip(0).flip(1))
    assert looked[0, 0].item() == pytest.approx(0.4, abs=0.01)
    assert looked[0, 45] > looked[0, 0]


def test_split_toning_warms_lights_and_leaves_the_middle_of_the_shadows():
    low, high = (Look(LookSettings(lights=0.05))(torch.full((1, 3, 1, 1), value))[0, :, 0, 0] for value in (0.1, 0.9))
    assert high[0] - high[2] > 10 * (low[0] - low[2]) > 0


# Grain


def test_the_tile_is_autoregressive_noise():
    tile = autoregressive_tile(0.5)
    assert tile.mean().item() == pytest.approx(0, abs=1e-5)
    assert tile.std().item() == pytest.approx(1, abs=1e-4)
    for shift, expected in [((0, 1), 0.5), ((1, 0), 0.5), ((1, 1), 0.25), ((0, 2), 0.25), ((3, 5), 0.0)]:
        assert (tile * tile.roll(shift, (0, 1))).mean().item() == pytest.approx(expected, abs=0.01)
    assert torch.equal(tile, autoregressive_tile(0.5))


@pytest.mark.parametrize("short", [300, 1000, 4000])
def test_grain_has_the_same_strength_at_every_pixel_and_grows_with_the_photo(short):
    grain = Grain(0.4)(torch.arange(256) * 49999, torch.arange(24.0), torch.arange(200.0), torch.tensor(float(short)))
    assert grain.shape == (256, 1, 24, 200)
    assert grain.std().item() == pytest.approx(1, abs=0.05)
    columns = grain.std((0, 1, 2))
    assert columns.min() > 0.88 and columns.max() < 1.12  # also between two grains
    neighbours = (grain[..., 1:] * grain[..., :-1]).mean().item()
    assert neighbours == pytest.approx({300: 0.4, 1000: 0.7, 4000: 0.95}[short], abs=0.05)


def test_the_strength_of_grain_is_a_curve_of_luma():
    look = Look(LookSettings(grain=0.02, grain_lights=0.5))
    for value in (0.0, 0.2, 0.5, 0.8, 1.0):
        looked = look(torch.full((1, 3, 256, 256), value))
        assert looked.std().item() == pytest.approx(0.02 * (1 - 0.5 * value) * 4 * value * (1 - value), rel=0.05, abs=1e-6)
        assert torch.equal(looked[:, 0], looked[:, 1])


def test_another_photo_has_another_grain_and_the_same_one_the_same(colours):
    look, other = LookPixels(Look(LOOKS["film"])), colours.clone()
    other[0, 0, 20, 30] ^= 1
    assert torch.equal(look(colours), look(colours.clone()))
    assert (look(other) != look(colours)).float().mean() > 0.5
    assert torch.equal(look(torch.cat([other, colours]))[1:], look(colours))


# Pixels


@every_look
def test_amount_0_is_exactly_nothing(name, colours):
    assert torch.equal(Look(LOOKS[name], 0)(to_float(colours)), to_float(colours))
    assert parse_look(f"{name}:0") is None


@every_look
def test_nothing_more_is_clipped(name):
    for path in sorted(SAMPLE.glob("*.jpg"))[::6]:
        pixels = read(path).pixels[None, :, ::2, ::2]
        assert newly_clipped(pixels, LookPixels(Look(LOOKS[name], MOST))(pixels)).max() <= 0.01


@pytest.mark.parametrize("name", ["vivid", "mono", "mono-red", "mono-green"])
def test_grey_stays_grey(name):
    greys = torch.arange(256, dtype=torch.uint8).repeat(1, 3, 9, 1)
    for amount in AMOUNTS:
        looked = LookPixels(Look(LOOKS[name], amount))(greys)
        assert torch.equal(looked[:, 0], looked[:, 1])
        assert torch.equal(looked[:, 0], looked[:, 2])


@pytest.mark.parametrize(("name", "warmer"), [("warm", 1), ("golden", 1), ("cool", -1)])
def test_looks_of_a_colour_shift_grey_as_they_say(name, warmer):
    red, _, blue = Look(LOOKS[name])(ramp(0.2, 1))[0, :, 0]
    assert (warmer * (red - blue) > 0).all()


@every_look
def test_smooth_ramps_are_not_broken_into_bands(name):
    """The mean over 8x8 pixels follows a sky of 8 steps over 512 px to within a fifth of a step; without dithering it is off by half."""
    sky = torch.stack([ramp(low, low + 8 / 255, 512)[0, 0] for low in (0.4, 0.55, 0.7)]).expand(-1, 64, -1)[None]
    look = Look(settings_of(name, **CALM))
    exact, eighth = 255 * look(sky), torch.nn.AvgPool2d(8)
    assert (eighth(dithered(look(sky), 255 * sky)) - eighth(exact)).abs().max() < 0.2
    assert (eighth(exact.round()) - eighth(exact)).abs().max() > 0.4
    assert (dithered(look(sky), 255 * sky) - exact).abs().max() < 1


@every_look
@pytest.mark.parametrize("size", [(30, 41), (97, 64)])
def test_strips_give_what_the_whole_gives(name, size, monkeypatch):
    pixels = to_uint8(torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)))
    whole = LookPixels(Look(LOOKS[name]))(pixels)
    monkeypatch.setattr(LookPixels, "STRIP", 7 * size[1])
    assert torch.equal(LookPixels(Look(LOOKS[name]))(pixels), whole)
    on_floats = to_uint8(Looked(Look(LOOKS[name]))(to_float(pixels)))
    assert (on_floats.int() - whole.int()).abs().max() <= 1
    assert (on_floats != whole).float().mean() < 1e-3


@every_look
def test_a_look_is_the_same_at_any_size(name, photos):
    """At 4096, 2048 and 512 px, reduced to 512 and without grain, 35 dB of each other and more."""
    look = LookPixels(Look(settings_of(name, grain=0.0)))
    largest = F.interpolate(photos[1:2, :, 128:192], (512, 4096), mode="bicubic").clamp(0, 1)
    reduced = []
    for factor in (1, 2, 8):
        pixels = to_uint8(F.interpolate(largest, scale_factor=1 / factor, mode="bilinear", antialias=True))
        reduced.append(F.interpolate(to_float(look(pixels)), (64, 512), mode="bilinear", antialias=True))
    assert min(psnr(reduced[0], reduced[1]), psnr(reduced[0], reduced[2]), psnr(reduced[1], reduced[2])) > 35


def test_a_greyscale_photo_stays_one():
    grey = torch.arange(256, dtype=torch.uint8).repeat(3, 16, 1)
    dressed = dress(Photo(grey, "PNG", greyscale=True), LookPixels(Look(LOOKS["golden"])))
    assert dressed.greyscale
    assert torch.equal(dressed.pixels[0], dressed.pixels[2])
    assert not torch.equal(dressed.pixels, grey)


# Names


def test_choices_are_parsed_and_told():
    assert parse_look("golden") == LookChoice("golden", 1.0)
    assert parse_look("film:0.5") == LookChoice("film", 0.5)
    assert [str(parse_look(text)) for text in ("mono-red", "warm:1.50")] == ["mono-red", "warm:1.5"]
    assert parse_look("auto", auto=True) == LookChoice("auto")


@pytest.mark.parametrize("text", ["gold", "", "warm:", "warm:2", "warm:-1", "warm:nan", "warm:x", "auto"])
def test_what_is_no_look_is_named(text):
    with pytest.raises(ValueError, match=f"^'{text}': "):
        parse_look(text)


def test_the_seed_is_the_sum_of_the_pixels(colours):
    assert seed_of(colours).tolist() == [int(colours.sum())]
    assert seed_of((255 * to_float(colours)).round().long()).tolist() == [int(colours.sum())]
