"""The image sets of MediaEval 2020 Pixel Privacy, "Quality Camouflage for Social Images": ``python -m camo prepare``.

Built from the two official archives, which are read in place and never unpacked:

- ``OUT/dev/NAME.jpg``: the development set, KonIQ-10k photos of 512x384, each byte as in the archive;
- ``OUT/test/STEM.png``: the test set, the centre 512x384 of Places365 photos, RGB, cut as the task's own script cuts them;
- ``OUT/test_manual.txt``: stems of the test images meant for changes by hand, one a line.

Archives and lists are not trusted. Where a file goes follows from the lists alone, whose names must be plain (``PHOTO_NAME``); an archive
only ever supplies bytes, a bounded number of them, and they count only once they have decoded as the expected image.
"""

import argparse
import csv
import http.client
import io
import re
import reprlib
import shutil
import sys
import tarfile
import urllib.error
import urllib.request
import warnings
import zipfile
import zlib
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TextIO

from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from camo import CamoError
from camo.photos.files import atomic_write, reason

KONIQ_URL = "http://datasets.vqa.mmsp-kn.de/archives/koniq10k_512x384.zip"
PLACES_URL = "http://data.csail.mit.edu/places/places365/val_large.tar"
DEV_IMAGES, TEST_IMAGES, MANUAL_IMAGES = 1000, 550, 60  # what the official lists hold
LISTS_SOURCE = (
    "the MEPP20*.csv lists are in MEPP20labels/ on the task's page, github.com/multimediaeval/2020-Pixel-Privacy-Task; "
    "koniq10k_distributions_sets.csv is in metadata/ on the KonIQ-10k page, github.com/subpic/koniq"
)

SIZE = (512, 384)  # (width, height) in pixels of every image of both sets
PHOTO_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\.jpg")
MAX_MEMBER_BYTES = 32 << 20  # room for a photo of tens of megapixels; those of the archives have a few at most
TIMEOUT_S = 60  # without a byte from the server

# What the readers raise on damaged or hostile archives, found by flipping bytes in small ones.
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError)
TAR_ERRORS = (tarfile.TarError, OSError, ValueError, IndexError, RuntimeError, MemoryError, OverflowError)

Member = tuple[str, Callable[[], bytes]]  # a name in the archive, and how to read its bytes


