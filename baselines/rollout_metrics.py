"""Figures that every policy-gradient run logs, by the names that TRL's users know."""

import torch

from evotext.types import Trajectories


def rollout_metrics(batch: Trajectories) -> dict[str, float]:
    """Of the episodes themselves; see docs/metrics.md."""
    returns = batch.return_B
    length_B = batch.policy_mask_BT.sum(1).double()
    return {
        "reward": float(returns.mean()),
        "reward_std": float(returns.std(unbiased=False)),
        "completions/mean_length": float(length_B.mean()),
        "completions/max_length": float(length_B.max()),
        "completions/clipped_ratio": float(batch.overlong_B.double().mean()),
        "num_tokens": float(batch.length_B.sum()),
    }


def group_metrics(batch: Trajectories) -> dict[str, float]:
    """Shares of groups that carry no signal: whose returns are all equal, told apart by the task's outcome."""
    group_B = torch.tensor(batch.plan.groups)
    flat = solved = failed = 0
    groups = group_B.unique()
    for group in groups:
        mine = group_B == group
        returns, success = batch.return_B[mine], batch.success_B[mine]
        flat += bool((returns == returns[0]).all())
        solved += bool(success.all())
        failed += not bool(success.any())
    return {
        "frac_reward_zero_std": flat / len(groups),
        "groups/all_solved": solved / len(groups),
        "groups/all_failed": failed / len(groups),
    }
