"""The image sets of MediaEval 2020 Pixel Privacy, "Quality Camouflage for Social Images".

Built from the two official archives, which are read in place and never unpacked:

- ``OUT/dev/NAME.jpg``: the development set, KonIQ-10k photos of 512x384, each byte as in the archive;
- ``OUT/dev_large/NAME.jpg``: the same photos at KonIQ-10k's own 1024x768, from a third archive; not part of the task, but good to train on;
- ``OUT/test/STEM.png``: the test set, the centre 512x384 of Places365 photos, RGB, cut as the task's own script cuts them;
- ``OUT/test_manual.txt``: stems of the test images meant for changes by hand, one per line.

Archives and lists are not trusted. Where a file goes follows from the lists alone; an archive only ever supplies bytes, a bounded number of them,
and they count only once they have decoded as the expected image.
"""

import csv
import reprlib
import sys
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from camo import CamoError
from camo.photos.files import atomic_write
from camo.task.archives import Member, tar_members, zip_members
from camo.task.download import fetch
from camo.task.lists import checked_names, opened_list, read_list
from camo.task.pictures import LARGE, SIZE, checked_jpeg, cropped_png, is_whole

KONIQ_URL = "http://datasets.vqa.mmsp-kn.de/archives/koniq10k_512x384.zip"
PLACES_URL = "http://data.csail.mit.edu/places/places365/val_large.tar"
DEV_IMAGES, TEST_IMAGES, MANUAL_IMAGES = 1000, 550, 60  # what the official lists hold


@dataclass(frozen=True)
class ImageSet:
    """One of the task's sets: the files to write, and how each comes out of the archive."""

    targets: dict[str, Path]  # name in the archive -> file to write
    archive: Path
    url: str  # the archive's official address
    members: Callable[[Path, Container[str]], Iterator[Member]]  # (archive, wanted names) -> those of them that it holds
    convert: Callable[[bytes], bytes]  # the archive's photo -> the file's bytes; CamoError where the photo cannot be used
    size: tuple[int, int] = SIZE  # (width, height) of every image


def prepare_koniq(metadata: Path, archive: Path | None, out: Path, download: bool = False, size: tuple[int, int] = SIZE) -> list[str]:
    """Build the development set: the photos of ``metadata`` whose column ``set`` says validation; return ``build``'s faults.

    It goes to ``out/dev``, or to ``out/dev_large`` where ``size`` is ``LARGE``.

    Raises:
        CamoError: ``metadata`` cannot be read, lacks a column, or holds a name that is not plain.
    """
    with opened_list(metadata) as file:
        table = csv.DictReader(file)  # columns by name: MEPP20dev.csv has an unnamed index column in front
        if not {"image_name", "set"} <= set(table.fieldnames or ()):
            raise CamoError(f"{metadata}: columns image_name and set expected, found {reprlib.repr(table.fieldnames)}")
        names = checked_names(metadata, (str(row["image_name"]) for row in table if row["set"] == "validation"), DEV_IMAGES)
    pixels, folder = f"{size[0]}x{size[1]}", out / ("dev_large" if size == LARGE else "dev")
    images = ImageSet(
        targets={f"{pixels}/{name}": folder / name for name in names},
        archive=archive or out / "archives" / f"koniq10k_{pixels}.zip",
        url=KONIQ_URL.replace("512x384", pixels),
        members=zip_members,
        convert=partial(checked_jpeg, size=size),
        size=size,
    )
    return build(images, download)


def prepare_places(labels: Path, archive: Path | None, out: Path, download: bool = False) -> list[str]:
    """Build the test set of ``labels/MEPP20test.csv`` in ``out/test``, and ``out/test_manual.txt``; return ``build``'s faults.

    Raises:
        CamoError: a list cannot be read or holds a name that is not plain, or the manual list is not a part of the test list.
    """
    names = read_list(labels / "MEPP20test.csv", TEST_IMAGES)
    manual = read_list(labels / "MEPP20test_manual.csv", MANUAL_IMAGES)
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
            if is_whole(target, images.size):
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


def _write(path: Path, data: bytes) -> None:
    with atomic_write(path, overwrite=True) as part:
        part.write_bytes(data)
