"""Pages of the built book, opened in Chromium."""

import functools
import http.server
import os
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SITE = Path(os.environ.get("W2S_SITE", ROOT / "_build" / "html"))
PAGES = sorted(path.stem for path in SITE.glob("*.html") if path.stem != "search")
MINUTE = 60_000
"""What is waited for at most, in milliseconds: the machine may be busy."""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def with_part(words):
    """The pages whose HTML holds these words."""
    return [n for n in PAGES if words in (SITE / f"{n}.html").read_text(encoding="utf-8")]


@pytest.fixture(scope="session")
def site(need, tmp_path_factory):
    """The address of the built book, under a sub-path of its host."""
    need(PAGES, f"no built book in {SITE}: run `make book`")
    host = tmp_path_factory.mktemp("host")
    (host / "some").mkdir()
    (host / "some" / "path").symlink_to(SITE)
    handler = functools.partial(Quiet, directory=str(host))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/some/path"
        server.shutdown()


@pytest.fixture
def opened(browser, site):
    """Opens a page and returns it with a list that fills with what goes wrong on it.

    No theme: as on a first visit.
    """
    contexts = []

    def open_page(name, *, query="", theme="light", width=1280, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        context.set_default_timeout(MINUTE)
        contexts.append(context)
        if theme:
            context.add_init_script(
                f"localStorage.setItem('mode', '{theme}'); localStorage.setItem('theme', '{theme}')"
            )
        page, wrong = context.new_page(), []
        page.on(
            "console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "requestfailed",  # but for what is given up because the page is left
            lambda request: (
                None if "ABORTED" in request.failure else wrong.append(f"failed: {request.url}")
            ),
        )
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith((site, "data:")) else wrong.append(request.url)
            ),
        )
        page.goto(f"{site}/{name}.html{query}", wait_until="load")
        return page, wrong

    yield open_page
    for context in contexts:
        context.close()


def all_live(page):
    """Touches every chart, as a pointer does, and waits until it is live."""
    page.evaluate(
        "document.querySelectorAll('.w2s-chart').forEach(box => box.dispatchEvent(new Event('pointerenter')))"
    )
    for box in page.query_selector_all(".w2s-chart:not([data-live=yes])"):
        box.scroll_into_view_if_needed()  # one with sliders waits for this alone
    page.wait_for_function(
        "[...document.querySelectorAll('.w2s-chart')].every(chart => chart.dataset.live === 'yes')"
    )


def comes_to(page, script, expected, arg=None):
    """Waits up to a minute until a script gives what is expected; what it gave last is told."""
    for _ in range(MINUTE // 250):
        found = page.evaluate(script, arg)
        if found == expected:
            return
        page.wait_for_timeout(250)
    pytest.fail(f"in a minute it was not {expected!r} but {found!r}")
