"""``python -m camo package`` on runs of three small images, each test with one fault in an otherwise sound run."""

import io
import os
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from camo.__main__ import main
from camo.task import archives, package

CODE = "rteam_base"
STEMS = ["Places365_val_00000001", "Places365_val_00014191", "Places365_val_00015483"]
FIRST = f"{CODE}_{STEMS[0]}"


def picture(seed: int, size: tuple[int, int] = (512, 384), mode: str = "RGB", kind: str = "PNG") -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize(size, Image.Resampling.BILINEAR).convert(mode).save(file, kind)
    return file.getvalue()


class Run:
    """Originals as PNG, their filtered versions as JPEG without prefix, and the commands on them."""

    def __init__(self, folder: Path) -> None:
        self.originals, self.filtered, self.out = folder / "originals", folder / "filtered", folder / "runs"
        self.archive = self.out / f"{CODE}.zip"
        self.originals.mkdir()
        self.filtered.mkdir()
        for i, stem in enumerate(STEMS):
            (self.originals / f"{stem}.png").write_bytes(picture(i))
            (self.filtered / f"{stem}.jpg").write_bytes(picture(i, kind="JPEG"))

    @property
    def first(self) -> Path:
        return self.filtered / f"{STEMS[0]}.jpg"

    def build(self, *more: str, code: str = CODE) -> int:
        return main(["package", str(self.filtered), "--run-code", code, "--originals", str(self.originals), "--out", str(self.out), *more])

    def check(self) -> int:
        return main(["package", "--check", str(self.archive), "--originals", str(self.originals)])

    def members(self) -> list[tuple[str, bytes]]:
        with zipfile.ZipFile(self.archive) as archive:
            return [(info.filename, archive.read(info)) for info in archive.infolist()]

    def write(self, members: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> None:
        with zipfile.ZipFile(self.archive, "w", method) as archive:
            for name, data in members:
                archive.writestr(name, data)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


@pytest.fixture
def built(run: Run, capsys) -> Run:
    assert run.build() == 0
    capsys.readouterr()
    return run


def faults(capsys) -> list[str]:
    """The lines on stderr, without the last, which counts them."""
    *lines, last = capsys.readouterr().err.splitlines()
    assert last.endswith(f": faults: {len(lines)}"), last
    assert all(line.startswith("error: ") for line in lines)
    return [line.removeprefix("error: ") for line in lines]


# Building


def test_a_run_is_named_and_holds_each_image_unchanged(run: Run, capsys):
    assert run.build() == 0
    assert [path.name for path in run.out.iterdir()] == ["rteam_base.zip"]
    assert run.members() == [(f"{CODE}_{stem}.jpg", (run.filtered / f"{stem}.jpg").read_bytes()) for stem in STEMS]
    told = capsys.readouterr()
    assert (told.out, told.err) == (f"{run.archive}: 3 images, no fault\n", "")
    assert run.check() == 0
    assert capsys.readouterr().out == told.out


def test_names_that_bear_the_prefix_already(run: Run):
    assert run.build() == 0
    expected = run.archive.read_bytes()
    run.first.rename(run.filtered / f"{FIRST}.jpg")
    (run.filtered / "below").mkdir()
    (run.filtered / f"{STEMS[1]}.jpg").rename(run.filtered / "below" / f"{CODE}_{STEMS[1]}.jpg")
    assert run.build("--overwrite") == 0
    assert run.archive.read_bytes() == expected


def test_the_archive_is_the_same_byte_for_byte(run: Run, tmp_path: Path):
    """Other dates, permissions, order of creation, umask and place, and another time of day."""
    assert run.build() == 0
    other = tmp_path / "other"
    other.mkdir()
    twin = Run(other)
    shutil.rmtree(twin.filtered)
    twin.filtered.mkdir()
    for stem in reversed(STEMS):
        file = twin.filtered / f"{stem}.jpg"
        file.write_bytes((run.filtered / file.name).read_bytes())
        file.chmod(0o600)
        os.utime(file, (1e9, 1e9))
    command = [sys.executable, "-m", "camo", "package", twin.filtered, "--run-code", CODE, "--originals", twin.originals, "--out", twin.out]
    environment = os.environ | {"TZ": "Pacific/Auckland"}
    done = subprocess.run(command, cwd=Path(package.__file__).parents[2], env=environment, umask=0o077, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert twin.archive.read_bytes() == run.archive.read_bytes()
    with zipfile.ZipFile(run.archive) as archive:
        assert {(i.date_time, i.external_attr >> 16, i.create_system) for i in archive.infolist()} == {((1980, 1, 1, 0, 0, 0), 0o100644, 3)}


@pytest.mark.parametrize("code", ["rteam", "_base", "rteam_", "rteam_a b", "rteam/x_base", "rteam_../x", "rteam_1.3", "rtéam_base", "-x_y", "a_b\n"])
def test_codes_that_are_none(run: Run, capsys, code):
    arguments = [str(run.filtered), f"--run-code={code}", "--originals", str(run.originals), "--out", str(run.out)]
    assert main(["package", *arguments]) == 1
    assert capsys.readouterr().err == f"error: run code {code!r}: team, underscore, run expected, of letters, digits, '_' and '-'\n"
    assert not run.out.exists()


@pytest.mark.parametrize("code", ["rteam_base", "r-team_base-1_3", "2020_x"])
def test_codes_that_are_good(run: Run, code):
    assert run.build(code=code) == 0
    assert (run.out / f"{code}.zip").is_file()


def test_a_run_is_replaced_only_when_asked(built: Run, capsys):
    before = built.archive.read_bytes()
    built.first.write_bytes(picture(9, kind="JPEG"))
    assert built.build() == 1
    assert capsys.readouterr().err == f"error: {str(built.archive)!r}: exists already; --overwrite replaces it\n"
    assert built.archive.read_bytes() == before
    assert built.build("--overwrite") == 0
    assert built.archive.read_bytes() != before


def test_a_sixth_run_is_refused(run: Run, capsys):
    codes = [f"rteam_{i}" for i in range(5)]
    assert [run.build(code=code) for code in codes] == [0] * 5
    capsys.readouterr()
    for more in ([], ["--overwrite"]):
        assert run.build(*more, code="rteam_5") == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {run.out}: 5 runs are there already (rteam_0.zip, ")
    assert sorted(path.name for path in run.out.iterdir()) == [f"{code}.zip" for code in codes]
    assert run.build("--overwrite", code="rteam_4") == 0


def test_an_interrupted_build_leaves_nothing(run: Run, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(package, "check_image", interrupted)
    assert run.build() == 130
    assert list(run.out.iterdir()) == []


def test_a_failed_build_keeps_the_run_that_was_there(built: Run, capsys):
    before = built.archive.read_bytes()
    built.first.unlink()
    assert built.build("--overwrite") == 1
    assert faults(capsys) == [f"{str(built.originals / STEMS[0]) + '.png'!r}: no images of it in the run"]
    assert {path: path.read_bytes() for path in built.out.iterdir()} == {built.archive: before}


@pytest.mark.parametrize(
    "arguments",
    [["FILTERED"], ["FILTERED", "--run-code", CODE], ["--out", "OUT"], ["--check", "x_y.zip", "--overwrite"], ["FILTERED", "--check", "x_y.zip"]],
)
def test_options_that_do_not_fit_together(run: Run, capsys, arguments):
    assert main(["package", *arguments, "--originals", str(run.originals)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "--check" in line


def test_originals_of_one_stem(run: Run, capsys):
    (run.originals / f"{STEMS[0]}.jpg").write_bytes(picture(0, kind="JPEG"))
    assert run.build() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{STEMS[0]}.png': same name as " in line


# One fault in a folder: nothing is written, and the fault is told in a line of its own


def damage(run: Run, data: bytes, suffix: str = "jpg") -> None:
    run.first.unlink()
    run.first.with_suffix(f".{suffix}").write_bytes(data)


ODD_IMAGES = [
    (picture(0, (384, 512), kind="JPEG"), "384x512 pixels instead of 512x384; its original has 512x384, not 384x512"),
    (picture(0, mode="L", kind="JPEG"), "mode L instead of RGB"),
    (picture(0, mode="CMYK", kind="JPEG"), "mode CMYK instead of RGB"),
    (picture(0, mode="RGBA"), "mode RGBA instead of RGB"),
    (picture(0, mode="P"), "mode P instead of RGB"),
    (picture(0, (500, 300), mode="L"), "500x300 pixels instead of 512x384; its original has 512x384, not 500x300; mode L instead of RGB"),
    (picture(0, kind="JPEG")[:-2], "not a whole picture: image file is truncated"),
    (picture(0, kind="JPEG")[:-500], "not a whole picture: image file is truncated"),
    (picture(0)[:-12], "not a whole picture: "),
    (picture(0)[:-16] + bytes(4) + picture(0)[-12:], "not a whole picture: "),  # the checksum of the pixels
    (picture(0, kind="GIF"), "not a JPEG, PNG, WebP, TIFF or BMP picture"),
    (b"", "not a JPEG, PNG, WebP, TIFF or BMP picture"),
]


@pytest.mark.parametrize(("data", "said"), ODD_IMAGES)
def test_an_image_that_is_not_as_it_should_be(run: Run, capsys, data, said):
    damage(run, data)
    assert run.build() == 1
    (line,) = faults(capsys)
    assert line.startswith(f"'{FIRST}.jpg': {said}")
    assert list(run.out.iterdir()) == []


def test_an_animation(run: Run, capsys):
    frames = [Image.open(io.BytesIO(picture(i))) for i in range(2)]
    frames[0].save(run.first.with_suffix(".webp"), save_all=True, append_images=frames[1:])
    run.first.unlink()
    assert run.build() == 1
    assert faults(capsys) == [f"'{FIRST}.webp': 2 frames instead of one"]


def test_an_original_of_another_size_or_damaged(run: Run, capsys):
    originals = [run.originals / f"{stem}.png" for stem in STEMS]
    originals[0].write_bytes(picture(0, (640, 480)))
    originals[1].write_bytes(b"no picture")
    assert run.build() == 1
    assert faults(capsys) == [
        f"'{FIRST}.jpg': its original has 640x480, not 512x384",
        f"'{CODE}_{STEMS[1]}.jpg': {str(originals[1])!r}: not a JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF or HEIC picture",
    ]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (f"rother_1_{STEMS[0]}.jpg", f"bears another prefix than {CODE}_"),
        (f"rteam_base_2_{STEMS[0]}.jpg", f"bears another prefix than {CODE}_"),
        ("unknown.jpg", "no original of this name"),
    ],
)
def test_a_name_that_is_not_as_it_should_be(run: Run, capsys, name, said):
    run.first.rename(run.filtered / name)
    assert run.build() == 1
    stored = f"{CODE}_{name.removeprefix(f'{CODE}_')}"
    assert faults(capsys) == [f"{stored!r}: {said}", f"{str(run.originals / STEMS[0]) + '.png'!r}: no images of it in the run"]
    assert list(run.out.iterdir()) == []


@pytest.mark.parametrize("second", [f"{STEMS[0]}.png", f"{FIRST}.jpg", f"below/{STEMS[0]}.jpg"])
def test_an_image_that_is_there_twice(run: Run, capsys, second):
    (run.filtered / second).parent.mkdir(exist_ok=True)
    (run.filtered / second).write_bytes(picture(0))
    assert run.build() == 1
    assert faults(capsys) == [f"{str(run.originals / STEMS[0]) + '.png'!r}: 2 images of it in the run"]


def test_files_that_cannot_be_read(run: Run, capsys, monkeypatch):
    run.first.unlink()
    os.mkfifo(run.first)
    monkeypatch.setattr(package, "MAX_MEMBER_BYTES", 100_000)
    second = run.filtered / f"{STEMS[1]}.jpg"
    second.write_bytes(bytes(100_001))
    odd = run.filtered / b"\xff.jpg".decode(errors="surrogateescape")
    odd.write_bytes(b"")
    assert run.build() == 1
    lines = faults(capsys)
    assert lines[:2] == [f"{str(run.first)!r}: not a file", f"{str(second)!r}: more than 100000 bytes"]
    assert "udcff.jpg': 'utf-8' codec can't encode" in lines[2]
    assert [line.endswith("no images of it in the run") for line in lines[3:]] == [True, True]


def test_every_fault_is_told(run: Run, capsys):
    damage(run, b"")
    (run.filtered / f"{STEMS[1]}.jpg").unlink()
    (run.filtered / "stranger.png").write_bytes(picture(5))
    assert run.build() == 1
    assert len(faults(capsys)) == 3


# Checking archives that others made


def test_a_tampered_image(built: Run, capsys):
    """One byte of the stored data: the archive's own checksum tells."""
    data = bytearray(built.archive.read_bytes())
    data[len(data) // 2] ^= 1
    built.archive.write_bytes(data)
    assert built.check() == 1
    (line,) = faults(capsys)
    assert line.startswith(f"'{CODE}_{STEMS[1]}.jpg': cannot be read: Bad CRC-32")


@pytest.mark.parametrize(("data", "said"), ODD_IMAGES)
def test_an_image_in_an_archive_that_is_not_as_it_should_be(built: Run, capsys, data, said):
    built.write([(f"{FIRST}.jpg", data), *built.members()[1:]])
    assert built.check() == 1
    (line,) = faults(capsys)
    assert line.startswith(f"'{FIRST}.jpg': {said}")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (f"{STEMS[0]}.jpg", f"does not begin with {CODE}_"),
        (f"rother_1_{STEMS[0]}.jpg", f"bears another prefix than {CODE}_"),
        (f"{CODE}_unknown.jpg", "no original of this name"),
        (f"{CODE}_../{STEMS[0]}.jpg", "a path, not the plain name of a file"),
        (f"../{FIRST}.jpg", "a path, not the plain name of a file"),
        (f"./{FIRST}.jpg", "a path, not the plain name of a file"),
        (f"/etc/{FIRST}.jpg", "a path, not the plain name of a file"),
        (f"{CODE}/", "a path, not the plain name of a file"),
        (f"..\\{FIRST}.jpg", "a path, not the plain name of a file"),
        (f"{FIRST}.exe", "not the name of a photo"),
        (".DS_Store", "not the name of a photo"),
        (f"{FIRST}.jpg\x1b[2J\n.jpg", "no original of this name"),
    ],
)
def test_a_name_that_should_not_be_there(built: Run, capsys, name, said):
    built.write([*built.members(), (name, b"" if name.endswith("/") else picture(0))])
    assert built.check() == 1
    assert faults(capsys) == [f"{name!r}: {said}"]


def test_a_name_with_a_null_byte(built: Run, capsys):
    """Readers disagree on where such a name ends."""
    name = f"{FIRST}.jpg"
    data = built.archive.read_bytes()
    built.archive.write_bytes(data.replace(name.encode(), f"{FIRST}\0jpg".encode()))
    assert built.check() == 1
    assert faults(capsys)[0] == f"'{FIRST}\\x00jpg': not the name of a photo"


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicates_are_told_of_and_decoded_once(built: Run, capsys, monkeypatch):
    members = built.members()
    built.write([*members, *members[:1] * 9])
    decoded = []
    monkeypatch.setattr(package, "check_image", lambda data, original: decoded.append(original))
    assert built.check() == 1
    assert faults(capsys) == [f"{str(built.originals / STEMS[0]) + '.png'!r}: 10 images of it in the run"]
    assert len(decoded) == 3


def test_absurd_sizes(built: Run, capsys, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBER_BYTES", 1 << 20)
    built.write([(f"{FIRST}.jpg", bytes(2 << 20)), *built.members()[1:]], zipfile.ZIP_DEFLATED)
    assert built.check() == 1
    assert faults(capsys) == [f"'{FIRST}.jpg': declared as {2 << 20} bytes; photos have at most {1 << 20}"]


@pytest.mark.filterwarnings("ignore:Image size")
def test_a_small_file_that_declares_gigapixels_is_not_decoded(built: Run, capsys):
    bomb = bytearray(picture(0, kind="JPEG"))
    struct.pack_into(">HH", bomb, bomb.index(b"\xff\xc0") + 5, 10_000, 10_000)
    built.write([(f"{FIRST}.jpg", bytes(bomb)), *built.members()[1:]])
    assert built.check() == 1
    (line,) = faults(capsys)
    assert line.startswith(f"'{FIRST}.jpg': 10000x10000 pixels instead of 512x384")


def test_a_missing_image(built: Run, capsys):
    built.write(built.members()[1:])
    assert built.check() == 1
    assert faults(capsys) == [f"{str(built.originals / STEMS[0]) + '.png'!r}: no images of it in the run"]


def test_an_archive_of_another_name(built: Run, capsys):
    built.archive = built.archive.rename(built.out / "rother_base.zip")
    assert built.check() == 1
    assert len(faults(capsys)) == 6  # three names, three originals without an image
    built.archive = built.archive.rename(built.out / "other.zip")
    assert built.check() == 1
    assert capsys.readouterr().err.startswith("error: run code 'other': ")


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "File is not a zip file"), (bytes(100), "File is not a zip file"), (None, "No such file or directory")]
)
def test_not_an_archive(run: Run, capsys, content, said):
    run.out.mkdir()
    if content is not None:
        run.archive.write_bytes(content)
    assert run.check() == 1
    assert capsys.readouterr().err == f"error: {run.archive}: {said}\n"
