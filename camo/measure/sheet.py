"""The contact sheet: original, camouflaged photo and their difference side by side, the worst cases first."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from camo.measure.figures import Measured
from camo.measure.formats import percent, printable
from camo.measure.operations import HEADLINE
from camo.photos.images import Photo, read

GAIN = 10  # of the differences shown
TEXT_HEIGHT = 28  # px


@dataclass(frozen=True)
class SheetRow:
    """One photo on a contact sheet: (3, H, W) uint8 RGB before and after, and the scores of both after the channel."""

    name: str
    original: Tensor
    filtered: Tensor
    score_original: float
    score_filtered: float
    psnr: float

    def pictures(self) -> tuple[Image.Image, Image.Image, Image.Image]:
        """Original, camouflaged and ten times their difference."""
        difference = (128 + GAIN * (self.filtered.int() - self.original.int())).clamp(0, 255).to(torch.uint8)
        return to_pil_image(self.original), to_pil_image(self.filtered), to_pil_image(difference)


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


def picture_grid(pictures: Mapping[str, Tensor], columns: int = 3, width: int = 512) -> Image.Image:
    """Pictures of one size side by side with their captions below, row by row; those wider than ``width`` px are reduced to it.

    Args:
        pictures: (3, H, W) uint8 RGB by caption.
        columns: pictures in a row.
        width: px.
    """
    shown = [to_pil_image(picture) for picture in pictures.values()]
    for picture in shown:
        picture.thumbnail((width, 100_000), Image.Resampling.LANCZOS)
    strips = [_captioned(shown[first : first + columns], list(pictures)[first : first + columns]) for first in range(0, len(shown), columns)]
    sheet = Image.new("RGB", (strips[0].width, sum(strip.height for strip in strips)), "white")
    for number, strip in enumerate(strips):
        sheet.paste(strip, (0, number * strip.height))
    return sheet


def sheet_rows(measured: Sequence[Measured], count: int, threshold: float, look: Callable[[Photo], Photo] | None = None) -> list[SheetRow]:
    """The photos to show, at least one, the worst first: those not protected at JPEG 90 by their score, then those with the worst patch.

    ``look`` gives an original the look that the filtered photo has.
    """

    def worst_first(one: Measured) -> tuple[float, float]:
        return -max(threshold, one.filtered_scores[HEADLINE[0]]), one.worst_patch_psnr

    rows = []
    for one in sorted(measured, key=worst_first)[: max(1, count)]:
        original, filtered = (read(path, sys.maxsize) for path in (one.original, one.filtered))  # they were within the limit
        shown = look(original) if look else original
        rows.append(SheetRow(one.name, shown.pixels, filtered.pixels, one.clean_scores[HEADLINE[0]], one.filtered_scores[HEADLINE[0]], one.psnr))
    return rows


def sheet_title(row: dict[str, Any], model: str) -> str:
    """The contact sheet's title, from what ``summarise`` gives for its folder."""
    rate = row["operations"][HEADLINE[0]]["protected"]
    return f"{row['photos']} photos, {percent(rate, 0)} protected; scores of the {model} model after {HEADLINE[0]}"


def _strip(row: SheetRow, width: int) -> Image.Image:
    pictures = row.pictures()
    for picture in pictures:
        picture.thumbnail((width, 100_000), Image.Resampling.LANCZOS)
    captions = [
        f"{printable(row.name)[:34]}: {row.score_original:.0f}",
        f"camouflaged: {row.score_filtered:.0f}, PSNR {row.psnr:.1f} dB",
        f"{GAIN}x difference",
    ]
    return _captioned(pictures, captions)


def _captioned(pictures: Sequence[Image.Image], captions: Sequence[str]) -> Image.Image:
    """Pictures of one size beside each other, each above its caption."""
    strip = Image.new("RGB", (sum(picture.width for picture in pictures), pictures[0].height + TEXT_HEIGHT), "white")
    draw, left = ImageDraw.Draw(strip), 0
    for picture, caption in zip(pictures, captions, strict=True):
        strip.paste(picture, (left, 0))
        draw.text((left + 6, picture.height + 5), caption, "black", ImageFont.load_default(16))
        left += picture.width
    return strip
