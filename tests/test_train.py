import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from copy import deepcopy
from pathlib import Path

import pytest
import timm
import torch
from accelerate.state import AcceleratorState

import train
from camo import CamoError
from camo.filter.checkpoint import load_filter, read_provenance
from camo.filter.generator import Filter, UNet
from camo.filter.settings import JNDSettings
from camo.filter.trunk import Trunk
from camo.quality import models
from camo.quality.efficientnet import load_quality, save_quality
from camo.quality.models import load_bundled
from camo.training import channel
from camo.training.config import PRESETS, TrainConfig, add_arguments, from_arguments
from camo.training.crops import crops_of_process
from camo.training.precision import autocast_unet
from camo.training.state import load_state
from camo.weights import CHECKPOINTS

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
    settings |= {"unrolled": 1, "gain": 6.0}
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


@pytest.mark.parametrize(("accumulate", "validate_every"), [(1, 2), (2, 3)])  # with 2, a validation is due between two steps that belong together
def test_resumed_equals_undisturbed_bit_for_bit(folder, tmp_path, monkeypatch, accumulate, validate_every):
    config = tiny(folder, accumulate=accumulate, validate_every=validate_every)
    train.train(config, tmp_path / "whole", cpu=True)
    save = train.save_state

    def save_and_die(path, parts, **values):
        save(path, parts, **values)
        raise RuntimeError("power cut")

    monkeypatch.setattr(train, "save_state", save_and_die)
    (tmp_path / "cut").mkdir()
    with pytest.raises(RuntimeError, match="power cut"):
        train.train(config, tmp_path / "cut", cpu=True)
    monkeypatch.setattr(train, "save_state", save)
    state = load_state(tmp_path / "cut" / "last.pt")
    assert state["step"] == (2 if accumulate == 1 else 4)
    train.train(config, tmp_path / "cut", state, cpu=True)
    whole, cut = (load_state(tmp_path / name / "last.pt") for name in ("whole", "cut"))
    assert whole["best"] == cut["best"]
    assert equal(whole["model"], cut["model"])
    assert equal(whole["average"], cut["average"])


@pytest.mark.parametrize("asked", [3, 4])
def test_a_stop_waits_for_the_steps_that_belong_together(folder, tmp_path, monkeypatch, asked):
    config = tiny(folder, accumulate=2)
    train.train(config, tmp_path / "whole", cpu=True)
    forward = train.Objective.forward

    def forward_and_ask(self, original, filtered):
        if self.step + 1 == asked:
            os.kill(os.getpid(), signal.SIGINT)
        return forward(self, original, filtered)

    with monkeypatch.context() as patch:
        patch.setattr(train.Objective, "forward", forward_and_ask)
        with pytest.raises(KeyboardInterrupt):
            train.train(config, tmp_path / "cut", cpu=True)
    state = load_state(tmp_path / "cut" / "last.pt")
    assert state["step"] == 4
    train.train(config, tmp_path / "cut", state, cpu=True)
    whole, cut = (load_state(tmp_path / name / "last.pt") for name in ("whole", "cut"))
    assert whole["step"] == cut["step"] == 6
    assert equal(whole["model"], cut["model"])
    assert equal(whole["average"], cut["average"])


def test_a_run_says_which_terms_it_minimises(folder, tmp_path, capsys):
    train.train(tiny(folder, steps=1, perceptual="none"), tmp_path, cpu=True)
    assert "quality models: bundled; perceptual terms: none" in capsys.readouterr().out.splitlines()[0]


def test_training_lowers_the_objective(folder, tmp_path, monkeypatch):
    losses = []
    monkeypatch.setattr(train, "log", lambda writer, step, loss, terms, rate: losses.append(terms["score"].item()))
    train.train(tiny(folder, steps=60, validate_every=60), tmp_path, cpu=True)
    assert losses[-1] < losses[0] - 0.1


class Fake(torch.nn.Module):
    """A scorer that gives the mean of the photo, whatever it is, ``score`` points."""

    window, symmetric = (1, 1), True

    def __init__(self, score, slope=1.0):
        super().__init__()
        self.score, self.slope = score, slope

    def forward(self, image):
        mean = image.mean((1, 2, 3))
        return self.score + self.slope * (mean - mean.detach())


