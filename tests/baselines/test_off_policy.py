"""Steps that the sampler's policy did not take: the KL's ratio, CISPO, narrow clips in bfloat16, sampler and trainer apart."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from baselines import GRPO
from baselines.objective import Objective, sampler_log_ratio
from evotext.models.language_model import LanguageModel
from evotext.policy.actions import Actions
from evotext.types import Trajectories
from tests.baselines.one_step import (
    assert_same,
    change,
    collected,
    fresh_model,
    grpo,
    settings,
    weights,
    written_out_gradient,
)
from tests.baselines.test_objectives import gradient_of, logprobs_of, nudge
from tests.rollouts.chatter import with_frequent_ends
from tests.small_models import small_model

STILL = partial(torch.optim.SGD, lr=0.0)


def gradients_of(algorithm: GRPO, model: LanguageModel, batch: Trajectories) -> list[list[Tensor]]:
    """Return the gradients of each step."""
    gradients: list[list[Tensor]] = []
    algorithm.training.stepper.optimizer.register_step_pre_hook(
        lambda *_: gradients.append([p.grad.clone() for p in model.network.parameters() if p.grad is not None])
    )
    algorithm.tell(batch)
    return gradients


def written_out(
    model: LanguageModel,
    start: LanguageModel,
    batch: Trajectories,
    loss_of: Callable[[Tensor, Tensor, float, Tensor], Tensor],
) -> list[Tensor]:
    """Gradient of the mean of `loss_of` (its log-probability now and then, advantage, sampler's) over all actions."""
    groups, total = torch.tensor(batch.plan.groups), int(batch.policy_mask_BT.sum())
    loss = torch.zeros((), dtype=torch.float64)
    assert batch.logprob_BT is not None
    for row in range(12):
        advantage = float(batch.return_B[row] - batch.return_B[groups == groups[row]].mean())
        now, then = logprobs_of(model, batch, row), logprobs_of(start, batch, row).detach()
        for t in batch.policy_mask_BT[row].nonzero()[:, 0].tolist():
            token = batch.tokens_BT[row, t]
            loss = loss + loss_of(now[t - 1, token], then[t - 1, token], advantage, batch.logprob_BT[row, t]) / total
    return gradient_of(model, loss)


def one_action(count: int) -> Actions:
    """`count` rows of one action each."""
    ones = torch.ones(count, 1)
    return Actions(
        tokens_BT=ones.long(),
        length_B=ones[:, 0].long(),
        position_BN=ones.long(),
        mask_BN=ones.bool(),
        turn_BN=ones.long(),
        reward_BN=ones.double(),
        old_logprob_BN=ones,
    )


def objective(**changes: Any) -> Objective:
    plain: dict[str, Any] = {"surrogate": "clipped", "ratio": "token", "clip_low": 0.2, "clip_high": 0.2}
    return Objective(**plain | {"dual_clip": None, "kl_estimator": "k3"} | changes)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_off_policy_an_estimators_gradient_is_on_average_what_it_is_on_policy(estimator: str) -> None:
    """Exact sums over a distribution of three tokens, drawn from an old policy: nothing, the KL's, the reverse KL's."""
    z = torch.tensor([0.5, -0.2, 0.1], dtype=torch.float64, requires_grad=True)
    old = torch.tensor([0.7, 0.1, 0.2], dtype=torch.float64)
    logq = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64).log()
    p = z.softmax(0)
    (forward,) = torch.autograd.grad((p * (p.log() - logq)).sum(), z)
    (reverse,) = torch.autograd.grad((logq.exp() * (logq - z.log_softmax(0))).sum(), z)
    kl = objective(kl_estimator=estimator).kl(
        one_action(3), z.log_softmax(0)[:, None], old.log()[:, None], logq[:, None]
    )
    (found,) = torch.autograd.grad((old * kl[:, 0]).sum(), z)
    torch.testing.assert_close(found, {"k1": torch.zeros_like(forward), "k2": forward, "k3": reverse}[estimator])
    if estimator != "k2":  # whose mean is not the KL
        torch.testing.assert_close((old * kl[:, 0]).sum(), (p * (p.log() - logq)).sum())


