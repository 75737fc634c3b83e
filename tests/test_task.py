"""``python -m camo prepare`` on small archives in the official layout, sound and hostile, and on a local stand-in for the servers."""

import csv
import io
import os
import random
import struct
import subprocess
import sys
import tarfile
import threading
import tracemalloc
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from camo import CamoError
from camo.__main__ import main
from camo.task import archives, image_sets
from camo.task.archives import tar_members, zip_members
from camo.task.download import fetch
from camo.task.lists import LISTS_SOURCE
from camo.task.pictures import cropped_png

ROOT = Path(__file__).parent.parent
DEV = ["10990887046.jpg", "11396447303.jpg", "107505789.jpg"]
TEST = ["Places365_val_00015483.jpg", "Places365_val_00014191.jpg", "Places365_val_00000001.jpg"]
MANUAL = [TEST[1]]
PLACES_SIZES = [(683, 512), (515, 385), (512, 384)]


def photo(seed: int, size: tuple[int, int] = (512, 384), mode: str = "RGB") -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize(size, Image.Resampling.BILINEAR).convert(mode).save(file, "JPEG", quality=70)
    return file.getvalue()


def write_zip(path: Path, members: list[tuple[str, bytes]], method: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)


def tar_member(name: str, data: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def write_tar(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    with tarfile.open(path, "w") as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))


def tar_bytes(data: bytes) -> int:
    """Return what a member takes in a tar archive: its header and its data in blocks of 512."""
    return 512 + -(-len(data) // 512) * 512


class Inputs:
    """The official files in small, in a folder of their own, and the command that reads them."""

    def __init__(self, folder: Path) -> None:
        self.out = folder / "out"
        self.koniq, self.metadata = folder / "koniq10k_512x384.zip", folder / "koniq10k_distributions_sets.csv"
        self.places, self.labels = folder / "val_large.tar", folder / "MEPP20labels"
        self.labels.mkdir()
        self.dev_photos = {name: photo(i) for i, name in enumerate(DEV)}
        self.test_photos = {name: photo(10 + i, size) for i, (name, size) in enumerate(zip(TEST, PLACES_SIZES, strict=True))}
        write_zip(self.koniq, [("512x384/", b""), *self.dev_members(), ("512x384/7.jpg", photo(9))])
        write_tar(
            self.places,
            [
                tar_member("val_large", type=tarfile.DIRTYPE),
                tar_member("val_large/Places365_val_00000002.jpg", b"never decoded"),
                *reversed(self.test_members()),
            ],
        )
        self.write_metadata(DEV)
        self.write_labels(TEST, MANUAL)

    def test_members(self, names: list[str] = TEST, prefix: str = "val_large/") -> list[tuple[tarfile.TarInfo, bytes]]:
        return [tar_member(f"{prefix}{name}", self.test_photos[name]) for name in names]

    def dev_members(self, names: list[str] = DEV, prefix: str = "512x384/") -> list[tuple[str, bytes]]:
        return [(f"{prefix}{name}", self.dev_photos[name]) for name in names]

    def write_metadata(self, names: list[str]) -> None:
        with self.metadata.open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["image_name", "c1", "c2", "c3", "c4", "c5", "c_total", "MOS", "SD", "set"])
            table.writerow(["7.jpg", 0, 0, 25, 73, 7, 105, 79.5, 0.5, "training"])
            table.writerows([name, 0, 0, 25, 73, 7, 105, 79.5, 0.5, "validation"] for name in names)

    def write_labels(self, test: list[str], manual: list[str]) -> None:
        for name, rows in {"MEPP20test.csv": test, "MEPP20test_manual.csv": manual}.items():
            with (self.labels / name).open("w", newline="") as file:
                csv.writer(file).writerows([row] for row in rows)

    def prepare_dev(self, *more: object) -> int:
        return prepare("--koniq", self.koniq, "--koniq-metadata", self.metadata, "--out", self.out, *more)

    def prepare_test(self, *more: object) -> int:
        return prepare("--places", self.places, "--labels", self.labels, "--out", self.out, *more)


def prepare(*arguments: object) -> int:
    return main(["prepare", *map(str, arguments)])


