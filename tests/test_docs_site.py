"""The site: built strictly, with every page in its navigation, and a checker that finds what is missing."""

import re
from pathlib import Path

import pytest
import yaml

pytest.importorskip("zensical")
pytest.importorskip("mkdocstrings")
pytest.importorskip("nbconvert")
import build_docs

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def nav() -> list[str]:
    text = re.sub(r"!!python/name:\S+", "null", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))

    def pages(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        entries = entry.values() if isinstance(entry, dict) else entry
        assert not isinstance(entries, (bytes, int)) and entries is not None
        return [page for one in entries for page in pages(one)]  # type: ignore[attr-defined]

    return pages(yaml.safe_load(text)["nav"])


@pytest.mark.slow
def test_the_site_builds_and_every_page_is_in_its_navigation(nav: list[str]) -> None:
    assert list(build_docs.build()) == []
    staged = {page.relative_to(build_docs.STAGED).as_posix() for page in build_docs.STAGED.rglob("*.md")}
    assert sorted(nav) == sorted(staged), "list each page once, in mkdocs.yml"
    api = (build_docs.SITE / "api" / "optimizers.html").read_text(encoding="utf-8")
    assert "scale of the perturbation, in units of a weight" in api  # of a docstring
    notebook = (build_docs.SITE / "notebook.html").read_text(encoding="utf-8")
    assert "held-out success: " in notebook and "<img" in notebook
    assert 'class="mermaid"' in (build_docs.SITE / "architecture.html").read_text(encoding="utf-8")


def test_what_a_page_names_and_is_not_there_is_found(tmp_path: Path) -> None:
    (tmp_path / "there.html").write_text('<h1 id="top">x</h1>', encoding="utf-8")
    good = '<a href="there.html#top"></a><a href="#here" id="here"></a><a href="https://example.org/x"></a>'
    good += '<img src="a%20b.svg">'
    (tmp_path / "a b.svg").write_text("", encoding="utf-8")
    (tmp_path / "index.html").write_text(good, encoding="utf-8")
    assert build_docs.missing(tmp_path) == []
    (tmp_path / "index.html").write_text(good + '<img src="none.svg"><a href="there.html#none"></a>', encoding="utf-8")
    assert sorted(build_docs.missing(tmp_path)) == ["index.html: none.svg", "index.html: there.html#none"]


def test_links_lead_to_the_copies(tmp_path: Path) -> None:
    build_docs.stage(tmp_path / "pages")
    index = (tmp_path / "pages" / "index.md").read_text(encoding="utf-8")
    assert "](results/head-to-head.svg)" in index and "](docs/" not in index
    inner = (tmp_path / "pages" / "results" / "head-to-head.md").read_text(encoding="utf-8")
    assert "](../metrics.md#operations)" in inner
    assert "](notebook.md)" in (tmp_path / "pages" / "python.md").read_text(encoding="utf-8")
