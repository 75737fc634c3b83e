import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Generator

from camo.attacks.adam import AdamL2
from camo.attacks.carlini_wagner import CarliniWagner, jnd_weight
from camo.attacks.colour_curves import ColorFilter
from camo.attacks.pgd import Pgd
from camo.attacks.through_jpeg import through_jpeg
from camo.attacks.universal import Universal, universal
from camo.filter.jnd import JustNoticeableDifference
from camo.photos.images import jpeg_roundtrip, to_float, to_uint8

ATTACKS = [
    CarliniWagner(max_iterations=40),
    AdamL2(target=50, steps=30),
    Pgd(seed=3),
    ColorFilter(steps=30),
    Universal(torch.full((1, 3, 5, 7), 0.03)),
]
each_attack = pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: type(attack).__name__)


class Convolutional(torch.nn.Module):
    """A frozen quality model of three random layers; the first is blind to brightness. Photos score 53 to 72."""

    def __init__(self):
        super().__init__()
        rng = Generator().manual_seed(2)
        for name, into, out in (("first", 3, 8), ("second", 8, 16), ("third", 16, 16)):
            self.register_buffer(name, torch.randn(out, into, 3, 3, generator=rng) * math.sqrt(2 / (9 * into)))
        self.first -= self.first.mean((1, 2, 3), keepdim=True)
        self.register_buffer("head", torch.randn(16, generator=rng) / 4)

    def forward(self, image):
        feature = F.conv2d(2 * image - 1, self.first, padding=1).relu()
        feature = F.conv2d(feature, self.second, stride=2, padding=1).relu()
        feature = F.conv2d(feature, self.third, stride=2, padding=1).relu()
        return 58 + 100 * feature.mean((2, 3)) @ self.head


class Plane:
    """Score 50 + 20 (w . x - offset), w a random unit vector: the closest point below a target is known."""

    SLOPE = 20.0

    def __init__(self, shape, offset):
        w = torch.randn(shape, generator=Generator().manual_seed(5))
        self.w, self.offset = w / w.norm(), offset

    def __call__(self, images):
        return 50 + self.SLOPE * ((images * self.w).sum((1, 2, 3)) - self.offset)


def smoothness(images):
    """A scorer that takes points off for whatever looks like a checkerboard."""
    kernel = images.new_tensor([[1.0, -1.0], [-1.0, 1.0]]).expand(3, 1, 2, 2) / 4
    return 75 - 20_000 * F.conv2d(images, kernel, groups=3).square().mean((1, 2, 3))


def flat(images):
    """A scorer of the mean brightness."""
    return 100 * images.mean((1, 2, 3))


def change(result, images):
    return (result.images - images).flatten(1).norm(dim=1)


@pytest.fixture(scope="module")
def scorer():
    return Convolutional()


@pytest.fixture(scope="module")
def crops(photos):
    """Four 32x24 pieces of photos at half their size, (4, 3, 24, 32), multiples of 1/255."""
    return to_float(to_uint8(F.avg_pool2d(photos[..., 100:148, 100:164], 2)))


@pytest.fixture(scope="module")
def mid_tones():
    return 0.3 + 0.4 * torch.rand(3, 3, 16, 16, generator=Generator().manual_seed(1))


@pytest.fixture(scope="module")
def plane(mid_tones):
    offset = (mid_tones * Plane((3, 16, 16), 0).w).sum((1, 2, 3)).min().item() - 0.3
    return Plane((3, 16, 16), offset)


def test_carlini_wagner_finds_the_closest_point_of_a_plane(plane, mid_tones):
    result = CarliniWagner(max_iterations=200, binary_search_steps=7)(plane, mid_tones)
    closest = (plane(mid_tones) - 50) / plane.SLOPE
    assert closest.min() > 0.25
    assert (result.scores < 50).all()
    assert (change(result, mid_tones) >= closest - 1e-3).all()
    assert change(result, mid_tones).tolist() == pytest.approx(closest.tolist(), rel=0.02)


