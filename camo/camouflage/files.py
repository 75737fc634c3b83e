"""How photos are read and written: one decoded photo from a file or its bytes, fitted to what is to be written, and back."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from camo import CamoError
from camo.camouflage.plan import Job
from camo.photos.images import MAX_PIXELS, read, read_content, write
from camo.photos.metadata import as_format, without_location, without_metadata

MIN_SIDE = 16  # px, the filter's smallest input


@dataclass(frozen=True)
class Files:
    """The first and the last step of each job: ``load`` and ``save``.

    Attributes:
        file_format: Pillow's name of the format to write; None for each photo's own.
        strip: leave out the location ("gps") or everything but the colour profile ("metadata").
        overwrite: replace files that exist already.
        strict: a photo of which something would have to be left out is a fault, and not written.
        max_pixels: the most pixels that a photo may have.
        parts: a folder for files that are not finished; None to have them beside their places.
    """

    file_format: str | None = None
    strip: Literal["gps", "metadata"] | None = None
    overwrite: bool = False
    strict: bool = False
    max_pixels: int = MAX_PIXELS
    parts: Path | None = None

    def load(self, job: Job) -> Job:
        """Decode a photo, and fit it to the format and the metadata that are to be written."""
        if isinstance(job.source, Path):
            photo = read(job.source, self.max_pixels)
        else:
            assert job.content is not None
            photo = read_content(job.content, job.source, self.max_pixels)
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
        return replace(job, photo=photo, content=None)

    def save(self, job: Job) -> Job:
        """Encode a photo and write its file. One that another run has written meanwhile is left as it is, and its job comes back as ``kept``."""
        assert isinstance(job.destination, Path)
        if job.kept:
            return job
        try:
            write(job.decoded(), job.destination, self.overwrite, job.content, self.parts)
        except CamoError:
            if self.overwrite or not os.path.lexists(job.destination):
                raise
            return replace(job, kept=True, content=None, verdict=None)  # it was not there when the jobs were planned
        return job
