"""Under each figure: its data as a file, the runs that it rests on, the code that drew it.

Which runs these are stands in the executed notebook's metadata (`w2s_lib/publishing/sources.py`).
"""

import csv
import html
import re
from pathlib import Path

import nbformat
import vega_charts
from chart_data import MOST_ROWS, chart_rows, data_tables
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name

from w2s_lib.figures.style import MIME
from w2s_lib.publishing.sources import KEY, unpacked

FOLDER = "_static/data"
FILES = {}
"""Name of a file -> the rows that go into it when the build ends."""
MOST_RUNS = 60
"""Of a list that is read; more are a file."""
RUN_ROW = re.compile(r"<tr>(?=(?:(?!<tr>).)*?<td>([0-9a-f]{16})</td>)", re.S)


def read_notebook(text):
    """An executed notebook as `vega_charts` reads it, with a line under each figure."""
    plain, notebook = nbformat.reads(text, as_version=4), vega_charts.read_notebook(text)
    made, anchors = unpacked(notebook) if KEY in notebook.metadata else {}, set()
    for cell, shown in zip(plain.cells, notebook.cells, strict=True):
        outputs, tags = [], shown.metadata.get("tags", [])
        for old, new in zip(cell.get("outputs", []), shown.get("outputs", []), strict=True):
            outputs.append(with_anchors(new, anchors))
            if spec := old.get("data", {}).get(MIME):
                name = f"{cell.id}-{len(outputs)}.csv"
                line = line_under(spec, name, cell, made, folded="hide-input" in tags)
                outputs.append(nbformat.v4.new_output("display_data", {"text/html": line}))
                shown.metadata["tags"] = [tag.replace("hide-input", "remove-input") for tag in tags]
        if outputs:
            shown.outputs = outputs
    return notebook


def line_under(spec, name, cell, made, *, folded):
    """The HTML of the line under one figure: each part says whose it is, for the build's check."""
    rows, mine = chart_rows(spec), f'data-figure="{vega_charts.chart_id(spec)}"'
    parts = [f'<span class="w2s-data" {mine}>no data: you make the numbers</span>']
    if rows:
        FILES[name] = rows
        about = 'aria-label="the data of this figure as a CSV file"'
        parts = [f'<a class="w2s-data" {mine} href="{FOLDER}/{name}" {about} download>data</a>']
        if len(rows) <= MOST_ROWS:
            parts.append(f"<details><summary>table</summary>{data_tables(spec)}</details>")
    if cell.id in made.get("figures", {}):
        parts.append(runs(made["figures"][cell.id], made["runs"], f"{cell.id}-runs.csv", mine))
    code = "code above" if not folded else highlighted(cell.source)
    parts.append(f'<span class="w2s-code" {mine}>{code}</span>' if not folded else
                 f'<details class="w2s-code" {mine}><summary>code</summary>{code}</details>')  # fmt: skip
    return f'<div class="w2s-behind">{"".join(parts)}</div>'


def runs(ids, known, name, mine):
    """The runs by arm, each that is published with a link to its row on the scorecard; many as a file."""
    if not ids:
        return f'<span class="w2s-runs" {mine}>no runs</span>'
    ids = sorted(ids, key=lambda run: (known[run]["arm"], known[run]["seed"]))
    if len(ids) > MOST_RUNS:
        FILES[name] = [
            {key: known[run][key] for key in ("arm", "seed")} | {"run": run} for run in ids
        ]
        about = 'aria-label="the runs of this figure as a CSV file"'
        return f'<a class="w2s-runs" {mine} href="{FOLDER}/{name}" {about} download>{len(ids)} runs</a>'
    arms = {}
    for run in ids:
        arms.setdefault(known[run]["arm"], []).append(link(run, known[run]))
    lines = "".join(f"<li>{html.escape(arm)}: {', '.join(all_)}</li>" for arm, all_ in arms.items())
    summary = f"{len(ids)} run{'s' if len(ids) > 1 else ''}"
    return f'<details class="w2s-runs" {mine}><summary>{summary}</summary><p>Seed and run:</p><ul>{lines}</ul></details>'


def link(run, about):
    """A run's seed and id."""
    name = f'<a href="scorecard.html#run-{run}">{run}</a>' if about["published"] else run
    return f"<span>{about['seed']} {name}</span>"


def highlighted(source):
    """Python as the theme shows it elsewhere."""
    shown = highlight(source, get_lexer_by_name("ipython3"), HtmlFormatter(wrapcode=False))
    return f'<div class="highlight-ipython3 notranslate">{shown}</div>'


def with_anchors(output, taken):
    """An output whose table rows can be led to by the run that they are of.

    The style of each cell, which JupyterLab needs, is the page's own, and half of a long table.
    """

    def anchored(row):
        if row[1] in taken:
            return row[0]
        taken.add(row[1])
        return f'<tr id="run-{row[1]}">'

    if table := output.get("data", {}).get("text/html"):
        plain = table.replace(' style="text-align: left"', "")
        output.data["text/html"] = RUN_ROW.sub(anchored, plain)
    return output


def write_files(app, error):
    """Writes the figures' data beside the pages."""
    if error is None and app.builder.format == "html":
        folder = Path(app.outdir, FOLDER)
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in FILES.items():
            columns = list(dict.fromkeys(column for row in rows for column in row))
            with open(folder / name, "w", encoding="utf-8", newline="") as file:
                table = csv.DictWriter(file, columns, lineterminator="\n")
                table.writeheader()
                table.writerows(rows)


def setup(app):
    """Registers the extension."""
    app.connect("build-finished", write_files)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
