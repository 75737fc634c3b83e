"""An attack on many photos, timed."""

import time
from collections.abc import Sequence
from itertools import groupby

import torch
from torch import Tensor
from tqdm import tqdm

from camo.attacks.attack import Attack, Progress, Scorer
from camo.attacks.one_pass import OnePass
from camo.measure.after import unscorable


def apply(attack: Attack, scorer: Scorer, originals: Sequence[Tensor], batch_size: int, device: str, name: str) -> tuple[list[Tensor], float]:
    """Changed photos, (3, H, W) on the CPU each, and seconds per photo.

    Neighbours of one size are attacked together; one pass is timed photo by photo.

    Raises:
        CamoError: photos that the method or the scorer refuses, or that do not fit into memory.
    """
    with unscorable(f"{name}: cannot be run"):
        return _apply(attack, scorer, originals, batch_size, device, name)


def _apply(attack: Attack, scorer: Scorer, originals: Sequence[Tensor], batch_size: int, device: str, name: str) -> tuple[list[Tensor], float]:
    if isinstance(attack, OnePass):
        # The first pass allocates and compiles, which is not what a folder costs; a GPU has done it only when the result is here.
        attack(scorer, originals[0][None].to(device)).images.cpu()
        batch_size = 1
    changed: list[Tensor] = []
    with tqdm(total=len(originals), desc=name, unit="photo", disable=None) as progress:
        start = time.perf_counter()
        for _, group in groupby(originals, key=lambda image: image.shape):
            for batch in torch.stack(list(group)).split(batch_size):
                changed += attack(scorer, batch.to(device), show_steps(progress)).images.cpu()
                progress.update(len(batch))
        seconds = (time.perf_counter() - start) / len(originals)
    return changed, seconds


def show_steps(bar: tqdm) -> Progress:
    """Show the steps of a method beside a progress bar."""
    return lambda step, steps: bar.set_postfix_str(f"step {step}/{steps}")
