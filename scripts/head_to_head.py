"""Tune every algorithm with equal numbers of trials, run the best settings over seeds, and report.

    python scripts/head_to_head.py algorithm=eggroll,grpo,ppo env=sort,recall seed=0,1,2,3,4 trials=4 budget=quick

algorithm, env, seed   lists, as in a sweep of train.py
trials=4               settings tried for each algorithm and task, the shipped one first; 1: no tuning
jobs=1                 runs at once; each gets its share of the cores
out=runs/head_to_head  where everything goes; started again, finished runs in it are not run again
space=DIR              folder with ALGORITHM.yaml, the values to try (conf/search)

Defaults: conf/head_to_head/default.yaml. Every other argument goes to each run, as to train.py: budget=quick,
model=hf model.path=DIR, env.delay=4.

Trials run on a seed that no reported run has and are judged on validation instances, so that the held-out ones stay
unseen. Writes tuning.json (every trial with its score and cost) and report/report.html.
"""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console

from evotext.cli.messages import explain, near
from reports.head_to_head.execute import Failure, execute, run_in_process
from reports.head_to_head.outcome import COSTS, best, trials
from reports.head_to_head.plan import TUNING_SEED, Space, reported_jobs, tuning_jobs

ROOT = Path(__file__).resolve().parent.parent
KEYS = ("algorithm", "env", "seed", "trials", "jobs", "out", "space")


