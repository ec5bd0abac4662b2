"""Whole objectives off-policy, written out token by token; and what several turns must not change."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from baselines.advantages import generalised_advantages
from baselines.inner_loop import Figures
from evotext.models.language_model import LanguageModel
from evotext.policy.actions import actions_of
from evotext.rollouts.collector import Collector
from evotext.types import Cost, Ending, RolloutPlan, Sampling, Trajectories
from tests.baselines.one_step import assert_same, change, fresh_model, grpo, ppo, weights
from tests.rollouts.chatter import chatter

LOW, HIGH, DUAL = 0.1, 0.2, 3.0
NONE_FOLLOWS = torch.zeros(12, dtype=torch.bool)
CLIPS = {"clip_low": LOW, "clip_high": HIGH, "dual_clip": DUAL}


def nudge(model: LanguageModel) -> None:
    """Move the weights, so that nothing is on-policy any more."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


def logprobs_of(model: LanguageModel, batch: Trajectories, row: int) -> Tensor:
    """(T, V): log-probabilities after each token of one conversation, alone and unpadded."""
    ids = batch.tokens_BT[row : row + 1, : int(batch.length_B[row])]
    return model.network(input_ids=ids).logits[0].log_softmax(-1)


def clipped(ratio: Tensor, advantage: float) -> Tensor:
    """The surrogate's loss by cases."""
    rho = ratio.item()
    inside = min(max(rho, 1 - LOW), 1 + HIGH)
    gain = min(rho * advantage, inside * advantage)
    if advantage < 0 and gain < DUAL * advantage:
        return torch.tensor(-DUAL * advantage, dtype=torch.float64)
    if gain == rho * advantage:
        return -ratio * advantage
    return torch.tensor(-gain, dtype=torch.float64)


def gradient_of(model: LanguageModel, loss: Tensor) -> list[Tensor]:
    model.network.zero_grad()
    loss.backward()
    gradient = [p.grad.clone() for p in model.network.parameters() if p.grad is not None]
    model.network.zero_grad()
    return gradient


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_grpo_off_policy_with_a_penalty(estimator: str) -> None:
    """Old log-probabilities are the starting policy's, and so are the reference's; the policy has moved since."""
    start, model = fresh_model(), fresh_model()
    # Two epochs, so that the sampler's log-probabilities are read; steps of length zero, so that both take one gradient.
    algorithm = grpo(
        **CLIPS,
        baseline="none",
        kl_coefficient=0.3,
        kl_estimator=estimator,
        epochs=2,
        optimizer=partial(torch.optim.SGD, lr=0.0),
    ).start(model, 0)
    batch = Collector(model, chatter(), rows=64).collect(algorithm.ask(0))
    nudge(model)
    before = weights(model)
    gradients: list[list[Tensor]] = []
    algorithm.training.stepper.optimizer.register_step_pre_hook(
        lambda *_: gradients.append([p.grad.clone() for p in model.network.parameters() if p.grad is not None])
    )
    algorithm.tell(batch)
    assert len(gradients) == 2 and all(torch.equal(a, b) for a, b in zip(before, weights(model), strict=True))
    groups = torch.tensor(batch.plan.groups)
    total = int(batch.policy_mask_BT.sum())
    loss = torch.zeros((), dtype=torch.float64)
    outside = 0
    for row in range(12):
        advantage = float(batch.return_B[row] - batch.return_B[groups == groups[row]].mean())
        now, then = logprobs_of(model, batch, row), logprobs_of(start, batch, row).detach()
        for t in batch.policy_mask_BT[row].nonzero()[:, 0].tolist():
            token = batch.tokens_BT[row, t]
            d = then[t - 1, token] - now[t - 1, token]
            kl = {"k1": -d, "k2": d**2 / 2, "k3": d.exp() - d - 1}[estimator]
            ratio = (-d).exp()
            outside += not 1 - LOW <= ratio.item() <= 1 + HIGH
            # These actions are not the present policy's: its KL weighs them by the ratio.
            loss = loss + (clipped(ratio, advantage) + 0.3 * ratio.item() * kl) / total
    assert outside > 0, "the test wants ratios beyond the clip"
    assert_same(gradients[0], gradient_of(model, loss))


