import math
import sys

import pytest
import torch

from camo import CamoError
from camo.measure.metrics import psnr, ssim
from camo.quality.models import load_bundled
from camo.training import perceptual
from camo.training.channel import Channel
from camo.training.objective import Objective


class Brightness(torch.nn.Module):
    """A scorer whose score is the mean of the image in percent."""

    def forward(self, image):
        return 100 * image.mean((1, 2, 3))


class Nothing(torch.nn.Module):
    def forward(self, original, filtered):
        return {"none": (filtered - original).sum() * 0}


def objective(**changes):
    settings = {"scorers": {"bright": Brightness()}, "targets": [40.0], "slack": 0.2} | changes
    still = Channel(quality=(95, 95), resize_rate=0, turn_rate=0, shift=0, real_rate=0)
    return Objective(perceptual=Nothing(), channel=still, **settings)


def grey(value, size=64):
    return torch.full((2, 3, size, size), value)


def test_hinge_ends_at_the_target():
    below, _ = objective()(grey(0.3), grey(0.3))
    assert below.item() == pytest.approx(0, abs=1e-4)
    _, terms = objective()(grey(0.6), grey(0.6))
    assert terms["stat/excess"].item() == pytest.approx(4.0, abs=0.1)  # 20 points over the target
    assert terms["score"].item() == pytest.approx(4.0 * Objective.HEAVIEST / (1 + Objective.HEAVIEST), abs=0.1)


def test_the_weight_of_the_score_follows_the_constraint():
    held, broken, stays = (objective() for _ in range(3))
    held.weights, broken.weights, stays.weights = [3.0], [3.0], [3.0]
    for _ in range(100):
        held.adapt([0.05])
        broken.adapt([4.0])
        stays.adapt([0.2])
    assert held.weights[0] < 2 < stays.weights[0] == 3 < broken.weights[0] == pytest.approx(3 * 1.01**100)
    for _ in range(2000):
        held.adapt([0.0])
        broken.adapt([4.0])
    assert held.weights + broken.weights == [Objective.LIGHTEST, Objective.HEAVIEST]


def test_each_model_has_a_target_and_a_weight_of_its_own():
    """A scorer for which the photo is dark enough and one for which it is not: the second comes to weigh all."""
    both = objective(scorers={"easy": Brightness(), "hard": Brightness()}, targets=[50.0, 20.0])
    for _ in range(700):
        loss, terms = both(grey(0.4), grey(0.4))
        both.adapt(terms["stat/excess"].tolist())
    assert both.weights == [Objective.LIGHTEST, Objective.HEAVIEST]
    assert terms["stat/excess"].tolist() == pytest.approx([0, 4], abs=0.1)
    assert loss.item() == pytest.approx(4 * Objective.HEAVIEST / (1 + Objective.HEAVIEST + 0.1), abs=0.1)
    assert {"stat/score easy", "stat/score hard", "stat/weight easy", "stat/weight hard"} < set(terms)


def test_in_turn_one_model_scores_in_each_step():
    class Counts(Brightness):
        calls = 0

        def forward(self, image):
            self.calls += 1
            return super().forward(image)

    first, second = Counts(), Counts()
    turns = objective(scorers={"first": first, "second": second}, targets=[40.0, 40.0], in_turn=True)
    for step in range(4):
        _, terms = turns(grey(0.6), grey(0.6))
        assert terms["stat/excess"].isfinite().tolist() == [step % 2 == 0, step % 2 == 1]
        turns.adapt([math.nan, 0.0])
    assert (first.calls, second.calls) == (2, 2)
    assert turns.weights[1] < turns.weights[0] == Objective.HEAVIEST
    turns.step = 1  # as a resumed run sets it
    assert "stat/score second" in turns(grey(0.6), grey(0.6))[1]


def test_a_bad_patch_counts_more_than_its_area():
    spread, gathered = grey(0.01, 128), torch.zeros(2, 3, 128, 128)
    gathered[..., :64, :64] = 0.02  # the same squared error, on a quarter of the pixels
    assert perceptual.pixel_error(grey(0.0, 128), spread).item() == pytest.approx(1, abs=1e-3)
    assert perceptual.pixel_error(grey(0.0, 128), gathered).item() > 1.2


