"""The pages name files, code and each other: all of it is there."""

import ast
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ARCHITECTURE = ROOT / "docs" / "architecture.md"
FOLDERS = ("evotext", "envs", "optimizers", "baselines", "reports", "conf", "scripts", "tests", "docs")
PLACE = re.compile(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]*)(?:::([\w.]+))?`")


def defined(source: str) -> set[str]:
    """Functions, classes and, as Class.name, methods at the top of this source."""

    def names(body: list[ast.stmt], prefix: str) -> Iterator[str]:
        for node in body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from names(node.body, f"{prefix}{node.name}.")

    return set(names(ast.parse(source).body, ""))


def missing(text: str) -> list[str]:
    """Places of the form `folder/file.py` or `folder/file.py::Class.method` in this text which are not there."""
    found = []
    for path, name in PLACE.findall(text):
        file = ROOT / path
        if re.search("[A-Z]{4}", path):  # stands for any
            continue
        there = file.exists() and (not name or name in defined(file.read_text()))
        found += [] if there else [f"{path}::{name}"]
    return found


def anchors(page: Path) -> set[str]:
    """Return the anchors that a link may end in, made from headings as GitHub does."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_code_that_a_page_names_is_there(page: Path) -> None:
    assert missing(page.read_text()) == []


def test_no_merge_has_left_its_markers() -> None:
    files = [ROOT / "README.md", ROOT / "CHANGELOG.md"]
    files += [
        file for folder in ("docs", "conf") for kind in ("md", "yaml") for file in (ROOT / folder).rglob(f"*.{kind}")
    ]
    marked = [file for file in files if re.search("^(<{7}|={7}|>{7})( |$)", file.read_text(), re.MULTILINE)]
    assert not marked


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_imports_is_there_once_installed(page: Path) -> None:
    """The folders' short names are a clone's alone."""
    assert re.findall(rf"^(?:from|import) (?:{'|'.join(FOLDERS[1:5])})\b.*", page.read_text(), re.MULTILINE) == []


def test_what_is_not_there_is_found() -> None:
    assert missing("`evotext/runner/loop.py::Run.resume` and `evotext/types.py`") == []
    assert missing("`evotext/nothing.py` and `evotext/runner/loop.py::Run.walk`") == [
        "evotext/nothing.py::",
        "evotext/runner/loop.py::Run.walk",
    ]


def test_the_architectures_names_are_classes() -> None:
    """Every `CamelCase` word of the page."""
    modules = (file for folder in FOLDERS[:7] for file in (ROOT / folder).rglob("*.py"))
    known = {name for file in modules for name in defined(file.read_text())}
    named = set(re.findall(r"`([A-Z][a-z]+(?:[A-Z][a-z]*)*)`", ARCHITECTURE.read_text()))
    assert len(named) > 10 and named - known == set()


def test_the_picture_shows_folders_and_imports_that_are_there() -> None:
    text = ARCHITECTURE.read_text()
    picture = text[text.index("```mermaid") : text.index("```\n", text.index("```mermaid"))]
    place = {node: ROOT / label for node, label in re.findall(r'(\w+)\["([\w/]+):', picture)}
    assert len(place) >= 10 and all(folder.is_dir() for folder in place.values())
    arrows = [arrow for line in picture.splitlines() for arrow in pairwise(map(str.strip, line.split(" --> ")))]
    between_folders = [(a, b) for a, b in arrows if {a, b} <= place.keys() and a != "conf"]
    assert len(between_folders) >= 6
    for importer, imported in between_folders:
        source = "".join(file.read_text() for file in place[importer].rglob("*.py"))
        name = re.escape(".".join(place[imported].relative_to(ROOT).parts))
        assert re.search(rf"from (evotext\.)?{name}", source), f"{importer} --> {imported}"