def test_carlini_wagner_with_weights_finds_the_closest_point_of_its_own_measure(plane, mid_tones):
    weights = torch.ones(3, 1, 16, 16)
    weights[..., 8:] = 4
    result = CarliniWagner(max_iterations=300, binary_search_steps=8, weight=lambda _: weights)(plane, mid_tones)
    closest = (plane(mid_tones) - 50) / plane.SLOPE / (plane.w / weights[0]).norm()
    measured = (weights * (result.images - mid_tones)).flatten(1).norm(dim=1)
    assert (result.scores < 50).all()
    assert measured.tolist() == pytest.approx(closest.tolist(), rel=0.03)


def test_carlini_wagner_against_foolbox(scorer, crops):
    foolbox = pytest.importorskip("foolbox")

    class TwoClasses(torch.nn.Module):
        def forward(self, images):
            scores = scorer(images)
            return torch.stack([50 + scores - 50, 50 - scores + 50], 1)

    model = foolbox.PyTorchModel(TwoClasses().eval(), bounds=(0, 1), device="cpu")
    theirs = foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=5, steps=100, stepsize=5e-3, confidence=0, initial_const=1e-2)
    _, found, success = theirs(model, crops, foolbox.criteria.TargetedMisclassification(torch.ones(4, dtype=torch.long)), epsilons=None)
    result = CarliniWagner()(scorer, crops)
    ours, expected = change(result, crops), (found - crops).flatten(1).norm(dim=1)
    assert success.all()
    assert found.flatten(1).amax(1).min() > 0.5  # where it fails, foolbox returns black
    assert (result.scores < 50).all()
    assert expected.min() > 0.05
    assert ours.mean() <= 1.05 * expected.mean()


def test_carlini_wagner_starts_at_black_and_white_too(scorer, crops):
    image = crops[:1].clone()
    image[..., :8] = 0
    image[..., 8:16] = 1
    same = CarliniWagner(target=100)(scorer, image)
    assert (same.images - image).abs().max() < 1e-6
    assert same.steps.tolist() == [1]
    result = CarliniWagner(target=scorer(image).item() - 3)(scorer, image)
    assert result.images.isfinite().all()
    assert result.scores.item() < scorer(image).item() - 3
    assert (result.images[..., :16] - image[..., :16]).abs().max() < 1e-3
    assert (result.images[..., 16:] - image[..., 16:]).abs().max() > 1e-2


def test_carlini_wagner_stays_further_below_with_confidence(scorer, crops):
    result = CarliniWagner(confidence=4)(scorer, crops)
    assert (result.scores < 48).all()
    assert (result.scores > 47).all()


def test_carlini_wagner_aborts_each_image_by_itself(scorer, crops):
    early, late = (CarliniWagner(abort_early=abort)(scorer, crops) for abort in (True, False))
    assert late.steps.tolist() == [500] * 4
    assert (early.steps < 500).any()
    assert len(set(early.steps.tolist())) > 1


@pytest.mark.parametrize(
    "attack", [CarliniWagner(max_iterations=30), AdamL2(steps=20), ColorFilter(steps=20)], ids=lambda attack: type(attack).__name__
)
def test_an_unreachable_target_gives_the_lowest_score_seen(attack, scorer, crops):
    seen = []

    def watched(images):
        seen.append(scorer(images))
        return seen[-1]

    result = replace(attack, target=-1000.0)(watched, crops[:1])
    assert result.scores.item() == pytest.approx(torch.cat(seen).min().item(), abs=1e-4)
    assert result.scores.item() < scorer(crops[:1]).item() - 1


def test_jnd_weight_is_the_inverse_of_the_jnd_with_mean_square_one(photos):
    small = photos[..., :64, :80]
    weight = jnd_weight(small)
    assert weight.shape == (4, 1, 64, 80)
    assert weight.square().mean((1, 2, 3)).tolist() == pytest.approx([1.0] * 4)
    product = weight * JustNoticeableDifference()(small)
    assert torch.allclose(product, product[..., :1, :1].expand_as(product), rtol=1e-4)


def test_pgd_holds_its_bound_and_lowers_every_score(scorer, crops):
    for attack in (Pgd(epsilon=3), Pgd(epsilon=3, seed=0)):
        result = attack(scorer, crops)
        assert (result.images - crops).abs().max() == pytest.approx(3 / 255, abs=1e-6)
        assert (to_float(to_uint8(result.images)) - crops).abs().max() <= 3 / 255 + 1e-6
        assert (result.scores < scorer(crops) - 1).all()


