"""The verb ``infer``: camouflaged copies of photos, one forward pass each, on this machine or on the machines of a Ray cluster."""

from __future__ import annotations  # torch is imported only once there is work, so that --help answers at once

import argparse
import contextlib
import functools
import json
import math
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from camo import CamoError
from camo.filter.look_settings import AUTO, LOOK_HELP
from camo.photos.files import reason, remove_stale
from camo.quality import SPEC_HELP
from camo.verbs.arguments import add_max_pixels, look_or_auto, positive
from camo.verbs.done import Done

if TYPE_CHECKING:
    import torch

    from camo.camouflage.files import Files
    from camo.camouflage.pipeline import Pipeline
    from camo.camouflage.plan import Job
    from camo.filter.generator import Filter

INTERRUPTED = 130
WITH_VERIFY = ("channel", "min_psnr", "margin", "refine", "biqa")  # flags that mean nothing without --verify


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's flags."""
    kinds = "photos (JPEG, PNG, WebP, TIFF, BMP, AVIF, HEIC; GIF, which is written as PNG), or folders of them, recursively"
    parser.add_argument("photos", nargs="+", type=path_or_address, metavar="PHOTO_OR_FOLDER", help=kinds)
    results = "folder for the results, under the same names and sub-folders"
    parser.add_argument("--out", type=path_or_address, required=True, metavar="DIR", help=results)
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="the filter's weights (default: the shipped ones)")
    parser.add_argument("--strength", type=strength, default=1.0, metavar="S", help="scale of the change: 0 is none, 1 is as trained (default: 1)")
    parser.add_argument(
        "--look",
        type=look_or_auto,
        metavar="NAME[:AMOUNT]",
        help=f"change how the photos look before they are camouflaged: {LOOK_HELP}. {AUTO} gives each photo the look whose camouflage needs the least"
        " change, of vivid, warm, golden, cool and film; no warm or golden for a warm photo, no cool for a cool one",
    )
    parser.add_argument(
        "--batch-size",
        type=positive,
        metavar="N",
        help="photos of the same size that are filtered together; another N can change values by one 8-bit step"
        " (default: 1 on a CPU; on a GPU 16 photos of up to 512x384 px, fewer of larger ones)",
    )
    parser.add_argument(
        "--device",
        metavar="D",
        help="cpu, cuda, cuda:1, mps, ... (default: cuda if there is a GPU, else mps, else cpu); with --cluster, cpu or cuda (default: cuda if the"
        " cluster has GPUs, else cpu)",
    )
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32", help="of the network; bf16 is for GPUs (default: float32)")
    parser.add_argument("--compile", action="store_true", help="compile the network first with torch.compile, which takes 20 seconds or more")
    parser.add_argument("--run-code", type=run_code, metavar="CODE", help="put CODE and an underscore before each file name")
    formats = ("jpeg", "png", "webp", "tiff", "bmp", "avif", "heif")
    parser.add_argument("--format", choices=formats, type=str.lower, help="format of the results (default: that of each photo)")
    stripped = parser.add_mutually_exclusive_group()
    stripped.add_argument("--strip-gps", action="store_true", help="leave out the location in EXIF, XMP and comments")
    stripped.add_argument("--strip-metadata", action="store_true", help="leave out all metadata but the colour profile")
    strict = "do not write a photo of which something would be left out; without it, a warning names what is"
    parser.add_argument("--strict-metadata", action="store_true", help=strict)
    add_max_pixels(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist already; without it they are kept")
    check = parser.add_argument_group(
        "verification",
        "Each file that is written or kept is decoded and scored, and reported as one line of JSON. The exit status is 1 if one is not protected.",
    )
    check.add_argument("--verify", action="store_true", help="give each photo the least strength that protects it, as far as --min-psnr allows")
    check.add_argument(
        "--channel",
        action="append",
        metavar="OP",
        help="what happens to a file before it is scored, in the words of the verb evaluate; several times (default: JPEG 90)",
    )
    check.add_argument(
        "--biqa",
        action="append",
        metavar="MODEL",
        help=f"quality model, also for --look auto: {SPEC_HELP}; several times (default: bundled)",
    )
    check.add_argument(
        "--margin", type=points, metavar="X", help="points below 50 that every model's score should reach after every operation (default: 3)"
    )
    check.add_argument("--min-psnr", type=decibels, metavar="DB", help="lowest PSNR that a raised strength or --refine may reach (default: 36)")
    check.add_argument("--refine", type=steps, metavar="N", help="steps of per-image optimisation where no strength reaches the margin (default: 0)")
    cluster = parser.add_argument_group(
        "large collections",
        "The machines of a Ray cluster share the work (docs/collections.md). The input is then one folder that all of them see, or part of an object"
        " store, such as s3://BUCKET/PHOTOS; so is the output. What fails is listed in the file faults.jsonl in the output.",
    )
    address = "auto: the cluster that this machine is part of or, if it is part of none, this machine alone; else HOST:PORT of its head node"
    cluster.add_argument("--cluster", metavar="ADDRESS", help=address)
    cluster.add_argument("--tar", action="store_true", help="read and write WebDataset shards (.tar) instead of single photos")
    parser.epilog = "To complete an interrupted run, repeat the command."
    parser.set_defaults(wrong_usage=parser.error)


def run(args: argparse.Namespace) -> int:
    """Return the exit status: 0 all done, 1 faults, which are reported in one line each, 130 interrupted; wrong usage ends the process with 2."""
    for name in WITH_VERIFY:
        if getattr(args, name) is not None and not args.verify and not (name == "biqa" and _chooses_looks(args)):
            args.wrong_usage(f"argument --{name.replace('_', '-')}: needs --verify{' or --look auto' if name == 'biqa' else ''}")
    _check_places(args)
    with _sigterm_as_ctrl_c():
        try:
            return _run_on_cluster(args) if args.cluster else _run(args)
        except KeyboardInterrupt:
            print("interrupted; the same command completes the run", file=sys.stderr)
            return INTERRUPTED


def _check_places(args: argparse.Namespace) -> None:
    """Refuse what works with --cluster alone, and with it what cannot work there."""
    addresses = [place for place in (*args.photos, args.out) if isinstance(place, str)]
    if not args.cluster:
        if args.tar or addresses:
            args.wrong_usage(f"argument {'--tar' if args.tar else addresses[0]}: needs --cluster")
        return
    if args.verify:
        args.wrong_usage("argument --verify: cannot be used with --cluster; camo evaluate checks what was written")
    if args.device not in {None, "cpu", "cuda"}:
        args.wrong_usage(f"argument --device: {args.device} cannot be used with --cluster; choose cpu or cuda")
    if args.tar and args.run_code:
        args.wrong_usage("argument --run-code: cannot be used with --tar")
    if len(args.photos) > 1:
        args.wrong_usage("argument --cluster: needs the photos in one folder")


def _run_on_cluster(args: argparse.Namespace) -> int:
    from camo.filter.checkpoint import SHIPPED_FILTER, load_filter
    from camo.verbs import collection

    model = load_filter(args.checkpoint or SHIPPED_FILTER)
    settings = argparse.Namespace(**{name: value for name, value in vars(args).items() if name != "wrong_usage"})
    if _chooses_looks(args):
        _scorers(args, "cpu")  # what cannot be loaded here should be reported once, and now
    return collection.run(args, _files(args), functools.partial(_pipeline, settings, model))


def _run(args: argparse.Namespace) -> int:
    from camo.camouflage.plan import plan

    start = time.monotonic()
    faults: list[CamoError] = []
    done = Done()
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        remove_stale(args.out)
        jobs, unplanned = plan(args.photos, args.out, args.run_code, args.format and args.format.upper(), args.overwrite)
        faults += unplanned
        done.kept = sum(job.kept for job in jobs)
        jobs = [job for job in jobs if args.verify or not job.kept]
        if jobs:
            _camouflage(jobs, args, faults, done)
    except BrokenPipeError:  # of the standard output
        raise
    except CamoError as error:
        faults.append(error)
    except OSError as error:
        faults.append(CamoError(f"{str(error.filename or args.out)!r}: {reason(error)}"))
    return _summary(done, faults, time.monotonic() - start, sys.stderr if args.verify else sys.stdout)  # with --verify the output is JSON lines


def _camouflage(jobs: list[Job], args: argparse.Namespace, faults: list[CamoError], done: Done) -> None:
    """Do the jobs and count them."""
    from tqdm import tqdm

    tell_looks = _chooses_looks(args) and not args.verify  # with --verify, the report names the look

    planned = {job.destination for job in jobs if job.kept}
    progress = tqdm(total=len(jobs), unit="photo", disable=None)  # None: on terminals alone
    with progress, contextlib.closing(_pipeline_here(args)(jobs, faults)) as finished:
        for job in finished:
            progress.update()
            done.kept += job.kept and job.destination not in planned
            if not job.kept:
                done.count(job)
            if tell_looks and not job.kept:
                tqdm.write(f"{str(job.source)!r}: {job.look}", file=sys.stdout)
            if job.verdict:
                _report(job, faults)


def _pipeline_here(args: argparse.Namespace) -> Pipeline:
    """Load what the flags name. Raises CamoError for a device or a file that cannot be used."""
    from camo import device
    from camo.camouflage.memory import keep_freed_memory
    from camo.filter.checkpoint import SHIPPED_FILTER, load_filter

    chosen = device.choose(args.device)
    keep_freed_memory()
    return _pipeline(args, load_filter(args.checkpoint or SHIPPED_FILTER, chosen), chosen)


def _pipeline(args: argparse.Namespace, model: Filter, chosen: torch.device) -> Pipeline:
    """The pipeline that the flags ask for, with this filter, on a device. Raises CamoError for a quality model that cannot be used."""
    from camo.camouflage.pipeline import Pipeline
    from camo.filter.full_size import FullSize

    photo_filter = FullSize(model.to(chosen), bf16=args.precision == "bf16", compiled=args.compile)
    verifier: Any = None
    look: Any = None
    if args.verify or _chooses_looks(args):
        scorers = _scorers(args, chosen)
    if args.look:
        from camo.camouflage.looks import OneLook, SuitableLook

        name, amount = args.look
        look = SuitableLook(photo_filter, list(scorers.values()), amount, args.strength) if name == AUTO else OneLook(name, amount, chosen)
    if args.verify:
        from camo.camouflage.verify import Verifier

        given = {"operations": args.channel, "min_psnr": args.min_psnr, "margin": args.margin, "refine": args.refine}
        verifier = Verifier(photo_filter, scorers, **{name: value for name, value in given.items() if value is not None})
    return Pipeline(photo_filter, _files(args), args.strength, args.batch_size, verifier, look)


def _files(args: argparse.Namespace) -> Files:
    """How the flags say that photos are read and written."""
    from camo.camouflage.files import Files

    strip: Any = "metadata" if args.strip_metadata else "gps" if args.strip_gps else None
    return Files(args.format and args.format.upper(), strip, args.overwrite, args.strict_metadata, args.max_pixels)


def _scorers(args: argparse.Namespace, chosen: torch.device | str) -> dict[str, Any]:
    """The quality models that the flags name."""
    from camo.quality import models

    return {spec: models.load(spec, chosen) for spec in args.biqa or ["bundled"]}


def _chooses_looks(args: argparse.Namespace) -> bool:
    return args.look is not None and args.look.name == AUTO


def _report(job: Job, faults: list[CamoError]) -> None:
    """Print what verification found of a file."""
    assert job.verdict
    look = {"look": job.look} if job.look else {}
    line = {"path": str(job.source), "written": str(job.destination), **look, **asdict(job.verdict)}
    print(json.dumps(to_three_places(line)), flush=True)
    if not job.verdict.protected:
        faults.append(CamoError(f"{str(job.destination)!r}: scores {job.verdict.score_after:.1f}, not protected"))


def to_three_places(value: Any) -> Any:
    """A JSON value with its numbers to three decimals."""
    if isinstance(value, dict):
        return {key: to_three_places(each) for key, each in value.items()}
    return round(value, 3) if isinstance(value, float) else value


def _summary(done: Done, faults: list[CamoError], seconds: float, out: TextIO) -> int:
    """Print the faults, then the counts. The exit status."""
    texts = dict.fromkeys(r"\n".join(str(fault).splitlines()) for fault in faults)
    sys.stderr.writelines(f"error: {text}\n" for text in texts)
    print(f"{done.text(len(texts))}; {seconds:.1f} s, {done.written / seconds:.2f} photos/s", file=out, flush=True)
    return 1 if texts else 0


@contextlib.contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Let a polite kill end the run as Ctrl-C does. Elsewhere than in the main thread, Python can set no handler."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous or signal.SIG_DFL)  # None where another language set it


def path_or_address(text: str) -> Path | str:
    """A path, or the address of a place in an object store, which a Path would spoil."""
    return text if "://" in text else Path(text)


def strength(text: str) -> float:
    """Parse a scale of the change. Raises ArgumentTypeError."""
    value = float(text)
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: must be a finite number of 0 or more")
    return value


def decibels(text: str) -> float:
    """Parse a PSNR. Raises ArgumentTypeError."""
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text}: must be a finite number")
    return value


def points(text: str) -> float:
    """Parse a part of the scale of scores. Raises ArgumentTypeError."""
    value = float(text)
    if not 0 <= value < 50:
        raise argparse.ArgumentTypeError(f"{text}: must be 0 or more and less than 50")
    return value


def steps(text: str) -> int:
    """Parse a number that may be 0. Raises ArgumentTypeError."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text}: must be 0 or more")
    return value


def run_code(text: str) -> str:
    """Parse what goes before file names. Raises ArgumentTypeError."""
    if not re.fullmatch(r"[A-Za-z0-9][\w-]*", text, re.ASCII):
        raise argparse.ArgumentTypeError(f"{text!r}: must begin with a letter or a digit, and hold only letters, digits, '_' and '-'")
    return text
