"""The processes that decode photos: their failures are reported in one line, and none keeps a run from ending."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from camo import CamoError
from camo.training.workers import ignore_signals, supervise_workers

ROOT = Path(__file__).parent.parent
# The worker is stuck on its third batch when the second step of the main process fails.
STUCK = """
import sys, time
import train
from camo import CamoError

load, step = train.RandomCrops.__getitem__, train.Objective.forward

def stuck(self, index):
    while index >= 4:
        time.sleep(1)
    return load(self, index)

def fail(self, *args):
    fail.calls += 1
    if fail.calls == 2:
        print("now", flush=True)
        raise CamoError("the second step fails")
    return step(self, *args)

fail.calls = 0
train.RandomCrops.__getitem__, train.Objective.forward = stuck, fail
sys.argv[0] = "train.py"
sys.exit(train.main())
"""


def test_a_stuck_worker_does_not_keep_a_failed_run_from_ending(tmp_path):
    tiny = ["--width", "8", "--crop-height", "64", "--crop-width", "64", "--batch-size", "2", "--steps", "20", "--workers", "1"]
    words = ["--out", str(tmp_path), "--cpu", "--perceptual", "none", "--hold-out", "100", *tiny]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", STUCK, *words], cwd=ROOT, start_new_session=True, **pipes)
    try:
        assert "now\n" in iter(process.stdout.readline, "")
        _, fault = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 1
    assert fault.splitlines()[-1] == "error: the second step fails"
    assert "Traceback" not in fault


class Failing(Dataset):
    """Items that fail in the way that a function says."""

    def __init__(self, fail):
        self.fail = fail

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return self.fail() if index else torch.zeros(1)


def no_space():
    raise RuntimeError("unable to write to file </torch_1>: No space left on device (28)")


def unreadable():
    raise CamoError("none of the 3 photos can be read")


def no_file():
    raise FileNotFoundError(2, "No such file or directory", "gone.jpg")


@pytest.mark.parametrize(
    ("fail", "line"),
    [
        (no_space, r"RuntimeError: unable to write to file </torch_1>: No space left on device \(28\)"),
        (unreadable, "none of the 3 photos can be read"),
        (no_file, r"FileNotFoundError: \[Errno 2\] No such file or directory: 'gone.jpg'"),
    ],
)
def test_a_worker_that_fails_is_reported_in_one_line(fail, line):
    with pytest.raises(CamoError, match=f"^{line}$"), supervise_workers(grace=3600):  # a failed test keeps its loader alive
        list(DataLoader(Failing(fail), num_workers=1, worker_init_fn=ignore_signals))


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match=r"^of the main process$"), supervise_workers():
        raise RuntimeError("of the main process")
    with pytest.raises(TypeError), supervise_workers(grace=3600):  # a programmer's mistake keeps its traceback
        list(DataLoader(Failing(lambda: 1 + "1"), num_workers=1))


def test_a_worker_that_died_is_reported_in_one_line():
    """As torch words it. No worker dies here: torch would go on raising this in whatever the tests do next."""
    text = "DataLoader worker (pid 7) is killed by signal: Bus error. \nIt is possible that dataloader's workers are out of shared memory."
    with pytest.raises(CamoError, match=r"^a process that decodes photos died; --workers 0 .*Bus error.*shared memory\.\)$"), supervise_workers():
        raise RuntimeError(text)


def sleep_forever(ready):
    ignore_signals(0)
    ready.set()
    while True:
        time.sleep(1)


def test_a_worker_that_is_stuck_is_killed():
    gc.collect()  # loaders of tests before this one, whose workers would be killed too
    ready = multiprocessing.Event()
    worker = multiprocessing.Process(target=sleep_forever, args=(ready,), daemon=True)
    with supervise_workers(grace=0.5):
        worker.start()
        assert ready.wait(60)
        worker.terminate()
        worker.join(0.5)
        assert worker.is_alive()  # torch itself would now wait for ever
    worker.join(60)
    assert worker.exitcode == -signal.SIGKILL
