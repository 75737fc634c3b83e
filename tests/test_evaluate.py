import csv
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import to_pil_image

from camo.__main__ import main
from camo.measure.metrics import psnr, worst_patch_psnr
from camo.measure.operations import QUICK
from camo.photos.images import jpeg_roundtrip, read, to_float
from camo.quality import koncept512, models

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "data" / "sample" / "test"


@pytest.fixture
def folders(tmp_path):
    """Two originals, and versions of them: one ruined by JPEG 5, one as it was, the second under a run code."""
    originals, filtered = tmp_path / "originals", tmp_path / "filtered"
    originals.mkdir()
    filtered.mkdir()
    first, second = sorted(SAMPLE.glob("*.jpg"))[:2]
    for photo in (first, second):
        shutil.copy(photo, originals)
    Image.open(first).save(filtered / f"{first.stem}.jpg", quality=5)
    Image.open(second).save(filtered / f"team_base_{second.stem}.png")
    return originals, filtered


def evaluate(originals, *filtered, out, more=()):
    return main(["evaluate", str(originals), *map(str, filtered), "--out", str(out), "--quick", "--overwrite", *more])


def strict(text):
    """JSON without NaN and Infinity, which Python alone reads."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def results(out):
    return strict((out / "summary.json").read_text())["results"]


def test_photos_of_one_name_in_two_folders_are_told_apart(tmp_path):
    for folder, photo in zip("ab", sorted(SAMPLE.glob("*.jpg")), strict=False):
        (tmp_path / "photos" / folder).mkdir(parents=True)
        shutil.copy(photo, tmp_path / "photos" / folder / "IMG_1.jpg")
    assert evaluate(tmp_path / "photos", tmp_path / "photos", out=tmp_path / "out") == 0
    rows = list(csv.DictReader((tmp_path / "out" / "images.csv").open()))
    assert [(row["name"], float(row["psnr"])) for row in rows] == [("a/IMG_1.jpg", 100), ("b/IMG_1.jpg", 100)]


def test_only_some_operations(folders, tmp_path):
    assert main(["evaluate", *map(str, folders), "--out", str(tmp_path / "out"), "--only", "flip"]) == 0
    (figures,) = results(tmp_path / "out").values()
    assert set(figures["operations"]) == {"JPEG 90", "JPEG 75", "flip"}


def test_figures_are_those_of_the_files(folders, tmp_path, capsys):
    originals, filtered = folders
    assert evaluate(originals, filtered, out=tmp_path / "out") == 0
    (figures,) = results(tmp_path / "out").values()
    at90 = figures["operations"]["JPEG 90"]
    assert figures["photos"] == 2
    assert at90["protected"] == at90["accuracy"] == 0.5  # the ruined one
    assert set(figures["operations"]) == set(QUICK)
    rows = list(csv.DictReader((tmp_path / "out" / "images.csv").open()))
    ruined = next(row for row in rows if not row["name"].startswith("team"))
    before, after = (to_float(read(folder / ruined["name"]).pixels)[None] for folder in folders)
    assert float(ruined["psnr"]) == pytest.approx(psnr(before, after).item())
    assert float(ruined["worst_patch_psnr"]) == pytest.approx(worst_patch_psnr(before, after).item())
    assert float(ruined["worst_patch_psnr"]) < float(ruined["psnr"])
    assert int(ruined["largest_change"]) == round(255 * (before - after).abs().max().item())
    scorer = models.load("bundled")
    assert float(ruined["filtered JPEG 90"]) == pytest.approx(scorer(jpeg_roundtrip(after, 90)).item(), abs=1e-3)
    assert float(ruined["clean none"]) == pytest.approx(scorer(before).item(), abs=1e-3)
    assert re.search(r"^JPEG 90 +50\.0%", capsys.readouterr().out, re.MULTILINE)


def test_regularity_and_coherence_stand_in_the_summary_the_table_and_the_report(tmp_path, capsys):
    lines = torch.arange(128) // 2 % 2
    for name, row in (("in", 127 + 0 * lines), ("out", 127 + 4 * lines)):
        (tmp_path / name).mkdir()
        to_pil_image(row.to(torch.uint8).expand(3, 96, -1)).save(tmp_path / name / "a.png")
    assert evaluate(tmp_path / "in", tmp_path / "out", out=tmp_path / "report") == 0
    (figures,) = results(tmp_path / "report").values()
    assert min(figures[key] for key in ("regularity", "regularity_90th_percentile", "coherence", "coherence_90th_percentile")) > 0.8
    shown = [f"{figures[key]:.2f}" for key in ("regularity", "regularity_90th_percentile", "coherence", "coherence_90th_percentile")]
    assert "{} ({}), {} ({})".format(*shown) in capsys.readouterr().out
    assert "\n".join(f"<td>{value}</td>" for value in shown) in re.sub(r"\n\s*", "\n", (tmp_path / "report" / "report.html").read_text())


def test_summary_says_with_what_it_was_measured(folders, tmp_path):
    checkpoint = tmp_path / "filter.safetensors"
    checkpoint.write_bytes(b"weights")
    evaluate(*folders, out=tmp_path / "out", more=["--checkpoint", str(checkpoint), "--threshold", "45"])
    settings = json.loads((tmp_path / "out" / "summary.json").read_text())["settings"]
    assert settings["checkpoint_sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert (settings["biqa"], settings["threshold"], settings["torch"]) == ("bundled", 45.0, torch.__version__)
    assert settings["biqa_sha256"] == hashlib.sha256(models.BUNDLED_WEIGHTS.read_bytes()).hexdigest()


def test_the_file_of_a_quality_model():
    assert models.weights_of("koncept512") == koncept512.WEIGHTS
    assert models.weights_of("koncept512:mine.pth") == Path("mine.pth")
    assert models.weights_of("a:b.ts") == Path("a:b.ts")


class Constant(torch.nn.Module):
    """A quality model that gives any photo the same score, or NaN for those of one grey."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        flat = image.flatten(1)
        return 40 + (flat.amax(1) - flat.amin(1)) / (flat.amax(1) - flat.amin(1))


