"""Forecasts beside measured peaks: generations of each algorithm on random weights, on this machine's CPU."""

import ctypes
import string
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from evotext.cli.composing import compose
from evotext.cli.targets import build
from evotext.distributed import collectives
from evotext.distributed.sharding import RolloutWeights
from evotext.models.random_weights import shapes
from evotext.models.source import Parallel
from evotext.protocols import Algorithm
from evotext.rollouts.collector import Collector
from evotext.runner.memory import forget_peak_memory, peak_memory_bytes
from evotext.types import Demonstration

from .benchmarks.figures import Setting
from .benchmarks.memory import give_back
from .benchmarks.work import collector
from .benchmarks.workload import LONGEST, SHORTEST
from .planning.algorithms import work_of
from .planning.memory import forecast
from .planning.shape import shape_of

GENERATIONS = 2  # the optimizer's state comes with the first
NEW_TOKENS = 32
# mallopt(3): from so many bytes on every tensor is mapped by itself and given back when it is freed, as on a GPU. By default
# glibc keeps and splits what was freed, which adds a tenth to a half, differently each time.
M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, MAPPED_FROM = -3, -1, 1 << 16
PLAIN = {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 1e-3}
ADAM = {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 1e-3}


@dataclass(frozen=True, kw_only=True)
class Checked:
    """Bytes of one algorithm on one model."""

    model: str
    dtype: str
    algorithm: str
    rows: int
    forecast: int
    measured: int

    @property
    def ratio(self) -> float:
        """Forecast over measured."""
        return self.forecast / self.measured


def arms(rows: int, parallel: Parallel) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return the algorithms as configured, with as many rows each (full-rank noise, a matrix a pair, with eight members).

    parallel: leaves out those that cannot tune a model which processes divide in this way.
    """
    members, groups = {"population": rows // 4, "prompts": 4}, max(1, rows // 8)
    narrow = "masters" if parallel == "tensor" else "stochastic"
    every: dict[str, tuple[str, dict[str, Any]]] = {
        "eggroll, plain step": ("eggroll", {**members, "optimizer": PLAIN, "narrow_weights": narrow}),
        "eggroll, Adam": ("eggroll", {**members, "optimizer": ADAM}),
        "openai_es": ("openai_es", {"population": 8, "prompts": rows // 8}),
        "scored_es": ("scored_es", {"prompts": groups, "group_size": 8, "population": rows, "micro_rows": rows}),
        "grpo": ("grpo", {"prompts": groups, "group_size": 8}),
        "ppo": ("ppo", {"episodes": rows}),
        "sft": ("sft", {"episodes": rows}),
    }
    able = {"tensor": ("eggroll", "openai_es"), "fsdp": ("grpo", "ppo", "sft")}
    return {label: arm for label, arm in every.items() if parallel is None or arm[0] in able[parallel]}


def demonstrations(count: int, seed: int) -> list[Demonstration]:
    """Return random letters to read and to say, as many as the benchmark's own task has."""
    rng, letters = np.random.default_rng(seed), list(string.ascii_lowercase)

    def text(size: int) -> str:
        return "".join(rng.choice(letters, size))

    # Answers have an end token besides.
    return [Demonstration(turns=((text((SHORTEST + LONGEST) // 2), text(NEW_TOKENS - 1)),)) for _ in range(count)]


def check(
    sizes: Mapping[str, int],
    dtypes: list[Literal["float32", "bfloat16"]],
    algorithms: Collection[str],
    parallel: Parallel,
    rollout_weights: RolloutWeights,
) -> Iterator[Checked]:
    """Yield forecast and peak, in bytes beyond those of a process without a model. sizes: rows of a generation by shape.

    algorithms: those that are run, by their configurations' names. parallel: how the processes divide the model; None: they do
    not. rollout_weights: what rollouts gather with `fsdp`. The peak is that of the process which needs most.
    """
    with collectives.joined():
        yield from _check(sizes, dtypes, algorithms, parallel, rollout_weights)


def _check(
    sizes: Mapping[str, int],
    dtypes: list[Literal["float32", "bfloat16"]],
    algorithms: Collection[str],
    parallel: Parallel,
    rollout_weights: RolloutWeights,
) -> Iterator[Checked]:
    sharded = rollout_weights if parallel == "fsdp" else None
    tensor = collectives.world_size() if parallel == "tensor" else 1
    if sys.platform.startswith("linux"):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, MAPPED_FROM)
        libc.mallopt(M_TRIM_THRESHOLD, MAPPED_FROM)
    for size, rows in sizes.items():
        for dtype in dtypes:
            words = [f"model.size={size}", f"model.dtype={dtype}", f"model.parallel={parallel or 'null'}"]
            config = compose("benchmark", [*words, "+algorithm@openai_es=openai_es", "+algorithm@sft=sft"])
            given = {"_target_": f"{__name__}.demonstrations", "_partial_": True}
            OmegaConf.update(config, "sft.demonstrations", given, merge=False, force_add=True)
            setting = _setting(config, size)
            prompt = len(setting.load().chat.open([("", "a" * ((SHORTEST + LONGEST) // 2))])[0])
            for label, (name, changes) in arms(rows, parallel).items():
                if name not in algorithms:
                    continue
                changed = OmegaConf.merge(config, {name: changes})
                assert isinstance(changed, DictConfig)
                keys = OmegaConf.to_container(changed[name], resolve=True)
                assert isinstance(keys, dict)
                work = work_of(
                    keys,  # type: ignore[arg-type]
                    element=2 if dtype == "bfloat16" else 4,
                    at_once=rows,
                    prompt=prompt,
                    answer=NEW_TOKENS,
                    turns=1,
                    context=512,
                    leaving=False,  # answers run to their full length here
                    devices=collectives.world_size(),
                    tensor=tensor,
                    sharded=sharded,
                )
                made: Algorithm = build(changed, name)
                # Demonstrations end with a token that the model knows, and answers in rollouts never end.
                ends = [setting.source.outline().chat.tokenizer.eos_token_id] if name == "sft" else None
                _peak(setting, rows, made, sharded, ends)  # not counted: libraries prepare themselves
                peak = _peak(setting, rows, made, sharded, ends)
                measured = int(collectives.all_gather(torch.tensor([peak])).max())
                expected = forecast(shape_of(shapes()[size], tensor), work)
                yield Checked(
                    model=size, dtype=dtype, algorithm=label, rows=rows, forecast=expected.total, measured=measured
                )


def _setting(config: DictConfig, size: str) -> Setting:
    return Setting(
        source=build(config, "model"),
        model=size,
        members=None,
        prompts=None,
        rank=1,
        new_tokens=NEW_TOKENS,
        repeats=1,
        device=torch.device("cpu"),
        algorithms=config,
    )


def _peak(
    setting: Setting, rows: int, made: Algorithm, sharded: RolloutWeights | None, ends: Sequence[int] | None
) -> int:
    give_back()
    forget_peak_memory(setting.device)
    empty = peak_memory_bytes(setting.device)
    model = setting.load(ends)
    if sharded:
        model = model.sharded(setting.device, sharded)
    engine: Collector = collector(model, setting, rows=rows, even=bool(sharded))
    forget_peak_memory(setting.device)
    learner = made.start(model, seed=0)
    for generation in range(GENERATIONS):
        learner.tell(engine.collect(learner.ask(generation)))
    return peak_memory_bytes(setting.device) - empty
