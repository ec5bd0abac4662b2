"""Gathers a whole batch of trajectories from all processes.

The processes exchange the scalars of every row: return, ending, length. They exchange tokens only if the plan says that
they are read: RL's advantages, minibatches and loss weights follow from the whole batch. An evolution strategy reads
returns alone, which is why it is cheap to distribute.

Shapes: B rows of the plan, b rows of this process, N shares (processes, or groups that hold a model together), T tokens.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

import torch
from torch import Tensor

from evotext.distributed import collectives
from evotext.types import Cost, Ending, Fault, Trajectories

_SCALARS = ("return_B", "length_B", "ending_B", "success_B", "overlong_B")
_TOKENS = ("tokens_BT", "policy_mask_BT", "turn_BT", "reward_BT", "logprob_BT")
_PADDING = {"turn_BT": -1}


def whole_batch(own: Trajectories, rows_N: Sequence[Sequence[int]]) -> Trajectories:
    """Return the trajectories of all rows in the plan's order. own: those of this process's rows.

    rows_N: the rows of each share. Unless the plan wants tokens, those of others' rows are left out: padding, mask False.
    """
    if collectives.world_size() == 1:
        return _in_order(own, rows_N[0])
    rows = sum(map(len, rows_N))
    present = [name for name in _SCALARS if getattr(own, name) is not None]
    scalars_BK = _gathered(torch.stack([getattr(own, name).double() for name in present], dim=1), rows_N)
    columns: dict[str, Any] = {name: scalars_BK[:, i].to(getattr(own, name).dtype) for i, name in enumerate(present)}
    width = int(collectives.all_gather(torch.tensor([own.tokens_BT.shape[1]])).max())
    for name in _TOKENS:
        values_bT = getattr(own, name)
        if values_bT is None:
            continue
        fill = _PADDING.get(name, 0)
        missing = width - values_bT.shape[1]
        values_bT = torch.nn.functional.pad(values_bT, (0, missing), value=fill)
        if own.plan.tokens:
            columns[name] = _gathered(values_bT, rows_N)
        else:
            columns[name] = torch.full((rows, width), fill, dtype=values_bT.dtype)
            columns[name][list(rows_N[collectives.share()])] = values_bT
    columns["has_tokens_B"] = torch.full((rows,), own.plan.tokens)
    columns["has_tokens_B"][list(rows_N[collectives.share()])] = True
    whole = replace(own, **columns)
    return replace(whole, faults=_everyones(own.faults)) if bool(whole.faulty_B.any()) else whole


def first_of_each_kind(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """Return one fault of each kind, in the order of kinds."""
    first: dict[Ending, Fault] = {}
    for fault in faults:
        first.setdefault(fault.kind, fault)
    return tuple(first[kind] for kind in sorted(first))


def joint_cost(own: Cost) -> Cost:
    """Return what all processes spent together: counts add up, seconds are the slowest's, updates are made in common."""
    if collectives.world_size() == 1:
        return own
    names = [field.name for field in fields(Cost)]
    all_NK = collectives.all_gather(torch.tensor([float(getattr(own, name)) for name in names], dtype=torch.float64))
    each = [dict(zip(names, row, strict=True)) for row in all_NK.tolist()]
    slowest = max(each, key=lambda cost: cost["rollout_seconds"] + cost["env_seconds"] + cost["update_seconds"])
    # Processes that hold a model together run the same episodes, and each a part of the operations.
    split = ("flops", "backward_flops")
    total = {name: sum(cost[name] for cost in each) / (1 if name in split else collectives.mates()) for name in names}
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


def _everyones(own: Sequence[Fault]) -> tuple[Fault, ...]:
    """Return the first processes' examples: those of this process are not known to the others."""
    texts = collectives.all_texts(json.dumps([asdict(fault) for fault in own]))
    records = [record for text in texts for record in json.loads(text)]
    return first_of_each_kind(Fault(**record | {"kind": Ending(record["kind"])}) for record in records)


def _gathered(values_bX: Tensor, rows_N: Sequence[Sequence[int]]) -> Tensor:
    """Return the rows of all processes in the plan's order; shares may differ in size, so messages are padded."""
    most = max(map(len, rows_N))
    padded = torch.zeros(most, *values_bX.shape[1:], dtype=values_bX.dtype)
    padded[: len(values_bX)] = values_bX
    gathered_NX = collectives.gather_shares(padded)
    values_BX = torch.zeros(sum(map(len, rows_N)), *values_bX.shape[1:], dtype=values_bX.dtype)
    for rows, values in zip(rows_N, gathered_NX, strict=True):
        values_BX[list(rows)] = values[: len(rows)]
    return values_BX


def _in_order(own: Trajectories, rows: Sequence[int]) -> Trajectories:
    assert list(rows) == list(range(len(rows))), "one process runs the plan's rows in order"
    return own
