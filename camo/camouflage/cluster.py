"""A collection on many machines: Ray Data lists, decodes, filters and writes, with the functions of the pipeline of one machine.

Tasks on CPUs list the photos, decode them and write them; actors, one per GPU or else one per CPU, filter them. What passes between them are parts:
a few photos at a time, one part to a block, so that Ray's limits on the memory of blocks hold back whoever is too fast. Ray repeats the work of a
worker or a machine that dies; since every file or object appears whole or not at all, a photo that is done twice is written once more as it is.

Ray's own readers list all names before they begin and give up at the first photo that cannot be read; its writers leave unfinished files and choose
the names. So listing, reading and writing are functions here (``camo.camouflage.places``), and Ray decides where and when they run.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import pickle
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import PurePosixPath
from typing import IO, Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # before Ray is imported: nothing is sent anywhere
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what matters comes as an exception

import psutil
import pyarrow as pa
import ray
import ray.data
import torch
from ray.util.annotations import RayDeprecationWarning
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from camo import CamoError, device
from camo.camouflage.files import Files
from camo.camouflage.memory import keep_freed_memory
from camo.camouflage.overlap import PhotoError, in_order
from camo.camouflage.pipeline import Pipeline
from camo.camouflage.places import Folder, Store
from camo.camouflage.plan import Job, output_name
from camo.camouflage.shards import SUFFIXES as TAR
from camo.camouflage.shards import Member, part_name, parts, parts_there, read, written
from camo.photos.find import SUFFIXES, is_gif
from camo.photos.images import Photo, encode
from camo.photos.metadata import SUFFIX_OF

PHOTOS = 32  # in a part at most; a multiple of the usual batch of 16
MOST_PIXELS = 64_000_000  # bytes of the photos in a part at most, unless a single one has more
IN_FLIGHT = {"cuda": 1_000_000_000, "cpu": 128_000_000}  # bytes of parts that wait anywhere, per device: what it does in seconds
THREADS = 4  # that a task reads and writes with, to wait for several files at once
RETRIES = 5  # of a part whose worker dies: a photo at which a decoder crashes must not keep the run from ending
RESTARTS = 20  # of an actor, likewise. Its tasks have no limit of their own: until Ray knows that a machine is dead, it repeats them at once
COLUMN = "part"


@dataclass
class Listed:
    """Photos that are to be done, as the listing found them.

    Attributes:
        jobs: without content; in ``shard``'s case none.
        shard: a shard of the collection, by its name.
        parts_done: the numbers of its parts that are there already, and how many it has; 0 where none is there.
        kept: how many photos, or shards, were there already.
        faults: (photo, text) of those that cannot be done.
    """

    jobs: list[Job] = field(default_factory=list)
    shard: str = ""
    parts_done: tuple[set[int], int] = (set(), 0)
    kept: int = 0
    faults: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Part:
    """Some photos on their way.

    Attributes:
        jobs: the photos, decoded.
        shard: the name of the shard to write, if these are all photos of one; else "".
        members: what that shard holds, in order, with the content of what is no photo.
        share: which part of its original shard it is, 0 to 1.
        device: which actor filtered them.
        kept, faults: as in ``Listed``.
    """

    jobs: list[Job] = field(default_factory=list)
    shard: str = ""
    members: list[tuple[Member, str]] = field(default_factory=list)
    share: float = 0.0
    device: str = ""
    kept: int = 0
    faults: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class Outcome:
    """What has become of some photos.

    Attributes:
        jobs: those that are written, without pixels: ``photo.left_out``, ``photo.bits`` and ``look`` remain.
        share: as in ``Part``.
        device, kept, faults: as in ``Part``.
    """

    jobs: list[Job]
    share: float
    device: str
    kept: int
    faults: list[tuple[str, str]]


@dataclass(frozen=True)
class Collection:
    """What is to be done, as each worker knows it.

    Attributes:
        source: where the photos are.
        out: where they are written, under the same names.
        files: how photos are read and written.
        tar: whether both hold WebDataset shards.
        run_code: put it and an underscore before each file name.
        part_size: the most photos in a part.
    """

    source: Folder | Store
    out: Folder | Store
    files: Files
    tar: bool = False
    run_code: str | None = None
    part_size: int = PHOTOS

    def count(self) -> int:
        """How many photos, or shards, the collection has. Raises OSError."""
        return sum(len(names) for _, names in self.source.walk(TAR if self.tar else SUFFIXES, self.out))

    def listing(self) -> Iterator[Listed]:
        """Every photo, or shard, that is not done yet, folder by folder; in each, what is there already is asked once."""
        listed = Listed()
        for folder, names in self.source.walk(TAR if self.tar else SUFFIXES, self.out):
            there = set() if self.files.overwrite else self.out.names(folder)
            if self.tar:
                yield from self._shards(folder, names, there)
                continue
            taken: dict[str, str] = {}
            for name in names:
                source, destination = _join(folder, name), _join(folder, self._output(_join(folder, name)))
                if destination in taken:
                    text = f"its output would overwrite the output of {str(self.source.at(taken[destination]))!r}"
                    listed.faults.append(self._fault(source, text))
                elif destination.rpartition("/")[2] in there:
                    listed.kept += 1
                else:
                    listed.jobs.append(Job(self.source.at(source), self.out.at(destination)))
                taken.setdefault(destination, source)
                if len(listed.jobs) == self.part_size or listed.kept + len(listed.faults) >= 10_000:
                    yield listed
                    listed = Listed()
        if listed.jobs or listed.kept or listed.faults:
            yield listed

    def _shards(self, folder: str, names: list[str], there: set[str]) -> Iterator[Listed]:
        done = parts_there(there)
        for name in names:
            found = done.get(name, {})
            if len(found) > 1:
                divisions = " and of ".join(map(str, sorted(found)))
                yield Listed(faults=[self._fault(_join(folder, name), f"the output holds parts of two divisions of it, of {divisions}; remove one")])
                continue
            count, numbers = next(iter(found.items()), (0, set()))
            complete = count > 0 and len(numbers) == count
            yield Listed(kept=1) if complete else Listed(shard=_join(folder, name), parts_done=(numbers, count))

    def _output(self, source: str) -> str:
        suffix = SUFFIX_OF[self.files.file_format] if self.files.file_format else self.source.suffix(source)
        return output_name(PurePosixPath(source), suffix, self.run_code)

    def _fault(self, name: str, text: str) -> tuple[str, str]:
        return str(self.source.at(name)), f"{str(self.source.at(name))!r}: {text}"

    def decode(self, listed: Listed) -> Iterator[Part]:
        """Read and decode photos; what takes too much memory goes on in several parts."""
        if listed.shard:
            yield from self._decode_shard(listed)
            return
        part, held = Part(), 0
        for job in self._in_threads(self._load, listed.jobs, listed.faults):
            size = job.decoded().pixels.numel()
            if part.jobs and held + size > MOST_PIXELS:
                yield part
                part, held = Part(), 0
            part.jobs.append(job)
            held += size
        yield replace(part, kept=listed.kept, faults=listed.faults)

    def _load(self, job: Job) -> Job:
        job = self.source.fetched(job)
        if job.content and is_gif(job.content) and not self.files.file_format and not str(job.destination).endswith(".png"):
            raise CamoError(f"{str(job.source)!r}: is a GIF under another suffix; rename it, or choose a --format")
        return self.files.load(job)

    def _decode_shard(self, listed: Listed) -> Iterator[Part]:
        """Read a shard, and decode the photos of those of its parts that are not there yet."""
        done, count = listed.parts_done
        try:
            with self.source.open(listed.shard) as file:
                divided = parts(file)
                if count not in (0, len(divided)):
                    raise ValueError(f"the output holds parts of another division of it, of {count} and not of {len(divided)}; remove them")
                for number, members in enumerate(divided):
                    if number in done:
                        yield Part(share=1 / len(divided))
                    else:
                        yield self._decode_part(file, listed.shard, members, part_name(listed.shard, number, len(divided)), 1 / len(divided))
        except (OSError, ValueError) as error:
            yield Part(share=1.0, faults=[self._fault(listed.shard, f"cannot be read: {error}")])

    def _decode_part(self, file: IO[bytes], shard: str, members: list[Member], name: str, share: float) -> Part:
        part = Part(shard=name, share=share)
        jobs, taken = [], set()
        for member in members:
            content, address = read(file, member), f"{self.source.at(shard)}/{member.name}"
            new = self._renamed(member, content) if member.is_photo else replace(member, content=content)
            if new.name in taken:
                part.faults.append((address, f"{address!r}: its output would overwrite that of another member"))
                continue
            taken.add(new.name)
            part.members.append((new, address))
            if member.is_photo:
                jobs.append(Job(address, f"{self.out.at(name)}/{new.name}", content=content))
        part.jobs = list(self._in_threads(self.files.load, jobs, part.faults))
        return part

    def _renamed(self, photo: Member, content: bytes) -> Member:
        path = PurePosixPath(photo.name)
        suffix = SUFFIX_OF[self.files.file_format] if self.files.file_format else ".png" if is_gif(content) else path.suffix
        return replace(photo, name=str(path.with_name(output_name(path, suffix))))

    def encode(self, part: Part) -> Outcome:
        """Encode photos and write them."""
        jobs = self._write_shard(part) if part.shard else list(self._in_threads(self._save, part.jobs, part.faults))
        return Outcome([_without_pixels(job) for job in jobs], part.share, part.device, part.kept, part.faults)

    def _save(self, job: Job) -> Job:
        if isinstance(self.out, Folder):
            return self.files.save(job)
        self.out.put(self.out.name(job.destination), encode(job.decoded()))
        return job

    def _write_shard(self, part: Part) -> list[Job]:
        """Write a shard of the samples whose photos have all been filtered; which jobs are in it."""
        jobs = list(self._in_threads(lambda job: replace(job, content=encode(job.decoded())), part.jobs, part.faults))
        contents = {job.source: job.content for job in jobs}
        incomplete = {member.key for member, address in part.members if member.is_photo and address not in contents}
        kept = [(member, address) for member, address in part.members if member.key not in incomplete]
        try:
            self.out.put(part.shard, written([(member, contents.get(address) or member.content or b"") for member, address in kept]))
        except CamoError as error:
            part.faults.append((str(self.out.at(part.shard)), str(error)))
            return []
        addresses = {address for _, address in kept}
        return [job for job in jobs if job.source in addresses]

    def _in_threads(self, work: Callable[[Job], Job], jobs: Iterable[Job], faults: list[tuple[str, str]]) -> Iterator[Job]:
        """The pipeline's own threads; faults are told as (photo, text), which Ray can carry."""
        failed: list[CamoError] = []
        pool = ThreadPoolExecutor(THREADS)
        try:
            yield from in_order(pool, work, iter(jobs), failed)
        finally:
            pool.shutdown(cancel_futures=True)
            faults += _told(failed)


