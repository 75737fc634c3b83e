"""infer.py from the command line inwards: what is written, what is kept, and what happens to the rest when something goes wrong."""

import contextlib
import errno
import functools
import itertools
import json
import os
import platform
import signal
import subprocess
import sys
import termios
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

import infer
from camo.__main__ import main as camo_main
from camo.camouflage import batches, overlap, pipeline
from camo.camouflage.plan import Job
from camo.filter.checkpoint import save_filter
from camo.filter.full_size import FullSize
from camo.photos.files import atomic_write
from camo.photos.images import READABLE, Photo, read, to_float, to_uint8
from camo.photos.metadata import SUFFIX_OF
from camo.quality import models

ROOT = Path(__file__).parent.parent
WRONG_USAGE, INTERRUPTED = 2, 130


@pytest.fixture
def checkpoint(tmp_path, small_filter):
    save_filter(tmp_path / "filter.safetensors", small_filter, {})
    return tmp_path / "filter.safetensors"


@pytest.fixture
def camouflage(tmp_path, checkpoint):
    """Run infer.py in this process on paths below tmp_path, into tmp_path/out."""

    def run(*arguments, out="out"):
        paths = [argument if argument.startswith("-") or not (tmp_path / argument).exists() else str(tmp_path / argument) for argument in arguments]
        return infer.main([*paths, "--out", str(tmp_path / out), "--checkpoint", str(checkpoint), "--device", "cpu"])

    return run


