"""What a page costs on a host that compresses nothing, and on a reader who has read another page before."""

import functools
import http.server
import threading

import pytest

from tests.browser.conftest import PAGES, SITE, Quiet

HEADER_ICONS = ".article-header-buttons [class*='fa-']:visible"
FIRST, FURTHER, WHOLE = 1_200_000, 300_000, 8_000_000  # bytes


def weigh(page, address):
    """Bytes that loading a page transfers, headers and all."""
    sizes = []
    client = page.context.new_cdp_session(page)
    client.send("Network.enable")
    client.on("Network.loadingFinished", lambda event: sizes.append(event["encodedDataLength"]))
    page.goto(address, wait_until="networkidle")
    client.detach()
    return sum(sizes)


@pytest.mark.parametrize("name", PAGES or ["none"])
def test_a_first_load_and_a_further_page_are_light(browser, site, name):
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


def test_the_site_without_its_data_is_small(site):
    data = SITE / "_static" / "data"
    files = [path for path in SITE.rglob("*") if path.is_file() and data not in path.parents]
    assert sum(path.stat().st_size for path in files) < WHOLE
    for unused in ("*.map", "*.mo", "*awesome*", "*thebe*"):
        assert not list(SITE.rglob(unused)), unused


@pytest.mark.parametrize("name", ["index", "pgr"])
def test_every_icon_is_drawn(opened, name):
    page, wrong = opened(name)
    icons = page.locator("[class*='fa-']")
    assert icons.count() > 5 and wrong == []
    for icon in icons.all():
        mask = icon.evaluate("node => getComputedStyle(node, '::before').maskImage")
        assert mask.startswith('url("data:image/svg+xml'), icon.get_attribute("class")
    boxes = [icon.bounding_box() for icon in page.locator(HEADER_ICONS).all()]
    middles = [box["y"] + box["height"] / 2 for box in boxes]
    assert len(middles) >= 2 and max(middles) - min(middles) <= 1


def test_under_a_sub_path_all_is_found(browser, site, tmp_path):
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
