"""A light site: what no page uses is not in it.

Icons are the book's own (`icons.css`), the mathematical font holds the page's characters alone, and
of the theme's files those are kept that a page, a style or a script names. The theme's sidebar, which
a screen reader could not name, becomes a region.
"""

import logging
import re
import unicodedata
from importlib.resources import as_file, files
from pathlib import Path

from fontTools import subset

FONT = "STIXTwoMath-Regular.ttf"
DROPPED = re.compile(
    r'\s*<(?:link|script)[^>]*(?:src|href)="[^"]*(?:fontawesome|thebe)[^"]*"[^>]*>(?:</script>)?'
)
UNSTYLED = re.compile(r"\s*<(?:link|script)[^>]*(?:sphinx-design|design-tabs)[^>]*>(?:</script>)?")
SIDEBAR = '<div class="bd-sidebar-primary'
MAP = re.compile(r"\s*(?:/\*|//)# sourceMappingURL=\S+(?: ?\*/)?")
COLOUR = re.compile(
    r'data-theme="(\w+)"\] \.highlight (?:\.(\w+) )?{ (?:background: #\w+; )?color: (#\w+) }'
)
FORMULA = re.compile(r"<math.*?</math>", re.S)
RUN = re.compile(r'(<tr id="run-.*?)</tr>(?=<tr|</tbody>)', re.S)
"""A row of the list of all runs, of which there are a thousand."""
NAMED = re.compile(r"[\w.-]+\.\w+")
ITALIC = {unicodedata.normalize("NFKC", c): c for c in map(chr, range(0x1D434, 0x1D7CC))
          if "MATHEMATICAL ITALIC" in unicodedata.name(c, "")} | {"h": "\u210e"}  # fmt: skip
"""A letter -> the italic one that a browser shows for it as a name in a formula."""


def lighten(app, error):
    """Takes out of the built site what it does not need."""
    if error is not None or app.builder.format != "html":
        return
    site = Path(app.outdir)
    pages = {path: path.read_text(encoding="utf-8") for path in sorted(site.rglob("*.html"))}
    pages = {path: page for path, page in pages.items() if site / "_static" not in path.parents}
    plain = uncoloured((site / "_static" / "pygments.css").read_text(encoding="utf-8"))
    designed = any(re.search(r'class="[^"]*\bsd-', page) for page in pages.values())
    for path, page in pages.items():
        page = plain.sub(r"\1", DROPPED.sub("", page))
        page = RUN.sub(lambda row: row[1].replace("</td>", ""), page)  # the next tag says it too
        page = page.replace(SIDEBAR, SIDEBAR.replace("div", 'div role="region" aria-label="Book"'))
        pages[path] = page if designed else UNSTYLED.sub("", page)
        path.write_text(pages[path], encoding="utf-8")
    write_font(site / "_static", "".join(pages.values()))
    static = [path for path in (site / "_static").rglob("*") if path.is_file()]
    texts = {
        path: path.read_text(encoding="utf-8") for path in static if path.suffix in {".css", ".js"}
    }
    for path, text in texts.items():
        texts[path] = MAP.sub("", text)
        path.write_text(texts[path], encoding="utf-8")
    named = set(NAMED.findall("".join(pages.values())))
    while (
        more := {n for p, t in texts.items() if p.name in named for n in NAMED.findall(t)} - named
    ):
        named |= more
    for path in static:
        if path.name not in named:
            path.unlink()
    for folder in sorted((p for p in (site / "_static").rglob("*") if p.is_dir()), reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()


def uncoloured(css):
    """Parts of code that have the colour of all code, by day and by night: half of what code weighs."""
    themes = {}
    for theme, kind, colour in COLOUR.findall(css):
        themes.setdefault(theme, {})[kind] = colour
    alike = [{kind for kind in kinds if kinds[kind] == kinds[""]} for kinds in themes.values()]
    plain = set.intersection(*alike) - {""}
    return re.compile(rf'<span class="(?:{"|".join(sorted(plain))})">([^<]*)</span>')


def write_font(static, pages):
    """Adds a font with mathematical tables, for machines that have none: there brackets do not grow.

    It holds the characters of the pages' formulas, and what these grow to.
    """
    formulas = "".join(FORMULA.findall(pages))
    if not formulas:
        return
    text = set(re.sub(r"<[^>]*>", "", formulas)) | set("()[]{}|0123456789+-\u2212=.,\u2032\u2026")
    options = subset.Options(layout_features=["*"], flavor="woff", notdef_outline=True)
    with as_file(files("ziamath") / "fonts" / FONT) as path:
        font = subset.load_font(str(path), options)
    small = subset.Subsetter(options)
    small.populate(text="".join(sorted(text | {ITALIC[c] for c in text if c in ITALIC})))
    small.subset(font)
    font["head"].modified = font["head"].created  # the same pages give the same bytes
    font.recalcTimestamp = False
    subset.save_font(font, str(static / "book-math.woff"), options)


def setup(app):
    """Registers the extension."""
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells each step, otherwise
    app.connect("build-finished", lighten, priority=950)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