@pytest.fixture
def make(tmp_path):
    """Write a photo of noise, another for every name."""

    def save(name, width=40, height=24):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(sum(name.encode())).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
        return path

    return save


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class Brightness(torch.nn.Module):
    """A scorer, 0 for black and about 75 for noise; as some models from files do, it fails on one size."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if image.shape[3] == 33:
            raise ValueError("cannot score\n33 px")
        return 150 * image.mean((1, 2, 3))


@pytest.fixture
def brightness(monkeypatch):
    """In place of the bundled quality model, one that takes no time and calls noise unprotected, black protected."""
    monkeypatch.setattr(models, "load", lambda spec, device: Brightness())


def told(capsys):
    """What was told since the last call: JSON lines on the standard output, and the lines of faults."""
    captured = capsys.readouterr()
    return [json.loads(line) for line in captured.out.splitlines()], [line for line in captured.err.splitlines() if line.startswith("error: ")]


# What is written


def test_folders_come_out_with_their_names_sub_folders_and_formats(tmp_path, camouflage, make, capsys):
    for name in ["in/a.jpg", "in/sub/b.png", "in/sub/deep/c.webp", "single.bmp"]:
        make(name)
    (tmp_path / "in" / "notes.txt").write_text("no photo")
    assert camouflage("in", "single.bmp", "--run-code", "team_1") == 0
    names = ["sub/deep/team_1_c.webp", "sub/team_1_b.png", "team_1_a.jpg", "team_1_single.bmp"]
    assert sorted(files(tmp_path / "out")) == names
    assert [read(tmp_path / "out" / name).format for name in names] == ["WEBP", "PNG", "JPEG", "BMP"]
    assert capsys.readouterr().out.startswith("4 written, 0 there already, 0 failed;")


@pytest.mark.parametrize("strength", [0, 1, 2.5])
def test_the_file_holds_what_the_filter_gives(tmp_path, camouflage, make, small_filter, strength):
    pixels = read(make("a.png")).pixels
    assert camouflage("a.png", "--strength", str(strength)) == 0
    with torch.inference_mode():
        expected = to_uint8(small_filter(to_float(pixels)[None], strength))[0]
    written = read(tmp_path / "out" / "a.png").pixels
    assert (written.int() - expected.int()).abs().max() <= 1  # the loaded filter may work in another memory layout
    assert torch.equal(written, pixels) == (strength == 0)


def test_another_format_without_metadata(tmp_path, camouflage, make, capsys):
    make("in/a.tif")
    Image.fromarray(np.zeros((24, 40, 4), np.uint8)).save(tmp_path / "in/b.png")
    Image.new("RGB", (40, 24)).save(tmp_path / "in/c.jpg", comment=b"a secret")
    assert camouflage("in", "--format", "JPEG", "--strip-metadata") == 1
    assert sorted(files(tmp_path / "out")) == ["a.jpg", "c.jpg"]
    assert b"secret" not in (tmp_path / "out/c.jpg").read_bytes()
    assert "b.png': is partly transparent, which JPEG cannot hold" in capsys.readouterr().err


def test_a_gif_comes_out_as_png(tmp_path, camouflage, make):
    make("in/a.gif")
    for name in ("b.jpg", "c.JPEG", "d.webp"):  # whatever it is called
        make("in/other.gif").rename(tmp_path / "in" / name)
    assert camouflage("in") == 0
    assert list(files(tmp_path / "out")) == ["a.png", "b.png", "c.png", "d.png"]
    assert {read(tmp_path / "out" / name).format for name in files(tmp_path / "out")} == {"PNG"}


@pytest.mark.parametrize("file_format", [name for name in ("AVIF", "HEIF") if name in READABLE])
def test_formats_that_need_a_package(tmp_path, camouflage, make, file_format):
    make("in/a.jpg")
    assert camouflage("in", "--format", file_format.lower()) == 0
    name = f"a{SUFFIX_OF[file_format]}"
    assert list(files(tmp_path / "out")) == [name]
    written = read(tmp_path / "out" / name)
    assert (written.format, written.pixels.shape) == (file_format, (3, 24, 40))


def test_a_photo_lying_on_its_side_comes_out_upright(tmp_path, camouflage, make):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(make("a.png", 40, 24)).save(tmp_path / "side.jpg", exif=exif)
    assert camouflage("side.jpg") == 0
    with Image.open(tmp_path / "out" / "side.jpg") as written:
        assert written.size == (24, 40)
        assert written.getexif()[0x0112] == 1


def test_workers_change_no_byte_and_batches_one_step_at_most(tmp_path, camouflage, make, monkeypatch):
    for index in range(7):
        make(f"in/{index}.png", *[(40, 24), (24, 40), (33, 17)][index % 3])
    assert camouflage("in") == 0
    pools = []
    monkeypatch.setattr(pipeline, "ThreadPoolExecutor", lambda workers: pools.append(workers) or ThreadPoolExecutor(workers))
    for workers in [2, 3, 16]:
        monkeypatch.setattr(overlap, "WORKERS", workers)
        assert camouflage("in", out=f"{workers} workers") == 0
        assert files(tmp_path / f"{workers} workers") == files(tmp_path / "out")
        assert camouflage("in", "--batch-size", str(workers), out=f"batches of {workers}") == 0
        for name in files(tmp_path / "out"):
            alone, together = (read(tmp_path / out / name).pixels.int() for out in ("out", f"batches of {workers}"))
            assert (alone - together).abs().max() <= 1
            assert (alone != together).float().mean() < 1e-3
    assert pools == [2, 2, 3, 3, 16, 16]


@pytest.fixture
def batches_seen(monkeypatch):
    """The sizes of the batches that the filter was given."""
    forward, seen = FullSize.forward, []
    monkeypatch.setattr(FullSize, "forward", lambda self, pixels, strength: seen.append(len(pixels)) or forward(self, pixels, strength))
    return seen


@pytest.mark.parametrize(
    ("device", "flags", "expected"), [("cpu", [], [1] * 19), ("cuda", [], [16, 3]), ("mps", [], [16, 3]), ("cpu", ["--batch-size", "8"], [8, 8, 3])]
)
def test_photos_of_one_size_are_filtered_together_as_suits_the_device(camouflage, make, monkeypatch, batches_seen, device, flags, expected):
    for index in range(19):
        make(f"in/{index}.png")
    monkeypatch.setattr(pipeline, "device_of", lambda module: torch.device(device))
    assert camouflage("in", *flags) == 0
    assert batches_seen == expected


def test_the_default_batch_shrinks_as_photos_grow():
    gpu, cpu = torch.device("cuda", 1), torch.device("cpu")
    sizes = [(16, 16), (384, 512), (512, 384), (768, 512), (768, 1024), (1200, 1600), (3000, 4000)]
    assert [batches.default_batch_size(gpu, *size) for size in sizes] == [16, 16, 16, 8, 4, 1, 1]
    assert {batches.default_batch_size(cpu, *size) for size in sizes} == {1}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_what_a_pass_frees_is_kept_for_the_next():
    """A pass of the filter frees and wants again blocks of some 20 MB."""
    code = """
