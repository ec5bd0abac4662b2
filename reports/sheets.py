"""Tables as text, which Markdown, the page and LaTeX lay out each in its own way."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """One table."""

    title: str
    note: str
    """A hint on reading it."""
    heads: tuple[str, ...]
    """The first names the rows."""
    rows: tuple[tuple[str, ...], ...]
