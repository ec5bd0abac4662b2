"""The model of a configuration, once the task is known to fit it."""

import torch
from omegaconf import DictConfig

from evotext.cli.errors import configuration
from evotext.models.language_model import LanguageModel
from evotext.models.source import ModelSource
from evotext.rollouts.task import TextTask
from evotext.runner.preflight import check_prompts


def fitting_model(config: DictConfig, source: ModelSource, task: TextTask, device: torch.device) -> LanguageModel:
    """Load the model that `config.model` describes. Raise ConfigError if there is none or if prompts are too long for it."""
    with configuration("model", config.model):
        outline = source.outline()
    with configuration("env", config.env):
        check_prompts(outline, task)
    with configuration("model", config.model):
        return source.load(device)