import resource, sys
from camo.camouflage.memory import keep_freed_memory
import numpy as np
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def a_pass(): blocks = [np.ones(5_000_000, np.float32) for _ in range(4)]
if sys.argv[1] == "keep": keep_freed_memory()
a_pass()
before = faults()
for _ in range(5): a_pass()
print(faults() - before)
"""
    runs = [subprocess.run([sys.executable, "-c", code, how], cwd=ROOT, capture_output=True, text=True, check=True) for how in ("keep", "give back")]
    kept, given_back = (int(run.stdout) for run in runs)
    assert kept < given_back / 10


def test_bf16_changes_little(tmp_path, camouflage, make):
    make("in/a.png", 96, 128)
    assert camouflage("in") == 0
    assert camouflage("in", "--precision", "bf16", out="mixed") == 0
    plain, mixed = (read(tmp_path / out / "a.png").pixels.int() for out in ("out", "mixed"))
    assert 0 < (plain - mixed).abs().float().mean() < 1


def test_groups_are_of_one_size_lose_nothing_and_hold_little_back(monkeypatch):
    jobs = []
    for index in range(60):
        photo = Photo(torch.zeros(3, 16, 16 + index % 7, dtype=torch.uint8), "PNG")
        jobs.append(Job(Path(str(index)), Path(str(index)), photo=photo))
    largest = 3 * 16 * 22
    monkeypatch.setattr(batches, "MAX_WAITING", 10 * largest)
    taken, given, most_waiting = 0, [], 0

    def source():
        nonlocal taken, most_waiting
        for job in jobs:
            taken += 1
            most_waiting = max(most_waiting, taken - len(given))
            yield job

    for group in batches.by_size(source(), lambda height, width: 4):
        assert len({job.photo.pixels.shape for job in group}) == 1
        assert len(group) <= 4
        given += group
    assert sorted(given, key=jobs.index) == jobs
    assert most_waiting <= 10 * largest // (3 * 16 * 16) + 1


def test_when_too_much_waits_the_fullest_group_goes_first(monkeypatch):
    def job(width):
        return Job(Path(str(width)), Path(str(width)), photo=Photo(torch.zeros(3, 16, width, dtype=torch.uint8), "PNG"))

    monkeypatch.setattr(batches, "MAX_WAITING", 3 * 16 * 100)
    groups = batches.by_size(map(job, [16, 20, 20, 20, 30]), lambda height, width: 4)
    assert [[job.photo.pixels.shape[-1] for job in group] for group in groups] == [[20, 20, 20], [16], [30]]


@pytest.mark.parametrize(("limit", "ahead"), [(10**9, 4), (5 * 1000, 4), (3 * 1000, 3), (10, 1)])
def test_work_ahead_is_bounded_in_jobs_and_bytes_and_keeps_its_order(monkeypatch, limit, ahead):
    monkeypatch.setattr(overlap, "WORKERS", 3)
    monkeypatch.setattr(overlap, "MAX_AHEAD", limit)
    photo = Photo(torch.zeros(1000, dtype=torch.uint8), "PNG")
    jobs = [Job(Path(str(index)), Path(str(index)), photo=photo) for index in range(20)]
    taken, given, most = [], [], 0

    def work(job):
        taken.append(job)
        if job is jobs[5]:
            raise MemoryError
        return job

    faults = []
    with ThreadPoolExecutor(3) as pool:
        for job in overlap.in_order(pool, work, iter(jobs), faults):
            most = max(most, len(taken) - len(given) - len(faults))
            given.append(job)
            time.sleep(0.01)  # the threads do all that they were given
    assert given == jobs[:5] + jobs[6:]
    assert most <= ahead
    assert [str(fault) for fault in faults] == ["'5': cannot be processed: MemoryError"]


def test_the_bytes_of_a_photo_are_told_from_its_header(tmp_path, make):
    make("a.png", 40, 24)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    os.mkfifo(tmp_path / "pipe.png")
    sizes = {name: overlap._bytes(Job(tmp_path / name, tmp_path)) for name in ("a.png", "broken.png", "pipe.png", "gone.png")}
    assert sizes == {"a.png": 3 * 40 * 24, "broken.png": 0, "pipe.png": 0, "gone.png": 0}


# What is there already


def test_existing_files_are_kept_unless_told(tmp_path, camouflage, make, capsys):
    make("in/a.png")
    make("in/b.png")
    make("out/a.png", 20, 20)
    before = files(tmp_path / "out")
    assert camouflage("in") == 0
    assert capsys.readouterr().out.startswith("1 written, 1 there already, 0 failed;")
    assert files(tmp_path / "out")["a.png"] == before["a.png"]
    assert camouflage("in", "--overwrite") == 0
    assert capsys.readouterr().out.startswith("2 written, 0 there already, 0 failed;")
    assert files(tmp_path / "out")["a.png"] != before["a.png"]


def test_with_verify_the_files_that_are_kept_are_scored_too(tmp_path, camouflage, make, capsys, brightness):
    for name in ("dark", "new", "other", "same", "torn"):
        make(f"in/{name}.png")
    (tmp_path / "out").mkdir()
    Image.new("RGB", (40, 24)).save(tmp_path / "out/dark.png")
    (tmp_path / "out/same.png").write_bytes((tmp_path / "in/same.png").read_bytes())
    make("out/other.png", 20, 30)
    (tmp_path / "out/torn.png").write_bytes(b"no picture")
    before = files(tmp_path / "out")
    assert camouflage("in", "--verify") == 1
    summary = capsys.readouterr()
    lines = {Path(line["written"]).stem: line for line in map(json.loads, summary.out.splitlines())}
    assert sorted(lines) == ["dark", "new", "same"]
    assert [(lines[name]["strength"], lines[name]["steps"]) for name in ("dark", "same")] == [(None, 0)] * 2
    assert [lines[name]["protected"] for name in ("dark", "same")] == [True, False]
    assert lines["same"]["score_before"] == lines["same"]["score_after"] > 50 > lines["dark"]["score_after"]
    assert (lines["same"]["psnr"], lines["dark"]["psnr"] < 10) == (100, True)
    for message in (
        "out/same.png': scores",
        "other.png': cannot be processed: the existing file has 20x30 px, not 40x24",
        "out/torn.png': not a",
    ):
        assert summary.err.count(message) == 1
    assert "1 written, 4 there already," in summary.err
    assert files(tmp_path / "out") == {**before, "new.png": files(tmp_path / "out")["new.png"]}
    (tmp_path / "in/dark.png").rename(tmp_path / "dark.png")
    assert camouflage("dark.png", "--verify") == 0
    assert "0 written, 1 there already, 0 failed" in capsys.readouterr().err


@pytest.fixture
def another_run(tmp_path, monkeypatch):
    """While this run filters, another one writes a black photo to the same place."""
    prepare = FullSize.prepare

    def meanwhile(self, pixels):
        (tmp_path / "out").mkdir(exist_ok=True)
        Image.new("RGB", (40, 24)).save(tmp_path / "out/a.png")
        return prepare(self, pixels)

    monkeypatch.setattr(FullSize, "prepare", meanwhile)


def test_a_file_that_another_run_wrote_meanwhile_is_there_already(tmp_path, camouflage, make, capsys, another_run):
    make("in/a.png")
    make("in/b.png")
    assert camouflage("in") == 0
    assert capsys.readouterr().out.startswith("1 written, 1 there already, 0 failed;")
    assert not read(tmp_path / "out/a.png").pixels.any()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]


def test_with_verify_such_a_file_is_the_one_that_is_scored(tmp_path, camouflage, make, capsys, brightness, another_run):
    make("in/a.png")
    assert camouflage("in", "--verify") == 0
    captured = capsys.readouterr()
    (line,) = map(json.loads, captured.out.splitlines())
    assert (line["protected"], line["strength"], line["psnr"] < 10) == (True, None, True)
    assert captured.err.startswith("0 written, 1 there already, 0 failed;")


def test_the_output_folder_inside_the_input_folder_is_not_read_again(tmp_path, camouflage, make, capsys):
    make("in/a.png")
    for _ in range(2):
        assert camouflage("in", out="in/out") == 0
    assert sorted(files(tmp_path / "in")) == ["a.png", "out/a.png"]
    assert "0 written, 1 there already" in capsys.readouterr().out


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]])
def test_no_input_is_ever_overwritten(tmp_path, camouflage, make, capsys, overwrite):
    make("in/a.png")
    before = files(tmp_path / "in")
    assert camouflage("in", *overwrite, out="in") == 1
    assert camouflage("in/a.png", *overwrite, out="in") == 1
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").symlink_to(tmp_path / "in" / "a.png")
    assert camouflage("in", *overwrite) == 1
    assert files(tmp_path / "in") == before
    errors = capsys.readouterr().err.splitlines()
    assert ["output folder itself" in errors[0], "overwrite the input" in errors[1], "overwrite the input" in errors[2]] == [True] * 3


def test_of_two_inputs_for_one_output_the_second_is_a_fault(tmp_path, camouflage, make, capsys):
    make("one/a.png")
    make("two/a.png")
    assert camouflage("one", "one/a.png", "two") == 1  # the same file twice is no fault
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "two/a.png': its output would overwrite the output of" in captured.err
    assert captured.out.startswith("1 written, 0 there already, 1 failed;")
    alone = files(tmp_path / "out")
    assert camouflage("one", out="alone") == 0
    assert alone == files(tmp_path / "alone")


# Faults


def test_bad_files_are_told_of_in_one_line_each_and_the_rest_is_done(tmp_path, camouflage, make, capsys):
    make("in/a.png")
    make("in/small.png", 40, 15)
    make("in/z.png", 16, 16)
    (tmp_path / "in" / "broken\n.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "in" / "empty.png").touch()
    (tmp_path / "in" / "gone.png").symlink_to("nowhere")
    assert camouflage("in", "missing") == 1
    captured = capsys.readouterr()
    assert sorted(files(tmp_path / "out")) == ["a.png", "z.png"]
    errors = captured.err.splitlines()
    assert len(errors) == 5
    assert all(error.startswith("error: '") for error in errors)
    for named in ["missing", r"broken\n.jpg", "empty.png", "gone.png", "small.png': 40x15 px"]:
        assert sum(named in error for error in errors) == 1
    assert captured.out.startswith("2 written, 0 there already, 5 failed;")


def test_odd_names_are_done_and_their_faults_told_in_one_line(tmp_path, camouflage, make, capsys, brightness):
    good, bad = ("line\nbreak\u2028.png", os.fsdecode(b"caf\xe9.png")), ("a\n\rb.png", os.fsdecode(b"\xff.png"))
    for name in good:
        make(f"in/{name}".encode("utf-8", "replace").decode()).rename(tmp_path / "in" / name)
    for name in bad:
        (tmp_path / "in" / name).write_bytes(b"no picture")
    assert camouflage("in") == 1
    assert sorted(files(tmp_path / "out")) == sorted(good)
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert all(repr(str(tmp_path / "in" / name)) in "\n".join(errors) for name in bad)
    assert camouflage("in", "--verify", out="verified") == 1
    lines, errors = told(capsys)
    assert sorted(line["path"] for line in lines) == sorted(str(tmp_path / "in" / name) for name in good)
    assert len(errors) == 4  # two of them unprotected
    assert infer.main([str(tmp_path / "in"), "--out", str(tmp_path / "none"), "--checkpoint", "no\nfile\r\u2028"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_tiny_and_unreadable_files_are_told_of_and_the_rest_is_done(tmp_path, camouflage, make, capsys):
    make("in/a.png")
    make("in/one.png", 1, 1)
    make("in/narrow.png", 15, 3)
    expected = ["narrow.png': 15x3 px; the filter needs 16 px", "one.png': 1x1 px"]
    if os.geteuid():  # root may read everything
        make("in/secret.png").chmod(0)
        expected.append("secret.png': cannot be read: Permission denied")
    assert camouflage("in") == 1
    assert list(files(tmp_path / "out")) == ["a.png"]
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == len(expected)
    assert all(message in error for message, error in zip(expected, errors, strict=True))


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_an_output_that_takes_no_more_is_told_of_and_nothing_is_half_written(tmp_path, camouflage, make, monkeypatch, capsys, code):
    for index in range(4):
        make(f"in/{index}.png")
    count, write_bytes, fsync = itertools.count(), Path.write_bytes, os.fsync

    def fails_once(path, content):
        if path.suffix != ".part" or next(count) != 1:
            return write_bytes(path, content)
        if code == errno.ENOSPC:
            write_bytes(path, content[:99])
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(overlap, "WORKERS", 1)
    monkeypatch.setattr(Path, "write_bytes", fails_once)
    assert camouflage("in") == 1
    captured = capsys.readouterr()
    assert captured.err.splitlines() == [f"error: {str(tmp_path / 'out/1.png')!r}: cannot be written: {os.strerror(code)}"]
    assert captured.out.startswith("3 written, 0 there already, 1 failed;")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.png", "2.png", "3.png"]  # hidden files too

    def full(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", full)
    assert camouflage("in") == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert len(list((tmp_path / "out").iterdir())) == 3
    monkeypatch.setattr(os, "fsync", fsync)
    assert camouflage("in") == 0
    assert len(files(tmp_path / "out")) == 4


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory.\nMuch\nwas wanted"), RuntimeError("can't allocate"), MemoryError()])
@pytest.mark.parametrize("batch", ["1", "3"])
def test_a_photo_too_large_for_the_memory_is_told_of_and_the_rest_is_done(tmp_path, camouflage, make, monkeypatch, capsys, error, batch):
    for index in range(3):
        make(f"in/{index}.png")
    make("in/large.png", 50, 50)
    forward = FullSize.forward

    def limited(self, pixels, strength):
        if len(pixels) > 2 or pixels.shape[-1] == 50:
            raise error
        return forward(self, pixels, strength)

    monkeypatch.setattr(FullSize, "forward", limited)
    assert camouflage("in", "--batch-size", batch) == 1
    assert sorted(files(tmp_path / "out")) == ["0.png", "1.png", "2.png"]
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith(f"error: {str(tmp_path / 'in/large.png')!r}: cannot be processed: ")
    assert (str(error).splitlines() or ["MemoryError"])[0] in errors[0]


@pytest.mark.parametrize(
    ("channel", "width", "message"),
    [("WebP 80", 16_400, "--channel 'WebP 80' fails on 16400x16 px: "), ("JPEG 90", 65_510, "--channel 'JPEG 90' fails on 65510x16 px: ")],
)
def test_a_photo_too_long_for_the_channel_is_told_of_and_the_rest_is_done(tmp_path, camouflage, make, capsys, brightness, channel, width, message):
    make("in/a.png")
    make("in/long.png", width, 16)
    assert camouflage("in", "--verify", "--channel", channel) == 1
    lines, errors = told(capsys)
    assert [Path(line["path"]).name for line in lines] == list(files(tmp_path / "out")) == ["a.png"]
    assert ["not protected" in errors[0] or "not protected" in errors[1], len(errors)] == [True, 2]
    assert any(f"long.png': cannot be processed: {message}" in error for error in errors)


@pytest.mark.filterwarnings("ignore:.torch.jit")  # TorchScript is deprecated
def test_a_quality_model_that_fails_on_a_photo_is_told_of_and_the_rest_is_done(tmp_path, camouflage, make, capsys):
    torch.jit.script(Brightness()).save(tmp_path / "scorer.ts")
    make("in/a.png")
    make("in/odd.png", 33, 20)
    assert camouflage("in", "--verify", "--channel", "none", "--biqa", str(tmp_path / "scorer.ts")) == 1
    lines, errors = told(capsys)
    assert [Path(line["path"]).name for line in lines] == ["a.png"]
    assert len(errors) == 2
    assert sum("odd.png': cannot be processed: " in error and "33 px" in error for error in errors) == 1


def test_what_a_file_cannot_hold_is_named_once_and_counted(tmp_path, camouflage, make, capsys):
    make("in/a.png")
    Image.new("RGB", (40, 24)).save(tmp_path / "in/noted.jpg", xmp=b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>", comment=b"by the sea")
    assert camouflage("in", "--format", "bmp") == 0
    captured = capsys.readouterr()
    (warning,) = captured.err.splitlines()
    assert "noted.jpg': left out: " in warning
    assert "XMP" in warning
    assert "comments" in warning
    assert "2 written, 0 there already, 0 failed, 1 without something that their file held; " in captured.out


def test_strict_metadata_writes_no_photo_of_which_something_is_left_out(tmp_path, camouflage, make, capsys):
    make("in/a.png")
    Image.new("RGB", (40, 24)).save(tmp_path / "in/noted.jpg", comment=b"by the sea")
    assert camouflage("in", "--format", "bmp", "--strict-metadata") == 1
    assert list(files(tmp_path / "out")) == ["a.bmp"]
    assert "noted.jpg': not written, because this would be left out: comments" in capsys.readouterr().err
    assert camouflage("in", "--format", "bmp", "--strict-metadata", "--strip-metadata") == 0


def test_depths_of_more_than_8_bits_are_counted(tmp_path, camouflage, make, capsys):
    make("in/a.png")
    Image.fromarray(np.full((24, 40), 40_000, np.uint16)).save(tmp_path / "in/deep.png")
    assert camouflage("in") == 0
    assert "2 written, 0 there already, 0 failed, 1 rounded to 8 bits; " in capsys.readouterr().out


def test_larger_photos_than_max_pixels_are_refused_with_the_number(tmp_path, camouflage, make, capsys):
    make("in/a.png", 400, 250)
    make("in/b.png", 401, 250)
    assert camouflage("in", "--max-pixels", "100000") == 1
    assert list(files(tmp_path / "out")) == ["a.png"]
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert "b.png'" in error
    assert "401x250 px are 0.1 megapixels, more than the limit of 0.1; --max-pixels raises it" in error


def test_the_limit_holds_for_files_that_are_there_already_too(tmp_path, camouflage, make, capsys, brightness, monkeypatch):
    make("in/a.png")
    assert camouflage("in") == 0
    for module in ("files", "pipeline"):
        monkeypatch.setattr(f"camo.camouflage.{module}.read", lambda path, max_pixels=100: read(path, max_pixels))
    camouflage("in", "--verify", "--max-pixels", "1000")
    assert "more than the limit" not in capsys.readouterr().err


def test_what_cannot_be_written_is_told_of_and_the_rest_is_done(tmp_path, camouflage, make, capsys):
    make("in/a.png")
    make("in/sub/b.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").write_text("a file where a folder should be")
    assert camouflage("in") == 1
    assert sorted(files(tmp_path / "out")) == ["a.png", "sub"]
    assert "b.png': cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "missing.safetensors"], "missing.safetensors"),
        (["--device", "abacus"], "--device abacus: cannot be used"),
        (["--out", __file__], "File exists"),
    ],
)
def test_a_fault_before_the_first_photo_ends_the_run_in_one_line(camouflage, make, capsys, arguments, message, tmp_path, checkpoint):
    make("a.png")
    given = ["--out", str(tmp_path / "out"), "--checkpoint", str(checkpoint), *arguments]
    assert infer.main([str(tmp_path / "a.png"), *given]) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert message in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "out").exists() or not files(tmp_path / "out")


@pytest.mark.parametrize(
    "wrong",
    [
        *(["--strength", value] for value in ("-0.1", "nan", "inf")),
        *(["--batch-size", "0"], ["--run-code", "../up"], ["--run-code", ""]),
        *(["--refine", "5"], ["--channel", "none"], ["--biqa", "koncept512"], ["--min-psnr", "40"]),  # without --verify
        *(["--min-psnr", value, "--verify"] for value in ("nan", "inf")),
        ["--refine", "-1", "--verify"],
    ],
)
def test_wrong_usage_is_told_and_writes_nothing(tmp_path, camouflage, make, capsys, wrong):
    make("a.png")
    with pytest.raises(SystemExit) as caught:
        camouflage("a.png", *wrong)
    assert caught.value.code == WRONG_USAGE
    assert wrong[0] in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_ctrl_c_ends_with_one_line_and_whole_files(tmp_path, make, checkpoint):
    names = [make(f"in/{index:03}.png", 64, 64).name for index in range(400)]
    out = tmp_path / "out"
    command = [sys.executable, str(ROOT / "infer.py"), str(tmp_path / "in"), "--out", str(out), "--checkpoint", str(checkpoint)]
    screen, terminal = os.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    listening = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs are born deaf to Ctrl-C
    with subprocess.Popen(command, stderr=terminal, start_new_session=True, preexec_fn=listening) as process:
        deadline = time.monotonic() + 120
        while not (out / names[0]).exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == INTERRUPTED
    os.close(terminal)
    shown = os.read(screen, 1 << 16).decode()
    os.close(screen)
    assert "photo/s" in shown  # the progress bar
    assert shown.splitlines()[-1] == "interrupted; the same command completes the run"
    assert "Traceback" not in shown
    written = sorted(path.name for path in out.iterdir())  # hidden files too
    assert 0 < len(written) < len(names)
    assert set(written) <= set(names)
    assert all(read(out / name).pixels.shape == (3, 64, 64) for name in written)


@pytest.mark.parametrize("flags", [[], ["--verify"]])
def test_when_nobody_reads_the_output_it_ends_quietly_with_whole_files(tmp_path, camouflage, make, monkeypatch, capsys, brightness, flags):
    names = [Path(make(f"in/{index}.png")).name for index in range(6)]
    reader, writer = os.pipe()
    os.close(reader)  # as of head -c 0
    with os.fdopen(writer, "w") as closed, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", closed)
        assert camouflage("in", *flags) == 1
    assert capsys.readouterr().err == ""
    written = sorted(path.name for path in (tmp_path / "out").iterdir())  # hidden files too
    assert written if flags else written == names
    assert set(written) <= set(names)
    assert all(read(tmp_path / "out" / name).pixels.shape == (3, 24, 40) for name in written)


def test_infer_from_a_clone_is_the_verb(capsys):
    texts = []
    for entry in (infer.main, lambda argv: camo_main(["infer", *argv])):
        with pytest.raises(SystemExit):
            entry(["--help"])
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert "a TorchScript FILE.ts, which is code that will be run" in " ".join(texts[0].split())


def test_help_does_not_wait_for_torch():
    code = "import sys, infer\ntry: infer.main(['--help'])\nexcept SystemExit: pass\nprint({'torch', 'PIL'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "usage:" in done.stdout
    assert done.stdout.splitlines()[-1] == "set()"


def test_what_a_killed_run_left_is_removed_and_what_others_write_is_not(tmp_path, camouflage, make):
    make("a.png")
    (tmp_path / "out").mkdir()
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    with contextlib.suppress(ZeroDivisionError), atomic_write(tmp_path / "out" / "b.png") as part:
        name = part.name
        raise ZeroDivisionError
    dead, alive, foreign = (tmp_path / "out" / name.replace(f"-{os.getpid()}-", f"-{owner}-") for owner in (process.pid, os.getppid(), "elsewhere"))
    for file in (dead, alive, foreign):
        file.write_bytes(b"half")
    assert camouflage("a.png") == 0
    assert sorted(files(tmp_path / "out")) == sorted(["a.png", alive.name, foreign.name])


def test_whether_the_writer_of_a_part_still_runs_is_asked_without_a_signal(tmp_path, camouflage, make, monkeypatch):
    """On Windows, ``os.kill`` sends a Ctrl-C or ends the process, whatever the signal."""
    make("a.png")
    with contextlib.suppress(ZeroDivisionError), atomic_write(tmp_path / "out" / "b.png") as part:
        name = part.name
        raise ZeroDivisionError
    ended, running = (tmp_path / "out" / name.replace(f"-{os.getpid()}-", f"-{owner}-") for owner in (os.getppid(), 4_000_000_000))
    for file in (ended, running):
        file.write_bytes(b"half")
    monkeypatch.setattr(psutil, "pid_exists", lambda process: process == 4_000_000_000)
    monkeypatch.setattr(os, "kill", lambda *_: pytest.fail("a signal was sent"))
    assert camouflage("a.png") == 0
    assert sorted(files(tmp_path / "out")) == sorted(["a.png", running.name])
