"""Checks, before anything is loaded, that a run can divide its model among processes."""

from omegaconf import DictConfig

from evotext.cli.errors import configuration
from evotext.distributed.tensor_group import check_size
from evotext.protocols import Algorithm, TunesParts


def check_parallel(config: DictConfig, algorithm: Algorithm, processes: int) -> None:
    """Raise ConfigError for what cannot tune a model of which each process holds a part, and for groups of another number."""
    if config.model.get("parallel") != "tensor":
        return
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
