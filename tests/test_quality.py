import json
import math
import sys
from pathlib import Path
from typing import Final

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torchvision.transforms.functional import center_crop, gaussian_blur, pil_to_tensor

from camo import CamoError
from camo.photos.images import read, to_float
from camo.quality import koncept512, models
from camo.quality.efficientnet import EfficientNetQuality, fold_batch_norm, load_quality, save_quality
from camo.quality.koncept512 import KonCept512
from camo.quality.pyiqa_model import declared_range
from camo.weights import CHECKPOINTS

DATA = Path(__file__).parent / "data"


def formula_weights(model):
    """The reference's weights: tensor j of the state dict, in row-major order, is filled by a formula of j and the element's number i."""
    for j, (key, tensor) in enumerate(model.state_dict().items()):
        i = np.arange(tensor.numel(), dtype=np.float64)
        s = 0.6 * np.sin(0.7390851 * i * (1 + 0.013 * (j % 17)) + 0.11 * j) + 0.8 * np.sin(2.2360680 * i**1.1 + 0.37 * j)
        if key.endswith("num_batches_tracked"):
            values = np.zeros_like(s)
        elif key.endswith("running_mean"):
            values = 0.02 * s
        elif key.endswith("running_var"):
            values = 1 + 0.2 * s.clip(-1, 1)
        elif tensor.ndim > 1:
            values = s * math.sqrt(2 / tensor[0].numel())
        elif key.endswith("weight"):
            values = 1 + 0.1 * s
        else:
            values = 0.05 * s
        tensor.copy_(torch.from_numpy(values).reshape(tensor.shape))


@pytest.fixture(scope="module")
def koncept512_file(tmp_path_factory):
    """A KonCept512.pth in the official layout, with the reference's formula weights."""
    model = KonCept512()
    formula_weights(model)
    path = tmp_path_factory.mktemp("weights") / "KonCept512.pth"
    torch.save(model.state_dict(), path)
    return path


def test_koncept512_has_the_official_keys_in_the_official_order():
    lines = (line.split("\t") for line in (DATA / "koncept512_keys.txt").read_text().splitlines())
    official = [(key, shape) for key, shape in lines]
    ours = [(key, "x".join(map(str, tensor.shape))) for key, tensor in KonCept512().state_dict().items()]
    assert ours == official


@pytest.mark.parametrize("size", [(384, 512), (385, 513), (387, 515), (389, 517), (383, 511), (381, 509), (100, 900), (900, 100), (1, 1)])
def test_centre_crop_is_torchvisions(size):
    image = torch.rand(2, 3, *size)
    assert torch.equal(koncept512.centre_crop(image, 384, 512), center_crop(image, [384, 512]))


def test_koncept512_reproduces_the_official_class(koncept512_file):
    scorer = models.load(f"koncept512:{koncept512_file}")
    for name, expected in json.loads((DATA / "koncept512_expected.json").read_text())["results"].items():
        image = pil_to_tensor(Image.open(DATA / name).convert("RGB"))[None].float() / 255
        features = scorer.model.features(image)[0]
        assert features[:8].tolist() == pytest.approx(expected["features_first8"], abs=1e-4)
        assert features.std().item() == pytest.approx(expected["features_std"], abs=1e-4)
        assert scorer(image).item() == pytest.approx(expected["score"], abs=1e-4)


def test_koncept512_keeps_no_map_of_a_batch_normalisation(koncept512_file):
    scorer = models.load(f"koncept512:{koncept512_file}")
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in scorer.modules())


def test_koncept512_sees_only_the_centre(koncept512_file):
    scorer = models.load(f"koncept512:{koncept512_file}")
    image = torch.rand(1, 3, 500, 700, generator=torch.Generator().manual_seed(0))
    outside, inside = torch.zeros_like(image), image.clone()
    outside[..., 58:442, 94:606] = image[..., 58:442, 94:606]
    inside[..., 58:250, 94:606] = 0
    with torch.no_grad():
        same, here, there = scorer(image), scorer(outside), scorer(inside)
    assert torch.equal(same, here)
    assert not torch.allclose(same, there, atol=1e-4)


