"""The verb ``page``: the page that camouflages photos in the browser, served to this machine alone or written for any web server."""

import argparse
import webbrowser
from pathlib import Path

from camo import CamoError
from camo.page.files import built, copy_to
from camo.page.server import HOST, server

PORT = 8620


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verb's flags."""
    parser.add_argument("--port", type=port, metavar="N", help=f"port to serve on, 0 for any free one (default: {PORT})")
    parser.add_argument("--no-browser", action="store_true", help="do not open a browser")
    parser.add_argument("--out", type=Path, metavar="DIR", help="write the page into a new folder, for any web server, and serve nothing")
    parser.epilog = f"The page is served on {HOST} only. Photos are worked on in the browser and are not sent anywhere."


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C, or write the folder; return 0. Raises CamoError: not built, a port in use, a folder that cannot be written."""
    if args.out is not None and (args.port is not None or args.no_browser):
        raise CamoError(f"--out {args.out} serves nothing: leave out --port and --no-browser")
    folder = built()
    if args.out is not None:
        print(f"{args.out}: {copy_to(folder, args.out)} files")
        return 0
    with server(folder, PORT if args.port is None else args.port) as running:
        address = f"http://{HOST}:{running.server_port}/"
        print(f"{address} (Ctrl-C ends it)", flush=True)
        if not args.no_browser:
            webbrowser.open(address)
        try:
            running.serve_forever()
        except KeyboardInterrupt:  # the way to end it
            print()
    return 0


def port(text: str) -> int:
    """Parse a port. Raises ArgumentTypeError."""
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{number} is not a port, 0 to 65535")
    return number