def test_k2_with_the_ratio_has_the_gradient_of_k3_whose_ratio_has_one() -> None:
    """That is how DeepSeek-V3.2 and TRL write it: action by action the same."""
    generator = torch.Generator().manual_seed(0)
    logprob, old, reference = (-torch.rand(3, 8, 1, generator=generator, dtype=torch.float64)).unbind(0)
    logprob.requires_grad_()
    d = reference - logprob
    (theirs,) = torch.autograd.grad(((logprob - old).exp() * (d.exp() - d - 1)).sum(), logprob)
    ours = objective(kl_estimator="k2").kl(one_action(8), logprob, old, reference)
    torch.testing.assert_close(torch.autograd.grad(ours.sum(), logprob)[0], theirs)


def test_cispo_off_policy() -> None:
    """sg(clip(rho)) A log pi: beyond the bounds, too, a token has its gradient."""
    start, model = fresh_model(), fresh_model()
    algorithm = grpo(surrogate="cispo", clip_low=0.1, clip_high=0.2, baseline="none", epochs=2, optimizer=STILL).start(
        model, 0
    )
    batch = collected(algorithm, model)
    nudge(model)
    gradients = gradients_of(algorithm, model, batch)
    outside = []

    def loss_of(now: Tensor, then: Tensor, advantage: float, _: Tensor) -> Tensor:
        ratio = (now - then).exp().item()
        outside.append(not 0.9 <= ratio <= 1.2)
        return -min(max(ratio, 0.9), 1.2) * advantage * now

    assert len(gradients) == 2
    assert_same(gradients[0], written_out(model, start, batch, loss_of))
    assert any(outside)


@pytest.mark.parametrize("unit", ["token", "sequence"])
@pytest.mark.parametrize("old_logprobs", ["one step", "trainer"])
def test_truncated_importance_sampling(old_logprobs: str, unit: str) -> None:
    """An action weighs min(ratio, cap), by its own or its episode's pi_trainer / pi_sampler; the sampler is off."""
    cap = 1.2
    several = {} if old_logprobs == "one step" else {"epochs": 2, "old_logprobs": "trainer"}
    model = fresh_model()
    algorithm = grpo(baseline="none", sampler_cap=cap, sampler_unit=unit, optimizer=STILL, **several).start(model, 0)
    batch = collected(algorithm, model)
    assert batch.logprob_BT is not None
    off_BT = 2 * torch.rand(batch.logprob_BT.shape, generator=torch.Generator().manual_seed(3)) - 1
    batch = replace(batch, logprob_BT=batch.logprob_BT + off_BT * batch.policy_mask_BT)
    assert batch.logprob_BT is not None
    gradients = gradients_of(algorithm, model, batch)

    groups, loss = torch.tensor(batch.plan.groups), torch.zeros((), dtype=torch.float64)
    taken: list[float] = []
    learned: list[float] = []  # of rows with a signal, which are those that are computed
    for row in range(12):
        advantage = float(batch.return_B[row] - batch.return_B[groups == groups[row]].mean())
        now = logprobs_of(model, batch, row)
        written = batch.policy_mask_BT[row].nonzero()[:, 0].tolist()
        gaps = [float(now[t - 1, batch.tokens_BT[row, t]].detach() - batch.logprob_BT[row, t]) for t in written]
        for t, gap in zip(written, gaps, strict=True):
            taken.append(min(math.exp(gap if unit == "token" else sum(gaps)), cap))
            learned += taken[-1:] if advantage else []
            loss = loss - taken[-1] * advantage * now[t - 1, batch.tokens_BT[row, t]]
    expected = gradient_of(model, loss / len(taken))
    assert cap in taken and min(taken) < 1
    for gradient in gradients:
        assert_same(gradient, expected)
    metrics = algorithm.tell(batch).metrics
    assert metrics["sampling/importance_capped"] == pytest.approx(learned.count(cap) / len(learned), abs=1e-6)
    assert metrics["sampling/importance_ratio"] == pytest.approx(sum(learned) / len(learned), rel=1e-5)


