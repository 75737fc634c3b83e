import csv
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Generator

from camo import CamoError
from camo.quality import training
from camo.quality.agreement import degraded_versions, figures, robustness
from camo.quality.distortions import DEGRADATIONS
from camo.quality.efficientnet import EfficientNetQuality, load_quality
from camo.quality.opinions import Columns, Opinion, read_opinions

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "data" / "sample"


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    """Eight photos, one with an upper-case suffix and one below the size of a window, and their invented opinions in BIQ2021's form."""
    folder = tmp_path_factory.mktemp("rated")
    photos = sorted((SAMPLE / "dev").glob("*.jpg"))[:8]
    for number, photo in enumerate(photos):
        shutil.copy(photo, folder / f"ss0{number % 2} ({number}).{'JPG' if number == 1 else 'jpg'}")
    rows = [f"ss0{number % 2} ({number}).jpg,{0.3 + 0.08 * number:.2f},," for number in range(8)]
    (folder / "opinions.csv").write_text("Image Name,MOS,,\n" + "\n".join(rows) + "\n")
    return folder


def table(path, rows):
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def test_biq2021_trailing_commas_and_upper_case_suffixes(rated):
    faults = []
    opinions = read_opinions(rated / "opinions.csv", rated, Columns(scale=(0, 1)), faults)
    assert [round(opinion.score) for opinion in opinions] == [30, 38, 46, 54, 62, 70, 78, 86]
    assert opinions[1].path.name == "ss01 (1).JPG"
    assert not faults


def test_koniq_columns_and_split(rated, tmp_path):
    header = ["image_name", "c1", "MOS", "SD", "set"]
    rows = [header, ["ss00 (0).jpg", 1, 70.5, 5, "training"], ["ss00 (2).jpg", 1, 30.5, 5, "validation"], ["ss00 (4).jpg", 1, 50, 5, "training"]]
    opinions = read_opinions(table(tmp_path / "koniq.csv", rows), rated, Columns(split=("set", "training")), [])
    assert [opinion.score for opinion in opinions] == [70.5, 50]


def test_another_scale_and_direction(rated, tmp_path):
    rows = [["picture", "dmos"], ["ss00 (0).jpg", 1], ["ss00 (2).jpg", 5]]
    opinions = read_opinions(table(tmp_path / "dmos.csv", rows), rated, Columns("picture", "dmos", (5, 1)), [])
    assert [opinion.score for opinion in opinions] == [100, 0]


def test_rows_that_cannot_be_used_are_reported_and_the_others_taken(rated, tmp_path):
    rows = [
        ["image_name", "MOS"],
        ["absent.jpg", 3],
        ["ss00 (0).jpg", "good"],
        ["ss00 (2).jpg", "nan"],
        ["ss00 (4).jpg", ""],
        ["ss00 (6).jpg", 60],
        [""],
    ]
    faults = []
    assert len(read_opinions(table(tmp_path / "odd.csv", rows), rated, Columns(), faults)) == 1
    assert len(faults) == 5
    assert "'absent.jpg': no such photo" in faults[0]
    assert "'good' is not a number" in faults[1]


@pytest.mark.parametrize(
    ("rows", "columns", "reported"),
    [
        ([["file", "MOS"], ["a.jpg", 1]], Columns(), "no name column 'image_name or "),
        ([["image_name", "rating"], ["a.jpg", 1]], Columns(), "no score column"),
        ([["image_name", "MOS"], ["a.jpg", 1]], Columns(split=("set", "training")), "no split column 'set'"),
        ([["image_name", "MOS"], ["a.jpg", 1]], Columns(), "no row with a photo"),
        ([["image_name", "MOS"], ["a.jpg", 1]], Columns(scale=(1, 1)), "--scale 1 1"),
        ([], Columns(), "no name column"),
    ],
)
def test_tables_that_cannot_be_used_are_refused(rated, tmp_path, rows, columns, reported):
    with pytest.raises(CamoError, match=reported):
        read_opinions(table(tmp_path / "odd.csv", rows), rated, columns, [])


def test_missing_and_binary_tables_are_refused(rated, tmp_path):
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x81")
    for name in ("absent.csv", "binary.csv"):
        with pytest.raises(CamoError, match=rf"{name}': cannot be read as a table of opinions"):
            read_opinions(tmp_path / name, rated, Columns(), [])


@pytest.mark.parametrize("family", DEGRADATIONS, ids=lambda family: family.__name__)
def test_degradations_grow_with_severity(family, photos):
    errors = []
    for severity in (0.0, 0.3, 0.6, 1.0):
        degraded = family(photos[0], severity, Generator().manual_seed(1)).clamp(0, 1)
        assert degraded.shape == photos[0].shape
        errors.append((degraded - photos[0]).square().mean().item())
    assert errors == sorted(errors)


def test_windows_depend_on_seed_and_index_alone(rated):
    opinions = read_opinions(rated / "opinions.csv", rated, Columns(scale=(0, 1)), [])
    windows = training.RatedPhotos(opinions, (300, 200), 20, seed=5)
    again = training.RatedPhotos(opinions, (300, 200), 40, seed=5)
    assert torch.equal(windows[9][0], again[9][0])
    assert windows[9][0].shape == (3, 300, 200)
    assert sorted(windows[i][1] for i in range(8)) == [opinion.score for opinion in opinions]  # every photo once an epoch
    assert training.RatedPhotos(opinions, (900, 900), 20, seed=5)[0][0].shape == (3, 900, 900)  # larger than the photo: enlarged