@pytest.fixture
def constant(tmp_path):
    """That model as a TorchScript file; what --biqa names it with."""
    torch.jit.script(Constant()).save(tmp_path / "constant.ts")
    return str(tmp_path / "constant.ts")


def test_where_no_clean_photo_scores_high_there_is_no_rate(folders, tmp_path, constant, capsys):
    out = tmp_path / "out"
    assert evaluate(*folders, out=out, more=["--biqa", constant]) == 0
    (figures,) = results(out).values()
    assert figures["operations"]["JPEG 90"]["protected"] is None
    assert figures["operations"]["JPEG 90"]["low_when_clean"] == 2
    assert re.search(r"^JPEG 90 +- +0% - 100%", capsys.readouterr().out, re.MULTILINE)
    assert "filtered & - & - & " in (out / "table.tex").read_text()
    page = (out / "report.html").read_text()
    assert "2 photos, - protected at JPEG 90" in page
    assert "<td>-</td>" in page
    assert not re.search(r"\bnan\b|None", re.sub('base64,[^"]*', "", page))
    settings = json.loads((out / "summary.json").read_text())["settings"]
    assert settings["biqa_sha256"] == hashlib.sha256(Path(constant).read_bytes()).hexdigest()


def test_a_score_that_is_no_number_is_a_fault(folders, tmp_path, constant, capsys):
    originals, filtered = folders
    for folder in folders:
        Image.new("RGB", (64, 64), "grey").save(folder / "grey.png")
    assert evaluate(originals, filtered, out=tmp_path / "out", more=["--biqa", constant]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "grey.png': cannot be measured: the quality model gave nan" in line
    assert next(iter(results(tmp_path / "out").values()))["photos"] == 2


@pytest.mark.parametrize("side", [70_000, 20_000])
def test_a_photo_too_long_for_a_jpeg_or_a_webp_is_a_fault(folders, tmp_path, capsys, side):
    for folder in folders:
        Image.new("RGB", (side, 16)).save(folder / "long.png")
    assert evaluate(*folders, out=tmp_path / "out") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "long.png': cannot be measured: " in line


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--device", "cuda:99"], "--device cuda:99: cannot be used"),
        (["--device", "toaster"], "--device toaster: cannot be used"),
        (["--out", "{file}/below"], "{file}/below"),
        (["--out", "{file}"], "{file}"),
    ],
)
def test_faults_are_one_line(folders, tmp_path, capsys, words, told):
    file = tmp_path / "file"
    file.touch()
    assert evaluate(*folders, out=tmp_path / "out", more=[word.format(file=file) for word in words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert told.format(file=file) in line


def test_names_that_are_not_unicode(folders, tmp_path):
    originals, filtered = folders
    odd = b"\xff.png".decode(errors="surrogateescape")
    for folder in folders:
        shutil.copy(next(filtered.glob("*.png")), folder / odd)
    filtered = filtered.rename(tmp_path / b"\xfe_$".decode(errors="surrogateescape"))
    Image.new("RGB", (64, 64)).save(filtered / b"\xfd.png".decode(errors="surrogateescape"))  # a fault to tell
    command = [sys.executable, "-m", "camo", "evaluate", originals, filtered, "--out", tmp_path / "out", "--only", "none"]
    run = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "utf-8:strict"}, cwd=ROOT, check=False)
    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    assert b"\\udcfd.png': no original" in line
    assert b"\\udcfe_$" in run.stdout
    assert odd in {row["name"] for row in csv.DictReader(io.StringIO((tmp_path / "out" / "images.csv").read_text().replace("\\udcff", "\udcff")))}
    assert "\\udcff.png" in (tmp_path / "out" / "report.html").read_text()
    assert str(filtered) in results(tmp_path / "out")
    assert r"\textbackslash{}udcfe\_\$ &" in (tmp_path / "out" / "table.tex").read_text()


