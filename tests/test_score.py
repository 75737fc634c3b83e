import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from camo import biqa
from camo.__main__ import main

SAMPLE = Path(__file__).parent.parent / "data" / "sample" / "test"


@pytest.fixture
def folder(tmp_path):
    for photo in sorted(SAMPLE.glob("*.jpg"))[:2]:
        shutil.copy(photo, tmp_path)
    return tmp_path


def test_table_and_json(folder, tmp_path_factory, capsys):
    out = tmp_path_factory.mktemp("out") / "scores.json"
    assert main(["score", str(folder), "--jpeg", "10", "--json", str(out)]) == 0
    rows = json.loads(out.read_text())
    assert [set(row) for row in rows] == [{"path", "score", "score_after"}] * 2
    for row in rows:
        assert row["score"] > 50 > row["score_after"]
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 3
    assert f"{rows[0]['score']:.2f}  high" in table[1]
    assert f"{rows[0]['score_after']:.2f}  low" in table[1]


def test_scores_equal_the_model_on_the_decoded_file(folder, tmp_path_factory):
    from camo.images import read, to_float

    out = tmp_path_factory.mktemp("out") / "scores.json"
    photo = sorted(folder.glob("*.jpg"))[0]
    main(["score", str(photo), "--json", str(out)])
    (row,) = json.loads(out.read_text())
    assert row["score"] == pytest.approx(biqa.load("bundled")(to_float(read(photo).pixels)[None]).item(), abs=1e-4)
    assert row["score_after"] is None


def test_a_bad_photo_is_told_and_the_others_are_scored(folder, capsys):
    (folder / "bad.jpg").write_bytes(b"\xff\xd8 broken")
    assert main(["score", str(folder)]) == 1
    told = capsys.readouterr()
    assert "bad.jpg" in told.err
    assert len(told.out.splitlines()) == 3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["score", "nowhere"], "nowhere"),
        (["score"], "name the photos"),
        (["score", str(SAMPLE), "--biqa", "koncept512:absent.pth"], "absent.pth"),
        (["score", "--self-check"], "--koniq DIR"),
        (["score", "--self-check", "--koniq", "nowhere"], "10990887046.jpg"),
    ],
)
def test_faults_are_one_line(words, told, capsys):
    assert main(words) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert told in lines[0]


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
        return torch.tensor([[*biqa.KONCEPT512_PUBLISHED.values()][round(image.mean().item() * 4)] + self.error])


@pytest.mark.parametrize(("error", "status"), [(0.001, 0), (0.5, 1)])
def test_self_check_compares_with_the_published_scores(tmp_path, monkeypatch, capsys, error, status):
    for level, name in enumerate(biqa.KONCEPT512_PUBLISHED):
        Image.new("RGB", (512, 384), (level * 64,) * 3).save(tmp_path / name)
    monkeypatch.setattr(biqa, "load", lambda spec, device: PublishedScores(error))
    assert main(["score", "--self-check", "--koniq", str(tmp_path)]) == status
    assert "58.59065" in capsys.readouterr().out
