"""``infer.py --cluster`` on this machine beside the plain pipeline: ``python -m benchmarks.cluster [--counts 1000] [--size 512x384]``.

Each row is one run as a whole process, with the time that Ray takes to start. The seconds of CPU are those of all its processes, read until the last
one ends; where other programs keep the cores busy, they say more than the clock. The memory is the sum of the proportional set sizes (PSS), in which
pages that several processes share, such as Ray's object store, count once. It is read every five seconds; its peak is given for the first tenth of
the photos and for all.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.common import ROOT, make_photos, tell


def watched(command: list[object], out: Path, count: int, every: float = 5.0) -> dict[str, float]:
    """Run a process that writes ``count`` files; its seconds, the CPU seconds of all its processes, and their largest memory together, in MB."""
    start = time.perf_counter()
    process = psutil.Popen(list(map(str, command)), cwd=ROOT, stdout=subprocess.DEVNULL)
    seconds_of: dict[int, float] = {}
    most = most_of_tenth = 0
    while process.poll() is None:
        held = 0
        for each in [process, *_children(process)]:
            try:
                times = each.cpu_times()
                seconds_of[each.pid] = times.user + times.system
                held += each.memory_full_info().pss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        most = max(most, held)
        if sum(1 for _ in out.glob("*.jpg")) <= count / 10:
            most_of_tenth = most
        time.sleep(every)
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: failed")
    return {"s": time.perf_counter() - start, "CPU s": sum(seconds_of.values()), "peak MB, a tenth": most_of_tenth / 1e6, "peak MB": most / 1e6}


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", nargs="+", type=int, default=[1000], help="photos in one run (default: 1000)")
    parser.add_argument("--size", default="512x384", help="width x height (default: 512x384)")
    parser.add_argument("--only-cluster", action="store_true", help="leave out the plain pipeline")
    parser.add_argument("--checkpoint", type=Path, help="the filter's weights (default: the shipped ones)")
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parser.parse_args()
    width, height = map(int, args.size.split("x"))
    rows = []
    for count in args.counts:
        with tempfile.TemporaryDirectory() as folder:
            make_photos(Path(folder, "in"), count, (width, height))
            plain: dict[str, float] = {}
            for name, flags in {"plain": [], "cluster": ["--cluster", "auto"]}.items():
                if name == "plain" and args.only_cluster:
                    continue
                flags = [*flags, *(["--checkpoint", args.checkpoint.resolve()] if args.checkpoint else [])]
                command = [sys.executable, ROOT / "infer.py", Path(folder, "in"), "--out", Path(folder, name), "--device", "cpu", *flags]
                figures = watched(command, Path(folder, name), count)
                plain = plain or (figures if name == "plain" else {})
                ratios = {f"{key} ratio": figures[key] / plain[key] if plain else float("nan") for key in ("s", "CPU s")}
                rows.append({"photos": count, "size": args.size, "pipeline": name, **figures, **ratios})
    tell("cluster", rows, args.json)


if __name__ == "__main__":
    main()