class FailsInTraining(Fake):
    def forward(self, image):
        return super().forward(image) * (float("nan") if torch.is_grad_enabled() else 1)


def test_a_loss_that_is_not_finite_stops_with_step_and_terms(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(train.models, "load", lambda spec, device: FailsInTraining(60.0))
    with pytest.raises(CamoError, match=r"step 1: the loss is nan; score nan, pixels \d"):
        train.train(tiny(folder, biqa=("fake",)), tmp_path, cpu=True)


@pytest.mark.parametrize("models_per_step", ["all", "one"])
def test_against_several_models(folder, tmp_path, monkeypatch, models_per_step):
    """Where one is fooled from the start and the other never: their weights part, and a run that is continued has both."""
    monkeypatch.setattr(train.models, "load", lambda spec, device: Fake(30.0 if spec == "easy" else 60.0))
    monkeypatch.setattr(train, "Validation", lambda *_: lambda _: ({"merit": 1.0}, torch.zeros(1, 3, 8, 8)))
    config = tiny(folder, biqa=("easy", "hard"), models_per_step=models_per_step, target=(40.0, 45.0))
    train.train(config, tmp_path, cpu=True)
    easy, hard = load_state(tmp_path / "last.pt")["weights"]
    assert easy == pytest.approx(train.Objective.HEAVIEST * 0.99 ** (6 if models_per_step == "all" else 3))
    assert hard == train.Objective.HEAVIEST
    assert read_provenance(tmp_path / "best.safetensors")["settings"]["biqa"] == ["easy", "hard"]
    state = load_state(tmp_path / "last.pt") | {"step": 5}
    train.train(config, tmp_path, state, cpu=True)
    assert load_state(tmp_path / "last.pt")["weights"][0] == pytest.approx(easy * (0.99 if models_per_step == "all" else 1))


def test_a_scorer_without_a_gradient_is_refused_before_the_first_step(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(train.models, "load", lambda spec, device: Fake(60.0, slope=0.0))
    with pytest.raises(CamoError, match="gives no gradient to train with"):
        train.train(tiny(folder, biqa=("fake",)), tmp_path, cpu=True)


def test_validation_photos_that_need_no_protection_are_refused_before_the_first_step(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train.Objective, "forward", None)  # no step may be taken
    monkeypatch.setattr(sys, "argv", command(folder, tmp_path, threshold=(99.0,)))
    assert train.main() == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert len(output.err.splitlines()) == 1
    assert "none of the 2 validation photos scores above --threshold 99.0 (the highest score is" in output.err
    assert not any(tmp_path.iterdir())


def test_the_threshold_decides_what_is_protected(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(train.models, "load", lambda spec, device: Fake(60.0))
    rates = {}
    for threshold in (59.0, 70.0):  # the filter changes nothing about a score of 60
        settings = tiny(folder, biqa=("fake",), threshold=(threshold,), steps=1)
        if threshold < 60:
            train.train(settings, tmp_path / str(threshold), cpu=True)
            rates[threshold] = read_provenance(tmp_path / str(threshold) / "best.safetensors")["validation"]["protected_rate"]
        else:
            with pytest.raises(CamoError, match=r"the highest score is 60\.0"):
                train.train(settings, tmp_path / str(threshold), cpu=True)
    assert rates == {59.0: 0.0}


def test_the_last_line_is_json_and_names_a_file_that_exists(folder, tmp_path, capsys):
    train.train(tiny(folder, steps=1), tmp_path, cpu=True)

    def refuse(constant):
        raise ValueError(f"{constant} is no JSON")

    last = json.loads(capsys.readouterr().out.splitlines()[-1], parse_constant=refuse)
    assert last["merit"] >= 0
    assert Path(last["best"]).is_file()


def gradient(config, out, monkeypatch, term):
    """Direction of the gradient of one term of the objective with respect to the filter's parameters, as a run of one step finds it."""
    forward = train.Objective.forward

    def one_term(self, original, filtered):
        assert not torch.is_autocast_enabled("cpu")
        _, terms = forward(self, original, filtered)
        return terms[term], terms

    with monkeypatch.context() as patch:
        patch.setattr(train.Objective, "forward", one_term)
        AcceleratorState._reset_state(reset_partial_state=True)  # it would keep the first run's precision
        train.train(config, out, cpu=True)
        AcceleratorState._reset_state(reset_partial_state=True)
    moments = load_state(out / "last.pt")["optimizer"]["state"]
    return torch.cat([moment["exp_avg"].flatten() for moment in moments.values()])


@pytest.mark.parametrize("term", ["score", "features"])
def test_gradients_in_mixed_precision_agree_with_those_in_full(folder, tmp_path, monkeypatch, term):
    full, mixed = (
        gradient(tiny(folder, precision=precision, steps=1, channel="none"), tmp_path / precision, monkeypatch, term) for precision in ("no", "bf16")
    )
    assert not torch.equal(full, mixed)
    # Without the channel: where an 8-bit value or a JPEG coefficient is rounded the other way, the gradient is that of another image.
    assert torch.cosine_similarity(full, mixed, dim=0) >= 0.98  # 0.988 for the score of the bundled model, 0.99 for the features


def test_a_steep_slope_does_not_overflow_in_half_precision():
    torch.manual_seed(0)
    unet = UNet(width=8, depth=1)
    back = unet.trunk.back

    def steep(*maps):
        slope = back(*maps)
        return slope * (2000 / slope.float().square().mean().sqrt())  # its square is more than 65504, fp16's largest number

    unet.trunk.back = steep
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        full, _ = unet(image)
        with torch.autocast("cpu", torch.float16):
            half, _ = unet(image)
    assert (half - full).abs().max() < 0.02


def test_mixed_precision_is_for_what_the_unet_learns_and_not_for_copies():
    model = Filter(width=8)
    copy = deepcopy(model)
    autocast_unet(model, torch.device("cpu"), "bf16")
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    assert (model.unet(image)[0].dtype, copy.unet(image)[0].dtype) == (torch.bfloat16, torch.float32)
    autocast_unet(copy, torch.device("cpu"), "no")
    assert copy.unet(image)[0].dtype == torch.float32


def test_a_quality_model_whose_gradients_suffer_in_bf16_is_refused(folder, tmp_path):
    with pytest.raises(CamoError, match=r"--biqa-precision bf16: gradients of bundled point elsewhere \(cosine 0\.\d\d"):
        train.train(tiny(folder, biqa_precision="bf16"), tmp_path, cpu=True)


class Gentle(torch.nn.Module):
    """One convolution, whose gradients bf16 hardly changes."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.dtypes = torch.nn.Conv2d(3, 4, 3), set()

    def forward(self, image):
        maps = self.convolution(image)
        self.dtypes.add(maps.dtype)
        return 50 + 500 * maps.float().square().mean((1, 2, 3))


def test_training_scores_in_bf16_where_asked_and_validation_in_float32(folder, tmp_path, monkeypatch):
    model, validated = Gentle(), set()
    monkeypatch.setattr(models, "load", lambda spec, device: models.Frozen(model, "everything"))
    call = train.Validation.__call__

    def call_and_note(self, filter_):
        model.dtypes.clear()
        result = call(self, filter_)
        validated.update(model.dtypes)
        return result

    monkeypatch.setattr(train.Validation, "__call__", call_and_note)
    scores = []
    adapt = train.Objective.adapt
    monkeypatch.setattr(train.Objective, "adapt", lambda self, excesses: (scores.append(set(model.dtypes)), adapt(self, excesses)))
    train.train(tiny(folder, steps=3, biqa=("gentle",), biqa_precision="bf16"), tmp_path, cpu=True)
    assert torch.bfloat16 in scores[0]
    assert validated == {torch.float32}


def test_the_weight_of_the_score_moves_once_per_update_by_the_mean_excess(folder, tmp_path, monkeypatch):
    forward, excesses, moves = train.Objective.forward, [], []

    def forward_and_note(self, original, filtered):
        loss, terms = forward(self, original, filtered)
        excesses.append(terms["stat/excess"].item())
        return loss, terms

    monkeypatch.setattr(train.Objective, "forward", forward_and_note)
    monkeypatch.setattr(train.Objective, "adapt", lambda self, excesses: moves.extend(excesses))
    train.train(tiny(folder, steps=6, accumulate=3, validate_every=6), tmp_path, cpu=True)
    assert moves == pytest.approx([sum(excesses[:3]) / 3, sum(excesses[3:]) / 3])
    assert load_state(tmp_path / "last.pt")["optimizer"]["param_groups"][0]["betas"] == (0.9, 0.99)  # the schedule leaves them alone


def test_the_bundled_model_is_loaded_once(folder, tmp_path, monkeypatch):
    built, create_model = [], timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **settings: built.append(name) or create_model(name, **settings))
    train.train(tiny(folder, steps=1), tmp_path, cpu=True)
    assert built == ["efficientnet_lite0"]


def test_half_precision_needs_a_device_that_has_it(folder, tmp_path):
    with pytest.raises(CamoError, match="--precision fp16: needs a GPU"):
        train.train(tiny(folder, precision="fp16"), tmp_path, cpu=True)


def test_a_state_that_does_not_fit_its_settings_is_refused(folder, tmp_path):
    train.train(tiny(folder, steps=1), tmp_path, cpu=True)
    state = load_state(tmp_path / "last.pt")
    for changed in [{"model": {}}, {"optimizer": 3}, {"step": None}, {"schedule": None}]:
        with pytest.raises(CamoError, match=r"last\.pt: does not fit the run's settings") as caught:
            train.train(tiny(folder, steps=2), tmp_path, state | changed, cpu=True)
        assert "\n" not in str(caught.value)


def parse(*words):
    import argparse

    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(words)


def test_presets_and_flags(folder):
    for preset, settings in PRESETS.items():
        config = from_arguments(parse("--preset", preset, "--data", str(folder), "--steps", "8"))
        assert config.steps == 8
        for name, value in settings.items():
            assert name in {"data", "steps"} or getattr(config, name) == value


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "0"], "--steps 0"),
        (["--quality-low", "96"], "--quality-low 96 --quality-high 95"),
        (["--crop-height", "32"], "320x32"),
        (["--target", "50"], "--target 50.0: should be below --threshold 50.0"),
        (["--threshold", "nan"], "--target 40.0: should be below --threshold nan"),
        (["--target", "40", "50", "--biqa", "bundled", "own.ts"], "--target 50.0: should be below --threshold 50.0"),
        (["--target", "40", "30"], "--target 40.0 30.0: should be one value or one per model of --biqa, which has 1"),
        (["--threshold"], "--threshold : should be one value or one per model"),
        (["--biqa", "bundled", "bundled"], "--biqa bundled bundled: should be one model or several different ones"),
        (["--slack", "0"], "--slack 0.0"),
        (["--slack", "nan"], "--slack nan"),
        (["--gain", "-1"], "--gain -1.0"),
        (["--enlarged", "0.5"], "--enlarged 0.5: should be within 1..4"),
        (["--turned", "1.1"], "--turned 1.1: should be within 0..1"),
        (["--edges", "-0.1"], "--edges -0.1: should be within 0..1"),
        (["--real-jpeg", "nan"], "--real-jpeg nan: should be within 0..1"),
        (["--workers", "-1"], "--workers -1: should be 0 or more"),
        (["--steps", "5", "--accumulate", "2"], "--steps 5: should be a multiple of --accumulate 2"),
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


def test_resume_refuses_another_preset_and_takes_the_same():
    run = from_arguments(parse("--preset", "demo", "--seed", "3"))
    assert from_arguments(parse("--preset", "demo"), run.as_json()) == run
    with pytest.raises(CamoError, match="--preset bundled: the run to resume has demo"):
        from_arguments(parse("--preset", "bundled"), run.as_json())


def test_resume_refuses_another_number_of_processes(folder, tmp_path):
    train.train(tiny(folder, steps=1), tmp_path, cpu=True)
    state = load_state(tmp_path / "last.pt")
    assert state["processes"] == 1
    with pytest.raises(CamoError, match=r"last\.pt: the run has 2 processes, not 1; resume it with the same number"):
        train.train(tiny(folder, steps=2), tmp_path, state | {"processes": 2}, cpu=True)


@pytest.mark.parametrize("other", [{"colour": 1}, {"steps": "many"}, {"data": 5}])
def test_settings_of_another_version_are_not_resumed(folder, other):
    with pytest.raises(CamoError, match="settings of another version"):
        from_arguments(parse(), tiny(folder).as_json() | other)


def command(folder, out, *extra, **changes):
    return ["train.py", "--out", str(out), "--cpu", *flags(tiny(folder, **changes)), *extra]


def test_a_run_starts_from_the_weights_given(folder, tmp_path):
    train.train(tiny(folder), tmp_path / "first", cpu=True)
    given = str(tmp_path / "first" / "best.safetensors")
    train.train(tiny(folder, init=given, rate=1e-12, steps=1), tmp_path / "second", cpu=True)
    first, second = (load_filter(tmp_path / name / "best.safetensors").state_dict() for name in ("first", "second"))
    assert all(torch.allclose(first[key], second[key], atol=1e-6) for key in first)
    train.train(tiny(folder, init=given, gain=9.0, unrolled=2, steps=1), tmp_path / "third", cpu=True)
    expected = Filter(width=8, gain=9.0, min_psnr=37.05, unrolled=2, jnd=JNDSettings(edges=0.88)).arguments
    assert load_filter(tmp_path / "third" / "best.safetensors").arguments == expected
    with pytest.raises(CamoError, match=r"--init .*: a filter of .*, not"):
        train.train(tiny(folder, init=given, depth=2), tmp_path / "fourth", cpu=True)


def test_a_filter_without_coordinates_is_trained_on_with_them(folder, tmp_path):
    train.train(tiny(folder), tmp_path / "first", cpu=True)
    given = str(tmp_path / "first" / "best.safetensors")
    train.train(tiny(folder, init=given, coordinates=True, rate=1e-12, steps=1), tmp_path / "second", cpu=True)
    first, second = (load_filter(tmp_path / name / "best.safetensors") for name in ("first", "second"))
    assert second.arguments == first.arguments | {"coordinates": True}
    image = torch.rand(1, 3, 64, 96)
    assert torch.allclose(first(image), second(image), atol=1e-4)  # they begin at zero
    with pytest.raises(CamoError, match=r"--init .*: a filter of .*'coordinates': True.*, not"):
        train.train(tiny(folder, init=str(tmp_path / "second" / "best.safetensors")), tmp_path / "third", cpu=True)


def test_the_trunk_of_a_student_is_stored_with_the_filter(folder, tmp_path):
    student = load_bundled()
    with torch.no_grad():
        for parameter in student.backbone.parameters():
            parameter.mul_(1.01)
    save_quality(tmp_path / "student.safetensors", student, {})
    train.train(tiny(folder, trunk=str(tmp_path / "student.safetensors"), steps=1), tmp_path / "run", cpu=True)
    trunk = Trunk()
    trunk.copy_from(load_quality(tmp_path / "student.safetensors").backbone)
    (tmp_path / "student.safetensors").unlink()
    stored = load_filter(tmp_path / "run" / "best.safetensors").unet.trunk.state_dict()
    assert all(torch.equal(stored[key], value) for key, value in trunk.state_dict().items())
    trunk.copy_from(load_bundled().backbone)
    assert not any(torch.equal(stored[key], value) for key, value in trunk.state_dict().items())


@pytest.mark.parametrize(("file", "message"), [("absent.safetensors", "no such file"), (str(CHECKPOINTS / "judge.safetensors"), "lite2")])
def test_a_file_that_is_no_trunk_is_refused(folder, tmp_path, file, message):
    with pytest.raises(CamoError, match=message):
        train.train(tiny(folder, trunk=file), tmp_path, cpu=True)


@pytest.mark.parametrize(("symmetric", "rate"), [((True, True), 0.5), ((False,), 0.0), ((True, False), 0.0)])
def test_nothing_is_mirrored_before_a_model_that_looks_at_one_side(folder, tmp_path, monkeypatch, symmetric, rate):
    rates, original = [], channel.Channel
    monkeypatch.setattr(channel, "Channel", lambda *words, **settings: rates.append(settings["flip_rate"]) or original(*words, **settings))

    def load(spec, device):
        fake = Fake(60.0)
        fake.symmetric = symmetric[int(spec)]
        return fake

    monkeypatch.setattr(train.models, "load", load)
    train.train(tiny(folder, biqa=tuple(map(str, range(len(symmetric)))), steps=1), tmp_path, cpu=True)
    assert rates == [rate]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_leaves_a_resumable_run(folder, tmp_path, monkeypatch, capsys, number):
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
    monkeypatch.setattr(sys, "argv", command(folder, tmp_path))
    assert train.main() == 1
    assert "already holds a run" in capsys.readouterr().err


def start_two(words):
    """Two processes of a group, as torchrun starts them. (``accelerate launch --cpu --num_processes 2`` starts only one on one machine.)"""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, *words],
            **{"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True},
            env=os.environ | group | {"RANK": rank, "LOCAL_RANK": rank},
        )
        for rank in "01"
    ]


def test_two_processes_train_as_one_with_twice_the_batch(folder, tmp_path):
    # The crops are the same. The channel is drawn for each process, and the error of the pixels is a root over the batch: without these.
    # One movement of the weights: AdamW moves them by the sign of even the smallest gradient, so that rounding makes later ones differ.
    # A seed whose first weights do not enlarge rounding: two threads instead of one make as much of a difference with others.
    settings = {"channel": "none", "perceptual": "none", "accumulate": 2, "steps": 2, "seed": 2}
    first, second = start_two(command(folder, tmp_path / "two", **settings))
    (told, fault), (_, other_fault) = first.communicate(timeout=300), second.communicate(timeout=300)
    assert (first.returncode, second.returncode) == (0, 0), fault + other_fault
    assert Path(json.loads(told.strip().splitlines()[-1])["best"]).is_file()
    train.train(tiny(folder, **settings | {"batch_size": 4}), tmp_path / "one", cpu=True)
    train.train(tiny(folder, **settings), tmp_path / "half", cpu=True)
    two, one, half = (load_state(tmp_path / name / "last.pt") for name in ("two", "one", "half"))
    assert two["step"] == one["step"] == 2

    def apart(state):
        """Relative difference of the gradients from those of the one process; mean difference of the weights."""
        ours, theirs = (torch.cat([value["exp_avg"].flatten() for value in each["optimizer"]["state"].values()]) for each in (one, state))
        weights = torch.cat([(state["model"][key] - value).abs().flatten() for key, value in one["model"].items()])
        return ((ours - theirs).norm() / ours.norm()).item(), weights.mean().item()

    assert apart(two)[0] < 1e-3
    assert apart(two)[1] < 1e-2 * apart(half)[1]
    assert apart(half)[0] > 0.1


@pytest.mark.parametrize(("launch", "count"), [(["--cpu"], 1), (["--multi_gpu"], 2)])  # without a GPU, accelerate's --cpu starts one all the same
def test_accelerate_launches_it(folder, tmp_path, launch, count):
    launcher = [sys.executable, "-m", "accelerate.commands.launch", *launch, "--num_processes", "2"]
    words = command(folder, tmp_path, steps=2, validate_every=2, channel="none", perceptual="none")
    run = subprocess.run([*launcher, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert f"processes: {count}\n" in run.stdout
    assert load_state(tmp_path / "last.pt")["step"] == 2


def test_a_stop_told_to_one_of_two_processes_stops_both_at_one_step(folder, tmp_path):
    processes_ = start_two(command(folder, tmp_path, steps=100_000, validate_every=100_000, batch_size=1, channel="none", perceptual="none"))
    events = tmp_path.glob("events*")
    while not any(events) and all(process.poll() is None for process in processes_):
        time.sleep(0.2)
        events = tmp_path.glob("events*")
    time.sleep(3)
    processes_[1].send_signal(signal.SIGTERM)
    for process in processes_:
        _, told = process.communicate(timeout=120)
        assert process.returncode == 130, told
    assert load_state(tmp_path / "last.pt")["step"] >= 1


def test_crops_of_processes_neither_overlap_nor_leave_out():
    parts = [crops_of_process(2, 5, 4, rank, 3) for rank in range(3)]
    assert sorted(index for part in parts for index in part) == list(range(2 * 12, 5 * 12))
