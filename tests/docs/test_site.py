"""The site is built strictly from docs/, holds no address that a page would fetch, and can be searched as files."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

import divcon

CHROMIUM = shutil.which("chromium")
FETCHED = re.compile(r"""<(?:script|img|source|iframe)\b[^>]*\b(?:src|srcset)=["']?(?:https?:)?//|<link\b[^>]*>""")
LINKED = re.compile(r"""rel=["']?(?:stylesheet|preconnect|icon)\b[^>]*href=["']?(?:https?:)?//""")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = Path(__file__).parent.parent.parent
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_of_docs_is_in_the_site(site: Path, root: Path) -> None:
    assert {page.stem for page in (root / "docs").glob("*.md")} <= {page.stem for page in site.glob("*.html")}
    assert "What it saves" in (site / "index.html").read_text(encoding="utf-8")


def test_the_page_on_python_has_every_public_name(site: Path) -> None:
    page = (site / "api.html").read_text(encoding="utf-8")
    shown = set(re.findall(r'id="divcon\.(?:\w+\.)*(\w+)"', page)) | set(re.findall(r"<code>(\w+)</code>", page))
    assert set(divcon.__all__) - shown == {"__version__"}


def test_no_page_fetches_anything_from_a_network(site: Path) -> None:
    pages = [page for page in site.rglob("*.html") if "repository" not in page.relative_to(site).parts]
    assert len(pages) > 10
    for page in pages:
        for tag in re.findall(FETCHED, page.read_text(encoding="utf-8")):
            assert tag.startswith("<link") and not LINKED.search(tag), (page, tag)


def test_a_linked_file_of_the_repository_is_a_page_with_its_text(site: Path) -> None:
    assert "scripted/references" in (site / "repository" / "examples" / "demo.yaml.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def browser_page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM)
        yield browser.new_page(viewport={"width": 1280, "height": 900})
        browser.close()


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_it_is_searched_as_files(site: Path, browser_page: Page) -> None:
    asked: list[str] = []
    browser_page.on("request", lambda request: asked.append(request.url))
    browser_page.goto((site / "index.html").as_uri(), wait_until="domcontentloaded")
    browser_page.click(".md-search__input")
    browser_page.keyboard.type("salvaged")
    browser_page.wait_for_selector(".md-search-result__item", timeout=20_000)
    assert asked and all(address.startswith("file:") for address in asked)


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_is_wider_than_the_window(site: Path, browser_page: Page, width: int) -> None:
    browser_page.set_viewport_size({"width": width, "height": 900})
    pages = sorted(site.glob("*.html"))
    assert pages
    for page in pages:
        browser_page.goto(page.as_uri(), wait_until="domcontentloaded")
        wide = browser_page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, (page.name, wide)
