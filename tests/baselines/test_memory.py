"""Less memory, the same gradient: micro-batches that shrink when the memory runs out, layers computed again."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from baselines import GRPO, SFT, policy
from baselines.gradient_checkpointing import check_checkpointable
from baselines.inner_loop import Figures, MicroBatches
from baselines.policy import Scorer
from evotext.models.language_model import LanguageModel
from evotext.policy.actions import Actions
from evotext.rollouts.collector import Collector
from evotext.types import UpdateReport
from tests.baselines.one_step import assert_same, change, fresh_model, grpo, ppo, weights
from tests.baselines.test_policy import actions_by_hand
from tests.baselines.test_sft import sft
from tests.rollouts.chatter import chatter
from tests.small_models import CONFIGS, small_network

STEPS = {"epochs": 2, "minibatches": 2, "optimizer": partial(torch.optim.SGD, lr=1e-3)}
MAKERS = pytest.mark.parametrize(
    "make",
    [
        partial(grpo, **STEPS, kl_coefficient=0.1, old_logprobs="trainer"),
        partial(grpo, **STEPS, kl_coefficient=0.1, kl_in="reward"),
        partial(ppo, **STEPS, kl_coefficient=0.1, value_trunk="own", detach_value=False),
        partial(sft, **STEPS, episodes=12),
    ],
    ids=["grpo", "grpo with the KL in the reward", "ppo with two trunks", "sft"],
)


def step(algorithm: Any) -> tuple[list[Tensor], UpdateReport]:
    model = fresh_model()
    return step_of(algorithm.start(model, 0), model)


def step_of(learner: Any, model: LanguageModel) -> tuple[list[Tensor], UpdateReport]:
    before = weights(model)
    report = learner.tell(Collector(model, chatter(), rows=64).collect(learner.ask(0)))
    return change(before, model), report


def without_costs(report: UpdateReport) -> dict[str, float]:
    return dict(sorted(report.metrics.items()))


@MAKERS
def test_where_the_memory_runs_out_smaller_parts_give_the_same_step(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A memory of six rows, three with gradients: it runs out in forward and in backward passes."""
    expected, plain = step(make(micro_rows=64))
    broken = {"forward": 0, "backward": 0}
    score = policy.Scorer.score

    def short_of_memory(self: Scorer, actions: Actions, temperature: float) -> policy.Scores:
        if actions.rows > 6:
            broken["forward"] += 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        scores = score(self, actions, temperature)
        if actions.rows > 3 and scores.hidden_BND.requires_grad:

            def run_out(_gradient: Tensor) -> None:
                broken["backward"] += 1
                raise torch.OutOfMemoryError("CUDA out of memory")

            scores.hidden_BND.register_hook(run_out)  # the head has its gradient by then, the trunk has not
        return scores

    monkeypatch.setattr(policy.Scorer, "score", short_of_memory)
    algorithm, model = make(micro_rows=64), fresh_model()
    learner = algorithm.start(model, 0)
    got, report = step_of(learner, model)
    assert broken["backward"] and (broken["forward"] or isinstance(algorithm, GRPO | SFT))
    assert_same(got, expected)
    assert without_costs(report) == pytest.approx(without_costs(plain), rel=1e-5, abs=1e-7)
    (note,) = report.notes
    assert (
        note
        == f"out of memory: micro-batches have {learner.training.micro.fitting.now} rows from here on (micro_rows=64)"
    )
    assert learner.training.micro.fitting.now == 3
    assert learner.training.micro.notes() == ()


def test_a_single_row_that_does_not_fit_and_other_faults_are_raised() -> None:
    def fails(error: Exception, row_K: Tensor) -> None:
        raise error

    lengths = torch.ones(8, dtype=torch.int64)
    micro = MicroBatches(8)
    with pytest.raises(torch.OutOfMemoryError):
        micro.run(torch.arange(8), lengths, partial(fails, torch.OutOfMemoryError("CUDA out of memory")), Figures())
    assert micro.fitting.now == 1
    with pytest.raises(RuntimeError, match="a bug"):
        MicroBatches(8).run(torch.arange(8), lengths, partial(fails, RuntimeError("a bug")), Figures())


