"""Tune every algorithm with equal numbers of trials, run the best settings over seeds, and report.

    evotext head-to-head algorithm=eggroll,grpo,ppo env=sort,recall seed=0,1,2,3,4 trials=4 budget=quick

algorithm, env, seed   lists, as in a sweep of `evotext train`
trials=4               settings tried for each algorithm and task, the shipped one first; 1: no tuning
jobs=1                 runs at once; each gets its share of the cores
out=runs/head_to_head  where everything goes; started again, finished runs in it are not run again

Defaults: conf/head_to_head.yaml. The values that are tried stand at the end of each algorithm's own file, under `_search_`.
Every other argument goes to each run, as to `evotext train`: budget=quick, model=hf model.path=DIR, env.delay=4.

Trials run on a seed that no reported run has and are judged on validation instances, so that the held-out ones stay
unseen. `pruner=median` ends trials that fall behind those of the same algorithm and task, and no reported run. Writes
tuning.json (every trial with its score and cost) and report/report.html.
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
from evotext.cli.cores import usable_cores
from evotext.cli.errors import ConfigError
from evotext.cli.messages import near, shown
from evotext.folders import FOLDERS
from evotext.reports import head_to_head
from evotext.validation import NonNegativeInt, PositiveInt

from . import compare

TRAIN = (sys.executable, "-m", "evotext", "train")
CHOOSING = ("pruner", "stopper", "keep")  # by validation instances, which reported runs are not measured on
SET_HERE = ("hydra.run.dir", "threads", "evaluation.split", "phase")


class Settings(settings.Settings):
    """The settings in conf/head_to_head.yaml, or the words in their place."""

    algorithm: Annotated[list[str], settings.Listed]
    env: Annotated[list[str], settings.Listed]
    seed: Annotated[list[NonNegativeInt], settings.Listed]
    trials: PositiveInt
    jobs: PositiveInt
    out: Path


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
    tuning = head_to_head.plan.tuning_jobs(told.algorithm, told.env, spaces, told.trials, passed_on, told.out, shipped)
    reported_count = len(told.algorithm) * len(told.env) * len(told.seed)
    budget = configs[told.algorithm[0]].budget
    console.print(announcement(len(tuning), reported_count, told.jobs, budget), soft_wrap=True)
    failures = head_to_head.execute.execute(tuning, run, at_once=told.jobs, title="tuning", console=console)
    chosen: Mapping[tuple[str, str], tuple[str, ...]] = dict.fromkeys(product(told.algorithm, told.env), ())
    if tuning:
        chosen = head_to_head.outcome.best(tuning)
        write_tuning(rows := head_to_head.outcome.trials(tuning), told.out / "tuning.json")
        console.print(tuning_took(rows, told.algorithm), soft_wrap=True)
    for (algorithm, env), setting in chosen.items():
        console.print(f"chosen: {algorithm} on {env}: {' '.join(setting) or 'as shipped'}", soft_wrap=True)
    reported = head_to_head.plan.reported_jobs(chosen, told.seed, of_every_run, told.out)
    failures += head_to_head.execute.execute(reported, run, at_once=told.jobs, title="reported runs", console=console)
    for failure in failures:
        console.print(f"failed: {failure.job.folder}: {failure.reason}", soft_wrap=True)
    if reported:
        folders = [str(told.out / part) for part in ("reported", "tuning") if (told.out / part).is_dir()]
        compare.main([*folders, f"out={told.out / 'report'}"])
    return 1 if failures else 0


def read(words: list[str]) -> tuple[Settings, list[str]]:
    """Return our own settings, and the words for every run. Raise ConfigError for words that are neither."""
    shipped = yaml.safe_load((FOLDERS["conf"] / "head_to_head.yaml").read_text(encoding="utf-8"))
    listed = [
        f"{key}={','.join(map(str, value)) if isinstance(value, list) else value}" for key, value in shipped.items()
    ]
    told, passed_on = settings.read([*listed, *words], Settings, description=__doc__)
    if head_to_head.plan.TUNING_SEED in told.seed:
        raise ConfigError(f"seed: expected other seeds than that of the trials, {head_to_head.plan.TUNING_SEED}")
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
