"""Prose cells: what fields show, and what is refused."""

import math

import numpy as np
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from w2s_lib.measures.intervals import NO_GAP, Interval
from w2s_lib.publishing.prose import ProseError, listing, render

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


def test_references_are_in_order_of_their_words_and_every_address_is_a_link(tmp_path):
    """A work without an address stands where its name does; an author without a year has one stop."""
    bib = tmp_path / "works.bib"
    bib.write_text(
        "@misc{b, author={Beck, Ann}, title={T}, year={n.d.}, note={Code at https://github.com/a/b-c}}\n"
        "@misc{a2001, author={Abel, Bo}, title={T}, year={2001}}\n"
        "@misc{c2002, author={Cole, Cy}, title={T}, year={2002}, url={https://c.org/x}}\n"
    )
    first, second, third = listing(bib).splitlines()
    assert first.startswith("- **Abel 2001.** ") and second.startswith("- **Beck n.d.** ")
    assert "(https://github.com/a/b-c)" in second and "<" not in second
    assert third.startswith("- **[Cole 2002](https://c.org/x).** ") and third.count("](") == 2
