"""Pages that ask no other host for anything.

Mathematics as MathML, no script that is loaded from elsewhere, and links that run a chapter on
somebody's server only where the repository has a public address.
"""

import html
from pathlib import Path

from docutils.nodes import SkipNode, raw
from math_core import LatexError, LatexToMathML
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

from w2s_lib.publishing.sources import repository

LOG = logging.getLogger(__name__)
CONVERTER = LatexToMathML(fancy_error=False)
BOX = 'class="formula w2s-scroll" role="region" tabindex="0" aria-label="Formula"'


def mathml(node, *, block):
    """The LaTeX of a node as the MathML that browsers render by themselves."""
    source = node.astext().strip()
    if block and ("&" in source or r"\\" in source) and r"\begin" not in source:
        source = rf"\begin{{aligned}}{source}\end{{aligned}}"
    try:
        return CONVERTER.convert_with_local_state(source, displaystyle=block)
    except LatexError as error:
        LOG.warning("Cannot write %r as MathML: %s", source, error, location=node)
        return f"<code>{html.escape(source)}</code>"


def inline_math(self, node):
    """Writes a formula inside a sentence."""
    self.body.append(mathml(node, block=False))
    raise SkipNode


def block_math(self, node):
    """Writes a displayed formula, with its number where it has a label."""
    self.body.append(self.starttag(node, "div", CLASS="math notranslate nohighlight"))
    self.body.append(f"<div {BOX}>{mathml(node, block=True)}</div>")
    if node["number"]:
        self.body.append(f'<span class="eqno">({get_node_equation_number(self, node)})')
        self.add_permalink_ref(node, "Link to this equation")
        self.body.append("</span>")
    self.body.append("</div>\n")
    raise SkipNode


def public_links(app, config):
    """Links to the repository and its launch links, where `pyproject.toml` names its address."""
    options, url = config.html_theme_options, repository(Path(__file__).parents[2])
    options |= {"repository_url": url, "use_repository_button": bool(url)}
    if not url:
        options["launch_buttons"] = {}


def launch_sources(app, pagename, templatename, context, doctree):
    """Launch links lead to the chapter as the repository has it: in Markdown."""
    for group in context.get("header_buttons", []):
        for button in group["buttons"] if group["label"] == "launch-buttons" else ():
            button["url"] = button["url"].replace(f"/{pagename}.ipynb", f"/{pagename}.md")


def no_launcher(app, doctree, docname):
    """Drops the settings that would run a chapter's code on somebody's server."""
    for node in list(doctree.findall(raw)):
        if "x-thebe-config" in node.astext():
            node.parent.remove(node)


def own_scripts(app, pagename, templatename, context, doctree):
    """Drops the launcher's scripts, and any other that is given twice on a page."""
    kept = {}
    for script in context.get("script_files", []):
        content = f"{script.filename or ''}{script.attributes.get('body') or ''}"
        if "thebe" not in content.lower() and "://" not in content:
            kept.setdefault(content, script)
    context["script_files"] = list(kept.values())


def setup(app):
    """Registers the extension."""
    app.add_html_math_renderer("mathml", (inline_math, None), (block_math, None))
    app.connect("config-inited", public_links)
    app.connect("html-page-context", launch_sources, priority=900)
    app.connect("doctree-resolved", no_launcher, priority=900)
    app.connect("html-page-context", own_scripts, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
