"""Looks as numbers: which there are, what each number does and how far it may go. ``camo.filter.looks`` turns the numbers into pixels.

A look changes tones and colours mildly, as the careful work on automatic retouching does: slopes of tone curves stay within 0.5 and 2 and slopes of
colour curves within 0.9 and 1.1 of them (Hu et al., "Exposure: a white-box photo post-processing framework", 2018). A test holds the looks to it.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple

MOST = 1.5  # the largest amount


def _number(default: float, lowest: float, highest: float, scales: bool = True) -> Any:
    """A number with its bounds; those that do not scale say where or of what kind a change is, not how much of it there is."""
    return field(default=default, metadata={"bounds": (lowest, highest), "scales": scales})


@dataclass(frozen=True)
class LookSettings:
    """The 16 numbers of a look. Photos have values in [0, 1]; by default nothing changes.

    Raises ValueError for a number that is out of its bounds.

    Args:
        warmth: colour temperature, as a gain in linear light that leaves out a part of the blue (positive, warm) or of the red (negative, cool).
            It is given as the part of the display's value at gamma 2.2, where a gain g in linear light is a gain of g^(1/2.2).
        brightness: slope added to the tone curve at black and taken off at white; black and white stay.
        contrast: slope added to the tone curve at ``pivot``; black and white stay.
        pivot: the tone that contrast leaves as it is.
        lights: split toning, what the brightest tones lose of blue (positive, warm) or of red (negative, cool).
        shadows: split toning, what the darkest tones gain of red (positive, warm) or of blue (negative, cool).
        fade: lift of black.
        saturation: factor added to weak colours; strong ones change less, and none leaves the range. Luma stays.
        skin: part of ``saturation`` from which the hues of skin are spared.
        mono: blend towards black and white, 1 for none of the colour.
        red, blue: weights of these channels in black and white; green has the rest.
        vignette: part of the light that is missing in the corners; the centre stays.
        grain: standard deviation of the grain in mid-grey.
        grain_lights: strength of the grain in the lights, as a part of that in the shadows; at black and at white itself there is none.
        grain_texture: correlation of neighbouring grains.
    """

    warmth: float = _number(0.0, -0.15, 0.15)
    brightness: float = _number(0.0, -0.2, 0.2)
    contrast: float = _number(0.0, -0.25, 0.25)
    pivot: float = _number(0.5, 0.4, 0.6, scales=False)
    lights: float = _number(0.0, -0.05, 0.05)
    shadows: float = _number(0.0, -0.05, 0.05)
    fade: float = _number(0.0, 0.0, 0.05)
    saturation: float = _number(0.0, -0.5, 0.5)
    skin: float = _number(0.7, 0.0, 1.0, scales=False)
    mono: float = _number(0.0, 0.0, 1.0)
    red: float = _number(0.299, 0.0, 1.0, scales=False)
    blue: float = _number(0.114, 0.0, 1.0, scales=False)
    vignette: float = _number(0.0, 0.0, 0.25)
    grain: float = _number(0.0, 0.0, 0.04)
    grain_lights: float = _number(0.5, 0.0, 1.0, scales=False)
    grain_texture: float = _number(0.3, 0.0, 0.7, scales=False)

    def __post_init__(self) -> None:
        for one in fields(self):
            lowest, highest = one.metadata["bounds"]
            value = getattr(self, one.name)
            if not lowest <= value <= highest:  # NaN too
                raise ValueError(f"{one.name} {value!r}: should be {lowest:g} to {highest:g}")

    def at(self, amount: float) -> LookSettings:
        """More or less of the look; black and white stays complete above an amount of 1. Raises ValueError where a number leaves its bounds."""
        scaled = {one.name: amount * getattr(self, one.name) for one in fields(self) if one.metadata["scales"]}
        return LookSettings(**asdict(self) | scaled | {"mono": min(1.0, scaled["mono"])})


_MONO = {"mono": 1.0, "contrast": 0.1}
LOOKS = {
    "vivid": LookSettings(brightness=0.03, contrast=0.13, saturation=0.3),
    "warm": LookSettings(warmth=0.085, brightness=0.09, contrast=0.05, saturation=0.08),
    "golden": LookSettings(warmth=0.05, brightness=0.08, contrast=0.08, lights=0.018, shadows=-0.008, saturation=0.12),
    "cool": LookSettings(warmth=-0.085, brightness=0.09, contrast=0.07),
    "mono": LookSettings(**_MONO),
    "mono-red": LookSettings(**_MONO, red=0.65, blue=0.05),
    "mono-green": LookSettings(**_MONO, red=0.15, blue=0.1),
    "film": LookSettings(brightness=0.04, contrast=-0.08, lights=0.02, shadows=-0.012, fade=0.016, saturation=-0.1, vignette=0.1, grain=0.016),
}
AUTO = "auto"
LOOK_HELP = f"{', '.join(LOOKS)}; :AMOUNT is 0 (nothing) to {MOST:g} (default: 1)"


class LookChoice(NamedTuple):
    """What a person asked for: a look of ``LOOKS`` or ``AUTO``, and how much of it."""

    name: str
    amount: float = 1.0

    def __str__(self) -> str:
        return self.name if self.amount == 1 else f"{self.name}:{self.amount:g}"


def parse_look(text: str, auto: bool = False) -> LookChoice | None:
    """The choice that NAME or NAME:AMOUNT names; None at an amount of 0, which is exactly no look.

    Raises ValueError, with a sentence for the user, where there is no such look or amount; ``auto`` says whether AUTO is one.
    """
    name, colon, number = text.partition(":")
    names = [*LOOKS, AUTO] if auto else [*LOOKS]
    if name not in names:
        raise ValueError(f"{text!r}: no look is called {name!r}; choose one of {', '.join(names)}")
    try:
        amount = float(number) if colon else 1.0
    except ValueError:
        amount = math.nan
    if not 0 <= amount <= MOST:
        raise ValueError(f"{text!r}: the amount after the colon should be a number from 0 to {MOST:g}")
    return LookChoice(name, amount) if amount else None