class Recorded(torch.nn.Module):
    """A base that gives one feature map, whatever the image: each cell of the real one sees the whole image, if only a little."""

    def __init__(self, features):
        super().__init__()
        self.features = features

    def forward(self, image):
        return self.features


def test_koncept512_pools_only_the_top_left_cells():
    model = KonCept512()
    assert model.base(torch.rand(1, 3, 384, 512)).shape[-2:] == (10, 14)
    cells = torch.rand(1, 1536, 10, 14)
    model.base = Recorded(cells)
    pooled = model.features(torch.rand(1, 3, 384, 512))
    assert torch.allclose(pooled, cells[..., :8, :8].mean((2, 3)), atol=1e-6)
    cells[..., 8:, :] = cells[..., 8:] = 9
    assert torch.equal(model.features(torch.rand(1, 3, 384, 512)), pooled)


def test_koncept512_weights_that_are_not_finite_are_refused(koncept512_file, tmp_path):
    weights = torch.load(koncept512_file, weights_only=True)
    weights["fc.8.bias"][5] = math.inf
    torch.save(weights, tmp_path / "infinite.pth")
    with pytest.raises(CamoError, match=r"infinite\.pth: fc\.8\.bias holds values that are not finite"):
        models.load(f"koncept512:{tmp_path / 'infinite.pth'}")


def test_koncept512_missing_says_where_to_get_it(tmp_path):
    with pytest.raises(CamoError, match=r"absent\.pth.*KonCept512\.pth.*checkpoints"):
        models.load(f"koncept512:{tmp_path / 'absent.pth'}")


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"\x80\x04cos\nsystem\n(S'touch /tmp/owned'\ntR."])
def test_koncept512_foreign_file_is_refused(tmp_path, content):
    path = tmp_path / "foreign.pth"
    path.write_bytes(content)
    with pytest.raises(CamoError, match=r"foreign\.pth: not a KonCept512 state dict"):
        models.load(f"koncept512:{path}")


def test_koncept512_needs_every_key(koncept512_file, tmp_path):
    weights = torch.load(koncept512_file, weights_only=True)
    del weights["fc.12.bias"]
    torch.save(weights, tmp_path / "short.pth")
    with pytest.raises(CamoError, match=r"fc\.12\.bias"):
        models.load(f"koncept512:{tmp_path / 'short.pth'}")


@pytest.fixture(scope="module")
def bundled():
    return models.load("bundled")


def test_bundled_calls_photos_good_and_ruined_ones_bad(bundled, photos):
    ruined = torch.nn.functional.interpolate(photos[..., ::12, ::12], size=photos.shape[-2:])
    assert (bundled(photos) > 50).all()
    assert (bundled(ruined) < 40).all()


def test_scores_do_not_depend_on_the_batch(bundled, photos):
    alone = torch.cat([bundled(photo[None]) for photo in photos])
    assert bundled(photos).tolist() == pytest.approx(alone.tolist(), abs=1e-3)
    assert torch.equal(bundled(photos), bundled(photos))


def test_frozen_stays_in_eval_mode_and_passes_gradients_to_the_image(bundled, photos):
    bundled.train()
    assert not any(module.training for module in bundled.modules())
    assert not any(parameter.requires_grad for parameter in bundled.parameters())
    image = photos[:1].clone().requires_grad_()
    bundled(image).sum().backward()
    assert image.grad.abs().sum() > 0


def test_bundled_takes_any_size_and_reduces_large_photos(bundled, photos):
    large = torch.nn.functional.interpolate(photos, scale_factor=3, mode="bicubic").clamp(0, 1)
    assert (bundled(large) - bundled(photos)).abs().max() < 8
    assert bundled(photos[..., :17, :16]).shape == (4,)


def test_odd_sizes_do_not_move_the_stride_grid(bundled, photos):
    assert (bundled(photos[..., :383, :511]) - bundled(photos)).abs().mean() < 3


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 1, 64, 64), (1, 4, 64, 64)])
def test_another_shape_is_refused_with_the_shape(bundled, shape):
    with pytest.raises(ValueError, match=str(shape).replace("(", r"\(").replace(")", r"\)")):
        bundled(torch.zeros(shape))


