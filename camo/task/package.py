"""The verb ``package``: build the archive of a run for MediaEval 2020 Pixel Privacy, or check one that exists.

A run is the camouflaged version of every original. Its code is the team's name, an underscore and the run's own name (``rteam_base``), of
letters, digits, ``_`` and ``-``; the archive is ``CODE.zip`` and holds, without folders, a file ``CODE_STEM.SUFFIX`` for each original
``STEM.*``. A team may hand in five runs.

An archive is built beside its place, passes the same check as any other, and only then gets its name. It is the same byte for byte
whenever and wherever it is built from the same images. The check trusts nothing in an archive: nothing is unpacked to the disk, and no more
is read than one file of bounded size for each original.
"""

import argparse
import io
import re
import sys
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from camo import CamoError
from camo.photos.files import atomic_write, reason
from camo.photos.images import FORMATS, SUFFIXES, PhotoFile, find_photos, read
from camo.task.task import MAX_MEMBER_BYTES, SIZE, ZIP_ERRORS, zip_members

RUN_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*_[A-Za-z0-9_-]+")
MAX_RUNS = 5  # of a team


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's flags."""
    parser.add_argument("filtered", nargs="?", type=Path, metavar="FILTERED", help="folder of the filtered images, with or without CODE_ before them")
    parser.add_argument("--run-code", metavar="CODE", help="team, underscore, run, such as rteam_base; letters, digits, '_' and '-'")
    parser.add_argument("--originals", type=Path, required=True, metavar="DIR", help="folder of the images that were filtered")
    parser.add_argument("--out", type=Path, metavar="DIR", help=f"where CODE.zip goes, beside the team's other runs, {MAX_RUNS} at most")
    parser.add_argument("--overwrite", action="store_true", help="replace CODE.zip if it exists")
    parser.add_argument("--check", type=Path, metavar="ZIP", help="check this archive, named CODE.zip, and write nothing")


def run(args: argparse.Namespace) -> int:
    """Build or check an archive; return 0, having printed the number of its images.

    Raises:
        CamoError: the options do not fit together, or the run fails its check; every fault is then told in a line of its own before.
    """
    building = (args.filtered, args.run_code, args.out)
    if args.check and (any(building) or args.overwrite):
        raise CamoError("--check goes with --originals alone; the run code is the archive's name")
    if not args.check and not all(building):
        raise CamoError("give FILTERED, --run-code and --out to build an archive, or --check ZIP")
    code = args.check.stem if args.check else args.run_code
    if not RUN_CODE.fullmatch(code):
        raise CamoError(f"run code {code!r}: team, underscore, run expected, of letters, digits, '_' and '-'")
    originals = find_originals(args.originals)
    if args.check:
        archive = args.check
        tell(check(archive, code, originals), str(archive))
    else:
        archive = args.out / f"{code}.zip"
        refuse_sixth(archive)
        with atomic_write(archive, args.overwrite) as part:
            unreadable = build(find_photos([args.filtered]), code, part)
            tell(unreadable + check(part, code, originals), f"{archive}, not written")
    print(f"{archive}: {len(originals)} images, no fault")
    return 0


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
    """Write an archive of photos, ``CODE_`` put before the names that lack it; return a line for each that cannot be read and is left out."""
    faults = []
    members = sorted((f"{code}_{photo.path.name.removeprefix(f'{code}_')}", photo.path) for photo in photos)
    with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(archive, "w") as file:  # duplicate names are the check's to tell
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
    try:
        with path.open("rb") as file:
            data = file.read(MAX_MEMBER_BYTES + 1)
    except OSError as error:
        raise CamoError(f"cannot be read: {reason(error)}") from error
    if len(data) > MAX_MEMBER_BYTES:
        raise CamoError(f"more than {MAX_MEMBER_BYTES} bytes")
    return data


def check(archive: Path, code: str, originals: Mapping[str, Path]) -> list[str]:
    """Return a line for each fault of a run's archive: names, completeness, and every image's pixels.

    Args:
        archive: the archive; it may have any name.
        code: the run code that its files should bear.
        originals: stem -> path of every original.

    Raises:
        CamoError: not a ZIP archive, or a damaged one.
    """
    names = member_names(archive)
    stems = {name: stem for name in names if (stem := stem_of(name, code)) in originals}
    faults = [f"{name!r}: {why_not(name, code, originals)}" for name in names if name not in stems]
    counts = Counter(stems[name] for name in names if name in stems)
    faults += [f"{str(path)!r}: {counts[stem] or 'no'} images of it in the run" for stem, path in originals.items() if counts[stem] != 1]
    unread = set(stems)
    for name, read_member in tqdm(zip_members(archive, stems), desc="check", total=len(stems), unit="image", disable=None):
        if name not in unread:
            continue  # a duplicate, told of above: an archive could make us decode one image a million times
        unread.remove(name)
        try:
            check_image(read_member(), originals[stems[name]])
        except CamoError as error:
            faults.append(f"{name!r}: {error}")
    return faults


def member_names(archive: Path) -> list[str]:
    """List the names in an archive as they are stored, unpurged: folders, absolute paths, null bytes. Raises CamoError where it is none."""
    try:
        with zipfile.ZipFile(archive) as file:
            return [info.orig_filename for info in file.infolist()]
    except ZIP_ERRORS as error:
        raise CamoError(f"{archive}: {reason(error)}") from error


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


def tell(faults: Sequence[str], subject: str) -> None:
    """Print a line for each fault; raise CamoError with their number if there is one."""
    sys.stderr.writelines(f"error: {fault}\n" for fault in faults)
    if faults:
        raise CamoError(f"{subject}: faults: {len(faults)}")
