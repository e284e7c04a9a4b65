"""The report of 200 cells x 13 benchmarks: time to generate it, size of the page, and time to open it.

The run is synthesized first, which takes a minute or more; `--size 0.2` reduces every benchmark to a fifth of its
samples, and `--profile` prints a profile.
"""

from __future__ import annotations

import cProfile
import pstats
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from browser import Browser, find_chromium
from common import report
from made_up_study import MadeUpStudy

from prunelab.reports import write_report

MODELS = ("LLaMA-3-8B", "Gemma-2-9B", "Gemma-2-2B", "Qwen2-1.5B")
METHODS = ("shortgpt", "flap", "hybrid", "magnitude_depth", "magnitude_width", "random_depth", "random_width")
RATIOS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4)
BUILDING, WEIGHT, OPENING = 10.0, 5.0, 2.0
"""Seconds, megabytes, seconds."""


def main() -> None:
    """Print processor seconds to generate the report, the page's size, and seconds until a browser has rendered it."""
    size = float(sys.argv[sys.argv.index("--size") + 1]) if "--size" in sys.argv else 1.0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        run = MadeUpStudy(folder / "run", MODELS, METHODS, RATIOS, seeds=(0,), size=size).run()
        cells = {(m.model, m.method, m.ratio) for m in run.measurements}
        benchmarks = {m.benchmark for m in run.measurements}
        grid = f"{len(cells)} cells x {len(benchmarks)} benchmarks of {size:g} times their real size"
        print(f"{grid}, {len(run.measurements)} figures", flush=True)
        profile = cProfile.Profile() if "--profile" in sys.argv else None
        # Processor time, which excludes other load on the machine; nothing here waits.
        start, wall = time.process_time(), time.perf_counter()
        if profile:
            profile.enable()
        write_report(run)
        if profile:
            profile.disable()
            pstats.Stats(profile).sort_stats("cumtime").print_stats(60)
        report("generating the report, s", time.process_time() - start, 0.0, BUILDING)
        print(f"(wall clock {time.perf_counter() - wall:.1f} s)", flush=True)
        page = run.folder / "report" / "index.html"
        report("size of the page, MB", page.stat().st_size / 1e6, 0.0, WEIGHT)
        executable = find_chromium()
        if executable is None:
            print("Chromium is not installed: the time to open the page was not measured")
            return
        with Browser(executable, folder / "profile") as browser:
            seconds = []
            for _ in range(5):
                began = time.perf_counter()
                opened = browser.open(page)
                opened.settle()
                seconds.append(time.perf_counter() - began)
                opened.close()
        report("opening the page, s", median(seconds), (max(seconds) - min(seconds)) / 2, OPENING)


if __name__ == "__main__":
    main()