def test_folding_batch_norm_keeps_the_output():
    torch.manual_seed(0)
    model = timm.create_model("efficientnet_lite0", pretrained=False, features_only=True, out_indices=(1, 2)).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    image = torch.rand(2, 3, 96, 64)
    before = model(image)
    fold_batch_norm(model)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    assert all(torch.allclose(a, b, atol=1e-3) for a, b in zip(model(image), before, strict=True))


class Scorer(torch.nn.Module):
    def __init__(self, scale: float, columns: bool):
        super().__init__()
        self.scale, self.columns = scale, columns

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        score = self.scale * image.mean((1, 2, 3))
        return score[:, None] if self.columns else score


def test_torchscript_scorer(tmp_path):
    torch.jit.script(Scorer(90.0, False)).save(tmp_path / "own.ts")
    assert models.load(str(tmp_path / "own.ts"))(torch.full((2, 3, 40, 30), 0.5)).tolist() == pytest.approx([45, 45])


@pytest.mark.parametrize(
    ("scale", "columns", "seen"), [(90.0, True, r"\(3, 1\)"), (1.0, False, r"0\.5"), (5000.0, False, r"2[45]\d\d"), (math.nan, False, "nan")]
)
def test_torchscript_scorer_with_another_interface_is_refused_with_what_was_seen(tmp_path, scale, columns, seen):
    torch.jit.script(Scorer(scale, columns)).save(tmp_path / "own.ts")
    with pytest.raises(CamoError, match=rf"own\.ts: .*{seen}"):
        models.load(str(tmp_path / "own.ts"))


