"""How long Chromium takes to open the page of a run with 10,000 samples, how large it is, how it scrolls.

    python tests/benchmarks/report_page.py [--num 2500] [--out FOLDER]

Four variants of ``num`` samples at 32 pixels. Opening is from navigation to the load event, best and worst of
five fresh pages; scrolling is the time between frames while the sample browser is scrolled through, after its
rows were built. Figures: bench/docs/report.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from playwright.sync_api import sync_playwright
from report.conftest import chromium_path
from report.synthetic import synthetic_run

from bench.report.html.page import write_html
from bench.report.view import RunView

SCROLL = """async () => {
  document.querySelector('.browser').scrollIntoView({behavior: 'instant'});
  await new Promise((done) => setTimeout(done, 1500));
  const gaps = [];
  let last = performance.now();
  for (let k = 0; k < 180; k++) {
    window.scrollBy({top: 60, behavior: 'instant'});
    const now = await new Promise(requestAnimationFrame);
    gaps.push(now - last);
    last = now;
  }
  gaps.sort((a, b) => a - b);
  return [gaps[90], gaps[171], gaps[179], document.querySelectorAll('.tile').length];
}"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num", type=int, default=2500)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        out = given.out or Path(temporary)
        run = synthetic_run(
            out / "run", num=given.num, samplers=("prior", "langevin", "translator", "tr0n"), size=32
        )
        begin = time.perf_counter()
        page_file, *pictures = write_html([RunView(run)], out / "report", store_url=str(out / "none"))
        made = time.perf_counter() - begin
        print(
            f"{4 * given.num} samples: {page_file.stat().st_size / 2**20:.1f} MiB, {len(pictures)} beside, "
            f"made in {made:.1f} s"
        )
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium_path(), args=["--no-sandbox"])
            seconds = []
            for _ in range(5):
                page = browser.new_context().new_page()
                begin = time.perf_counter()
                page.goto(page_file.resolve().as_uri(), wait_until="load")
                seconds.append(time.perf_counter() - begin)
            print(f"opens in {min(seconds):.2f} to {max(seconds):.2f} s")
            median, p95, worst, tiles = page.evaluate(SCROLL)
            print(
                f"scrolling: {median:.1f} ms a frame, 95 % within {p95:.1f}, worst {worst:.1f}; {tiles} tiles"
            )
            browser.close()


if __name__ == "__main__":
    main()
