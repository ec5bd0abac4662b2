"""Making a whole batch of trajectories of what each process ran.

Of every row the processes exchange its scalars: return, how it ended, its length. Of rows that run without a population
they exchange the tokens too, for what RL makes of a batch (advantages, minibatches, weights of the loss) follows from all
of it. With a population they do not: an evolution strategy reads returns, and that is what makes it cheap to spread out.

Shapes: B rows of the plan, b rows of this process, N processes, T tokens.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor

from evotext.distributed import collectives
from evotext.types import Cost, Trajectories

_FLAGS = ("success_B", "terminated_B", "truncated_B", "overlong_B")
_TOKENS = ("tokens_BT", "policy_mask_BT", "turn_BT", "reward_BT", "logprob_BT")
_PADDING = {"turn_BT": -1}


def whole_batch(own: Trajectories, rows_N: Sequence[Sequence[int]]) -> Trajectories:
    """The trajectories of all rows, in the plan's order, of `own`: those of this process's rows.

    rows_N: the rows of each process. With a population the tokens of others' rows are left out: padding, mask False.
    """
    if collectives.world_size() == 1:
        return _in_order(own, rows_N[0])
    scalars_bK = torch.stack(
        [own.return_B, own.length_B.double(), *(getattr(own, name).double() for name in _FLAGS)], dim=1
    )
    scalars_BK = _gathered(scalars_bK, rows_N)
    columns: dict[str, Any] = {name: scalars_BK[:, 2 + i] > 0 for i, name in enumerate(_FLAGS)}
    width = int(collectives.all_gather(torch.tensor([own.tokens_BT.shape[1]])).max())
    for name in _TOKENS:
        values_bT = getattr(own, name)
        if values_bT is None:
            continue
        fill = _PADDING.get(name, 0)
        missing = width - values_bT.shape[1]
        values_bT = torch.nn.functional.pad(values_bT, (0, missing), value=fill)
        if own.plan.noise is None:
            columns[name] = _gathered(values_bT, rows_N)
        else:
            columns[name] = torch.full((len(scalars_BK), width), fill, dtype=values_bT.dtype)
            columns[name][list(rows_N[collectives.rank()])] = values_bT
    return replace(own, return_B=scalars_BK[:, 0], length_B=scalars_BK[:, 1].long(), **columns)


def joint_cost(own: Cost) -> Cost:
    """What all processes spent together: counts add up, seconds are those of the slowest, updates are made in common."""
    if collectives.world_size() == 1:
        return own
    names = [field.name for field in fields(Cost)]
    all_NK = collectives.all_gather(torch.tensor([float(getattr(own, name)) for name in names], dtype=torch.float64))
    each = [dict(zip(names, row, strict=True)) for row in all_NK.tolist()]
    slowest = max(each, key=lambda cost: cost["rollout_seconds"] + cost["env_seconds"] + cost["update_seconds"])
    total = {name: sum(cost[name] for cost in each) for name in names}
    return Cost(
        episodes=int(total["episodes"]),
        env_steps=int(total["env_steps"]),
        generated_tokens=int(total["generated_tokens"]),
        flops=total["flops"],
        backward_flops=total["backward_flops"],
        updates=int(max(cost["updates"] for cost in each)),
        rollout_seconds=slowest["rollout_seconds"],
        env_seconds=slowest["env_seconds"],
        update_seconds=slowest["update_seconds"],
    )


def _gathered(values_bX: Tensor, rows_N: Sequence[Sequence[int]]) -> Tensor:
    """Everyone's rows in the plan's order; shares may differ in size, so messages are padded to the largest."""
    most = max(map(len, rows_N))
    padded = torch.zeros(most, *values_bX.shape[1:], dtype=values_bX.dtype)
    padded[: len(values_bX)] = values_bX
    gathered_NX = collectives.all_gather(padded)
    values_BX = torch.zeros(sum(map(len, rows_N)), *values_bX.shape[1:], dtype=values_bX.dtype)
    for rows, values in zip(rows_N, gathered_NX, strict=True):
        values_BX[list(rows)] = values[: len(rows)]
    return values_BX


def _in_order(own: Trajectories, rows: Sequence[int]) -> Trajectories:
    assert list(rows) == list(range(len(rows))), "one process runs the plan's rows in order"
    return own
