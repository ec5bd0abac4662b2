"""Does ES overtake RL where the reward comes later? One task at several lengths, from equal starts, at equal operations.

    python scripts/horizon.py out=runs/horizon length=1,2,4,8,16 seed=0,1,2 budget=6e11

env=recall option=env.delay   the task, and the option that is its length
length=1,2,4,8,16             its values
algorithm=eggroll,...         contestants
seed=0,1,2                    of the reported runs
chosen=FILE.csv               all runs of a head-to-head: each contestant has the setting that was chosen for it there on
                              this task; left out: each is tuned anew
tuned=2,8                     lengths that settings are tuned at; the others take those of the nearest one
trials=4                      settings tried for each contestant there: the shipped one, then points of its grid; 1: no tuning
budget=6e11                   operations of a run
out=runs/horizon              where everything goes; started again, finished runs in it are not run again

Starts are made first (`horizons/starts.py`), then trials on validation instances, then runs on held-out ones, seed by seed.
One process runs everything, one run after another, on one core. `python scripts/horizon_page.py` reads the result.
"""

import csv
import json
import math
import shlex
import shutil
import sys
from pathlib import Path
from typing import Annotated

from horizons import starts

from evotext.cli import settings
from evotext.cli.assembly import assembled
from evotext.cli.composing import compose, compose_checked
from evotext.cli.errors import ConfigError, configuration
from evotext.cli.main import exit_with
from evotext.reports import head_to_head
from evotext.run_folder import names
from evotext.run_folder.ending import ENDED_WELL, final_score
from evotext.runner.stop import STOPPED_BY_SIGNALS
from evotext.validation import NonNegativeInt, PositiveInt

MEASURED = ("evaluation.episodes=256", "evaluation.points=3", "evaluation.samples=0")
QUIET = ("tracker=none", "checkpoint.keep=0", "sample_every=0", "threads=1")


class Settings(settings.Settings):
    """The settings of the study."""

    env: str = "recall"
    option: str = "env.delay"
    length: Annotated[list[PositiveInt], settings.Listed] = [1, 2, 4, 8, 16]
    algorithm: Annotated[list[str], settings.Listed] = ["eggroll", "scored_es", "grpo", "ppo"]
    seed: Annotated[list[NonNegativeInt], settings.Listed] = [0, 1, 2]
    chosen: Path | None = None
    tuned: Annotated[list[PositiveInt], settings.Listed] = [2, 8]
    trials: PositiveInt = 4
    budget: float = 6e11
    out: Path = Path("runs/horizon")


def main(words: list[str]) -> int:
    """Make the starts, tune, run; return the exit status. Raise ConfigError for what the user should change."""
    told, others = settings.read(words, Settings, description=__doc__)
    if others:
        raise ConfigError(f"expected key=value, got {others[0]!r}; see --help")
    if told.chosen is None and not set(told.tuned) <= set(told.length):
        raise ConfigError(f"tuned: expected some of length={told.length}, got {told.tuned}")
    place = {length: told.out / "starts" / f"{told.env}-{length}" for length in told.length}
    before = None
    for length in sorted(told.length):
        chosen = [f"env={told.env}", f"{told.option}={length}", "model=tiny"]
        with configuration():
            found = starts.start(place[length], chosen, before)
        print(f"start at {told.option}={length}: {json.dumps(found)}", flush=True)
        before = place[length]

    def words_at(length: int) -> list[str]:
        model = ["model=hf", f"model.path={place[length]}", "model.dtype=float32"]
        budget = ["budget=flops", f"budget.limit={told.budget:g}"]
        return [f"{told.option}={length}", *model, *budget, *MEASURED, *QUIET]

    choices: dict[int, dict[tuple[str, str], tuple[str, ...]]]
    if told.chosen is None and told.trials == 1:
        choices = dict.fromkeys(told.length, dict.fromkeys(((name, told.env) for name in told.algorithm), ()))
    elif told.chosen is None:
        choices = {length: tuned(told, length, words_at(length)) for length in told.tuned}
    else:
        choices = dict.fromkeys(told.length, chosen_before(told.chosen, told.algorithm, told.env))
    for seed in told.seed:
        for length in told.length:
            nearest = min(choices, key=lambda other: abs(math.log(other / length)))
            jobs = head_to_head.plan.reported_jobs(
                choices[nearest], [seed], words_at(length), told.out / f"{told.env}-{length}"
            )
            for job in jobs:
                run(job)
    return 0


def chosen_before(file: Path, algorithms: list[str], env: str) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return the settings that the reported runs of a head-to-head had on this task. Raise ConfigError where there are none."""
    with file.open(encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["env"] == env and row["counted"] == "1"]
    words = {row["algorithm"]: shlex.split(row["overrides"]) for row in rows}
    missing = [name for name in algorithms if name not in words]
    if missing:
        raise ConfigError(f"chosen: expected reported runs of {', '.join(missing)} on {env} in {file}, got none")
    return {(name, env): tuple(word for word in words[name] if word.startswith("algorithm.")) for name in algorithms}


def tuned(told: Settings, length: int, words: list[str]) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return the best setting of each contestant at a length, by equally many trials."""
    spaces, shipped = {}, {}
    for name in told.algorithm:
        config = compose("config", [f"algorithm={name}", f"env={told.env}"])
        space = {k: v for k, v in config.algorithm["_search_"].items() if v is not None}
        spaces[name] = {f"algorithm.{key}": list(values) for key, values in space.items()}
        shipped[name] = {f"algorithm.{key}": select(config.algorithm, key) for key in space}
    out = told.out / f"{told.env}-{length}"
    jobs = head_to_head.plan.tuning_jobs(
        told.algorithm, [told.env], spaces, told.trials, ["pruner=median", "pruner.fewest=2", *words], out, shipped
    )
    for job in jobs:
        run(job)
    chosen = head_to_head.outcome.best(jobs)
    for (algorithm, _), setting in chosen.items():
        print(f"chosen at {length}: {algorithm}: {' '.join(setting) or 'as shipped'}", flush=True)
    return chosen


def select(node: object, key: str) -> object:
    """Return the value at a dotted key."""
    for part in key.split("."):
        node = node[part]  # type: ignore[index]
    return node


def run(job: head_to_head.plan.Job) -> None:
    """Run a job in this process unless it is done. Raise KeyboardInterrupt if it was stopped."""
    if head_to_head.outcome.record(job) is not None:
        return
    shutil.rmtree(job.folder, ignore_errors=True)
    job.folder.mkdir(parents=True)
    composed = compose_checked("config", list(job.words))
    composed.record(job.folder)
    with assembled(composed.config, folder=job.folder, algorithm=job.algorithm, progress=False) as made:
        assert made is not None, "a new run has something to do"
        summary = made.train()
    if summary["status"] == "interrupted" and summary["reason"] in STOPPED_BY_SIGNALS:
        raise KeyboardInterrupt
    if summary["status"] in ENDED_WELL:
        (job.folder / names.WORDS).write_text(json.dumps(job.words), encoding="utf-8")
    found = head_to_head.outcome.record(job)
    score = final_score(found) if found else None
    told = "failed" if found is None or score is None else f"{found.before['success']:.3f} -> {score:.3f}"
    print(f"{job.folder}: {' '.join(job.setting)} {summary['status']} {told}", flush=True)


if __name__ == "__main__":
    exit_with(lambda: main(sys.argv[1:]))
