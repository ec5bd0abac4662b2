"""`model.parallel`: whether a run can divide its model over its processes, and the model divided."""

import torch
from omegaconf import DictConfig

from evotext.cli.errors import configuration
from evotext.distributed.tensor_group import check_size
from evotext.models.language_model import LanguageModel
from evotext.protocols import Algorithm, Shardable, TunesParts


def is_sharded(config: DictConfig) -> bool:
    """Return whether all processes divide weights, gradients and optimizer state: `model.parallel=fsdp`."""
    return bool(config.model.get("parallel") == "fsdp")


def check_parallel(config: DictConfig, algorithm: Algorithm, processes: int) -> None:
    """Raise ConfigError, before anything is loaded, for what cannot tune a model that is divided so."""
    if is_sharded(config):
        with configuration("model", config.model):
            _check_sharded(algorithm, processes)
    elif config.model.get("parallel") == "tensor":
        with configuration("model", config.model):
            check_size(config.model.get("parallel_size") or processes, processes)
            if not isinstance(algorithm, TunesParts):
                raise ValueError(
                    f"parallel: expected null with {type(algorithm).__name__}, which needs whole weights in each process, got "
                    "'tensor'; evolution strategies whose members answer (algorithm=eggroll, openai_es, ...) do without"
                )
            if config.adapter.get("rank") is not None:
                raise ValueError("parallel: expected null with adapters, got 'tensor'; use adapter=none")
        with configuration("algorithm", config.algorithm):
            algorithm.check_parts()


def _check_sharded(algorithm: Algorithm, processes: int) -> None:
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
    if not is_sharded(config):
        return model
    with configuration("model", config.model):
        return model.sharded(device, config.model.rollout_weights)
