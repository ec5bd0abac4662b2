"""Figures that every policy-gradient run logs, by the names that TRL's users know."""

import torch
from torch import Tensor

from evotext.policy.actions import Actions
from evotext.types import Trajectories

from .inner_loop import Figures
from .stepper import Steps


def rollout_metrics(batch: Trajectories) -> dict[str, float]:
    """Return the metrics of the episodes themselves; docs/metrics.md explains them."""
    returns = batch.return_B
    length_B = batch.policy_mask_BT.sum(1).double()
    return {
        "reward": float(returns.mean()),
        "reward_std": float(returns.std(unbiased=False)),
        "completions/mean_length": float(length_B.mean()),
        "completions/max_length": float(length_B.max()),
        "completions/clipped_ratio": float(batch.overlong_B.double().mean()),
        "completions/unfinished_ratio": float((batch.truncated_B & ~batch.faulty_B).double().mean()),
    }


def group_metrics(batch: Trajectories, compared_B: Tensor) -> dict[str, float]:
    """Return the metrics of groups: shares without a signal (equal returns), by success if the task knows it; the spread.

    compared_B: the rows that groups are made of; one that is left without any carries no signal and counts as neither.
    """
    group_B = torch.tensor(batch.plan.groups)
    flat = solved = failed = 0
    spread = 0.0
    groups = group_B.unique()
    for group in groups:
        mine = (group_B == group) & compared_B
        returns = batch.return_B[mine]
        flat += bool((returns == returns[:1]).all())
        spread += float(returns.std()) if len(returns) > 1 else 0.0
        if batch.success_B is not None and len(returns):
            solved += bool(batch.success_B[mine].all())
            failed += not bool(batch.success_B[mine].any())
    metrics = {
        "reward_std": spread / len(groups),  # as TRL: the mean of the groups' own deviations
        "frac_reward_zero_std": flat / len(groups),
    }
    if batch.success_B is not None:
        metrics |= {"groups/all_solved": solved / len(groups), "groups/all_failed": failed / len(groups)}
    return metrics


def trained_on_metrics(steps: Steps, tokens_seen: int, learning_rate: float) -> dict[str, float]:
    """Return the metrics of the optimizer's steps. tokens_seen: in the run so far."""
    return {
        "num_tokens": float(tokens_seen),
        "learning_rate": learning_rate,
        "nonfinite_gradients": float(steps.dropped),
    }


def add_gap(figures: Figures, part: Actions, logprob_KN: Tensor) -> None:
    """Add how far the sampler's log-probabilities are from those of the same weights in training."""
    gap = (logprob_KN - part.old_logprob_BN)[part.mask_BN].abs()
    if not gap.numel():
        return
    figures.mean([("sampling/logp_difference", float(gap.mean()))], float(gap.numel()))
    figures.largest("sampling/logp_difference_max", float(gap.max()))
