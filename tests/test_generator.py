import pytest
import torch

from camo.filter.generator import Filter, places
from camo.filter.jnd import JustNoticeableDifference
from camo.filter.settings import CentreSettings, JNDSettings
from camo.filter.trunk import Bottleneck, Trunk
from camo.measure.metrics import psnr
from camo.quality.models import load_bundled


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (383, 511), (384, 512), (427, 640), (16, 400), (700, 70)])
def test_any_size_comes_back_in_range(small_filter, size):
    image = torch.rand(2, 3, *size)
    filtered = small_filter(image)
    assert filtered.shape == image.shape
    assert 0 <= filtered.min() <= filtered.max() <= 1
    assert not torch.equal(filtered, image)


def test_shipped_size_is_small():
    assert sum(parameter.numel() for parameter in Filter().parameters()) <= 2_500_000


def without_ceiling(model, image):
    """What the filter would give if nothing held its loudest pixels down; for photos of the working size."""
    return image + model.residual(model.plan(image), image)


def test_residual_is_bounded_by_the_jnd(small_filter, photos):
    middle = 0.25 + 0.5 * photos
    luma, red = (residual := without_ceiling(small_filter, middle) - middle).mul(small_filter.jnd.luma).sum(1, keepdim=True), residual[:, :1]
    bound = small_filter.gain * small_filter.jnd(middle)
    assert (luma.abs() <= bound + 1e-5).all()
    assert ((red - luma).abs() <= 1.402 * small_filter.arguments["chroma"] * bound + 1e-5).all()
    assert (red - luma).abs().max() > 0.1 * bound.max()


def test_a_trained_filter_is_never_louder_than_its_limit(small_filter, photos):
    small_filter.gain = 8.5  # loud enough for all four photos, not so loud that values are cut off
    middle = 0.25 + 0.5 * photos
    capped, free = small_filter(middle), without_ceiling(small_filter, middle)
    assert psnr(middle, free).max() < 37.2
    assert psnr(middle, capped).tolist() == pytest.approx([37.2] * len(photos), abs=0.01)
    held, loud = capped - middle, free - middle
    power = loud.square().mean(1, keepdim=True)
    ceiling = held.square().mean(1, keepdim=True).amax((2, 3), keepdim=True)
    assert torch.allclose(held, loud * (ceiling / power.clamp(min=1e-12)).sqrt().clamp(max=1), atol=1e-6)  # the loudest pixels, and they alone


def test_a_trained_filter_that_is_quiet_enough_is_left_as_it_is(small_filter, photos):
    small_filter.gain /= 100
    middle = 0.25 + 0.5 * photos
    quiet, free = small_filter(middle), without_ceiling(small_filter, middle)
    assert psnr(middle, free).min() > 45
    assert torch.allclose(quiet, free, atol=1e-6)


def test_each_unrolled_step_works_on_what_those_before_it_made(small_filter, photos):
    model = Filter(width=8, unrolled=2).eval()
    model.load_state_dict(small_filter.state_dict())
    image = 0.25 + 0.5 * photos[:1]
    first, _ = model.step(image)
    assert torch.allclose(first, small_filter.plan(image) / 2, atol=1e-6)  # its share of the gain
    second, _ = model.step((image + first * model.jnd(image)).clamp(0, 1))
    assert torch.allclose(model.plan(image), first + second, atol=1e-6)
    assert not torch.allclose(first, second, atol=1e-2)


@pytest.mark.parametrize("shaped", [True, False])
def test_the_filter_that_is_trained_is_the_one_that_is_used(small_filter, photos, shaped):
    small_filter.shaped = shaped
    used, trained = small_filter.eval()(photos), small_filter.train()(photos)
    assert torch.equal(used, trained)
    trained.square().mean().backward()
    slopes = [parameter.grad for parameter in small_filter.parameters() if parameter.grad is not None]
    assert slopes
    assert all(slope.isfinite().all() for slope in slopes)


@pytest.mark.parametrize(("name", "value"), [("width", 0), ("width", 8.0), ("depth", 0), ("gain", float("nan")), ("gain", 0.0), ("working_area", -1)])
def test_sizes_that_make_no_filter_are_refused(name, value):
    with pytest.raises(ValueError, match=rf"{name} {value}: should be a positive"):
        Filter(**{name: value})


