"""Supervised fine-tuning: the gradient of the likelihood of answers, several turns, costs, refusals, and that it teaches."""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import envs
from baselines import SFT
from baselines.sft import answers_of
from evotext.models.language_model import LanguageModel
from evotext.rollouts.collector import Collector
from evotext.rollouts.task import TextTask
from evotext.types import Demonstration
from tests.baselines.one_step import SGD, change, fresh_model, shipped_settings, weights
from tests.rollouts.chatter import chatter
from tests.small_models import small_model

TAUGHT = (
    Demonstration(turns=(("sort 21", "12"),), instructions="Sort."),
    Demonstration(turns=(("key 7", "ok"), ("see 3", "ok"), ("key?", "7")), played=5),
    Demonstration(turns=(("a", "long answer"), ("b", "c"))),
)


def taught(count: int, seed: int) -> Iterator[Demonstration]:
    return (TAUGHT[(seed + k) % 3] for k in range(count))


def sft(**changes: Any) -> SFT:
    small = {"demonstrations": taught, "episodes": 6, "minibatches": 1, "optimizer": SGD, "max_grad_norm": None}
    return SFT(**shipped_settings("sft") | small | changes)


def task(name: str, **options: Any) -> TextTask:
    """A native task with no limits but its own."""
    limits: dict[str, Any] = {"max_new_tokens": 16, "max_turns": 64, "step_seconds": 60.0, "workers": 0}
    return TextTask(name=name, id=name, success_return=None, strict=True, **limits, **options)


def tell_once(algorithm: SFT, model: LanguageModel, generation: int = 0) -> Any:
    learner = algorithm.start(model, 0)
    return learner.tell(Collector(model, chatter(), rows=64).collect(learner.ask(generation)))


def test_it_steps_along_the_likelihood_of_the_answers_alone() -> None:
    """Written out: conversations encoded turn by turn, each answer's tokens and its end token targets, nothing else."""
    model, reference = fresh_model(), fresh_model()
    before = weights(model)
    report = tell_once(sft(), model)
    loss, targets, read = torch.zeros((), dtype=torch.float64), 0, 0
    for demonstration in TAUGHT:
        ids: list[int] = []
        for turn, (said, answer) in enumerate(demonstration.turns):
            chat = reference.chat
            ids += chat.reply([said], ids[-1:])[0] if turn else chat.open([(demonstration.instructions, said)])[0]
            for token in chat.answer(answer):
                logits = reference.network(input_ids=torch.tensor([ids])).logits[0, -1]
                loss, targets, ids = loss - logits.log_softmax(-1)[token], targets + 1, [*ids, token]
        read += len(ids)
    (loss / targets).backward()  # each of the three stands in the batch twice
    expected = [p.grad for p in reference.network.parameters() if p.grad is not None]
    for got, wanted in zip(change(before, model), expected, strict=True):
        torch.testing.assert_close(got, wanted, atol=1e-6, rtol=1e-4)
    assert report.metrics["loss"] == pytest.approx(float(loss.detach()) / targets)
    assert report.metrics["num_tokens"] == 2 * read
    cost = report.cost
    assert (cost.episodes, cost.env_steps, cost.generated_tokens) == (2 * (1 + 5 + 1), 2 * 6, 2 * targets)
    assert 0 < cost.backward_flops < cost.flops and cost.updates == 1


def test_the_gradient_does_not_depend_on_the_micro_batches() -> None:
    changes = []
    for micro_rows in (1, 4, 64):
        model = fresh_model()
        before = weights(model)
        tell_once(sft(micro_rows=micro_rows), model)
        changes.append(change(before, model))
    for other in changes[1:]:
        for a, b in zip(changes[0], other, strict=True):
            torch.testing.assert_close(a, b, atol=1e-7, rtol=1e-6)


def test_what_the_environment_says_is_no_target() -> None:
    """A last observation of one's own would be the only difference: a shorter conversation has a shorter likelihood."""
    model = fresh_model()
    actions = answers_of([TAUGHT[1]], model)
    written = actions.tokens_BT.gather(1, actions.position_BN)[actions.mask_BN].tolist()
    assert written == [i for answer in ("ok", "ok", "7") for i in model.chat.answer(answer)]


def test_generations_are_taught_anew_and_alike() -> None:
    algorithm = sft(demonstrations=lambda count, seed: [Demonstration(turns=((str(seed), "1"),))] * count)
    learner = algorithm.start(fresh_model(), 3)
    drawn = [learner.demonstrations(generation, 2) for generation in (0, 1, 0)]
    assert drawn[0] == drawn[2] != drawn[1]


