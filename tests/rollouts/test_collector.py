"""The collector: what a plan yields depends on the plan alone, and every token is accounted for."""

import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from evotext.models.language_model import LanguageModel
from evotext.rollouts.collector import Collector
from evotext.rollouts.task import TextTask
from evotext.types import RolloutPlan, Sampling, Trajectories
from tests.rollouts.test_session import with_frequent_ends
from tests.small_models import small_model

ROWS = 11


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return with_frequent_ends(small_model("llama"))


def chatter(name: str = "Chatter", max_turns: int = 8, **options: Any) -> TextTask:
    return TextTask(
        name="chatter",
        id=f"tests.rollouts.toy_environments:toy/{name}-v0",
        max_new_tokens=5,
        max_turns=max_turns,
        success_return=options.pop("success_return", None),
        strict=options.pop("strict", False),
        step_seconds=options.pop("step_seconds", 60.0),
        **options,
    )


def plan(temperature: float = 1.0, seed: int = 0, rows: int = ROWS) -> RolloutPlan:
    return RolloutPlan(
        seed=seed,
        generation=2,
        instances=tuple(2 * i for i in range(rows)),
        groups=tuple(range(rows)),
        sampling=Sampling(temperature=temperature),
        logprobs=True,
    )


def collect(model: LanguageModel, task: TextTask, asked: RolloutPlan, rows: int = 100) -> Trajectories:
    return Collector(model, task, rows=rows).collect(asked)


@pytest.mark.parametrize("rows", [1, 4, 10])
def test_results_do_not_depend_on_the_batches(model: LanguageModel, rows: int) -> None:
    whole, split = collect(model, chatter(), plan()), collect(model, chatter(), plan(), rows)
    for name in ("tokens_BT", "policy_mask_BT", "turn_BT", "reward_BT", "length_B", "terminated_B", "overlong_B"):
        assert torch.equal(getattr(whole, name), getattr(split, name)), name
    torch.testing.assert_close(whole.logprob_BT, split.logprob_BT, atol=1e-6, rtol=0)


def test_sampling_depends_on_seed_and_not_on_the_global_generator(model: LanguageModel) -> None:
    first = collect(model, chatter(), plan())
    torch.rand(3)
    assert torch.equal(first.tokens_BT, collect(model, chatter(), plan()).tokens_BT)
    other = collect(model, chatter(), plan(seed=1))
    assert first.tokens_BT.shape != other.tokens_BT.shape or not torch.equal(first.tokens_BT, other.tokens_BT)


def test_tokens_are_the_conversation_and_the_mask_is_what_the_policy_wrote(model: LanguageModel) -> None:
    batch = collect(model, chatter(), plan())
    turns = batch.turn_BT.amax(1) + 1
    assert turns.unique().numel() > 1, "the test wants episodes of different length"
    for row in range(ROWS):
        length = int(batch.length_B[row])
        assert (batch.turn_BT[row, length:] == -1).all() and not batch.policy_mask_BT[row, length:].any()
        answers = []
        for turn in range(int(turns[row])):
            mine = batch.policy_mask_BT[row] & (batch.turn_BT[row] == turn)
            ids = batch.tokens_BT[row, mine].tolist()
            assert 1 <= len(ids) <= 5
            assert not set(ids[:-1]) & model.end_ids, "writing goes on after an end token"
            answers.append(model.chat.text([ids])[0])
        if row < len(batch.transcripts):
            assert [answer for _, answer in batch.transcripts[row].turns] == answers
            assert batch.transcripts[row].turns[0][0] == f"s{2 * row} "


def test_rewards_stand_at_the_last_token_of_their_turn(model: LanguageModel) -> None:
    batch = collect(model, chatter(), plan())
    torch.testing.assert_close(batch.reward_BT.double().sum(1), batch.return_B)
    for row, position in batch.reward_BT.nonzero().tolist():
        turn = batch.turn_BT[row, position]
        mine = (batch.policy_mask_BT[row] & (batch.turn_BT[row] == turn)).nonzero()
        assert position == int(mine[-1])
    assert torch.equal(batch.success_B, batch.return_B >= 3.0)
    assert batch.terminated_B.all() and not batch.truncated_B.any()