def files_under(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def error_lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What the user reads besides warnings; each entry must be a line that says error."""
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: ")]
    assert all(line.startswith("error: ") for line in lines), lines
    return lines


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    return Inputs(tmp_path)


# The two sets


def test_both_sets(inputs: Inputs, capsys):
    assert inputs.prepare_dev("--places", inputs.places, "--labels", inputs.labels) == 0
    stems = [Path(name).stem for name in TEST]
    assert files_under(inputs.out) == sorted([*(f"dev/{n}" for n in DEV), *(f"test/{s}.png" for s in stems), "test_manual.txt"])
    for name, data in inputs.dev_photos.items():
        assert (inputs.out / "dev" / name).read_bytes() == data
    assert (inputs.out / "test_manual.txt").read_text() == "Places365_val_00014191\n"
    printed = capsys.readouterr()
    assert f"{inputs.out / 'dev'}: 3 of 3 images" in printed.out
    assert f"{inputs.out / 'test'}: 3 of 3 images" in printed.out
    for path, count, official in [
        (inputs.metadata, 3, 1000),
        (inputs.labels / "MEPP20test.csv", 3, 550),
        (inputs.labels / "MEPP20test_manual.csv", 1, 60),
    ]:
        assert f"warning: {path}: lists {count} images, the official list {official}" in printed.err


def test_no_warning_at_the_official_counts(inputs: Inputs, capsys, monkeypatch):
    for constant, count in {"DEV_IMAGES": 3, "TEST_IMAGES": 3, "MANUAL_IMAGES": 1}.items():
        monkeypatch.setattr(image_sets, constant, count)
    assert inputs.prepare_dev() == 0
    assert inputs.prepare_test() == 0
    assert capsys.readouterr().err == ""


def test_crop_is_that_of_the_task(inputs: Inputs):
    """The task's script gives Pillow's crop a box in half pixels; odd margins are where another rounding would show."""
    assert inputs.prepare_test() == 0
    for name, data in inputs.test_photos.items():
        image = Image.open(io.BytesIO(data))
        width, height = image.size
        expected = image.crop(((width - 512) / 2, (height - 384) / 2, (width + 512) / 2, (height + 384) / 2))
        with Image.open(inputs.out / "test" / f"{Path(name).stem}.png") as written:
            assert (written.format, written.mode, written.size) == ("PNG", "RGB", (512, 384))
            assert np.array_equal(np.asarray(written), np.asarray(expected))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_photos_of_other_modes_become_rgb(mode):
    with Image.open(io.BytesIO(cropped_png(photo(1, (600, 400), mode)))) as image:
        assert (image.mode, image.size) == ("RGB", (512, 384))


def test_the_tasks_own_development_list(inputs: Inputs):
    rows = list(csv.reader(inputs.metadata.read_text().splitlines()))
    inputs.metadata = inputs.labels / "MEPP20dev.csv"
    with inputs.metadata.open("w", newline="") as file:
        csv.writer(file).writerows([["", *rows[0]], *([i, *row] for i, row in enumerate(rows[2:]))])
    assert inputs.prepare_dev() == 0
    assert files_under(inputs.out) == sorted(f"dev/{name}" for name in DEV)


def test_lists_with_a_byte_order_mark(inputs: Inputs):
    """As some spreadsheet programs save them."""
    for path in [inputs.metadata, *inputs.labels.iterdir()]:
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert inputs.prepare_dev("--places", inputs.places, "--labels", inputs.labels) == 0


def test_archives_whose_names_begin_with_a_dot(inputs: Inputs):
    write_zip(inputs.koniq, inputs.dev_members(prefix="./512x384/"))
    write_tar(inputs.places, inputs.test_members(prefix="./val_large/"))
    assert inputs.prepare_dev() == 0
    assert inputs.prepare_test() == 0


def test_a_fault_in_one_set_leaves_the_other(inputs: Inputs, capsys):
    inputs.metadata.write_text("image_name\n")
    assert inputs.prepare_dev("--places", inputs.places, "--labels", inputs.labels) == 1
    assert len(files_under(inputs.out / "test")) == 3
    assert error_lines(capsys) == [f"error: {inputs.metadata}: columns image_name and set expected, found ['image_name']"]


def test_the_development_set_at_its_full_size(inputs: Inputs, tmp_path: Path, capsys):
    large = tmp_path / "koniq10k_1024x768.zip"
    write_zip(large, [(f"1024x768/{name}", photo(i, (1024, 768) if i else (512, 384))) for i, name in enumerate(DEV)])
    assert inputs.prepare_dev("--koniq-large", large) == 1
    assert error_lines(capsys) == [f"error: {inputs.out / 'dev_large' / DEV[0]} is missing: 512x384 pixels instead of 1024x768"]
    write_zip(large, [(f"1024x768/{name}", photo(i, (1024, 768))) for i, name in enumerate(DEV)])
    assert inputs.prepare_dev("--koniq-large", large) == 0
    assert files_under(inputs.out) == sorted([f"{folder}/{name}" for folder in ("dev", "dev_large") for name in DEV])
    assert (inputs.out / "dev_large" / DEV[0]).read_bytes() == photo(0, (1024, 768))
    large.unlink()
    assert inputs.prepare_dev("--koniq-large", large) == 0  # nothing is missing


def test_command_line(inputs: Inputs):
    command = [sys.executable, "-m", "camo", "prepare", "--koniq", inputs.koniq, "--koniq-metadata", inputs.metadata, "--out", inputs.out]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, len(files_under(inputs.out))) == (0, 3), done.stderr


# Resuming


def test_whole_images_are_kept_and_damaged_ones_redone(inputs: Inputs):
    assert inputs.prepare_dev() == 0
    assert inputs.prepare_test() == 0
    images = [path for path in inputs.out.rglob("*") if path.suffix in {".jpg", ".png"}]
    before = {path: path.read_bytes() for path in images}
    for path in images:
        os.utime(path, (1, 1))
    damaged = [inputs.out / "dev" / DEV[1], inputs.out / "test" / f"{Path(TEST[1]).stem}.png"]
    for path in damaged:
        path.write_bytes(before[path][:-200])
    assert inputs.prepare_dev() == 0
    assert inputs.prepare_test() == 0
    assert {path: path.read_bytes() for path in images} == before
    assert {path for path in images if path.stat().st_mtime != 1} == set(damaged)


def test_archives_are_not_needed_once_all_is_there(inputs: Inputs):
    assert inputs.prepare_dev() == 0
    inputs.koniq.unlink()
    assert inputs.prepare_dev("--download") == 0


def test_interrupted_in_the_middle(inputs: Inputs, monkeypatch):
    replace = Path.replace

    def replace_twice(path: Path, target: Path) -> Path:
        if len(files_under(inputs.out)) == 3:  # two images and the third, not yet in place
            raise KeyboardInterrupt
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", replace_twice)
    assert inputs.prepare_dev() == 130
    assert files_under(inputs.out) == sorted(f"dev/{name}" for name in DEV[:2])
    monkeypatch.undo()
    assert inputs.prepare_dev() == 0
    assert files_under(inputs.out) == sorted(f"dev/{name}" for name in DEV)


# What is missing


def test_missing_images_are_named(inputs: Inputs, capsys):
    inputs.write_metadata([*DEV, "1.jpg", "2.jpg"])
    assert inputs.prepare_dev() == 1
    printed = capsys.readouterr()
    assert f"{inputs.out / 'dev'}: 3 of 5 images" in printed.out
    named = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert named == [f"error: {inputs.out / 'dev' / name} is missing: not found in {inputs.koniq}" for name in ["1.jpg", "2.jpg"]]


@pytest.mark.parametrize(("size", "said"), [((511, 384), "511x384"), ((800, 383), "800x383")])
def test_a_photo_smaller_than_the_crop_is_reported(inputs: Inputs, capsys, size, said):
    inputs.test_photos[TEST[1]] = photo(1, size)
    write_tar(inputs.places, inputs.test_members())
    assert inputs.prepare_test() == 1
    target = inputs.out / "test" / f"{Path(TEST[1]).stem}.png"
    assert error_lines(capsys) == [f"error: {target} is missing: {said} pixels, smaller than the crop of 512x384"]
    assert not target.exists()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (photo(1, (384, 512)), "384x512 pixels instead of 512x384"),
        (photo(1)[:-100], "not a whole JPEG image"),
        (b"", "not a JPEG image"),
        (b"GIF89a" + bytes(100), "not a JPEG image"),
    ],
)
def test_an_unusable_development_photo_is_reported(inputs: Inputs, capsys, data, reason):
    inputs.dev_photos[DEV[0]] = data
    write_zip(inputs.koniq, inputs.dev_members())
    assert inputs.prepare_dev() == 1
    (line,) = error_lines(capsys)
    assert line.startswith(f"error: {inputs.out / 'dev' / DEV[0]} is missing: {reason}")
    assert files_under(inputs.out) == sorted(f"dev/{name}" for name in DEV[1:])


def test_a_target_that_cannot_be_written(inputs: Inputs, capsys):
    (inputs.out / "dev" / DEV[0]).mkdir(parents=True)
    assert inputs.prepare_dev() == 1
    (line,) = error_lines(capsys)
    assert line.startswith(f"error: {inputs.out / 'dev' / DEV[0]} is missing: '{inputs.out / 'dev' / DEV[0]}': cannot be written: ")
    assert files_under(inputs.out) == sorted(f"dev/{name}" for name in DEV[1:])


# Streaming


class CountedFile(io.FileIO):
    """A file that adds up the bytes read from it."""

    count = 0

    def readinto(self, buffer: bytearray) -> int:
        read = super().readinto(buffer)
        CountedFile.count += read
        return read


def test_unwanted_members_are_not_read(inputs: Inputs, monkeypatch):
    unwanted = [tar_member(f"val_large/{i}.jpg", bytes(4 << 20)) for i in range(3)]
    write_tar(inputs.places, [*unwanted, *inputs.test_members()])
    monkeypatch.setattr(CountedFile, "count", 0)
    opened = Path.open

    def open_counted(path: Path, *args, **kwargs):
        return io.BufferedReader(CountedFile(path)) if path == inputs.places else opened(path, *args, **kwargs)

    monkeypatch.setattr(Path, "open", open_counted)
    assert inputs.prepare_test() == 0
    wanted = sum(map(len, inputs.test_photos.values()))
    assert wanted < CountedFile.count < wanted + (1 << 18)


def test_reading_stops_when_all_are_found(inputs: Inputs):
    """Behind the last wanted photo the archive is broken off, which must go unseen."""
    write_tar(inputs.places, [*inputs.test_members(), tar_member("val_large/x.jpg", bytes(9999))])
    os.truncate(inputs.places, sum(map(tar_bytes, inputs.test_photos.values())) + 1000)
    with pytest.raises(CamoError, match="unexpected end of data"):
        list(tar_members(inputs.places, {"absent"}))
    assert inputs.prepare_test() == 0


# Hostile archives


def test_zip_members_outside_the_folder_are_ignored(inputs: Inputs, tmp_path: Path):
    evil = photo(66)
    prefixes = ["../../", "/", "../512x384/", "512x384/../../", "512x384\\..\\", f"{tmp_path}/"]
    write_zip(inputs.koniq, [*((f"{prefix}{DEV[0]}", evil) for prefix in prefixes), *inputs.dev_members()])
    before = files_under(tmp_path)
    assert inputs.prepare_dev() == 0
    assert files_under(tmp_path) == sorted([*before, *(f"out/dev/{name}" for name in DEV)])
    assert all((inputs.out / "dev" / name).read_bytes() == data for name, data in inputs.dev_photos.items())


def test_tar_members_outside_the_folder_are_ignored(inputs: Inputs, tmp_path: Path):
    evil = photo(66)
    prefixes = ["../../", "/", "../val_large/", "val_large/../../", f"{tmp_path}/"]
    write_tar(
        inputs.places,
        [
            *(tar_member(f"{prefix}{TEST[0]}", evil) for prefix in prefixes),
            tar_member("val_large", type=tarfile.SYMTYPE, linkname=".."),
            *inputs.test_members(),
        ],
    )
    before = files_under(tmp_path)
    assert inputs.prepare_test() == 0
    stems = [Path(name).stem for name in TEST]
    assert files_under(tmp_path) == sorted([*before, "out/test_manual.txt", *(f"out/test/{stem}.png" for stem in stems)])


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
@pytest.mark.parametrize("link", ["secret.jpg", f"val_large/{TEST[1]}"])
def test_links_and_devices_are_refused(inputs: Inputs, capsys, tmp_path: Path, kind, link):
    (tmp_path / "secret.jpg").write_bytes(photo(5))
    name = str(tmp_path / link) if link == "secret.jpg" else link
    write_tar(inputs.places, [*inputs.test_members(TEST[1:]), tar_member(f"val_large/{TEST[0]}", type=kind, linkname=name)])
    assert inputs.prepare_test() == 1
    target = inputs.out / "test" / f"{Path(TEST[0]).stem}.png"
    assert error_lines(capsys) == [f"error: {target} is missing: a link, a device or a folder in the archive, not a file"]
    assert not os.path.lexists(target)


def test_a_zip_link_is_not_followed(inputs: Inputs, capsys, tmp_path: Path):
    (tmp_path / "secret.jpg").write_bytes(photo(5))
    link = zipfile.ZipInfo(f"512x384/{DEV[0]}")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(inputs.koniq, "w") as archive:
        archive.writestr(link, str(tmp_path / "secret.jpg"))
    inputs.write_metadata(DEV[:1])
    assert inputs.prepare_dev() == 1
    assert error_lines(capsys) == [f"error: {inputs.out / 'dev' / DEV[0]} is missing: not a JPEG image"]
    assert files_under(inputs.out) == []


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_first_of_duplicate_members_counts(inputs: Inputs, capsys):
    write_zip(inputs.koniq, [*inputs.dev_members(DEV[:1]), (f"512x384/{DEV[0]}", photo(66)), *inputs.dev_members(DEV[1:])])
    assert inputs.prepare_dev() == 0
    assert all((inputs.out / "dev" / name).read_bytes() == data for name, data in inputs.dev_photos.items())
    assert f"warning: {inputs.koniq}: 512x384/{DEV[0]} occurs more than once; the first one counts" in capsys.readouterr().err


def test_members_of_absurd_size_are_not_read(inputs: Inputs, capsys, monkeypatch):
    monkeypatch.setattr(archives, "MAX_MEMBER_BYTES", 1 << 20)
    bomb = bytes(2 << 20)
    write_zip(inputs.koniq, [(f"512x384/{DEV[0]}", bomb), *inputs.dev_members(DEV[1:])])
    write_tar(inputs.places, [tar_member(f"val_large/{TEST[0]}", bomb), *inputs.test_members(TEST[1:])])
    assert inputs.prepare_dev() == 1
    assert inputs.prepare_test() == 1
    reason = f"declared as {2 << 20} bytes; photos have at most {1 << 20}"
    targets = [inputs.out / "dev" / DEV[0], inputs.out / "test" / f"{Path(TEST[0]).stem}.png"]
    assert error_lines(capsys) == [f"error: {target} is missing: {reason}" for target in targets]


def test_a_tar_that_declares_more_than_it_holds(inputs: Inputs, capsys):
    (info, _) = tar_member(f"val_large/{TEST[0]}")
    info.size = 1 << 60
    inputs.places.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    assert inputs.prepare_test() == 1
    lines = error_lines(capsys)
    assert f"declared as {1 << 60} bytes" in lines[0]
    assert all("not found in" in line for line in lines[1:3])
    assert lines[3].startswith(f"error: {inputs.places}: ")


def test_a_zip_bomb_with_a_modest_declared_size(inputs: Inputs, capsys, monkeypatch):
    """The directory says 1000 bytes, the data inflate to 64 MiB: only a bounded read keeps them out of memory."""
    monkeypatch.setattr(archives, "MAX_MEMBER_BYTES", 1 << 20)
    write_zip(inputs.koniq, [(f"512x384/{DEV[0]}", bytes(64 << 20))])
    data = bytearray(inputs.koniq.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<L", data, data.index(signature) + offset, 1000)
    inputs.koniq.write_bytes(data)
    inputs.write_metadata(DEV[:1])
    tracemalloc.start()
    try:
        assert inputs.prepare_dev() == 1
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert "is missing: cannot be read: Bad CRC-32" in error_lines(capsys)[0]


def test_encrypted_and_oddly_compressed_members(inputs: Inputs, capsys):
    write_zip(inputs.koniq, inputs.dev_members(DEV[:1]))
    data = bytearray(inputs.koniq.read_bytes())
    data[data.index(b"PK\x03\x04") + 6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    inputs.koniq.write_bytes(data)
    inputs.write_metadata(DEV[:1])
    assert inputs.prepare_dev() == 1
    assert "encrypted" in error_lines(capsys)[0]
    write_zip(inputs.koniq, inputs.dev_members(DEV[:1]), zipfile.ZIP_LZMA)
    assert inputs.prepare_dev() == 1
    assert "compressed with method 14, neither stored nor deflated" in error_lines(capsys)[0]


@pytest.mark.parametrize("side", [10_000, 65_000])  # Pillow warns of the first and refuses the second
def test_decompression_bombs(inputs: Inputs, capsys, recwarn, side):
    bomb = bytearray(photo(1))
    frame = bomb.index(b"\xff\xc0")
    struct.pack_into(">HH", bomb, frame + 5, side, side)
    write_tar(inputs.places, [tar_member(f"val_large/{name}", bytes(bomb)) for name in TEST])
    assert inputs.prepare_test() == 1
    lines = error_lines(capsys)
    assert len(lines) == 3
    assert all("decompression bomb" in line for line in lines)
    assert not recwarn.list


def forged_header(name: str, fields: dict[int, bytes]) -> bytes:
    """Return a tar header with the fields at the given offsets overwritten and a checksum that fits."""
    header = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    for offset, field in fields.items():
        header[offset : offset + len(field)] = field
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def test_a_tar_of_negative_size_does_not_go_round_for_ever(inputs: Inputs):
    """The size says that the next header is this one again; a process of its own, so that it can be stopped should it run on."""
    loop = forged_header("val_large/loop.jpg", {124: (-512).to_bytes(12, "big", signed=True)})
    inputs.places.write_bytes(tarfile.TarInfo("val_large/first.jpg").tobuf() + loop + bytes(1024))
    command = [sys.executable, "-m", "camo", "prepare", "--places", inputs.places, "--labels", inputs.labels, "--out", inputs.out]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"error: {inputs.places}: damaged: its member headers run in circles"


def test_a_tar_that_ends_inside_a_sparse_header(inputs: Inputs, capsys):
    """The header, of GNU's sparse kind, announces a second block of itself that is not there: an IndexError in tarfile."""
    inputs.places.write_bytes(forged_header(f"val_large/{TEST[0]}", {156: b"S", 482: b"\1"}))
    assert inputs.prepare_test() == 1
    assert error_lines(capsys)[-1].startswith(f"error: {inputs.places}: ")


@pytest.mark.parametrize("content", [b"", b"<html>no such file</html>", bytes(5000), random.Random(0).randbytes(5000)])
def test_not_an_archive(inputs: Inputs, capsys, content):
    inputs.koniq.write_bytes(content)
    inputs.places.write_bytes(content)
    assert inputs.prepare_dev() == 1
    lines = error_lines(capsys)
    assert len(lines) == 4
    assert lines[-1].startswith(f"error: {inputs.koniq}: ")
    assert inputs.prepare_test() == 1
    lines = error_lines(capsys)
    assert [f"error: {inputs.out / 'test' / Path(name).stem}.png is missing: not found in {inputs.places}" for name in TEST] == lines[:3]
    assert files_under(inputs.out) == ["test_manual.txt"]


def test_a_truncated_zip(inputs: Inputs, capsys):
    inputs.koniq.write_bytes(inputs.koniq.read_bytes()[:-30])
    assert inputs.prepare_dev() == 1
    assert error_lines(capsys)[-1] == f"error: {inputs.koniq}: File is not a zip file"
    assert files_under(inputs.out) == []


def test_a_truncated_tar_gives_what_it_holds(inputs: Inputs, capsys):
    write_tar(inputs.places, inputs.test_members())
    os.truncate(inputs.places, tar_bytes(inputs.test_photos[TEST[0]]) + 2000)  # in the middle of the second photo
    assert inputs.prepare_test() == 1
    lines = error_lines(capsys)
    assert lines[0].endswith(f"{Path(TEST[1]).stem}.png is missing: cannot be read: unexpected end of data")
    assert lines[1].endswith(f"{Path(TEST[2]).stem}.png is missing: not found in {inputs.places}")
    assert files_under(inputs.out / "test") == [f"{Path(TEST[0]).stem}.png"]


@pytest.mark.parametrize("read", [zip_members, tar_members])
def test_flipped_bytes_never_get_past_camo_error(tmp_path: Path, read):
    draw, path, wanted = random.Random(0), tmp_path / "archive", {f"{i}.jpg" for i in range(4)}
    if read is zip_members:
        write_zip(path, [(name, b"x" * 300) for name in wanted])
    else:
        write_tar(path, [tar_member(name, b"x" * 300) for name in wanted])
    sound, outcomes = path.read_bytes(), set()
    for _ in range(300):
        data = bytearray(sound)
        for _ in range(draw.choice([1, 3, 10])):
            data[draw.randrange(len(data))] = draw.choice([0, 0x7F, 0x80, 0xFF, draw.randrange(256)])
        path.write_bytes(data)
        try:
            for _, read_member in read(path, wanted):
                read_member()
            outcomes.add("read")
        except CamoError as error:
            assert "\n" not in str(error)
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}


