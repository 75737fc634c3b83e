import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from camo.__main__ import main
from camo.measure.scores import Score
from camo.photos.images import read, to_float
from camo.quality import koncept512, models
from camo.verbs import score

ROOT = Path(__file__).parent.parent
SAMPLE = ROOT / "data" / "sample" / "test"


@pytest.fixture
def folder(tmp_path):
    for photo in sorted(SAMPLE.glob("*.jpg"))[:2]:
        shutil.copy(photo, tmp_path)
    return tmp_path


def test_table_and_json(folder, tmp_path_factory, capsys):
    out = tmp_path_factory.mktemp("out") / "scores.json"
    assert main(["score", str(folder), "--jpeg", "4", "--json", str(out)]) == 0
    rows = json.loads(out.read_text())
    assert [set(row) for row in rows] == [{"path", "score", "score_after"}] * 2
    for row in rows:
        assert row["score"] > 50 > row["score_after"]
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 4
    assert f"{rows[0]['score']:.2f}  high" in table[1]
    assert f"{rows[0]['score_after']:.2f}  low" in table[1]


def test_scores_equal_the_model_on_the_decoded_file(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "scores.json"
    photo = sorted(folder.glob("*.jpg"))[0]
    main(["score", str(photo), "--json", str(out)])
    (row,) = json.loads(out.read_text())
    assert row["score"] == pytest.approx(models.load("bundled")(to_float(read(photo).pixels)[None]).item(), abs=1e-4)
    assert row["score_after"] is None


def test_a_bad_photo_is_told_and_the_others_are_scored(folder, capsys):
    (folder / "bad.jpg").write_bytes(b"\xff\xd8 broken")
    assert main(["score", str(folder)]) == 1
    told = capsys.readouterr()
    assert [line.startswith("error: ") and "bad.jpg" in line for line in told.err.splitlines()] == [True]
    assert len(told.out.splitlines()) == 4
    assert "bundled: 2 photos" in told.out


class Brightness(torch.nn.Module):
    """A quality model of a line: a hundred times the mean of the pixels. Raises for images of more than 4096 px of width."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if image.shape[3] > 4096:
            raise RuntimeError("too wide for me")
        return image.mean(dim=(1, 2, 3)) * 100


@pytest.fixture
def brightness(tmp_path_factory):
    """That model as a TorchScript file; what --biqa names it with."""
    path = tmp_path_factory.mktemp("model") / "brightness.ts"
    torch.jit.script(Brightness()).save(path)
    return str(path)


def test_max_pixels_is_the_limit_that_counts(folder, tmp_path_factory, brightness, capsys, monkeypatch):
    score, evaluate = ([verb, str(folder), "--biqa", brightness] for verb in ("score", "evaluate"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow's own
    assert main([*score, "--jpeg", "90"]) == 0
    assert main([*score, "--max-pixels", "1000"]) == 1
    assert capsys.readouterr().err.count("more than the limit of 0.0; --max-pixels raises it") == 2
    assert main([*evaluate, str(folder), "--out", str(tmp_path_factory.mktemp("out")), "--max-pixels", "1000"]) == 1
    assert "more than the limit of 0.0; --max-pixels raises it" in capsys.readouterr().err


def test_several_models_side_by_side(folder, tmp_path_factory, brightness, capsys):
    out = tmp_path_factory.mktemp("out")
    words = [
        "--biqa",
        "bundled",
        "--biqa",
        brightness,
        "--biqa",
        "bundled",
        "--jpeg",
        "4",
        "--json",
        str(out / "s.json"),
        "--csv",
        str(out / "s.csv"),
    ]
    assert main(["score", str(folder), *words]) == 0
    rows = json.loads((out / "s.json").read_text())
    assert [list(row["scores"]) for row in rows] == [["bundled", brightness]] * 2
    for row in rows:
        assert set(row) == {"path", "scores"}
        pixels = to_float(read(Path(row["path"])).pixels)
        assert row["scores"][brightness]["score"] == pytest.approx(pixels.mean().item() * 100, abs=1e-3)
        assert row["scores"]["bundled"]["score"] > 50 > row["scores"]["bundled"]["score_after"]
    header, first, second, *summary = capsys.readouterr().out.splitlines()
    assert header.split() == ["bundled", "class", "JPEG", "4", "class", brightness, "class", "JPEG", "4", "class", "photo"]
    for line, row in zip((first, second), rows, strict=True):
        columns = [value for one in row["scores"].values() for value in one.values()]
        assert line.split() == [*(word for value in columns for word in (f"{value:.2f}", "high" if value > 50 else "low")), row["path"]]
        assert line.index(row["path"]) == header.index("photo")
    assert [line.split(":")[0] for line in summary] == ["bundled", brightness]
    with (out / "s.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    expected = [(row["path"], model, one["score"], one["score_after"]) for row in rows for model, one in row["scores"].items()]
    assert [(line["path"], line["model"], float(line["score"]), float(line["score_after"])) for line in lines] == expected


def test_summary(folder, tmp_path_factory, capsys):
    out = tmp_path_factory.mktemp("out") / "scores.json"
    main(["score", str(folder), "--json", str(out)])
    lower, upper = sorted(row["score"] for row in json.loads(out.read_text()))
    threshold = (lower + upper) / 2
    capsys.readouterr()
    main(["score", str(folder), "--threshold", str(threshold), "--jpeg", "10"])
    said = capsys.readouterr().out.splitlines()[-1]
    assert said.startswith(f"bundled: 2 photos, mean score {threshold:.2f}, 50.0% above {threshold:g}; after JPEG 10: mean score ")
    assert said.endswith(f", 0.0% above {threshold:g}")


def test_csv_without_jpeg(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "new" / "scores.csv"
    assert main(["score", str(folder), "--csv", str(out)]) == 0
    rows = list(csv.reader(out.read_text().splitlines()))
    assert rows[0] == ["path", "model", "score", "score_after"]
    assert [row[:2] + row[3:] for row in rows[1:]] == [[str(photo), "bundled", ""] for photo in sorted(folder.glob("*.jpg"))]


def test_sub_folders_and_files_without_a_photo_to_score(folder, tmp_path_factory, capsys):
    out = tmp_path_factory.mktemp("out") / "scores.json"
    bad = folder / "below" / "bad.png"
    bad.parent.mkdir()
    bad.write_bytes(b"no picture")
    assert main(["score", str(bad.parent), "--json", str(out)]) == 1
    told = capsys.readouterr()
    assert told.out.splitlines()[-1] == "bundled: 0 photos, none scored"
    assert json.loads(out.read_text()) == []
    assert main(["score", str(folder)]) == 1
    assert capsys.readouterr().err == told.err


def test_a_photo_that_cannot_be_scored_is_told_and_the_others_are_scored(folder, brightness, capsys):
    Image.new("RGB", (5000, 2)).save(folder / "wide.png")
    Image.new("RGB", (70000, 2)).save(folder / "wider.png")  # than a JPEG can be
    assert main(["score", str(folder), "--biqa", brightness, "--jpeg", "90"]) == 1
    told = capsys.readouterr()
    wide, wider = told.err.splitlines()
    assert "wide.png': cannot be scored: " in wide
    assert "too wide for me" in wide
    assert "wider.png': cannot be scored: " in wider
    assert "2 photos" in told.out.splitlines()[-1]


class NotANumber(torch.nn.Module):
    """A quality model that gives NaN for photos of one grey."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        flat = image.flatten(1)
        return 40 + (flat.amax(1) - flat.amin(1)) / (flat.amax(1) - flat.amin(1))


def test_a_score_that_is_no_number_is_a_fault(folder, tmp_path_factory, capsys):
    out = tmp_path_factory.mktemp("out")
    torch.jit.script(NotANumber()).save(out / "model.ts")
    Image.new("RGB", (64, 64), "grey").save(folder / "grey.png")
    assert main(["score", str(folder), "--biqa", str(out / "model.ts"), "--json", str(out / "s.json")]) == 1
    assert "grey.png': cannot be scored: the quality model gave nan" in capsys.readouterr().err
    assert [row["score"] for row in json.loads((out / "s.json").read_text())] == [41, 41]


def test_a_fault_of_the_system_is_one_line(folder, capsys, monkeypatch):
    monkeypatch.setattr(score, "find_photos", lambda paths: (folder / "absent").stat())
    assert main(["score", str(folder)]) == 1
    assert capsys.readouterr().err == f"error: {str(folder / 'absent')!r}: No such file or directory\n"


@pytest.mark.parametrize("flag", ["--json", "--csv"])
def test_nothing_is_overwritten_unasked(folder, tmp_path_factory, capsys, flag):
    out = tmp_path_factory.mktemp("out")
    file = out / "scores"
    file.write_text("mine")
    assert main(["score", str(folder), flag, str(file)]) == 1
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", f"error: {str(file)!r}: exists already; --overwrite replaces it\n")
    assert file.read_text() == "mine"
    assert main(["score", str(folder), flag, str(file), "--overwrite"]) == 0
    assert str(folder) in file.read_text()
    assert main(["score", str(folder), flag, str(out), "--overwrite"]) == 1
    assert capsys.readouterr().err == f"error: {str(out)!r}: cannot be written: not a regular file\n"
    assert list(out.iterdir()) == [file]


def test_a_file_that_appears_meanwhile_is_kept(folder, tmp_path_factory, capsys, monkeypatch):
    file = tmp_path_factory.mktemp("out") / "scores.json"
    monkeypatch.setattr(score, "score_file", lambda *_: file.write_text("mine") and {"bundled": Score(1.0, None)})
    assert main(["score", str(folder), "--json", str(file)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert {path: path.read_text() for path in file.parent.iterdir()} == {file: "mine"}


def test_lines_come_as_they_are_known_and_an_interrupted_run_leaves_no_file(folder, tmp_path_factory, capsys, monkeypatch):
    out = tmp_path_factory.mktemp("out")
    first, second = sorted(folder.glob("*.jpg"))

    def score_first(scorers, path, quality, *settings):
        if path == first:
            return {"bundled": Score(61.5, None)}
        printed = capsys.readouterr().out.splitlines()
        assert path == second
        assert printed[1].split() == ["61.50", "high", str(first)]
        assert sorted(file.suffix for file in out.iterdir()) == [".part", ".part"]
        raise KeyboardInterrupt

    monkeypatch.setattr(score, "score_file", score_first)
    assert main(["score", str(folder), "--json", str(out / "s.json"), "--csv", str(out / "s.csv")]) == 130
    assert list(out.iterdir()) == []


def test_names_that_are_not_unicode(folder, tmp_path_factory, capsys):
    out = tmp_path_factory.mktemp("out")
    odd = folder / "odd" / b"\xff.jpg".decode(errors="surrogateescape")
    odd.parent.mkdir()
    shutil.copy(next(folder.glob("*.jpg")), odd)
    assert main(["score", str(odd.parent), "--json", str(out / "s.json"), "--csv", str(out / "s.csv")]) == 0
    assert "\\udcff.jpg" in capsys.readouterr().out
    assert json.loads((out / "s.json").read_text())[0]["path"] == str(odd)
    assert b"/\xff.jpg,bundled," in (out / "s.csv").read_bytes()


def test_a_reader_that_has_seen_enough(folder):
    """As ``head -1`` does, the pipe is closed after the header; that ends the run without a traceback."""
    command = [sys.executable, "-m", "camo", "score", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        assert run.stdout.readline().split() == [b"bundled", b"class", b"photo"]
        run.stdout.close()
        assert (run.stderr.read(), run.wait(60)) == (b"", 1)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["score", "nowhere"], "nowhere"),
        (["score"], "name the photos"),
        (["score", str(SAMPLE), "--biqa", "koncept512:absent.pth"], "absent.pth"),
        (["score", "--self-check"], "--koniq DIR"),
        (["score", "--self-check", "--koniq", "nowhere"], "10990887046.jpg"),
        (["score", str(SAMPLE), "--json", "-", "--csv", "-"], "only one of them"),
        (["score", str(SAMPLE), "--device", "cuda:99"], "--device cuda:99: cannot be used"),
        (["score", str(SAMPLE), "--device", "toaster"], "--device toaster: cannot be used"),
        (["score", "--self-check", "--koniq", "nowhere", "--device", "toaster"], "--device toaster: cannot be used"),
    ],
)
def test_faults_are_one_line(words, told, capsys):
    assert main(words) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert told in lines[0]


@pytest.mark.parametrize(("flag", "read"), [("--csv", lambda text: list(csv.DictReader(text.splitlines()))), ("--json", json.loads)])
def test_a_dash_is_the_standard_output(folder, capsysbinary, monkeypatch, flag, read):
    monkeypatch.chdir(folder)
    shutil.copy(next(folder.glob("*.jpg")), b"\xff.jpg".decode(errors="surrogateescape"))
    assert main(["score", ".", flag, "-"]) == 0
    told = capsysbinary.readouterr()  # of bytes, which need not be Unicode
    assert [Path(row["path"]).suffix for row in read(told.out.decode(errors="surrogateescape"))] == [".jpg"] * 3
    header, *lines, summary = told.err.decode().splitlines()
    assert header.split() == ["bundled", "class", "photo"]
    assert len(lines) == 3
    assert summary.startswith("bundled: 3 photos, mean score ")
    assert not Path("-").exists()


def test_a_dash_beside_a_file(folder, tmp_path_factory, capsys):
    out = tmp_path_factory.mktemp("out") / "s.csv"
    assert main(["score", str(folder), "--csv", str(out), "--json", "-"]) == 0
    assert [row["path"] for row in json.loads(capsys.readouterr().out)] == [row["path"] for row in csv.DictReader(out.open())]


def test_names_that_a_spreadsheet_would_run(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    shutil.copy(next(folder.glob("*.jpg")), "=1+1.jpg")
    assert main(["score", "=1+1.jpg", "--csv", "-"]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("./=1+1.jpg,bundled,")


@pytest.mark.parametrize("verb", ["score", "evaluate", "compare"])
def test_help_says_that_a_torchscript_file_is_code(verb, capsys):
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    assert "load only files that you trust" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("quality", ["0", "101", "x"])
def test_a_quality_that_is_none_is_wrong_usage(quality):
    with pytest.raises(SystemExit) as caught:
        main(["score", str(SAMPLE), "--jpeg", quality])
    assert caught.value.code == 2


class PublishedScores(torch.nn.Module):
    """Tells the four photos apart by their grey level and gives the published scores, off by ``error``."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def forward(self, image):
        return torch.tensor([[*koncept512.PUBLISHED.values()][round(image.mean().item() * 4)] + self.error])


@pytest.mark.parametrize(("error", "status"), [(0.001, 0), (0.5, 1)])
def test_self_check_compares_with_the_published_scores(tmp_path, monkeypatch, capsys, error, status):
    for level, name in enumerate(koncept512.PUBLISHED):
        Image.new("RGB", (512, 384), (level * 64,) * 3).save(tmp_path / name)
    monkeypatch.setattr(models, "load", lambda spec, device: PublishedScores(error))
    assert main(["score", "--self-check", "--koniq", str(tmp_path)]) == status
    assert "58.59065" in capsys.readouterr().out
