"""Everything that is needed to repeat the runs: commands, configuration, versions."""

import shlex
from collections.abc import Mapping

from evotext.run_folder.record import RunRecord

from .comparison import Comparison

GROUPS = ("algorithm", "env", "model")


def command(run: RunRecord) -> str:
    """Return the command line that made the run."""
    return "evotext train " + shlex.join(run.overrides)


def configurations(comparison: Comparison) -> list[tuple[str, str]]:
    """Return every distinct configuration once, with a title: each algorithm, task, model and the rest."""
    found: dict[tuple[str, str], int] = {}
    for run in comparison.runs:
        names = {"algorithm": run.algorithm, "env": run.env, "model": run.model}
        for group in GROUPS:
            settings = run.settings_of(group)
            if settings:
                key = f"{group} {names[group]}", _lines(settings)
                found[key] = found.get(key, 0) + 1
        rest = {k: v for k, v in run.settings.items() if k.split(".")[0] not in (*GROUPS, "seed", "hydra")}
        if rest:
            found["everything else", _lines(rest)] = found.get(("everything else", _lines(rest)), 0) + 1
    order = [*GROUPS, "everything"]
    return [
        (f"{title} ({count} run{'' if count == 1 else 's'})", text)
        for (title, text), count in sorted(found.items(), key=lambda item: order.index(item[0][0].split()[0]))
    ]


def versions(comparison: Comparison) -> dict[str, str]:
    """Return each package's version, or versions, and the device that ran the model."""
    found: dict[str, list[str]] = {}
    for run in comparison.runs:
        for name, version in [*run.versions.items(), *([("device", run.device)] if run.device else [])]:
            found.setdefault(name, [])
            if version not in found[name]:
                found[name].append(version)
    return {name: " / ".join(known) for name, known in found.items()}


def _lines(settings: Mapping[str, str]) -> str:
    return "\n".join(f"{key}: {value}" for key, value in settings.items())
