"""What became of a picture between its file and its pixels here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """What the picture has become, with which all that its file says is to agree.

    Attributes:
        width, height: px, upright.
        turned: the orientation from which the pixels were turned; 1 where they were not.
        upright: whether a stated orientation is to say so.
        srgb: whether the pixels were converted to sRGB.
        rounded: whether samples of more than 8 bits were rounded.
        cmyk: whether there were four inks.
    """

    width: int
    height: int
    turned: int = 1
    upright: bool = False
    srgb: bool = False
    rounded: bool = False
    cmyk: bool = False

    @property
    def on_its_side(self) -> bool:
        """Whether width and height were exchanged."""
        return self.turned >= 5
