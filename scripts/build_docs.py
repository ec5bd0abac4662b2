"""Build the pages as a site, strictly, and print its first page: `bash scripts/docs.sh`, or `python scripts/build_docs.py`.

The pages read well in the repository as they are. For the site they are copied to build/docs, where README.md is the first
page and a notebook becomes a page with its outputs, and Zensical (mkdocs.yml) builds them: a link to a page or a heading that
is not there ends the build. Every picture and file that a built page names has to be there too.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from nbconvert import MarkdownExporter
from nbconvert.writers import FilesWriter

ROOT = Path(__file__).resolve().parents[1]
STAGED = ROOT / "build" / "docs"  # docs_dir of mkdocs.yml
SITE = ROOT / "build" / "site"  # its site_dir
LINK = re.compile(r"\]\(([^)\s]+)\)")


def stage(folder: Path) -> None:
    """Copy the pages to a folder, README.md, CHANGELOG.md and notebooks as pages among them."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "docs", folder)
    sources = {folder / _staged(file): file for file in (ROOT / "README.md", ROOT / "CHANGELOG.md")}
    for notebook in folder.rglob("*.ipynb"):
        text, resources = MarkdownExporter().from_filename(str(notebook))
        FilesWriter(build_directory=str(notebook.parent)).write(text, resources, notebook.stem)
        notebook.unlink()
    sources |= {page: ROOT / "docs" / page.relative_to(folder) for page in folder.rglob("*.md")}
    for page, source in sources.items():
        text = (page if page.exists() else source).read_text(encoding="utf-8")
        page.write_text(LINK.sub(partial(_staged_link, source), text), encoding="utf-8")


def _staged(file: Path) -> Path:
    """Return the place of a file of the repository among the copies, relative to their folder."""
    there = {ROOT / "README.md": Path("index.md"), ROOT / "CHANGELOG.md": Path("changelog.md")}
    place = there.get(file) or Path(os.path.relpath(file, ROOT / "docs"))
    return place.with_suffix(".md") if place.suffix == ".ipynb" else place


def _staged_link(source: Path, link: re.Match[str]) -> str:
    path, hash_mark, anchor = link[1].partition("#")
    if not path or "://" in path:
        return link[0]
    target = Path(os.path.normpath(source.parent / path))
    here = os.path.relpath(_staged(target), _staged(source).parent)
    return f"]({Path(here).as_posix()}{hash_mark}{anchor})"


def missing(site: Path) -> list[str]:
    """Return what built pages name and is not there, as `page: link`, headings included."""
    pages = {page: _Page(page) for page in site.rglob("*.html") if page.name != "404.html"}
    return [
        f"{page.relative_to(site)}: {link}"
        for page, read in pages.items()
        for link in read.links
        if not _is_there(page, link, pages)
    ]


def _is_there(page: Path, link: str, pages: "dict[Path, _Page]") -> bool:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return True
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    target = target / "index.html" if target.is_dir() else target
    if not target.is_file():
        return False
    return not parts.fragment or target not in pages or unquote(parts.fragment) in pages[target].anchors


class _Page(HTMLParser):
    """The links, pictures and anchors of a built page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = {""}
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what the element names or is named by."""
        for key, value in attrs:
            if key in ("href", "src") and value:
                self.links.add(value)
            elif key in ("id", "name") and value:
                self.anchors.add(value)


def build() -> Iterator[str]:
    """Build the site and yield what is wrong with it, a line each."""
    stage(STAGED)
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    # Without colours, in which it would set every letter by itself.
    built = subprocess.run(  # noqa: S603
        command, cwd=ROOT, env=os.environ | {"NO_COLOR": "1"}, capture_output=True, text=True, check=False
    )
    if built.returncode:
        told = built.stdout + built.stderr
        yield told[: told.find("Traceback")].strip() or told.strip()
    else:
        yield from missing(SITE)


if __name__ == "__main__":
    if wrong := list(build()):
        print("\n".join(wrong), file=sys.stderr)
        sys.exit(1)
    print(SITE / "index.html")