class FilterActor:
    """Filters parts, on a GPU or a CPU of its own.

    Args:
        make: gives the pipeline for a device.
        on: "cuda" or "cpu".
    """

    def __init__(self, make: Callable[[torch.device], Pipeline], on: str) -> None:
        if on == "cpu":
            torch.set_num_threads(1)  # there is an actor for every CPU
        keep_freed_memory()
        self.pipeline = make(device.choose(on))
        self.name = ray.get_runtime_context().get_actor_id()

    def __call__(self, table: pa.Table) -> Iterator[pa.Table]:
        """Filter the photos of parts."""
        for part in _parts(table):
            faults: list[CamoError] = []
            part.jobs = list(self.pipeline.change(iter(part.jobs), faults))
            part.faults += _told(faults)
            part.device = self.name if part.jobs else ""
            yield _table(part)


@contextlib.contextmanager
def connected(address: str) -> Iterator[None]:
    """A connection to a cluster; "auto": to the one that this machine is part of or else, for the time being, one of this machine alone.

    A connection that the process has already is used and left open. Raises CamoError.
    """
    if ray.is_initialized():
        yield
        return
    if address.startswith("ray://"):
        raise CamoError(f"--cluster {address}: run the command on a machine of the cluster, and name its head node as HOST:PORT")
    try:
        options: dict[str, Any] = {"include_dashboard": False} if address == "auto" else {}
        found = address if address != "auto" else None if os.environ.get("RAY_ADDRESS") or _in_a_cluster() else "local"
        with _silent():
            ray.init(found, logging_level=logging.ERROR, log_to_driver=False, **options)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise CamoError(f"--cluster {address}: no connection: {_one_line(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _in_a_cluster() -> bool:
    """Whether Ray runs on this machine. Its own search also finds the address of a cluster that was killed, and waits for it for minutes."""
    return any(process.info["name"] in {"raylet", "raylet.exe"} for process in psutil.process_iter(["name"]))


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep off the terminal what Ray's own processes and libraries print while they start. What goes wrong comes as an exception."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def devices(asked: str | None) -> tuple[str, int]:
    """What the filter runs on, cuda or cpu, and how many of these the cluster has. Raises CamoError where it has no such device."""
    resources = ray.cluster_resources()
    on = asked or ("cuda" if resources.get("GPU") else "cpu")
    count = int(resources.get("GPU" if on == "cuda" else "CPU", 0))
    if not count:
        raise CamoError(f"--device {on}: the cluster has none")
    return on, count


def camouflage(collection: Collection, make: Callable[[torch.device], Pipeline], on: str, count: int) -> Iterator[Outcome]:
    """Do a whole collection; yields what becomes of it, part by part.

    Args:
        collection: what is to be done.
        make: gives the pipeline for a device, in each actor.
        on: "cuda" or "cpu".
        count: of these devices.

    Raises CamoError where the cluster cannot go on.
    """
    context = ray.data.DataContext.get_current()
    context.target_max_block_size = 1  # one row, which is a part, to a block
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.resource_limits = context.execution_options.resource_limits.copy(object_store_memory=IN_FLIGHT[on] * count)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=RayDeprecationWarning)  # of max_retries, for which Ray has nothing else yet
    rows = partial(ray.data.Dataset.map_batches, batch_size=1, batch_format="pyarrow", zero_copy_batch=True)
    steps: ray.data.Dataset = ray.data.from_items([0])
    # Done again, the listing would find other photos done, and Ray would take its first rows for those that it has: so it is done here, and once.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    steps = rows(steps, _step(lambda _: collection.listing()), num_cpus=0, max_retries=0, scheduling_strategy=here)
    steps = rows(steps, _step(collection.decode), num_cpus=1, max_retries=RETRIES)
    actors = ray.data.ActorPoolStrategy(min_size=1, max_size=count, initial_size=count)
    gpus = 1 if on == "cuda" else 0
    lasting: dict[str, Any] = {"max_restarts": RESTARTS, "max_task_retries": -1}
    steps = rows(steps, FilterActor, fn_constructor_args=(make, on), compute=actors, num_cpus=0, num_gpus=gpus, **lasting)
    steps = rows(steps, _step(lambda part: [collection.encode(part)]), num_cpus=1, max_retries=RETRIES)
    try:
        for table in steps.iter_batches(batch_size=None, batch_format="pyarrow"):
            yield from _parts(table)
    except ray.exceptions.RayError as error:
        raise CamoError(f"--cluster: {_one_line(error)}") from error


