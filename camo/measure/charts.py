"""Charts as SVG: plots too small for a plotting library. Every text in them is escaped by MarkupSafe, whatever a name holds."""

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from camo.measure.formats import printable

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

    def drawing(self, body: Markup, x_label: str, y_label: str, names: Sequence[str], colours: Sequence[str]) -> Markup:
        """The whole SVG: axes, ticks, labels, legend and the body."""
        text = Markup('<text x="{:.1f}" y="{:.1f}"{}>{}</text>')
        middle, end = Markup(' text-anchor="middle"'), Markup(' text-anchor="end"')
        line = Markup('<line x1="{}" x2="{}" y1="{y:.1f}" y2="{y:.1f}" stroke="#eee"/>')
        parts = [text.format(self.x(v), HEIGHT - BOTTOM + 16, middle, f"{v:g}") for v in _ticks(*self.x_range)]
        for v in _ticks(*self.y_range):
            parts += [line.format(LEFT, WIDTH - RIGHT, y=self.y(v)), text.format(LEFT - 6, self.y(v) + 4, end, f"{v:g}")]
        parts += [body, text.format(WIDTH / 2, HEIGHT - 6, middle, x_label), text.format(LEFT, 10, "", y_label)]
        for i, (name, colour) in enumerate(zip(names, colours, strict=False)):
            left = LEFT + 90 + i * 120
            parts.append(
                Markup('<circle cx="{}" cy="7" r="5" fill="{}"/>').format(left, colour) + text.format(left + 10, 11, "", printable(name)[-16:])
            )
        return Markup('<svg viewBox="0 0 {} {}" role="img">{}</svg>').format(WIDTH, HEIGHT, Markup("").join(parts))


def histogram(scores: Mapping[str, Sequence[float]], threshold: float, width: float = 4.0) -> Markup:
    """Distributions of scores by name, in bins of ``width`` points, over each other, with the threshold dashed."""
    everything = [score for values in scores.values() for score in values]
    low, high = width * math.floor(min(*everything, threshold) / width), width * (math.floor(max(*everything, threshold) / width) + 1)
    bins = round((high - low) / width)
    counts = {name: [sum(int((score - low) // width) == i for score in values) for i in range(bins)] for name, values in scores.items()}
    axes = Axes((low, high), (0, max(max(values) for values in counts.values()) * 1.05))
    bar = Markup('<rect x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill="{}" fill-opacity=".55"/>')
    bars = [
        bar.format(axes.x(low + i * width), axes.y(count), axes.x(low + width) - LEFT - 1, axes.y(0) - axes.y(count), colour)
        for values, colour in zip(counts.values(), COLOURS, strict=False)
        for i, count in enumerate(values)
        if count
    ]
    x = axes.x(threshold)
    return axes.drawing(Markup("").join([*bars, _dashed(x, x, TOP, HEIGHT - BOTTOM)]), "score", "photos", list(scores), COLOURS)


def scatter(points: Mapping[str, Sequence[tuple[float, float]]], threshold: float) -> Markup:
    """(PSNR in dB, score) of every photo by name, with the threshold dashed."""
    xs, ys = zip(*(point for values in points.values() for point in values), strict=True)
    lowest, highest = min(*ys, threshold), max(*ys, threshold)
    axes = Axes((math.floor(min(xs)), math.floor(max(xs)) + 1), (5 * math.floor(lowest / 5), 5 * math.floor(highest / 5) + 5))
    circles = [
        _circle(axes.x(x), axes.y(y), colour, opacity=0.7) for values, colour in zip(points.values(), COLOURS[1:], strict=False) for x, y in values
    ]
    y = axes.y(threshold)
    return axes.drawing(Markup("").join([*circles, _dashed(LEFT, WIDTH - RIGHT, y, y)]), "PSNR dB", "score", list(points), COLOURS[1:])


def labelled(points: Mapping[str, tuple[float, float]], x_label: str, y_label: str) -> Markup:
    """Named points; an SVG file of its own."""
    xs, ys = zip(*points.values(), strict=True)
    axes = Axes((math.floor(min(xs)) - 1, math.floor(max(xs)) + 3), (min(0, *ys), max(100, *ys)))
    label = Markup('<text x="{:.1f}" y="{:.1f}">{}</text>')
    parts = []
    for name, (x, y) in points.items():
        parts += [_circle(axes.x(x), axes.y(y), COLOURS[0]), label.format(axes.x(x) + 6, axes.y(y) + 4, printable(name))]
    drawing = axes.drawing(Markup("").join(parts), x_label, y_label, (), ())
    style = Markup('<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="12" ')
    return drawing.replace(Markup("<svg "), style, 1)


def heat(rate: float | None) -> Markup:
    """A table cell with a rate in 0..1, the greener the higher; a dash where there is none, because no clean photo scored high."""
    if rate is None:
        return Markup("<td>-</td>")
    red, green, blue = (round(255 + rate * (strong - 255)) for strong in (27, 120, 55))
    cell = Markup('<td style="background:rgb({},{},{});color:{}">{:.0%}</td>')
    return cell.format(red, green, blue, "#fff" if rate > 0.55 else "#222", rate)


def _circle(x: float, y: float, colour: str, opacity: float = 1) -> Markup:
    return Markup('<circle cx="{:.1f}" cy="{:.1f}" r="4" fill="{}" fill-opacity="{:g}"/>').format(x, y, colour, opacity)


def _dashed(x1: float, x2: float, y1: float, y2: float) -> Markup:
    return Markup('<line x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}" stroke="#222" stroke-dasharray="5 4"/>').format(x1, x2, y1, y2)


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round values within a range."""
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 8)
    return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
