"""Options beyond the plain algorithm: a batch's baseline, penalties in the reward, groups gathered, the gap's warning."""

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from torch import Tensor

from baselines import GRPO
from baselines.inner_loop import Figures
from baselines.overlong import longest_answers, overlong_penalty
from evotext.models.language_model import LanguageModel
from evotext.optimization.schedules import Linear
from evotext.policy.actions import actions_of, joined
from evotext.policy.advantages import group_advantages
from evotext.types import Outcome, Trajectories
from tests.baselines.one_step import (
    assert_same,
    change,
    collected,
    fresh_model,
    grpo,
    ppo,
    settings,
    weights,
    written_out_gradient,
)


def with_returns(batch: Trajectories, return_B: Tensor) -> Trajectories:
    return replace(batch, return_B=return_B.double())


def test_a_batchs_baseline_is_its_mean() -> None:
    """Hand-computed; groups play no part, and equal returns give exactly 0."""
    groups = torch.tensor([0, 1, 2, 3])
    found = group_advantages(torch.tensor([1.0, 0.0, 0.0, 2.0]), groups, "batch")
    assert found.tolist() == [0.25, -0.75, -0.75, 1.25]
    assert group_advantages(torch.full((3,), 0.1), groups[:3], "batch").tolist() == [0.0, 0.0, 0.0]


def test_the_best_of_a_group_counts_and_nothing_else() -> None:
    """Hand-computed; ties share, and a group without a difference has no best."""
    groups = torch.tensor([0, 0, 0, 1, 1, 2, 2])
    found = group_advantages(torch.tensor([0.0, 2.0, 2.0, 1.0, 1.0, -1.0, -2.0]), groups, "best")
    assert found.tolist() == [0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 0.0]


def test_best_of_n_is_the_likelihood_of_the_best() -> None:
    model, reference = fresh_model(), fresh_model()
    before = weights(model)
    algorithm = GRPO(**settings("best_of_n")).start(model, 0)
    batch = collected(algorithm, model)
    algorithm.tell(batch)
    groups = torch.tensor(batch.plan.groups)
    best_B = torch.stack([batch.return_B[i] == batch.return_B[groups == groups[i]].max() for i in range(12)])
    differ_B = torch.tensor([len(batch.return_B[groups == groups[i]].unique()) > 1 for i in range(12)])
    weight_BT = (best_B & differ_B).double()[:, None] * batch.policy_mask_BT / float(batch.policy_mask_BT.sum())
    assert_same(change(before, model), written_out_gradient(reference, batch, weight_BT))


def test_reinforce_is_reinforce() -> None:
    """sum_i (R_i - mean R) sum_t grad log pi / (rows x max_tokens), one row a group."""
    model, reference = fresh_model(), fresh_model()
    before = weights(model)
    algorithm = GRPO(**settings("reinforce", prompts=12, group_size=1, max_tokens=20)).start(model, 0)
    batch = collected(algorithm, model)
    algorithm.tell(batch)
    weight_BT = ((batch.return_B - batch.return_B.mean()) / (12 * 20))[:, None] * batch.policy_mask_BT
    assert_same(change(before, model), written_out_gradient(reference, batch, weight_BT))


def test_a_group_of_one_needs_the_batch() -> None:
    with pytest.raises(ValueError, match=r"group_size: expected at least 2"):
        grpo(group_size=1)


def test_the_overlong_penalty() -> None:
    """Hand-computed: nothing up to 12 of 20, half of the factor at 16, all of it at 20 and beyond."""
    found = overlong_penalty(torch.tensor([1, 12, 14, 16, 20, 30]), max_tokens=20, buffer=8, factor=2.0)
    assert found.tolist() == [0.0, 0.0, -0.5, -1.0, -2.0, -2.0]


def test_answers_at_the_token_limit_are_compared_but_not_trained_on() -> None:
    """With `mask_overlong` they are part of their group's mean, and neither of the loss nor of its count of tokens."""
    model, reference = fresh_model(), fresh_model()
    before = weights(model)
    algorithm = grpo(baseline="none", mask_overlong=True).start(model, 0)
    batch = collected(algorithm, model)
    batch = replace(batch, overlong_B=torch.arange(12) % 4 == 0)
    algorithm.tell(batch)
    advantage_B = group_advantages(batch.return_B, torch.tensor(batch.plan.groups), "none")
    mask_BT = batch.policy_mask_BT & ~batch.overlong_B[:, None]
    weight_BT = (advantage_B / float(mask_BT.sum()))[:, None] * mask_BT
    assert_same(change(before, model), written_out_gradient(reference, batch, weight_BT))


