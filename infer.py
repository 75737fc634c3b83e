"""Camouflage photographs: files in, filtered files out, one forward pass each. Processes started by ``accelerate launch`` share the files."""

from __future__ import annotations  # torch is imported only once there is work, so that --help answers at once

import argparse
import json
import math
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from camo import CamoError
from camo.camouflage import pipeline, processes
from camo.camouflage.pipeline import Job, apart, by_size, in_order
from camo.photos.files import remove_stale

if TYPE_CHECKING:
    from camo.photos.images import Photo, PhotoFile

MIN_SIDE = 16  # px, the filter's smallest input


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; wrong usage ends the process with status 2."""
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = "JPEG, PNG, WebP, TIFF, BMP, AVIF, HEIC; GIF, written as PNG; folders recursively"
    parser.add_argument("photos", nargs="+", type=Path, metavar="PHOTO_OR_FOLDER", help=kinds)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write, under the same names and sub-folders")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="the filter's weights (default: the shipped ones)")
    parser.add_argument("--strength", type=float, default=1.0, metavar="S", help="scale of the change: 0 none, 1 as trained (default: 1)")
    parser.add_argument("--batch-size", type=int, default=1, metavar="N", help="photos of one size filtered together; no gain on a CPU (default: 1)")
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1, mps ... (default: cuda, else mps, else cpu)")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32", help="of the network; bf16: for GPUs (default: float32)")
    parser.add_argument("--compile", action="store_true", help="compile the network first (torch.compile), which takes 20 seconds or more")
    parser.add_argument("--run-code", metavar="CODE", help="put CODE and an underscore before each file name")
    formats = ("jpeg", "png", "webp", "tiff", "bmp", "avif", "heif")
    parser.add_argument("--format", choices=formats, type=str.lower, help="to write (default: that of each photo)")
    stripped = parser.add_mutually_exclusive_group()
    stripped.add_argument("--strip-gps", action="store_true", help="leave out EXIF's location, XMP and comments")
    stripped.add_argument("--strip-metadata", action="store_true", help="leave out everything but the colour profile")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist already; without it they are kept")
    check = parser.add_argument_group("verification: reads again and scores what is written or kept, a JSON line each; exit 1 if one is unprotected")
    check.add_argument("--verify", action="store_true", help="raise the strength of what is not protected, as far as --min-psnr allows")
    check.add_argument("--channel", default="JPEG 90", metavar="OP", help="what happens before the score, as evaluate names it (default: JPEG 90)")
    check.add_argument("--min-psnr", type=float, default=36.0, metavar="DB", help="least PSNR of a raised strength or of --refine (default: 36)")
    check.add_argument("--refine", type=int, default=0, metavar="N", help="steps of per-image optimisation where no strength protects (default: 0)")
    check.add_argument("--biqa", default="bundled", help="quality model: bundled, koncept512[:FILE] or FILE.ts (default: bundled)")
    args = parser.parse_args(argv)
    if not 0 <= args.strength < math.inf:
        parser.error(f"--strength {args.strength}: must be a finite number of 0 or more")
    if args.batch_size < 1:
        parser.error(f"--batch-size {args.batch_size}: must be 1 or more")
    if args.run_code is not None and not re.fullmatch(r"[A-Za-z0-9][\w-]*", args.run_code, re.ASCII):
        parser.error(f"--run-code {args.run_code!r}: must be of letters, digits, '_' and '-'")
    if args.refine < 0:
        parser.error(f"--refine {args.refine}: must be 0 or more")
    if not math.isfinite(args.min_psnr):
        parser.error(f"--min-psnr {args.min_psnr}: must be a finite number")
    for name in ("channel", "min_psnr", "refine", "biqa"):
        if not args.verify and getattr(args, name) != parser.get_default(name):
            parser.error(f"--{name.replace('_', '-')}: goes with --verify")
    return args


def plan(args: argparse.Namespace, faults: list[CamoError]) -> list[Job]:
    """Decide which file is written from which: this process's jobs, with those whose output is there already and kept."""
    from camo.photos.images import find_photos
    from camo.photos.metadata import SUFFIX_OF

    found: dict[PhotoFile, None] = {}  # an ordered set
    for path in args.photos:
        try:
            if os.path.realpath(path) == os.path.realpath(args.out):
                raise CamoError(f"{str(path)!r}: is the output folder itself; give another --out")
            found.update(dict.fromkeys(find_photos([path], exclude=args.out)))
        except CamoError as error:
            faults.append(error)
    taken = {os.path.realpath(file.path): f"the input {str(file.path)!r}" for file in found}
    jobs = []
    for file in found:
        suffix = ".png" if file.path.suffix.lower() == ".gif" else file.path.suffix  # as camo.photos.images reads it
        name = file.path.stem + (SUFFIX_OF[args.format.upper()] if args.format else suffix)
        name = f"{args.run_code}_{name}" if args.run_code else name
        destination = args.out / file.relative.with_name(name)
        place = os.path.realpath(destination)
        if place in taken:
            faults.append(CamoError(f"{str(file.path)!r}: its output would overwrite {taken[place]}"))
        elif processes.mine(destination.relative_to(args.out)):
            jobs.append(Job(file.path, destination, kept=not args.overwrite and os.path.lexists(destination)))
        taken.setdefault(place, f"the output of {str(file.path)!r}")
    return jobs


