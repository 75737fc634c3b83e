"""Looks from the command lines inwards: infer, evaluate, export and looks."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from camo.__main__ import main
from camo.camouflage.looks import OneLook, SuitableLook, suitable
from camo.export import export, formats
from camo.filter.checkpoint import save_filter
from camo.filter.full_size import FullSize
from camo.filter.look_pixels import Looked, LookPixels
from camo.filter.look_settings import LOOKS, LookChoice
from camo.filter.looks import Look
from camo.filter.two_pass import TwoPass
from camo.measure.appeal import colourfulness, contrast, newly_clipped
from camo.measure.metrics import psnr
from camo.photos.images import Photo, read, to_float, to_uint8, write
from camo.quality import models

COLOURED = ["vivid", "warm", "golden", "cool", "film"]


class Sharpness(torch.nn.Module):
    """A scorer that takes no time: 90 for a flat photo, less the more it holds."""

    looks_at = "the whole photo"

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return 90 - 400 * (image[..., 1:] - image[..., :-1]).abs().mean((1, 2, 3))


@pytest.fixture
def sharpness(monkeypatch):
    monkeypatch.setattr(models, "load", lambda spec, device: Sharpness())


@pytest.fixture
def folder(tmp_path, small_filter, photos):
    """A checkpoint, and photos/{a,b}.png of 128x96 px."""
    save_filter(tmp_path / "filter.safetensors", small_filter, {})
    for name, photo in zip("ab", photos, strict=False):
        write(Photo(to_uint8(photo[:, 100:196, 100:228]), "PNG"), tmp_path / "photos" / f"{name}.png")
    return tmp_path


def infer(folder, out, *flags):
    return main(["infer", str(folder / "photos"), "--out", str(folder / out), "--checkpoint", str(folder / "filter.safetensors"), *flags])


def pixels(path):
    return read(path).pixels[None]


# infer


def test_the_file_holds_the_filter_on_the_look(folder, small_filter):
    assert infer(folder, "out", "--look", "golden:0.8", "--device", "cpu") == 0
    for name in "ab":
        looked = LookPixels(Look(LOOKS["golden"], 0.8))(pixels(folder / "photos" / f"{name}.png"))
        expected = FullSize(small_filter)(looked)
        assert (pixels(folder / "out" / f"{name}.png").int() - expected.int()).abs().max() <= 1
        assert (expected != looked).any()


def test_amount_0_writes_the_bytes_of_no_look(folder):
    assert infer(folder, "plain") == infer(folder, "zero", "--look", "film:0") == infer(folder, "auto", "--look", "auto:0") == 0
    for name in ("a.png", "b.png"):
        assert (folder / "plain" / name).read_bytes() == (folder / "zero" / name).read_bytes() == (folder / "auto" / name).read_bytes()


def test_strength_0_writes_the_look_alone(folder):
    assert infer(folder, "out", "--look", "film", "--strength", "0") == 0
    assert torch.equal(pixels(folder / "out" / "a.png"), LookPixels(Look(LOOKS["film"]))(pixels(folder / "photos" / "a.png")))


def test_verdicts_are_against_the_looked_photo_also_of_files_that_are_there(folder, sharpness, capsys):
    for _ in range(2):  # the second run checks the files of the first
        infer(folder, "out", "--look", "film", "--verify", "--channel", "none")
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [line["look"] for line in lines] == ["film", "film"]
        for line in lines:
            looked = LookPixels(Look(LOOKS["film"]))(pixels(Path(line["path"])))
            written = pixels(Path(line["written"]))
            assert line["psnr"] == pytest.approx(psnr(to_float(looked), to_float(written)).item(), abs=1e-3)
            assert line["score_before"] == pytest.approx(Sharpness()(to_float(looked)).item(), abs=1e-3)


def test_a_file_that_another_run_wrote_meanwhile_is_checked_with_one_look_not_two(folder, sharpness, capsys, monkeypatch):
    infer(folder, "out", "--look", "golden", "--verify", "--channel", "none")
    first = {line["path"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    monkeypatch.setattr("camo.camouflage.plan.os.path.lexists", lambda path: False)  # the plan does not see them yet
    infer(folder, "out", "--look", "golden", "--verify", "--channel", "none")
    for line in map(json.loads, capsys.readouterr().out.splitlines()):
        assert line["score_before"] == first[line["path"]]["score_before"]
        assert line["psnr"] == pytest.approx(first[line["path"]]["psnr"], abs=1e-3)


@pytest.mark.parametrize("verb", ["infer", "evaluate", "export"])
@pytest.mark.parametrize(("look", "problem"), [("gold", "no look is called 'gold'"), ("warm:2", "a number from 0 to 1.5"), ("warm:", "a number")])
def test_what_is_no_look_is_wrong_usage(verb, look, problem, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([verb, "a", "b", "--out", str(tmp_path / "out"), "--look", look])
    assert problem in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_biqa_goes_with_verify_or_auto(folder, capsys):
    with pytest.raises(SystemExit, match="2"):
        infer(folder, "out", "--look", "warm", "--biqa", "bundled")
    assert "--biqa: needs --verify or --look auto" in capsys.readouterr().err


# auto


@pytest.mark.parametrize(
    ("colour", "expected"),
    [
        ((0.5, 0.5, 0.5), COLOURED),
        ((0.7, 0.5, 0.4), ["vivid", "cool", "film"]),
        ((0.4, 0.5, 0.6), ["vivid", "warm", "golden", "film"]),
    ],
)
def test_what_suits(colour, expected):
    assert suitable(to_uint8(torch.tensor(colour).view(1, 3, 1, 1).expand(-1, -1, 20, 20))) == expected


class LooksDiffer(torch.nn.Module):
    """A filter that takes 20 steps of strength off all values; as ``FullSize``, on 8-bit pixels."""

    def prepare(self, pixels):
        return lambda strength: (pixels.float() - 20 * strength).clamp(0, 255).round().byte()


class Scores(torch.nn.Module):
    """A scorer by the mean: protected below ``middle``."""

    def __init__(self, middle):
        super().__init__()
        self.middle = middle

    def forward(self, image):
        return 50 + 255 * image.mean((1, 2, 3)) - self.middle


def test_auto_takes_the_look_that_is_protected_at_the_least_strength():
    grey = torch.full((1, 3, 32, 48), 200, dtype=torch.uint8)
    means = {name: LookPixels(Look(LOOKS[name]))(grey).float().mean().item() for name in COLOURED}
    darkest = min(means, key=means.get)
    others = sorted(means.values())[1]
    assert others - means[darkest] > 0.2
    chooser = SuitableLook(LooksDiffer(), [Scores((others + means[darkest]) / 2 - 10)], strength=1.0)  # at half the strength, one alone is protected
    assert chooser.choose(grey) == darkest
    assert SuitableLook(LooksDiffer(), [Scores(1000), Scores(-1000)]).choose(grey) == darkest  # one model is never fooled: the lowest score
    name, photo = chooser(Photo(grey[0], "PNG"))
    assert name == darkest
    assert torch.equal(photo.pixels, LookPixels(Look(LOOKS[darkest]))(grey)[0])


def test_infer_reports_the_look_that_auto_chose(folder, sharpness, capsys):
    assert infer(folder, "out", "--look", "auto:1.2") == 0
    told = re.findall(r"^'.*/([ab])\.png': (\S+):1\.2$", capsys.readouterr().out, re.MULTILINE)
    assert [name for name, _ in told] == ["a", "b"]
    assert infer(folder, "alone", "--look", "auto:1.2", "--strength", "0") == 0
    for name, look in re.findall(r"^'.*/([ab])\.png': (\S+):1\.2$", capsys.readouterr().out, re.MULTILINE):
        assert look in COLOURED
        expected = OneLook(look, 1.2)(read(folder / "photos" / f"{name}.png"))[1].pixels
        assert torch.equal(pixels(folder / "alone" / f"{name}.png")[0], expected)


# evaluate


def test_evaluate_measures_against_the_look_and_prints_the_control(folder, sharpness, capsys):
    infer(folder, "out", "--look", "film")
    arguments = ["evaluate", str(folder / "photos"), str(folder / "out"), "--quick", "--out"]
    assert main([*arguments, str(folder / "figures"), "--look", "film"]) == 0
    printed = capsys.readouterr().out
    assert "the look alone, after" in printed
    document = json.loads((folder / "figures" / "summary.json").read_text())
    assert document["settings"]["look"] == "film"
    (figures,) = document["results"].values()
    looked = {name: LookPixels(Look(LOOKS["film"]))(pixels(folder / "photos" / name)) for name in ("a.png", "b.png")}
    distances = [psnr(to_float(looked[name]), to_float(pixels(folder / "out" / name))).item() for name in looked]
    assert figures["psnr"] == pytest.approx(sum(distances) / 2)
    control = figures["look"]["none"]
    plain = [Sharpness()(to_float(pixels(folder / "photos" / name))).item() for name in looked]
    alone = [Sharpness()(to_float(looked[name])).item() for name in looked]
    assert (control["score_plain"], control["score_looked"]) == pytest.approx((sum(plain) / 2, sum(alone) / 2), abs=1e-3)
    rows = list(csv.DictReader((folder / "figures" / "images.csv").open()))
    assert [float(row["plain none"]) for row in rows] == pytest.approx(plain, abs=1e-3)
    assert main([*arguments, str(folder / "plain")]) == 0
    (figures,) = json.loads((folder / "plain" / "summary.json").read_text())["results"].values()
    assert figures["look"] == {}
    assert figures["psnr"] < min(distances)


# export


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_look_goes_into_torchscript_with_the_filter(small_filter, tmp_path):
    look = Look(LOOKS["film"])
    (tmp_path / "filter.ts").write_bytes(formats.torchscript(export.LookedFilter(look, TwoPass(small_filter)).eval(), {}))
    script = torch.jit.load(tmp_path / "filter.ts")
    for size in [(1, 16, 16), (2, 97, 130)]:
        photo = to_uint8(export.photo_like(*size))
        expected = FullSize(small_filter)(LookPixels(look)(photo))
        assert (to_uint8(script(to_float(photo), 1.0)).int() - expected.int()).abs().max() <= 1


@pytest.mark.parametrize("name", ["golden", "film"])
def test_a_look_goes_into_torch_export_and_onnx(name):
    look = Look(LOOKS[name])
    program = formats.trace(Looked(look).eval(), image=export.photo_like(2, 48, 64))
    session = onnxruntime.InferenceSession(formats.onnx(program, ("image",), "looked", {}))
    for size in [(1, 16, 16), (2, 97, 130), (1, 1000, 900)]:
        photo = to_uint8(export.photo_like(*size))
        expected = LookPixels(look)(photo)
        for looked in (program.module()(to_float(photo)), torch.from_numpy(session.run(None, {"image": to_float(photo).numpy()})[0])):
            assert (to_uint8(looked).int() - expected.int()).abs().max() <= 1
            assert (to_uint8(looked) != expected).float().mean() < 1e-3


def test_export_puts_the_look_into_the_files_and_their_provenance(folder, monkeypatch):
    written = {}
    monkeypatch.setattr(export, "missing_onnx_packages", lambda: ["onnx"])
    monkeypatch.setattr(export, "trace", lambda *args, **kwargs: None)
    monkeypatch.setattr(export, "serialized", lambda *args: b"")
    monkeypatch.setattr(export, "torchscript", lambda model, provenance: (model, provenance))
    monkeypatch.setattr(export, "write", lambda path, content, cases, tolerance: written.update({path.name: (content, cases)}))
    command = ["export", "--checkpoint", str(folder / "filter.safetensors"), "--out", str(folder / "exported"), "--look", "warm:0.5"]
    assert main(command) == 0
    (model, provenance), cases = written["filter.ts"]
    assert (provenance["look"]["name"], provenance["look"]["amount"], provenance["look"]["numbers"]["warmth"]) == ("warm", 0.5, LOOKS["warm"].warmth)
    smallest = cases[0]
    assert (to_uint8(model(smallest["image"], 1.0)).int() - smallest["expected"].int()).abs().max() <= 1
    assert LookChoice("warm", 0.5).name in provenance["look"]["name"]
    assert main(["export", "--what", "biqa", "--look", "warm", "--out", str(folder / "other")]) == 1


# looks


def looks(folder, *flags, out="sheet.png", photo="photos/a.png"):
    return main(["looks", str(folder / photo), "--out", str(folder / out), "--checkpoint", str(folder / "filter.safetensors"), *flags])


def test_looks_shows_and_scores_every_look(folder, sharpness, capsys):
    assert looks(folder, "--device", "cpu") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["look", "no", *LOOKS, "contact"]
    with Image.open(folder / "sheet.png") as sheet:
        assert sheet.size == (3 * 128, 3 * (96 + 28))


@pytest.mark.parametrize(
    ("flags", "changes", "problem"),
    [
        ([], {"out": "sheet.jpg"}, "its name should end in .png"),
        ([], {"photo": "photos/c.png"}, "c.png"),
        ([], {"photo": "filter.safetensors"}, "filter.safetensors"),
        ([], {"photo": "tiny.png"}, "8x9 px; the filter needs 16 px or more on each side"),
        (["--biqa", "nothing.ts"], {}, "nothing.ts"),
        ([], {"out": "there.png"}, "there.png exists; --overwrite replaces it"),
    ],
)
def test_faults_are_told_in_one_line_and_no_sheet_is_left(folder, flags, changes, problem, capsys):
    Image.fromarray(np.zeros((9, 8, 3), np.uint8)).save(folder / "tiny.png")
    (folder / "there.png").write_text("precious")
    assert looks(folder, *flags, **changes) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert problem in line
    assert not (folder / "sheet.png").exists()
    assert (folder / "there.png").read_text() == "precious"


@pytest.mark.parametrize("amount", ["0", "1.6", "nan"])
def test_an_amount_out_of_its_range_is_wrong_usage(folder, amount, capsys):
    with pytest.raises(SystemExit, match="2"):
        looks(folder, "--amount", amount)
    assert "should be above 0 and at most 1.5" in capsys.readouterr().err


# Appeal


def test_appeal_of_known_pictures():
    grey, red = torch.full((1, 3, 4, 4), 0.5), torch.tensor([1.0, 0, 0]).view(1, 3, 1, 1).expand(-1, -1, 4, 4)
    assert colourfulness(torch.cat([grey, red])).tolist() == pytest.approx([0, 0.3 * 255 * 1.25**0.5], rel=1e-4)
    halves = torch.zeros(1, 3, 4, 4)
    halves[..., 2:] = 1
    assert contrast(torch.cat([grey, halves])).tolist() == pytest.approx([0, 0.5], abs=1e-6)
    before = torch.full((1, 3, 2, 2), 9, dtype=torch.uint8)
    after = before.clone()
    before[0, 0, 0, 0], after[0, :, 0, 0], after[0, 2, 1, 1] = 0, 0, 255
    assert newly_clipped(before, after).tolist() == [0.25]
