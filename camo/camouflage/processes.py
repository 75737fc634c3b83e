"""Several processes at one job, started by ``accelerate launch`` or torchrun: who does which file, and one report of all."""

import os
import zlib
from datetime import timedelta
from pathlib import Path
from typing import Any

RANK = int(os.environ.get("RANK", 0))
LOCAL_RANK = int(os.environ.get("LOCAL_RANK", 0))  # among those of this machine
WORLD = int(os.environ.get("WORLD_SIZE", 1))


def mine(name: Path) -> bool:
    """Whether a file is this process's to do. It depends on the name and the number of processes alone, so no process needs to ask another."""
    return zlib.crc32(os.fsencode(name)) % WORLD == RANK


def gather(value: Any) -> list[Any]:
    """The values of all processes, in order, to each of them; waits for the last."""
    if WORLD == 1:
        return [value]
    import torch.distributed

    # Of all the processes' files, one may get the slow ones: the default of half an hour is too short to wait for it.
    torch.distributed.init_process_group("gloo", timeout=timedelta(days=7))
    values: list[Any] = [None] * WORLD
    torch.distributed.all_gather_object(values, value)
    torch.distributed.destroy_process_group()
    return values
