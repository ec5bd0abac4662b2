"""The retention suite of `evotext evaluate`: other tasks of the library by name, and the model that a run started from."""

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
from evotext.rollouts.task import TextTask
from evotext.run_folder import names
from evotext.run_folder.configuration import read_config, read_yaml
from evotext.run_folder.retention import Retention
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
