"""From jobs to written files: decode, filter or verify, encode, write."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch

from camo import CamoError
from camo.camouflage import overlap
from camo.camouflage.batches import by_size, default_batch_size
from camo.camouflage.overlap import apart, in_order
from camo.camouflage.plan import Job
from camo.device import device_of
from camo.filter.full_size import FullSize
from camo.photos.images import MAX_PIXELS, Photo, read, write
from camo.photos.metadata import as_format, without_location, without_metadata

if TYPE_CHECKING:  # who does not verify should not wait for what verification imports
    from camo.camouflage.verify import Verifier

MIN_SIDE = 16  # px, the filter's smallest input


@dataclass(frozen=True)
class Pipeline:
    """``pipeline(jobs, faults)`` does the jobs, decoding and encoding beside the filter, and yields those that are done.

    A job that fails adds a CamoError to ``faults`` and is left out. A file that another run wrote meanwhile is left as it is, and its job comes out
    as ``kept``. When the generator is closed early, what is being written is finished and what is only planned is dropped.

    Attributes:
        photo_filter: the filter, in eval mode.
        strength: scale of the change; 0 none, 1 as trained.
        batch_size: photos of one size that are filtered together; None for what suits the device.
        file_format: Pillow's name of the format to write; None for each photo's own.
        strip: leave out the location ("gps") or everything but the colour profile ("metadata").
        overwrite: replace files that exist already.
        verifier: verify each photo; they are then filtered one by one.
        strict: a photo of which something would have to be left out is a fault, and not written.
        max_pixels: the most pixels that a photo may have.
        look: gives a photo a look, and its name; the result takes the original's place. None to camouflage photos as they are.
    """

    photo_filter: FullSize
    strength: float = 1.0
    batch_size: int | None = None
    file_format: str | None = None
    strip: Literal["gps", "metadata"] | None = None
    overwrite: bool = False
    verifier: Verifier | None = None
    strict: bool = False
    max_pixels: int = MAX_PIXELS
    look: Callable[[Photo], tuple[str, Photo]] | None = None

    def __call__(self, jobs: list[Job], faults: list[CamoError]) -> Generator[Job]:
        """Do the jobs."""
        pool = ThreadPoolExecutor(overlap.WORKERS)
        try:
            groups = by_size(in_order(pool, self._load, iter(jobs), faults), self._batch_size)
            changed = apart(self._verified if self.verifier else self._filtered, groups, faults)
            for job in in_order(pool, self._save, changed, faults):
                if self.verifier and not job.verdict:  # another run's file
                    yield from apart(self._verified, iter([[job]]), faults)
                else:
                    yield job
        finally:
            pool.shutdown(cancel_futures=True)

    def _batch_size(self, height: int, width: int) -> int:
        if self.verifier:
            return 1
        return self.batch_size or default_batch_size(device_of(self.photo_filter), height, width)

    def _load(self, job: Job) -> Job:
        """Decode a photo, and fit it to the format and the metadata that are to be written."""
        photo = read(job.source, self.max_pixels)
        if self.strip:
            photo = without_metadata(photo) if self.strip == "metadata" else without_location(photo)
        try:
            photo = as_format(photo, self.file_format or photo.format)
        except CamoError as error:
            raise CamoError(f"{str(job.source)!r}: {error}") from error
        if self.strict and photo.left_out:
            raise CamoError(f"{str(job.source)!r}: not written, because this would be left out: {'; '.join(photo.left_out)}")
        height, width = photo.pixels.shape[-2:]
        if min(height, width) < MIN_SIDE:
            raise CamoError(f"{str(job.source)!r}: {width}x{height} px; the filter needs {MIN_SIDE} px or more on each side")
        return replace(job, photo=photo)

    def _looked(self, job: Job) -> Job:
        if not self.look:
            return job
        name, photo = self.look(job.decoded())
        return replace(job, look=name, photo=photo)

    def _filtered(self, group: list[Job]) -> list[Job]:
        group = [self._looked(job) for job in group]
        photos = [job.decoded() for job in group]
        pixels = torch.stack([photo.pixels for photo in photos]) if len(photos) > 1 else photos[0].pixels[None]  # no copy of a large one
        results = self.photo_filter(pixels, self.strength)
        return [replace(job, photo=replace(photo, pixels=result)) for job, photo, result in zip(group, photos, results, strict=True)]

    def _verified(self, group: list[Job]) -> list[Job]:
        (job,) = group
        assert self.verifier
        looked = self._looked(job)  # the job keeps its photo, for the case that another run has written the file meanwhile
        if job.kept:
            return [replace(job, look=looked.look, verdict=self.verifier.check(looked.decoded(), read(job.destination, self.max_pixels)))]
        content, verdict = self.verifier(looked.decoded(), self.strength)
        return [replace(job, look=looked.look, content=content, verdict=verdict)]

    def _save(self, job: Job) -> Job:
        if job.kept:
            return job
        try:
            write(job.decoded(), job.destination, self.overwrite, job.content)
        except CamoError:
            if self.overwrite or not os.path.lexists(job.destination):
                raise
            return replace(job, kept=True, content=None, verdict=None)  # it was not there when the jobs were planned
        return job