# Lists


SLASHES = ["../x.jpg", "/x.jpg", "a/b.jpg", "a\\b.jpg", "C:x.jpg"]
ODDITIES = [".jpg", ".x.jpg", "x.png", "x.jpg\n", "x\0.jpg", "é.jpg", "x" * 300 + ".jpg"]


@pytest.mark.parametrize("name", [*SLASHES, *ODDITIES])
def test_names_that_are_not_plain_are_refused(inputs: Inputs, capsys, name):
    inputs.write_metadata([*DEV, name])
    inputs.write_labels([*TEST, name], MANUAL)
    assert inputs.prepare_dev() == 1
    assert inputs.prepare_test() == 1
    lines = error_lines(capsys)
    assert len(lines) == 2
    assert all(line.endswith(" is not the plain name of a .jpg file") and len(line) < 400 for line in lines)
    assert files_under(inputs.out) == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "columns image_name and set expected, found None"),
        (b"image_name,MOS\n1.jpg,3\n", "columns image_name and set expected, found ['image_name', 'MOS']"),
        (b"image_name,set\n1.jpg,training\n", "lists no image"),
        (b"image_name,set\n\xff.jpg,validation\n", "'utf-8' codec can't decode"),
        (b"image_name,set\n" + b"x" * 200_000 + b",validation\n", "field larger than field limit"),
    ],
)
def test_faulty_metadata(inputs: Inputs, capsys, content, said):
    inputs.metadata.write_bytes(content)
    assert inputs.prepare_dev() == 1
    (line,) = error_lines(capsys)
    assert line.startswith(f"error: {inputs.metadata}: {said}")


