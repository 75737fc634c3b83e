"""Photos on their way through ``infer.py``: decoding, filtering and encoding overlap, and a few photos at most wait in memory."""

from __future__ import annotations  # torch is imported only once there is work

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from camo import CamoError

if TYPE_CHECKING:
    import torch

    from camo.images import Photo
    from camo.verify import Verdict

MAX_WAITING = 200_000_000  # bytes of pixels held back at most while photos of one size gather for a batch
WORKERS = min(8, os.cpu_count() or 1)  # threads that decode and encode


@dataclass(frozen=True)
class Job:
    """One photo on its way: the file to read, the file to write, and in between its content."""

    source: Path
    destination: Path
    photo: Photo | None = None
    verdict: Verdict | None = None


def in_order(pool: ThreadPoolExecutor, work: Callable[[Job], Job], jobs: Iterator[Job], faults: list[CamoError]) -> Iterator[Job]:
    """Work in threads, a bounded number of jobs ahead; they come out in the order they went in, less those that fail."""
    pending = deque(pool.submit(work, job) for job in islice(jobs, WORKERS + 1))
    while pending:
        try:
            yield pending.popleft().result()
        except CamoError as error:
            faults.append(error)
        pending.extend(pool.submit(work, job) for job in islice(jobs, 1))


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


def forward(photo_filter: torch.nn.Module, original: torch.Tensor, strength: float, exact: dict[torch.Size, bool]) -> torch.Tensor:
    """Filter (B, 3, H, W) with the same floats for any B.

    Convolutions may add up in another order for another B, and a last bit can turn a byte: so photos pass one by one until a batch of the
    same shape was seen to give equal floats on this device; ``exact`` remembers the shapes that did, and those that did not.
    """
    import torch

    if exact.get(original.shape):
        return photo_filter(original, strength)
    alone = torch.cat([photo_filter(photo, strength) for photo in original.split(1)])
    if len(original) > 1 and original.shape not in exact:
        exact[original.shape] = torch.equal(photo_filter(original, strength), alone)
    return alone
