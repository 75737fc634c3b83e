"""A student learns a target's scores; targets here are tiny and give no gradient."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import train
from camo import CamoError
from camo.__main__ import main
from camo.filter.checkpoint import load_filter, save_filter
from camo.filter.generator import Filter
from camo.quality import models
from camo.quality.distortions import DEGRADATIONS
from camo.training.config import TrainConfig
from camo.training.distillation import KINDS, Shown, Variants

SAMPLE = Path(__file__).parent.parent / "data" / "sample" / "dev"
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit")


class Warmth(torch.nn.Module):
    """How much more red than blue there is, in steps of half a point: its gradient is zero, and the bundled model knows nothing of it."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return (200 * (0.25 + image[:, 0] - image[:, 2]).mean((1, 2))).round() / 2


class Constant(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return 30 + 0 * image.mean((1, 2, 3))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twenty photos, a small filter, and two targets as files."""
    path = tmp_path_factory.mktemp("distil")
    (path / "photos").mkdir()
    for photo in sorted(SAMPLE.glob("*.jpg"))[::5][:20]:
        shutil.copy(photo, path / "photos")
    torch.jit.script(Warmth()).save(path / "warmth.ts")
    torch.jit.script(Constant()).save(path / "constant.ts")
    torch.manual_seed(0)
    save_filter(path / "filter.safetensors", Filter(width=8), {})
    return path


def command(folder, out, *more, target="warmth.ts"):
    size = ["--crop-height", "64", "--crop-width", "96", "--hold-out", "4", "--workers", "0", "--device", "cpu"]
    files = ["--data", str(folder / "photos"), "--filter", str(folder / "filter.safetensors"), "--out", str(out)]
    return ["distil", "--biqa", str(folder / target), *files, *size, *map(str, more)]


@pytest.fixture(scope="module")
def student(folder):
    path = folder / "student.safetensors"
    assert main(command(folder, path, "--steps", 40, "--batch-size", 9, "--rate", "1e-3", "--ema", "0.85", "--validate-every", 40)) == 0
    return path


def test_a_student_learns_the_scores_of_a_black_box(folder, student, capsys):
    with safe_open(student, framework="pt") as file:
        provenance = json.loads(file.metadata()["provenance"])
    assert provenance["target"].endswith("warmth.ts")
    assert provenance["settings"]["steps"] == provenance["step"] == 40
    reached = provenance["validation"]
    assert set(reached) == {"all", *KINDS}
    assert main(command(folder, folder / "untrained.safetensors", "--steps", 2, "--batch-size", 2, "--rate", "1e-9")) == 0
    printed = capsys.readouterr()
    before = json.loads(printed.out)
    assert "step 0: all srcc" in printed.err
    assert before["all"]["srcc"] < 0.4
    assert reached["all"]["srcc"] > 0.75
    assert reached["all"]["error"] < before["all"]["error"] / 3
    with pytest.raises(CamoError, match="gives no gradient"):
        models.require_gradient(models.load(str(folder / "warmth.ts")), "warmth.ts")
    models.require_gradient(models.load(str(student)), "student")  # what makes it a target to train against


def test_a_filter_is_trained_with_the_student_as_trunk_and_as_target(folder, student, tmp_path):
    config = TrainConfig(
        **{"data": (str(folder / "photos"),), "biqa": (str(student),), "trunk": str(student), "threshold": (20.0,), "target": (10.0,)},
        **{"width": 8, "crop_height": 64, "crop_width": 96, "batch_size": 2, "steps": 2, "validate_every": 2, "workers": 0},
    )
    train.train(config, tmp_path / "run", cpu=True)
    used = tmp_path / "filter.safetensors"
    shutil.copy(tmp_path / "run" / "best.safetensors", used)
    assert load_filter(used).unet.trunk.stride4.first.expand.weight.shape == (32, 3, 3, 3)
    photo = next((folder / "photos").glob("*.jpg"))
    assert main(["infer", str(photo), "--out", str(tmp_path / "hidden"), "--checkpoint", str(used), "--device", "cpu"]) == 0
    assert (tmp_path / "hidden" / photo.name).exists()


def test_a_run_goes_on_from_a_student(folder, student, tmp_path, capsys):
    assert main(command(folder, tmp_path / "more.safetensors", "--init", student, "--steps", 2, "--batch-size", 2, "--rate", "1e-9")) == 0
    assert json.loads(capsys.readouterr().out)["all"]["srcc"] > 0.75


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--out", "student.pt"], "--out student.pt: should end in .safetensors"),
        (["--steps", "0"], "--steps 0: should be 2 or more"),
        (["--enlarged", "nan"], "--enlarged nan: should be within 1..4"),
        (["--hold-out", "20"], "--hold-out 20: leaves fewer than 2 photos"),
        (["--data", "nowhere"], "nowhere: no such folder"),
        (["--init", str(models.CHECKPOINTS / "judge.safetensors")], "a model on efficientnet_lite2; a student is on efficientnet_lite0"),
        (["--filter", "nothing.safetensors"], "nothing.safetensors: no such checkpoint"),
        (["--biqa", "nonsense"], "unknown quality model 'nonsense'"),
    ],
)
def test_what_cannot_be_distilled_is_refused_in_one_line(folder, tmp_path, capsys, more, message):
    assert main(command(folder, tmp_path / "student.safetensors", *more)) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not any(tmp_path.iterdir())


def test_a_target_that_always_says_the_same_is_refused(folder, tmp_path, capsys):
    assert main(command(folder, tmp_path / "student.safetensors", target="constant.ts")) == 1
    assert "error: the target gives 15 pictures scores from 30 to 30" in capsys.readouterr().err


def test_a_student_that_exists_is_not_overwritten(folder, student, capsys):
    content = student.read_bytes()
    assert main(command(folder, student)) == 1
    assert "exists already" in capsys.readouterr().err
    assert student.read_bytes() == content


class Crops(torch.utils.data.Dataset):
    """Grey pictures, each of its number."""

    def __getitem__(self, index):
        return torch.full((3, 64, 96), 100 + index, dtype=torch.uint8)


def test_a_third_of_the_pictures_each_are_photos_distorted_and_filtered(small_filter):
    torch.manual_seed(0)
    pictures = Variants(Crops(), 12, 3, seed=0)
    assert [kind for _, kind in (pictures[i] for i in range(12))] == [0, 1, 2] * 4
    assert torch.equal(pictures[3][0], pictures[5][0])  # the same crop, three versions
    assert any(not torch.equal(pictures[i][0], pictures[i - 1][0]) for i in range(1, 12, 3))
    assert torch.equal(pictures[4][0], Variants(Crops(), 99, 3, seed=0)[4][0])
    assert not any(torch.equal(pictures[4][0], Variants(Crops(), 12, 3, seed=seed)[4][0]) for seed in range(1, len(DEGRADATIONS)))


def test_what_both_models_see_has_been_in_files_and_is_no_smaller_than_the_targets_window(small_filter):
    pixels = torch.randint(0, 256, (6, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    shown = Shown([small_filter], (80, 120), 0, torch.device("cpu"))
    image = shown(pixels, torch.arange(6) % 3, 4)
    assert image.shape == (6, 3, 80, 120)
    assert torch.equal(image, shown(pixels, torch.arange(6) % 3, 4))
    assert torch.allclose(image * 255, (image * 255).round(), atol=1e-3)
    inner = (image[:, :, 8:72, 12:108] * 255).round().to(torch.uint8)
    untouched = [torch.equal(one, other) for one, other in zip(inner, pixels, strict=True)]
    assert not untouched[2]
    assert not untouched[5]
