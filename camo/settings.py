"""What the settings of every kind of training have in common."""

from collections.abc import Mapping

from camo import CamoError


def require_at_least(settings: object, least: Mapping[str, int]) -> None:
    """Raise CamoError, which names the flag, where an attribute of ``settings`` is below its least value in ``least``."""
    for name, smallest in least.items():
        if getattr(settings, name) < smallest:
            raise CamoError(f"--{name.replace('_', '-')} {getattr(settings, name)}: should be {smallest} or more")