def test_pgd_stops_at_its_target(scorer, crops):
    target = scorer(crops).median().item() - 1e-3
    low = scorer(crops) < target
    hinged, plain = Pgd(target=target)(scorer, crops), Pgd()(scorer, crops)
    assert low.any()
    assert not low.all()
    assert torch.equal(hinged.images[low], crops[low])
    assert (hinged.scores < target).all()
    assert (hinged.scores[~low] > plain.scores[~low] + 1).all()


def test_pgd_starts_at_random_only_with_a_seed(crops):
    still = {seed: Pgd(seed=seed, steps=0)(flat, crops).images for seed in (None, 1, 2)}
    assert torch.equal(still[None], crops)
    assert (still[1] - crops).abs().max() > 7 / 255
    assert not torch.equal(still[1], still[2])


def test_adam_reaches_the_target_with_a_smaller_change_for_a_larger_penalty(scorer, crops):
    light, heavy = (AdamL2(target=50, penalty=penalty)(scorer, crops) for penalty in (0.1, 1.0))
    assert (light.scores < 50).all()
    assert (heavy.scores < 50).all()
    assert (change(heavy, crops) < 0.98 * change(light, crops)).all()


def test_adam_leaves_an_image_below_its_target_alone(scorer, crops):
    assert torch.equal(AdamL2(target=100)(scorer, crops).images, crops)


def test_color_filter_is_a_monotone_curve_of_each_channel(scorer, crops):
    result = ColorFilter(target=0)(scorer, crops)
    assert (result.scores < scorer(crops) - 1).all()
    curves = torch.stack([crops.flatten(2), result.images.flatten(2)])
    assert (curves[0] - curves[1]).abs().amax(2).min() > 0.01
    for before, after in zip(*curves.flatten(1, 2), strict=True):
        order = before.argsort()
        rise, run = after[order].diff(), before[order].diff()
        assert (rise >= -1e-6).all()
        assert (rise[run == 0].abs() < 1e-6).all()


def test_color_filter_keeps_black_and_white_and_ends_near_its_target(crops):
    image = crops.clone()
    image[..., 0, :], image[..., 1, :] = 0, 1
    target = flat(image).max().item() - 2
    result = ColorFilter(target=target)(flat, image)
    assert result.images[..., 0, :].abs().max() == 0
    assert (result.images[..., 1, :] - 1).abs().max() < 1e-6
    high = flat(image) >= target
    assert (result.scores[high] < target).all()
    assert (result.scores[high] > target - 1).all()
    assert torch.allclose(result.images[~high], image[~high], atol=1e-6)


def test_color_filter_follows_a_known_curve():
    # The penalty is far too light to matter, so what rises most is what darkens least: the curve of a constant image falls until it is black.
    image = torch.full((1, 3, 8, 8), 0.5)
    result = ColorFilter(target=0, steps=300)(flat, image)
    assert result.scores.item() < 5


@pytest.fixture(scope="module")
def perturbation(photos):
    batches = [F.avg_pool2d(photos[..., y : y + 48, x : x + 64], 2) for y in (0, 200) for x in (0, 100, 200)]
    return universal(smoothness, batches, epochs=8, size=(24, 32), seed=1)


def test_universal_lowers_scores_of_unseen_images_within_its_bound(photos, perturbation):
    unseen = F.avg_pool2d(photos[..., 300:378, 300:414], 2)  # 57x39: another size, too
    result = Universal(perturbation)(smoothness, unseen)
    signs = torch.randint(2, perturbation.shape, generator=Generator().manual_seed(2)) * 2 - 1
    noise = Universal(signs * 8 / 255)(smoothness, unseen)
    assert perturbation.shape == (1, 3, 24, 32)
    assert perturbation.abs().max() <= 8 / 255 + 1e-7
    assert (result.images - unseen).abs().max() <= 8 / 255 + 1e-6
    assert result.scores.mean() < smoothness(unseen).mean() - 10
    assert result.scores.mean() < noise.scores.mean() - 5