def test_a_manual_image_that_is_no_test_image(inputs: Inputs, capsys):
    inputs.write_labels(TEST[:2], TEST[2:])
    assert inputs.prepare_test() == 1
    assert error_lines(capsys) == [f"error: {inputs.labels / 'MEPP20test_manual.csv'}: {TEST[2]!r} is not in MEPP20test.csv"]


# Options


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "nothing to prepare without --koniq-metadata or --labels"),
        (["--download"], "nothing to prepare without --koniq-metadata or --labels"),
        (["--koniq", "x.zip"], "--koniq needs --koniq-metadata"),
        (["--koniq-large", "x.zip"], "--koniq-large needs --koniq-metadata"),
        (["--places", "x.tar", "--download"], "--places needs --labels"),
        (["--koniq-metadata", "absent.csv"], "absent.csv: no such file"),
        (["--labels", "absent"], f"{Path('absent/MEPP20test.csv')}: no such file"),
    ],
)
def test_absent_lists_are_told_with_their_source(tmp_path: Path, capsys, monkeypatch, options, said):
    monkeypatch.chdir(tmp_path)
    assert prepare(*options) == 1
    assert error_lines(capsys) == [f"error: {said}; {LISTS_SOURCE}"]
    assert files_under(tmp_path) == []


def test_an_absent_archive_without_download(inputs: Inputs, capsys):
    assert prepare("--koniq-metadata", inputs.metadata, "--out", inputs.out) == 1
    default = inputs.out / "archives" / "koniq10k_512x384.zip"
    assert error_lines(capsys)[-1] == f"error: {default}: no such file (--download fetches it from {image_sets.KONIQ_URL})"