def fitted(photo: Photo, source: Path, args: argparse.Namespace) -> Photo:
    """The photo in the format and with the metadata that are to be written. Raises CamoError where the format cannot hold it."""
    from camo.photos.metadata import as_format, without_location, without_metadata

    if args.strip_metadata:
        photo = without_metadata(photo)
    elif args.strip_gps:
        photo = without_location(photo)
    try:
        return as_format(photo, args.format.upper() if args.format else photo.format)
    except CamoError as error:
        raise CamoError(f"{str(source)!r}: {error}") from error


def camouflage(jobs: list[Job], args: argparse.Namespace, faults: list[CamoError]) -> int:
    """Do the jobs, decoding and encoding beside the filter, and return how many files were written."""
    import torch
    from tqdm import tqdm

    from camo.filter.checkpoint import SHIPPED_FILTER, load_filter
    from camo.filter.full_size import FullSize
    from camo.photos.images import read, write

    best = f"cuda:{processes.LOCAL_RANK}" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.zeros(1, device=args.device or best).device
    except (AssertionError, RuntimeError) as error:
        raise CamoError(f"--device {args.device}: cannot be used: {str(error).splitlines()[0]}") from error
    pipeline.keep_freed_memory()
    photo_filter = FullSize(load_filter(args.checkpoint or SHIPPED_FILTER, device), args.precision == "bf16", args.compile)
    verify = None
    if args.verify:
        from camo.camouflage.verify import Verifier
        from camo.quality import models

        verify = Verifier(photo_filter, models.load(args.biqa, device), args.channel, args.min_psnr, args.refine)

    def load(job: Job) -> Job:
        photo = fitted(read(job.source), job.source, args)
        height, width = photo.pixels.shape[-2:]
        if min(height, width) < MIN_SIDE:
            raise CamoError(f"{str(job.source)!r}: {width}x{height} px; the filter needs {MIN_SIDE} px or more a side")
        return replace(job, photo=photo)

    def filtered(group: list[Job]) -> list[Job]:
        pixels = torch.stack([job.photo.pixels for job in group]) if len(group) > 1 else group[0].photo.pixels[None]  # no copy of a large one
        results = photo_filter(pixels, args.strength)
        return [replace(job, photo=replace(job.photo, pixels=pixels)) for job, pixels in zip(group, results, strict=True)]

    def verified(group: list[Job]) -> list[Job]:
        (job,) = group
        photo, verdict = (job.photo, verify.check(job.photo, read(job.destination))) if job.kept else verify(job.photo, args.strength)
        return [replace(job, photo=photo, verdict=verdict)]

    def save(job: Job) -> Job:
        if not job.kept:
            write(job.photo, job.destination, args.overwrite)
        return job

    pool = ThreadPoolExecutor(pipeline.WORKERS)
    groups = by_size(in_order(pool, load, iter(jobs), faults), 1 if verify else args.batch_size)
    changed = apart(verified if verify else filtered, groups, faults)
    progress = tqdm(in_order(pool, save, changed, faults), total=len(jobs), unit="photo", disable=None)  # None: on terminals
    written = 0
    try:
        for job in progress:
            written += not job.kept
            if job.verdict:
                tell(job, faults)
        return written
    finally:  # on Ctrl-C too: what is being written is finished, what is only planned is dropped
        progress.close()
        pool.shutdown(cancel_futures=True)


def tell(job: Job, faults: list[CamoError]) -> None:
    """Print what verification found of a file."""
    line = {"path": str(job.source), "written": str(job.destination), **asdict(job.verdict)}
    print(json.dumps({key: round(value, 3) if isinstance(value, float) else value for key, value in line.items()}), flush=True)
    if not job.verdict.protected:
        faults.append(CamoError(f"{str(job.destination)!r}: scores {job.verdict.score_after:.1f}, not protected"))


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit status: 0 all done, 1 a fault told in one line each, 130 interrupted; wrong usage ends the process with 2."""
    args, start = arguments(argv), time.monotonic()
    warnings.filterwarnings("ignore", module="PIL")  # odd metadata is no fault to report
    faults, kept, written = [], 0, 0
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        remove_stale(args.out)
        jobs = plan(args, faults)
        kept = sum(job.kept for job in jobs)
        jobs = [job for job in jobs if args.verify or not job.kept]
        written = camouflage(jobs, args, faults) if jobs else 0
    except (CamoError, OSError) as error:
        faults.append(error)
    except KeyboardInterrupt:
        print("interrupted; the same command again does the rest", file=sys.stderr)
        return 130
    reports = processes.gather((written, kept, list(map(str, faults))))
    if processes.RANK:
        return 1 if faults else 0
    written, kept = (sum(report[i] for report in reports) for i in (0, 1))
    told = dict.fromkeys(r"\n".join(fault.splitlines()) for report in reports for fault in report[2])  # a fault of the command all processes tell
    sys.stderr.writelines(f"error: {fault}\n" for fault in told)
    seconds = time.monotonic() - start
    summary = f"{written} written, {kept} there already, {len(told)} failed; {seconds:.1f} s, {written / seconds:.2f} photos/s"
    print(summary, file=sys.stderr if args.verify else sys.stdout)  # with --verify the standard output is JSON lines
    return 1 if told else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill ends as Ctrl-C does
    sys.exit(main())
