"""What a page costs on a host that compresses nothing, and on a reader who has read another page before."""

import functools

import pytest

from tests.browser.conftest import MINUTE, PAGES, SITE

FIRST, FURTHER, WHOLE = 1_200_000, 300_000, 8_000_000  # bytes


@pytest.fixture(scope="module")
def loaded(browser, site):
    """Loads a page as its reader's first one: the bytes of each file, headers and all."""

    @functools.cache
    def load(name):
        context = browser.new_context(viewport={"width": 1440, "height": 900})
        context.set_default_timeout(MINUTE)
        page, urls, sizes = context.new_page(), {}, {}
        client = context.new_cdp_session(page)
        client.send("Network.enable")
        client.on(
            "Network.requestWillBeSent",
            lambda event: urls.update({event["requestId"]: event["request"]["url"]}),
        )
        client.on(
            "Network.loadingFinished",
            lambda event: sizes.update({urls[event["requestId"]]: event["encodedDataLength"]}),
        )
        page.goto(f"{site}/{name}.html", wait_until="networkidle")
        ready = page.evaluate("performance.getEntriesByType('navigation')[0].domInteractive")
        context.close()
        return sizes, ready

    return load


@pytest.mark.parametrize("name", PAGES or ["none"])
def test_a_first_load_and_a_further_page_are_light(loaded, name):
    """A further page costs what the page before, the first or the glossary, has not loaded."""
    (sizes, ready), (before, _) = loaded(name), loaded("index" if name != "index" else "glossary")
    first, further = sum(sizes.values()), sum(sizes[url] for url in sizes.keys() - before.keys())
    print(f"{name}: first {first}, further {further}, interactive in {ready:.0f} ms")
    assert 0 < further < first < FIRST and further < FURTHER


def test_the_site_without_its_data_is_small(site):
    """And no style locks a screen to an orientation, which is what axe-core would load all again for."""
    data = SITE / "_static" / "data"
    files = [path for path in SITE.rglob("*") if path.is_file() and data not in path.parents]
    assert sum(path.stat().st_size for path in files) < WHOLE
    for unused in ("*.map", "*.mo", "*awesome*", "*thebe*"):
        assert not list(SITE.rglob(unused)), unused
    assert not [p for p in SITE.rglob("*.css") if "orientation" in p.read_text(encoding="utf-8")]
