"""Tune a language model on a text task: `python scripts/train.py algorithm=eggroll env=sort model=tiny`.

See `--help`, and README.md for what a run's folder holds.
"""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from evotext.command_line import Interrupted, run_hydra
from evotext.config_errors import build, configuration

CONFIGURATION = Path(__file__).resolve().parent.parent / "conf"


def main(config: DictConfig) -> None:
    """One run, from configuration to summary."""
    # Here, because they bring in torch and transformers: a mistyped key should not have to wait for those.
    from evotext.rollouts.collector import Collector
    from evotext.runner.loop import Run
    from evotext.runner.preflight import check_prompts, choose_device, claim_folder, prepare_torch, rows_at_once
    from evotext.runner.trackers import JsonLines

    choices: dict[str, str] = HydraConfig.get().runtime.choices
    folder = Path(HydraConfig.get().runtime.output_dir)
    with configuration():  # everything that can be wrong with it is found before anything is trained
        claim_folder(folder)
        prepare_torch(config.threads)
        device = choose_device(config.device)
        rows = rows_at_once(config.rows, device)
        algorithm, budget = build(config, "algorithm"), build(config, "budget")
        evaluator, task = build(config, "evaluation"), build(config, "env")
        source, tracker = build(config, "model"), build(config, "tracker")
        check_prompts(source.outline(), task)
        model = source.load(device)
        run = Run(
            algorithm=algorithm,
            model=model,
            collector=Collector(model, task, rows=rows),
            budget=budget,
            evaluator=evaluator,
            trackers=[JsonLines(folder), tracker(folder=folder)],
            seed=config.seed,
            names={"algorithm": choices["algorithm"], "env": task.name, "model": model.name},
            folder=folder,
        )
    summary = run.train()
    print(f"{summary['status']}: {run.outcome}  ->  {folder}")
    if summary["status"] == "interrupted":
        raise Interrupted


if __name__ == "__main__":
    run_hydra(main, config_dir=CONFIGURATION, config_name="config")
