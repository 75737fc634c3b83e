"""What ``evaluate`` found, as text: the table on the terminal, a CSV file with all figures, a LaTeX table with the headline figures."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from camo.measure.figures import METRICS, Measured
from camo.measure.formats import csv_path, latex, percent, printable
from camo.measure.operations import GRID, HEADLINE

WIDTH = max(map(len, GRID))  # of a column of operations
Summary = dict[str, dict[str, Any]]  # by folder: what ``camo.measure.figures.summarise`` gives


def print_table(summary: Summary) -> None:
    """Print one line per folder with the headline figures, then one line per operation."""
    print("photos  PSNR dB (lowest, worst patch)    SSIM  LPIPS  size  regularity, coherence (90th percentiles)  folder")
    for name, row in summary.items():
        lpips = "    -" if row["lpips"] is None else f"{row['lpips']:.3f}"
        lines = ", ".join(f"{row[key]:.2f} ({row[f'{key}_90th_percentile']:.2f})" for key in ("regularity", "coherence") if row[key] is not None)
        patch = f"{row['psnr']:7.2f} ({row['psnr_lowest']:.2f}, {row['worst_patch_psnr']:.2f})"
        print(f"{row['photos']:6}  {patch:31}  {row['ssim']:.4f}  {lpips}  {row['size_ratio']:4.2f}  {lines or '-':40}  {printable(name)}")
    for name, row in summary.items():
        print(f"\n{printable(name)}")
        print(f"{'after':{WIDTH}}  protected  95% interval  accuracy left  score clean > filtered  low when clean")
        for operation, cell in row["operations"].items():
            scores = f"{cell['score_clean']:11.1f} > {cell['score_filtered']:8.1f}"
            print(f"{_protected(operation, cell)}  {cell['accuracy']:13.1%}  {scores}  {cell['low_when_clean']:14}")
        if row["look"]:
            print(f"{'the look alone, after':{WIDTH}}  protected  95% interval  score without > with the look  low without")
        for operation, cell in row["look"].items():
            scores = f"{cell['score_plain']:13.1f} > {cell['score_looked']:13.1f}"
            print(f"{_protected(operation, cell)}  {scores}  {cell['low_when_clean']:11}")


def _protected(operation: str, cell: Mapping[str, Any]) -> str:
    """The first columns of a line of ``print_table``."""
    low, high = cell["interval"]
    return f"{operation:{WIDTH}}  {percent(cell['protected']):>9}  {low:5.0%} - {high:4.0%}"


def print_models(summary: Summary, roles: Mapping[str, str]) -> None:
    """Print what every quality model says, one line per folder, model and operation of ``HEADLINE``; see ``summarise_model`` for the words."""
    print("\nmean score clean > filtered (white noise)  lowered  fell below the clean median (white noise)  after, model, folder")
    for name, row in summary.items():
        for model, operations in row["models"].items():
            for operation, cell in operations.items():
                means = f"{cell['clean']:.1f} > {cell['filtered']:.1f} ({cell['noisy']:.1f})"
                fell = f"{percent(cell['fell'])} ({percent(cell['noise_fell'])})"
                print(f"{means:41}  {percent(cell['lowered']):>7}  {fell:40}  {operation}, {roles[model]} {printable(model)}, {printable(name)}")


def write_csv(path: Path, results: Mapping[str, Sequence[Measured]], operations: Sequence[str]) -> None:
    """Write one line per pair with all figures. Bytes of a name that are no UTF-8 are written as escapes, such as ``\\udcff``."""
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file)
        scored = [f"{which} {name}" for name in operations for which in ("clean", "filtered")]
        plain = [f"plain {name}" for name in next(iter(results.values()))[0].plain_scores]  # where the originals were given a look
        specs = list(next(iter(results.values()))[0].judgements)[1:]  # the first model's scores are those before
        judged = [f"{which} {name} {printable(spec)}" for spec in specs for name in HEADLINE for which in ("clean", "filtered")]
        writer.writerow(["folder", "name", *METRICS, *scored, *judged, *plain])
        for folder, measured in results.items():
            for one in measured:
                scores = [scores[name] for name in operations for scores in (one.clean_scores, one.filtered_scores)]
                cells = [one.judgements[spec][name] for spec in specs for name in HEADLINE]
                others = [*(score for cell in cells for score in (cell.clean, cell.filtered)), *one.plain_scores.values()]
                writer.writerow([csv_path(folder), csv_path(one.name), *(getattr(one, metric) for metric in METRICS), *scores, *others])


def latex_table(summary: Summary) -> str:
    """The headline figures as a LaTeX tabular (booktabs), one row per folder."""
    lines = [
        r"\begin{tabular}{lrrrrr}",
        r"\toprule",
        " & ".join(["", *(f"{name} (\\%)" for name in HEADLINE), "PSNR (dB)", "worst patch (dB)", "SSIM"]) + r" \\",
        r"\midrule",
    ]
    for name, row in summary.items():
        rates = [percent(row["operations"][operation]["protected"]).removesuffix("%") for operation in HEADLINE]
        figures = f"{row['psnr']:.1f}", f"{row['worst_patch_psnr']:.1f}", f"{row['ssim']:.3f}"
        lines.append(" & ".join([latex(Path(name).name or name), *rates, *figures]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])
