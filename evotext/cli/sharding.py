"""`model.parallel=fsdp`: whether a run can divide its model over its processes, and the model divided."""

import torch
from omegaconf import DictConfig

from evotext.cli.errors import configuration
from evotext.models.language_model import LanguageModel
from evotext.protocols import Algorithm, Shardable


def is_wanted(config: DictConfig) -> bool:
    """Return whether the configuration asks for it."""
    return bool(config.model.get("parallel") == "fsdp")


def check_shardable(config: DictConfig, algorithm: Algorithm, processes: int) -> None:
    """Raise ConfigError for an algorithm that cannot tune a divided model, and for a single process."""
    if not is_wanted(config):
        return
    with configuration("model", config.model):
        if not isinstance(algorithm, Shardable):
            raise ValueError(
                f"parallel: expected null or tensor with {type(algorithm).__name__}, got 'fsdp', which divides weights with "
                "their gradients (GRPO, PPO, SFT); take model.parallel=tensor"
            )
        if processes == 1:
            raise ValueError(
                "parallel: expected null in a run of one process, got 'fsdp'; start several with torchrun --nproc-per-node N"
            )


def sharded(config: DictConfig, model: LanguageModel, device: torch.device) -> LanguageModel:
    """Return the model, divided if the configuration asks for it. Raise ConfigError for one that cannot be."""
    if not is_wanted(config):
        return model
    with configuration("model", config.model):
        return model.sharded(device, config.model.rollout_weights)