def test_gspo_off_policy() -> None:
    """An answer's ratio is the geometric mean of its tokens'; it is clipped as a whole and weighs by the answer's length."""
    start, model = fresh_model(), fresh_model()
    algorithm = grpo(
        clip_low=0.1,
        clip_high=0.15,
        baseline="none",
        ratio="sequence",
        normalisation="sequence",
        epochs=2,
        optimizer=partial(torch.optim.SGD, lr=0.0),
    ).start(model, 0)
    batch = Collector(model, chatter(), rows=64).collect(algorithm.ask(0))
    nudge(model)
    gradients: list[list[Tensor]] = []
    algorithm.training.stepper.optimizer.register_step_pre_hook(
        lambda *_: gradients.append([p.grad.clone() for p in model.network.parameters() if p.grad is not None])
    )
    algorithm.tell(batch)
    groups = torch.tensor(batch.plan.groups)
    loss, clipped_rows = torch.zeros((), dtype=torch.float64), 0
    for row in range(12):
        advantage = batch.return_B[row] - batch.return_B[groups == groups[row]].mean()
        now, then = logprobs_of(model, batch, row), logprobs_of(start, batch, row).detach()
        written = batch.policy_mask_BT[row].nonzero()[:, 0].tolist()
        tokens = [batch.tokens_BT[row, t] for t in written]
        log_ratios = [now[t - 1, token] - then[t - 1, token] for t, token in zip(written, tokens, strict=True)]
        ratio = torch.stack(log_ratios).mean().exp()
        inside = ratio.clamp(0.9, 1.15)
        clipped_rows += ratio.item() != inside.item()
        loss = loss - torch.minimum(ratio * advantage, inside * advantage) / 12
    assert 0 < clipped_rows < 12
    assert_same(gradients[0], gradient_of(model, loss))


