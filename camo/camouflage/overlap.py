"""Jobs that overlap: while some photos are filtered, others are decoded and encoded in threads, and a few at most wait in memory."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from camo import CamoError
from camo.camouflage.plan import Job
from camo.photos.images import EncodeError, size_of

MAX_AHEAD = 500_000_000  # bytes of pixels being decoded or encoded at once: eight photos of 20 Mpx; a larger photo has the threads to itself
WORKERS = min(8, os.cpu_count() or 1)  # threads that decode and encode


class PhotoError(CamoError):
    """What stopped one photo.

    Args:
        photo: its name.
        text: one line, which names it too.
    """

    def __init__(self, photo: str, text: str) -> None:
        super().__init__(text)
        self.photo = photo


def fault(job: Job, error: Exception) -> PhotoError:
    """What stopped one photo, in one line that names it; a CamoError does already, unless it came from an encoder."""
    if isinstance(error, EncodeError):
        return PhotoError(str(job.source), f"{str(job.destination)!r}: cannot be written: {error}")
    if isinstance(error, CamoError):
        return PhotoError(str(job.source), str(error))
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    text = " ... ".join(dict.fromkeys((lines[0], lines[-1]))) if lines else type(error).__name__  # between them, TorchScript has its traceback
    return PhotoError(str(job.source), f"{str(job.source)!r}: cannot be processed: {text}")


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
    if job.photo:
        return job.photo.pixels.numel()
    try:
        header = job.content if isinstance(job.source, str) else job.source
        if header is None or (isinstance(header, Path) and not header.is_file()):  # not fetched yet; a pipe would block for ever
            return 0
        width, height = size_of(header)
        return 3 * width * height
    except Exception:  # on damaged files Pillow raises almost anything
        return 0


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
