"""Credit by turns: against loops written out, equal to whole episodes where the end alone pays, and less noisy elsewhere."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from baselines.turn_credit import returns_from_turns
from evotext.models.language_model import LanguageModel
from evotext.policy.actions import actions_of
from evotext.types import RolloutPlan, Trajectories
from tests.baselines.one_step import change, collected, fresh_model, grpo, weights, written_out_gradient
from tests.baselines.test_learning import KEY, play, tiny_model

SGD = partial(torch.optim.SGD, lr=1.0)
STILL = partial(torch.optim.SGD, lr=0.0)


def returns_slowly(batch: Trajectories, gamma: float) -> list[list[float]]:
    """Sum for each row and each of its turns what is paid from that turn on, from the rewards where they stand."""
    rows = []
    for i in range(len(batch.return_B)):
        turns = sorted({int(t) for t, own in zip(batch.turn_BT[i], batch.policy_mask_BT[i], strict=True) if own})
        paid = [
            sum(float(r) for r, t in zip(batch.reward_BT[i].double(), batch.turn_BT[i], strict=True) if int(t) == turn)
            for turn in turns
        ]
        rows.append([sum(gamma ** (s - t) * paid[s] for s in range(t, len(paid))) for t in range(len(paid))])
    return rows


@pytest.mark.parametrize("gamma", [1.0, 0.7, 0.0])
def test_a_step_is_the_gradient_of_loops_written_out(gamma: float) -> None:
    """Group's mean as the baseline, token weights: A_it = G_it - mean_j G_j,min(t, last of j)."""
    model, reference = fresh_model(), fresh_model()
    before = weights(model)
    algorithm = grpo(baseline="none", credit="turn", turn_discount=gamma, optimizer=SGD).start(model, 0)
    batch = collected(algorithm, model)
    returns, groups = returns_slowly(batch, gamma), batch.plan.groups
    assert len({len(row) for row in returns}) > 1, "the test wants episodes of different lengths in a group"
    weight_BT = torch.zeros(batch.reward_BT.shape, dtype=torch.float64)
    for i, j in batch.policy_mask_BT.nonzero().tolist():
        turn = int(batch.turn_BT[i, j])
        mates = [row[min(turn, len(row) - 1)] for row, group in zip(returns, groups, strict=True) if group == groups[i]]
        weight_BT[i, j] = returns[i][turn] - sum(mates) / len(mates)
    weight_BT /= float(batch.policy_mask_BT.sum())
    report = algorithm.tell(batch)
    largest = max(float(step.abs().max()) for step in change(before, model))
    for got, wanted in zip(change(before, model), written_out_gradient(reference, batch, weight_BT), strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-5 * largest, rtol=1e-4)
    assert report.credit is not None and report.credit.value_B.isfinite().all()


def test_returns_from_turns_are_the_loops() -> None:
    model = fresh_model()
    batch = collected(grpo().start(model, 0), model)
    for gamma in (1.0, 0.6):
        got_BS = returns_from_turns(actions_of(batch, model.device), batch.return_B, gamma)
        assert got_BS.dtype == torch.float64
        for row, expected in zip(got_BS.tolist(), returns_slowly(batch, gamma), strict=True):
            assert row == pytest.approx(expected + expected[-1:] * (len(row) - len(expected)))


@pytest.mark.parametrize("baseline", ["std", "none", "leave_one_out", "batch_std", "best"])
def test_where_the_end_alone_pays_it_is_the_estimator_of_whole_episodes(baseline: str) -> None:
    """Equal to the last bit, though episodes have one to four turns and rewards that float32 rounds."""
    after = []
    for credit in ("episode", "turn"):
        model = fresh_model()
        algorithm = grpo(baseline=baseline, credit=credit, optimizer=SGD).start(model, 0)
        batch = collected(algorithm, model)
        return_B = 0.1 * batch.return_B
        reward_BT = torch.zeros_like(batch.reward_BT)
        for row in range(len(return_B)):
            reward_BT[row, batch.policy_mask_BT[row].nonzero()[-1]] = return_B[row].float()
        algorithm.tell(replace(batch, reward_BT=reward_BT, return_B=return_B))
        after.append(weights(model))
    assert all(torch.equal(a, b) for a, b in zip(*after, strict=True))


def test_what_shapes_the_whole_return_is_paid_at_the_end() -> None:
    model = fresh_model()
    batch = collected(grpo().start(model, 0), model)
    actions = actions_of(batch, model.device)
    plain, shaped = (returns_from_turns(actions, batch.return_B - x, 1.0) for x in (0.0, 3.0))
    torch.testing.assert_close(plain - shaped, torch.full_like(plain, 3.0))


