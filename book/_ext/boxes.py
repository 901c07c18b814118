"""Tables on a phone: in a box that scrolls, or, where a row holds a long text, as cards.

The cards are the style sheet's, which finds here what each cell is of. And folded code, which a
screen reader calls by the words that are seen.
"""

import html
import re
from collections import Counter

from bs4 import BeautifulSoup

TABLE = re.compile(r'(role="region"[^>]*>\s*)?(<table\b.*?</table>)', re.S)
UNSAID = ' aria-label="Toggle hidden content"'
LINE, LONG = 24, 40
"""Characters of a cell that needs more than one line, and of one that gets its own in a card."""


def boxed(found):
    """A table as it was found, or in its box."""
    table = BeautifulSoup(found[2], "html.parser").table
    heads = [cell.get_text(" ", strip=True) for cell in table.select("thead th")]
    rows = [row.find_all(["th", "td"], recursive=False) for row in table.select("tbody tr")]
    widest = max((len(cell.get_text()) for row in rows for cell in row), default=0)
    for cell in (cell for row in rows for cell in row if len(cell.get_text()) > LINE):
        cell["class"] = [*cell.get("class", []), "w2s-lines"]
    if len(heads) > 2 and widest > 1.5 * LONG:
        table["class"] = [*table.get("class", []), "w2s-cards"]
        # Laid out as blocks, a table is none to a screen reader, unless it says so.
        for role, parts in {"table": [table], "row": table.find_all("tr")}.items():
            for part in parts:
                part["role"] = role
        for head, column in zip(heads, zip(*rows, strict=True), strict=True):
            long = max(len(cell.get_text()) for cell in column) > LONG
            for cell in column:
                cell["role"], cell["data-label"] = "cell", head
                cell["class"] = [*cell.get("class", []), *["w2s-long"] * long]
    if found[1]:
        return f"{found[1]}{table}"
    name = html.escape(f"Table: {', '.join(filter(None, heads))}")
    return f'<div class="w2s-scroll" role="region" tabindex="0" aria-label="{name}">{table}</div>'


def box_tables(app, pagename, templatename, context, doctree):
    """Puts each table of a page into its box. Boxes of one name are numbered from the second on."""
    if "body" in context:
        body, seen = TABLE.sub(boxed, context["body"].replace(UNSAID, "")), Counter()

        def numbered(found):
            seen[found[1]] += 1
            return found[0] if seen[found[1]] == 1 else f'{found[0][:-1]} ({seen[found[1]]})"'

        context["body"] = re.sub(r'role="region"[^>]* aria-label="([^"]*)"', numbered, body)


def setup(app):
    """Registers the extension."""
    app.connect("html-page-context", box_tables)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
