"""The report: one HTML file that needs no other. Its template, ``report.html``, escapes every text; only charts pass as they are."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from camo.measure.charts import heat, histogram, scatter
from camo.measure.figures import Measured
from camo.measure.formats import percent, printable
from camo.measure.operations import HEADLINE
from camo.measure.sheet import GAIN, SheetRow

LARGEST_PICTURE = 1024  # px a side in the gallery
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
TEMPLATES.filters |= {"percent": percent, "printable": printable, "heat": heat}


def write_report(path: Path, document: dict[str, Any], results: Mapping[str, Sequence[Measured]], rows: Sequence[SheetRow]) -> None:
    """Write report.html: headline figures, score distributions, scatter plot, what the effect survives, and a gallery.

    Args:
        path: the file to write.
        document: what summary.json holds: settings, results, faults.
        results: every photo's figures, by folder.
        rows: photos for the gallery.
    """
    settings, summary = document["settings"], document["results"]
    channel = HEADLINE[0]
    after = {name: [one.filtered_scores[channel] for one in measured] for name, measured in results.items()}
    clean = [one.clean_scores[channel] for one in next(iter(results.values()))]
    points = {name: [(one.psnr, one.filtered_scores[channel]) for one in measured] for name, measured in results.items()}
    page = TEMPLATES.get_template("report.html").render(
        settings=settings,
        summary=summary,
        first=next(iter(summary.values())),
        headline=HEADLINE,
        histogram=histogram({"original": clean, **after}, settings["threshold"]),
        scatter=scatter(points, settings["threshold"]),
        gallery=[(row, [_embedded(picture) for picture in row.pictures()]) for row in rows],
        gain=GAIN,
    )
    path.write_text(page, encoding="utf-8")


def _embedded(picture: Image.Image) -> str:
    """The picture as a data address: lossless, so that what is seen is what the file holds, unless it is too large and reduced."""
    picture.thumbnail((LARGEST_PICTURE, LARGEST_PICTURE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=True)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()