def test_terms_add_up_to_the_loss(photos):
    whole = Objective({"bright": Brightness()}, perceptual.load("offline"), Channel(), [10.0], 0.2)
    filtered = (photos + 0.03 * torch.randn(photos.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    loss, terms = whole(photos, filtered)
    parts = {name: term.item() for name, term in terms.items() if not name.startswith("stat/")}
    assert set(parts) == {"score", "pixels", "ms_ssim", "features", "jnd", "regularity", "coherence", "combs", "seen"}
    assert min(parts.values()) > 0
    assert loss.item() == pytest.approx(sum(parts.values()), rel=1e-5)
    assert terms["stat/score bright"].shape == (4,)


def test_the_same_step_draws_the_same_channel(photos):
    random = Objective({"bright": Brightness()}, Nothing(), Channel(), [10.0], 0.2, seed=5)
    losses = [random(photos, photos)[0] for _ in range(2)]
    random.step = 0
    assert torch.equal(random(photos, photos)[0], losses[0])
    assert not torch.equal(*losses)


def test_offline_terms_grow_with_the_change_and_mind_where_it_is(photos):
    terms = perceptual.load("offline")
    noise = torch.randn(photos.shape, generator=torch.Generator().manual_seed(0))
    weak, strong = (terms(photos, (photos + amount * noise).clamp(0, 1)) for amount in (0.01, 0.03))
    same = terms(photos, photos)
    for name in weak:
        assert same[name].item() == pytest.approx(0, abs=1e-4)
        assert 0 < weak[name] < strong[name]
    spread = terms(photos, photos + 0.02 * noise)
    shaped = noise * terms.jnd(photos)
    hidden = terms(photos, photos + shaped * (0.02 * noise).square().mean().sqrt() / shaped.square().mean().sqrt())
    assert hidden["jnd"] < spread["jnd"]


def test_a_pattern_too_fine_for_an_eye_is_not_seen():
    original, terms = torch.full((1, 3, 64, 64), 0.5), perceptual.load("offline")

    def seen(period: int) -> float:
        stripes = torch.where(torch.arange(64) % period < period // 2, 1.0, -1.0) * 2 / 255
        return terms(original, original + stripes)["seen"].item()

    assert seen(2) == 0
    assert seen(8) > 10


@pytest.mark.parametrize("degrees", [0, 30, 90, 135])
def test_teeth_along_an_edge_cost_and_a_line_along_it_does_not(degrees):
    """An edge in any direction, and a residual of the same power on it: constant along the edge, or in teeth of two pixels."""
    angle = torch.tensor(degrees * math.pi / 180)
    down, right = torch.meshgrid(torch.arange(64.0) - 31.5, torch.arange(64.0) - 31.5, indexing="ij")
    across, along = right * angle.cos() + down * angle.sin(), down * angle.cos() - right * angle.sin()
    original = (0.45 + 0.25 * torch.tanh(across)).expand(1, 3, 64, 64)
    band = 6 / 255 * torch.exp(-across.square() / 8)
    teeth = band * torch.sin(along * math.pi / 2) * math.sqrt(2)
    terms = perceptual.load("offline")
    cost = {name: terms(original, original + residual)["combs"].item() for name, residual in (("line", band), ("teeth", teeth))}
    assert cost["teeth"] > 0.4
    assert cost["line"] < 0.1 * cost["teeth"]
    flat = torch.full_like(original, 0.5)
    assert terms(flat, flat + teeth)["combs"] == 0


def test_lines_cost_on_smooth_ground_and_grain_does_not():
    noise = torch.randn(2, 1, 128, 128, generator=torch.Generator().manual_seed(0))
    lines = torch.nn.functional.avg_pool2d(noise, [1, 15], stride=1, padding=[0, 7])
    terms = perceptual.load("offline")
    texture = 0.5 + 0.1 * torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(1))

    def cost(original, residual):
        return terms(original, original + 0.01 * (residual / residual.std()).expand(-1, 3, -1, -1))["coherence"].item()

    assert cost(grey(0.5, 128), noise) < 0.01 * cost(grey(0.5, 128), lines)
    assert cost(texture, lines) < 0.1 * cost(grey(0.5, 128), lines)


def test_perceptual_terms_reach_the_filtered_image(photos):
    filtered = (photos + 0.01).clamp(0, 1).requires_grad_()
    sum(perceptual.load("offline")(photos, filtered).values()).backward()
    assert filtered.grad.abs().sum() > 0


def test_lpips_without_weights_names_the_alternative(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(CamoError, match=r"lpips-squeeze: .*use --perceptual offline"):
        perceptual.load("lpips-squeeze")


def test_lpips_with_weights_in_the_cache(tmp_path, monkeypatch, photos):
    from torchvision.models import AlexNet_Weights, alexnet

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.manual_seed(0)
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(alexnet().state_dict(), cache / AlexNet_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[1])
    terms = perceptual.load("lpips-alex")
    near, far = (terms(photos, (photos + amount).clamp(0, 1))["lpips"] for amount in (0.01, 0.2))
    assert 0 < near < far
    # LPIPS removes no visible patterns by itself
    assert {"pixels", "ms_ssim", "jnd", "seen", "combs", "regularity", "coherence"} < terms(photos, photos).keys()
    assert not any(parameter.requires_grad for parameter in terms.parameters())


def test_unknown_terms_name_the_choices():
    with pytest.raises(CamoError, match="offline, lpips-alex"):
        perceptual.load("mse")


def test_lpips_is_not_imported_for_the_offline_terms(monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", None)
    perceptual.load("offline")
    with pytest.raises(ImportError):
        perceptual.load("lpips-alex")


def test_psnr_and_ssim_on_known_cases(photos):
    assert psnr(grey(0.5), grey(0.6)).tolist() == pytest.approx([20.0, 20.0], abs=1e-3)
    assert psnr(photos, photos).isinf().all()
    assert ssim(photos, photos).tolist() == pytest.approx([1.0] * 4)
    # For two constants the index is the luminance term alone.
    assert ssim(grey(0.5), grey(0.6)).tolist() == pytest.approx([(2 * 0.3 + 1e-4) / (0.61 + 1e-4)] * 2, abs=1e-4)


def test_the_bundled_model_at_hand_serves_as_backbone():
    bundled = load_bundled()
    assert perceptual.load("offline", bundled).deep.backbone is bundled
