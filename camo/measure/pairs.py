"""Pairs of files: each filtered photo with its original, by folder and name."""

from pathlib import Path

from camo.photos.images import PhotoFile, find_photos

Place = Path | tuple[Path, str] | str  # a relative path; a folder and a stem; a stem alone


def pair(originals: Path, filtered: Path, faults: list[str]) -> list[tuple[Path, PhotoFile]]:
    """Pairs (original, filtered) of equal name, the filtered photo's run code left aside; what has no partner, or might have several, is a fault.

    An original in the same sub-folder comes first, there one of the same suffix. Where that sub-folder has none, one anywhere will do.

    Args:
        originals: folder of the originals.
        filtered: folder of the filtered photos.
        faults: one line is added for each file that is left out.

    Raises:
        CamoError: a folder that does not exist, cannot be read or holds no photo.
    """
    files = find_photos([originals])
    places: dict[Place, list[Path]] = {}
    for photo in files:
        for place in (photo.relative, (photo.relative.parent, photo.relative.stem), photo.relative.stem):
            places.setdefault(place, []).append(photo.path)
    pairs: dict[Path, PhotoFile] = {}
    ambiguous: set[Path] = set()
    for photo in find_photos([filtered]):
        found = next((places[place] for place in _candidates(photo.relative) if place in places), [])
        if len(found) > 1:
            faults.append(f"{str(photo.path)!r}: ambiguous, it could be of {' or '.join(repr(str(path)) for path in found)}")
            ambiguous.update(found)
        elif not found:
            faults.append(f"{str(photo.path)!r}: no original of this name in {str(originals)!r}")
        elif found[0] in pairs:
            faults.append(f"{str(photo.path)!r}: ambiguous, its original {str(found[0])!r} is already that of {str(pairs[found[0]].path)!r}")
        else:
            pairs[found[0]] = photo
    left = (photo.path for photo in files if photo.path not in pairs and photo.path not in ambiguous)
    faults += [f"{str(path)!r}: not in {str(filtered)!r}" for path in left]
    return list(pairs.items())


def _candidates(filtered: Path) -> list[Place]:
    """Where the original of a filtered photo is looked for, the likeliest place first: with its whole name, then without what might be a run code."""
    parts = filtered.stem.split("_")
    names = ["_".join(parts[i:]) for i in range(len(parts))]
    here: list[Place] = [place for name in names for place in (filtered.parent / (name + filtered.suffix), (filtered.parent, name))]
    return [*here, *names]
