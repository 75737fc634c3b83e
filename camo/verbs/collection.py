"""``camo infer --cluster``: a collection on the machines of a Ray cluster. Arguments in, exit status out."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from camo import CamoError
from camo.camouflage.files import Files
from camo.camouflage.pipeline import Pipeline
from camo.filter.look_settings import AUTO
from camo.photos.files import reason, remove_stale, unfinished
from camo.photos.find import SUFFIXES
from camo.verbs.done import Done

if TYPE_CHECKING:
    from camo.camouflage.cluster import Outcome
    from camo.camouflage.places import Folder, Store

FAULTS = "faults.jsonl"
MINUTE = 60  # seconds between two lines of progress where the output is no terminal, and between two versions of the faults file


def run(args: argparse.Namespace, files: Files, make: Callable[[torch.device], Pipeline]) -> int:
    """Do a collection; ``make`` gives the pipeline for a device, in each worker. The exit status: 0 all done, 1 some photos failed.

    Raises CamoError where nothing can be done, or the cluster cannot go on.
    """
    try:
        from camo.camouflage import cluster
        from camo.camouflage.places import Folder, inside, place
    except ImportError as error:
        raise CamoError(f"--cluster: needs Ray and pyarrow: pip install 'camo[cluster]' ({error})") from error

    start = time.monotonic()
    source, out = place(str(args.photos[0])), place(str(args.out))
    try:
        if not source.exists():
            raise CamoError(f"{str(source)!r}: no such folder")
        if inside(source, out):
            raise CamoError(f"{str(source)!r}: lies in the output folder {str(out)!r}; choose another --out")
        done, workers = Done(), set()
        with _unfinished_files(out) as out, cluster.connected(args.cluster):
            _heed_sigterm()
            on, count = cluster.devices(args.device)
            parts = out.parts if isinstance(out, Folder) else None
            batches = -(-cluster.PHOTOS // (args.batch_size or cluster.PHOTOS))
            size = batches * args.batch_size if args.batch_size else cluster.PHOTOS
            collection = cluster.Collection(source, out, replace(files, parts=parts), args.tar, args.run_code, size)
            with Progress(collection.count, args.tar) as progress, Faults(out, args.tar and not args.overwrite) as faults:
                for outcome in cluster.camouflage(collection, make, on, count):
                    done.kept += outcome.kept
                    workers |= {outcome.device} - {""}
                    for job in outcome.jobs:
                        done.count(job)
                        if args.look and args.look.name == AUTO:
                            tqdm.write(f"{str(job.source)!r}: {job.look}", file=sys.stdout)
                    for photo, text in outcome.faults:
                        faults.add(photo, text)
                    progress.update(outcome)
    except OSError as error:
        raise CamoError(f"{str(source)!r}, {str(out)!r}: {reason(error)}") from error
    if not (done.written or done.kept or faults.count):
        what = "tar file in this folder" if args.tar else f"photo in this folder ({', '.join(sorted(SUFFIXES))})"
        raise CamoError(f"{str(source)!r}: no {what}")
    if faults.count:
        print(f"error: {faults.count} failed; each has a line in {str(out.at(FAULTS))!r}", file=sys.stderr)
    seconds = time.monotonic() - start
    rate, kind = done.written / seconds, {"cuda": "GPU", "cpu": "CPU"}[on] + "s" * (len(workers) != 1)
    each = f", {rate / len(workers):.2f} photos/s for each of {len(workers)} {kind}" if workers else ""
    print(f"{done.text(faults.count, 'shards ' if args.tar else '')}; {seconds:.1f} s, {rate:.2f} photos/s{each}", flush=True)
    return 1 if faults.count else 0


class Faults:
    """The file of faults in the output: one line of JSON per photo, with its name and what is wrong.

    It is written whole once a minute and at the end, since nothing can be added to an object in a store. A photo that failed is tried again when the
    command is repeated, so the file begins anew; but one in a shard is not, as the shard is written without it: ``keep`` takes over these lines.
    """

    def __init__(self, out: Folder | Store, keep: bool) -> None:
        self.out, self.count, self.written = out, 0, time.monotonic()
        self.lines = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 (closed by __exit__)
        self.earlier: set[str] = set()
        self.there = out.has(FAULTS)
        if keep and self.there:
            with out.open(FAULTS) as file:
                for line in file:
                    fault = json.loads(line)
                    if ".tar/" in fault["photo"]:
                        self._add(fault["photo"], fault["fault"])
                        self.earlier.add(fault["photo"])

    def add(self, photo: str, text: str) -> None:
        """Take up a photo that failed."""
        if photo in self.earlier:
            return
        self._add(photo, text)
        tqdm.write(f"error: {text}", file=sys.stderr)
        if time.monotonic() - self.written > MINUTE:
            self._write()

    def _add(self, photo: str, text: str) -> None:
        self.lines.write(json.dumps({"photo": photo, "fault": r"\n".join(text.splitlines())}) + "\n")
        self.count += 1

    def _write(self) -> None:
        self.lines.seek(0)
        content = self.lines.read().encode()
        if content:
            self.out.put(FAULTS, content)
        elif self.there:
            self.out.remove(FAULTS)
        self.there, self.written = bool(content), time.monotonic()

    def __enter__(self) -> Faults:
        return self

    def __exit__(self, *_: object) -> None:
        with self.lines:
            self._write()


class Progress:
    """Photos, or shards, done; photos per second; time left, once all are counted. A bar on terminals, elsewhere one line per minute.

    The work does not wait for ``count``, which lists the whole collection: it runs in a thread.
    """

    def __init__(self, count: Callable[[], int], tar: bool) -> None:
        self.tar, self.photos, self.done, self.start = tar, 0, 0.0, time.monotonic()
        self.total: int | None = None
        self.told = self.start
        self.terminal = sys.stderr.isatty()
        self.bar: Any = tqdm(unit="shard" if tar else "photo", disable=not self.terminal)

        def run() -> None:
            with contextlib.suppress(OSError):  # the listing will fail for the same reason, and report it
                self.total = count()

        threading.Thread(target=run, daemon=True).start()

    def update(self, outcome: Outcome) -> None:
        """Count what has been done."""
        self.photos += len(outcome.jobs)
        self.done += outcome.kept + (outcome.share if self.tar else len(outcome.jobs) + len(outcome.faults))
        self.bar.total = self.total
        seconds = time.monotonic() - self.start
        rate = f"{self.photos / seconds:.1f} photos/s"
        self.bar.n = round(self.done, 1) if self.tar else int(self.done)
        self.bar.set_postfix_str(rate if self.tar else "")
        if not self.terminal and time.monotonic() - self.told > MINUTE:
            self.told = time.monotonic()
            meter = tqdm.format_meter(self.bar.n, self.total, seconds, unit="shard" if self.tar else "photo", ncols=0, postfix=rate)
            print(meter, file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()


@contextlib.contextmanager
def _unfinished_files(out: Folder | Store) -> Iterator[Folder | Store]:
    """The output with a folder for files that are not finished, which is removed in the end. Object stores have no such files."""
    from camo.camouflage.places import Folder

    if not isinstance(out, Folder):
        yield out
        return
    out.path.mkdir(parents=True, exist_ok=True)
    remove_stale(out.path, deep=False)
    parts = unfinished(out.path)
    parts.mkdir()
    try:
        yield replace(out, parts=parts)
    finally:
        shutil.rmtree(parts, ignore_errors=True)


def _heed_sigterm() -> None:
    """Ray has put a handler of its own in the place of the verb's."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