def main(words: list[str]) -> int:
    """The whole comparison; the exit status. Raises ValueError for what the user should change."""
    options, passed_on = parse(words)
    algorithms, envs = listed(options["algorithm"]), listed(options["env"])
    seeds = [whole("seed", word, least=0) for word in listed(options["seed"])]
    if TUNING_SEED in seeds:
        raise ValueError(f"seed: expected other seeds than that of the trials, {TUNING_SEED}")
    count, at_once = whole("trials", options["trials"], least=1), whole("jobs", options["jobs"], least=1)
    out, space = Path(options["out"]), Path(options["space"] or ROOT / "conf" / "search")
    spaces = {name: read_space(space / f"{name}.yaml") for name in algorithms} if count > 1 else {}
    console = Console(highlight=False, markup=False)
    threads = max(1, (os.cpu_count() or 1) // at_once)
    run = partial(run_in_process, script=ROOT / "scripts" / "train.py", threads=threads)

    configs = {name: composed(name, envs[0], passed_on) for name in algorithms}
    shipped = {name: {key: OmegaConf.select(configs[name], key) for key in space} for name, space in spaces.items()}
    tuning = tuning_jobs(algorithms, envs, spaces, count, passed_on, out, shipped)
    reported_count = len(algorithms) * len(envs) * len(seeds)
    console.print(announcement(len(tuning), reported_count, at_once, configs[algorithms[0]].budget), soft_wrap=True)
    failures = execute(tuning, run, at_once=at_once, title="tuning", console=console)
    chosen = best(tuning) if tuning else {(algorithm, env): () for env in envs for algorithm in algorithms}
    if tuning:
        write_tuning(tuning_rows := trials(tuning), out / "tuning.json")
        console.print(tuning_took(tuning_rows, algorithms), soft_wrap=True)
    for (algorithm, env), setting in chosen.items():
        console.print(f"chosen: {algorithm} on {env}: {' '.join(setting) or 'as shipped'}", soft_wrap=True)
    reported = reported_jobs(chosen, seeds, passed_on, out)
    failures += execute(reported, run, at_once=at_once, title="reported runs", console=console)
    for failure in failures:
        console.print(line(failure), soft_wrap=True)
    if reported:
        compare = ROOT / "scripts" / "compare.py"
        folders = [str(out / part) for part in ("reported", "tuning") if (out / part).is_dir()]
        subprocess.run([sys.executable, compare, *folders, f"out={out / 'report'}"], check=False)  # noqa: S603
    return 1 if failures else 0


def parse(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """Our own options, and the words for every run. Raises ValueError for a flag and an option without a value."""
    options, passed_on = defaults(), []
    for word in words:
        if word == "experiment=head_to_head":
            continue
        key, equals, value = word.partition("=")
        if not equals or key.startswith("-"):
            raise ValueError(f"expected key=value, got {word!r}{near(key, KEYS)}; see --help")
        if key in KEYS and not value:
            raise ValueError(f"{key}: expected a value, got nothing")
        if key in ("hydra.run.dir", "threads", "evaluation.split", "phase"):
            raise ValueError(f"{key}: expected to be left out, got {word!r}; a head-to-head sets it for each run")
        if key in KEYS:
            options[key] = value
        else:
            passed_on.append(word)
    return options, passed_on


def defaults() -> dict[str, str]:
    """The options of `conf/head_to_head/default.yaml`, as words would give them; empty for null."""
    plan = yaml.safe_load((ROOT / "conf" / "head_to_head" / "default.yaml").read_text(encoding="utf-8"))
    return {key: ",".join(map(str, plan[key])) if isinstance(plan[key], list) else str(plan[key] or "") for key in KEYS}


def listed(value: str) -> list[str]:
    """The parts of `a,b` or `[a,b]`."""
    return [part.strip() for part in value.removeprefix("[").removesuffix("]").split(",")]


def whole(key: str, word: str, least: int) -> int:
    """A whole number of at least `least`. Raises ValueError."""
    if not word.strip().isdecimal() or int(word) < least:
        raise ValueError(f"{key}: expected whole numbers of at least {least}, got {word!r}")
    return int(word)


def read_space(file: Path) -> Space:
    """The values to try. Raises ValueError for a file that is not there or is no mapping of lists."""
    if not file.is_file():
        raise ValueError(
            f"algorithm: expected {file} with the values to try, got no such file; write it or set trials=1"
        )
    space = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(space, dict) or not all(isinstance(values, list) and values for values in space.values()):
        raise ValueError(f"{file}: expected lists of values by key, got {space!r}")
    return space


def composed(algorithm: str, env: str, words: list[str]) -> DictConfig:
    """The configuration of a run as shipped. Raises ValueError for words that make none."""
    try:
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            return compose("config", [f"algorithm={algorithm}", f"env={env}", *words])
    except (HydraException, OmegaConfBaseException) as error:
        raise ValueError(explain(error)) from error


def announcement(trials: int, reported: int, at_once: int, budget: DictConfig) -> str:
    """How many runs there are, and where their budget is a time, how long they train in all."""
    text = f"{trials + reported} runs: {trials} trials of tuning, {reported} reported"
    if budget.get("unit") != "seconds":
        return text
    minutes = (-(-trials // at_once) - (-reported // at_once)) * float(budget.limit) / 60
    return (
        f"{text}; at {budget.limit:g} s of training each, at least {minutes:,.0f} minutes unless some are done already"
    )


def write_tuning(rows: list[dict[str, object]], file: Path) -> None:
    """Every trial, for the record."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def tuning_took(rows: list[dict[str, object]], algorithms: list[str]) -> str:
    """What the trials of each algorithm took in all."""
    parts = []
    for algorithm in algorithms:
        own = [row for row in rows if row["algorithm"] == algorithm and row["seconds"] is not None]
        total = {key: sum(float(str(row[key])) for row in own) for key in COSTS}
        parts.append(
            f"{algorithm} {len(own)} trials, {total['episodes']:,.0f} episodes, "
            f"{total['generated_tokens']:,.0f} tokens, {total['seconds']:,.0f} s"
        )
    return "tuning took: " + "; ".join(parts)


def line(failure: Failure) -> str:
    """A failed run and why."""
    return f"failed: {failure.job.folder}: {failure.reason}"


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        sys.exit(0)
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print("interrupted; started again with the same arguments it goes on from here", file=sys.stderr)
        sys.exit(130)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
