"""The workload of the suites: algorithms as they are shipped, and the rollout engine as in a run."""

import torch
from omegaconf import DictConfig, OmegaConf

from evotext.cli.targets import build
from evotext.models.language_model import LanguageModel
from evotext.protocols import Algorithm
from evotext.rollouts.collector import Collector
from evotext.rollouts.task import TextTask
from evotext.runner.preflight import rows_at_once
from evotext.types import RolloutPlan, Sampling, Trajectories

from .figures import Setting
from .workload import workload

# Share of end tokens where answers are to end by themselves: random weights then do so after 25 tokens on average.
END_SHARE = 0.04


def algorithm(setting: Setting, name: str, **changes: object) -> Algorithm:
    """Return a configured algorithm with some keys changed; EGGROLL perturbs everything, with the setting's rank."""
    changed = OmegaConf.merge(setting.algorithms, {name: changes})
    if name == "eggroll":
        changed = OmegaConf.merge(changed, {name: {"exclude": [], "perturbation": {"rank": setting.rank}}})
    assert isinstance(changed, DictConfig)
    made: Algorithm = build(changed, name)
    return made


def collector(
    model: LanguageModel,
    setting: Setting,
    *,
    rows: int | None = None,
    new_tokens: int | None = None,
    uneven: bool = False,
    task: TextTask | None = None,
    even: bool = False,
    graphs: bool = True,
) -> Collector:
    """Return the rollout engine on a task, or on the benchmark's. rows: of a batch; None takes what a run would.

    even: several processes get equal shares.
    """
    task = task or workload(new_tokens or setting.new_tokens, uneven=uneven)
    return Collector(model, task, rows=rows or rows_at_once(None, setting.device), even=even, graphs=graphs)


def plain_plan(rows: int, repeat: int, temperature: float = 0.0) -> RolloutPlan:
    """Return rows with the stored weights, each with a prompt of its own: none shares another's prefill."""
    return RolloutPlan(
        seed=0,
        generation=repeat,
        instances=tuple(2 * (repeat * rows + row) for row in range(rows)),
        groups=tuple(range(rows)),
        sampling=Sampling(temperature=temperature),
    )


def end_tokens(setting: Setting) -> list[int]:
    """Return random tokens of the vocabulary that end answers, so that their lengths differ much."""
    vocabulary = setting.load().network.config.vocab_size
    picked = torch.randperm(vocabulary, generator=torch.Generator().manual_seed(0))
    return sorted(picked[: max(1, round(END_SHARE * vocabulary))].tolist())


def tokens_per_second(batch: Trajectories) -> float:
    """Return the rate of generation; the environments' time is left out."""
    return batch.cost.generated_tokens / batch.cost.rollout_seconds
