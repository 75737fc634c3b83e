"""What ``camo infer`` has done: counts, and their words."""

from __future__ import annotations  # torch is imported only once there is work, so that --help answers at once

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from camo.camouflage.plan import Job


@dataclass
class Done:
    """Counts of files: written, there already, and of those written the ones of which something was left out or more than 8 bits became 8."""

    written: int = 0
    kept: int = 0
    lessened: int = 0
    rounded: int = 0

    def count(self, job: Job) -> None:
        """Count a photo that was written, and warn of what was left out."""
        from tqdm import tqdm

        photo = job.decoded()
        self.written += 1
        self.rounded += photo.bits > 8
        if photo.left_out:
            self.lessened += 1
            tqdm.write(f"warning: {str(job.source)!r}: left out: {'; '.join(photo.left_out)}", file=sys.stderr)

    def text(self, failed: int, kept: str = "") -> str:
        """The counts in words; ``kept`` says what those are that were there already, if not photos."""
        counts = [f"{self.written} written", f"{self.kept} {kept}there already", f"{failed} failed"]
        counts += [f"{self.lessened} without something that their file held"] if self.lessened else []
        return ", ".join(counts + ([f"{self.rounded} rounded to 8 bits"] if self.rounded else []))
