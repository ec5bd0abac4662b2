"""What a run unlearned: other tasks before and after it, what became of the starting model's text, and the weights' drift."""

from collections.abc import Sequence

import torch

from evotext.models.language_model import LanguageModel
from evotext.rollouts.collector import Collector
from evotext.rollouts.task import TextTask
from evotext.run_folder.retention import RetainedTask, Retention
from evotext.runner.divergence import EPISODES, StartingPolicy
from evotext.runner.evaluation import Evaluator


def retention(
    start: LanguageModel,
    tuned: LanguageModel,
    tasks: Sequence[TextTask],
    evaluator: Evaluator,
    *,
    rows: int,
    graphs: bool,
) -> Retention:
    """Measure both models on these tasks. Raise ValueError where they do not have the same weights."""
    norm, drift = distances(start, tuned)
    return Retention(
        tasks=[_task(start, tuned, task, evaluator, rows=rows, graphs=graphs) for task in tasks],
        drift=drift,
        drift_share=drift / norm if norm else None,
    )


@torch.no_grad()
def distances(start: LanguageModel, tuned: LanguageModel) -> tuple[float, float]:
    """Return the norm of the starting weights and their Euclidean distance from the tuned ones, both in float64."""
    before, after = dict(start.network.named_parameters()), dict(tuned.network.named_parameters())
    if {name: p.shape for name, p in before.items()} != {name: p.shape for name, p in after.items()}:
        raise ValueError(
            "run: expected a tuned model with the weights of the model that it started from, got other ones"
        )
    square = torch.zeros(2, dtype=torch.float64)
    for name, old in before.items():
        old_weight, new_weight = old.cpu().double(), after[name].cpu().double()
        square += torch.stack([old_weight.square().sum(), (new_weight - old_weight).square().sum()])
    norm, drift = square.sqrt().tolist()
    return norm, drift


def _task(
    start: LanguageModel, tuned: LanguageModel, task: TextTask, evaluator: Evaluator, *, rows: int, graphs: bool
) -> RetainedTask:
    collectors = [Collector(model, task, rows=rows, graphs=graphs) for model in (start, tuned)]
    before, after = (evaluator.measure(collector, sampled=False) for collector in collectors)
    said = StartingPolicy(collectors[0], episodes=min(EPISODES, evaluator.episodes))
    return RetainedTask(
        env=task.name,
        return_before=before.mean_return,
        return_after=after.mean_return,
        success_before=before.success,
        success_after=after.success,
        kl_from_start=said.divergence(tuned.network)[0],
    )
