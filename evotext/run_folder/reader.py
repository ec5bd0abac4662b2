"""Reads run folders that may be damaged, or of an older version: half-written files, missing fields, nonsense.

Nothing in a folder makes reading fail. `RunRecord.problems` names what is wrong; what cannot be read is NaN or
empty. Text is stripped of control characters and shortened, since it ends up on terminals and in pages.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from evotext.run_folder import names
from evotext.run_folder.at_budget import at_budget
from evotext.run_folder.configuration import choices, leaves, read_yaml
from evotext.run_folder.cost import AXES, COSTS, EVALUATION, EVALUATION_COSTS
from evotext.run_folder.older import phase_by_seed
from evotext.run_folder.record import NAN, EpisodeSample, EvaluationPoint, Metric, RunRecord
from evotext.run_folder.retention import read_retention
from evotext.run_folder.schema import EpisodesLine, Line, Phase, Summary, TaskRecord, TrainingEpisode
from evotext.run_folder.text import clean, clean_lines

LONGEST_EPISODE = 4000
MOST_SETTINGS = 1000
PARTS = "eval/reward/"


def read_run(folder: Path) -> RunRecord:
    """Return everything that the folder says."""
    problems: list[str] = []
    summary = read_summary(folder, problems)
    points, last_line = _read_points(folder, problems)
    settings = {
        clean(key, LONGEST_EPISODE): _setting(value)
        for key, value in leaves(_read_yaml(folder, names.CONFIG, problems), MOST_SETTINGS)
        if value != {}
    }
    overrides = _read_yaml(folder, names.OVERRIDES, problems)
    chosen = choices(folder)
    known = summary if summary is not None else Summary()
    status, reason = known.status or "unfinished", clean(known.reason)
    # It failed before anything could be measured.
    if summary is None and last_line is None and (folder / names.ERROR).exists():
        status, reason = "failed", _last_text(folder / names.ERROR, problems)
    unit = clean(known.budget.unit) or settings.get("budget.unit", "")
    limit = _number(settings.get("budget.limit")) if known.budget.limit is None else float(known.budget.limit)
    measured = known.eval
    after, compared_at = at_budget(
        points,
        _scores(measured, "after"),
        unit=unit,
        limit=limit,
        spent=_figure(known.budget.spent),
    )
    return RunRecord(
        folder=folder,
        algorithm=_name("algorithm", known.algorithm, settings, chosen),
        env=_name("env", known.env, settings, chosen),
        model=_name("model", known.model, settings, chosen),
        seed=(seed := known.seed if known.seed is not None else _whole(settings.get("seed"))),
        phase=_phase(known.phase or settings.get("phase") or phase_by_seed(seed)),
        draw=_whole(settings.get("draw")) or 0,
        status=status,
        reason=reason,
        budget_unit=unit,
        budget_limit=limit,
        budget_spent=_figure(known.budget.spent),
        before=_scores(measured, "before"),
        after=after,
        best=_scores(measured, "best"),
        best_generation=measured.best_generation,
        saved_generation=known.saved_generation,
        compared_at=compared_at,
        passes_before=dict(sorted(measured.pass_at_before.items())),
        passes_after=dict(sorted(measured.pass_at_after.items())),
        by_task_before={clean(name): _scores(own, "before") for name, own in measured.by_task.items()},
        by_task_after={clean(name): _scores(own, "after") for name, own in measured.by_task.items()},
        eval_episodes=_figure(measured.episodes),
        decoding=clean(measured.decoding),
        split=measured.split or "",
        cost={key: _figure(known.cost.get(key)) for key in COSTS}
        | {key: _figure(known.evaluation_cost.get(key.removeprefix(EVALUATION))) for key in EVALUATION_COSTS},
        faults={clean(kind): count for kind, count in known.faults.items()},
        evaluation_faults={clean(kind): count for kind, count in known.evaluation_faults.items()},
        versions={clean(package): clean(version) for package, version in known.versions.items()},
        device=clean(known.device),
        progress=_progress(last_line, unit, limit),
        seconds=_figure(last_line.seconds) if last_line else NAN,
        overrides=tuple(clean(word) for word in overrides if clean(word)) if isinstance(overrides, list) else (),
        settings=settings,
        points=points,
        samples=_read_samples(folder, problems),
        retention=read_retention(folder, problems),
        problems=tuple(dict.fromkeys(problems)),
    )


def read_summary(folder: Path, problems: list[str] | None = None) -> Summary | None:
    """Return `summary.json`; None where it is missing or no JSON object, and without what is wrong in it.

    problems: takes what is missing or wrong, in words. Without it such a summary raises OSError or ValueError.
    """
    try:
        record = json.loads((folder / names.SUMMARY).read_text(encoding="utf-8", errors="replace"))
        if not isinstance(record, dict):
            raise ValueError(f"{names.SUMMARY} is not a JSON object")
        return Summary.model_validate(record, context=problems)
    except (OSError, ValueError, RecursionError) as error:
        if problems is None:
            raise
        problems.append(_unreadable(names.SUMMARY, error))
        return None


def read_evaluations(folder: Path, problems: list[str]) -> Iterator[Line]:
    """Yield every measurement of `metrics.jsonl` in the order written. problems: takes what is missing or wrong."""
    for _, record in _lines(folder / names.METRICS, problems):
        if record.get("kind") == "eval":
            yield Line.model_validate(record, context=problems)


def read_training_episodes(folder: Path, problems: list[str]) -> Iterator[TrainingEpisode]:
    """Yield the training episodes of `episodes.jsonl` in the order written. problems: takes what is missing or wrong."""
    for _, record in _lines(folder / names.EPISODES, problems):
        if record.get("split") == "train":
            yield TrainingEpisode.model_validate(record, context=problems)


def _unreadable(name: str, error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{name} is missing"
    if type(error) is ValueError and str(error).startswith(name):
        return str(error)
    return f"{name} cannot be read ({type(error).__name__})"


def _lines(path: Path, problems: list[str]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield the number and content of each line that is a JSON object."""
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
        problems.append(_unreadable(path.name, error))
    if bad:
        shown = ", ".join(map(str, bad[:3])) + (", ..." if len(bad) > 3 else "")
        problems.append(f"{path.name}: {len(bad)} unreadable {'line' if len(bad) == 1 else 'lines'} ({shown})")


