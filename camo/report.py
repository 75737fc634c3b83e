"""Pictures of what was measured."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

GAIN = 10  # of the differences shown
TEXT_HEIGHT = 28  # px


@dataclass(frozen=True)
class SheetRow:
    """A photo on a contact sheet: (3, H, W) uint8 RGB before and after, and the scores of both after the channel."""

    name: str
    original: Tensor
    filtered: Tensor
    score_original: float
    score_filtered: float
    psnr: float


def contact_sheet(rows: Sequence[SheetRow], title: str, width: int = 512) -> Image.Image:
    """Original | camouflaged | 10x difference for each photo, with scores.

    Photos wider than ``width`` px are reduced to it; others are shown pixel by pixel, so that grain can be looked for at 100%.
    """
    strips = [_strip(row, width) for row in rows]
    sheet = Image.new("RGB", (max(strip.width for strip in strips), TEXT_HEIGHT + sum(strip.height for strip in strips)), "white")
    ImageDraw.Draw(sheet).text((6, 5), title, "black", ImageFont.load_default(16))
    top = TEXT_HEIGHT
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    return sheet


def _strip(row: SheetRow, width: int) -> Image.Image:
    difference = (128 + GAIN * (row.filtered.int() - row.original.int())).clamp(0, 255).to(torch.uint8)
    pictures = [to_pil_image(pixels) for pixels in (row.original, row.filtered, difference)]
    for picture in pictures:
        picture.thumbnail((width, 100_000), Image.Resampling.LANCZOS)
    captions = [
        f"{row.name[:34]}: {row.score_original:.0f}",
        f"camouflaged: {row.score_filtered:.0f}, PSNR {row.psnr:.1f} dB",
        f"{GAIN}x difference",
    ]
    strip = Image.new("RGB", (sum(picture.width for picture in pictures), pictures[0].height + TEXT_HEIGHT), "white")
    draw, left = ImageDraw.Draw(strip), 0
    for picture, caption in zip(pictures, captions, strict=True):
        strip.paste(picture, (left, 0))
        draw.text((left + 6, picture.height + 5), caption, "black", ImageFont.load_default(16))
        left += picture.width
    return strip
