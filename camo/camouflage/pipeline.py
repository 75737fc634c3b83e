"""Photos on their way through ``infer.py``: decoding, filtering and encoding overlap, and a few photos at most wait in memory."""

from __future__ import annotations  # torch is imported only once there is work

import contextlib
import ctypes
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from camo import CamoError

if TYPE_CHECKING:
    import torch

    from camo.camouflage.verify import Verdict
    from camo.photos.images import Photo

MAX_WAITING = 200_000_000  # bytes of pixels held back at most while photos of one size gather for a batch
MAX_AHEAD = 500_000_000  # bytes of pixels being decoded or encoded at once: eight photos of 20 Mpx; a larger photo has the threads to itself
KEPT = 256 * 2**20  # bytes that freed memory may come to before it is given back to the system
WORKERS = min(8, os.cpu_count() or 1)  # threads that decode and encode


@dataclass(frozen=True)
class Job:
    """One photo on its way: the file to read, the file to write or (``kept``) only to check, and in between its content."""

    source: Path
    destination: Path
    photo: Photo | None = None
    verdict: Verdict | None = None
    kept: bool = False


def keep_freed_memory() -> None:
    """Have glibc keep what one forward pass frees for the next, which would else spend a sixth of its time on page faults.

    Single blocks of 32 MB and more, those of large photos, go back at once as ever. Other C libraries are left as they are.
    """
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of mallopt(3)
    with contextlib.suppress(AttributeError, OSError, TypeError):
        set_option = ctypes.CDLL(None).mallopt
        set_option(mmap_threshold, 32 * 2**20)
        set_option(trim_threshold, KEPT)


def fault(job: Job, error: Exception) -> CamoError:
    """What stopped one photo, in one line that names it; a CamoError does already, unless it came from an encoder."""
    from camo.photos.images import EncodeError

    if isinstance(error, EncodeError):
        return CamoError(f"{str(job.destination)!r}: cannot be written: {error}")
    if isinstance(error, CamoError):
        return error
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    text = " ... ".join(dict.fromkeys((lines[0], lines[-1]))) if lines else type(error).__name__  # between them, TorchScript has its traceback
    return CamoError(f"{str(job.source)!r}: cannot be processed: {text}")


def in_order(pool: ThreadPoolExecutor, work: Callable[[Job], Job], jobs: Iterator[Job], faults: list[CamoError]) -> Iterator[Job]:
    """Work in threads, a bounded number of jobs and bytes ahead; they come out in the order they went in, less those that fail."""
    pending: deque[tuple[Job, int, Future[Job]]] = deque()
    held = 0  # bytes

    def oldest() -> Iterator[Job]:
        nonlocal held
        job, size, future = pending.popleft()
        try:
            yield future.result()
        except Exception as error:  # what one file does to a decoder must not keep the others from being done
            faults.append(fault(job, error))
        held -= size

    for job in jobs:
        size = _bytes(job)
        while pending and (len(pending) > WORKERS or held + size > MAX_AHEAD):
            yield from oldest()
        pending.append((job, size, pool.submit(work, job)))
        held += size
    while pending:
        yield from oldest()


def _bytes(job: Job) -> int:
    """The size of a job's pixels, before they are decoded from the file's header; 0 where that cannot be read: the decoder will tell of it."""
    from PIL import Image

    from camo.photos.images import READABLE

    if job.photo:
        return job.photo.pixels.numel()
    try:
        if not job.source.is_file():  # a pipe would block for ever
            return 0
        with Image.open(job.source, formats=READABLE) as picture:
            return 3 * picture.width * picture.height
    except Exception:  # on damaged files Pillow raises almost anything
        return 0


def by_size(jobs: Iterator[Job], batch_size: int) -> Iterator[list[Job]]:
    """Gather photos of one size into groups of ``batch_size``; smaller groups come at the end, or when too much waits."""
    waiting: dict[torch.Size, list[Job]] = {}
    held = 0  # bytes
    for job in jobs:
        size = job.photo.pixels.shape
        waiting.setdefault(size, []).append(job)
        held += size.numel()
        if len(waiting[size]) == batch_size:
            held -= batch_size * size.numel()
            yield waiting.pop(size)
        if held > MAX_WAITING:
            held = 0
            yield from waiting.values()
            waiting.clear()
    yield from waiting.values()


def apart(work: Callable[[list[Job]], list[Job]], groups: Iterator[list[Job]], faults: list[CamoError]) -> Iterator[Job]:
    """Work on group after group. Where a whole group fails (too large for the memory), its photos are tried alone; less those that fail."""
    for group in groups:
        done: list[Job] | None = None
        try:
            done = work(group)
        except Exception as error:  # out of memory has many names; a quality model from a file may raise anything
            if len(group) == 1:
                faults.append(fault(group[0], error))
        if done is not None:
            yield from done
        elif len(group) > 1:  # not within the except clause, where the traceback would hold the memory
            yield from apart(work, ([job] for job in group), faults)