@pytest.mark.parametrize("name", ["summary.json", "table.tex"])
def test_files_are_not_replaced_unasked(folders, tmp_path, capsys, name):
    (tmp_path / name).write_text("mine")
    assert main(["evaluate", *map(str, folders), "--out", str(tmp_path), "--quick"]) == 1
    assert f"holds {name} already" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "mine"


def test_the_report_stands_by_itself(folders, tmp_path):
    evaluate(*folders, out=tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert not re.search(r"\$\w", page.split("<script>")[0])
    assert set(re.findall(r'src="(data:image/webp|[^"]{0,20})', page)) == {"data:image/webp"}
    assert not re.search(r'(href|src)="http', page)
    ruined = sorted(SAMPLE.glob("*.jpg"))[0].name
    for expected in (ruined, "50.0%", "resize 0.5 and back", "<svg", 'type="range"', "@media print"):
        assert expected in page
    assert "\\toprule" in (tmp_path / "out" / "table.tex").read_text()
    assert "filtered & 50.0 &" in (tmp_path / "out" / "table.tex").read_text()


def test_several_folders_stand_beside_each_other(folders, tmp_path, capsys):
    originals, filtered = folders
    assert evaluate(originals, filtered, originals, out=tmp_path / "out") == 0
    figures = results(tmp_path / "out")[str(originals)]
    assert figures["operations"]["JPEG 90"]["protected"] == 0
    assert figures["psnr"] == 100
    assert str(originals) in capsys.readouterr().out


def test_what_has_no_partner_or_another_size_is_named_and_the_rest_measured(folders, tmp_path, capsys):
    originals, filtered = folders
    Image.new("RGB", (64, 64)).save(filtered / "stranger.png")
    next(filtered.glob("team_*")).unlink()
    (lost,) = (photo for photo in originals.iterdir() if not (filtered / photo.name).exists())
    assert evaluate(originals, filtered, out=tmp_path / "out") == 1
    told = capsys.readouterr().err
    assert "stranger.png" in told
    assert lost.name in told
    (kept,) = (photo for photo in filtered.iterdir() if photo.name != "stranger.png")
    Image.open(kept).resize((256, 192)).save(kept)
    assert evaluate(originals, filtered, out=tmp_path / "out") == 1
    assert "not the size of its original (512x384 and 256x192)" in capsys.readouterr().err


def test_photos_that_score_low_when_clean_are_left_out_of_the_rate(folders, tmp_path):
    originals, filtered = folders
    ruined = next(photo for photo in filtered.iterdir() if photo.suffix == ".jpg")
    shutil.copy(ruined, originals / ruined.name)
    evaluate(originals, filtered, out=tmp_path / "out")
    (figures,) = results(tmp_path / "out").values()
    assert figures["operations"]["JPEG 90"]["low_when_clean"] == 1
    assert figures["operations"]["JPEG 90"]["protected"] == 0  # the other photo was not changed
