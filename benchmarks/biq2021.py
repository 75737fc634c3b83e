"""The photos on which the shipped filter is judged: ``python -m benchmarks.biq2021 IMAGES --out DIR``.

500 of the 1,360 photos of BIQ2021's official test split whose mean opinion is 0.6 or more, drawn by chance (benchmarks/biq2021_test.txt), cut to
512x384 px about their centre and written as PNG. IMAGES is the data set's own folder. The photos are not part of this project.
"""

import argparse
from pathlib import Path

from tqdm import tqdm

from camo.photos.images import Photo, write
from camo.training.crops import CentreCrops

NAMES = Path(__file__).with_name("biq2021_test.txt")


def main() -> None:
    """Cut and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", type=Path, help="folder of BIQ2021's images")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the PNG files")
    args = parser.parse_args()
    photos = [args.images / name for name in NAMES.read_text().splitlines()]
    crops = CentreCrops(photos, (384, 512))
    for number, photo in enumerate(tqdm(photos, unit="photo")):
        write(Photo(crops[number], "PNG"), args.out / f"{photo.stem}.png")


if __name__ == "__main__":
    main()
