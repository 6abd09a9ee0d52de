"""Pages that show their text before scripts run and with few requests.

The theme asks for some thirty files before a page may be drawn, and brings 2,500 icons,
twice. Here a page waits for one style sheet, with the icons that the book uses; scripts
run when the text is there, and those of the search on the search page alone.
"""

import hashlib
import os
import re
from pathlib import Path

STYLE = re.compile(r'<link [^>]*\brel="stylesheet"[^>]*>\s*')
LOCAL = re.compile(r'\bhref="([^":?]+)')
IMPORT = re.compile(r'@import "([^":]+)";')
URL = re.compile(r"""url\((["']?)(?!data:|https?:|["'#/])([^)"']+)\1\)""")
ICON = re.compile(r'(?:\.fa-[\w-]+::?before,?)+\{content:"[^"]*"\}')
ICON_NAME = re.compile(r"fa-[\w-]+")
UNUSED = re.compile(
    r'<script[^>]* src="[^"]*/fontawesome\.js[^"]*"></script>'
    r'|<link rel="preload" as="script"[^>]*>'
)
SEARCH = re.compile(
    r'<script src="[^"]*(?:searchtools|language_data|searchindex)\.js[^"]*">'
    r"</script>\s*"
)
OPTIONS = re.compile(r'<script src="([^"?]*documentation_options\.js)[^"]*"></script>')
BLOCKING = re.compile(r'<script (?![^>]*\b(?:defer|async|type)\b)(?=[^>]*\bsrc=")')

# The theme would show its light colours until its script has run.
THEME = 'localStorage.getItem("theme") || "auto";'
EARLY_THEME = """document.documentElement.dataset.mode !== "auto"
      ? localStorage.getItem("theme") || "light"
      : matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";"""


def read_style(path, root):
    """The text of a style sheet with its imports, its paths relative to `root`."""

    def imported(match):
        return read_style(path.parent / match[1], root)

    def relative(match):
        place, end = re.match(r"([^?#]*)(.*)", match[2]).groups()
        return f'url("{os.path.relpath(path.parent / place, root)}{end}")'

    text = path.read_text("utf-8").replace('@charset "UTF-8";', "")
    return IMPORT.sub(imported, URL.sub(relative, text))


def used_icons(site):
    """The names of the icons that some page or script of the book mentions."""
    files = [*site.rglob("*.html"), *site.glob("_static/**/*.js")]
    texts = (f.read_text("utf-8") for f in files if f.name != "fontawesome.js")
    return {name for text in texts for name in ICON_NAME.findall(text)}


class Bundles:
    """One style sheet in place of those that a page names, made once for each set."""

    def __init__(self, site):
        self.folder = site / "_static"
        self.icons = used_icons(site)
        self.made = {}

    def __call__(self, paths):
        paths = tuple(path.resolve() for path in paths)
        if paths not in self.made:
            text = "\n".join(read_style(path, self.folder) for path in paths)
            text = ICON.sub(self.keep_icon, text)
            name = f"book-{hashlib.sha256(text.encode()).hexdigest()[:8]}.css"
            self.made[paths] = self.folder / name
            self.made[paths].write_text(text, "utf-8")
        return self.made[paths]

    def keep_icon(self, rule):
        return rule[0] if self.icons.intersection(ICON_NAME.findall(rule[0])) else ""


def lighten(text, page, bundle):
    """The text of a page that asks for one style sheet and waits for no script."""
    paths = tuple(page.parent / LOCAL.search(link)[1] for link in STYLE.findall(text))
    style = os.path.relpath(bundle(paths), page.parent)
    link = f'<link rel="stylesheet" href="{style}" />\n'
    text = UNUSED.sub("", STYLE.sub("", text)).replace("<title>", f"{link}<title>", 1)
    text = text.replace(THEME, EARLY_THEME)
    if page.name != "search.html":
        text = SEARCH.sub("", text)
    text = OPTIONS.sub(
        lambda m: f"<script>{(page.parent / m[1]).read_text()}</script>", text
    )
    return BLOCKING.sub("<script defer ", text)


def lighten_pages(app, exception):
    """Rewrite the pages that this build has written."""
    if exception or app.builder.format != "html":
        return
    site = Path(app.outdir).resolve()
    bundle = Bundles(site)
    for page in sorted(site.rglob("*.html")):
        text = page.read_text("utf-8")
        if "<title>" in text and "_static/book-" not in text:
            page.write_text(lighten(text, page, bundle), "utf-8")


def setup(app):
    app.connect("build-finished", lighten_pages, priority=900)  # after the theme
    return {"parallel_read_safe": True, "parallel_write_safe": True}
