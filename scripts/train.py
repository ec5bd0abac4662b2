"""Tune a language model on a text task: `python scripts/train.py algorithm=eggroll env=sort model=tiny`.

`torchrun --nproc-per-node N scripts/train.py ...` runs it in N processes. See `--help`, and README.md for what a run's
folder holds.
"""

import os
import shlex
import sys
from contextlib import ExitStack
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from evotext.cli.command import Interrupted, run_hydra
from evotext.cli.errors import build, configuration

CONFIGURATION = Path(__file__).resolve().parent.parent / "conf"


def main(config: DictConfig) -> float | None:
    """One run, from configuration to summary; its final score, as reports show it, which a sweep can search by."""
    # Here, because they bring in torch and transformers: a mistyped key should not have to wait for those.
    from evotext.distributed import collectives, torchrun
    from evotext.rollouts.collector import Collector
    from evotext.run_folder.ending import final_score, is_completed
    from evotext.run_folder.lock import check_inside, check_new, claimed
    from evotext.run_folder.reader import read_run
    from evotext.run_folder.writer import JsonLines
    from evotext.runner.loop import Run
    from evotext.runner.preflight import check_prompts, check_split, choose_device, prepare_torch, rows_at_once

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
            check_prompts(source.outline(), task)
            model = adapter.attach(source.load(device))
            if first:
                stack.enter_context(claimed(folder))
                torchrun.remember_folder(folder)
            run = Run(
                algorithm=algorithm,
                model=model,
                collector=Collector(model, task, rows=rows, even=config.rows is None, graphs=config.cuda_graphs),
                budget=budget,
                evaluator=evaluator,
                trackers=[JsonLines(folder), tracker(folder=folder)] if first else [],
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
            print(f"to go on with it: python scripts/train.py resume={shlex.quote(str(folder))}")
        raise Interrupted
    return final_score(read_run(folder)) if first else None


if __name__ == "__main__":
    if "experiment=head_to_head" in sys.argv[1:]:  # many runs and a report: a command of its own
        words = [word for word in sys.argv[1:] if word not in ("-m", "--multirun")]
        os.execv(sys.executable, [sys.executable, str(Path(__file__).with_name("head_to_head.py")), *words])  # noqa: S606
    run_hydra(main, config_dir=CONFIGURATION, config_name="config")
