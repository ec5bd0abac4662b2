"""Episodes that a limit cut off: counted by what they had earned, or left out if asked for."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch

from baselines import GRPO
from baselines.notices import Once, unfinished_notes
from evotext.policy.advantages import group_advantages
from evotext.rollouts.collector import Collector
from evotext.types import FAULTS, Ending, Outcome, Trajectories
from tests.baselines.one_step import (
    assert_same,
    change,
    fresh_model,
    grpo,
    settings,
    shipped_settings,
    weights,
    written_out_gradient,
)
from tests.baselines.test_objectives import TWO_TURNS, conversation
from tests.rollouts.chatter import chatter

CUT = torch.tensor([1, 4, 5, 6, 7, 8])  # one of the first group, two of the second, all of the third, none of the last
PRESETS = ["grpo", "dr_grpo", "dapo", "gspo", "cispo", "rloo", "reinforce", "reinforce_pp", "best_of_n"]


def cut_off(learner: Any, model: Any) -> Trajectories:
    """A batch of four groups of three, some rows cut off before they were paid anything."""
    batch = Collector(model, chatter(), rows=64).collect(learner.ask(0))
    ending_B, return_B = torch.full((12,), Ending.TASK), batch.return_B.clone()
    ending_B[CUT], return_B[CUT] = Ending.TURN_LIMIT, 0.0
    return replace(batch, ending_B=ending_B, return_B=return_B)


@pytest.mark.parametrize("baseline", ["std", "none", "leave_one_out", "batch", "batch_std", "best"])
def test_masked_they_are_neither_compared_nor_trained_on(baseline: str) -> None:
    """The step is that of the finished episodes alone; a group of which one is left has nothing to be compared with."""
    model, reference = fresh_model(), fresh_model()
    before = weights(model)
    algorithm = grpo(baseline=baseline, unfinished="masked").start(model, 0)
    batch = cut_off(algorithm, model)
    algorithm.tell(batch)
    kept = ~batch.truncated_B
    groups = torch.tensor(batch.plan.groups)
    advantage_B = torch.zeros(12, dtype=torch.float64)
    advantage_B[kept] = group_advantages(batch.return_B[kept], groups[kept], baseline)  # type: ignore[arg-type]
    assert advantage_B[3] == 0.0 or baseline in ("batch", "batch_std")
    mask_BT = batch.policy_mask_BT & kept[:, None]
    weight_BT = (advantage_B / float(mask_BT.sum()))[:, None] * mask_BT
    assert_same(change(before, model), written_out_gradient(reference, batch, weight_BT))


def test_counted_they_are_worth_what_they_had_earned() -> None:
    """This is the shipped setting."""
    model, reference = fresh_model(), fresh_model()
    before = weights(model)
    algorithm = grpo().start(model, 0)
    batch = cut_off(algorithm, model)
    algorithm.tell(batch)
    advantage_B = group_advantages(batch.return_B, torch.tensor(batch.plan.groups), "std")
    weight_BT = (advantage_B / float(batch.policy_mask_BT.sum()))[:, None] * batch.policy_mask_BT
    assert_same(change(before, model), written_out_gradient(reference, batch, weight_BT))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_counts_them(preset: str) -> None:
    assert shipped_settings(preset)["unfinished"] == "counted"


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("unfinished", ["masked", "counted"])
def test_a_task_that_only_success_ends_wants_them_counted(preset: str, unfinished: str) -> None:
    """Some reach the goal and are paid, the others run into the limit: without these, all that is left is equal."""
    model = fresh_model()
    before = weights(model)
    rows = {"prompts": 12, "group_size": 1} if preset.startswith("reinforce") else {}
    algorithm = GRPO(**settings(preset, **rows, kl_coefficient=0.0, refill=None, unfinished=unfinished)).start(model, 0)
    batch = Collector(model, chatter(), rows=64).collect(algorithm.ask(0))
    reached_B = torch.arange(12) % 2 == 0
    ending_B = torch.where(reached_B, Ending.TASK, Ending.CONTEXT)
    report = algorithm.tell(replace(batch, return_B=reached_B.double(), ending_B=ending_B))
    moved = any(bool(m.ne(0).any()) for m in change(before, model))
    assert moved == (unfinished == "counted") and (report.outcome is Outcome.CHANGED) == moved
    assert report.metrics["completions/unfinished_ratio"] == 0.5
    (note,) = report.notes
    assert note.startswith("note: 50% of the episodes were cut off") and f"unfinished={unfinished}" in note


def test_many_of_them_are_said_once() -> None:
    once, few, many = Once(), {"completions/unfinished_ratio": 0.1}, {"completions/unfinished_ratio": 0.11}
    assert once(unfinished=unfinished_notes(few, "counted")) == ()
    assert len(once(unfinished=unfinished_notes(many, "counted"))) == 1
    assert once(unfinished=unfinished_notes(many, "counted")) == ()


@pytest.mark.parametrize("unfinished", ["masked", "counted"])
@pytest.mark.parametrize("fault", FAULTS)
def test_an_environments_fault_is_never_counted(unfinished: str, fault: Ending) -> None:
    """The step is that of the others alone; a fault is no unfinished episode, and makes no group differ."""
    model, reference = fresh_model(), fresh_model()
    before = weights(model)
    algorithm = grpo(unfinished=unfinished).start(model, 0)
    batch = cut_off(algorithm, model)
    return_B = batch.return_B.clone()
    return_B[9:] = torch.tensor([1.0, 1.0, 0.0])
    faulty_B = batch.truncated_B.clone()
    faulty_B[11] = True
    batch = replace(batch, ending_B=torch.where(faulty_B, fault, Ending.TASK), return_B=return_B)
    report = algorithm.tell(batch)
    assert report.notes == () and report.metrics["completions/unfinished_ratio"] == 0.0
    assert report.metrics["frac_reward_zero_std"] == 0.75
    groups, advantage_B = torch.tensor(batch.plan.groups), torch.zeros(12, dtype=torch.float64)
    advantage_B[~faulty_B] = group_advantages(return_B[~faulty_B], groups[~faulty_B], "std")
    mask_BT = batch.policy_mask_BT & ~faulty_B[:, None]
    weight_BT = (advantage_B / float(mask_BT.sum()))[:, None] * mask_BT
    assert_same(change(before, model), written_out_gradient(reference, batch, weight_BT))


def test_what_the_task_ends_itself_is_worth_what_it_paid() -> None:
    """Two episodes with the same words: ended by the task without a reward, one is a failure; cut off, it is left out."""
    moved = []
    for truncated in (False, True):
        model = fresh_model()
        before = weights(model)
        algorithm = grpo(baseline="none", unfinished="masked", optimizer=partial(torch.optim.SGD, lr=1.0)).start(
            model, 0
        )
        _, batch = conversation([TWO_TURNS, TWO_TURNS[:4]], [0.0, 1.0])
        endings = torch.tensor([Ending.TURN_LIMIT if truncated else Ending.TASK, Ending.TASK])
        algorithm.tell(replace(batch, ending_B=endings))
        moved.append(sum(float(x.abs().sum()) for x in change(before, model)))
    assert moved[0] > 0 and moved[1] == 0.0


def test_gathering_does_not_take_them_for_a_signal_when_masked() -> None:
    """With what is left all equal there is no signal, although the row that was cut off had earned less."""
    model = fresh_model()
    algorithm = grpo(refill=5, unfinished="masked").start(model, 0)
    batch = cut_off(algorithm, model)
    return_B = torch.where(batch.truncated_B, 0.0, 1.0).double()
    report = algorithm.tell(replace(batch, return_B=return_B))
    assert report.metrics["groups/held"] == 0.0


@pytest.mark.parametrize("unfinished", ["masked", "counted"])
def test_what_a_fault_ended_is_compared_with_nothing(unfinished: str) -> None:
    """A fault is left out whether or not limits count: an environment that failed says nothing about the answer."""
    model, reference = fresh_model(), fresh_model()
    before = weights(model)
    learner = grpo(unfinished=unfinished).start(model, 0)
    batch = Collector(model, chatter(), rows=64).collect(learner.ask(0))
    kept = torch.ones(12, dtype=torch.bool)
    kept[CUT] = False
    batch = replace(batch, ending_B=torch.where(kept, Ending.TASK, Ending.RAISED))
    learner.tell(batch)
    groups = torch.tensor(batch.plan.groups)
    advantage_B = torch.zeros(12, dtype=torch.float64)
    advantage_B[kept] = group_advantages(batch.return_B[kept], groups[kept], "std")
    mask_BT = batch.policy_mask_BT & kept[:, None]
    weight_BT = (advantage_B / float(mask_BT.sum()))[:, None] * mask_BT
    assert_same(change(before, model), written_out_gradient(reference, batch, weight_BT))
