"""Which files of a folder are photos."""

import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from camo import CamoError
from camo.photos.files import reason

SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".jfi", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif", ".heic", ".heif", ".hif"})
SIDE_FOLDERS = {"@eaDir", "__MACOSX"}  # of thumbnails and the like, beside a network drive's and a Mac's own files
SIDE_FILES = "._"  # begins the names of a Mac's side files, which hold no photo whatever their suffix


@dataclass(frozen=True)
class PhotoFile:
    """Where a photo lies, and where it lay below the folder that was given (its bare name if it was given itself)."""

    path: Path
    relative: Path


def find_photos(paths: Iterable[Path], exclude: Path | None = None) -> list[PhotoFile]:
    """List the files given, whatever their suffix, and below the folders given every file with a photo's suffix, in path order.

    Hidden folders, side files of a Mac and folders of a network drive's thumbnails are passed over, unless they are given themselves. Links are
    followed: a folder to which several paths lead is searched once, if possible by one that is no link.

    Args:
        paths: files and folders.
        exclude: a folder whose content is left out, if it lies below one of the folders given.

    Raises:
        CamoError: a path that does not exist, a folder that cannot be read, or one without a photo.
    """
    photos: list[PhotoFile] = []
    for path in paths:
        try:
            if path.is_dir():
                found = sorted(walk(path, exclude))
                if not found:
                    raise CamoError(f"{str(path)!r}: no photo in this folder ({', '.join(sorted(SUFFIXES))})")
                photos.extend(PhotoFile(file, file.relative_to(path)) for file in found)
            elif os.path.lexists(path):
                photos.append(PhotoFile(path, Path(path.name)))
            else:
                raise CamoError(f"{str(path)!r}: no such file or folder")
        except OSError as error:
            raise CamoError(f"{str(error.filename or path)!r}: cannot be read: {reason(error)}") from error
    return photos


def output_suffix(path: Path) -> str:
    """The suffix of the file that is written in a photo's own format: the photo's, but ``.png`` if its content or its name is that of a GIF."""
    if path.suffix.lower() == ".gif":
        return ".png"
    try:
        if not path.is_file():  # a pipe would block for ever
            return path.suffix
        with path.open("rb") as file:
            gif = is_gif(file.read(6))
    except OSError:  # reading it will report that
        return path.suffix
    return ".png" if gif else path.suffix


def is_gif(head: bytes) -> bool:
    """Whether a file that begins so is a GIF."""
    return head[:6] in {b"GIF87a", b"GIF89a"}


def walk(top: Path, exclude: Path | None = None, suffixes: Collection[str] = SUFFIXES) -> Iterator[Path]:
    """Yield every file below a folder that has one of the suffixes, folder by folder; dangling links too: they are reported when they are read.

    Links to folders wait until all that lies below without a link has been seen, so that a link to it adds nothing. What ``find_photos`` passes over
    and its ``exclude`` hold here too. Raises OSError for a folder that cannot be read.
    """

    def fail(error: OSError) -> None:
        raise error

    above = os.path.realpath(top)  # Path.resolve would raise on a loop of links
    seen = {os.path.realpath(exclude)} - {above} if exclude else set()
    waiting = [top]
    while waiting:
        links = []
        for start in waiting:
            for root, folders, files in os.walk(start, onerror=fail):
                here, place = Path(root), os.path.realpath(root)
                if place in seen or (here != top and _leads_back(place, above)):
                    folders.clear()
                    continue
                seen.add(place)
                links += [here / name for name in sorted(folders) if (here / name).is_symlink() and is_wanted(name)]
                folders[:] = [name for name in folders if is_wanted(name) and not (here / name).is_symlink()]
                yield from (here / name for name in files if has_suffix(name, suffixes))
        waiting = links


def has_suffix(name: str, suffixes: Collection[str] = SUFFIXES) -> bool:
    """Whether a file of this name is looked for: it has one of the suffixes and is no side file of a Mac."""
    return Path(name).suffix.lower() in suffixes and not name.startswith(SIDE_FILES)


def is_wanted(folder: str) -> bool:
    """Whether a folder of this name is searched."""
    return not folder.startswith(".") and folder not in SIDE_FOLDERS


def _leads_back(place: str, top: str) -> bool:
    """Whether a folder is one that the searched one lies in."""
    return os.path.commonpath((place, top)) == place
