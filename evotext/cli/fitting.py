"""The model of a configuration, once the task is known to fit it."""

import torch
from omegaconf import DictConfig

from evotext.cli.errors import ConfigError, configuration
from evotext.cli.sharding import is_wanted
from evotext.models.language_model import LanguageModel
from evotext.models.source import ModelSource, Outline
from evotext.rollouts.task import TextTask
from evotext.runner.preflight import check_prompts


def fitting_outline(config: DictConfig, source: ModelSource, task: TextTask) -> tuple[Outline, int]:
    """Return what is known of the model before its weights, and the tokens of the longest prompt.

    Raise ConfigError if there is no such model or if prompts are too long for it.
    """
    with configuration("model", config.model):
        outline = source.outline()
    with configuration("env", config.env):
        return outline, check_prompts(outline, task)


def fitting_model(config: DictConfig, source: ModelSource, task: TextTask, device: torch.device) -> LanguageModel:
    """Load the model that `config.model` describes. Raise ConfigError if there is none or if prompts are too long for it."""
    if is_wanted(config):
        raise ConfigError("model.parallel: expected null, got 'fsdp', which divides a model while it is trained")
    fitting_outline(config, source, task)
    return loaded(config, source, device)


def loaded(config: DictConfig, source: ModelSource, device: torch.device) -> LanguageModel:
    """Load the model. Raise ConfigError if it cannot be."""
    with configuration("model", config.model):
        return source.load(device)
