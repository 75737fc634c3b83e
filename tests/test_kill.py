"""Killed with -9 at random moments and started again, infer.py and train.py end as if nothing had happened."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from camo.filter.checkpoint import save_filter
from camo.training.state import load_state

ROOT = Path(__file__).parent.parent
# A process that has imported everything but run nothing, and whose children do the work: a start then takes no seconds.
SERVER = """
import json, os, random, shutil, signal, sys, time
import torch, infer, train
import camo.camouflage.pipeline, camo.quality.models, camo.verbs.infer
kind, command, out, seconds, kills = json.loads(sys.argv[1])
rng, done, ended = random.Random(0), 0, 0

def work():
    sys.stdout = sys.stderr = open(os.devnull, "w")
    sys.argv = [kind + ".py", *command, *(["--resume"] if kind == "train" and os.path.exists(out + "/last.pt") else [])]
    os._exit(infer.main() if kind == "infer" else train.main())

while done < kills or not ended:
    if ended and done < kills:  # it was too fast: once more from nothing
        shutil.rmtree(out)
        ended = 0
    child = os.fork()
    if not child:
        work()
    if done < kills:
        time.sleep(rng.uniform(0, seconds))
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        done += 1
    else:
        assert os.WEXITSTATUS(status) == 0, status
        ended = 1
print(done)
"""


def kill(kind, command, out, seconds, kills):
    task = json.dumps([kind, [*map(str, command), "--out", str(out)], str(out), seconds, kills])
    run = subprocess.run([sys.executable, "-c", SERVER, task], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert (run.returncode, run.stdout) == (0, f"{kills}\n"), run.stderr


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}  # hidden files too


@pytest.fixture
def photos_and_filter(tmp_path, small_filter):
    save_filter(tmp_path / "filter.safetensors", small_filter, {})
    (tmp_path / "in").mkdir()
    for index in range(30):
        pixels = np.random.default_rng(index).integers(0, 256, (96, 128, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{index}.png")
    return [tmp_path / "in", "--checkpoint", tmp_path / "filter.safetensors", "--device", "cpu"]


def test_infer_killed_thirty_times_loses_and_leaves_nothing(tmp_path, photos_and_filter):
    kill("infer", photos_and_filter, tmp_path / "undisturbed", 0.0, 0)
    kill("infer", photos_and_filter, tmp_path / "killed", 0.5, 30)
    assert len(contents(tmp_path / "undisturbed")) == 30
    assert contents(tmp_path / "killed") == contents(tmp_path / "undisturbed")


def test_training_killed_six_times_ends_with_the_same_weights(tmp_path):
    (tmp_path / "in").mkdir()
    for photo in sorted((ROOT / "data/sample/dev").glob("*.jpg"))[:4]:
        (tmp_path / "in" / photo.name).write_bytes(photo.read_bytes())
    tiny = {"width": 8, "crop-height": 64, "crop-width": 64, "batch-size": 1, "steps": 12, "validate-every": 1, "workers": 0, "hold-out": 4}
    command = ["--data", tmp_path / "in", "--cpu", *(word for name, value in tiny.items() for word in (f"--{name}", value))]
    kill("train", command, tmp_path / "undisturbed", 0.0, 0)
    kill("train", command, tmp_path / "killed", 3.0, 6)
    first, second = (load_state(tmp_path / run / "last.pt") for run in ("undisturbed", "killed"))
    assert first["step"] == second["step"] == 12
    assert all(torch.equal(first["average"][key], second["average"][key]) for key in first["average"])
    assert not list((tmp_path / "killed").glob(".camo-*"))
