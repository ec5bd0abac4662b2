"""Finds the final answer in a longer text: after a mark, in tags, in a box, on the last line.

Every function is total and linear in the text, and returns None where there is no answer. None guesses: a text with two
answers has none, or else a policy could hedge by writing all that it can think of.
"""

WHITE_SPACE = " \t\r\n"
LONGEST = 10_000


def after_mark(text: str, mark: str) -> str | None:
    """Return what follows the only `mark`, e.g. `####`, to the end of the text."""
    _, found, after = text.partition(mark)
    return after.strip(WHITE_SPACE) if found and mark not in after else None


def in_tags(text: str, tag: str) -> str | None:
    """Return what stands between the only `<tag>` and the only `</tag>`."""
    start, end = f"<{tag}>", f"</{tag}>"
    if text.count(start) != 1 or text.count(end) != 1:
        return None
    inside, found, _ = text.partition(start)[2].partition(end)
    return inside.strip(WHITE_SPACE) if found else None


def boxed(text: str) -> str | None:
    r"""Return what the only `\\boxed{...}` holds; braces within it may be nested."""
    _, found, rest = text.partition(r"\boxed{")
    if not found or r"\boxed{" in rest:
        return None
    depth = 1
    for i, character in enumerate(rest[:LONGEST]):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return rest[:i].strip(WHITE_SPACE)
    return None


def last_line(text: str) -> str | None:
    """Return the last line that is not blank."""
    stripped = text.strip(WHITE_SPACE)
    return stripped[stripped.rfind("\n") + 1 :].strip(WHITE_SPACE) or None
