"""What decides a filter's output besides its weights and its layers: settings that each checkpoint stores, and that its hash covers."""

import math
from dataclasses import dataclass, fields


def require_positive(name: str, value: object, whole: bool = False) -> None:
    """Raise ValueError unless the value is a positive, finite number, and an int where it has to be whole."""
    kind = int if whole else int | float
    if isinstance(value, bool) or not isinstance(value, kind) or not 0 < value < math.inf:  # NaN too
        raise ValueError(f"{name} {value!r}: should be a positive {'whole number' if whole else 'number'}")


@dataclass(frozen=True)
class JNDSettings:
    """How far the just-noticeable difference departs from its published models; the numbers of the papers are in ``camo.filter.jnd``.

    Raises ValueError for a setting that is not a positive, finite number, or for ``edges`` outside 0..1.

    Args:
        darkest: most luminance adaptation on dark grounds, of 255. The model allows 20, measured on tubes; today's screens show more there.
        flat: factor of the luminance adaptation. The model is for noise; a pattern is seen sooner on a flat ground.
        overlap: part of the lesser effect that is subtracted because adaptation and masking would both count it.
        edges: part of the map that is taken away along straight, strong edges, where contrast does not mask: what varies along one is seen as a comb.
    """

    darkest: float = 6.0
    flat: float = 0.12
    overlap: float = 0.3
    edges: float = 0.0

    def __post_init__(self) -> None:
        for name in ("darkest", "flat", "overlap"):
            require_positive(f"jnd {name}", getattr(self, name))
        if isinstance(self.edges, bool) or not isinstance(self.edges, int | float) or not 0 <= self.edges <= 1:
            raise ValueError(f"jnd edges {self.edges!r}: should be within 0..1")


@dataclass(frozen=True)
class CentreSettings:
    """The second pass, over the centre of large photos (``camo.filter.two_pass``).

    Raises ValueError for a setting that is not a positive, finite number, or not a whole one where it counts pixels.

    Args:
        height: of the window, px; the default is KonCept512's.
        width: of the window, px.
        reduction: photos that the first pass reduces by this factor or more on each axis are large. Below it both residuals would lie in the
            same details.
        louder: strength of a large photo's first residual. Reducing the photo, as a scorer does, takes some of it away (chosen on validation photos).
        fade: px at the window's border over which the second residual comes in, so that there is no seam.
    """

    height: int = 384
    width: int = 512
    reduction: float = 2.0
    louder: float = 1.15
    fade: int = 16

    def __post_init__(self) -> None:
        for field in fields(self):
            require_positive(f"centre {field.name}", getattr(self, field.name), whole=field.type is int)