@pytest.mark.parametrize(
    ("settings", "name", "value"),
    [
        *((JNDSettings, "flat", 0.0), (JNDSettings, "darkest", float("nan")), (JNDSettings, "overlap", "0.3")),
        *((CentreSettings, "height", 384.0), (CentreSettings, "fade", 0), (CentreSettings, "louder", True), (CentreSettings, "reduction", -2.0)),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, name, value):
    with pytest.raises(ValueError, match=rf"{name} {value!r}: should be a positive"):
        settings(**{name: value})


@pytest.mark.parametrize("value", [-0.1, 1.1, True, float("nan"), "0.5"])
def test_a_part_of_the_edges_is_within_0_and_1(value):
    with pytest.raises(ValueError, match=rf"jnd edges {value!r}: should be within 0..1"):
        JNDSettings(edges=value)


@pytest.mark.parametrize(
    "change",
    [
        {"chroma": 0.3},
        {"min_psnr": 50.0},
        *({"jnd": JNDSettings(**{"edges": 0.8} | {name: 0.9})} for name in ("darkest", "flat", "overlap", "edges")),
    ],
    ids=str,
)
def test_each_setting_changes_what_the_filter_does(small_filter, photos, change):
    other = Filter(width=8, depth=1, **{"jnd": JNDSettings(edges=0.8)} | change).eval()
    other.load_state_dict(small_filter.state_dict())
    assert other.arguments != small_filter.arguments
    photo = photos[:1, :, :64, :96] / 2  # dark parts too
    assert not torch.equal(other(photo), small_filter(photo))


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


def with_coordinates(small_filter):
    """The same filter that knows where it is, and uses it."""
    model = Filter(width=8, depth=1, coordinates=True).eval()
    model.load_state_dict(model.state_dict() | small_filter.state_dict())
    torch.nn.init.normal_(model.unet.place[-1].weight, std=4.0)
    return model


@pytest.mark.parametrize(("side", "length"), [(2, 48), (2, 40), (3, 64), (3, 50)])
def test_coordinates_go_from_border_to_border_of_the_image_whatever_is_padded(side, length):
    cells = -(-length // 16)
    (values,) = places(cells, cells, length / 16, length / 16, torch.device("cpu"))[:, side - 2].select(3 - side + 1, 0)
    centres = torch.arange(8, 16 * cells, 16) / length * 2 - 1
    assert torch.allclose(values, centres)
    assert (values[-1] < 1) == (length % 16 == 0 or length % 16 > 8)


def test_with_coordinates_a_side_can_be_left_alone(small_filter):
    image = torch.rand(1, 3, 70, 250)
    model = with_coordinates(small_filter)
    first, last = model.unet.place[0], model.unet.place[-1]
    for parameter in model.unet.place.parameters():
        torch.nn.init.zeros_(parameter)
    first.weight.data[0, 1], last.weight.data[0, 0] = 20.0, -5.0  # across, from the middle on
    left, right = (model(image) - image).abs().split([125, 125], dim=3)
    assert left.mean() > 0.01
    assert right[..., 20:].max() < 1e-3
    assert (small_filter(image) - image)[..., 125:].abs().mean() > 0.01


@pytest.mark.parametrize("coordinates", [False, True])
def test_scripts(small_filter, coordinates):
    small_filter = with_coordinates(small_filter) if coordinates else small_filter
    scripted = torch.jit.script(small_filter)
    for size in [(33, 47), (427, 640)]:
        image = torch.rand(1, 3, *size)
        assert torch.allclose(scripted(image, 0.7), small_filter(image, 0.7), atol=1e-6)


def randomise(layer):
    if isinstance(layer, torch.nn.Conv2d | torch.nn.ConvTranspose2d | torch.nn.Linear):
        torch.nn.init.normal_(layer.weight, std=0.1)


def test_every_parameter_learns_but_the_trunks(photos):
    model = Filter(width=8)
    for block in model.unet.children():
        if block is not model.unet.trunk:
            block.apply(randomise)
    model(photos[..., :64, :64]).square().mean().backward()
    learning = {name for name, parameter in model.named_parameters() if parameter.grad is not None and parameter.grad.abs().sum() > 0}
    assert learning == {name for name, _ in model.named_parameters() if not name.startswith("unet.trunk.")}


def test_the_trunk_is_the_quality_models(photos):
    scorer = load_bundled()
    trunk = Trunk()
    trunk.copy_from(scorer.backbone)
    maps = trunk(photos[:1] * 2 - 1, [])
    for own, other in zip(maps, scorer.features(photos[:1]), strict=False):
        assert torch.allclose(own, other, atol=1e-3)  # another memory layout


def test_with_hard_gates_the_trunk_goes_back_as_its_gradient(photos, monkeypatch):
    monkeypatch.setattr(Bottleneck, "_gate", lambda self, x: ((x > 0) & (x < 6)).to(x))
    trunk = Trunk()
    trunk.copy_from(load_bundled().backbone)
    image = (photos[:1, :, :96, :128] * 2 - 1).requires_grad_(True)
    gates = []
    maps = trunk(image, gates)
    cotangents = [torch.randn_like(map_) for map_ in maps]
    (slope,) = torch.autograd.grad(maps, image, cotangents)
    back = trunk.back(*cotangents, gates)
    assert gates == []
    assert torch.allclose(back, slope, atol=1e-4 * slope.abs().max())


def test_soft_gates_open_over_one_unit():
    gate = Trunk().stride4.first._gate(torch.tensor([-9.0, -0.5, -0.25, 0.0, 0.5, 3.0, 5.5, 6.0, 6.5, 9.0]))
    assert gate.tolist() == [0, 0, 0.25, 0.5, 1, 1, 1, 0.5, 0, 0]


def test_the_background_and_the_slopes_are_those_of_the_published_kernels():
    background = torch.tensor([[1, 1, 1, 1, 1], [1, 2, 2, 2, 1], [1, 2, 0, 2, 1], [1, 2, 2, 2, 1], [1, 1, 1, 1, 1]]) / 32
    right = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
    luminance = 255 * torch.rand(2, 1, 23, 31, generator=torch.Generator().manual_seed(0))
    jnd, pad = JustNoticeableDifference(), torch.nn.functional.pad
    expected = torch.nn.functional.conv2d(pad(luminance, (2, 2, 2, 2), mode="replicate"), background[None, None])
    torch.testing.assert_close(jnd.background(luminance), expected, atol=1e-3, rtol=0)
    expected = torch.nn.functional.conv2d(pad(luminance, (1, 1, 1, 1), mode="replicate"), torch.stack([right, right.T])[:, None])
    torch.testing.assert_close(jnd.slopes(luminance), expected, atol=1e-3, rtol=0)


def test_jnd_of_flat_areas_follows_luminance():
    jnd = JustNoticeableDifference()
    grey, black, white = (255 * jnd(torch.full((1, 3, 20, 20), value)).mean().item() for value in (127 / 255, 0.0, 1.0))
    assert grey == pytest.approx(0.36, abs=0.02)
    assert black == pytest.approx(0.72, abs=0.02)
    assert white == pytest.approx(0.36, abs=0.02)


def test_jnd_is_larger_in_texture():
    noise = (0.5 + 0.3 * torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))).expand(1, 3, 64, 64)
    jnd = JustNoticeableDifference()
    assert jnd(noise.clamp(0, 1)).mean() > 2 * jnd(torch.full((1, 3, 64, 64), 0.5)).mean()


def test_jnd_is_held_down_along_straight_edges_alone():
    held, whole = JustNoticeableDifference(JNDSettings(edges=0.8)), JustNoticeableDifference()
    edge = torch.full((1, 3, 48, 48), 0.1)
    edge[..., 24:] = 0.9
    checks = (torch.arange(48)[:, None] // 3 + torch.arange(48) // 3) % 2  # as strong, in both directions
    part = {
        name: (held(image) / whole(image))[0, 0, 12:36, 12:36]
        for name, image in {"edge": edge, "checks": 0.1 + 0.8 * checks.expand(1, 3, 48, 48)}.items()
    }
    assert part["edge"][:, 11:13].max() < 0.25
    assert part["edge"][:, [0, -1]].min() == 1
    assert part["checks"].mean() > 0.9
    assert torch.allclose(held(edge.transpose(2, 3)), held(edge).transpose(2, 3), atol=1e-6)
    diagonal = 0.1 + 0.8 * (torch.arange(48)[:, None] > torch.arange(48)).float().expand(1, 3, 48, 48)
    assert (held(diagonal) / whole(diagonal))[0, 0, 24, 24] < 0.3
