"""Press the buttons of the page in a real browser, against a real server, and take a picture.

Needs `pip install playwright` and a Chromium (on Debian: `apt-get install chromium`):
    python examples/poem-page/check_browser.py --browser /usr/bin/chromium --picture poem.png
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

HERE = Path(__file__).resolve().parent
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def wait_for(process: subprocess.Popen[str], words: str) -> None:
    """Read what a process prints until it says some words."""
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return
    raise SystemExit(f"the process ended before it said {words!r}")


def check(page: Page, picture: str | None) -> None:
    """Read the poem in both ways, and stop it in both ways."""
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto("http://localhost:8000/")
    for button in ("fetch", "source"):
        page.fill("#pause", "50")
        page.click(f"#{button}")
        expect(page.locator("#status")).to_contain_text("Complete", timeout=10_000)
        expect(page.locator("#count")).to_have_text("9")
        expect(page.locator("#poem")).to_contain_text("a choir")
        assert page.locator("#progress").evaluate("bar => bar.value / bar.max") == 1
        print(f"{button}: {page.locator('#status').text_content()}")

        page.fill("#pause", "400")
        page.click(f"#{button}")
        page.wait_for_function("Number(document.getElementById('count').textContent) >= 3")
        if picture and button == "fetch":
            page.screenshot(path=picture)
        page.click("#stop")
        expect(page.locator("#status")).to_contain_text("Stopped")
        count = page.locator("#count").text_content()
        time.sleep(1)
        expect(page.locator("#count")).to_have_text(count or "")
        assert count != "9", f"{button}: the stop came too late to show anything"
        print(f"{button}: stopped after {count} chunks")
    assert not complaints, complaints


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--browser", help="the browser's program; playwright's own if not given")
    arguments.add_argument("--picture", help="where to write a picture of the page")
    given = arguments.parse_args()
    streamstack = str(Path(sys.executable).with_name("streamstack"))
    server = subprocess.Popen([streamstack, "serve", str(HERE / "definitions")], stderr=subprocess.PIPE, text=True)
    files = subprocess.Popen(
        [sys.executable, "-m", "http.server", "8000", "--directory", str(HERE)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(server, "serving ")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=given.browser, args=FLAGS)
            check(browser.new_page(viewport={"width": 800, "height": 720}), given.picture)
            browser.close()
    finally:
        server.terminate()
        files.terminate()
        log = server.stderr.read() if server.stderr else ""
        server.wait()
        files.wait()
    outcomes = [word for word in ("completed", "cancelled") for _ in range(log.count(f"was {word}"))]
    assert outcomes == ["completed"] * 2 + ["cancelled"] * 2, log
    print("the server saw: 2 completed, 2 cancelled")


if __name__ == "__main__":
    main()