def test_what_was_counted_before_the_memory_ran_out_is_counted_once() -> None:
    figures, forgotten, sizes = Figures(), [], []
    figures.mean([("kept", 1.0)], 1.0)

    def work(row_K: Tensor) -> float:
        if len(row_K) > 2 and sizes:
            raise MemoryError
        sizes.append(len(row_K))
        figures.mean([("row", float(row_K.double().mean()))], float(len(row_K)))
        return float(len(row_K))

    micro = MicroBatches(4)
    total = micro.run(torch.arange(8), torch.ones(8), work, figures, lambda: forgotten.append(True))
    assert total == 8.0 and forgotten == [True] and sizes == [4, 2, 2, 2, 2]
    assert figures.result() == {"kept": 1.0, "row": 3.5}


@MAKERS
def test_layers_computed_again_give_the_same_step(make: Callable[..., Any]) -> None:
    expected, plain = step(make())
    got, report = step(make(gradient_checkpointing=True))
    assert_same(got, expected)
    assert without_costs(report) == pytest.approx(without_costs(plain), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("family", CONFIGS)
def test_every_family_of_layers_can_be_computed_again(family: str) -> None:
    """The same scores and gradients, each layer run once more in the backward pass, and nothing left behind."""
    network, actions = small_network(family), actions_by_hand()
    check_checkpointable(network)
    layers = [module for module in network.modules() if isinstance(module, GradientCheckpointingLayer)]
    calls = [0]
    inner = next(module for module in layers[0].modules() if not list(module.children()))
    inner.register_forward_hook(lambda *_: calls.__setitem__(0, calls[0] + 1))
    found = []
    for checkpoints in (False, True):
        scorer = Scorer(network, checkpoints=checkpoints, entropies=True)
        scorer.shares = False
        network.zero_grad()
        calls[0] = 0
        scores = scorer.score(actions, 0.7)
        (scores.logprob_BN.sum() + scores.entropy_BN.square().sum()).backward()
        found.append((scores.logprob_BN.detach(), [p.grad.clone() for p in network.parameters() if p.grad is not None]))
        assert calls[0] == (2 if checkpoints else 1)
        assert not any("forward" in layer.__dict__ for layer in layers)
    torch.testing.assert_close(found[1][0], found[0][0])
    assert_same(found[1][1], found[0][1])


def test_dropout_stays_off() -> None:
    """A family that drops out in its layers when it trains: twice the same scores, and those of the sampler."""
    network, actions = small_network("opt"), actions_by_hand()
    assert network.config.dropout > 0
    scorer = Scorer(network, checkpoints=True)
    scores = [scorer.score(actions, 1.0).logprob_BN for _ in range(2)]
    with torch.no_grad():
        plain = Scorer(network).score(actions, 1.0).logprob_BN
    assert torch.equal(scores[0], scores[1])
    torch.testing.assert_close(scores[0].detach(), plain)


def test_chunks_of_whole_rows_can_be_computed_again_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint within a checkpoint: rows whose logits do not fit at once, of a network with a head of its own kind."""
    monkeypatch.setattr(policy, "MAX_LOGITS", 1000)
    changes = []
    for checkpoints in (False, True):
        model = fresh_model()
        before = weights(model)
        algorithm = grpo(gradient_checkpointing=checkpoints).start(model, 0)
        algorithm.training.policy.by_head = algorithm.training.policy.shares = False
        algorithm.tell(Collector(model, chatter(), rows=64).collect(algorithm.ask(0)))
        changes.append(change(before, model))
    assert_same(changes[1], changes[0])


class Plain(nn.Module):
    """A trunk without layers of transformers' kind."""


@pytest.mark.parametrize("make", [grpo, ppo, sft])
def test_a_network_without_such_layers_is_refused(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model: LanguageModel = fresh_model()
    monkeypatch.setattr(model.network, "modules", lambda: iter([Plain()]))
    with pytest.raises(ValueError, match=r"gradient_checkpointing: expected a network with layers"):
        make(gradient_checkpointing=True).start(model, 0)
