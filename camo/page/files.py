"""The files that the page is made of, once it has been built."""

import json
import shutil
import tempfile
from pathlib import Path

from camo import CamoError
from camo.filter.checkpoint import SHIPPED_FILTER
from camo.photos.files import reason, sha256
from camo.quality.models import BUNDLED_WEIGHTS

INSTALLED = Path(__file__).parent / "built"
CLONE = Path(__file__).parents[2] / "page" / "dist"
NEEDED = ("index.html", "networks/networks.json")


def built(folder: Path | None = None) -> Path:
    """The folder of the built page: the installed package's, or the clone's.

    Raises CamoError where it was not built, or with other weights than those that are used now.
    """
    folder = folder or (INSTALLED if INSTALLED.is_dir() else CLONE)
    if not all((folder / name).is_file() for name in NEEDED):
        raise CamoError("the page is not built: run make page in a clone, which needs Node.js 20 or newer")
    try:
        stated = json.loads((folder / "networks" / "networks.json").read_text(encoding="utf-8"))["provenance"]
        hashes = {stated["filter"]["sha256"], stated["quality"]["sha256"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CamoError(f"{folder}: damaged; run make page again ({error!r})") from error
    if hashes != {sha256(SHIPPED_FILTER), sha256(BUNDLED_WEIGHTS)}:
        raise CamoError(f"{folder}: built with other weights than {SHIPPED_FILTER.name} and {BUNDLED_WEIGHTS.name} are now; run make page again")
    return folder


def copy_to(source: Path, out: Path) -> int:
    """Copy the built page into a folder that is new or empty, all of it or nothing; the number of files. Raises CamoError."""
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise CamoError(f"{out}: exists already and is not an empty folder; choose another --out")
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".page-", dir=out.parent) as temporary:
            part = shutil.copytree(source, Path(temporary) / "page")
            part.replace(out)
    except OSError as error:
        raise CamoError(f"{out}: cannot be written ({reason(error)})") from error
    return sum(path.is_file() for path in out.rglob("*"))
