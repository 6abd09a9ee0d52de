"""The rendered book, as a reader's browser meets it.

The book is built from its stored outputs with warnings as errors, served from this
machine, and every page is opened in headless Chromium.
"""

import functools
import re
import shutil
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml
from offline import control, why_not, without_network

ROOT = Path(__file__).parent.parent.parent
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TOC = yaml.safe_load((ROOT / "_toc.yml").read_text("utf-8"))
PAGES = [
    f"{name}.html"
    for name in [TOC["root"]]
    + [chapter["file"] for part in TOC["parts"] for chapter in part["chapters"]]
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Folder of the rendered book; the build fails on any warning.

    It runs without a network where the kernel can take it away: `offline`.
    """
    target = tmp_path_factory.mktemp("site")
    command = [Path(sys.executable).with_name("jupyter-book"), "build", ROOT]
    options = ["--path-output", target, "--all", "-W", "-n", "--keep-going", "-q"]
    command = without_network([*command, *options])
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    site = target / "_build" / "html"
    assert (site / "index.html").is_file()
    return site


@pytest.mark.skipif(bool(why_not()), reason=why_not())
def test_the_book_was_built_without_a_network(site):
    """The fixture built it where this control, too, finds no way out."""
    subprocess.run(without_network(control()), check=True)


@pytest.fixture(scope="module")
def address(site):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=site)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
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


@pytest.mark.parametrize("name", PAGES)
def test_page_loads_without_an_error_or_a_foreign_request(open_page, name):
    page = open_page(name)
    assert page.problems == []
    assert page.foreign == []
    assert page.locator("article h1").count() == 1


@pytest.mark.parametrize("name", PAGES)
def test_every_equation_is_drawn(open_page, name):
    page = open_page(name)
    expected = page.locator(".math").count()
    assert page.locator("mjx-container").count() >= expected
    assert page.locator("mjx-merror, [data-mjx-error]").count() == 0


@pytest.mark.parametrize("name", PAGES)
def test_nothing_scrolls_sideways_on_a_phone(open_page, name):
    page = open_page(name, width=375)
    wide = page.evaluate(
        """() => document.documentElement.scrollWidth <= 375 ? [] :
        [...document.querySelectorAll('main *')].filter(e =>
            e.getBoundingClientRect().right > 376 &&
            !e.closest('pre, .math, mjx-container, .output, table'))
        .slice(0, 5).map(e => e.outerHTML.slice(0, 120))"""
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 375, wide


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_serious(open_page, name, scheme):
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(name, scheme=scheme)
    results = Axe().run(page, options={"resultTypes": ["violations"]})
    serious = [
        (v["id"], v["nodes"][0]["html"][:200], len(v["nodes"]))
        for v in results.response["violations"]
        if v["impact"] in ("serious", "critical")
    ]
    assert serious == []


@pytest.mark.parametrize("name", PAGES)
def test_every_image_is_described(open_page, name):
    page = open_page(name)
    described = page.locator("main img").evaluate_all("all => all.map(e => e.alt)")
    assert all(len(alt) > 10 and not alt.endswith(".png") for alt in described)


A4 = 659  # pixels between the margins of a printed page


@pytest.mark.parametrize("name", PAGES)
def test_paper_shows_everything_and_cuts_nothing_off(open_page, name):
    page = open_page(name, width=A4)
    page.emulate_media(media="print")
    assert page.locator("article h1").is_visible()
    bars = page.locator(
        ".bd-sidebar, .bd-header-article, .prev-next-footer, .headerlink"
    )
    assert not any(bar.is_visible() for bar in bars.all())
    hidden, cut = page.evaluate(
        """() => [
        [...document.querySelectorAll('article .solution p, article .cell_input pre')]
            .filter(e => !e.checkVisibility()),
        [...document.querySelectorAll('article :is(pre, table, img, figure, p)')]
            .filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth
                || e.getBoundingClientRect().right > window.innerWidth + 1)
        ].map(all => all.map(e => e.outerHTML.slice(0, 200)).slice(0, 5))"""
    )
    assert hidden == []
    assert cut == []


def test_internal_links_and_anchors_exist(site):
    anchors = {
        path.relative_to(site).as_posix(): set(
            re.findall(r'\bid="([^"]+)"', path.read_text("utf-8"))
        )
        for path in site.rglob("*.html")
    }
    broken = []
    for name in anchors:
        text = (site / name).read_text("utf-8")
        for link in re.findall(r'<a [^>]*href="([^"]+)"', text):
            if re.match(r"[a-z]+:", link):
                continue
            file, _, anchor = link.partition("#")
            target = (
                (site / name).parent.joinpath(file).resolve() if file else site / name
            )
            if not target.is_file():
                broken.append(f"{name}: {link}")
            elif anchor and target.suffix == ".html":
                key = target.relative_to(site.resolve()).as_posix()
                if anchor not in anchors[key]:
                    broken.append(f"{name}: {link}")
    assert broken == []
