"""Prose cells: what fields show, and what is refused."""

import math

import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from w2s_lib.measures.intervals import NO_GAP, Interval
from w2s_lib.publishing.prose import ProseError, render

NAMES = {
    "weak": np.float32(0.7123),
    "arms": {"top": [1, 2, 3]},
    "pgr": Interval(0.4, 0.3, 0.5),
    "none": Interval(math.nan, math.nan, math.nan, note=NO_GAP),
    "text": "<script>alert(1)</script>",
}


@pytest.mark.parametrize(
    ("field", "shown"),
    [
        ("weak:.2f", "0.71"),
        ("arms['top'][1:]", "[2, 3]"),
        ("len(arms['top']):,", "3"),
        ("sum(weak > x for x in arms['top'])", "0"),
        ("'above' if weak > .5 else 'below'", "above"),
        ("0.2 - weak:+.2f", "−0.51"),
        ("none:.2f", NO_GAP),
        ("text", "&lt;script&gt;alert(1)&lt;/script&gt;"),
    ],
)
def test_a_field_shows_its_value(field, shown):
    assert render(f"It is {{{{{field}}}}}.", NAMES) == f"It is {shown}."


def test_an_interval_is_written_with_its_bounds():
    assert render("{{pgr:.1f}}", NAMES) == format(NAMES["pgr"], ".1f")


def test_markdown_and_latex_are_left_alone():
    text = (
        "**Bold** $\\frac{a}{b_{i}}$\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n---\n\n```\n# code\n```"
    )
    assert render(text, {}) == text


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{{waek:.2f}}", "weak"),
        ("{{weak:.2q}}", "weak:.2q"),
        ("{{arms['bottom']}}", "bottom"),
        ("{{math.nan:.2f}}", "math"),
        ("{{float('nan'):.2f}}", "nan"),
        ("{{None}}", "None"),
        ("{{len}}", "len"),
        ("{{''}}", "''"),
        ("{{}}", "{{}}"),
        ("{{weak weak}}", "weak weak"),
        ("{{weak", "{{weak"),
        ("# A heading", "#"),
        ("A heading\n---", "---"),
    ],
)
def test_what_cannot_be_shown_is_named(text, named):
    with pytest.raises(ProseError) as error:
        render(text, NAMES)
    assert named in str(error.value)


@pytest.fixture
def shell():
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


def test_the_magic_shows_markdown_in_a_notebook(shell):
    shell.run_line_magic("load_ext", "w2s_lib")
    shell.run_cell("accuracy = 0.5")
    with capture_output() as captured:
        assert shell.run_cell("%%prose\nIt is {{accuracy:.1%}}.").success
    assert [output.data["text/markdown"] for output in captured.outputs] == ["It is 50.0%."]
    with capture_output():
        assert isinstance(shell.run_cell("%%prose\n{{acuracy}}").error_in_exec, ProseError)
