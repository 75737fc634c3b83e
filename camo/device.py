"""Which device a network runs on. Several processes that a launcher started get a GPU each."""

import itertools
import os

import torch
from torch import nn

from camo import CamoError
from camo.photos.files import reason

NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
LAUNCHER_VARIABLES = (*NUMBERS, "MASTER_ADDR", "MASTER_PORT")  # torchrun and accelerate launch set all of them


def launched() -> bool:
    """Whether torchrun or ``accelerate launch`` started this process as one of a group.

    A single variable, such as a RANK that a container or a batch system left behind, does not count: all five must be there.
    """
    return all(os.environ.get(name) for name in LAUNCHER_VARIABLES) and all(os.environ[name].isdecimal() for name in NUMBERS)


def choose(name: str | None = None) -> torch.device:
    """The device of that name, ready for use; without a name cuda where there is a GPU, else mps, else cpu.

    In a group of processes, ``cuda`` without an index is this process's own GPU, by its LOCAL_RANK; more processes than GPUs share them evenly.

    Raises CamoError, which names ``--device``, for a device that torch does not know or that cannot be used here.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device == torch.device("cuda") and launched() and torch.cuda.device_count():
            device = torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        probe = torch.zeros(1, device=device)
        probe.item()  # the device "meta" can hold a tensor, but no values
    except (AssertionError, ImportError, RuntimeError) as error:  # AssertionError: torch was built without this kind of device
        raise CamoError(f"--device {name}: cannot be used: {reason(error):.200}") from error
    return probe.device


def device_of(module: nn.Module) -> torch.device:
    """The device of a module's parameters or, where it has none, of its buffers; the CPU where it has neither."""
    return next((tensor.device for tensor in itertools.chain(module.parameters(), module.buffers())), torch.device("cpu"))