def test_a_photo_that_cannot_be_read_is_named_and_the_next_one_taken(rated, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    good = next(rated.glob("*(0).jpg"))
    windows = training.RatedPhotos([Opinion(tmp_path / "broken.jpg", 10), Opinion(good, 20)], (64, 64), 2, seed=0)
    with pytest.warns(UserWarning, match=r"broken\.jpg"):
        assert [windows[i][1] for i in range(2)] == [20, 20]


def test_losses_are_zero_where_nothing_is_to_be_gained():
    scores = torch.tensor([20.0, 50, 80])
    terms = training.losses(scores, scores, torch.tensor([5.0]), torch.tensor([10.0]))
    assert [round(term.item(), 4) for term in terms.values()] == [0, 0, 0]
    terms = training.losses(scores, scores.flip(0), torch.tensor([15.0]), torch.tensor([10.0]))
    assert terms["error"] > 10
    assert terms["correlation"].item() == pytest.approx(2 * training.CORRELATION, rel=1e-4)
    assert terms["rank"].item() == pytest.approx(training.RANK * 5)


@pytest.mark.parametrize("scores", [[20.0, 50, 80], [50.0, 50, 50]])
def test_a_batch_of_equal_opinions_leaves_the_gradient_finite(scores):
    scores = torch.tensor(scores, requires_grad=True)
    for wanted in (torch.full((3,), 60.0), torch.tensor([10.0, 20, 90])):
        terms = training.disagreement(scores, wanted)
        (gradient,) = torch.autograd.grad(sum(terms.values()), scores)
        assert gradient.isfinite().all()


def test_gradients_in_mixed_precision_are_those_of_float32():
    """Over the layers that autocast moves to bf16 and those that stay."""
    torch.manual_seed(0)
    model, image = EfficientNetQuality(), torch.rand(2, 3, 96, 96)
    training.load_imagenet(model)
    plain = gradient(model, image, enabled=False)
    training.spare_slow_kernels(model)
    assert torch.cosine_similarity(plain, gradient(model, image, enabled=True), dim=0) > 0.98


def gradient(model, image, enabled):
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        features = model.features(image)
    model.judge(features).sum().backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])


def command(rated, out, *more):
    opinions = ["--opinions", str(rated / "opinions.csv"), "--photos", str(rated), "--scale", "0", "1", "--out", str(out)]
    size = ["--hold-out", "3", "--steps", "4", "--batch-size", "2", "--crop", "64", "--validate-every", "2", "--workers", "0"]
    return [sys.executable, "-m", "camo.quality.training", *opinions, *size, *more]


def test_a_run_trains_resumes_and_its_file_scores(rated, tmp_path, monkeypatch):
    """A run that is cut after two steps and resumed has the weights of one that was not."""
    settings = training.Settings(hold_out=3, steps=4, batch_size=2, crop=64, validate_every=2, workers=0)
    opinions = read_opinions(rated / "opinions.csv", rated, Columns(scale=(0, 1)), [])
    (tmp_path / "cut").mkdir()
    best = training.train(opinions[3:], opinions[:3], settings, tmp_path / "whole")
    assert best["step"] in {2, 4}
    save_run = training.save_run

    def save_and_stop(*arguments):
        save_run(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "save_run", save_and_stop)
        training.train(opinions[3:], opinions[:3], settings, tmp_path / "cut")
    assert training.train(opinions[3:], opinions[:3], settings, tmp_path / "cut", resume=True) == best
    states = [torch.load(tmp_path / name / "last.pt", weights_only=True)["parts"]["average"] for name in ("whole", "cut")]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert load_quality(tmp_path / "whole" / "best.safetensors")(torch.rand(1, 3, 50, 40)).shape == (1,)
    with pytest.raises(CamoError, match=r"--rate 0\.1: the run to resume has 0\.0003"):
        training.train(opinions[3:], opinions[:3], replace(settings, rate=0.1), tmp_path / "cut", resume=True)


@pytest.mark.parametrize(
    ("more", "reported"),
    [
        (["--hold-out", "7"], "--hold-out 7: should"),
        (["--pairs", "3"], "--pairs 3: should"),
        (["--resume"], "cannot be resumed from"),
        (["--batch-size", "1"], "--batch-size 1"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(rated, tmp_path, monkeypatch, capsys, more, reported):
    monkeypatch.setattr(sys, "argv", command(rated, tmp_path / "out", *more)[2:])
    assert training.main() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert reported in line


def test_figures_of_agreement():
    scores, wanted = torch.tensor([10.0, 40, 60, 90]), torch.tensor([20.0, 55, 60, 80])
    assert figures(scores, wanted) == pytest.approx(
        {"photos": 4, "srcc": 1.0, "plcc": 0.972, "error": 8.75, "same_side": 0.75, "score_mean": 50, "opinion_mean": 53.75}, abs=1e-3
    )


def test_robustness_sees_a_model_that_ranks_degraded_versions_wrongly(rated):
    opinions = read_opinions(rated / "opinions.csv", rated, Columns(scale=(0, 1)), [])
    detail = robustness(lambda image: 1e4 * image.diff(dim=-1).square().mean((1, 2, 3)), opinions)  # the more detail, noise too, the better
    assert detail["photos"] == 4
    assert detail["below clean: blur, sigma 2"] == 1
    assert detail["below clean: noise, 15/255"] == 0


def test_degraded_versions_hold_8_bit_values(photos):
    for version in degraded_versions(photos[:1], Generator().manual_seed(0)).values():
        assert torch.allclose(version * 255, (version * 255).round(), atol=1e-4)
        assert not torch.equal(version, photos[:1])
