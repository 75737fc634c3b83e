"""Seconds and memory of the page in Chromium, photo by photo: ``python -m benchmarks.page [--look NAME]``. The page has to be built (make page).

The seconds are those of a photo from its choice until it can be saved, its scores included; the CPU seconds, which other work on the machine hardly
changes, are those of all threads. The memory is the peak of the process that holds the page. Both leave out the other processes of Chromium.
"""

from __future__ import annotations  # playwright is imported only once there is something to measure

import argparse
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from benchmarks.common import make_photos, tell
from camo.page.files import built
from camo.page.server import server

if TYPE_CHECKING:
    from playwright.sync_api import Page

SIZES = ((512, 384), (1632, 1224), (4000, 3000))
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync")
PATIENCE = 600_000  # ms


class Renderer(threading.Thread):
    """Watches the process of the browser that holds the page: its CPU seconds, and the most memory (bytes) while the thread runs."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        children = psutil.Process().children(recursive=True)
        self.process = max((child for child in children if "--type=renderer" in child.cmdline()), key=lambda child: child.memory_info().rss)
        self.bytes, self.ended = 0, threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.2):
            self.bytes = max(self.bytes, self.process.memory_info().rss)

    def cpu_seconds(self) -> float:
        times = self.process.cpu_times()
        return times.user + times.system


def measured(page: Page, photo: Path) -> dict[str, float]:
    """Seconds, CPU seconds and memory of a photo. Raises RuntimeError where it fails."""
    renderer = Renderer()
    renderer.start()
    start, cpu = time.monotonic(), renderer.cpu_seconds()
    page.set_input_files("#files", photo)
    page.wait_for_selector("li .save:visible, li.fault", timeout=PATIENCE)
    figures = {"seconds": time.monotonic() - start, "CPU seconds": renderer.cpu_seconds() - cpu}
    renderer.ended.set()
    renderer.join()
    if page.locator("li.fault").count():
        raise RuntimeError(page.inner_text("#photos"))
    return {**figures, "peak MB": renderer.bytes / 1e6}


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chromium", default=shutil.which("chromium"), help="the browser's program")
    parser.add_argument("--look", default="", help="a look that the page offers (default: none)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parser.parse_args()
    from playwright.sync_api import sync_playwright

    rows = []
    with tempfile.TemporaryDirectory() as folder, server(built(), 0) as running, sync_playwright() as playwright:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        for size in SIZES:
            make_photos(Path(folder, f"{size[0]}"), 1, size)
            (photo,) = Path(folder, f"{size[0]}").iterdir()
            browser = playwright.chromium.launch(executable_path=args.chromium, args=list(FLAGS))
            page = browser.new_page()
            page.goto(f"http://127.0.0.1:{running.server_port}/")
            page.wait_for_selector("body[data-ready]", timeout=PATIENCE)
            page.select_option("#look", args.look)
            rows.append({"photo": f"{size[0]}x{size[1]}", "look": args.look or "none", **measured(page, photo)})
            browser.close()
        running.shutdown()
    tell("page", rows, args.json)


if __name__ == "__main__":
    main()
