"""Reading run folders that may be damaged: half-written files, missing fields, wrong types, nonsense.

Nothing in a folder makes reading fail. What is wrong is named in `RunRecord.problems`; what cannot be read is NaN or
empty. Text is stripped of control characters and shortened, since it ends up on terminals and in pages.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import yaml

from reports.at_budget import at_budget
from reports.records import (
    AXES,
    COSTS,
    EVALUATION,
    EVALUATION_COSTS,
    NAN,
    EpisodeSample,
    EvaluationPoint,
    Metric,
    RunRecord,
    Status,
)

LONGEST_NAME = 200
LONGEST_EPISODE = 4000
MOST_SETTINGS = 1000
MARKS = ("summary.json", "metrics.jsonl", ".hydra")
"""What makes a folder a run's."""
ERROR_FILE = "error.txt"
_STATUSES: dict[object, Status] = {
    "completed": "completed",
    "interrupted": "interrupted",
    "pruned": "pruned",
    "failed": "failed",
}


def find_runs(roots: Sequence[Path]) -> list[Path]:
    """All run folders at or below these, each once, in the order of their paths below each root.

    Raises ValueError if a root is no folder or holds no run.
    """
    found: dict[Path, Path] = {}
    for root in roots:
        if not root.is_dir():
            raise ValueError(f"expected a run folder or a folder of runs, got {str(root)!r}, which is not a folder")
        here = 0
        for folder, subfolders, files in os.walk(root):
            if any(mark in files or mark in subfolders for mark in MARKS):
                subfolders.clear()
                here += 1
                found.setdefault(Path(folder).resolve(), Path(folder))
            visible = [name for name in subfolders if not name.startswith(".")]
            subfolders[:] = sorted(visible, key=lambda name: (int(name) if name.isdecimal() else -1, name))
        if not here:
            raise ValueError(f"no runs in {str(root)!r}: expected folders with a summary.json or a metrics.jsonl")
    return list(found.values())


def read_run(folder: Path) -> RunRecord:
    """Everything that the folder says."""
    problems: list[str] = []
    summary = _read_summary(folder / "summary.json", problems)
    points, last_line = _read_points(folder / "metrics.jsonl", problems)
    config = _read_yaml(folder / ".hydra" / "config.yaml", problems)
    overrides = _read_yaml(folder / ".hydra" / "overrides.yaml", problems)
    hydra = _read_yaml(folder / ".hydra" / "hydra.yaml", problems)
    chosen = _mapping(_mapping(_mapping(_mapping(hydra).get("hydra")).get("runtime")).get("choices"))
    settings = dict(_leaves(config))
    budget, evaluation = _mapping(summary.get("budget")), _mapping(summary.get("eval"))
    cost, measured = _mapping(summary.get("cost")), _mapping(summary.get("evaluation_cost"))

    def name(key: str) -> str:
        return clean(summary.get(key)) or settings.get(f"{key}.name", "") or clean(chosen.get(key))

    def scores(when: str) -> dict[Metric, float]:
        return {
            "success": _figure(evaluation, f"success_{when}", problems, low=0.0, high=1.0),
            "return": _figure(evaluation, f"return_{when}", problems),
        }

    unit = clean(budget.get("unit")) or settings.get("budget.unit", "")
    limit = _figure(budget, "limit", problems, low=0.0)
    if math.isnan(limit):
        limit = _parsed(settings.get("budget.limit"))
    # Lines do not count updates, of which a generation takes at least one.
    spent_so_far = _number(last_line.get("generation" if unit == "updates" else unit))
    status = _STATUSES.get(clean(summary.get("status")), "unfinished")
    reason = clean(summary.get("reason"))
    if not summary and not last_line and (folder / ERROR_FILE).exists():  # it failed before anything could be measured
        status, reason = "failed", _last_line(folder / ERROR_FILE, problems)
    if summary and status == "unfinished":
        problems.append(f"summary.json: unknown status {clean(summary.get('status'))!r}")
    spent = _figure(budget, "spent", problems, low=0.0)
    after, compared_at = at_budget(points, scores("after"), unit=unit, limit=limit, spent=spent)
    record = RunRecord(
        folder=folder,
        algorithm=name("algorithm"),
        env=name("env"),
        model=name("model"),
        seed=_seed(summary.get("seed"), settings.get("seed"), problems),
        status=status,
        reason=reason,
        budget_unit=unit,
        budget_limit=limit,
        budget_spent=spent,
        before=scores("before"),
        after=after,
        compared_at=compared_at,
        passes_before=_passes(evaluation, "pass_at_before", problems),
        passes_after=_passes(evaluation, "pass_at_after", problems),
        eval_episodes=_figure(evaluation, "episodes", problems, low=0.0),
        decoding=clean(evaluation.get("decoding")),
        cost={key: _figure(cost, key, problems, low=0.0) for key in COSTS}
        | {key: _figure(measured, key.removeprefix(EVALUATION), problems, low=0.0) for key in EVALUATION_COSTS},
        phase=clean(summary.get("phase")) or settings.get("phase", ""),
        progress=min(1.0, spent_so_far / limit) if limit > 0 else NAN,
        versions={clean(k): clean(v) for k, v in _mapping(summary.get("versions")).items()},
        device=clean(summary.get("device")),
        overrides=tuple(clean(word) for word in overrides if clean(word)) if isinstance(overrides, list) else (),
        settings=settings,
        points=points,
        samples=_read_samples(folder / "episodes.jsonl", problems),
        problems=tuple(dict.fromkeys(problems)),
    )
    return record


