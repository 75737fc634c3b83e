"""Which photos pass through the filter together.

Photos are grouped by their exact size. Padding those of nearly one size to a common one was tried and given up: the limit of a loud photo's residual
is computed over the whole picture, so that the padding moved values by up to three 8-bit steps.
"""

from collections.abc import Callable, Iterator

import torch

from camo.camouflage.plan import Job

LARGEST = 16  # photos in a batch by default, on a GPU
AREA = 512 * 384  # px, up to which a batch is of that many
MAX_WAITING = 200_000_000  # bytes of pixels held back at most while photos of one size gather for a batch


def default_batch_size(device: torch.device, height: int, width: int) -> int:
    """1 on a CPU, which one photo keeps busy. Elsewhere 16 photos of up to 512x384 pixels of area, fewer of larger ones in proportion, at least 1."""
    return 1 if device.type == "cpu" else max(1, min(LARGEST, LARGEST * AREA // (height * width)))


def by_size(jobs: Iterator[Job], batch_size: Callable[[int, int], int]) -> Iterator[list[Job]]:
    """Gather decoded photos of one size into groups of ``batch_size(height, width)``.

    When too much waits, the size of which most bytes do is given out in a smaller group; the others follow at the end.
    """
    waiting: dict[torch.Size, list[Job]] = {}
    held = 0  # bytes

    def give_out(size: torch.Size) -> list[Job]:
        nonlocal held
        group = waiting.pop(size)
        held -= len(group) * size.numel()
        return group

    for job in jobs:
        size = job.decoded().pixels.shape
        waiting.setdefault(size, []).append(job)
        held += size.numel()
        if len(waiting[size]) >= batch_size(*size[-2:]):
            yield give_out(size)
        while held > MAX_WAITING:
            yield give_out(max(waiting, key=lambda size: len(waiting[size]) * size.numel()))
    yield from waiting.values()
