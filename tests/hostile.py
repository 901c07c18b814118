"""A text that would do something, if it were taken for more than a text; and a cell that shows it in every way."""

TEXT = (
    "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 2'><!--<script> "
    "{term}`x` **bold** $x$ `` [x](javascript:window.hacked=3) \u202egnorw"
)
PLAIN = TEXT.replace("\u202e", "\\u202e")
"""As it is to be read."""
CELL = f"""
import altair as alt
import pandas as pd
from IPython.display import display

import w2s_lib as w2s
from w2s_lib.publishing.examples import Examples

w2s.use_theme()
pd.set_option("display.max_colwidth", None)
hostile = {TEXT!r}
shown = {{"experiment": [hostile], "seed": [300], "error repeated": [1], "both right": [0]}}
shown |= {{"overruled rightly": [0], "overruled wrongly": [0]}}
drawn = [(hostile, 300, "error repeated", (hostile, "other"), "positive", "negative", "negative")]
columns = ["experiment", "seed", "category", "text", "truth", "supervisor", "student"]
frame = pd.DataFrame({{hostile: [hostile], "n": [1]}})
display(Examples(pd.DataFrame(shown), pd.DataFrame(drawn, columns=columns), []))
display(frame)
display(w2s.table(frame, scroll=hostile))
title = alt.TitleParams(hostile, limit=300)
point = alt.Chart(alt.Data(values=[{{"a text": hostile, "n": 1}}]), title=title).mark_square(size=9000)
x = alt.X("n:Q").scale(domain=[0, 2])  # the mark in the middle
point.encode(x=x, color="a text:N", tooltip=["a text:N", "n:Q"]).properties(height=100)
"""


def nothing_ran(page):
    """None of the texts on a page of a browser has done anything, when a picture that fails is known to have failed."""
    page.evaluate(
        "document.body.append(Object.assign(new Image(), {src: 'x', onerror: () => window.failed = 1}))"
    )
    page.wait_for_function("window.failed")
    assert page.evaluate("window.hacked") is None
