"""What a page costs on a host that compresses nothing, and on a reader who has read another page before."""

import functools
import http.server
import threading

import pytest

from tests.browser.test_pages import PAGES, SITE, Quiet, opened, site  # noqa: F401

FIRST, FURTHER, WHOLE = (
    1_200_000,
    400_000,
    8_000_000,
)  # bytes, Vega apart: it comes with a chart that is used


def weigh(page, address):
    """Bytes that loading a page transfers, headers and all, but for Vega."""
    sizes, vega = [], []
    client = page.context.new_cdp_session(page)
    client.send("Network.enable")
    client.on(
        "Network.requestWillBeSent",
        lambda e: vega.append(e["requestId"]) if e["request"]["url"].endswith("vega.js") else None,
    )
    client.on("Network.loadingFinished", lambda event: sizes.append(event))
    page.goto(address, wait_until="networkidle")
    client.detach()
    return sum(one["encodedDataLength"] for one in sizes if one["requestId"] not in vega)


@pytest.mark.parametrize("name", PAGES or ["none"])
def test_a_first_load_and_a_further_page_are_light(browser, site, name):  # noqa: F811
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    first = weigh(page, f"{site}/{name}.html")
    context.close()
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    weigh(page, f"{site}/{'index' if name != 'index' else 'glossary'}.html")
    further = weigh(page, f"{site}/{name}.html")
    ready = page.evaluate("performance.getEntriesByType('navigation')[0].domInteractive")
    context.close()
    print(f"{name}: first {first}, further {further}, interactive in {ready:.0f} ms")
    assert first < FIRST and further < FURTHER


def test_the_site_without_its_data_is_small(site):  # noqa: F811
    data = SITE / "_static" / "data"
    files = [path for path in SITE.rglob("*") if path.is_file() and data not in path.parents]
    assert sum(path.stat().st_size for path in files) < WHOLE
    for unused in ("*.map", "*.mo", "*awesome*", "*thebe*"):
        assert not list(SITE.rglob(unused)), unused


@pytest.mark.parametrize("name", ["index", "pgr"])
def test_every_icon_is_drawn(opened, name):  # noqa: F811
    page, wrong = opened(name)
    icons = page.locator("[class*='fa-']")
    assert icons.count() > 5 and wrong == []
    for icon in icons.all():
        mask = icon.evaluate("node => getComputedStyle(node, '::before').maskImage")
        assert mask.startswith('url("data:image/svg+xml'), icon.get_attribute("class")


def test_under_a_sub_path_all_is_found(browser, site, tmp_path):  # noqa: F811
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "path").symlink_to(SITE)
    handler = functools.partial(Quiet, directory=str(tmp_path))
    page, wrong = browser.new_page(), []
    page.on("response", lambda answer: wrong.append(answer.url) if answer.status >= 400 else None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}/some/path/"
        page.on(
            "request", lambda r: None if r.url.startswith((base, "data:")) else wrong.append(r.url)
        )
        for name in PAGES:
            page.goto(f"{base}{name}.html", wait_until="load")
        server.shutdown()
    page.close()
    assert wrong == []
