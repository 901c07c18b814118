"""Finding one's way: what the pages before and after are about, and what a glossary word means.

The sentence about a page is its own first one. A glossary word is an entry of `glossary.md`, a
paragraph that begins with its name in bold; what stands in italics up to the first full stop are
other names of it. Its first use on a page becomes a link to the entry, which bears the first
sentence of the definition for `reading.js` to show and for a screen reader to say.
"""

import html
import re

from docutils import nodes
from sphinx.util import logging

LOG = logging.getLogger(__name__)
SENTENCE = re.compile(r".+?[.?!](?=\s+[A-Z“\"]|$)", re.S)
EVERYDAY = {"run", "half", "cell"}
"""Entries that are also common words in another sense: their other names alone are marked."""
APART = (nodes.title, nodes.literal, nodes.literal_block, nodes.reference, nodes.raw, nodes.table)
"""Where no word is marked; in a `math` node neither."""
LONGEST = 220  # characters of a definition that fits beside its word on a phone


def first_sentence(text):
    """The first sentence, on one line; all of a text that ends none."""
    line = " ".join(text.split())
    found = SENTENCE.match(line)
    return found[0] if found else line


def about(env, docname):
    """A page's first sentence, or nothing for a page without a paragraph."""
    for paragraph in env.get_doctree(docname).findall(nodes.paragraph):
        return first_sentence(paragraph.astext().removeprefix("In short."))
    LOG.warning("a page without a paragraph has nothing to say what it is about", location=docname)
    return ""


def entries(doctree):
    """The glossary's entries: id, names and paragraph."""
    for paragraph in doctree.findall(nodes.paragraph):
        name, *rest = [node for node in paragraph if node.astext()]
        if isinstance(name, nodes.strong):
            names = [name.astext()]
            for node in rest if not names[0].endswith(".") else []:
                if isinstance(node, nodes.Text) and "." in node:
                    break
                names += [node.astext()] if isinstance(node, nodes.emphasis) else []
            names = [name.rstrip(".") for name in names]
            yield nodes.make_id(f"word-{names[0]}"), names, paragraph


def glossary(env):
    """Each name, in small letters -> id and definition of its entry."""
    found = {}
    doctree = env.get_doctree("glossary") if "glossary" in env.found_docs else nodes.paragraph()
    for key, names, paragraph in entries(doctree):
        said = ["$" if isinstance(part, nodes.math) else part.astext() for part in paragraph]
        text = " ".join("".join(said).split()).partition(". ")[2]
        meaning = first_sentence(text)
        if len(meaning) > LONGEST or "$" in meaning:
            LOG.warning("the first sentence about %r is long, or has a formula", names[0])
        for name in names[names[0] in EVERYDAY :]:
            found[name.lower()] = key, meaning
    return found


def name_entries(app, doctree):
    """Gives each entry of the glossary an id."""
    if app.env.docname == "glossary":
        for key, _, paragraph in entries(doctree):
            paragraph["ids"].append(key)


def mark_words(app, doctree, docname):
    """Links the first use of every glossary word on a page."""
    words, seen = glossary(app.env), set()
    if docname in ("glossary", "references") or not words:
        return
    names = "|".join(map(re.escape, sorted(words, key=len, reverse=True)))
    use = re.compile(rf"(?<![\w-])({names})s?(?![\w-])", re.I)
    for text in list(doctree.findall(nodes.Text)):
        node, parts, at = text.parent, [], 0
        while node and not isinstance(node, (*APART, nodes.math)):
            node = node.parent
        for found in use.finditer(text) if node is None else ():
            key, meaning = words[found[1].lower()]
            if key not in seen:
                seen.add(key)
                link = app.builder.get_relative_uri(docname, "glossary") + f"#{key}"
                start = (
                    f'<a class="w2s-word" href="{link}" aria-description="{html.escape(meaning)}">'
                )
                parts += [
                    nodes.Text(text[at : found.start()]),
                    nodes.raw("", start, format="html"),
                    nodes.Text(found[0]),
                    nodes.raw("", "</a>", format="html"),
                ]
                at = found.end()
        if parts:
            text.parent.replace(text, [*parts, nodes.Text(text[at:])])


def say_what_is_next(app, pagename, templatename, context, doctree):
    """Adds to the links at a page's foot what each leads to."""
    order = app.env.collect_relations()
    for way, docname in zip(("prev", "next"), order.get(pagename, [None] * 3)[1:], strict=True):
        if docname and context.get(way):
            words = html.escape(about(app.env, docname))
            title = context[way]["title"]
            context[f"{way}_title"] = f'{title} <span class="w2s-about">{words}</span>'


def setup(app):
    """Registers the extension."""
    app.connect("doctree-read", name_entries)
    app.connect("doctree-resolved", mark_words, priority=950)
    app.connect("html-page-context", say_what_is_next)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
