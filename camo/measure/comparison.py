"""What ``compare`` found: the table on the terminal, the same as CSV, and a plot of protected rate against PSNR.

A row is what ``camo.measure.figures.summarise`` gives for a method's files, with the keys ``method`` (its name), ``seconds`` (per photo) and
``times_the_first`` (these seconds to those of the first row).
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from camo.measure.charts import labelled
from camo.measure.formats import csv_path, percent, printable
from camo.measure.operations import HEADLINE

Row = dict[str, Any]
COLUMNS = ("psnr", "ssim", "worst_patch_psnr", "seconds", "times_the_first")
SCALED = " at the filter's PSNR"  # ends the name of a row whose changes were scaled to the distortion of the filter's


def print_row(row: Row, first: bool) -> None:
    """Print one line of the table, with the head before the first."""
    if first:
        print(f"{'method':44} " + "  ".join(HEADLINE) + "  PSNR dB    SSIM  worst patch  s per photo  times the first")
    rates = "  ".join(f"{percent(row['operations'][name]['protected']):>7}" for name in HEADLINE)
    visible = f"{row['psnr']:7.2f}  {row['ssim']:.4f}  {row['worst_patch_psnr']:11.2f}"
    print(f"{printable(row['method']):44} {rates}  {visible}  {row['seconds']:11.3f}  {row['times_the_first']:15.1f}", flush=True)


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write the table as CSV."""
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["method", *HEADLINE, *COLUMNS])
        for row in rows:
            rates = [row["operations"][name]["protected"] for name in HEADLINE]
            writer.writerow([csv_path(row["method"]), *rates, *(row[name] for name in COLUMNS)])


def plot(rows: Sequence[Row]) -> Markup | None:
    """Protected rate against PSNR as SVG, less the rows that were scaled to one PSNR; None where no clean photo scored high, so there is no rate."""
    shares = {row["method"]: (row["psnr"], row["operations"][HEADLINE[0]]["protected"]) for row in rows if not row["method"].endswith(SCALED)}
    points = {name: (decibels, 100 * share) for name, (decibels, share) in shares.items() if share is not None}
    return labelled(points, "PSNR dB", f"% protected at {HEADLINE[0]}") if points else None
