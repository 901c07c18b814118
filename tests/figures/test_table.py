"""Frames as tables: formats, and nothing of a reader's data runs on the page."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import w2s_lib as w2s


def test_text_and_names_are_escaped_and_shown_whole():
    long = "<script>alert(1)</script> & $5 " + "x" * 300
    html = w2s.table(pd.DataFrame({"<b>": [long]}))._repr_html_()
    assert "<script" not in html and "<b>" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; $5 " + "x" * 300 in html
    assert "mathjax_ignore" in html  # dollars in a text are no formula


def test_numbers_are_formatted_and_what_is_missing_is_blank():
    frame = pd.DataFrame(
        {
            "n": pd.array([1200, None], dtype="Int64"),
            "share": [0.256, np.nan],
            "pgr": [w2s.Interval(0.41, 0.33, 0.49), None],
            "seeds": [[0, 1], []],
        }
    )
    shown = w2s.table(frame, formats={"n": ",", "share": ".0%", "seeds": len}).rows
    assert shown.to_dict("list") == {
        "n": ["1,200", ""],
        "share": ["26%", ""],
        "pgr": ["0.41 [0.33,\xa00.49]", ""],
        "seeds": ["2", "0"],
    }
    assert list(w2s.table(frame[["share"]]).rows["share"]) == ["0.26", ""]
    signs = pd.DataFrame({"gain": [-0.5], "model": ["smollm2-135m@4"]})
    assert w2s.table(signs).rows.to_dict("records") == [
        {"gain": "−0.50", "model": "smollm2-135m@4"}
    ]
    with pytest.raises(KeyError, match="shar"):
        w2s.table(frame, formats={"shar": ".2f"})
