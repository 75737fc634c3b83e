"""The guarantee: what a verdict says is true of the file."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms.functional import pil_to_tensor

from camo.camouflage.pipeline import Pipeline
from camo.camouflage.plan import plan
from camo.camouflage.verify import Verifier
from camo.measure.metrics import psnr
from camo.measure.operations import GRID
from camo.photos.images import Photo, decode, encode, read, to_float, to_uint8, write

ROOT = Path(__file__).parent.parent


class Darker(nn.Module):
    """A filter that takes ``strength`` steps off every value."""

    def __init__(self):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))

    def forward(self, pixels, strength):
        return (pixels - strength).clamp(0, 255).round().byte()

    def prepare(self, pixels):
        return lambda strength: self(pixels, strength)


class Brightness(nn.Module):
    """A scorer: 50 at a mean of ``middle`` (of 255), ``slope`` points for each step of brightness."""

    def __init__(self, middle, slope=1):
        super().__init__()
        self.middle, self.slope = middle, slope

    def forward(self, image):
        return 50 + self.slope * (255 * image.mean((1, 2, 3)) - self.middle)


@pytest.fixture
def photo(photos):
    return Photo(to_uint8(photos[0, :, :96, :128] * 0.5 + 0.25), "PNG")


def brightness(photo):
    return photo.pixels.float().mean().item()


def score(photo, scorer, operation):
    return score_file(encode(photo), scorer, operation)


def score_file(content, scorer, operation):
    written = Image.fromarray(decode(content).permute(1, 2, 0).numpy())
    return scorer(torch.stack([pil_to_tensor(GRID[operation](written))]) / 255).item()


def verifier(scorer, operation="JPEG 90", margin=0, **settings):
    """With a filter that darkens, one model and one operation."""
    return Verifier(Darker(), {"model": scorer}, [operation], margin=margin, **settings)


@pytest.mark.parametrize("operation", ["JPEG 90", "WebP 80", "shift by 4 px"])
def test_the_verdict_is_of_the_file_after_the_operation(photo, operation):
    scorer = Brightness(brightness(photo) - 1)
    content, verdict = verifier(scorer, operation)(photo, 2.0)
    assert verdict.score_before == score(photo, scorer, operation)
    assert verdict.score_after == verdict.scores["model"][operation] == score_file(content, scorer, operation)
    assert verdict.psnr == pytest.approx(psnr(to_float(photo.pixels[None]), to_float(decode(content)[None])).item())
    assert (verdict.protected, verdict.steps) == (True, 0)


@pytest.mark.parametrize("margin", [0, 1, 3])
def test_the_strength_falls_to_the_least_that_reaches_the_margin(photo, margin):
    """A photo that is 2.5 steps too bright; 3 steps are taken off from strength 2.5 on."""
    scorer = Brightness(brightness(photo) - 2.5)
    content, verdict = verifier(scorer, "none", margin)(photo, 7.7)
    assert 2.5 + margin <= verdict.strength <= 2.5 + margin + 0.02 * 7.7
    assert score_file(content, scorer, "none") == verdict.score_after == pytest.approx(49.5 - margin, abs=0.01)
    assert verdict.psnr_as_asked == pytest.approx(30.07, abs=0.01)  # 8 steps of 8 bits
    assert verdict.psnr > verdict.psnr_as_asked


def test_the_strength_rises_until_the_photo_is_protected_and_no_further(photo):
    scorer = Brightness(brightness(photo) - 3.4)
    content, verdict = verifier(scorer, "none")(photo, 2.0)
    assert verdict.protected
    assert 3.5 <= verdict.strength <= 3.5 + 0.02 * 2
    assert verdict.psnr < verdict.psnr_as_asked
    assert score_file(content, scorer, "none") == verdict.score_after < 50


def test_a_photo_that_needs_no_change_gets_none(photo):
    content, verdict = verifier(Brightness(brightness(photo) + 5), "none", margin=3)(photo, 2.0)
    assert (verdict.protected, verdict.strength, verdict.psnr) == (True, 0, 100)
    assert torch.equal(decode(content), photo.pixels)


def test_every_model_and_every_operation_must_be_satisfied(photo):
    easy, hard = Brightness(brightness(photo)), Brightness(brightness(photo) - 4.5)
    content, verdict = Verifier(Darker(), {"easy": easy, "hard": hard}, ["none", "JPEG 75"], margin=0)(photo, 8.0)
    assert set(verdict.scores) == {"easy", "hard"}
    assert all(set(scores) == {"none", "JPEG 75"} for scores in verdict.scores.values())
    for operation, value in verdict.scores["hard"].items():
        assert score_file(content, hard, operation) == value < 50
    assert verdict.score_after == max(verdict.scores["hard"].values()) > max(verdict.scores["easy"].values())
    assert 4.5 <= verdict.strength < 6


def test_a_score_within_the_margin_counts_as_protected(photo):
    """The margin is what the search aims at; what is reported is the side of 50."""
    scorer = Brightness(brightness(photo) - 2.5)
    _, verdict = verifier(scorer, "none", margin=20, min_psnr=35.0)(photo, 2.0)
    assert 30 < verdict.score_after < 50
    assert verdict.protected


def test_min_psnr_bounds_the_strength(photo):
    _, verdict = verifier(Brightness(0), "none", min_psnr=38.0)(photo, 1.0)
    assert not verdict.protected
    assert verdict.psnr >= 38.0
    assert verdict.strength > 1.0


def test_refinement_goes_on_where_no_strength_protects(photo):
    scorer = Brightness(brightness(photo) - 3, slope=10)
    _, alone = verifier(scorer, min_psnr=35.0)(photo, 0.5)  # up to 4 times 0.5
    assert not alone.protected
    content, verdict = verifier(scorer, min_psnr=35.0, refine=20)(photo, 0.5)
    assert (verdict.protected, verdict.steps, verdict.strength) == (True, 20, alone.strength)
    assert score_file(content, scorer, "JPEG 90") == verdict.score_after < 50
    assert verdict.psnr >= 35.0


def test_a_file_that_is_there_gets_the_verdict_it_got_when_written(photo):
    verify = verifier(Brightness(brightness(photo) - 1), "JPEG 75")
    content, verdict = verify(photo, 2.0)
    again = verify.check(photo, replace(photo, pixels=decode(content)))
    assert again.strength is again.psnr_as_asked is None
    assert replace(again, strength=verdict.strength, psnr_as_asked=verdict.psnr_as_asked, seconds=verdict.seconds) == verdict
    unchanged = verifier(Brightness(0), "none").check(photo, photo)
    assert (unchanged.protected, unchanged.psnr, unchanged.score_after) == (False, 100.0, unchanged.score_before)


def test_a_file_of_another_size_is_not_checked(photo):
    with pytest.raises(ValueError, match="the existing file has 100x96 px, not 128x96"):
        verifier(Brightness(0)).check(photo, replace(photo, pixels=photo.pixels[..., :100]))


def test_the_bytes_that_were_scored_are_the_bytes_that_are_written(tmp_path, photo, monkeypatch):
    """With an encoder that never gives the same file twice."""
    qualities, save = iter(range(95, 0, -10)), Image.Image.save
    monkeypatch.setattr(Image.Image, "save", lambda self, file, kind, **options: save(self, file, kind, **options | {"quality": next(qualities)}))
    source = tmp_path / "in/a.jpg"
    write(replace(photo, format="JPEG"), source)
    scorer = Brightness(200)  # protected without a change
    jobs, _ = plan([source], tmp_path / "out")
    (done,) = Pipeline(Darker(), verifier=verifier(scorer, "none"))(jobs, faults := [])
    assert not faults
    assert next(qualities) == 65  # one for the original, one at strength 1, one without a change
    assert done.verdict.score_after == score_file(done.destination.read_bytes(), scorer, "none")


@pytest.mark.parametrize(("operation", "width"), [("WebP 80", 16_384), ("JPEG 90", 65_501)])
def test_a_side_too_long_for_the_operation_is_told(operation, width):
    photo = Photo(torch.zeros(3, 16, width, dtype=torch.uint8), "PNG")
    with pytest.raises(ValueError, match=f"--channel '{operation}' fails on {width}x16 px: "):
        verifier(Brightness(0), operation)(photo, 1.0)


@pytest.mark.parametrize("slope", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_told(photo, slope):
    with pytest.raises(RuntimeError, match="the quality model gave"):
        verifier(Brightness(0, slope))(photo, 1.0)


def test_infer_prints_one_line_per_photo_and_fails_where_one_is_unprotected(tmp_path):
    folder = tmp_path / "in"
    for file in sorted((ROOT / "data/sample/test").glob("*.jpg"))[:2]:
        write(Photo(read(file).pixels[:, :192, :256], "PNG"), folder / f"{file.stem}.png")

    def infer(out, *flags):
        command = [sys.executable, "infer.py", str(folder), "--out", str(tmp_path / out), "--verify", "--device", "cpu", *flags]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        return run.returncode, [json.loads(line) for line in run.stdout.splitlines()], run.stderr

    status, lines, told = infer("unchanged", "--strength", "0")
    assert (status, len(lines)) == (1, 2)
    assert all(not line["protected"] and line["score_before"] == line["score_after"] for line in lines)
    assert told.count("not protected") == 2
    status, lines, _ = infer("out", "--refine", "20")
    assert (status, [line["protected"] for line in lines]) == (0, [True, True])
    assert all((tmp_path / "out" / Path(line["written"]).name).is_file() for line in lines)
    status, lines, told = infer("none", "--channel", "JPEG 91")
    assert (status, lines) == (1, [])
    assert told.startswith("error: --channel 'JPEG 91': choose one of none; JPEG 95;")
