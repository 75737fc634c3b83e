"""Members of ZIP and tar archives that nobody vouches for: read in place, one by one, a bounded number of bytes each; never unpacked to the disk."""

import tarfile
import zipfile
import zlib
from collections.abc import Callable, Container, Iterator
from functools import partial
from pathlib import Path

from camo import CamoError
from camo.photos.files import as_camo_error

MAX_MEMBER_BYTES = 32 << 20  # room for a photo of tens of megapixels; those of the official archives have a few at most

# What the readers raise on damaged or hostile archives, found by flipping bytes in small ones.
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError)
TAR_ERRORS = (tarfile.TarError, OSError, ValueError, IndexError, RuntimeError, MemoryError, OverflowError)

Member = tuple[str, Callable[[], bytes]]  # a name in the archive, and how to read its bytes


def zip_members(path: Path, wanted: Container[str]) -> Iterator[Member]:
    """Yield the members of a ZIP archive that are wanted, in its order; nothing is read of the others.

    Raises:
        CamoError: not a ZIP archive, or a damaged one; also from reading a member that is damaged, or larger than ``MAX_MEMBER_BYTES``.
    """
    with as_camo_error(path, *ZIP_ERRORS), zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if (name := info.filename.removeprefix("./")) in wanted:
                yield name, partial(_read_zip_member, archive, info)


def _read_zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    _check_size(info.file_size)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # the rarer methods allocate what the file asks for
        raise CamoError(f"compressed with method {info.compress_type}, neither stored nor deflated")
    with as_camo_error("cannot be read", *ZIP_ERRORS), archive.open(info) as file:
        return file.read(MAX_MEMBER_BYTES + 1)  # a bound of our own: read() inflates without one where the declared size is a lie


def tar_members(path: Path, wanted: Container[str]) -> Iterator[Member]:
    """Yield the members of an uncompressed tar archive that are wanted, in one pass from its start; of the others only headers are read.

    Raises:
        CamoError: not a tar archive, or a damaged one; also from reading a member that is a link, a device or a folder, is damaged, or is
            larger than ``MAX_MEMBER_BYTES``.
    """
    with as_camo_error(path, *TAR_ERRORS), path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
        end = 0
        for info in archive:
            if info.offset < end:  # a negative size leads tarfile back to a header it has seen, and round for ever
                raise CamoError(f"{path}: damaged: its member headers run in circles")
            end = info.offset_data
            if (name := info.name.removeprefix("./")) in wanted:
                yield name, partial(_read_tar_member, archive, info)


def _read_tar_member(archive: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    if not info.isreg():  # extractfile would follow a link through the whole archive
        raise CamoError("a link, a device or a folder in the archive, not a file")
    _check_size(info.size)
    with as_camo_error("cannot be read", *TAR_ERRORS):
        file = archive.extractfile(info)
        assert file is not None  # it is None only for what is no regular file
        return file.read()


def _check_size(size: int) -> None:
    if not 0 <= size <= MAX_MEMBER_BYTES:
        raise CamoError(f"declared as {size} bytes; photos have at most {MAX_MEMBER_BYTES}")
