"""Tune every algorithm with equal numbers of trials, run the best settings over seeds, and report.

    evotext head-to-head algorithm=eggroll,grpo,ppo env=sort,recall seed=0,1,2,3,4 trials=4 draws=1 budget=quick
    evotext head-to-head study=tenth

study=own              conf/study/NAME.yaml has the defaults: everything | tenth | published are comparisons of ours
algorithm, env, seed   lists, as in a sweep of `evotext train`
trials=12              settings tried for each algorithm and task, the shipped one first; 1: no tuning
draws=2                searches, each with points of the grid and a seed of its own; every chosen setting is reported
pruner=median          ends trials that fall behind those of the same algorithm, task and search, and no reported run
jobs=1                 runs at once; each gets its share of the cores
out=runs/head_to_head  where everything goes; started again, finished runs in it are not run again

The values that are tried stand at the end of each algorithm's own file, under `_search_`.
Every other argument goes to each run, as to `evotext train`: budget=quick, model=hf model.path=DIR, env.delay=4.

Trials run on a seed that no reported run has and are judged on validation instances, so that the held-out ones stay
unseen. Writes tuning.json (every trial with its score and cost) and report/report.html.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated

import yaml
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from evotext.cli import settings
from evotext.cli.composing import compose
from evotext.cli.errors import ConfigError
from evotext.cli.messages import near, shown
from evotext.folders import FOLDERS
from evotext.reports import head_to_head
from evotext.validation import NonNegativeInt, PositiveInt

from . import compare
from .cores import usable_cores

TRAIN = (sys.executable, "-m", "evotext", "train")
CHOOSING = ("pruner", "stopper", "keep")  # by validation instances, which reported runs are not measured on
SET_HERE = ("hydra.run.dir", "threads", "evaluation.split", "phase", "draw")


class Settings(settings.Settings):
    """The settings in conf/head_to_head.yaml, or the words in their place."""

    algorithm: Annotated[list[str], settings.Listed]
    env: Annotated[list[str], settings.Listed]
    seed: Annotated[list[NonNegativeInt], settings.Listed]
    trials: PositiveInt
    draws: PositiveInt
    pruner: str
    jobs: PositiveInt
    out: Path
    study: str | None = None


def main(words: list[str]) -> int:
    """Run the whole comparison; return the exit status. Raise ConfigError for what the user should change."""
    told, passed_on = read(words)
    console = Console(highlight=False, markup=False)
    run = partial(head_to_head.execute.run_in_process, command=TRAIN, threads=max(1, usable_cores() // told.jobs))
    configs = {
        name: compose("config", [f"algorithm={name}", f"env={told.env[0]}", *passed_on]) for name in told.algorithm
    }
    spaces = {name: space_of(name, configs[name]) for name in told.algorithm} if told.trials > 1 else {}
    shipped = {name: {key: OmegaConf.select(configs[name], key) for key in space} for name, space in spaces.items()}

    of_every_run = [word for word in passed_on if word.partition("=")[0].partition(".")[0] not in CHOOSING]
    of_trials = [f"pruner={told.pruner}", *passed_on]
    searches = [
        head_to_head.plan.tuning_jobs(
            told.algorithm, told.env, spaces, told.trials, of_trials, told.out, shipped, draw=draw
        )
        for draw in range(told.draws if told.trials > 1 else 1)
    ]
    tuning = [job for jobs in searches for job in jobs]
    reported_count = len(told.algorithm) * len(told.env) * len(told.seed) * len(searches)
    budget = configs[told.algorithm[0]].budget
    console.print(announcement(len(tuning), reported_count, told.jobs, budget), soft_wrap=True)
    failures = head_to_head.execute.execute(tuning, run, at_once=told.jobs, title="tuning", console=console)
    if tuning:
        write_tuning(rows := head_to_head.outcome.trials(tuning), told.out / "tuning.json")
        console.print(tuning_took(rows, told.algorithm), soft_wrap=True)
    reported: list[head_to_head.plan.Job] = []
    for draw, jobs in enumerate(searches):
        chosen: Mapping[tuple[str, str], tuple[str, ...]] = dict.fromkeys(product(told.algorithm, told.env), ())
        chosen = head_to_head.outcome.best(jobs) if jobs else chosen
        for (algorithm, env), setting in chosen.items():
            found = f"{algorithm} on {env}: {' '.join(setting) or 'as shipped'}"
            console.print(f"chosen{f' by search {draw + 1}' if draw else ''}: {found}", soft_wrap=True)
        reported += head_to_head.plan.reported_jobs(
            chosen, told.seed, of_every_run, told.out, draw=draw, known=tuple(reported)
        )
    failures += head_to_head.execute.execute(reported, run, at_once=told.jobs, title="reported runs", console=console)
    for failure in failures:
        console.print(f"failed: {failure.job.folder}: {failure.reason}", soft_wrap=True)
    if reported:
        parts = [
            head_to_head.plan.part(told.out, phase, k) for phase in ("reported", "tuning") for k in range(told.draws)
        ]
        folders = [str(folder) for folder in parts if folder.is_dir()]
        compare.main([*folders, f"out={told.out / 'report'}"])
    return 1 if failures else 0


def read(words: list[str]) -> tuple[Settings, list[str]]:
    """Return our own settings, and the words for every run. Raise ConfigError for words that are neither."""
    defaults = yaml.safe_load((FOLDERS["conf"] / "head_to_head.yaml").read_text(encoding="utf-8"))
    study = next((word.partition("=")[2] for word in words if word.startswith("study=")), "")
    if study:
        file = FOLDERS["conf"] / "study" / f"{study}.yaml"
        known = sorted(other.stem for other in file.parent.glob("*.yaml"))
        if study not in known:
            raise ConfigError(f"study: expected {' or '.join(known)}, got {study!r}{near(study, known)}")
        defaults |= yaml.safe_load(file.read_text(encoding="utf-8"))
    given = {word.partition("=")[0] for word in words}
    of_study = [word for word in defaults.pop("words", []) if word.partition("=")[0] not in given]
    listed = [
        f"{key}={','.join(map(str, value)) if isinstance(value, list) else value}" for key, value in defaults.items()
    ]
    told, passed_on = settings.read([*listed, *of_study, *words], Settings, description=__doc__)
    of_trials = {head_to_head.plan.TUNING_SEED + draw for draw in range(told.draws)}
    if of_trials & set(told.seed):
        taken = " and ".join(map(str, sorted(of_trials)))
        raise ConfigError(f"seed: expected other seeds than those of the trials, {taken}, got {told.seed}")
    for word in passed_on:
        key, equals, _ = word.partition("=")
        if not equals:
            raise ConfigError(f"expected key=value, got {word!r}{near(word, Settings.model_fields)}; see --help")
        if key in SET_HERE:
            raise ConfigError(f"{key}: expected to be left out, got {word!r}; a head-to-head sets it for each run")
    return told, passed_on


def space_of(algorithm: str, config: DictConfig) -> Mapping[str, Sequence[object]]:
    """Return the values that are tried for each key, null for one that is not. Raise ConfigError if the file names none."""
    space = OmegaConf.to_container(config.algorithm).get("_search_")  # type: ignore[union-attr]
    if not isinstance(space, dict) or not all(
        isinstance(values, list | None) and values != [] for values in space.values()
    ):
        raise ConfigError(
            f"algorithm: expected lists of values to try under _search_ in {algorithm}.yaml, got {shown(space)}; write "
            "them or set trials=1"
        )
    return {f"algorithm.{key}": values for key, values in space.items() if values is not None}


def announcement(trials: int, reported: int, at_once: int, budget: DictConfig) -> str:
    """Say how many runs there are, and how long they train in all where their budget is a time."""
    text = f"{trials + reported} runs: {trials} trials of tuning, {reported} reported"
    if budget.get("unit") != "seconds":
        return text
    minutes = (-(-trials // at_once) - (-reported // at_once)) * float(budget.limit) / 60
    return (
        f"{text}; at {budget.limit:g} s of training each, at least {minutes:,.0f} minutes unless some are done already"
    )


def write_tuning(rows: list[dict[str, object]], file: Path) -> None:
    """Write every trial, for the record."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def tuning_took(rows: list[dict[str, object]], algorithms: list[str]) -> str:
    """Return what the trials of each algorithm took in all."""
    parts = []
    for algorithm in algorithms:
        own = [row for row in rows if row["algorithm"] == algorithm and row["seconds"] is not None]
        total = {key: sum(float(str(row[key])) for row in own) for key in head_to_head.outcome.COSTS}
        parts.append(
            f"{algorithm} {len(own)} trials, {total['episodes']:,.0f} episodes, "
            f"{total['generated_tokens']:,.0f} tokens, {total['seconds']:,.0f} s"
        )
    return "tuning took: " + "; ".join(parts)