def _read_points(folder: Path, problems: list[str]) -> tuple[tuple[EvaluationPoint, ...], Line | None]:
    """Return the evaluations, and the last readable line of any kind."""
    by_generation: dict[int, EvaluationPoint] = {}
    last: Mapping[str, Any] | None = None
    for number, last in _lines(folder / names.METRICS, problems):
        if last.get("kind") != "eval":
            continue
        line = Line.model_validate(last, context=problems)
        if line.generation is None:
            problems.append(f"{names.METRICS}: line {number} is an evaluation without a generation")
            continue
        # A run that was resumed may have logged a generation twice: the later line is the one it went on from.
        by_generation[line.generation] = EvaluationPoint(
            generation=line.generation,
            cost={axis: _figure(getattr(line, axis)) for axis in AXES},
            score={"success": _figure(line.success), "return": _figure(line.mean_return)},
            spent=_figure(line.spent),
            parts={
                clean(key.removeprefix(PARTS)): mean
                for key, value in line.__pydantic_extra__.items()
                if key.startswith(PARTS) and (mean := _number(clean(value))) == mean
            },
        )
    points: list[EvaluationPoint] = []
    for _, point in sorted(by_generation.items()):
        if points and any(point.cost[axis] < points[-1].cost[axis] for axis in AXES):
            problems.append(
                f"{names.METRICS}: costs fall at generation {point.generation}; that evaluation is left out"
            )
        else:
            points.append(point)
    return tuple(points), None if last is None else Line.model_validate(last, context=[])


def _read_samples(folder: Path, problems: list[str]) -> tuple[EpisodeSample, ...]:
    """Sample episodes of measurements, where a run kept some."""
    samples = []
    for _, record in _lines(folder / names.EPISODES, problems) if (folder / names.EPISODES).exists() else ():
        if record.get("split") == "train":
            continue
        line = EpisodesLine.model_validate(record, context=problems)
        if line.generation is not None:
            texts = tuple(clean_lines(text, LONGEST_EPISODE) for text in line.texts)
            samples.append(EpisodeSample(generation=line.generation, texts=texts))
    return tuple(sorted(samples, key=lambda sample: sample.generation))


def _read_yaml(folder: Path, name: str, problems: list[str]) -> object:
    try:
        return read_yaml(folder, name)
    except FileNotFoundError:  # a run that no command started has none
        return None
    except (OSError, ValueError) as error:
        problems.append(f"{names.HYDRA}/{name} cannot be read ({type(error.__cause__ or error).__name__})")
        return None


def _last_text(path: Path, problems: list[str]) -> str:
    """Return the last line that is not empty: the error itself, after its traceback."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        problems.append(_unreadable(path.name, error))
        return ""
    return clean(next((line for line in reversed(lines) if line.strip()), ""))


def _name(key: str, recorded: str | None, settings: Mapping[str, str], chosen: Mapping[str, str]) -> str:
    return clean(recorded) or settings.get(f"{key}.name", "") or clean(chosen.get(key))


def _phase(word: str) -> Phase:
    return "tuning" if word == "tuning" else "reporting"


def _progress(last: Line | None, unit: str, limit: float) -> float:
    """Share of the budget."""
    if last is None or not limit > 0:
        return NAN
    spent = getattr(last, unit) if unit in (*AXES, "updates") else None
    return min(1.0, _figure(spent) / limit)


def _setting(value: object) -> str:
    """Return a leaf of the configuration as YAML writes it."""
    if isinstance(value, list):
        return "[" + ", ".join(_setting_word(item) for item in value[:MOST_SETTINGS]) + "]"
    return _setting_word(value)


def _setting_word(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return clean(value) or "?"


def _scores(measured: TaskRecord, when: Literal["before", "after", "best"]) -> dict[Metric, float]:
    return {
        "success": _figure(getattr(measured, f"success_{when}")),
        "return": _figure(getattr(measured, f"return_{when}")),
    }


def _figure(value: float | None) -> float:
    return NAN if value is None else float(value)


def _number(text: str | None) -> float:
    """Return a setting's number, or NaN."""
    try:
        number = float(text or "")
    except ValueError:
        return NAN
    return number if abs(number) < float("inf") else NAN


def _whole(text: str | None) -> int | None:
    try:
        return int(text or "")
    except ValueError:
        return None
