"""What a run unlearned, measured by `evotext evaluate run=RUN_DIR retention=[...]`.

Other tasks of the library before and after the run, the divergence on the starting model's own text, the weights' drift.
"""

from collections.abc import Sequence
from pathlib import Path

import hydra
import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from rich.table import Table

from evotext.cli.errors import ConfigError, configuration
from evotext.cli.fitting import loaded
from evotext.cli.messages import near
from evotext.cli.targets import build, check_targets
from evotext.models.language_model import LanguageModel
from evotext.models.source import Outline
from evotext.rollouts.collector import Collector
from evotext.rollouts.task import TextTask
from evotext.run_folder import names
from evotext.run_folder.configuration import read_config, read_yaml
from evotext.run_folder.retention import RetainedTask, Retention
from evotext.runner.divergence import EPISODES, StartingPolicy
from evotext.runner.evaluation import Evaluator
from evotext.runner.preflight import check_prompts


def other_tasks(config: DictConfig, outline: Outline) -> list[TextTask]:
    """Return the tasks of `retention`, as conf/env has them. Raise ConfigError for an unknown one, or one that does not fit."""
    if not config.retention:
        return []
    if config.run is None:
        raise ConfigError("retention: expected run=RUN_DIR beside it, whose start is compared with its end; name a run")
    known, tasks = GlobalHydra.instance().config_loader().get_group_options("env"), []
    wanted = [config.retention] if isinstance(config.retention, str) else config.retention
    for name in wanted:
        if name not in known:
            raise ConfigError(
                f"retention: expected names of tasks, as sort or recall, got {name!r}{near(str(name), known)}"
            )
        with configuration():
            task = build(hydra.compose("evaluate", [f"env={name}"]), "env")
            try:
                check_prompts(outline, task)
            except ValueError as error:
                raise ValueError(f"retention: {name}: {error}") from error
        tasks.append(task)
    return tasks


def starting_model(config: DictConfig, device: torch.device) -> LanguageModel:
    """Return the model that the run started from, in float32. Raise ConfigError if it has no name or cannot be loaded."""
    folder = Path(config.run)
    given = (folder / names.HYDRA / names.OBJECTS).exists() and "model" in str(read_yaml(folder, names.OBJECTS))
    of_run = OmegaConf.create(dict(read_config(folder)))
    model = OmegaConf.select(of_run, "model")
    if given or not isinstance(model, DictConfig):
        raise ConfigError(
            f"retention: expected a run whose model has a name, got {config.run!r}, which was given an object"
        )
    if "dtype" in model:
        model.dtype = "float32"  # as the tuned one is loaded
    if "trust_remote_code" in model:
        model.trust_remote_code = False  # a folder cannot give itself leave
    with configuration():
        if not config.allow_custom_targets:
            check_targets({"model": OmegaConf.to_container(model, resolve=True)})
        return loaded(of_run, build(of_run, "model"), device)


def retention(
    start: LanguageModel,
    tuned: LanguageModel,
    tasks: Sequence[TextTask],
    evaluator: Evaluator,
    *,
    rows: int,
    graphs: bool,
) -> Retention:
    """Measure both models on these tasks. Raise ValueError where they do not have the same weights."""
    norm, drift = distances(start, tuned)
    return Retention(
        tasks=[_task(start, tuned, task, evaluator, rows=rows, graphs=graphs) for task in tasks],
        drift=drift,
        drift_share=drift / norm if norm else None,
    )


@torch.no_grad()
def distances(start: LanguageModel, tuned: LanguageModel) -> tuple[float, float]:
    """Return the norm of the starting weights and their Euclidean distance from the tuned ones, both in float64."""
    before, after = dict(start.network.named_parameters()), dict(tuned.network.named_parameters())
    if {name: p.shape for name, p in before.items()} != {name: p.shape for name, p in after.items()}:
        raise ValueError(
            "run: expected a tuned model with the weights of the model that it started from, got other ones"
        )
    square = torch.zeros(2, dtype=torch.float64)
    for name, old in before.items():
        old_weight, new_weight = old.cpu().double(), after[name].cpu().double()
        square += torch.stack([old_weight.square().sum(), (new_weight - old_weight).square().sum()])
    norm, drift = square.sqrt().tolist()
    return norm, drift


def _task(
    start: LanguageModel, tuned: LanguageModel, task: TextTask, evaluator: Evaluator, *, rows: int, graphs: bool
) -> RetainedTask:
    collectors = [Collector(model, task, rows=rows, graphs=graphs) for model in (start, tuned)]
    before, after = (evaluator.measure(collector, sampled=False) for collector in collectors)
    said = StartingPolicy(collectors[0], episodes=min(EPISODES, evaluator.episodes))
    return RetainedTask(
        env=task.name,
        return_before=before.mean_return,
        return_after=after.mean_return,
        success_before=before.success,
        success_after=after.success,
        kl_from_start=said.divergence(tuned.network)[0],
    )


def retention_table(retention: Retention) -> Table:
    """Return a line a task, and the weights' drift below."""
    share = "" if retention.drift_share is None else f" ({retention.drift_share:.2%} of their norm)"
    table = Table(
        title="What the run unlearned: other tasks before and after it",
        caption=f"weights moved by {retention.drift:.4g}{share}",
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("task")
    for column in ("success", "return", "KL from the start"):
        table.add_column(column, justify="right")
    for task in retention.tasks:
        scores = ((task.success_before, task.success_after), (task.return_before, task.return_after))
        table.add_row(task.env, *(_change(score) for score in scores), f"{task.kl_from_start:.4f}")
    return table


def _change(values: Sequence[float | None]) -> str:
    return " → ".join("unknown" if value is None else f"{value:.3f}" for value in values)