@dataclass(frozen=True)
class ImageSet:
    """One of the task's sets: the files to write, and how each comes out of the archive."""

    targets: dict[str, Path]  # name in the archive -> file to write
    archive: Path
    url: str  # the archive's official address
    members: Callable[[Path, Container[str]], Iterator[Member]]  # (archive, wanted names) -> those of them that it holds
    convert: Callable[[bytes], bytes]  # the archive's photo -> the file's bytes; CamoError where the photo cannot be used


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``python -m camo prepare``."""
    parser.epilog = f"Either set can be built alone. --download fetches the two archives; {LISTS_SOURCE}."
    parser.add_argument("--koniq", type=Path, metavar="ZIP", help="koniq10k_512x384.zip (default: OUT/archives/ and that name)")
    parser.add_argument("--koniq-metadata", type=Path, metavar="CSV", help="koniq10k_distributions_sets.csv or MEPP20dev.csv")
    parser.add_argument("--places", type=Path, metavar="TAR", help="val_large.tar (default: OUT/archives/ and that name)")
    parser.add_argument("--labels", type=Path, metavar="DIR", help="folder with MEPP20test.csv and MEPP20test_manual.csv")
    parser.add_argument("--out", type=Path, metavar="DIR", default=Path("data/task"), help="where the sets go (default: %(default)s)")
    parser.add_argument("--download", action="store_true", help="fetch archives that are not there yet, resuming broken downloads")


def run(args: argparse.Namespace) -> int:
    """Build the sets whose lists are given; return 0 when they are complete, 1 when an image is missing (each is named on stderr).

    Raises:
        CamoError: the options name no list, or an archive without its list.
    """
    if args.koniq and not args.koniq_metadata:
        raise CamoError(f"--koniq needs --koniq-metadata; {LISTS_SOURCE}")
    if args.places and not args.labels:
        raise CamoError(f"--places needs --labels; {LISTS_SOURCE}")
    jobs = []
    if args.koniq_metadata:
        jobs.append(partial(prepare_koniq, args.koniq_metadata, args.koniq, args.out, args.download))
    if args.labels:
        jobs.append(partial(prepare_places, args.labels, args.places, args.out, args.download))
    if not jobs:
        raise CamoError(f"nothing to prepare without --koniq-metadata or --labels; {LISTS_SOURCE}")
    faults: list[str] = []
    for job in jobs:
        try:
            faults += job()
        except CamoError as error:  # the other set goes on
            faults.append(str(error))
    for fault in faults:
        print(f"error: {fault}", file=sys.stderr)
    return 1 if faults else 0


def prepare_koniq(metadata: Path, archive: Path | None, out: Path, download: bool = False) -> list[str]:
    """Build the development set in ``out/dev``: the photos of ``metadata`` whose column ``set`` says validation; return ``build``'s faults.

    Raises:
        CamoError: ``metadata`` cannot be read, lacks a column, or holds a name that is not plain.
    """
    with _opened_list(metadata) as file:
        table = csv.DictReader(file)  # columns by name: MEPP20dev.csv has an unnamed index column in front
        if not {"image_name", "set"} <= set(table.fieldnames or ()):
            raise CamoError(f"{metadata}: columns image_name and set expected, found {reprlib.repr(table.fieldnames)}")
        names = _checked_names(metadata, (str(row["image_name"]) for row in table if row["set"] == "validation"), DEV_IMAGES)
    images = ImageSet(
        targets={f"512x384/{name}": out / "dev" / name for name in names},
        archive=archive or out / "archives" / "koniq10k_512x384.zip",
        url=KONIQ_URL,
        members=zip_members,
        convert=checked_jpeg,
    )
    return build(images, download)


def prepare_places(labels: Path, archive: Path | None, out: Path, download: bool = False) -> list[str]:
    """Build the test set of ``labels/MEPP20test.csv`` in ``out/test``, and ``out/test_manual.txt``; return ``build``'s faults.

    Raises:
        CamoError: a list cannot be read or holds a name that is not plain, or the manual list is not a part of the test list.
    """
    names = _read_list(labels / "MEPP20test.csv", TEST_IMAGES)
    manual = _read_list(labels / "MEPP20test_manual.csv", MANUAL_IMAGES)
    if strangers := sorted(set(manual) - set(names)):
        raise CamoError(f"{labels / 'MEPP20test_manual.csv'}: {strangers[0]!r} is not in MEPP20test.csv")
    _write(out / "test_manual.txt", "".join(f"{Path(name).stem}\n" for name in manual).encode())
    images = ImageSet(
        targets={f"val_large/{name}": out / "test" / f"{Path(name).stem}.png" for name in names},
        archive=archive or out / "archives" / "val_large.tar",
        url=PLACES_URL,
        members=tar_members,
        convert=cropped_png,
    )
    return build(images, download)


def build(images: ImageSet, download: bool = False) -> list[str]:
    """Write the images of a set that are not there whole yet, and print how many are there then.

    Returns one line for each fault: every image that is missing in the end, with the reason, and what stopped the archive's reading.
    """
    missing: dict[str, str] = {}
    stopped = []
    with tqdm(total=len(images.targets), desc=images.archive.name, unit="image", disable=None) as bar:
        for name, target in images.targets.items():
            if _is_whole(target):
                bar.update()
            else:
                missing[name] = f"not found in {images.archive}"
        try:
            if missing:
                _find(images, download)
                _extract(images, missing, bar)
        except CamoError as error:
            stopped.append(str(error))
    folder = next(iter(images.targets.values())).parent
    print(f"{folder}: {len(images.targets) - len(missing)} of {len(images.targets)} images")
    return [f"{images.targets[name]} is missing: {reason}" for name, reason in missing.items()] + stopped


def _find(images: ImageSet, download: bool) -> None:
    """Make sure that the archive is there."""
    if images.archive.exists():
        return
    if not download:
        raise CamoError(f"{images.archive}: no such file (--download fetches it from {images.url})")
    fetch(images.url, images.archive)


def _extract(images: ImageSet, missing: dict[str, str], bar: tqdm) -> None:
    """Write the missing images from the archive, taking each that succeeds out of ``missing`` and noting the reason of each that fails."""
    left = set(missing)
    for name, read in images.members(images.archive, frozenset(missing)):
        if name not in left:
            tqdm.write(f"warning: {images.archive}: {name} occurs more than once; the first one counts", file=sys.stderr)
            continue
        left.remove(name)
        try:
            _write(images.targets[name], images.convert(read()))
            del missing[name]
            bar.update()
        except CamoError as error:
            missing[name] = str(error)
        if not left:
            return


def zip_members(path: Path, wanted: Container[str]) -> Iterator[Member]:
    """Yield the members of a ZIP archive that are wanted, in its order; nothing is read of the others.

    Raises:
        CamoError: not a ZIP archive, or a damaged one; also from reading a member that is damaged, or larger than ``MAX_MEMBER_BYTES``.
    """
    with _told_as_camo_error(path, *ZIP_ERRORS), zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if (name := info.filename.removeprefix("./")) in wanted:
                yield name, partial(_read_zip_member, archive, info)


def _read_zip_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    _check_size(info.file_size)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # the rarer methods allocate what the file asks for
        raise CamoError(f"compressed with method {info.compress_type}, neither stored nor deflated")
    with _told_as_camo_error("cannot be read", *ZIP_ERRORS), archive.open(info) as file:
        return file.read(MAX_MEMBER_BYTES + 1)  # a bound of our own: read() inflates without one where the declared size is a lie


def tar_members(path: Path, wanted: Container[str]) -> Iterator[Member]:
    """Yield the members of an uncompressed tar archive that are wanted, in one pass from its start; of the others only headers are read.

    Raises:
        CamoError: not a tar archive, or a damaged one; also from reading a member that is a link, a device or a folder, is damaged, or is
            larger than ``MAX_MEMBER_BYTES``.
    """
    with _told_as_camo_error(path, *TAR_ERRORS), path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
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
    with _told_as_camo_error("cannot be read", *TAR_ERRORS):
        return archive.extractfile(info).read()


def _check_size(size: int) -> None:
    if not 0 <= size <= MAX_MEMBER_BYTES:
        raise CamoError(f"declared as {size} bytes; photos have at most {MAX_MEMBER_BYTES}")


def checked_jpeg(data: bytes) -> bytes:
    """Return ``data`` itself, a JPEG of 512x384 that decodes; CamoError otherwise."""
    _check_image(io.BytesIO(data), "JPEG")
    return data


def cropped_png(data: bytes) -> bytes:
    """Return the centre 512x384 of a JPEG as an RGB PNG, pixels as stored (no rotation by EXIF), odd margins rounded half to even.

    Raises:
        CamoError: ``data`` does not decode as JPEG, or the photo is smaller than the crop (the task's script would pad it with black).
    """
    with _opened(io.BytesIO(data), "JPEG") as image:
        if image.width < SIZE[0] or image.height < SIZE[1]:
            raise CamoError(f"{image.width}x{image.height} pixels, smaller than the crop of {SIZE[0]}x{SIZE[1]}")
        left, top = round((image.width - SIZE[0]) / 2), round((image.height - SIZE[1]) / 2)
        crop = image.convert("RGB").crop((left, top, left + SIZE[0], top + SIZE[1]))
    png = io.BytesIO()
    crop.save(png, "PNG")
    return png.getvalue()


def _check_image(source: Path | io.BytesIO, kind: str) -> None:
    with _opened(source, kind) as image:
        if image.size != SIZE:
            raise CamoError(f"{image.width}x{image.height} pixels instead of {SIZE[0]}x{SIZE[1]}")
        image.load()


def _is_whole(path: Path) -> bool:
    try:
        _check_image(path, {".jpg": "JPEG", ".png": "PNG"}[path.suffix])
    except CamoError:
        return False
    return True


@contextmanager
def _opened(source: Path | io.BytesIO, kind: str) -> Iterator[Image.Image]:
    """Open an image without decoding it yet; whatever Pillow finds wrong, now or in the with-block, is a CamoError."""
    errors = (OSError, EOFError, ValueError, SyntaxError, MemoryError, Image.DecompressionBombError, Image.DecompressionBombWarning)
    with warnings.catch_warnings(action="ignore"):  # Pillow's remarks on odd EXIF say nothing about the pixels
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(source, formats=[kind]) as image:
                yield image
        except UnidentifiedImageError:  # Pillow's text would name a Python object
            raise CamoError(f"not a {kind} image") from None
        except errors as error:
            raise CamoError(f"not a whole {kind} image: {reason(error)}") from None


def fetch(url: str, path: Path) -> None:
    """Download ``url`` to ``path`` by way of ``path.part``, going on where an earlier, broken download left one.

    Raises:
        CamoError: no connection, a refusal, no announced size to check against, a transfer that ended early (``path.part`` stays, for the
            next call), or a full disk.
    """
    part = path.with_name(f"{path.name}.part")
    errors = (OSError, http.client.HTTPException, ValueError)  # urllib's own errors are OSErrors
    with _told_as_camo_error(f"{url}: not fetched to {part}", *errors):
        path.parent.mkdir(parents=True, exist_ok=True)
        # The last byte is asked for again, so that a part that is already whole draws an answer and not "416 range not satisfiable".
        start = max(part.stat().st_size - 1, 0) if part.exists() else 0
        request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
        with _answer(request, part) as response:
            start, total = _range_sent(response, start)
            with part.open("ab") as file:
                file.truncate(start)
                file.seek(start)
                with tqdm.wrapattr(file, "write", total=total, initial=start, desc=path.name, disable=None) as sink:
                    shutil.copyfileobj(response, sink, 1 << 20)
        if (size := part.stat().st_size) != total:
            raise CamoError(f"{url}: the connection ended after {size} of {total} bytes; run again to go on from there")
        part.replace(path)


def _answer(request: urllib.request.Request, part: Path) -> http.client.HTTPResponse:
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise CamoError(f"{part}: longer than {request.full_url}; delete it to begin again") from None
        raise


def _range_sent(response: http.client.HTTPResponse, start: int) -> tuple[int, int]:
    """Return the byte that the answer begins with and the size of the whole file."""
    if response.status == http.HTTPStatus.PARTIAL_CONTENT:
        sent = response.headers.get("Content-Range", "")
        if not (match := re.fullmatch(rf"bytes {start}-\d+/(\d+)", sent)):
            raise CamoError(f"{response.url}: asked for the bytes from {start} on, the server sent {reprlib.repr(sent)}")
        return start, int(match[1])
    if response.length is None:
        raise CamoError(f"{response.url}: the server does not announce a size to check the download against")
    return 0, response.length  # the server ignores ranges: from the beginning


@contextmanager
def _opened_list(path: Path) -> Iterator[TextIO]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield file
    except FileNotFoundError:
        raise CamoError(f"{path}: no such file; {LISTS_SOURCE}") from None
    except (OSError, ValueError, csv.Error) as error:
        raise CamoError(f"{path}: {reason(error)}") from None


def _read_list(path: Path, official: int) -> list[str]:
    """Read a list of one name a line, without a header."""
    with _opened_list(path) as file:
        return _checked_names(path, (row[0] for row in csv.reader(file) if row), official)


def _checked_names(path: Path, names: Iterable[str], official: int) -> list[str]:
    """Return the names, each once, in order; warn where their number is not the official one."""
    checked = list(dict.fromkeys(names))
    for name in checked:
        if not PHOTO_NAME.fullmatch(name):
            raise CamoError(f"{path}: {reprlib.repr(name)} is not the plain name of a .jpg file")
    if not checked:
        raise CamoError(f"{path}: lists no image")
    if len(checked) != official:
        print(f"warning: {path}: lists {len(checked)} images, the official list {official}", file=sys.stderr)
    return checked


def _write(path: Path, data: bytes) -> None:
    with atomic_write(path, overwrite=True) as part:
        part.write_bytes(data)


@contextmanager
def _told_as_camo_error(subject: Path | str, *errors: type[Exception]) -> Iterator[None]:
    """Turn the given errors into a CamoError of one line that begins with the subject."""
    try:
        yield
    except errors as error:
        raise CamoError(f"{subject}: {reason(error)}") from None
