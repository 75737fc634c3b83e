"""The worker processes that decode photos: which signals they heed, how their failures are reported, and that they end with the run.

Schedulers send SIGTERM, and terminals Ctrl-C, to all processes of a run, while the main process still has to finish its step and save. So the workers
ignore both. Torch ends workers that do not leave by themselves with SIGTERM, and then waits for them: one that is stuck would never end. So the
main process kills those.
"""

import contextlib
import multiprocessing
import signal
import threading
from collections.abc import Iterator

from camo import CamoError

GRACE = 10.0  # seconds


def ignore_signals(worker: int) -> None:
    """Leave Ctrl-C and SIGTERM to the main process (``worker_init_fn`` of a loader). A worker whose main process is gone ends by itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@contextlib.contextmanager
def supervise_workers(grace: float = GRACE) -> Iterator[None]:
    """Run a block that uses loaders; report the failure of a worker in one line, and kill workers that are alive ``grace`` seconds after the block.

    Raises CamoError where a worker died, or could not do its work for want of shared memory, readable photos and the like.
    """
    try:
        yield
    except (CamoError, OSError, RuntimeError) as error:
        if failure := worker_failure(error):
            raise CamoError(failure) from error
        raise
    finally:
        if alive := multiprocessing.active_children():
            timer = threading.Timer(grace, _kill, [alive])
            timer.daemon = True
            timer.start()


def worker_failure(error: Exception) -> str:
    """The failure of a loader's worker in one line; empty for any other error."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if lines and lines[0].startswith("DataLoader worker"):  # it died
        return f"a process that decodes photos died; --workers 0 does without such processes ({' '.join(lines)})"
    if lines and lines[0].startswith("Caught") and "in DataLoader worker process" in lines[0]:  # it raised an error; its traceback follows
        return lines[-1].removeprefix(f"{CamoError.__module__}.{CamoError.__qualname__}: ")
    return ""


def _kill(processes: list[multiprocessing.process.BaseProcess]) -> None:
    for process in processes:
        with contextlib.suppress(ValueError):  # it has ended, and was closed
            process.kill()
