"""The recipe for a KonCept512 of one's own, on windows as small as its stem allows."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from camo import CamoError
from camo.quality import koncept512_training as recipe
from camo.quality import models
from camo.quality.efficientnet import EfficientNetQuality
from camo.quality.koncept512 import KonCept512
from camo.quality.koncept512_training import Settings, Stage, Student, fit_head, hint_error
from camo.quality.models import load_bundled
from camo.quality.opinions import Opinion

SAMPLE = Path(__file__).parent.parent / "data" / "sample"
CHANNELS = [40, 112, 320]  # of the bundled model's maps at strides 8, 16 and 32
TINY = {"core_steps": 2, "whole_steps": 1, "larger_steps": 1, "full_steps": 1, "head_photos": 4, "validate_every": 3, "workers": 0}


@pytest.fixture(scope="module")
def opinions(tmp_path_factory):
    """Six photos and invented opinions of them."""
    folder = tmp_path_factory.mktemp("rated")
    photos = sorted((SAMPLE / "dev").glob("*.jpg"))[:6]
    return [Opinion(Path(shutil.copy(photo, folder)), 30.0 + 10 * number) for number, photo in enumerate(photos)]


@pytest.fixture
def tiny(monkeypatch):
    """Windows of 96 px and two photos a step; validation of two."""
    stages = [Stage((96, 96), 2, False), Stage((96, 96), 2, True), Stage((96, 128), 2, True), Stage((128, 96), 2, True)]
    for name, value in {"STAGES": stages, "PAIRS": 2, "VALIDATED": 2, "MEASURED": 2, "HEAD_STEPS": 3}.items():
        monkeypatch.setattr(recipe, name, value)


@pytest.fixture(scope="module")
def student():
    torch.manual_seed(0)
    return Student(CHANNELS).eval()


def test_the_network_begins_as_its_core(student):
    image = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        (core, core_maps), (whole, whole_maps) = student(image, whole=False), student(image, whole=True)
    assert torch.equal(core, whole)
    assert all(map(torch.equal, core_maps, whole_maps))
    assert [maps.shape[1] for maps in core_maps] == CHANNELS


def test_blocks_beyond_the_core_learn_only_in_the_whole_network(student):
    last = student.network.base[10][-1].conv2d.weight
    for whole in (False, True):
        student.zero_grad()
        student(torch.rand(1, 3, 96, 96), whole)[0].sum().backward()
        assert (last.grad is not None and bool(last.grad.abs().sum() > 0)) is whole


def test_hints_ask_for_the_teachers_maps_whatever_their_scale():
    teacher = [1000 * torch.randn(2, 5, 8, 8), torch.randn(2, 3, 4, 4) + 50]
    standard = [(maps - maps.mean((0, 2, 3), keepdim=True)) / maps.std((0, 2, 3), correction=0, keepdim=True) for maps in teacher]
    assert hint_error(standard, teacher) < 1e-3
    assert hint_error([torch.zeros_like(maps) for maps in teacher], teacher) == pytest.approx(1.0, abs=0.01)


def test_the_head_learns_the_scale_of_the_scores_alone(monkeypatch):
    monkeypatch.setattr(recipe, "HEAD_STEPS", 150)
    torch.manual_seed(0)
    features, head = torch.rand(500, 1536), KonCept512().fc
    normalisations = {key: value.clone() for key, value in head.state_dict().items() if "running" in key}
    wanted = 60 + 200 * (features[:, :10].mean(1) - 0.5)
    fit_head(head, features, wanted, seed=0)
    with torch.no_grad():
        scores = head(features).flatten()
    assert scores.mean().item() == pytest.approx(wanted.mean().item(), abs=2)
    assert torch.corrcoef(torch.stack([scores, wanted]))[0, 1] > 0.9
    assert all(torch.equal(head.state_dict()[key], value) for key, value in normalisations.items())


def test_a_run_trains_resumes_and_its_file_scores(opinions, tiny, tmp_path, monkeypatch):
    """A run that is cut after three steps, between two stages, and resumed has the weights of one that was not."""
    settings, held, training = Settings(hold_out=2, **TINY), opinions[:2], opinions[2:]
    teacher = load_bundled()
    assert isinstance(teacher, EfficientNetQuality)
    for name in ("cut", "undisturbed"):
        (tmp_path / name).mkdir()
    recipe.train(training, held, settings, teacher, tmp_path / "undisturbed", resume=False)
    save_run = recipe.save_run

    def save_and_stop(*arguments):
        save_run(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(recipe, "save_run", save_and_stop)
        recipe.train(training, held, settings, teacher, tmp_path / "cut", resume=False)
    figures = recipe.train(training, held, settings, teacher, tmp_path / "cut", resume=True)
    assert figures["photos"] == 2
    weights = [torch.load(tmp_path / name / "KonCept512.pth", weights_only=True) for name in ("undisturbed", "cut")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    scorer = models.load(f"koncept512:{tmp_path / 'cut' / 'KonCept512.pth'}")
    with torch.no_grad():
        assert scorer(torch.rand(1, 3, 384, 512)).isfinite().all()
    with pytest.raises(CamoError, match=r"--rate 0\.1: the run to resume has 0\.001"):
        recipe.train(training, held, replace(settings, rate=0.1), teacher, tmp_path / "cut", resume=True)


@pytest.mark.parametrize(
    ("more", "reported"),
    [
        (["--core-steps", "0"], "--core-steps 0"),
        (["--head-photos", "1"], "--head-photos 1"),
        (["--hold-out", "300"], "--hold-out 300: should"),
        (["--teacher", "nowhere.safetensors"], "nowhere.safetensors: no such file"),
        (["--resume"], "cannot be resumed from"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(opinions, tmp_path, monkeypatch, capsys, tiny, more, reported):
    folder = opinions[0].path.parent
    (tmp_path / "opinions.csv").write_text("Image Name,MOS\n" + "\n".join(f"{opinion.path.name},{opinion.score}" for opinion in opinions) + "\n")
    arguments = ["--opinions", str(tmp_path / "opinions.csv"), "--photos", str(folder), "--out", str(tmp_path / "out"), "--hold-out", "2", *more]
    monkeypatch.setattr(sys, "argv", ["koncept512_training", *arguments])
    assert recipe.main() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert reported in line
