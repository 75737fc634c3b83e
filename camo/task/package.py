"""The archive of a run for MediaEval 2020 Pixel Privacy: how it is built, and how any such archive is checked.

A run is the camouflaged version of every original. Its code is the team's name, an underscore and the run's own name (``rteam_base``), of
letters, digits, ``_`` and ``-``; the archive is ``CODE.zip`` and holds, without folders, a file ``CODE_STEM.SUFFIX`` for each original
``STEM.*``. A team may hand in five runs.

An archive is the same byte for byte whenever and wherever it is built from the same images. The check trusts nothing in an archive: nothing is
unpacked to the disk, and no more is read than one file of bounded size for each original.
"""

import io
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from camo import CamoError
from camo.photos.files import as_camo_error, reason
from camo.photos.images import FORMATS, SUFFIXES, PhotoFile, find_photos, read
from camo.task.archives import MAX_MEMBER_BYTES, ZIP_ERRORS, zip_members
from camo.task.pictures import SIZE

RUN_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*_[A-Za-z0-9_-]+")
MAX_RUNS = 5  # of a team


def find_originals(folder: Path) -> dict[str, Path]:
    """Map the stem of every photo below a folder to its path. Raises CamoError where there is none, or two have one stem."""
    originals: dict[str, Path] = {}
    for photo in find_photos([folder]):
        twin = originals.setdefault(photo.path.stem, photo.path)
        if twin != photo.path:
            raise CamoError(f"{str(photo.path)!r}: same name as {str(twin)!r}, but for folder and suffix; a run cannot tell them apart")
    return originals


def refuse_sixth(archive: Path) -> None:
    """Raise CamoError where the other archives beside this one are as many as a team may hand in."""
    others = sorted(path.name for path in archive.parent.glob("*.zip") if path.name != archive.name)
    if len(others) >= MAX_RUNS:
        raise CamoError(f"{archive.parent}: {len(others)} runs are there already ({', '.join(others)}); a team may hand in {MAX_RUNS}")


def build(photos: Iterable[PhotoFile], code: str, archive: Path) -> list[str]:
    """Write an archive of photos, with ``CODE_`` before every name; return one line for each that cannot be read and is left out."""
    faults = []
    members = sorted((f"{code}_{photo.path.name.removeprefix(f'{code}_')}", photo.path) for photo in photos)
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(archive, "w") as file:  # the check reports duplicate names
        for name, path in members:
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))  # stored: photos hardly shrink, and zlib's versions pack differently
            info.create_system, info.external_attr = 3, 0o100644 << 16  # as on Unix, wherever it is built
            try:
                file.writestr(info, contents(path))
            except (CamoError, UnicodeEncodeError) as error:  # a name need not be valid Unicode
                faults.append(f"{str(path)!r}: {error}")
    return faults


def contents(path: Path) -> bytes:
    """Read a file of at most ``MAX_MEMBER_BYTES``. Raises CamoError where it is larger, no regular file, or cannot be read."""
    if not path.is_file():
        raise CamoError("not a file")  # a pipe would block for ever
    with as_camo_error("cannot be read", OSError), path.open("rb") as file:
        data = file.read(MAX_MEMBER_BYTES + 1)
    if len(data) > MAX_MEMBER_BYTES:
        raise CamoError(f"more than {MAX_MEMBER_BYTES} bytes")
    return data


def check(archive: Path, code: str, originals: Mapping[str, Path]) -> list[str]:
    """Return one line for each fault of a run's archive: names, completeness, and every image's pixels.

    Args:
        archive: the archive; it may have any name.
        code: the run code that its files should bear.
        originals: stem -> path of every original.

    Raises:
        CamoError: not a ZIP archive, or a damaged one.
    """
    names = member_names(archive)
    stems = {name: stem for name in names if (stem := stem_of(name, code)) is not None and stem in originals}
    faults = [f"{name!r}: {why_not(name, code, originals)}" for name in names if name not in stems]
    counts = Counter(stems[name] for name in names if name in stems)
    faults += [f"{str(path)!r}: {counts[stem] or 'no'} images of it in the run" for stem, path in originals.items() if counts[stem] != 1]
    unread = set(stems)
    for name, read_member in tqdm(zip_members(archive, stems), desc="check", total=len(stems), unit="image", disable=None):
        if name not in unread:
            continue  # a duplicate, reported above: an archive could make us decode one image a million times
        unread.remove(name)
        try:
            check_image(read_member(), originals[stems[name]])
        except CamoError as error:
            faults.append(f"{name!r}: {error}")
    return faults


def member_names(archive: Path) -> list[str]:
    """List the names in a ZIP archive exactly as they are stored. Raises CamoError for any other file."""
    with as_camo_error(archive, *ZIP_ERRORS), zipfile.ZipFile(archive) as file:
        return [info.orig_filename for info in file.infolist()]


def stem_of(name: str, code: str) -> str | None:
    """Return STEM of ``CODE_STEM.SUFFIX``; None where the name has another form. STEM is not checked: it may be a path."""
    stem, _, suffix = name.rpartition(".")
    if not name.startswith(f"{code}_") or f".{suffix.lower()}" not in SUFFIXES:
        return None
    return stem.removeprefix(f"{code}_")


def why_not(name: str, code: str, originals: Mapping[str, Path]) -> str:
    """Say why a name is not ``CODE_STEM.SUFFIX`` for any original."""
    stem, _, suffix = name.rpartition(".")
    parts = stem.split("_")
    if "/" in name or "\\" in name:
        return "a path, not the plain name of a file"
    if f".{suffix.lower()}" not in SUFFIXES:
        return "not the name of a photo"
    if stem in originals:
        return f"does not begin with {code}_"
    if any("_".join(parts[i:]) in originals for i in range(1, len(parts))):
        return f"bears another prefix than {code}_"
    return "no original of this name"


def check_image(data: bytes, original: Path) -> None:
    """Raise CamoError unless ``data`` is one whole RGB picture of 512x384, and its original, upright, has that size."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            if faults := picture_faults(picture, original):
                raise CamoError("; ".join(faults))  # and no decoding: a small file may declare gigapixels
            picture.verify()  # checksums and end of a PNG, which decoding leaves unread
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            picture.load()
    except CamoError:
        raise
    except UnidentifiedImageError:
        raise CamoError("not a JPEG, PNG, WebP, TIFF or BMP picture") from None
    except Exception as error:  # on damaged files Pillow's decoders raise almost anything
        raise CamoError(f"not a whole picture: {reason(error)}") from error


def picture_faults(picture: Image.Image, original: Path) -> list[str]:
    """Return what is wrong with the size, mode and number of frames that a picture's header states. Raises CamoError for an unreadable original."""
    faults = []
    height, width = read(original).pixels.shape[1:]
    if picture.size != SIZE:
        faults.append(f"{picture.width}x{picture.height} pixels instead of {SIZE[0]}x{SIZE[1]}")
    if picture.size != (width, height):
        faults.append(f"its original has {width}x{height}, not {picture.width}x{picture.height}")
    if picture.mode != "RGB":
        faults.append(f"mode {picture.mode} instead of RGB")
    if (frames := getattr(picture, "n_frames", 1)) != 1:
        faults.append(f"{frames} frames instead of one")
    return faults
