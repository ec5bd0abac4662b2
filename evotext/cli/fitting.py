"""The model of a configuration, once the task is known to fit it."""

import torch
from omegaconf import DictConfig

from evotext.cli.errors import ConfigError, configuration
from evotext.cli.parallel import is_sharded
from evotext.models.language_model import LanguageModel
from evotext.models.source import ModelSource, Outline
from evotext.rollouts.task import Task
from evotext.runner.evaluation import Evaluator
from evotext.runner.preflight import check_prompts


def fitting_outline(
    config: DictConfig, source: ModelSource, task: Task, evaluator: Evaluator | None = None
) -> tuple[Outline, int]:
    """Return what is known of the model before its weights, and the tokens of the longest prompt.

    Raise ConfigError if there is no such model, if prompts are too long for it, those of tasks that are measured besides
    included, or if one of these has the name of another task.
    """
    with configuration("model", config.model):
        outline = source.outline()
    with configuration("env", config.env):
        longest = check_prompts(outline, task)
    for name, other in evaluator.also.items() if evaluator else ():
        with configuration(f"evaluation.also.{name}", config.evaluation.also[name]):
            if name in task.shares:
                raise ValueError(f"expected another name than those of the mixture's tasks, got {name}")
            longest = max(longest, check_prompts(outline, other))
    return outline, longest


def fitting_model(
    config: DictConfig, source: ModelSource, task: Task, device: torch.device, evaluator: Evaluator | None = None
) -> LanguageModel:
    """Load the model that `config.model` describes. Raise ConfigError as `fitting_outline` does."""
    if is_sharded(config):
        raise ConfigError("model.parallel: expected null, got 'fsdp', which divides a model while it is trained")
    fitting_outline(config, source, task, evaluator)
    return loaded(config, source, device)


def loaded(config: DictConfig, source: ModelSource, device: torch.device) -> LanguageModel:
    """Load the model. Raise ConfigError if it cannot be."""
    with configuration("model", config.model):
        return source.load(device)
