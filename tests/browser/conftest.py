"""The rendered book and a browser to open it in, for all tests of this folder.

The book is built once, from its stored outputs and with warnings as errors, served from
this machine, and opened in headless Chromium.
"""

import functools
import os
import shutil
import subprocess
import sys
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from offline import without_network

ROOT = Path(__file__).parent.parent.parent
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def build(target):
    """Render the book into the folder `target`; any warning is a failure.

    It runs without a network where the kernel can take it away: `offline`.
    """
    command = [Path(sys.executable).with_name("jupyter-book"), "build", ROOT]
    options = ["--path-output", target, "--all", "-W", "-n", "--keep-going", "-q"]
    command = without_network([*command, *options])
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


def build_once(target):
    """Build the book, or wait for the worker of this test run that does."""
    done = target / "done"
    try:
        target.mkdir()
    except FileExistsError:
        deadline = time.monotonic() + 600
        while not done.exists() and time.monotonic() < deadline:
            time.sleep(0.2)
        return
    try:
        build(target)
    finally:
        done.touch()


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """Folder of the rendered book; the workers of one test run share it."""
    base = tmp_path_factory.getbasetemp()
    target = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "site"
    build_once(target)
    site = target / "_build" / "html"
    assert (site / "index.html").is_file()
    return site


@pytest.fixture(scope="session")
def address(site):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=site)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="session")
def browser():
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium here: install it (Debian: apt install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, address):
    """Open a page of the book; collect what it asks for and complains about."""
    contexts = []

    def open_page(name, width=1280, scheme="light", **options):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, **options
        )
        contexts.append(context)
        context.set_default_timeout(120_000)  # machines can be busy
        page = context.new_page()
        page.problems, page.foreign = [], []
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on(
            "console",
            lambda m: page.problems.append(m.text) if m.type == "error" else None,
        )
        page.on("requestfailed", lambda r: page.problems.append(f"failed: {r.url}"))
        page.on(
            "response",
            lambda r: (
                page.problems.append(f"{r.status}: {r.url}")
                if r.status >= 400
                else None
            ),
        )
        page.on(
            "request",
            lambda r: (
                page.foreign.append(r.url)
                if not r.url.startswith((address, "data:", "blob:"))
                else None
            ),
        )
        assert page.goto(f"{address}/{name}", wait_until="load").ok
        if page.locator(".math").count():
            page.wait_for_function(
                "document.querySelectorAll('mjx-container').length > 0"
                " && window.MathJax.startup.promise.then(() => true)"
            )
        page.wait_for_load_state("networkidle")
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def stop_time():
    """Stop a page's clock; `page.clock.run_for` moves it on, however busy we are."""

    def stop_time(page):
        page.clock.install(time=0)
        page.clock.pause_at(1000)

    return stop_time


def serious_faults(page):
    """What axe-core finds serious or critical on a page."""
    from axe_playwright_python.sync_playwright import Axe

    results = Axe().run(page, options={"resultTypes": ["violations"]})
    return [
        (v["id"], v["nodes"][0]["html"][:200], len(v["nodes"]))
        for v in results.response["violations"]
        if v["impact"] in ("serious", "critical")
    ]


@pytest.fixture
def faults():
    return serious_faults
