"""Pictures of what was measured: the contact sheet, and a report that is one self-contained HTML file."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from camo.measure.charts import heat, histogram, scatter

if TYPE_CHECKING:
    from camo.verbs.evaluate import Measured

HEADLINE = ("JPEG 90", "JPEG 75")  # the task's channel, and a rougher platform's
GAIN = 10  # of the differences shown
TEXT_HEIGHT = 28  # px
TEMPLATE = Path(__file__).with_name("report.html")
LARGEST_PICTURE = 1024  # px a side in the gallery


@dataclass(frozen=True)
class SheetRow:
    """A photo on a contact sheet: (3, H, W) uint8 RGB before and after, and the scores of both after the channel."""

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


def _strip(row: SheetRow, width: int) -> Image.Image:
    pictures = row.pictures()
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


def write_report(path: Path, document: dict[str, Any], results: dict[str, list[Measured]], rows: Sequence[SheetRow]) -> None:
    """Write report.html: headline figures, score distributions, scatter plot, grid and gallery; no other file is needed to read it.

    Args:
        path: the file to write.
        document: what summary.json holds: settings, results, faults.
        results: every photo's figures, by folder.
        rows: photos for the gallery.
    """
    settings, summary = document["settings"], document["results"]
    first = next(iter(summary.values()))
    channel = HEADLINE[0]
    after = {name: [one.filtered_scores[channel] for one in measured] for name, measured in results.items()}
    clean = [one.clean_scores[channel] for one in next(iter(results.values()))]
    points = {name: [(one.psnr, one.filtered_scores[channel]) for one in measured] for name, measured in results.items()}
    page = Template(TEMPLATE.read_text()).substitute(
        title=f"{first['photos']} photos, {percent(first['operations'][channel]['protected'], 0)} protected at {channel}, {first['psnr']:.1f} dB",
        settings=html.escape(", ".join(f"{key} {value}" for key, value in settings.items() if value is not None)),
        headline=_headline(summary),
        histogram=histogram({"original": clean, **after}, settings["threshold"]),
        scatter=scatter(points, settings["threshold"]),
        grid=_grid(summary),
        gallery="".join(map(_gallery_item, rows)),
    )
    path.write_text(page, encoding="utf-8", errors="backslashreplace")  # a file name need not be valid Unicode


def percent(rate: float | None, digits: int = 1) -> str:
    """A rate in 0..1 as a percentage with so many decimals; a dash where there is none, because no clean photo scored high."""
    return "-" if rate is None else f"{rate:.{digits}%}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["".join(f"<th>{html.escape(cell)}</th>" for cell in head)]
    lines += ["".join(cell if cell.startswith("<td") else f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def _headline(summary: dict[str, dict[str, Any]]) -> str:
    rates = (f"protected, {HEADLINE[0]}", *HEADLINE[1:], "accuracy left")
    head = ("files", *rates, "PSNR dB", "lowest", "worst patch", "SSIM", "LPIPS", "largest change", "size")
    rows = []
    for name, row in summary.items():
        first, *others = (row["operations"][operation] for operation in HEADLINE)
        low, high = first["interval"]
        lpips = "-" if row["lpips"] is None else f"{row['lpips']:.3f}"
        shares = f"{percent(first['protected'])} ({low:.0%} to {high:.0%})", *(percent(cell["protected"]) for cell in others)
        decibels = f"{row['psnr']:.2f}", f"{row['psnr_lowest']:.2f}", f"{row['worst_patch_psnr']:.2f}"
        change = f"{row['largest_change']}/255", f"x{row['size_ratio']:.2f}"
        rows.append((name, *shares, percent(first["accuracy"]), *decibels, f"{row['ssim']:.4f}", lpips, *change))
    return _table(head, rows)


def _grid(summary: dict[str, dict[str, Any]]) -> str:
    folders = list(summary.values())
    rows = [
        (name, f"{cell['score_clean']:.1f}", *(_heat(row["operations"][name]["protected"]) for row in folders))
        for name, cell in folders[0]["operations"].items()
    ]
    return _table(("operation", "clean score", *summary), rows)


def _heat(rate: float | None) -> str:
    return percent(rate) if rate is None else heat(rate)


def _gallery_item(row: SheetRow) -> str:
    original, filtered, difference = (_embedded(picture) for picture in row.pictures())
    caption = (
        f"{row.name}: {row.score_original:.1f} to {row.score_filtered:.1f} after {HEADLINE[0]}, PSNR {row.psnr:.1f} dB; right: {GAIN}x difference"
    )
    return (
        f'<figure><div class="pictures"><div><div class="before-after"><img alt="original" src="{original}">'
        f'<img alt="camouflaged" src="{filtered}"></div><input type="range" value="50" aria-label="original or camouflaged"></div>'
        f'<div><img alt="{GAIN}x difference" src="{difference}"></div></div><figcaption>{html.escape(caption)}</figcaption></figure>'
    )


def _embedded(picture: Image.Image) -> str:
    """The picture as a data address: lossless, so that what is seen is what the file holds, unless it is too large and reduced."""
    picture.thumbnail((LARGEST_PICTURE, LARGEST_PICTURE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=True)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