def clean(value: object, longest: int = LONGEST_NAME) -> str:
    """Text for people: control characters replaced, length bounded; empty for what is neither text nor a number."""
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return ""
    try:
        text = str(value)
    except ValueError:  # Python refuses to write out integers of thousands of digits
        return ""
    text = text[: longest - 1] + "…" if len(text) > longest else text
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text).strip()


def _read_summary(path: Path, problems: list[str]) -> Mapping[object, object]:
    if not path.exists():
        problems.append("summary.json is missing")
        return {}
    try:
        summary = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError, RecursionError) as error:
        problems.append(f"summary.json cannot be read ({type(error).__name__})")
        return {}
    if not isinstance(summary, dict):
        problems.append("summary.json is not a JSON object")
        return {}
    return summary


def _last_line(path: Path, problems: list[str]) -> str:
    """Of a text that is not empty: the error itself, after its traceback."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        problems.append(f"{path.name} cannot be read ({type(error).__name__})")
        return ""
    return clean(next((line for line in reversed(lines) if line.strip()), ""))


def _read_lines(path: Path, problems: list[str]) -> Iterator[tuple[int, Mapping[object, object]]]:
    """Line number and object of each readable line."""
    bad: list[int] = []
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError):
                    record = None
                if isinstance(record, dict):
                    yield number, record
                else:
                    bad.append(number)
    except OSError as error:
        problems.append(f"{path.name} cannot be read ({type(error).__name__})")
    if bad:
        shown = ", ".join(map(str, bad[:3])) + (", ..." if len(bad) > 3 else "")
        problems.append(f"{path.name}: {len(bad)} unreadable {'line' if len(bad) == 1 else 'lines'} ({shown})")


def _read_points(path: Path, problems: list[str]) -> tuple[tuple[EvaluationPoint, ...], Mapping[object, object]]:
    """The evaluations, and the last readable line of any kind."""
    if not path.exists():
        problems.append("metrics.jsonl is missing")
        return (), {}
    by_generation: dict[int, EvaluationPoint] = {}
    line: Mapping[object, object] = {}
    for number, line in _read_lines(path, problems):
        if line.get("kind") != "eval":
            continue
        generation = _number(line.get("generation"))
        if not (generation >= 0 and generation.is_integer()):
            problems.append(f"metrics.jsonl: line {number} is an evaluation without a generation")
            continue
        # A run that was resumed may have logged a generation twice: the later line is the one it went on from.
        by_generation[int(generation)] = EvaluationPoint(
            generation=int(generation),
            cost={axis: _figure(line, axis, problems, low=0.0) for axis in AXES},
            score={
                "success": _figure(line, "eval/success", problems, low=0.0, high=1.0),
                "return": _figure(line, "eval/return", problems),
            },
        )
    points: list[EvaluationPoint] = []
    for _, point in sorted(by_generation.items()):
        if points and any(point.cost[axis] < points[-1].cost[axis] for axis in AXES):
            problems.append(f"metrics.jsonl: costs fall at generation {point.generation}; that evaluation is left out")
        else:
            points.append(point)
    return tuple(points), line


def _read_samples(path: Path, problems: list[str]) -> tuple[EpisodeSample, ...]:
    """Sample episodes, where a run kept some: lines of {"generation": 0, "texts": ["...", ...]}."""
    samples = []
    for _, line in _read_lines(path, problems) if path.exists() else ():
        generation, texts = _number(line.get("generation")), line.get("texts")
        if generation >= 0 and isinstance(texts, list):
            shown = tuple(_verbatim(text) for text in texts if isinstance(text, str))
            samples.append(EpisodeSample(generation=int(generation), texts=shown))
    return tuple(sorted(samples, key=lambda sample: sample.generation))


def _verbatim(text: str) -> str:
    """Text of several lines, each cleaned."""
    return "\n".join(clean(line, LONGEST_EPISODE) for line in text[:LONGEST_EPISODE].split("\n"))


def _read_yaml(path: Path, problems: list[str]) -> object:
    if not path.exists():
        return None
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        problems.append(f".hydra/{path.name} cannot be read ({type(error).__name__})")
        return None


def _leaves(config: object) -> Iterator[tuple[str, str]]:
    """Dotted keys and values of nested mappings, at most `MOST_SETTINGS`."""
    # Depth-first with a stack and a bound: YAML's anchors can describe trees far larger than the file, even endless.
    stack: list[tuple[str, object]] = [("", config)]
    left = MOST_SETTINGS
    while stack and left:
        key, value = stack.pop()
        left -= 1
        if isinstance(value, dict):
            children = [(f"{key}.{clean(k)}" if key else clean(k), v) for k, v in list(value.items())[:MOST_SETTINGS]]
            stack.extend(reversed(children))
        elif isinstance(value, list):
            yield key, "[" + ", ".join(_word(item) for item in value[:MOST_SETTINGS]) + "]"
        elif key:
            yield key, _word(value)


def _word(value: object) -> str:
    """A leaf as YAML writes it."""
    return {"True": "true", "False": "false", "None": "null"}.get(repr(value)) or clean(value) or "?"


def _mapping(value: object) -> Mapping[object, object]:
    return value if isinstance(value, dict) else {}


def _number(value: object) -> float:
    """A finite number, or NaN."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return NAN
    try:
        number = float(value)
    except OverflowError:
        return NAN
    return number if math.isfinite(number) else NAN


