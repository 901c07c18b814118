"""What a chart shows, as plain rows: for its alternative, for the table under it, for a file.

A chart's data are what its tooltips say; where no mark has one, what its marks encode.
"""

import html
import math

from w2s_lib.figures.table import plain
from w2s_lib.measures.intervals import minus
from w2s_lib.publishing.pages import finding

GROUPS = ("layer", "concat", "hconcat", "vconcat")
MOST_ROWS = 100
"""Of a table that is read, or heard; more are in the file alone."""
NUMBERS = ("value", "low", "high")
"""Columns of an estimate, whose text says them too."""


def parts(spec):
    """A chart and all charts in it, at any depth."""
    yield spec
    for part in (part for group in GROUPS for part in spec.get(group, ())):
        yield from parts(part)


def marks(spec, above=None):
    """Each mark of a chart, with what it takes from the charts around it: data and channels."""
    above = above or {}
    encoding = {**above.get("encoding", {}), **spec.get("encoding", {})}
    transform = [*above.get("transform", []), *spec.get("transform", [])]
    one = {"data": spec.get("data", above.get("data", {}))}
    one |= {"encoding": encoding, "transform": transform}
    for part in (part for group in GROUPS for part in spec.get(group, ())):
        yield from marks(part, one)
    if "mark" in spec:
        yield one


def columns(encoding, tips):
    """Field -> its column, of the tooltip or else of all channels."""
    listed = encoding.get("tooltip", []) if tips else list(encoding.values())
    listed = [c for c in (listed if isinstance(listed, list) else [listed]) if "field" in c]
    named = {c["field"]: (tips and (c.get("title") or "").strip()) or c["field"] for c in listed}
    text = named.pop("interval", None)
    return {**named, **{name: name for name in NUMBERS}, "interval": text} if text else named


def chart_rows(spec):
    """The data of a Vega-Lite chart: a list of dicts, a number or a text a column.

    Names come first. An estimate has the columns `value`, `low` and `high`, and last one with its
    text. Where the page computes what is drawn (behind sliders), the rows are what it begins with.
    Rows that several marks draw are there once; one without a number is left out.
    """
    rows, drawn, found = [], [], list(marks(spec))
    tips = any("tooltip" in mark["encoding"] for mark in found)
    for mark in found:
        named, data = columns(mark["encoding"], tips), mark["data"]
        values = data.get("values") or spec.get("datasets", {}).get(data.get("name"), [])
        if mark["transform"]:
            named = {field: field for row in values for field in row}
        if not named or (set(named), values) in drawn:
            continue
        drawn.append((set(named), values))
        for row in values:
            kept = {name: row[field] for field, name in named.items() if field in row}
            names = {k: v for k, v in kept.items() if isinstance(v, str) and "[" not in v}
            if "low" in kept or len(names) < len(kept):
                rows.append(names | kept)
    return rows


def alternative(spec):
    """The finding and the data, for a reader who does not see the chart.

    Of a chart of estimates these; of one with sliders, whose numbers move, the sentence alone; of
    more than are listened to, how many there are.
    """
    rows = [] if any("bind" in p for p in spec.get("params", [])) else chart_rows(spec)
    rows = [row for row in rows if "low" in row] or rows
    said = [
        ": ".join(shown(v) for k, v in row.items() if "low" not in row or k not in NUMBERS)
        for row in rows
    ]
    if len(said) > MOST_ROWS:
        said = [f"{len(said)} rows of data, in the file under the figure"]
    return ". ".join(filter(None, [finding(spec), "; ".join(said)]))


def shown(value):
    """A value as text."""
    if isinstance(value, float):
        return minus(f"{value:.4g}")
    return "" if value is None else plain(str(value)).replace("\xa0", " ")


def data_tables(spec):
    """The rows as HTML, a table a kind. Of an estimate it has the text, which says the numbers."""
    kinds = {}
    for row in chart_rows(spec):
        said = {k: v for k, v in row.items() if "low" not in row or k not in NUMBERS}
        kinds.setdefault("low" not in row, {}).setdefault(tuple(said), []).append(said)
    return "".join(html_table(rows) for part in sorted(kinds) for rows in kinds[part].values())


def html_table(rows):
    """Rows as an HTML table, without columns that are empty in every row."""
    named = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: evenly([row.get(name) for row in rows]) for name in named}
    columns = {name: texts for name, texts in columns.items() if any(texts)}
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in columns)
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(text)}</td>' for text in row)}</tr>"
        for row in zip(*columns.values(), strict=True)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def evenly(values):
    """The values of a column as texts; its numbers with as many decimals as the largest has digits for.

    Three digits, or fewer where that loses nothing.
    """
    numbers = [abs(value) for value in values if isinstance(value, float)]
    largest = max(numbers, default=0.0) or 1.0
    wanted = max(0, 2 - math.floor(math.log10(largest)))
    needed = max((len(f"{n:.6f}".rstrip("0").partition(".")[2]) for n in numbers), default=0)
    return [
        minus(f"{value:z.{min(wanted, needed)}f}") if isinstance(value, float) else shown(value)
        for value in values
    ]
