"""How much the score of a photo depends on its size: ``python -m benchmarks.sizes PHOTO_OR_FOLDER [...] [--biqa MODEL]``.

Each photo is reduced (Lanczos) to longer sides of 512, 1024, 2048 and 4096 px, or enlarged where it is smaller, and scored. Printed as JSON: the mean
score at each size, and the mean and largest difference from the score at 512 px, in points.
"""

import argparse
import json
from pathlib import Path

import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor, to_pil_image
from tqdm import tqdm

from camo.photos.images import find_photos, read, to_float
from camo.quality import SPEC_HELP, models

SIZES = (512, 1024, 2048, 4096)  # px, of the longer side


def resized(photo: Image.Image, longest: int) -> torch.Tensor:
    """The photo with a longer side of so many pixels. Shape: (1, 3, H, W) float RGB in [0, 1]."""
    scale = longest / max(photo.size)
    small = photo.resize([round(side * scale) for side in photo.size], Image.Resampling.LANCZOS)
    return to_float(pil_to_tensor(small))[None]


@torch.inference_mode()
def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="+", type=Path, metavar="PHOTO_OR_FOLDER", help="photos, best of 4096 px or more")
    parser.add_argument("--biqa", default="bundled", metavar="MODEL", help=f"quality model: {SPEC_HELP} (default: bundled)")
    args = parser.parse_args()
    scorer = models.load(args.biqa)
    pictures = [to_pil_image(read(file.path).pixels) for file in tqdm(find_photos(args.photos), unit="photo")]
    scores = torch.tensor([[scorer(resized(picture, size)).item() for size in SIZES] for picture in tqdm(pictures, unit="photo")])
    differences = (scores - scores[:, :1]).abs()
    rows = {
        f"{size} px": {
            "score": scores[:, column].mean().item(),
            "difference": differences[:, column].mean().item(),
            "largest": differences[:, column].max().item(),
            "enlarged": sum(max(picture.size) < size for picture in pictures),
        }
        for column, size in enumerate(SIZES)
    }
    print(json.dumps({"photos": len(pictures), **rows}, indent=1))


if __name__ == "__main__":
    main()