# Download


class StandIn(ThreadingHTTPServer):
    """A local server of one file, that can be told to misbehave."""

    data = b""
    ranges = True  # whether it heeds the header Range
    sends = None  # bytes after which it drops the connection
    announces = True  # whether it tells the size

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}/file"


class Answer(BaseHTTPRequestHandler):
    server: StandIn

    def do_GET(self) -> None:
        asked = self.headers["Range"]
        self.server.asked.append(asked)
        if self.path != "/file":
            return self.send_error(404)
        total = len(self.server.data)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.server.ranges else 0
        if asked and self.server.ranges and start >= total:
            return self.send_error(416)
        self.send_response(206 if asked and self.server.ranges else 200)
        if asked and self.server.ranges:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        if self.server.announces:
            self.send_header("Content-Length", str(total - start))
        self.end_headers()
        return self.wfile.write(self.server.data[start : self.server.sends])

    def log_message(self, *args: object) -> None:
        """Keep quiet."""


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with StandIn() as stand_in:
        thread = threading.Thread(target=stand_in.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield stand_in
        stand_in.shutdown()
        thread.join()


def test_prepare_downloads_both_archives(inputs: Inputs, server: StandIn, monkeypatch):
    monkeypatch.setattr(image_sets, "KONIQ_URL", server.url)
    server.data = inputs.koniq.read_bytes()
    assert prepare("--koniq-metadata", inputs.metadata, "--out", inputs.out, "--download") == 0
    assert (inputs.out / "archives" / "koniq10k_512x384.zip").read_bytes() == server.data
    monkeypatch.setattr(image_sets, "PLACES_URL", server.url)
    server.data = inputs.places.read_bytes()
    inputs.places = inputs.places.with_name("given.tar")
    assert inputs.prepare_test("--download") == 0
    assert inputs.places.read_bytes() == server.data
    assert (len(files_under(inputs.out / "dev")), len(files_under(inputs.out / "test"))) == (3, 3)


def test_an_archive_that_is_there_is_not_downloaded(inputs: Inputs, server: StandIn, monkeypatch):
    monkeypatch.setattr(image_sets, "KONIQ_URL", server.url)
    assert inputs.prepare_dev("--download") == 0
    assert server.asked == []


def test_a_dropped_download_goes_on(tmp_path: Path, server: StandIn):
    server.data, server.sends = random.Random(0).randbytes(3 << 20), 2_500_000
    path = tmp_path / "archives" / "a.zip"
    with pytest.raises(CamoError, match="2500000"):
        fetch(server.url, path)
    assert files_under(tmp_path) == ["archives/a.zip.part"]
    server.sends = None
    fetch(server.url, path)
    assert server.asked == [None, "bytes=2499999-"]
    assert path.read_bytes() == server.data
    assert files_under(tmp_path) == ["archives/a.zip"]


def test_a_dropped_download_is_a_fault_of_one_line(inputs: Inputs, server: StandIn, monkeypatch, capsys):
    monkeypatch.setattr(image_sets, "KONIQ_URL", server.url)
    server.data, server.sends = inputs.koniq.read_bytes(), 1000
    assert prepare("--koniq-metadata", inputs.metadata, "--out", inputs.out, "--download") == 1
    lines = error_lines(capsys)
    assert len(lines) == 4
    assert lines[-1].startswith(f"error: {server.url}: ")


def test_a_server_that_ignores_ranges(tmp_path: Path, server: StandIn):
    server.data, server.ranges = b"the whole file", False
    (tmp_path / "a.part").write_bytes(b"what an earlier run got, longer than the file")
    fetch(server.url, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == server.data
    assert len(server.asked) == 1


def test_a_part_that_is_whole(tmp_path: Path, server: StandIn):
    server.data = b"the whole file"
    (tmp_path / "a.part").write_bytes(server.data)
    fetch(server.url, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == server.data


def test_a_part_longer_than_the_file(tmp_path: Path, server: StandIn):
    server.data = b"short"
    (tmp_path / "a.part").write_bytes(b"much longer")
    with pytest.raises(CamoError, match="delete it to begin again"):
        fetch(server.url, tmp_path / "a")
    assert files_under(tmp_path) == ["a.part"]


@pytest.mark.parametrize("address", ["missing", "closed"])
def test_a_refused_download_leaves_nothing(tmp_path: Path, server: StandIn, monkeypatch, address):
    url = {"missing": server.url + "s", "closed": "http://127.0.0.1:9/file"}[address]
    with pytest.raises(CamoError, match="404" if address == "missing" else "refused"):
        fetch(url, tmp_path / "a")
    assert files_under(tmp_path) == []


def test_a_server_that_announces_no_size(tmp_path: Path, server: StandIn):
    server.data, server.announces = b"of what length?", False
    with pytest.raises(CamoError, match="does not announce a size"):
        fetch(server.url, tmp_path / "a")
    assert files_under(tmp_path) == []


def test_a_range_other_than_the_one_asked_for(tmp_path: Path, server: StandIn, monkeypatch):
    server.data = b"the whole file"
    (tmp_path / "a.part").write_bytes(b"the w")
    send_header = Answer.send_header
    monkeypatch.setattr(Answer, "send_header", lambda self, name, value: send_header(self, name, value.replace("bytes 4-", "bytes 0-")))
    with pytest.raises(CamoError, match="asked for the bytes from 4 on, the server sent 'bytes 0-13/14'"):
        fetch(server.url, tmp_path / "a")
    assert (tmp_path / "a.part").read_bytes() == b"the w"
