"""Tune a language model on a text task: `evotext train algorithm=eggroll env=sort model=tiny`.

`torchrun --nproc-per-node N -m evotext train ...` runs it in N processes. README.md says what a run's folder holds.
"""

import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from evotext.cli.command import run_hydra
from evotext.cli.errors import configuration
from evotext.cli.jobs import Interrupted
from evotext.cli.main import how_to
from evotext.cli.main import run as run_command
from evotext.cli.targets import build


def train(config: DictConfig) -> float | None:
    """Run once, from configuration to summary; return the final score, as reports show it, which a sweep can search by."""
    # Here, because they bring in torch and transformers: a mistyped key should not have to wait for those.
    from evotext.distributed import collectives, torchrun
    from evotext.rollouts.collector import Collector
    from evotext.run_folder.ending import final_score, is_completed
    from evotext.run_folder.lock import check_inside, check_new, claimed
    from evotext.run_folder.reader import read_run
    from evotext.run_folder.writer import JsonLines
    from evotext.runner.loop import Run
    from evotext.runner.preflight import check_split, choose_device, prepare_torch, rows_at_once

    from .fitting import fitting_model

    choices: dict[str, str] = HydraConfig.get().runtime.choices
    folder = Path(HydraConfig.get().runtime.output_dir)
    first = torchrun.rank() == 0
    with collectives.joined(), ExitStack() as stack:
        with configuration():  # everything that can be wrong with it is found before anything is trained
            if first and config.resume is None:
                check_new(folder)
            elif first:
                check_inside(folder)
            prepare_torch(config.threads)
            device = choose_device(config.device)
            rows = rows_at_once(config.rows, device)
            evaluator, task = build(config, "evaluation"), build(config, "env")
            algorithm, budget = build(config, "algorithm"), build(config, "budget")
            source, adapter = build(config, "model"), build(config, "adapter")
            tracker, checkpointing = build(config, "tracker"), build(config, "checkpoint")
            pruner = build(config, "pruner")
            check_split(pruner, evaluator, config.phase)
            if config.resume and collectives.any_of(first and is_completed(folder, budget.limit)):
                if first:
                    print(f"completed already, nothing is left to do  ->  {folder}")
                return None
            model = adapter.attach(fitting_model(config, source, task, device))
            if first:
                stack.enter_context(claimed(folder))
                torchrun.remember_folder(folder)
            with configuration("tracker", config.tracker):
                trackers = [JsonLines(folder), tracker(folder=folder)] if first else []
            with configuration("algorithm", config.algorithm):
                run = Run(
                    algorithm=algorithm,
                    model=model,
                    collector=Collector(model, task, rows=rows, even=config.rows is None, graphs=config.cuda_graphs),
                    budget=budget,
                    evaluator=evaluator,
                    trackers=trackers,
                    seed=config.seed,
                    names={"algorithm": choices["algorithm"], "env": task.name, "model": model.name},
                    folder=folder,
                    checkpointing=checkpointing,
                    phase=config.phase,
                    pruner=pruner,
                )
            if config.resume:
                run.resume()
        summary = run.train()
    if first:
        print(f"{summary['status']}: {run.outcome}  ->  {folder}")
    if summary["status"] == "interrupted":
        if first and checkpointing.keep:
            print(f"to go on with it: {how_to('train')} resume={shlex.quote(str(folder))}")
        raise Interrupted
    return final_score(read_run(folder)) if first else None


def main(words: list[str]) -> NoReturn:
    """Run the command line. `experiment=head_to_head`, many runs and a report, is a command of its own."""
    if "experiment=head_to_head" in words:
        run_command(
            "head-to-head", [word for word in words if word not in ("-m", "--multirun", "experiment=head_to_head")]
        )
    run_hydra(train, words, config_name="config")
