"""The book as one page, before it is printed; tests/browser/test_paper.py prints it."""

import pytest

from w2s_lib.publishing import pdf
from w2s_lib.publishing.chapters import BookError, Chapter

PAGE = """<head><link rel="stylesheet" href="_static/a.css"></head><nav><a href="#top">x</a></nav>
<article class="bd-article"><section id="top"><h1>{name} &amp; more<a class="headerlink" href="#top">#</a></h1>
<a href="two.html#top">there</a> <a href="two.html">all of it</a> <img src="_static/b.svg"><script>no</script>
<a class="x" href="_static/data/runs.csv" download><span>every run</span></a>
<svg><clipPath id="c0"/><path clip-path="url(#c0)"/></svg>
<section id="part"><h2>Part<a class="headerlink" href="#part">#</a></h2></section></section></article><footer></footer>"""


@pytest.fixture
def pages(tmp_path):
    (tmp_path / "_build" / "html").mkdir(parents=True)
    (tmp_path / "_config.yml").write_text('title: "A <book>"\nauthor: "Some One"\n')
    for name in ("one", "two"):
        (tmp_path / "_build" / "html" / f"{name}.html").write_text(PAGE.format(name=name))
    return [Chapter("one", tmp_path), Chapter("two", tmp_path)]


def test_pages_become_one_whose_links_stay_in_it(pages):
    text = pdf.one_page(pages, {"two--top": 7})
    assert "A &lt;book&gt;" in text and "Some One" in text
    assert text.count('id="one--top"') == text.count('id="two--top"') == 1
    assert '<a href="#two--top">there</a>' in text and '<a href="#two">all of it</a>' in text
    assert 'id="two"' in text and 'id="one--c0"' in text and "url(#one--c0)" in text
    assert 'src="../html/_static/b.svg"' in text and 'href="../html/_static/a.css"' in text
    assert "<script" not in text and "<footer" not in text
    assert "every run" in text and "runs.csv" not in text  # a link to a folder of this machine
    assert '<a href="#two--top">two &amp; more</a><span>7</span>' in text


def test_headings_of_two_levels_are_the_contents(pages):
    assert pdf.headings(pages[0]) == [
        ("one--top", "1", "one &amp; more"),
        ("one--part", "2", "Part"),
    ]


def test_without_chromium_it_says_what_to_install(pages, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BookError, match="apt-get install chromium"):
        pdf.write_pdf(pages, tmp_path / "made" / "book.pdf")
