"""The report as one HTML file that opens from disk with no network: style, script, plotly.js and data are inside it.

Text from run folders is untrusted: jinja2 escapes all of it, and a content security policy allows only our two scripts, by
their hashes, and no loading from anywhere. plotly.js, four fifths of the page, is packed.
"""

import base64
import gzip
import hashlib
from collections.abc import Iterable
from datetime import datetime
from importlib import resources

import jinja2
from plotly.offline import get_plotlyjs

from .axes import AXES
from .comparison import Comparison
from .figures import PALETTES, first_axis, metric_title
from .html_parts import overall_part, retention_rows, run_part, sweep_part, task_part, tuning_part
from .repeat import command, configurations, versions
from .tables import COST_TITLES, DETAIL_TITLES, title
from .verdicts import answer

_TEMPLATES = resources.files(__package__) / "templates"


def html_report(comparison: Comparison, *, made: datetime, refresh: int | None = None) -> str:
    """Return the page. made: the time to print in it. refresh: seconds until it reloads itself, while runs go on."""
    plotly, page = get_plotlyjs().replace("\r\n", "\n"), _template("report.js")
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=jinja2.FunctionLoader(_template),
    )
    environment.policies["json.dumps_kwargs"] = {}  # keep the order of axes: the default sorts keys
    swept = {task.name for sweep in comparison.sweeps for task in sweep.tasks}
    numbers = {task.name: number for number, task in enumerate(comparison.tasks, start=1)}
    parts = {task.name: task_part(task, numbers[task.name], comparison) for task in comparison.tasks}
    return environment.get_template("report.html.jinja").render(
        title=title(comparison),
        made=made.strftime("%Y-%m-%d %H:%M"),
        refresh=refresh,
        answer=answer(comparison),
        metric=comparison.metric,
        metric_title=metric_title(comparison.metric, comparison.tasks),
        overall=overall_part(comparison),
        sweeps=[
            sweep_part(sweep, f"sweep-{i}", comparison) | {"tasks": [parts[task.name] for task in sweep.tasks]}
            for i, sweep in enumerate(comparison.sweeps, start=1)
        ],
        tasks=[part for name, part in parts.items() if name not in swept],
        unfair=[part for part in parts.values() if part["unfair"]],
        axes=AXES,
        axis=first_axis(comparison),
        cost_titles=COST_TITLES,
        detail_titles=DETAIL_TITLES,
        tunings=[tuning_part(tuning) for tuning in comparison.tunings],
        retention=retention_rows(comparison.runs, comparison),
        runs=[run_part(run, comparison) for run in comparison.runs],
        lost=[
            run_part(run, comparison)
            for run in comparison.runs
            if run.status != "completed" or run.reason or run.problems
        ],
        commands=list(dict.fromkeys(command(run) for run in comparison.runs if run.overrides)),
        configurations=configurations(comparison),
        versions=versions(comparison),
        palettes=PALETTES,
        policy=_policy((plotly, page)),
        style=_template("report.css"),
        plotly=base64.b64encode(gzip.compress(plotly.encode(), mtime=0)).decode(),
        page=page,
    )


def _template(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _policy(scripts: Iterable[str]) -> str:
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    # Plotly writes styles as it draws, and reads its own pictures back from blobs.
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:"
