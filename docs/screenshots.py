"""Make the pictures of docs/report.md: ``python docs/screenshots.py BASELINE TARGET`` (or ``make screenshots``).

Compares two captures, opens the report in the system's Chromium, and writes small PNGs beside this file.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--no-first-run",
)  # fmt: skip
WIDE = {"viewport": {"width": 1280, "height": 1140}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}  # fmt: skip
IMAGES = Path(__file__).parent / "images"


def main(baseline: str, target: str) -> None:
    """Write report-first.png, report-detail.png and report-phone.png."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as place, sync_playwright() as playwright:
        address = _report(baseline, target, Path(place) / "report.html")
        path = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        IMAGES.mkdir(exist_ok=True)
        _save("report-first", _opened(browser, address, WIDE).screenshot())
        _save("report-detail", _detail(_opened(browser, address, WIDE)))
        _save("report-phone", _opened(browser, address, PHONE).screenshot())
        browser.close()


def _report(baseline: str, target: str, path: Path) -> str:
    from twinrun.comparison.compare import compare
    from twinrun.comparison.picturing import pictures
    from twinrun.report.html import write_report

    result = compare(baseline, target)
    write_report(path, result, pictures=pictures(result, baseline, target))
    return path.as_uri()


def _opened(browser: Any, address: str, options: dict[str, Any]) -> Any:
    context = browser.new_context(
        offline=True, color_scheme="light", reduced_motion="reduce", **options
    )
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector("html[data-ready]")
    return page


def _detail(page: Any) -> bytes:
    """The tree beside the whole detail."""
    page.evaluate("document.getElementById('detail').style.maxHeight = 'none'")
    for part in ("#detail", ".controls"):
        page.evaluate(f"document.querySelector('{part}').style.position = 'static'")
    found: bytes = page.locator(".columns").screenshot()
    return found


def _save(name: str, png: bytes) -> None:
    from PIL import Image

    image = Image.open(io.BytesIO(png)).convert("RGB")
    small = image.quantize(256, Image.Quantize.MEDIANCUT, kmeans=3, dither=Image.Dither.NONE)
    small.save(IMAGES / f"{name}.png", optimize=True)
    print(f"{name}.png {(IMAGES / f'{name}.png').stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main(*sys.argv[1:3])
