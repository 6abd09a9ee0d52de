"""Print the single-page build as one PDF with headless Chromium.

python tools/print_pdf.py _build/pdf/_build/singlehtml/index.html _build/book.pdf
"""

import shutil
import sys
from pathlib import Path

import pikepdf
from playwright.sync_api import sync_playwright

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
FOOTER = """<div style="width: 100%; font: 8pt sans-serif; text-align: center">
<span class="pageNumber"></span></div>"""
# Pictures that wait to be scrolled to, folded parts, and equations still to be drawn.
READY = """async () => {
    document.querySelectorAll('img').forEach(e => e.loading = 'eager');
    document.querySelectorAll('details').forEach(e => e.open = true);
    await document.fonts.ready;
    await window.MathJax.startup.promise;
    // Every element becomes an object of the PDF: one for a run of code in one colour
    // is enough, where the page has one for each word.
    for (const pre of document.querySelectorAll('pre:not(:has(a))')) {
        const runs = [], texts = document.createTreeWalker(pre, NodeFilter.SHOW_TEXT);
        while (texts.nextNode()) {
            const text = texts.currentNode.data;
            const style = getComputedStyle(texts.currentNode.parentElement);
            const look = `color: ${style.color}; font-weight: ${style.fontWeight};`
                + `font-style: ${style.fontStyle}`;
            if (runs.length && (runs.at(-1).look === look || !text.trim()))
                runs.at(-1).text += text;
            else runs.push({look, text});
        }
        pre.replaceChildren(...runs.map(run => {
            const span = document.createElement('span');
            span.style = run.look;
            span.textContent = run.text;
            return span;
        }));
    }
    return document.querySelectorAll('.math').length
        - document.querySelectorAll('mjx-container').length;
}"""


def print_pdf(page: Path, target: Path) -> None:
    """Write the PDF of an HTML file once all its equations are drawn."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("pdf: no chromium here: install it (Debian: apt install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        tab = browser.new_page(color_scheme="light")
        tab.set_default_timeout(600_000)
        tab.goto(page.resolve().as_uri(), wait_until="load")
        missing = tab.evaluate(READY)
        if missing > 0:
            sys.exit(f"pdf: {missing} equations were not drawn")
        tab.pdf(
            path=target,
            prefer_css_page_size=True,
            print_background=True,
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=FOOTER,
            outline=True,
            tagged=True,
        )
        browser.close()
    pack(target)


def pack(path: Path) -> None:
    """Compress what Chromium leaves plain: which words form a paragraph, and so on."""
    with pikepdf.open(path, allow_overwriting_input=True) as pdf:
        pdf.save(path, object_stream_mode=pikepdf.ObjectStreamMode.generate)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    print_pdf(Path(sys.argv[1]), Path(sys.argv[2]))