def test_long_answers_weigh_less_and_the_reported_return_stays() -> None:
    """The step is that of returns with the penalty taken off; metrics know nothing of it."""
    steps, rewards = [], []
    for shaped in (False, True):
        model = fresh_model()
        before = weights(model)
        algorithm = grpo(
            baseline="none", max_tokens=6, overlong_buffer=4 if shaped else None, overlong_factor=1.0
        ).start(model, 0)
        batch = collected(algorithm, model)
        rewards.append(algorithm.tell(batch if shaped else _penalised(batch)).metrics["reward"])
        steps.append(change(before, model))
    assert_same(steps[1], steps[0])
    assert rewards[1] == pytest.approx(float(batch.return_B.mean()))
    assert rewards[0] != pytest.approx(rewards[1])


def _penalised(batch: Trajectories) -> Trajectories:
    lengths = []
    for written, turn in zip(batch.policy_mask_BT.tolist(), batch.turn_BT.tolist(), strict=True):
        turns = [t for t, mine in zip(turn, written, strict=True) if mine]
        lengths.append(max(turns.count(t) for t in turns))
    assert lengths != batch.policy_mask_BT.sum(1).tolist(), "some episodes have several answers"
    penalty = [-min(max((length - 2) / 4, 0.0), 1.0) for length in lengths]
    assert len(set(penalty)) > 1
    return with_returns(batch, batch.return_B + torch.tensor(penalty, dtype=torch.float64))


def test_a_divergence_in_the_reward_is_summed_over_the_answer() -> None:
    """The reference is the start; the policy that sampled has moved. Step as with returns less 0.3 sum (log pi - log ref)."""
    steps = []
    for in_reward in (True, False):
        model = fresh_model()
        start = copy.deepcopy(model.network)
        changes = {"kl_in": "reward", "kl_coefficient": 0.3} if in_reward else {}
        algorithm = grpo(baseline="leave_one_out", **changes).start(model, 0)
        _move_a_little(model)
        batch = collected(algorithm, model)
        before = weights(model)
        report = algorithm.tell(batch if in_reward else _less_divergence(batch, model, start))
        steps.append(change(before, model))
        assert ("kl" in report.metrics) == in_reward
    assert_same(steps[0], steps[1])


@torch.no_grad()
def _move_a_little(model: LanguageModel) -> None:
    for i, parameter in enumerate(model.network.parameters()):
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(i), dtype=parameter.dtype)
        parameter += 0.02 * noise


@torch.no_grad()
def _less_divergence(batch: Trajectories, model: LanguageModel, start: Any) -> Trajectories:
    sums = []
    for row in range(len(batch.length_B)):
        ids = batch.tokens_BT[row : row + 1, : batch.length_B[row]]
        both = [network(input_ids=ids).logits[0].log_softmax(-1) for network in (model.network, start)]
        written = [t for t in range(1, ids.shape[1]) if batch.policy_mask_BT[row, t]]
        sums.append(sum(float(both[0][t - 1, ids[0, t]] - both[1][t - 1, ids[0, t]]) for t in written))
    return with_returns(batch, batch.return_B - 0.3 * torch.tensor(sums, dtype=torch.float64))


def test_reinforce_plus_plus_normalises_over_the_batch() -> None:
    """One step: A = (R' - mean) / (std + 1e-4) over all rows, with R' = R - 0.3 sum (log pi - log ref)."""
    model, sampled = fresh_model(), fresh_model()
    start = copy.deepcopy(model.network)
    rows = {"prompts": 12, "group_size": 1, "minibatches": 1}
    algorithm = GRPO(**settings("reinforce_pp", **rows, kl_coefficient=0.3)).start(model, 0)
    _move_a_little(model)
    sampled.network.load_state_dict(model.network.state_dict())
    batch = collected(algorithm, model)
    before = weights(model)
    algorithm.tell(batch)
    return_B = _less_divergence(batch, sampled, start).return_B
    advantage_B = (return_B - return_B.mean()) / (return_B.std() + 1e-4)
    weight_BT = (advantage_B / float(batch.policy_mask_BT.sum()))[:, None] * batch.policy_mask_BT
    assert_same(change(before, model), written_out_gradient(sampled, batch, weight_BT))


def _paid(batch: Trajectories, alive: list[int]) -> Trajectories:
    """Groups of three that all fail, but those that are alive, in which the first row succeeds."""
    return_B = torch.zeros(len(batch.return_B), dtype=torch.float64)
    for group in alive:
        return_B[3 * group] = 1.0
    return with_returns(batch, return_B)