def test_ppo_off_policy_with_a_critic_and_entropy() -> None:
    model = fresh_model()
    algorithm = ppo(
        **CLIPS,
        gamma=0.9,
        gae_lambda=0.8,
        whiten=True,
        value_clip=0.05,
        value_coefficient=0.7,
        entropy_coefficient=0.03,
        detach_value=False,
        kl_coefficient=0.0,
    ).start(model, 0)
    batch = Collector(model, chatter(), rows=64).collect(algorithm.ask(0))
    with torch.no_grad():
        algorithm.critic.head.linear.weight.normal_(generator=torch.Generator().manual_seed(1))
    actions = actions_of(batch, model.device)
    judged = algorithm.judge(actions, NONE_FOLLOWS, Figures())
    nudge(model)
    with torch.no_grad():
        algorithm.critic.head.linear.bias += 0.08  # some values leave the clip, some do not
    before = weights(model)
    algorithm.update(judged, generation=0, value_only=False, figures=Figures())
    got = change(before, model)

    mask = actions.mask_BN
    chosen, targets = (judged.target_BN - judged.value_BN)[mask], judged.target_BN[mask]
    spread = targets.std(unbiased=False)
    with torch.no_grad():  # back to where the step began
        for parameter, old in zip(model.network.parameters(), before, strict=True):
            parameter.copy_(old)
    loss = torch.zeros((), dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    old_weight = torch.empty(1, 32).normal_(generator=generator)[0].double()
    moved_out = 0
    for row in range(12):
        ids = batch.tokens_BT[row : row + 1, : int(batch.length_B[row])]
        output = model.network(input_ids=ids, output_hidden_states=True)
        logprob, hidden = output.logits[0].log_softmax(-1), output.hidden_states[-1][0]
        for n, t in enumerate(batch.policy_mask_BT[row].nonzero()[:, 0].tolist()):
            old, target = float(judged.value_BN[row, n]), float((judged.target_BN[row, n] - targets.mean()) / spread)
            advantage = float(judged.target_BN[row, n] - old - chosen.mean())
            advantage /= float(max(chosen.std(unbiased=False), spread))
            ratio = (logprob[t - 1, batch.tokens_BT[row, t]] - float(actions.old_logprob_BN[row, n])).exp()
            value = hidden[t - 1].double() @ old_weight / 32 + 0.08  # 32: the hidden size
            near = min(max(value.item(), old - 0.05), old + 0.05)
            moved_out += near != value.item()
            kept = (near - target) ** 2 > (value.item() - target) ** 2
            critic = torch.tensor(0.5 * (near - target) ** 2) if kept else 0.5 * (value - target) ** 2
            entropy = -(logprob[t - 1].exp() * logprob[t - 1]).sum()
            loss = loss + clipped(ratio, advantage) + 0.7 * critic - 0.03 * entropy
    assert 0 < moved_out < int(mask.sum())
    assert_same(got, gradient_of(model, loss / int(mask.sum())))


def conversation(
    rows: list[list[tuple[int, bool]]], rewards: list[float], *, truncated: bool = False
) -> tuple[list[int], Trajectories]:
    """Rows of (token, whether the policy wrote it); each row's reward is paid at its last policy token."""
    width = max(len(row) for row in rows)
    tokens, mask = torch.zeros(len(rows), width, dtype=torch.int64), torch.zeros(len(rows), width, dtype=torch.bool)
    turn = torch.full((len(rows), width), -1)
    reward = torch.zeros(len(rows), width)
    last = []
    for i, row in enumerate(rows):
        current = 0
        for t, (token, own) in enumerate(row):
            if t and not own and row[t - 1][1]:
                current += 1
            tokens[i, t], mask[i, t], turn[i, t] = token, own, current
        last.append(max(t for t, (_, own) in enumerate(row) if own))
        reward[i, last[-1]] = rewards[i]
    count = len(rows)
    batch = Trajectories(
        plan=RolloutPlan(
            seed=0,
            generation=0,
            instances=tuple(range(count)),
            groups=(0,) * count,
            sampling=Sampling(temperature=1.0),
            logprobs=True,
        ),
        tokens_BT=tokens,
        length_B=torch.tensor([len(row) for row in rows]),
        policy_mask_BT=mask,
        turn_BT=turn,
        reward_BT=reward,
        return_B=torch.tensor(rewards, dtype=torch.float64),
        success_B=torch.tensor(rewards) > 0,
        ending_B=torch.full((count,), Ending.TURN_LIMIT if truncated else Ending.TASK),
        has_tokens_B=torch.ones(count, dtype=torch.bool),
        overlong_B=torch.zeros(count, dtype=torch.bool),
        cost=Cost(),
        transcripts=(),
        logprob_BT=torch.where(mask, -1.0, 0.0),
    )
    return last, batch


ENV, OWN = False, True
TWO_TURNS = [(5, ENV), (6, ENV), (20, OWN), (21, OWN), (7, ENV), (8, ENV), (9, ENV), (22, OWN), (23, OWN)]


def advantages(batch: Trajectories, values: list[float], gamma: float, lam: float) -> list[float]:
    actions = actions_of(batch, torch.device("cpu"))
    shape = actions.reward_BN.shape
    return generalised_advantages(
        actions.reward_BN,
        torch.tensor([values], dtype=torch.float64),
        torch.zeros(1, dtype=torch.float64),
        actions.mask_BN,
        torch.full(shape, lam, dtype=torch.float64),
        torch.full(shape, gamma, dtype=torch.float64),
    )[0].tolist()


def test_credit_is_that_of_the_conversation_without_the_environment_s_words() -> None:
    values = [0.1, 0.4, -0.2, 0.3]
    _, whole = conversation([[*TWO_TURNS, (9, ENV)]], [1.0])  # an observation after the last answer loses nothing
    _, cut = conversation([[pair for pair in TWO_TURNS if pair[1]]], [1.0])
    got = advantages(whole, values, 0.9, 0.7)
    assert got == pytest.approx(advantages(cut, values, 0.9, 0.7))
    deltas = [0.9 * 0.4 - 0.1, 0.9 * -0.2 - 0.4, 0.9 * 0.3 + 0.2, 1.0 - 0.3]
    expected = [sum((0.9 * 0.7) ** (k - t) * deltas[k] for k in range(t, 4)) for t in range(4)]
    assert got == pytest.approx(expected)


@pytest.mark.parametrize(("unit", "factors"), [("token", [0.5**3, 0.5**2, 0.5, 1.0]), ("turn", [0.5, 0.5, 1.0, 1.0])])
def test_discounts_count_tokens_or_turns(unit: str, factors: list[float]) -> None:
    model = fresh_model()
    algorithm = ppo(gamma=0.5, gae_lambda=1.0, time_unit=unit, whiten=False).start(model, 0)
    _, batch = conversation([TWO_TURNS], [1.0])
    judged = algorithm.judge(actions_of(batch, model.device), NONE_FOLLOWS[:1], Figures())
    assert judged.advantage_BN[0].tolist() == pytest.approx(factors)


@pytest.mark.parametrize("make", [grpo, ppo])
def test_the_environment_s_words_matter_only_to_later_actions(make: Any) -> None:
    """Another observation in the second turn: the first turn's scores are the same bits, the second turn's are not."""
    model = fresh_model()
    algorithm = make().start(model, 0)
    other = [(11, ENV) if t == 5 else pair for t, pair in enumerate(TWO_TURNS)]
    scores = []
    for row in (TWO_TURNS, other):
        _, batch = conversation([row], [1.0])
        with torch.no_grad():
            scores.append(algorithm.training.policy.score(actions_of(batch, model.device), 1.0).logprob_BN[0])
    assert torch.equal(scores[0][:2], scores[1][:2])
    assert not torch.isclose(scores[0][2:], scores[1][2:]).any()


@pytest.mark.parametrize("make", [grpo, ppo])
def test_only_actions_reach_the_head(make: Any) -> None:
    """Five actions in two conversations of nine and three tokens: no word of the environment is ever a target."""
    model = fresh_model()
    algorithm = make(**({"baseline": "none"} if make is grpo else {"whiten": False})).start(model, 0)
    _, batch = conversation([TWO_TURNS, [*TWO_TURNS[:2], (24, OWN)]], [1.0, 0.0])
    positions: list[int] = []
    hook = model.network.get_output_embeddings().register_forward_pre_hook(
        lambda _module, args: positions.append(args[0].shape[:-1].numel())
    )
    algorithm.tell(batch)
    hook.remove()
    assert positions and set(positions) == {5}
