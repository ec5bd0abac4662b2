"""A reward made of named parts: `info["reward_parts"]` of a step, whose values add up to the step's reward."""

import math
import re
from collections.abc import Iterable, Mapping

KEY = "reward_parts"
"""The key in a step's `info`."""
Parts = Mapping[str, float]
"""Values by name."""
BATCH = "score_batch"
"""The part that an environment is paid with others at once."""
# Every tracker accepts this as part of a metric's name.
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def read_parts(info: object) -> dict[str, float]:
    """Return the parts that a step's `info` names, none if there are none.

    Raise TypeError for what does not map names (of letters, digits, `_`, `.` and `-`) to numbers, ValueError for a
    number that is not finite.
    """
    named = info.get(KEY) if isinstance(info, Mapping) else None
    if named is None:
        return {}
    if not isinstance(named, Mapping):
        raise TypeError(f"expected a mapping of names to numbers as info[{KEY!r}], got a {type(named).__name__}")
    parts = {}
    for name, value in named.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise TypeError(f"expected names of letters, digits, _, . and - in info[{KEY!r}], got {name!r:.80}")
        if isinstance(value, str | bytes):  # which float() would read
            raise TypeError(f"expected a number as info[{KEY!r}][{name!r}], got {value!r:.80}")
        parts[name] = float(value)
        if not math.isfinite(parts[name]):
            raise ValueError(f"expected a finite number as info[{KEY!r}][{name!r}], got {parts[name]}")
    return parts


def added(paid: Iterable[Parts]) -> dict[str, float]:
    """Return the sum of each part; one that is not named counts as 0."""
    total: dict[str, float] = {}
    for parts in paid:
        for name, value in parts.items():
            total[name] = total.get(name, 0.0) + value
    return total
