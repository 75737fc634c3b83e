"""Which file is written from which."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from camo import CamoError
from camo.photos.images import Photo, PhotoFile, find_photos, output_suffix
from camo.photos.metadata import SUFFIX_OF

if TYPE_CHECKING:  # who does not verify should not wait for what verification imports
    from camo.camouflage.verify import Verdict


@dataclass(frozen=True)
class Job:
    """One photo on its way.

    Attributes:
        source: the file to read; a text where the photo is no file of this machine: what faults call it, its bytes are in ``content``.
        destination: the file to write or, if ``kept``, only to check; a text likewise.
        kept: whether ``destination`` was there already and stays as it is.
        photo: the decoded photo: the original, or the filtered one that is to be encoded.
        content: until it is decoded, the bytes of a photo that is no file; later the very bytes to write, where verification has scored them.
        verdict: what verification found.
        look: the look that the photo was given.
    """

    source: Path | str
    destination: Path | str
    kept: bool = False
    photo: Photo | None = None
    content: bytes | None = None
    verdict: Verdict | None = None
    look: str | None = None

    def decoded(self) -> Photo:
        """The photo of a job that is past decoding."""
        assert self.photo
        return self.photo


def plan(
    paths: Iterable[Path], out: Path, run_code: str | None = None, file_format: str | None = None, overwrite: bool = False
) -> tuple[list[Job], list[CamoError]]:
    """The jobs for all photos in ``paths``, and the faults of those for which there can be none: each output has one input, and is no input.

    Args:
        paths: files, and folders with all that lies below them.
        out: where to write, under the same names and sub-folders; its content is no input.
        run_code: put it and an underscore before each file name.
        file_format: Pillow's name of the format to write, which decides the suffix; None for each photo's own.
        overwrite: replace outputs that exist already; without it their jobs are marked as ``kept``.
    """
    found, faults = _find(paths, out)
    taken = {os.path.realpath(file.path): f"the input {str(file.path)!r}" for file in found}
    jobs = []
    for file in found:
        suffix = SUFFIX_OF[file_format] if file_format else output_suffix(file.path)
        destination = out / file.relative.with_name(output_name(file.path, suffix, run_code))
        place = os.path.realpath(destination)
        if place in taken:
            faults.append(CamoError(f"{str(file.path)!r}: its output would overwrite {taken[place]}"))
        else:
            jobs.append(Job(file.path, destination, kept=not overwrite and os.path.lexists(destination)))
        taken.setdefault(place, f"the output of {str(file.path)!r}")
    return jobs, faults


def _find(paths: Iterable[Path], out: Path) -> tuple[list[PhotoFile], list[CamoError]]:
    """Every photo once, in order, and a fault for each path that gives none."""
    found: dict[PhotoFile, None] = {}  # an ordered set
    faults = []
    for path in paths:
        try:
            if os.path.realpath(path) == os.path.realpath(out):
                raise CamoError(f"{str(path)!r}: is the output folder itself; choose another --out")
            found.update(dict.fromkeys(find_photos([path], exclude=out)))
        except CamoError as error:
            faults.append(error)
    return list(found), faults


def output_name(source: PurePath, suffix: str, run_code: str | None = None) -> str:
    """The name of the file that is written from a photo, without its folder."""
    return f"{run_code}_{source.stem}{suffix}" if run_code else source.stem + suffix
