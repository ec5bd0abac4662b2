"""A run from its configuration: what `evotext train` and `evotext.tune` share.

It brings in torch and transformers; a command imports it once its words have been checked.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from omegaconf import DictConfig

from evotext.cli.errors import configuration
from evotext.cli.fitting import fitting_outline, loaded
from evotext.cli.parallel import check_parallel, sharded
from evotext.cli.targets import build, locate, task_at
from evotext.distributed import collectives, torchrun
from evotext.models.given import GivenModel
from evotext.protocols import Algorithm
from evotext.rollouts.collector import Collector
from evotext.rollouts.curriculum import Levels, WithCurriculum
from evotext.run_folder.ending import is_completed
from evotext.run_folder.lock import check_inside, check_new, claimed
from evotext.run_folder.writer import JsonLines
from evotext.runner.callbacks import Callback, Callbacks
from evotext.runner.loop import Run
from evotext.runner.preflight import check_keep, check_split, choose_device, prepare_torch, rows_at_once

# Seconds that the processes of a lost torchrun group may take to notice.
LEAVING = 60.0
# Warns of a run that its device cannot hold. By its name: it knows algorithms, and nothing here does.
FORECAST = "evotext.commands.planning.configured.warn_of_memory"


@dataclass(frozen=True, kw_only=True)
class Given:
    """Objects that take the place of what a configuration describes; None leaves it as described."""

    algorithm: Algorithm | None = None
    model: GivenModel | None = None


NOTHING = Given()


@contextmanager
def assembled(
    config: DictConfig,
    *,
    folder: Path,
    algorithm: str,
    given: Given = NOTHING,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> Iterator[Run | None]:
    """Give the run of this configuration, ready to be trained in this folder, which belongs to it until the block ends.

    None where the folder's run (`config.resume`) has been completed already. algorithm: its name in the records.
    Whatever can be wrong with the configuration is found before anything is trained, and raises ConfigError.
    """
    first = torchrun.rank() == 0
    with collectives.joined(), ExitStack() as stack:
        with configuration():
            if first and config.resume is None:
                check_new(folder)
            elif first:
                check_inside(folder)
            prepare_torch(config.threads)
            device = choose_device(config.device)
            rows = rows_at_once(config.rows, device)
            evaluator, task = build(config, "evaluation"), build(config, "env")
            with configuration("curriculum", config.curriculum):
                played = build(config, "curriculum")(task=task, at=partial(task_at, config))
            made, budget = given.algorithm or build(config, "algorithm"), build(config, "budget")
            source, adapter = given.model or build(config, "model"), build(config, "adapter")
            if given.model is None:
                check_parallel(config, made, torchrun.size())
            tracker, checkpointing = build(config, "tracker"), build(config, "checkpoint")
            pruner, stopper = build(config, "pruner"), build(config, "stopper")
            check_split(pruner, evaluator, config.phase, stopper=stopper, keep=config.keep)
            check_keep(config.keep, checkpointing)
            resumes = collectives.any_of(first and config.resume is not None)
            done = resumes and collectives.any_of(first and is_completed(folder, budget.limit))
            run = None
            if not done:
                outline, prompt = fitting_outline(config, source, played, evaluator)
                if given.algorithm is None and given.model is None:
                    locate(FORECAST, "algorithm")(config, outline, played, evaluator, device, rows=rows, prompt=prompt)
                model = adapter.attach(loaded(config, source, device))
                if given.model is None:
                    model = sharded(config, model, device)
                if first:
                    stack.enter_context(claimed(folder, patience=LEAVING if torchrun.launched() else 0.0))
                    torchrun.remember_folder(folder)
                with configuration("tracker", config.tracker):
                    trackers = [JsonLines(folder), tracker(folder=folder)] if first else []
                with configuration("algorithm", config.algorithm):
                    run = Run(
                        algorithm=WithCurriculum(made, played) if isinstance(played, Levels) else made,
                        model=model,
                        collector=Collector(
                            model, played, rows=rows, even=config.rows is None, graphs=config.cuda_graphs
                        ),
                        budget=budget,
                        evaluator=evaluator,
                        trackers=trackers,
                        seed=config.seed,
                        names={"algorithm": algorithm, "env": task.name, "model": model.name},
                        folder=folder,
                        checkpointing=checkpointing,
                        phase=config.phase,
                        pruner=pruner,
                        stopper=stopper,
                        keep=config.keep,
                        sample_every=config.sample_every,
                        callbacks=Callbacks(callbacks),
                        progress=progress,
                    )
                if resumes:
                    run.resume()
        yield run
