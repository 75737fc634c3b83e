"""Charts of the report, as inline SVG: two plots too small for a plotting library."""

import html
import math
from collections.abc import Sequence

COLOURS = ("#33658a", "#d1495b", "#edae49", "#66a182", "#8d6a9f")  # told apart by colour-blind eyes; the first is the clean photos'
WIDTH, HEIGHT = 480, 300  # of the drawing, units
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 28, 40  # margins


class Axes:
    """Maps values to drawing units and draws ticks: ``x`` and ``y`` are (lowest, highest)."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        self.x_range, self.y_range = x, y

    def x(self, value: float) -> float:
        """Horizontal place of a value."""
        low, high = self.x_range
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Vertical place of a value."""
        low, high = self.y_range
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    def drawing(self, body: str, x_label: str, y_label: str, names: Sequence[str], colours: Sequence[str]) -> str:
        """The whole SVG: axes, ticks, labels, legend and the body."""
        ticks = "".join(f'<text x="{self.x(v):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{v:g}</text>' for v in _ticks(*self.x_range))
        ticks += "".join(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{self.y(v):.1f}" y2="{self.y(v):.1f}" stroke="#eee"/>'
            f'<text x="{LEFT - 6}" y="{self.y(v) + 4:.1f}" text-anchor="end">{v:g}</text>'
            for v in _ticks(*self.y_range)
        )
        labels = f'<text x="{WIDTH / 2}" y="{HEIGHT - 6}" text-anchor="middle">{x_label}</text><text x="{LEFT}" y="10">{y_label}</text>'
        legend = "".join(
            f'<circle cx="{LEFT + 90 + i * 120}" cy="7" r="5" fill="{colour}"/>'
            f'<text x="{LEFT + 100 + i * 120}" y="11">{html.escape(name[-16:])}</text>'
            for i, (name, colour) in enumerate(zip(names, colours, strict=False))
        )
        return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{ticks}{body}{labels}{legend}</svg>'


def histogram(scores: dict[str, Sequence[float]], threshold: float, width: float = 4.0) -> str:
    """Distributions of scores by name, in bins of ``width`` points, over each other, with the threshold dashed."""
    everything = [score for values in scores.values() for score in values]
    low, high = width * math.floor(min(*everything, threshold) / width), width * (math.floor(max(*everything, threshold) / width) + 1)
    bins = round((high - low) / width)
    counts = {name: [sum(int((score - low) // width) == i for score in values) for i in range(bins)] for name, values in scores.items()}
    axes = Axes((low, high), (0, max(max(values) for values in counts.values()) * 1.05))
    body = ""
    for (_, values), colour in zip(counts.items(), COLOURS, strict=False):
        body += "".join(
            f'<rect x="{axes.x(low + i * width):.1f}" y="{axes.y(count):.1f}" width="{axes.x(low + width) - LEFT - 1:.1f}"'
            f' height="{axes.y(0) - axes.y(count):.1f}" fill="{colour}" fill-opacity=".55"/>'
            for i, count in enumerate(values)
            if count
        )
    x = axes.x(threshold)
    body += f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#222" stroke-dasharray="5 4"/>'
    return axes.drawing(body, "score", "photos", list(scores), COLOURS)


def scatter(points: dict[str, Sequence[tuple[float, float]]], threshold: float) -> str:
    """(PSNR in dB, score) of every photo by name, with the threshold dashed."""
    xs, ys = zip(*(point for values in points.values() for point in values), strict=True)
    lowest, highest = min(*ys, threshold), max(*ys, threshold)
    axes = Axes((math.floor(min(xs)), math.floor(max(xs)) + 1), (5 * math.floor(lowest / 5), 5 * math.floor(highest / 5) + 5))
    body = "".join(
        f'<circle cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}" r="4" fill="{colour}" fill-opacity=".7"/>'
        for values, colour in zip(points.values(), COLOURS[1:], strict=False)
        for x, y in values
    )
    y = axes.y(threshold)
    body += f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#222" stroke-dasharray="5 4"/>'
    return axes.drawing(body, "PSNR dB", "score", list(points), COLOURS[1:])


def labelled(points: dict[str, tuple[float, float]], x_label: str, y_label: str) -> str:
    """Named points; a file of its own."""
    xs, ys = zip(*points.values(), strict=True)
    axes = Axes((math.floor(min(xs)) - 1, math.floor(max(xs)) + 3), (min(0, *ys), max(100, *ys)))
    body = "".join(
        f'<circle cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}" r="4" fill="{COLOURS[0]}"/>'
        f'<text x="{axes.x(x) + 6:.1f}" y="{axes.y(y) + 4:.1f}">{html.escape(name)}</text>'
        for name, (x, y) in points.items()
    )
    drawing = axes.drawing(body, x_label, y_label, (), ())
    return drawing.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="12" ', 1)


def heat(rate: float) -> str:
    """A table cell with a rate in 0..1, the greener the higher; a dash where the rate is not a number."""
    if math.isnan(rate):
        return "<td>-</td>"
    red, green, blue = (round(255 + rate * (strong - 255)) for strong in (27, 120, 55))
    return f'<td style="background:rgb({red},{green},{blue});color:{"#fff" if rate > 0.55 else "#222"}">{rate:.0%}</td>'


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round values within a range."""
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 8)
    return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
