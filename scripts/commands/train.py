"""Tune a language model on a text task: `evotext train algorithm=eggroll env=sort model=tiny`.

`torchrun --nproc-per-node N -m evotext train ...` runs it in N processes. README.md says what a run's folder holds.
"""

import shlex
from pathlib import Path
from typing import NoReturn

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from evotext.cli.command import run_hydra
from evotext.cli.jobs import Interrupted
from evotext.cli.main import how_to
from evotext.cli.main import run as run_command


def train(config: DictConfig) -> float | None:
    """Run once, from configuration to summary; return the final score, as reports show it, which a sweep can search by."""
    # Here, because they bring in torch and transformers: a mistyped key should not have to wait for those.
    from evotext.cli.assembly import assembled
    from evotext.distributed import torchrun
    from evotext.run_folder.ending import final_score
    from evotext.run_folder.reader import read_run

    folder = Path(HydraConfig.get().runtime.output_dir)
    algorithm = HydraConfig.get().runtime.choices["algorithm"]
    first = torchrun.rank() == 0
    with assembled(config, folder=folder, algorithm=algorithm) as run:
        if run is None:
            if first:
                print(f"completed already, nothing is left to do  ->  {folder}")
            return None
        summary = run.train()
    if first:
        print(f"{summary['status']}: {run.outcome}  ->  {folder}")
    if summary["status"] == "interrupted":
        if first and config.checkpoint.keep:
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