def test_universal_repeats_and_cuts(perturbation):
    image = torch.full((2, 3, 30, 70), 0.5)
    added = Universal(perturbation)(flat, image).images - image
    rows, columns = torch.arange(30) % 24, torch.arange(70) % 32
    assert torch.allclose(added, perturbation[:, :, rows][..., columns].expand_as(added), atol=1e-6)


def test_universal_needs_batches_that_can_be_gone_through_again(crops):
    with pytest.raises(ValueError, match="epoch 2 found no batch"):
        universal(flat, iter([crops]), epochs=2, size=(24, 32))


def test_universal_repeats_with_its_seed(scorer, crops):
    first, again, other = (universal(scorer, [crops, crops.flip(3)], epochs=2, size=(24, 32), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@each_attack
def test_results_do_not_depend_on_the_batch(attack, scorer, crops):
    scorer, images = Convolutional().double(), crops.double()
    together = attack(scorer, images)
    order = [2, 0, 3, 1]
    shuffled = attack(scorer, images[order])
    for i, image in enumerate(images):
        alone = attack(scorer, image[None])
        for other, row in ((alone, 0), (shuffled, order.index(i))):
            assert torch.allclose(other.images[row], together.images[i], atol=1e-7)
            assert other.steps[row] == together.steps[i]


@each_attack
def test_same_call_same_result_whatever_the_global_generator(attack, scorer, crops):
    first = attack(scorer, crops)
    torch.manual_seed(99)
    assert torch.equal(first.images, attack(scorer, crops).images)


@each_attack
def test_result_is_what_the_interface_says(attack, scorer, crops):
    original = crops.clone()
    calls = []
    result = attack(scorer, crops, lambda done, total: calls.append((done, total)))
    assert torch.equal(crops, original)
    assert result.images.shape == crops.shape
    assert result.images.min() >= 0
    assert result.images.max() <= 1
    assert not any(part.requires_grad for part in result)
    assert result.scores.tolist() == pytest.approx(scorer(result.images).tolist(), abs=1e-3)
    assert result.steps.dtype == torch.int64
    assert calls == [(i + 1, len(calls)) for i in range(len(calls))]
    assert calls


@each_attack
def test_half_precision_is_worked_on_in_single(attack, scorer, crops):
    result = attack(scorer, crops[:1].half())
    assert result.images.dtype == torch.float32
    assert result.images.isfinite().all()


@each_attack
@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.zeros(3, 8, 8), r"\(3, 8, 8\)"),
        (torch.zeros(1, 4, 8, 8), r"\(1, 4, 8, 8\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "uint8"),
        (torch.full((1, 3, 8, 8), 255.0), "255"),
        (torch.full((1, 3, 8, 8), math.nan), "nan"),
    ],
)
def test_other_images_are_refused(attack, images, said):
    with pytest.raises(ValueError, match=said):
        attack(flat, images)


def test_through_jpeg_scores_the_real_file(scorer, crops):
    for quality in (90, 50):
        real = scorer(jpeg_roundtrip(to_float(to_uint8(crops)), quality))
        assert through_jpeg(scorer, quality)(crops).tolist() == pytest.approx(real.tolist(), abs=1e-3)
        assert (real - scorer(crops)).abs().max() > 0.1


def test_through_jpeg_judges_each_image_by_itself(scorer, crops):
    alone = torch.cat([through_jpeg(scorer)(image[None]) for image in crops])
    assert through_jpeg(scorer)(crops).tolist() == pytest.approx(alone.tolist(), abs=1e-3)


@pytest.mark.parametrize(
    "attack", [AdamL2(target=50, penalty=0.2), CarliniWagner(50, 4, 60, initial_const=0.1)], ids=lambda attack: type(attack).__name__
)
def test_what_is_low_through_jpeg_is_low_as_a_real_file(attack, scorer, crops):
    through = attack(through_jpeg(scorer), crops[:2])
    without = attack(scorer, crops[:2])
    files = [scorer(jpeg_roundtrip(to_float(to_uint8(result.images)), 90)) for result in (through, without)]
    assert (files[0] < 50).all()
    assert (files[1] >= 50).any()