def test_a_sequences_ratio_is_the_product_of_its_actions() -> None:
    """Hand-computed: sequences of two actions and of one."""
    trainer = torch.log(torch.tensor([[2.0, 0.5], [1.2, 7.0]]))
    mask = torch.tensor([[True, True], [True, False]])
    tokens = sampler_log_ratio(trainer, torch.zeros(2, 2), mask, "token").exp()
    torch.testing.assert_close(tokens, torch.tensor([[2.0, 0.5], [1.2, 1.0]]))
    sequences = sampler_log_ratio(trainer, torch.zeros(2, 2), mask, "sequence").exp()
    torch.testing.assert_close(sequences, torch.tensor([[1.0, 1.0], [1.2, 1.0]]))


def test_a_sampler_cap_wants_ratios_that_are_not_to_the_sampler() -> None:
    with pytest.raises(ValueError, match=r"sampler_cap: expected null .* got 2; .* old_logprobs=trainer"):
        grpo(sampler_cap=2.0, epochs=2)
    grpo(sampler_cap=2.0)
    grpo(sampler_cap=2.0, epochs=2, old_logprobs="trainer")


def in_bfloat16(**changes: Any) -> dict[str, float]:
    """Metrics of a generation of GSPO on several turns, of which no step changes anything."""
    model = with_frequent_ends(small_model("llama", torch.bfloat16), share=0.2)
    algorithm = GRPO(**settings("gspo", optimizer=STILL, **{"prompts": 8, "group_size": 8} | changes)).start(model, 0)
    report = algorithm.tell(collected(algorithm, model))
    return report.metrics | {"notes": float(len(report.notes))}


def test_gspo_clips_nothing_while_the_policy_is_what_it_was() -> None:
    """In bfloat16 the sampler's rounding is beyond its clips, and so is what other rows beside an answer do to it."""
    assert in_bfloat16(old_logprobs="sampler")["clip_ratio/region_mean"] > 0.1
    assert in_bfloat16()["clip_ratio/region_mean"] == 0.0
    assert in_bfloat16(micro_rows=5)["clip_ratio/region_mean"] == 0.0


def test_a_clip_narrower_than_three_times_the_gap_is_said_once() -> None:
    """The ratio that is clipped is an answer's, whose tokens' gaps cancel here, or a token's."""
    notes = {}
    for ratio, clip in (("token", 0.2), ("token", 0.4), ("sequence", 0.2)):
        model = fresh_model()
        algorithm = grpo(
            ratio=ratio, clip_low=clip, clip_high=1.0, minibatches=2, gap_tolerance=1.0, optimizer=STILL
        ).start(model, 0)
        batch = collected(algorithm, model)
        assert batch.logprob_BT is not None
        off_BT = torch.zeros_like(batch.logprob_BT)
        for row in range(12):
            written = batch.policy_mask_BT[row].nonzero()[:, 0]
            for i, t in enumerate(written[: len(written) // 2 * 2].tolist()):
                off_BT[row, t] = 0.11 if i % 2 else -0.11
        batch = replace(batch, logprob_BT=batch.logprob_BT + off_BT)
        notes[ratio, clip] = algorithm.tell(batch).notes
        assert algorithm.tell(batch).notes == ()
    (note,) = notes["token", 0.2]
    assert "clipped 0.2 from 1" in note and "set old_logprobs=trainer" in note
    assert notes["token", 0.4] == notes["sequence", 0.2] == ()


def test_one_step_a_batch_knows_no_ratio() -> None:
    """However far the sampler is off, the step is that of log pi, and there is no clip to warn of."""
    model, reference = fresh_model(), fresh_model()
    before = weights(model)
    algorithm = grpo(baseline="none", clip_low=1e-6, clip_high=1e-6, gap_tolerance=9.0).start(model, 0)
    batch = collected(algorithm, model)
    assert batch.logprob_BT is not None
    report = algorithm.tell(replace(batch, logprob_BT=batch.logprob_BT - 0.5 * batch.policy_mask_BT))
    assert report.notes == () and report.metrics["clip_ratio/region_mean"] == 0.0
    groups = torch.tensor(batch.plan.groups)
    mean_B = torch.stack([batch.return_B[groups == g].mean() for g in groups])
    weight_BT = ((batch.return_B - mean_B) / float(batch.policy_mask_BT.sum()))[:, None] * batch.policy_mask_BT
    assert_same(change(before, model), written_out_gradient(reference, batch, weight_BT))
