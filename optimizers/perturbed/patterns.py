"""Short names of many parameters: glob patterns in which layer numbers become `*`."""

import re
from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase


def summary(names: Iterable[str]) -> list[str]:
    """Return a pattern for each kind of name, in their order."""
    return list(dict.fromkeys(re.sub(r"(?<=\.)\d+(?=\.)", "*", name) for name in names))


def covering(names: Collection[str], everything: Iterable[str]) -> list[str]:
    """Return patterns that match these names: of whole modules where these match no other name of the network's."""
    others = set(everything) - set(names)
    patterns: list[str] = []
    for name in names:
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            continue
        parts = name.split(".")
        (exact,) = summary([name])
        modules = summary(".".join([*parts[:depth], "*"]) for depth in range(1, len(parts)))
        whole = [pattern for pattern in modules if not any(fnmatchcase(other, pattern) for other in others)]
        patterns.append(next(iter(whole), exact))
    return list(dict.fromkeys(patterns))