def test_a_group_of_equal_returns_is_alive_where_its_turns_differ() -> None:
    """Every row earns 1, at its first answer or at its last. Held rows survive a checkpoint with advantages of all widths."""
    held = {}
    for credit in ("episode", "turn"):
        model = fresh_model()
        algorithm = grpo(credit=credit, refill=3, baseline="none").start(model, 0)
        batch = collected(algorithm, model)
        reward_BT = torch.zeros_like(batch.reward_BT)
        for row in range(12):
            last_of_turn = [
                int(((batch.turn_BT[row] == s) & batch.policy_mask_BT[row]).nonzero()[-1])
                for s in range(int(batch.turn_BT[row].max()) + 1)
            ]
            reward_BT[row, last_of_turn[0 if row % 2 else -1]] = 1.0
        batch = replace(batch, reward_BT=reward_BT, return_B=torch.ones(12, dtype=torch.float64))
        held[credit] = algorithm.tell(batch).metrics["groups/held"]
        twin = grpo(credit=credit, refill=3, baseline="none").start(fresh_model(), 0)
        twin.load_state_dict(algorithm.state_dict())
        narrow = replace(batch, tokens_BT=batch.tokens_BT, policy_mask_BT=batch.policy_mask_BT & (batch.turn_BT == 0))
        for one in (algorithm, twin):
            one.tell(narrow)
            one.tell(batch)
        after = [weights(model), list(twin.training.policy.network.parameters())]
        assert all(torch.equal(a, b) for a, b in zip(*after, strict=True))
    assert held["episode"] == 0 < held["turn"]


def test_a_discount_wants_turns() -> None:
    with pytest.raises(ValueError, match="turn_discount: expected 1 with credit=episode"):
        grpo(turn_discount=0.5)


def paid_by_turn(batch: Trajectories) -> Trajectories:
    """A turn's answer is paid 1 if it is the key, whatever the others are."""
    reward_BT = (batch.tokens_BT == KEY).float() * batch.policy_mask_BT
    return_B = reward_BT.double().sum(1)
    return replace(batch, reward_BT=reward_BT, return_B=return_B, success_B=return_B == return_B.max())


def nothing(cue_B: Tensor, answers: list[Tensor]) -> Tensor:
    return torch.zeros(len(cue_B))


def gradient(model: LanguageModel, credit: str, seed: int, turns: int) -> Tensor:
    """The gradient of one small batch, at weights that stay."""
    algorithm = grpo(prompts=4, group_size=4, baseline="leave_one_out", credit=credit, optimizer=STILL).start(model, 0)
    found: list[Tensor] = []
    algorithm.training.stepper.optimizer.register_step_pre_hook(
        lambda *_: found.append(torch.cat([p.grad.flatten() for p in model.network.parameters() if p.grad is not None]))
    )
    plan: RolloutPlan = replace(algorithm.ask(0), generation=seed)
    algorithm.tell(paid_by_turn(play(model, plan, turns, nothing)))
    return found[0]


def test_the_gradient_is_the_same_on_average_and_less_noisy() -> None:
    """Four turns, each paid for itself: an answer's advantage loses the noise of the turns before it.

    Of T such turns the variance falls to about (T + 1) / 2T: of four to 0.63.
    """
    model = tiny_model(0)
    drawn = {credit: torch.stack([gradient(model, credit, s, 4) for s in range(30)]) for credit in ("episode", "turn")}
    spread = {credit: float((g - g.mean(0)).square().sum()) for credit, g in drawn.items()}
    assert spread["turn"] < 0.8 * spread["episode"], spread
    means = torch.stack([g.mean(0) for g in drawn.values()])
    assert float(torch.cosine_similarity(means[0], means[1], dim=0)) > 0.8


def mean_return(credit: str, seed: int, generations: int) -> float:
    """The comparison holds over a run on two turns, each paid for itself."""
    model = tiny_model(seed)
    adam = partial(torch.optim.AdamW, lr=1e-3, weight_decay=0.0)
    learner = grpo(prompts=4, group_size=8, credit=credit, optimizer=adam, max_grad_norm=1.0).start(model, seed)
    total = 0.0
    for generation in range(generations):
        batch = paid_by_turn(play(model, learner.ask(generation), 2, nothing))
        learner.tell(batch)
        total += float(batch.return_B.mean()) / generations
    return total


@pytest.mark.slow
@pytest.mark.learning
def test_turns_that_are_paid_for_themselves_are_learned_faster(seed: int) -> None:
    """Ten pairs of runs that begin with the same weights."""
    pairs = [[mean_return(credit, 10 * seed + i, 18) for credit in ("turn", "episode")] for i in range(10)]
    assert sum(turn > episode for turn, episode in pairs) >= 7, pairs
    assert sum(turn - episode for turn, episode in pairs) > 0