def test_cost_counts_tokens_steps_and_episodes(model: LanguageModel) -> None:
    batch = collect(model, chatter(), plan())
    assert batch.cost.episodes == ROWS
    assert batch.cost.generated_tokens == int(batch.policy_mask_BT.sum())
    assert batch.cost.env_steps == int((batch.turn_BT.amax(1) + 1).sum())
    assert batch.cost.flops > 0 and batch.cost.env_seconds > 0 and batch.cost.rollout_seconds > 0
    assert batch.cost.updates == 0


def test_the_turn_limit_truncates(model: LanguageModel) -> None:
    batch = collect(model, chatter(max_turns=2), plan())
    assert batch.truncated_B.any() and (batch.truncated_B ^ batch.terminated_B).all()
    assert int(batch.turn_BT.max()) == 1
    assert any("max_turns=2" in transcript.note for transcript in batch.transcripts if transcript.note)


def test_the_context_truncates_a_conversation_before_it_overflows(model: LanguageModel) -> None:
    batch = collect(model, chatter(longest=60, max_turns=60), plan())
    assert int(batch.length_B.max()) <= model.context_length
    assert batch.truncated_B.any()


def test_a_prompt_longer_than_the_context_is_refused(model: LanguageModel) -> None:
    with pytest.raises(ValueError, match="expected prompts of at most 123 tokens"):
        collect(model, chatter(prompt=80), plan())


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("reset", "broken at reset"),
        ("step", "broken at step"),
        ("exit", "step raised SystemExit: 3"),
        ("type", "int"),
        ("surrogate", "surrogates not allowed"),
        ("nan", "expected a finite reward, got nan"),
        ("none", "NoneType"),
        ("hang", "step took longer than env.step_seconds=0.5"),
        ("stubborn", "step took longer than env.step_seconds=0.5"),
    ],
)
def test_a_faulty_environment_ends_its_own_episode_only(model: LanguageModel, fault: str, reason: str) -> None:
    batch = collect(model, chatter(fault=fault, step_seconds=0.5), plan())
    healthy = collect(model, chatter(), plan())
    assert batch.truncated_B.any()
    assert any(reason in transcript.note for transcript in batch.transcripts)
    for row in (~batch.truncated_B).nonzero()[:, 0].tolist():
        length = int(batch.length_B[row])
        assert torch.equal(batch.tokens_BT[row, :length], healthy.tokens_BT[row, :length])
        assert batch.return_B[row] == healthy.return_B[row]


def test_the_time_limit_leaves_the_timer_and_its_handler_as_they_were(model: LanguageModel) -> None:
    before = signal.getsignal(signal.SIGALRM)
    collect(model, chatter(fault="hang", step_seconds=0.5), plan())
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_an_interrupted_environment_is_not_used_again(model: LanguageModel) -> None:
    task = chatter(fault="hang", step_seconds=0.5)
    before = task.environments(ROWS)
    collect(model, task, plan())
    assert {i for i in range(ROWS) if before[i] is not task.environments(ROWS)[i]} == {0}


def test_outside_the_main_thread_there_is_no_time_limit_and_no_error(model: LanguageModel) -> None:
    with ThreadPoolExecutor(1) as pool:
        batch = pool.submit(collect, model, chatter(step_seconds=0.5), plan()).result()
    assert torch.equal(batch.return_B, collect(model, chatter(), plan()).return_B)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("step", "broken at step"), ("exit", "step raised SystemExit: 3"), ("stubborn", "step took longer than")],
)
def test_a_strict_task_passes_the_fault_on(model: LanguageModel, fault: str, reason: str) -> None:
    with pytest.raises(RuntimeError, match=reason):
        collect(model, chatter(fault=fault, strict=True, step_seconds=0.5), plan())


def test_a_task_without_a_threshold_wants_one() -> None:
    with pytest.raises(ValueError, match="env.success_return: expected a number"):
        chatter("NoThreshold")
    assert chatter("NoThreshold", success_return=2.0).success_return == 2.0


def test_options_that_the_environment_does_not_know_are_refused() -> None:
    with pytest.raises(ValueError, match="colour"):
        chatter(colour="red")


def test_a_sum_of_rewards_may_be_rounded_and_still_be_a_success(model: LanguageModel) -> None:
    batch = collect(model, chatter("Tenths", max_turns=10), plan(rows=2))
    assert float(batch.return_B[0]) < 1.0 and batch.success_B.all()
