"""Numbers as people read them: the same in the terminal, in Markdown and in the page."""

import math

from .statistics import Estimate

MISSING = "–"


def score(value: float) -> str:
    """Write two decimals."""
    return f"{value:.2f}" if math.isfinite(value) else MISSING


def interval(estimate: Estimate | None) -> str:
    """Write [low, high], or nothing."""
    return f"[{estimate.interval[0]:.2f}, {estimate.interval[1]:.2f}]" if estimate and estimate.interval else ""


def change(before: Estimate | None, after: Estimate | None) -> str:
    """Write 0.10 → 0.86."""
    first = score(before.value) if before else MISSING
    last = score(after.value) if after else MISSING
    return f"{first} → {last}"


def count(value: float) -> str:
    """Write three digits and a suffix: 41.2k, 3.05M, 1.80T."""
    if not math.isfinite(value):
        return MISSING
    for size, suffix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995:
            scaled = value / size
            return f"{scaled:.{2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0}f}{suffix}"
    return f"{value:.0f}" if abs(value) >= 100 or float(value).is_integer() else f"{value:.3g}"


def seconds(value: float) -> str:
    """Write 60.2 s, 12 min 5 s, 3 h 2 min."""
    if not math.isfinite(value):
        return MISSING
    if value < 119.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def memory(value: float) -> str:
    """Write megabytes or gigabytes, decimal."""
    if not math.isfinite(value):
        return MISSING
    return f"{value / 1e9:.2f} GB" if value >= 9.995e8 else f"{value / 1e6:.0f} MB"


def listed(words: list[str]) -> str:
    """Write a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def p_value(value: float) -> str:
    """Write three decimals, and never 0, which no test can say."""
    return "< 0.001" if value < 0.0005 else f"{value:.3f}"
