"""A figure: a ratio of things that were run in turn in one process, with its spread."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from omegaconf import DictConfig

from evotext.models.chat import ChatFormat
from evotext.models.language_model import LanguageModel
from evotext.models.source import ModelSource

Measure = Callable[[int], float]
"""Does its work once, given the number of the repeat, and returns what was measured."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The settings of every suite."""

    source: ModelSource
    """The source of the model."""
    model: str
    """The model's name."""
    members: int | None
    """Population; None leaves it to the suite."""
    prompts: int | None
    """Rows a member; None leaves it to the suite."""
    rank: int
    """The rank of the perturbations."""
    new_tokens: int
    """Every answer's length."""
    repeats: int
    """Measurements a figure."""
    device: torch.device
    """The device that runs everything."""
    algorithms: DictConfig
    """The algorithms' configurations, by name."""

    @property
    def gpu(self) -> bool:
        """Whether it runs on a GPU."""
        return self.device.type == "cuda"

    @property
    def large(self) -> bool:
        """Whether a CPU takes so long for the model that fewer rows have to do."""
        return not self.gpu and self.model not in ("1M", "25M")

    def load(self, end_ids: Sequence[int] | None = None) -> LanguageModel:
        """Return the model. end_ids: None takes a token that it cannot write, so that every answer runs to its full length."""
        model = self.source.load(self.device)
        ends = end_ids or [model.network.get_output_embeddings().weight.shape[0]]
        return replace(model, chat=ChatFormat(model.tokenizer, ends))


@dataclass(frozen=True, kw_only=True)
class Figure:
    """The median of some measurements and their extremes."""

    name: str
    model: str
    rows: int
    members: int
    rank: int
    value: float
    low: float
    high: float
    unit: str
    repeats: int


def figure(
    name: str,
    values: Sequence[float],
    setting: Setting,
    *,
    rows: int,
    members: int = 1,
    rank: int = 0,
    unit: str = "ratio",
) -> Figure:
    """Return median and extremes of the values; members 1 and rank 0 say that nothing was perturbed."""
    return Figure(
        name=name,
        model=setting.model,
        rows=rows,
        members=members,
        rank=rank,
        value=statistics.median(values),
        low=min(values),
        high=max(values),
        unit=unit,
        repeats=len(values),
    )


def alternate(arms: Mapping[str, Measure], repeats: int) -> dict[str, list[float]]:
    """Run the arms in turn: once unmeasured, then `repeats` times, every second time in reverse order.

    If the machine slows down for a while, it then slows all arms, and none always comes first.
    """
    for arm in arms.values():
        arm(0)
    measured: dict[str, list[float]] = {name: [] for name in arms}
    for repeat in range(1, repeats + 1):
        for name in list(arms) if repeat % 2 else reversed(list(arms)):
            measured[name].append(arms[name](repeat))
    return measured


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Repeat by repeat."""
    return [a / b for a, b in zip(above, below, strict=True)]