def test_groups_are_gathered_until_there_are_enough() -> None:
    """Two of four, then the two that were missing: no step, then one on those four alone, as if they had been one batch."""
    model, together = fresh_model(), fresh_model()
    before = weights(model)
    algorithm = grpo(refill=3).start(model, 0)
    first = _paid(collected(algorithm, model, 0), [1, 3])
    held = algorithm.tell(first)
    assert held.outcome is Outcome.HELD and held.metrics["groups/held"] == 2.0
    assert algorithm.ask(1).groups == (0, 0, 0, 1, 1, 1)
    assert all(torch.equal(a, b) for a, b in zip(before, weights(model), strict=True))
    second = _paid(collected(algorithm, model, 1), [0, 1])
    state = copy.deepcopy(algorithm.state_dict())
    taken = algorithm.tell(second)
    assert taken.outcome is Outcome.CHANGED and taken.metrics["groups/held"] == 0.0
    assert len(algorithm.ask(2).groups) == 12
    expected = [torch.zeros_like(p) for p in before]
    tokens = sum(float(b.policy_mask_BT[_rows(g)].sum()) for b, g in ((first, [1, 3]), (second, [0, 1])))
    for batch in (first, second):
        advantage_B = group_advantages(batch.return_B, torch.tensor(batch.plan.groups), "std")
        parts = written_out_gradient(together, batch, (advantage_B / tokens)[:, None] * batch.policy_mask_BT)
        expected = [a + b for a, b in zip(expected, parts, strict=True)]
    assert_same(change(before, model), expected)

    resumed_model = fresh_model()
    resumed = grpo(refill=3).start(resumed_model, 0)
    resumed.load_state_dict(state)
    assert resumed.ask(1) == second.plan
    resumed.tell(second)
    assert all(torch.equal(a, b) for a, b in zip(weights(model), weights(resumed_model), strict=True))


def _rows(groups: list[int]) -> list[int]:
    return [3 * group + i for group in groups for i in range(3)]


def test_a_group_is_alive_by_its_outcome_and_what_is_discarded_was_charged() -> None:
    """A penalty on length makes the returns of failed groups differ; they are dead all the same, and have been paid for."""
    model = fresh_model()
    algorithm = grpo(refill=3, max_tokens=6, overlong_buffer=5).start(model, 0)
    batch = _paid(collected(algorithm, model), [2])
    lengths = batch.policy_mask_BT.sum(1).view(4, 3)
    assert (lengths.amax(1) != lengths.amin(1)).any()
    report = algorithm.tell(batch)
    assert report.metrics["groups/held"] == 1.0 and report.metrics["frac_reward_zero_std"] == 0.75
    assert batch.cost.episodes == 12 and batch.cost.generated_tokens == int(batch.policy_mask_BT.sum())
    assert report.cost.updates == 0 and report.cost.flops == 0


