"""``python -m camo VERB``: each verb lives in a module with ``add_arguments(parser)`` and ``run(args) -> int`` (the exit status)."""

import argparse
import importlib
import io
import os
import sys
import warnings
from collections.abc import Sequence

from camo import CamoError, __version__
from camo.photos.files import reason

VERBS = {
    "infer": ("camo.verbs.infer", "camouflage photos: a filtered copy of each file, in one forward pass"),
    "looks": ("camo.verbs.looks", "try all looks on a photo: a contact sheet with scores before and after"),
    "score": ("camo.verbs.score", "score photos with a quality model, before and after JPEG"),
    "compare": ("camo.verbs.compare", "the filter beside per-image attacks on the same photos"),
    "evaluate": ("camo.verbs.evaluate", "measure camouflaged photos against their originals, through real JPEG"),
    "distil": ("camo.verbs.distil", "train a quality model to score as another one does: the filter's trunk, or a black box's stand-in"),
    "prepare": ("camo.verbs.prepare", "build the 2020 task's image sets from the official archives"),
    "package": ("camo.verbs.package", "build the archive of a 2020 run from its filtered images, or check one"),
    "export": ("camo.verbs.export", "write TorchScript, torch.export and ONNX files that run without this package"),
    "page": ("camo.verbs.page", "a page in the browser that camouflages photos; nothing leaves the computer"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit status: 0 done, 1 a fault, reported in one line, 2 wrong usage, 130 interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    overview = argparse.ArgumentParser(
        prog="python -m camo",
        epilog="verbs:\n" + "\n".join(f"  {verb:9} {what}" for verb, (_, what) in VERBS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    overview.add_argument("--version", action="version", version=f"camo {__version__}")
    overview.add_argument("verb", choices=VERBS, metavar="VERB", help="see below; python -m camo VERB --help for its options")
    verb = overview.parse_args(argv[:1]).verb
    module = importlib.import_module(VERBS[verb][0])  # so that a verb does not wait for the imports of the others
    parser = argparse.ArgumentParser(prog=f"python -m camo {verb}", description=VERBS[verb][1])
    module.add_arguments(parser)
    args = parser.parse_args(argv[1:])
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name need not be valid Unicode; sys.stderr is so by itself
    # Pillow warns of odd metadata, and of photos between 89 and 179 Mpx (above, it refuses them as bombs): neither is a fault to report.
    warnings.filterwarnings("ignore", module="PIL")
    try:
        status = module.run(args)
        print(end="", flush=True)  # within the try: Python's own last flush would end in a traceback where nobody reads the output any more
        return status
    except CamoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read the output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python's own last flush would fail and say so
        return 1
    except OSError as error:
        place = f"{str(error.filename)!r}: " if error.filename else ""
        print(f"error: {place}{reason(error)}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
