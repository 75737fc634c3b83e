"""What the quality model does not see, as a picture: ``python -m benchmarks.failures [PHOTO] --out docs/quality_failures.jpg``.

A photo and versions of it that nobody would call as good, each with its score.
"""

import argparse
import random
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageFont, ImageOps
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from benchmarks.common import ROOT
from camo.photos.images import read, to_float
from camo.quality import SPEC_HELP, models

TILE = 64  # px
PANEL = (384, 288)  # px
PHOTO = ROOT / "data/sample/dev/gcompris-erase-red-panda.jpg"


def shuffled(photo: Image.Image) -> Image.Image:
    """The tiles of the photo in another order."""
    corners = [(left, top) for top in range(0, photo.height - TILE + 1, TILE) for left in range(0, photo.width - TILE + 1, TILE)]
    result = photo.copy()
    for place, (left, top) in zip(corners, random.Random(0).sample(corners, len(corners)), strict=True):
        result.paste(photo.crop((left, top, left + TILE, top + TILE)), place)
    return result


def covered(photo: Image.Image) -> Image.Image:
    """The photo with a black rectangle in its middle."""
    result = photo.copy()
    ImageDraw.Draw(result).rectangle([side * part // 4 for part in (1, 3) for side in photo.size], fill="black")
    return result


VERSIONS = {
    "original": lambda photo: photo,
    "its tiles shuffled": shuffled,
    "negative": ImageOps.invert,
    "covered": covered,
    "upside down": ImageOps.flip,
    "two fifths of the light": lambda photo: ImageEnhance.Brightness(photo).enhance(0.4),
}


@torch.inference_mode()
def main() -> None:
    """Score and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photo", nargs="?", type=Path, default=PHOTO, help="default: the red panda of the sample photos")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JPEG to write")
    parser.add_argument("--biqa", default="bundled", metavar="MODEL", help=f"quality model: {SPEC_HELP} (default: bundled)")
    args = parser.parse_args()
    scorer = models.load(args.biqa)
    photo = to_pil_image(read(args.photo).pixels)
    width, height = PANEL
    sheet = Image.new("RGB", (3 * width, 2 * (height + 28)), "white")
    for number, (name, change) in enumerate(VERSIONS.items()):
        version = change(photo)
        score = scorer(to_float(pil_to_tensor(version))[None]).item()
        left, top = number % 3 * width, number // 3 * (height + 28)
        ImageDraw.Draw(sheet).text((left + 6, top + 5), f"{name}: {score:.0f}", "black", ImageFont.load_default(16))
        sheet.paste(ImageOps.fit(version, PANEL), (left, top + 28))
        print(f"{name}: {score:.1f}")
    sheet.save(args.out, quality=85)


if __name__ == "__main__":
    main()