def test_what_fills_a_batch_is_in_proportion_to_what_it_lacks() -> None:
    """Three of four groups with a signal each time: five groups a step, where whole generations would take eight."""
    model = fresh_model()
    algorithm = grpo(refill=10).start(model, 0)
    drawn, updates = [], 0
    for generation in range(8):
        batch = collected(algorithm, model, generation)
        drawn.append(len(batch.return_B) // 3)
        updates += algorithm.tell(_paid(batch, list(range(min(3, drawn[-1]))))).cost.updates
    assert drawn == [4, 1] * 4 and updates == 4


def test_gathering_ends_after_its_rounds() -> None:
    """The step is taken with what there is, or not at all."""
    model = fresh_model()
    algorithm = grpo(refill=2).start(model, 0)
    assert algorithm.tell(_paid(collected(algorithm, model, 0), [])).outcome is Outcome.NO_SIGNAL
    assert algorithm.tell(_paid(collected(algorithm, model, 1), [2])).outcome is Outcome.CHANGED
    assert len(algorithm.ask(2).groups) == 12
    for generation in (2, 3):
        assert algorithm.tell(_paid(collected(algorithm, model, generation), [])).outcome is Outcome.NO_SIGNAL


def test_joined_batches_are_padded_alike() -> None:
    """Joined batches keep each row as it was."""
    model = fresh_model()
    algorithm = grpo().start(model, 0)
    parts = [actions_of(collected(algorithm, model, generation), torch.device("cpu")) for generation in range(3)]
    parts[1] = parts[1].select(torch.tensor([int(parts[1].length_B.argmin())]))
    whole, row = joined(parts), 0
    for part in parts:
        for i in range(part.rows):
            N, T = part.mask_BN.shape[1], part.tokens_BT.shape[1]
            for name, width in (("tokens_BT", T), ("position_BN", N), ("mask_BN", N), ("old_logprob_BN", N)):
                values = getattr(whole, name)[row]
                assert torch.equal(values[:width], getattr(part, name)[i]) and not values[width:].any()
            row += 1
    assert row == whole.rows


@pytest.mark.parametrize("make", [grpo, ppo])
def test_a_gap_between_sampler_and_trainer_is_said_once(make: Any) -> None:
    """Noted where log-probabilities were tampered with, silent where they are the sampler's own."""
    model = fresh_model()
    algorithm = make().start(model, 0)
    batch = collected(algorithm, model)
    assert algorithm.tell(batch).notes == ()
    algorithm = make().start(fresh_model(), 0)
    assert batch.logprob_BT is not None
    tampered = replace(batch, logprob_BT=batch.logprob_BT - 0.3 * batch.policy_mask_BT)
    (note,) = algorithm.tell(tampered).notes
    assert "old_logprobs=trainer" in note and "0.3" in note
    assert algorithm.tell(tampered).notes == ()


@pytest.mark.parametrize("make", [grpo, ppo])
def test_the_learning_rate_follows_its_schedule(make: Any) -> None:
    """A rate that has fallen to a half in the last generation halves the step."""
    steps = []
    for schedule in (Linear(generations=1, end=0.5, warm_up=0), Linear(generations=1, end=1.0, warm_up=0)):
        model = fresh_model()
        before = weights(model)
        algorithm = make(learning_rate_schedule=schedule, optimizer=partial(torch.optim.SGD, lr=1.0)).start(model, 0)
        algorithm.tell(collected(algorithm, model, 1))
        steps.append(change(before, model))
    assert_same([2 * step for step in steps[0]], steps[1])


@pytest.mark.parametrize(
    ("make", "settings"), [(grpo, {"kl_in": "loss"}), (grpo, {"kl_in": "reward"}), (ppo, {"whiten": False})]
)
def test_the_kl_coefficient_follows_its_schedule(make: Any, settings: dict[str, Any]) -> None:
    """A policy that has moved off its start takes the step of a quarter of the coefficient, in the last generation."""
    steps = []
    for coefficient, end in ((0.4, 0.25), (0.1, 1.0), (0.4, 1.0)):
        model = fresh_model()
        schedule = Linear(generations=1, end=end, warm_up=0)
        algorithm = make(kl_coefficient=coefficient, kl_schedule=schedule, **settings).start(model, 0)
        _move_a_little(model)
        before = weights(model)
        report = algorithm.tell(collected(algorithm, model, 1))
        assert report.metrics["kl_coefficient"] == pytest.approx(coefficient * end)
        steps.append(change(before, model))
    assert_same(steps[0], steps[1])
    assert any((a - b).abs().max() > 1e-3 * b.abs().max() for a, b in zip(steps[0], steps[2], strict=True))


@pytest.mark.parametrize(
    "preset", ["grpo", "dr_grpo", "dapo", "gspo", "rloo", "cispo", "reinforce", "reinforce_pp", "best_of_n"]
)
def test_the_longest_answer_is_the_tasks(preset: str) -> None:
    """The environment's limit is the one source of what `constant` divides by and of where the overlong penalty ends."""
    for words, expected in ((["env=sort"], 16), (["env=recall", "env.max_new_tokens=33"], 33)):
        with initialize_config_dir(str(Path("conf").resolve()), version_base="1.3"):
            config = compose("config", [f"algorithm={preset}", *words])
        assert instantiate(config.algorithm, _convert_="all").max_tokens == expected


def test_short_answers_are_punished_where_the_tasks_limit_is_short() -> None:
    """Chatter allows answers of few tokens; a command with a buffer and no further word gives the longest the whole penalty."""
    with initialize_config_dir(str(Path("conf").resolve()), version_base="1.3"):
        config = compose(
            "config", ["algorithm=dapo", "env=sort", "env.max_new_tokens=5", "algorithm.overlong_buffer=2"]
        )
    model = fresh_model()
    algorithm = instantiate(config.algorithm, _convert_="all", prompts=4, group_size=3).start(model, 0)
    batch = collected(algorithm, model)
    shaped_B = algorithm._shaped(batch, actions_of(batch, model.device), 0.0, Figures())
    length_B = longest_answers(batch.policy_mask_BT, batch.turn_BT)
    assert (shaped_B - batch.return_B).tolist() == [{5: -1.0, 4: -0.5}.get(n, 0.0) for n in length_B.tolist()]
    assert 5 in length_B and int(length_B.min()) < 4
