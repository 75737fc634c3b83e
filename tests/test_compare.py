import csv
import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from tqdm import tqdm

from camo.__main__ import main
from camo.attacks import apply
from camo.attacks.adam import AdamL2
from camo.attacks.distortion import at_distortion
from camo.filter.checkpoint import SHIPPED_FILTER
from camo.measure.metrics import psnr
from camo.photos.images import to_float, to_uint8
from camo.quality import models
from camo.verbs.compare import METHODS

SAMPLE = Path(__file__).parent.parent / "data" / "sample" / "test"


@pytest.fixture
def folder(tmp_path):
    """Two small photos of different size."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for photo, size in zip(sorted(SAMPLE.glob("*.jpg")), [(128, 96), (112, 96)], strict=False):
        Image.open(photo).resize(size).save(photos / f"{photo.stem}.png")
    return photos


FAST = ["--steps", "2", "--cw-max-iterations", "2", "--cw-binary-search-steps", "2"]


def test_every_method_in_one_run(folder, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["compare", str(folder), "--out", str(out), "--dev", str(folder), "--through-jpeg", "90", "--cw-targets", "50", "30", *FAST]
    assert main(words) == 0
    rows = {row["method"]: row for row in json.loads((out / "compare.json").read_text())["rows"]}
    plain = [name for name in rows if "at the" not in name]
    assert plain[0] == "filter"
    assert {name.split()[0] for name in plain} == set(METHODS)
    assert {"cw 50", "cw 30", "cw 50 through JPEG 90", "cw-jnd 50", "adam through JPEG 90", "color"} <= set(plain)
    for name in plain[1:]:
        assert rows[f"{name} at the filter's PSNR"]["photos"] == 2
    assert len(list((out / "cw-50-through-JPEG-90").glob("*.png"))) == 2
    assert rows["pgd"]["largest_change"] <= 4
    lines = list(csv.DictReader((out / "table.csv").open()))
    assert [line["method"] for line in lines] == list(rows)
    assert lines[0]["times_the_first"] == "1.0"
    assert all(float(line["times_the_first"]) == pytest.approx(float(line["seconds"]) / float(lines[0]["seconds"])) for line in lines)
    assert (out / "plot.svg").read_text().count("<circle") == len(plain)
    assert len(capsys.readouterr().out.splitlines()) == len(rows) + 2


def test_the_filter_is_what_infer_writes(folder, tmp_path):
    import infer

    main(["compare", str(folder), "--methods", "filter", "--out", str(tmp_path / "out")])
    infer.main([str(folder), "--out", str(tmp_path / "inferred")])
    for photo in folder.iterdir():
        compared, inferred = (Image.open(tmp_path / place / photo.name).tobytes() for place in ("out/filter", "inferred"))
        assert compared == inferred


def test_another_generator_stands_beside_the_filter(folder, tmp_path):
    shutil.copy(SHIPPED_FILTER, tmp_path / "again.safetensors")
    words = ["compare", str(folder), "--methods", "filter", "--generator", f"again={tmp_path / 'again.safetensors'}", "--out", str(tmp_path / "out")]
    assert main(words) == 0
    first, again, scaled = json.loads((tmp_path / "out" / "compare.json").read_text())["rows"]
    assert (again["psnr"], again["operations"]) == (first["psnr"], first["operations"])
    assert scaled["psnr"] == pytest.approx(first["psnr"], abs=0.1)


def test_changes_are_scaled_to_the_wanted_psnr(photos):
    noise = 0.002 * torch.randn(photos.shape, generator=torch.Generator().manual_seed(0))
    scaled = at_distortion(list(photos), list((photos + noise).clamp(0, 1)), 38.0)
    reached = torch.cat([psnr(a[None], to_float(to_uint8(b))[None]) for a, b in zip(photos, scaled, strict=True)]).mean().item()
    assert reached == pytest.approx(38.0, abs=0.15)


@pytest.mark.parametrize("wanted", [36.0, 39.0, 45.0])
def test_a_change_of_whole_steps_can_be_scaled_too(photos, wanted):
    images = 0.1 + 0.8 * photos[:2]
    steps = torch.randint(0, 2, images.shape, generator=torch.Generator().manual_seed(1)) * 4 - 2
    changed = to_float(to_uint8(images)) + steps / 255
    scaled = torch.stack(at_distortion(list(to_float(to_uint8(images))), list(changed), wanted))
    assert psnr(to_float(to_uint8(images)), scaled).mean().item() == pytest.approx(wanted, abs=0.1)
    assert torch.equal(scaled, to_float(to_uint8(scaled)))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--generator", "mine"], "mine: should be NAME=FILE"),
        (["--generator", "mine=nowhere.safetensors"], "nowhere.safetensors: no such checkpoint"),
        (["--biqa", "other"], "unknown quality model"),
        (["--generator", "a=a.safetensors", "a=b.safetensors"], "a=b.safetensors: should be NAME=FILE, with a name of its own"),
        (["--generator", "../a=a.safetensors"], "'../a=a.safetensors': NAME becomes a folder's name"),
        (["--generator", "a\nb=a.safetensors"], r"'a\nb=a.safetensors': NAME becomes a folder's name"),
        (["--generator", "+a=a.safetensors"], "NAME becomes a folder's name"),
        (["--device", "cuda:99"], "--device cuda:99: cannot be used"),
        (["--out", f"{__file__}/below"], f"{__file__}/below"),
    ],
)
def test_faults_are_one_line(folder, tmp_path, capsys, words, told):
    assert main(["compare", str(folder), "--out", str(tmp_path / "out"), "--methods", "filter", *words]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert told in line


@pytest.mark.parametrize("words", [["--batch-size", "0"], ["--through-jpeg", "0"], ["--through-jpeg", "101"], ["--limit", "0"], ["--steps", "-1"]])
def test_numbers_out_of_range_are_wrong_usage(folder, tmp_path, capsys, words):
    with pytest.raises(SystemExit) as caught:
        main(["compare", str(folder), "--out", str(tmp_path / "out"), *words])
    assert caught.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_a_photo_that_cannot_be_measured_is_told_and_the_others_compared(folder, tmp_path, capsys):
    Image.new("RGB", (4, 4)).save(folder / "tiny.png")  # too small for the similarity's window
    assert main(["compare", str(folder), "--out", str(tmp_path / "out"), "--methods", "adam", *FAST]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "tiny.png': cannot be measured: " in line
    assert [row["photos"] for row in json.loads((tmp_path / "out" / "compare.json").read_text())["rows"]] == [2]
    assert not (tmp_path / "out" / "adam" / "tiny.png").exists()


def test_a_method_that_cannot_be_run_is_one_line(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(AdamL2, "__call__", lambda *_: torch.empty(1 << 60))
    assert main(["compare", str(folder), "--out", str(tmp_path / "out"), "--methods", "adam", *FAST]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: adam: cannot be run: ")


def test_progress_within_a_batch(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(apply, "tqdm", lambda **options: tqdm(**options | {"disable": False}))  # though capsys is no terminal
    assert main(["compare", str(folder), "--methods", "adam", "cw", "--out", str(tmp_path / "out"), *FAST]) == 0
    told = capsys.readouterr().err
    for method in ("adam", "cw 50"):
        assert all(re.search(rf"{method}: .*step {step}/2", told) for step in (1, 2))


def test_where_no_clean_photo_scores_high_there_is_no_rate(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(models, "THRESHOLD", 1000.0)
    out = tmp_path / "out"
    assert main(["compare", str(folder), "--methods", "filter", "--out", str(out)]) == 0
    text = (out / "compare.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["rows"][0]["operations"]["JPEG 90"]["protected"] is None
    assert re.search(r"^filter +- +- ", capsys.readouterr().out, re.MULTILINE)
    (line,) = csv.DictReader((out / "table.csv").open())
    assert line["JPEG 90"] == ""
    assert not (out / "plot.svg").exists()


def test_results_say_with_what_they_were_had(folder, tmp_path):
    main(["compare", str(folder), "--methods", "filter", "--out", str(tmp_path / "out")])
    settings = json.loads((tmp_path / "out" / "compare.json").read_text())["settings"]
    assert settings["biqa_sha256"] == hashlib.sha256(models.BUNDLED_WEIGHTS.read_bytes()).hexdigest()
    assert settings["checkpoints_sha256"] == {"filter": hashlib.sha256(SHIPPED_FILTER.read_bytes()).hexdigest()}
    assert (settings["photos"], settings["methods"], settings["cw_targets"]) == ([str(folder)], ["filter"], [50.0])


def test_a_bad_photo_is_told_and_the_others_compared(folder, tmp_path, capsys):
    (folder / "bad.png").write_bytes(b"nothing")
    assert main(["compare", str(folder), "--methods", "filter", "--out", str(tmp_path / "out")]) == 1
    assert "bad.png" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "compare.json").read_text())["rows"][0]["photos"] == 2


def test_larger_photos_than_max_pixels_are_refused_with_the_number(folder, tmp_path, capsys):
    words = ["compare", str(folder), "--methods", "filter", "--out", str(tmp_path / "out"), "--max-pixels"]
    assert main([*words, "1000"]) == 1
    assert capsys.readouterr().err.count("more than the limit of 0.0; --max-pixels raises it") == 2


@pytest.mark.parametrize("name", ["compare.json", "table.csv"])
def test_results_are_not_replaced_unasked(folder, tmp_path, capsys, name):
    (tmp_path / name).write_text("mine")
    assert main(["compare", str(folder), "--methods", "filter", "--out", str(tmp_path)]) == 1
    assert f"holds {name} already" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "mine"
