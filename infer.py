"""Camouflage photographs: files in, filtered files out, one forward pass each."""

from __future__ import annotations  # torch is imported only once there is work, so that --help answers at once

import argparse
import math
import os
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from camo import CamoError

if TYPE_CHECKING:
    import torch

    from camo.images import Photo, PhotoFile

MIN_SIDE = 16  # px, the filter's smallest input
MAX_WAITING = 200_000_000  # bytes of pixels held back at most while photos of one size gather for a batch
WORKERS = min(8, os.cpu_count() or 1)  # threads that decode and encode


@dataclass(frozen=True)
class Job:
    """One photo on its way: the file to read, the file to write, and in between its content."""

    source: Path
    destination: Path
    photo: Photo | None = None


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; wrong usage ends the process with status 2."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", nargs="+", type=Path, metavar="PHOTO_OR_FOLDER", help="JPEG, PNG, WebP, TIFF or BMP; folders recursively")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write, under the same names and sub-folders")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="the filter's weights (default: the shipped ones)")
    parser.add_argument("--strength", type=float, default=1.0, metavar="S", help="scale of the change: 0 none, 1 as trained (default: 1)")
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="photos of one size filtered together; no gain on a CPU (default: 1)")
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1, mps ... (default: cuda, else mps, else cpu)")
    parser.add_argument("--run-code", metavar="CODE", help="put CODE and an underscore before each file name")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist already; without it they are kept")
    args = parser.parse_args(argv)
    if not 0 <= args.strength < math.inf:
        parser.error(f"--strength {args.strength}: must be a finite number of 0 or more")
    if args.batch_size < 1:
        parser.error(f"--batch-size {args.batch_size}: must be 1 or more")
    if args.run_code is not None and not re.fullmatch(r"\w[\w.-]*", args.run_code):
        parser.error(f"--run-code {args.run_code!r}: must be of letters, digits, '_', '-' and '.'")
    return args


def plan(args: argparse.Namespace, faults: list[CamoError]) -> tuple[list[Job], int]:
    """Decide which file is written from which: the jobs to do, and the number of outputs that are there already."""
    from camo.images import find_photos

    found: dict[PhotoFile, None] = {}  # an ordered set
    for path in args.photos:
        try:
            if os.path.realpath(path) == os.path.realpath(args.out):
                raise CamoError(f"{str(path)!r}: is the output folder itself; give another --out")
            found.update(dict.fromkeys(find_photos([path], exclude=args.out)))
        except CamoError as error:
            faults.append(error)
    taken = {os.path.realpath(file.path): f"the input {str(file.path)!r}" for file in found}
    jobs, kept = [], 0
    for file in found:
        name = f"{args.run_code}_{file.path.name}" if args.run_code else file.path.name
        destination = args.out / file.relative.with_name(name)
        place = os.path.realpath(destination)
        if place in taken:
            faults.append(CamoError(f"{str(file.path)!r}: its output would overwrite {taken[place]}"))
        elif not args.overwrite and os.path.lexists(destination):
            kept += 1
        else:
            jobs.append(Job(file.path, destination))
        taken.setdefault(place, f"the output of {str(file.path)!r}")
    return jobs, kept


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


def camouflage(jobs: list[Job], args: argparse.Namespace, faults: list[CamoError]) -> int:
    """Do the jobs, decoding and encoding beside the filter, and return how many were done."""
    import torch
    from tqdm import tqdm

    from camo.checkpoint import SHIPPED_FILTER, load_filter
    from camo.images import read, to_float, to_uint8, write

    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.zeros(1, device=args.device or best).device
    except (AssertionError, RuntimeError) as error:
        raise CamoError(f"--device {args.device}: cannot be used: {str(error).splitlines()[0]}") from error
    photo_filter = load_filter(args.checkpoint or SHIPPED_FILTER, device)
    exact: dict[torch.Size, bool] = {}

    def load(job: Job) -> Job:
        photo = read(job.source)
        height, width = photo.pixels.shape[-2:]
        if min(height, width) < MIN_SIDE:
            raise CamoError(f"{str(job.source)!r}: {width}x{height} px; the filter needs {MIN_SIDE} px or more a side")
        return replace(job, photo=photo)

    def filtered(groups: Iterator[list[Job]]) -> Iterator[Job]:
        for group in groups:
            with torch.inference_mode():
                original = to_float(torch.stack([job.photo.pixels for job in group]).to(device))
                results = to_uint8(forward(photo_filter, original, args.strength, exact)).cpu()
            for job, pixels in zip(group, results, strict=True):
                yield replace(job, photo=replace(job.photo, pixels=pixels))

    def save(job: Job) -> Job:
        write(job.photo, job.destination, args.overwrite)
        return job

    pool = ThreadPoolExecutor(WORKERS)
    groups = by_size(in_order(pool, load, iter(jobs), faults), args.batch_size)
    progress = tqdm(in_order(pool, save, filtered(groups), faults), total=len(jobs), unit="photo", disable=None)  # None: on terminals
    try:
        return sum(1 for _ in progress)
    finally:  # on Ctrl-C too: what is being written is finished, what is only planned is dropped
        progress.close()
        pool.shutdown(cancel_futures=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status: 0 all done, 1 a fault told in one line each, 130 interrupted; wrong usage ends the process with 2."""
    args, start = arguments(argv), time.monotonic()
    faults, kept, written = [], 0, 0
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        jobs, kept = plan(args, faults)
        written = camouflage(jobs, args, faults) if jobs else 0
    except (CamoError, OSError) as error:
        faults.append(error)
    except KeyboardInterrupt:
        print("interrupted; the same command again does the rest", file=sys.stderr)
        return 130
    sys.stderr.writelines(f"error: {fault}\n" for fault in faults)
    seconds = time.monotonic() - start
    print(f"{written} written, {kept} there already, {len(faults)} failed; {seconds:.1f} s, {written / seconds:.2f} photos/s")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
