"""From jobs to written files: decode, filter or verify, encode, write."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from camo import CamoError
from camo.camouflage import overlap
from camo.camouflage.batches import by_size, default_batch_size
from camo.camouflage.files import Files
from camo.camouflage.overlap import apart, in_order
from camo.camouflage.plan import Job
from camo.device import device_of
from camo.filter.full_size import FullSize
from camo.photos.images import Photo, read

if TYPE_CHECKING:  # who does not verify should not wait for what verification imports
    from camo.camouflage.verify import Verifier


@dataclass(frozen=True)
class Pipeline:
    """``pipeline(jobs, faults)`` does the jobs, decoding and encoding beside the filter, and yields those that are done.

    A job that fails adds a CamoError to ``faults`` and is left out. A file that another run wrote meanwhile is left as it is, and its job comes out
    as ``kept``. When the generator is closed early, what is being written is finished and what is only planned is dropped.

    Attributes:
        photo_filter: the filter, in eval mode.
        files: how photos are read and written.
        strength: scale of the change; 0 none, 1 as trained.
        batch_size: photos of one size that are filtered together; None for what suits the device.
        verifier: verify each photo; they are then filtered one by one.
        look: gives a photo a look, and its name; the result takes the original's place. None to camouflage photos as they are.
    """

    photo_filter: FullSize
    files: Files = field(default_factory=Files)
    strength: float = 1.0
    batch_size: int | None = None
    verifier: Verifier | None = None
    look: Callable[[Photo], tuple[str, Photo]] | None = None

    def __call__(self, jobs: list[Job], faults: list[CamoError]) -> Generator[Job]:
        """Do the jobs."""
        pool = ThreadPoolExecutor(overlap.WORKERS)
        try:
            changed = self.change(in_order(pool, self.files.load, iter(jobs), faults), faults)
            for job in in_order(pool, self.files.save, changed, faults):
                if self.verifier and not job.verdict:  # another run's file
                    yield from apart(self._verified, iter([[job]]), faults)
                else:
                    yield job
        finally:
            pool.shutdown(cancel_futures=True)

    def change(self, jobs: Iterator[Job], faults: list[CamoError]) -> Iterator[Job]:
        """Filter, or verify, decoded photos in batches of one size."""
        return apart(self._verified if self.verifier else self._filtered, by_size(jobs, self._batch_size), faults)

    def _batch_size(self, height: int, width: int) -> int:
        if self.verifier:
            return 1
        return self.batch_size or default_batch_size(device_of(self.photo_filter), height, width)

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
            assert isinstance(job.destination, Path)
            written = read(job.destination, self.files.max_pixels)
            return [replace(job, look=looked.look, verdict=self.verifier.check(looked.decoded(), written))]
        content, verdict = self.verifier(looked.decoded(), self.strength)
        return [replace(job, look=looked.look, content=content, verdict=verdict)]
