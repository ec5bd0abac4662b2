"""The report as one HTML file that opens from disk with no network: style, script, plotly.js and data are inside it.

Text from run folders is untrusted: jinja2 escapes all of it, and a content security policy lets no script run but the
two of ours, by their hashes, and nothing be loaded from anywhere.
"""

import base64
import hashlib
from collections.abc import Iterable
from datetime import datetime
from importlib import resources

import jinja2
from plotly.offline import get_plotlyjs

from evotext.reports import formats
from evotext.reports.comparison import Comparison, Contestant, Task
from evotext.reports.figures import (
    METRIC_TITLES,
    PALETTES,
    axes_of,
    described,
    first_axis,
    learning_curves,
    points_in_words,
    styles,
)
from evotext.reports.records import AXES, EpisodeSample, RunRecord
from evotext.reports.tables import COST_TITLES, command, cost_cell, title, what_happened
from evotext.reports.verdicts import answer, explained, ranked, setting, verdict

SHOWN_EPISODES = 2
_TEMPLATES = resources.files("evotext.reports") / "templates"


def html_report(comparison: Comparison, *, made: datetime) -> str:
    """The page. made: the time to print in it."""
    scripts = {"plotly": get_plotlyjs().replace("\r\n", "\n"), "page": _template("report.js")}
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(_template),
    )
    environment.policies["json.dumps_kwargs"] = {}  # keep the order of axes: the default sorts keys
    return environment.get_template("report.html.jinja").render(
        title=title(comparison),
        made=made.strftime("%Y-%m-%d %H:%M"),
        answer=answer(comparison),
        metric=comparison.metric,
        metric_title=METRIC_TITLES[comparison.metric],
        tasks=[_task(task, comparison) for task in comparison.tasks],
        axes=AXES,
        axis=first_axis(comparison),
        cost_titles=COST_TITLES,
        runs=[_run(run, comparison) for run in comparison.runs],
        lost=[_run(run, comparison) for run in comparison.runs if run.status != "completed" or run.problems],
        commands=list(dict.fromkeys(command(run) for run in comparison.runs if run.overrides)),
        versions=_versions(comparison),
        palettes=PALETTES,
        policy=_policy(scripts.values()),
        style=_template("report.css"),
        scripts=scripts,
    )


def _template(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _policy(scripts: Iterable[str]) -> str:
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    # Plotly writes styles as it draws, and reads its own pictures back from blobs.
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:"


def _task(task: Task, comparison: Comparison) -> dict[str, object]:
    style = styles(comparison)
    axes = axes_of(task, comparison.metric)
    return {
        "name": task.name,
        "verdict": verdict(task),
        "setting": setting(task),
        "unfair": task.unfair,
        "notes": task.notes,
        "figures": {axis: learning_curves(task, axis, comparison.metric, style) for axis in axes},
        "descriptions": {axis: described(task, axis, comparison.metric) for axis in axes},
        "points": {axis: points_in_words(task, axis) for axis in axes},
        "contestants": [_contestant(c, style[c.name], comparison) for c in _best_first(task)],
        "duels": [
            {
                "pair": f"{duel.first} over {duel.second}",
                "improvement": f"{formats.score(duel.improvement.value)} {formats.interval(duel.improvement)}",
                "p_value": f"{duel.p_value:.3f}",
                "explained": explained(duel),
            }
            for duel in task.duels
        ],
    }


def _best_first(task: Task) -> list[Contestant]:
    best = ranked(task)
    return best + [c for c in task.contestants if c not in best]


def _contestant(contestant: Contestant, look: int, comparison: Comparison) -> dict[str, object]:
    after = contestant.after
    bar = None
    if after and comparison.metric == "success":
        low, high = after.interval or (after.value, after.value)
        bar = {"left": f"{100 * low:.1f}", "width": f"{100 * (high - low):.1f}", "at": f"{100 * after.value:.1f}"}
    samples = next((run.samples for run in contestant.counted if len(run.samples) >= 2), ())
    return {
        "name": contestant.name,
        "look": look,
        "seeds": len(contestant.counted),
        "before": formats.score(contestant.before.value) if contestant.before else formats.MISSING,
        "after": formats.score(after.value) if after else formats.MISSING,
        "interval": formats.interval(after),
        "bar": bar,
        "cost": {key: cost_cell(contestant, key) for key in COST_TITLES},
        "samples": _side_by_side(samples[0], samples[-1]) if samples else [],
    }


def _side_by_side(first: EpisodeSample, last: EpisodeSample) -> list[tuple[str, str]]:
    return list(zip(first.texts, last.texts, strict=False))[:SHOWN_EPISODES]


def _run(run: RunRecord, comparison: Comparison) -> dict[str, object]:
    return {
        "label": comparison.labels[run.folder],
        "algorithm": run.algorithm or "unknown",
        "env": run.env or "unknown",
        "seed": formats.MISSING if run.seed is None else str(run.seed),
        "status": run.status,
        "after": formats.score(run.after.get(comparison.metric, float("nan"))),
        "happened": what_happened(run),
    }


def _versions(comparison: Comparison) -> dict[str, str]:
    """Each package's version, or versions; the device that ran the model among them."""
    found: dict[str, list[str]] = {}
    for run in comparison.runs:
        for name, version in [*run.versions.items(), *([("device", run.device)] if run.device else [])]:
            found.setdefault(name, [])
            if version not in found[name]:
                found[name].append(version)
    return {name: " / ".join(versions) for name, versions in found.items()}