def test_what_cannot_be_taught_is_refused_before_anything_runs() -> None:
    with pytest.raises(ValueError, match=r"conversations of at most 128 tokens .* got one of"):
        sft(demonstrations=lambda count, seed: [Demonstration(turns=(("x" * 200, "1"),))]).start(fresh_model(), 0)
    demonstrations = partial(envs.task_demonstrations, task=chatter(), solved=True)
    with pytest.raises(ValueError, match="expected a task with demonstrations, got chatter"):
        sft(demonstrations=demonstrations).start(fresh_model(), 0)
    with pytest.raises(ValueError, match=r"minibatches: expected at most episodes = 6, got 7"):
        sft(minibatches=7)


def test_demonstrations_are_training_episodes_of_the_configured_task() -> None:
    recall = task("envs:evotext/Recall-v0", delay=1, length=3)
    drawn = list(envs.task_demonstrations(30, 5, task=recall, solved=False))
    assert drawn == list(envs.task_demonstrations(30, 5, task=recall, solved=False))
    assert drawn != list(envs.task_demonstrations(30, 6, task=recall, solved=False))
    assert {len(d.turns) for d in drawn} == {3} and {d.played for d in drawn} == {1}
    assert all("3 digits" in d.instructions for d in drawn)
    right = [d.turns[-1][1] == d.turns[0][0].removeprefix("key ") for d in drawn]
    assert 0 < sum(right) < 30
    solved = list(envs.task_demonstrations(30, 5, task=recall, solved=True))
    assert all(d.turns[-1][1] == d.turns[0][0].removeprefix("key ") for d in solved)
    assert sum(d.played for d in solved) > 60  # a demonstrator that succeeds in a quarter of its episodes


class Deaf(gymnasium.Wrapper[str, str, str, str]):
    """Passes nothing on."""

    def step(self, action: str) -> Any:
        return self.env.step("")


def test_a_task_that_its_demonstrator_never_solves_says_so() -> None:
    deaf = task("envs:evotext/Sort-v0", wrappers={"deaf": Deaf})
    with pytest.raises(ValueError, match=r"demonstrations\.solved: expected an episode of .*Sort-v0 that reaches 1"):
        next(envs.task_demonstrations(1, 0, task=deaf, solved=True))


@pytest.mark.learning
def test_it_teaches_a_tiny_task(seed: int) -> None:
    """Answer a digit by the digit after it: from chance to every held-out question, by the collector's own episodes."""

    def successor(count: int, seed: int) -> Iterator[Demonstration]:
        digits = np.random.default_rng(seed).integers(0, 10, count)
        return (Demonstration(turns=((str(d), str((d + 1) % 10)),)) for d in digits)

    model = small_model("llama", torch.float32, seed)
    adam = partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.0)
    algorithm = sft(demonstrations=successor, episodes=32, minibatches=2, optimizer=adam, max_grad_norm=1.0)
    collector = Collector(model, Successor.task(), rows=64)

    def success() -> float:
        plan = algorithm.start(model, seed).ask(0)
        rows = {"instances": tuple(range(20)), "groups": tuple(range(20))}
        played = collector.collect(type(plan)(**vars(plan) | rows))
        return float(played.success_B.double().mean())

    before = success()
    learner = algorithm.start(model, seed)
    losses = []
    for generation in range(25):
        losses.append(learner.tell(collector.collect(learner.ask(generation))).metrics["loss"])
    assert before < 0.3 and success() > 0.9, losses
    assert losses[-1] < math.log(2)


class Successor(gymnasium.Env[str, str]):
    """Says a digit and pays for the digit after it."""

    observation_space = gymnasium.spaces.Text(10_000)
    action_space = gymnasium.spaces.Text(10_000)

    @classmethod
    def task(cls) -> TextTask:
        if "toy/Successor-v0" not in gymnasium.registry:
            gymnasium.register("toy/Successor-v0", cls, reward_threshold=1.0)
        return TextTask(
            name="successor",
            id="toy/Successor-v0",
            max_new_tokens=4,
            max_turns=1,
            success_return=None,
            strict=True,
            step_seconds=60.0,
            workers=0,
        )

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.digit = int(self.np_random.integers(10))
        return str(self.digit), {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        return "", float(action == str((self.digit + 1) % 10)), True, False, {}
