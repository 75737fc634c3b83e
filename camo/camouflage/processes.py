"""Several processes at one job, started by torchrun or ``accelerate launch``: who does which file, and one report of all."""

import hashlib
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed

from camo import CamoError
from camo.device import launched
from camo.photos.files import reason

PATIENCE = timedelta(hours=1)  # the least that a process waits for the others


def rank() -> int:
    """This process's number in its group; 0 for a process on its own."""
    return int(os.environ["RANK"]) if launched() else 0


def local_rank() -> int:
    """This process's number among those of its group on this machine; 0 for a process on its own."""
    return int(os.environ["LOCAL_RANK"]) if launched() else 0


def size() -> int:
    """The number of processes in the group."""
    return int(os.environ["WORLD_SIZE"]) if launched() else 1


def mine(name: Path) -> bool:
    """Whether a file is this process's to do. It depends on the name and the number of processes alone, so no process needs to ask another."""
    digest = hashlib.blake2b(os.fsencode(name), digest_size=8).digest()  # a CRC would give one process all of eight names in sequence
    return int.from_bytes(digest) % size() == rank()


def gather(value: Any, worked: timedelta) -> list[Any]:
    """The values of all processes, in order, to each of them.

    Waits for the last one, but no longer than ``PATIENCE`` or, if that is more, the time that this process itself ``worked``: shares are alike.

    Raises CamoError when the others do not answer in time or have ended.
    """
    if size() == 1:
        return [value]
    patience = max(PATIENCE, worked)
    try:
        torch.distributed.init_process_group("gloo", timeout=patience)
        values: list[Any] = [None] * size()
        torch.distributed.all_gather_object(values, value)
    except (RuntimeError, ValueError) as error:  # ValueError: an address or a port that cannot be one
        minutes = patience.total_seconds() / 60
        raise CamoError(
            f"process {rank()} of {size()}: no answer from the others (it waits {minutes:.0f} minutes at most);"
            f" what they did is not counted here ({reason(error):.160})"
        ) from error
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return values
