"""The forecast of a composed configuration."""

import sys
from collections.abc import Mapping
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from evotext.distributed import torchrun
from evotext.models.dtype import resolve
from evotext.models.source import Outline
from evotext.rollouts.task import Task
from evotext.runner.evaluation import Evaluator
from evotext.runner.memory import free_memory_bytes

from .algorithms import work_of
from .memory import Forecast, forecast
from .shape import Shape, shape_of
from .work import Rollouts, Work


def planned(
    config: DictConfig,
    outline: Outline,
    task: Task,
    evaluator: Evaluator,
    device: torch.device,
    *,
    rows: int,
    devices: int,
    prompt: int,
) -> tuple[Shape, Work]:
    """Return the shape of what a process holds of the model, and a generation of the algorithm.

    prompt: tokens before the first answer. Raise ValueError where there is no forecast.
    """
    if outline.config is None:
        raise ValueError("model: expected one whose configuration is known, got one without")
    tensor = (config.model.get("parallel_size") or devices) if config.model.get("parallel") == "tensor" else 1
    algorithm = OmegaConf.to_container(config.algorithm, resolve=True)
    assert isinstance(algorithm, dict)
    keys: Mapping[str, Any] = {str(key): value for key, value in algorithm.items()}
    text = outline.config.get_text_config()
    dtype = resolve(config.model.get("dtype", "float32"), device, text.hidden_size)
    work = work_of(
        keys,
        element=2 if dtype == torch.bfloat16 else 4,
        at_once=rows,
        prompt=prompt,
        answer=task.max_new_tokens,
        turns=task.max_turns,
        context=outline.context_length,
        devices=devices,
        tensor=tensor,
        adapter_rank=config.adapter.get("rank", 0),
        fused=device.type == "cuda",
        sharded=config.model.rollout_weights if config.model.get("parallel") == "fsdp" else None,
        evaluation=Rollouts(
            rows=evaluator.episodes * max(1, evaluator.samples),
            at_once=rows,
            prompt=prompt,
            answer=task.max_new_tokens,
            turns=task.max_turns,
            sampled=evaluator.samples > 0,
            context=outline.context_length,
        ),
    )
    return shape_of(outline.config, tensor), work


def warn_of_memory(
    config: DictConfig,
    outline: Outline,
    task: Task,
    evaluator: Evaluator,
    device: torch.device,
    *,
    rows: int,
    prompt: int,
) -> None:
    """Say in a line on standard error if the forecast is more than the device has free. Nothing is loaded yet."""
    try:
        shape, work = planned(
            config, outline, task, evaluator, device, rows=rows, devices=torchrun.size(), prompt=prompt
        )
    except (ValueError, AttributeError, KeyError):
        return  # families and algorithms differ in what their configurations name: no forecast is no reason not to run
    line = too_large(forecast(shape, work), free_memory_bytes(device))
    if line and torchrun.rank() == 0:
        print(line, file=sys.stderr)


def too_large(found: Forecast, free: int | None) -> str:
    """Return a warning if the forecast is more than what is free, else nothing."""
    if free is None or found.total <= free:
        return ""
    return (
        f"warning: this run is forecast to need {found.total / 1e9:.1f} GB at its peak (in the {found.phase}), and "
        f"{free / 1e9:.1f} GB are free; evotext plan with the same words and memory={free / 1e9:.0f}GB says what to change"
    )