def _figure(
    record: Mapping[object, object], key: str, problems: list[str], low: float = -math.inf, high: float = math.inf
) -> float:
    """The number under a key; NaN where it is absent or null, and a problem besides where it is nonsense."""
    value = record.get(key)
    number = _number(value)
    if number < low or number > high or (math.isnan(number) and value is not None):
        problems.append(f"{key} is {clean(value) or type(value).__name__!s}, which it cannot be")
        return NAN
    return number


def _passes(evaluation: Mapping[object, object], key: str, problems: list[str]) -> dict[int, float]:
    """pass@k by k; JSON's keys are text."""
    found = _mapping(evaluation.get(key))
    ks = [k for k in found if isinstance(k, str) and k.isdecimal() and 0 < len(k) < 7]
    return {int(k): _figure(found, k, problems, low=0.0, high=1.0) for k in sorted(ks, key=int)}


def _parsed(text: str | None) -> float:
    """A setting's number, or NaN."""
    try:
        return _number(float(text or ""))
    except ValueError:
        return NAN


def _seed(value: object, setting: str | None, problems: list[str]) -> int | None:
    number = _number(value)
    if number.is_integer():
        return int(number)
    if value is not None:
        problems.append(f"seed is {clean(value) or type(value).__name__}, which it cannot be")
    try:
        return int(setting or "")
    except ValueError:
        return None
