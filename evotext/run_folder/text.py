"""Cleans text from untrusted folders for terminals and pages."""

LONGEST_NAME = 200


def clean(value: object, longest: int = LONGEST_NAME) -> str:
    """Return a text or number without control characters and of bounded length; empty for anything else."""
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return ""
    try:
        text = str(value)
    except ValueError:  # Python refuses to write out integers of thousands of digits
        return ""
    text = text[: longest - 1] + "…" if len(text) > longest else text
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text).strip()


def clean_lines(text: str, longest: int) -> str:
    """Return a text of several lines, each cleaned."""
    return "\n".join(clean(line, longest) for line in text[:longest].split("\n"))