def _step(work: Callable[[Any], Iterable[Any]]) -> Callable[[pa.Table], Iterator[pa.Table]]:
    """A function of parts as Ray calls it."""

    def step(table: pa.Table) -> Iterator[pa.Table]:
        for part in _parts(table):
            for result in work(part):
                yield _table(result)

    return step


def _table(part: Any) -> pa.Table:
    """A part as a row. Tensors are pickled as arrays, which takes a third of the time."""
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, 5)
    pickler.dispatch_table = {torch.Tensor: lambda tensor: (torch.from_numpy, (tensor.numpy(),))}
    pickler.dump(part)
    return pa.table({COLUMN: pa.array([buffer.getbuffer()], pa.large_binary())})


def _parts(table: pa.Table) -> Iterator[Any]:
    """The parts in rows, pickled by ``_table`` in this run and never read from a file; of the first step's rows, which hold none, their numbers."""
    for row in table[COLUMN] if COLUMN in table.column_names else ():
        yield pickle.loads(row.as_buffer())
    if COLUMN not in table.column_names:
        yield from range(len(table))


def _told(faults: list[CamoError]) -> list[tuple[str, str]]:
    return [(fault.photo, str(fault)) for fault in faults if isinstance(fault, PhotoError)]


def _without_pixels(job: Job) -> Job:
    """What the command still has to know of a job."""
    photo = job.decoded()
    return replace(job, photo=Photo(torch.empty(3, 0, 0, dtype=torch.uint8), photo.format, bits=photo.bits, left_out=photo.left_out), content=None)


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _one_line(error: BaseException) -> str:
    """The last line of what Ray says, which is the cause; what stands before is its traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