class Rounding(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return (90 * image.mean((1, 2, 3))).round()


class Detaching(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return 90 * image.detach().mean((1, 2, 3))


def test_a_scorer_without_a_gradient_scores_but_is_refused_for_training(tmp_path):
    for module, told in [(Rounding(), "zero everywhere"), (Detaching(), "does not require grad")]:
        torch.jit.script(module).save(tmp_path / "own.ts")
        scorer = models.load(str(tmp_path / "own.ts"))
        assert scorer(torch.full((1, 3, 40, 30), 0.5)).tolist() == pytest.approx([45])
        with pytest.raises(CamoError, match=f"gives no gradient to train with .*{told}"):
            models.require_gradient(scorer, "own.ts")
    torch.jit.script(Scorer(90.0, False)).save(tmp_path / "own.ts")
    models.require_gradient(models.load(str(tmp_path / "own.ts")), "own.ts")


@pytest.mark.parametrize("spec", ["nonsense", "koncept", "model.pt", ""])
def test_unknown_model_names_the_choices(spec):
    with pytest.raises(CamoError, match=r"koncept512:FILE, pyiqa:NAME, FILE\.safetensors or FILE\.ts"):
        models.load(spec)


def test_torchscript_file_that_is_none(tmp_path):
    (tmp_path / "bad.ts").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(CamoError, match=r"bad\.ts: does not load"):
        models.load(str(tmp_path / "bad.ts"))
    with pytest.raises(CamoError, match=r"absent\.ts: no such file"):
        models.load(str(tmp_path / "absent.ts"))


@pytest.fixture(scope="module")
def quality_file(tmp_path_factory):
    """A small file of weights as training writes it."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "own.safetensors"
    save_quality(path, EfficientNetQuality(), {"settings": {}})
    return path


def test_a_trained_file_is_a_quality_model_too(quality_file, photos):
    scores = models.load(str(quality_file))(photos)
    assert scores.shape == (4,)
    assert scores.isfinite().all()


@pytest.mark.parametrize("damage", ["truncated", "foreign keys", "text", "another backbone", "absent"])
def test_damaged_weights_are_refused(quality_file, tmp_path, damage):
    path = tmp_path / "damaged.safetensors"
    if damage == "truncated":
        path.write_bytes(quality_file.read_bytes()[:100_000])
    elif damage == "text":
        path.write_text("hello")
    elif damage == "foreign keys":
        save_file({"weight": torch.zeros(3)}, path, {"backbone": "efficientnet_lite0"})
    elif damage == "another backbone":
        save_file(load_file(quality_file), path, {"backbone": "resnet50"})
    with pytest.raises(CamoError, match=r"damaged\.safetensors: (not weights|not a quality model|no such file)"):
        load_quality(path)


def test_weights_that_are_not_finite_are_refused(quality_file, tmp_path):
    weights = load_file(quality_file)
    weights["head.3.bias"][0] = math.nan
    save_file(weights, tmp_path / "nan.safetensors", {"backbone": "efficientnet_lite0"})
    with pytest.raises(CamoError, match=r"nan\.safetensors: head\.3\.bias holds values that are not finite"):
        load_quality(tmp_path / "nan.safetensors")


class PyiqaStandIn:
    """What of pyiqa is used, around networks whose scores are known."""

    def __init__(self, score_range, lower_better):
        self.score_range, self.lower_better = score_range, lower_better
        self.net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Conv1d(1, 1, 3, bias=False))
        torch.nn.init.constant_(self.net[2].weight, 1 / 3)
        self.net.insert(2, torch.nn.Unflatten(1, (1, 3)))

    def list_models(self, metric_mode):
        return ["mean"] if metric_mode == "NR" else []

    def create_metric(self, name, device, as_loss):
        return self


@pytest.mark.parametrize(
    ("score_range", "lower_better", "expected"), [("0, 1", False, 25), ("0, 1", True, 75), ("~-1, ~1", False, 62.5), ("-1, 4", True, 75)]
)
def test_pyiqa_scores_are_mapped_by_declared_range_and_direction(monkeypatch, score_range, lower_better, expected):
    monkeypatch.setitem(sys.modules, "pyiqa", PyiqaStandIn(score_range, lower_better))
    image = torch.full((2, 3, 20, 30), 0.25, requires_grad=True)
    scores = models.load("pyiqa:mean")(image)
    assert scores.tolist() == pytest.approx([expected] * 2)
    scores.sum().backward()
    assert (image.grad.sign() == (-1 if lower_better else 1)).all()


@pytest.mark.parametrize("text", ["0, ~", "~, 2", "1, 0", "None", "0"])
def test_pyiqa_open_ranges_are_refused(text):
    with pytest.raises(CamoError, match=r"pyiqa:x: pyiqa declares the range .*cannot be mapped"):
        declared_range("x", text)


def test_pyiqa_unknown_name_and_missing_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyiqa", PyiqaStandIn("0, 1", False))
    with pytest.raises(CamoError, match=r"pyiqa:nonsense: not one of .*: mean"):
        models.load("pyiqa:nonsense")
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(CamoError, match=r"pyiqa:mean: needs the package pyiqa"):
        models.load("pyiqa:mean")


class LeftHalf(torch.nn.Module):
    """A scorer of the left half, which says so."""

    SYMMETRIC: Final = False

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return 100 * image[:, :, :, : image.shape[3] // 2].mean((1, 2, 3))


def test_a_model_that_looks_at_one_side_says_so(quality_file, koncept512_file, tmp_path):
    torch.jit.script(LeftHalf()).save(tmp_path / "left.ts")
    assert models.load(str(quality_file)).symmetric
    assert not models.load(f"koncept512:{koncept512_file}").symmetric
    assert not models.load(str(tmp_path / "left.ts")).symmetric


def test_every_model_says_what_it_looks_at(quality_file, koncept512_file):
    looks = {models.load(spec).looks_at for spec in (str(quality_file), f"koncept512:{koncept512_file}")}
    assert looks == {"the whole photo, reduced to the area of 512x384 px", "the centre 512x384 px, at full resolution"}


def test_the_judge_is_another_network_than_the_target():
    """A witness that shared the target's trunk would say little; and one to whom blur is no fault would say nothing."""
    judge, target = models.load(str(CHECKPOINTS / "judge.safetensors")), models.load("bundled")
    assert (judge.model.name, target.model.name) == ("efficientnet_lite2", "efficientnet_lite0")
    files = sorted((CHECKPOINTS.parent / "data/sample/test").glob("*.jpg"))[:4]
    photos = torch.stack([to_float(read(file).pixels) for file in files])
    with torch.inference_mode():
        clean, blurred = judge(photos), judge(gaussian_blur(photos, [13, 13], [2.0, 2.0]))
    assert (clean > 50).all()
    assert (blurred < clean - 5).all()
