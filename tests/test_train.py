import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import train
from camo import CamoError
from camo.checkpoint import load_filter, load_state, read_provenance
from camo.config import PRESETS, TrainConfig, add_arguments, from_arguments

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def handlers_restored():
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Five photos; every third is held out."""
    path = tmp_path_factory.mktemp("photos")
    for photo in sorted((ROOT / "data" / "sample" / "dev").glob("*.jpg"))[:5]:
        shutil.copy(photo, path)
    return path


def tiny(folder, **changes):
    settings = {"hold_out": 3, "width": 8, "crop_height": 64, "crop_width": 96, "batch_size": 2, "steps": 6, "validate_every": 3, "workers": 0}
    return TrainConfig(data=(str(folder),), **(settings | changes))


def flags(config):
    given = {name: value for name, value in config.as_json().items() if value != getattr(TrainConfig(), name) and value != []}
    words = []
    for name, value in given.items():
        words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    return words


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_a_run_writes_what_infer_and_resume_need(folder, tmp_path):
    train.train(tiny(folder), tmp_path, cpu=True)
    assert load_filter(tmp_path / "best.safetensors")(torch.rand(1, 3, 40, 50)).shape == (1, 3, 40, 50)
    provenance = read_provenance(tmp_path / "best.safetensors")
    assert provenance["settings"]["perceptual"] == "offline"
    assert 0 <= provenance["validation"]["protected_rate"] <= 1
    assert load_state(tmp_path / "last.pt")["step"] == 6
    assert any(file.name.startswith("events") for file in tmp_path.iterdir())


@pytest.mark.parametrize("accumulate", [1, 2])
def test_resumed_equals_undisturbed_bit_for_bit(folder, tmp_path, monkeypatch, accumulate):
    config = tiny(folder, accumulate=accumulate, validate_every=2)
    train.train(config, tmp_path / "whole", cpu=True)
    save = train.save_state

    def save_and_die(path, **state):
        save(path, **state)
        raise RuntimeError("power cut")

    monkeypatch.setattr(train, "save_state", save_and_die)
    (tmp_path / "cut").mkdir()
    with pytest.raises(RuntimeError, match="power cut"):
        train.train(config, tmp_path / "cut", cpu=True)
    monkeypatch.setattr(train, "save_state", save)
    train.train(config, tmp_path / "cut", load_state(tmp_path / "cut" / "last.pt"), cpu=True)
    whole, cut = (load_state(tmp_path / name / "last.pt") for name in ("whole", "cut"))
    assert whole["best"] == cut["best"]
    assert equal(whole["model"], cut["model"])
    assert equal(whole["average"], cut["average"])


def test_training_lowers_the_objective(folder, tmp_path, monkeypatch):
    losses = []
    monkeypatch.setattr(train, "log", lambda writer, step, loss, terms, rate: losses.append(terms["score"].item()))
    train.train(tiny(folder, steps=60, validate_every=60), tmp_path, cpu=True)
    assert losses[-1] < losses[0] - 0.1


class Broken(torch.nn.Module):
    def forward(self, image):
        return image.mean((1, 2, 3)) * float("nan")


def test_a_loss_that_is_not_finite_stops_with_step_and_terms(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(train.biqa, "load", lambda spec, device: Broken())
    with pytest.raises(CamoError, match=r"step 1: the loss is nan; score nan, pixels \d"):
        train.train(tiny(folder), tmp_path, cpu=True)


def parse(*words):
    import argparse

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


def test_presets_and_flags(folder):
    for preset, settings in PRESETS.items():
        config = from_arguments(parse("--preset", preset, "--data", str(folder), "--steps", "9"))
        assert config.steps == 9
        for name, value in settings.items():
            assert name in {"data", "steps"} or getattr(config, name) == value


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "0"], "--steps 0"),
        (["--quality-low", "96"], "--quality-low 96 --quality-high 95"),
        (["--crop-height", "32"], "320x32"),
        (["--slack", "0"], "--slack 0.0"),
        (["--data", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_settings_that_make_no_run_are_refused(words, message):
    with pytest.raises(CamoError, match=message):
        from_arguments(parse(*words))


def test_resume_takes_the_settings_of_the_run(folder):
    config = tiny(folder)
    assert from_arguments(parse(), config.as_json()) == config
    with pytest.raises(CamoError, match="--seed 4: the run to resume has 0"):
        from_arguments(parse("--seed", "4"), config.as_json())


def command(folder, out, *extra, **changes):
    return ["train.py", "--out", str(out), "--cpu", *flags(tiny(folder, **changes)), *extra]


def test_a_run_starts_from_the_weights_given(folder, tmp_path):
    train.train(tiny(folder), tmp_path / "first", cpu=True)
    given = str(tmp_path / "first" / "best.safetensors")
    train.train(tiny(folder, init=given, rate=1e-12, steps=1), tmp_path / "second", cpu=True)
    first, second = (load_filter(tmp_path / name / "best.safetensors").state_dict() for name in ("first", "second"))
    assert all(torch.allclose(first[key], second[key], atol=1e-6) for key in first)
    with pytest.raises(CamoError, match=r"--init .*: a filter of .*, not"):
        train.train(tiny(folder, init=given, gain=9.0), tmp_path / "third", cpu=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_leaves_a_resumable_run(folder, tmp_path, number):
    process = subprocess.Popen(
        [sys.executable, *command(folder, tmp_path, steps=100_000, workers=1)], cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    while not (tmp_path / "last.pt").exists() and process.poll() is None:
        time.sleep(0.2)
    os.killpg(process.pid, number)  # workers get it too
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in told
    assert "Traceback" not in told
    assert load_state(tmp_path / "last.pt")["step"] >= 3
    again = subprocess.run([sys.executable, *command(folder, tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert "holds a run already" in again.stderr


def test_two_processes(folder, tmp_path):
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_cpu_threads_per_process", "1"]
    # Ranks 0 and 1 see the crops that a single process with twice the batch sees.
    run = subprocess.run([sys.executable, *launch, *command(folder, tmp_path / "two")], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    assert load_state(tmp_path / "two" / "last.pt")["step"] == 6
    figures = json.loads(run.stdout.strip().splitlines()[-1])
    assert Path(figures["best"]).is_file()


def test_crops_of_processes_neither_overlap_nor_leave_out():
    parts = [train.crops_of_process(2, 5, 4, rank, 3) for rank in range(3)]
    assert sorted(index for part in parts for index in part) == list(range(2 * 12, 5 * 12))
