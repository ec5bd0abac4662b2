"""The collector: what a plan yields depends on the plan alone, and every token is accounted for."""

import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from evotext.models.language_model import LanguageModel
from evotext.types import FAULTS, Ending
from tests.rollouts.chatter import ROWS, chatter, collect, plan, with_frequent_ends
from tests.small_models import small_model


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return with_frequent_ends(small_model("llama"))


@pytest.mark.parametrize("rows", [1, 4, 10])
def test_results_do_not_depend_on_the_batches(model: LanguageModel, rows: int) -> None:
    whole, split = collect(model, chatter(), plan()), collect(model, chatter(), plan(), rows)
    for name in ("tokens_BT", "policy_mask_BT", "turn_BT", "reward_BT", "length_B", "ending_B", "overlong_B"):
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


@pytest.mark.parametrize("ending", [Ending.TURN_LIMIT, Ending.ENVIRONMENT_LIMIT, Ending.CONTEXT])
def test_what_the_environment_said_last_is_kept_if_asked_for(model: LanguageModel, ending: Ending) -> None:
    """An episode that a limit cuts off after two turns reads as one without a limit before its third answer."""
    task, cut_model = chatter(), model
    if ending is Ending.TURN_LIMIT:
        task = chatter(max_turns=2)
    elif ending is Ending.ENVIRONMENT_LIMIT:
        task = chatter(max_episode_steps=2)
    else:
        cut_model = replace(model, context_length=30)
    whole = collect(model, chatter(), plan())
    asked = collect(cut_model, task, replace(plan(), last_observations=True))
    plain = collect(cut_model, task, plan())
    assert bool((asked.ending_B == ending).any()) and bool((asked.ending_B == Ending.TASK).any())
    assert torch.equal(asked.ending_B, plain.ending_B) and torch.equal(asked.return_B, plain.return_B)
    for row in range(ROWS):
        length, before = int(asked.length_B[row]), int(plain.length_B[row])
        for name in ("tokens_BT", "policy_mask_BT", "turn_BT"):
            assert torch.equal(getattr(asked, name)[row, :length], getattr(whole, name)[row, :length]), name
        assert not asked.policy_mask_BT[row, before:].any()
        if asked.truncated_B[row]:
            following = before + int(whole.policy_mask_BT[row, before:].int().argmax())  # the next answer's first token
            assert length == (following if following <= cut_model.context_length else before)
        else:
            assert length == before
    assert int(asked.length_B.max()) <= cut_model.context_length


def test_rewards_stand_at_the_last_token_of_their_turn(model: LanguageModel) -> None:
    batch = collect(model, chatter(), plan())
    torch.testing.assert_close(batch.reward_BT.double().sum(1), batch.return_B)
    for row, position in batch.reward_BT.nonzero().tolist():
        turn = batch.turn_BT[row, position]
        mine = (batch.policy_mask_BT[row] & (batch.turn_BT[row] == turn)).nonzero()
        assert position == int(mine[-1])
    assert batch.success_B is not None and torch.equal(batch.success_B, batch.return_B >= 3.0)
    assert not batch.truncated_B.any() and batch.faults == ()


def test_cost_counts_tokens_steps_and_episodes(model: LanguageModel) -> None:
    batch = collect(model, chatter(), plan())
    assert batch.cost.episodes == ROWS
    assert batch.cost.generated_tokens == int(batch.policy_mask_BT.sum())
    assert batch.cost.env_steps == int((batch.turn_BT.amax(1) + 1).sum())
    assert batch.cost.flops > 0 and batch.cost.env_seconds > 0 and batch.cost.rollout_seconds > 0
    assert batch.cost.updates == 0


def test_the_turn_limit_truncates(model: LanguageModel) -> None:
    batch = collect(model, chatter(max_turns=2), plan())
    cut = batch.ending_B == Ending.TURN_LIMIT
    assert cut.any() and torch.equal(cut, batch.truncated_B)
    assert not batch.faulty_B.any()
    assert int(batch.turn_BT.max()) == 1
    assert [transcript.ending for transcript in batch.transcripts] == batch.ending_B[:4].tolist()


def test_a_limit_of_the_environment_is_told_from_ours(model: LanguageModel) -> None:
    batch = collect(model, chatter(fault="truncated"), plan())
    assert (batch.ending_B == Ending.ENVIRONMENT_LIMIT).all() and batch.truncated_B.all() and not batch.faulty_B.any()


def test_the_context_truncates_a_conversation_before_it_overflows(model: LanguageModel) -> None:
    batch = collect(model, chatter(longest=60, max_turns=60), plan())
    assert int(batch.length_B.max()) <= model.context_length
    assert (batch.ending_B == Ending.CONTEXT).any()


def test_a_prompt_longer_than_the_context_is_refused(model: LanguageModel) -> None:
    with pytest.raises(ValueError, match="expected prompts of at most 123 tokens"):
        collect(model, chatter(prompt=80), plan())


RAISED, EXITED, TIME_LIMIT, BAD_REPLY, BAD_REWARD = FAULTS


@pytest.mark.parametrize(
    ("fault", "kind", "reason"),
    [
        ("reset", RAISED, "reset raised RuntimeError: broken at reset"),
        ("step", RAISED, "step raised RuntimeError: broken at step"),
        ("unwritable", RAISED, "step raised Unwritable: an error that cannot be written out"),
        ("base", RAISED, "step raised BaseException: not an Exception"),
        ("exit", EXITED, "step called sys.exit: SystemExit: 3"),
        ("hang", TIME_LIMIT, "step took longer than env.step_seconds=0.5"),
        ("stubborn", TIME_LIMIT, "step took longer than env.step_seconds=0.5"),
        ("none_at_all", BAD_REPLY, "truncated, info) from step, got None"),
        ("reset_none", BAD_REPLY, "expected (observation, info) from reset, got None"),
        ("reset_text", BAD_REPLY, "expected (observation, info) from reset, got 'ab' (str)"),
        ("type", BAD_REPLY, "expected a text as the observation, got 7 (int)"),
        ("surrogate", BAD_REPLY, "expected an observation without lone surrogates"),
        ("flag", BAD_REPLY, "expected a boolean as terminated, got 'False' (str)"),
        ("no_flag", BAD_REPLY, "expected a boolean as truncated, got None"),
        ("nan", BAD_REWARD, "expected a finite reward, at most 3.4e+38, got nan"),
        ("huge", BAD_REWARD, "at most 3.4e+38, got 1e+39"),
        ("none", BAD_REWARD, "expected a number as the reward, got None"),
        ("text", BAD_REWARD, "expected a number as the reward, got '1.0' (str)"),
    ],
)
def test_a_faulty_environment_ends_its_own_episode_only(
    model: LanguageModel, fault: str, kind: Ending, reason: str
) -> None:
    batch = collect(model, chatter(fault=fault, step_seconds=0.5), plan())
    healthy = collect(model, chatter(), plan())
    assert batch.faulty_B.any() and torch.equal(batch.faulty_B, batch.truncated_B)
    assert (batch.ending_B[batch.faulty_B] == kind).all()
    assert batch.return_B.isfinite().all() and batch.reward_BT.isfinite().all()
    (example,) = batch.faults
    assert example.kind is kind and reason in str(example)
    assert example.instance == 2 * int(batch.faulty_B.nonzero()[0])
    where = "toy_environments.py"  # the user's own line
    assert (where in example.traceback) == (kind in (RAISED, EXITED, TIME_LIMIT))
    assert any(transcript.fault is not None and reason in str(transcript.fault) for transcript in batch.transcripts)
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
    [
        ("step", "broken at step"),
        ("exit", "step called sys.exit: SystemExit: 3"),
        ("stubborn", "step took longer than"),
        ("text", "expected a number"),
    ],
)
def test_a_strict_task_passes_the_fault_on(model: LanguageModel, fault: str, reason: str) -> None:
    with pytest.raises((RuntimeError, ValueError), match=reason):
        collect(model, chatter(fault=fault, strict=True, step_seconds=0.5), plan())


def test_a_task_without_a_threshold_knows_no_success_unless_told(model: LanguageModel) -> None:
    assert collect(model, chatter("NoThreshold"), plan()).success_B is None
    batch = collect(model, chatter("NoThreshold", success_return=2.0), plan())
    assert batch.success_B is not None and torch.equal(batch.success_B, batch.return_B >= 2.0)


def test_options_that_the_environment_does_not_know_are_refused() -> None:
    with pytest.raises(ValueError, match="colour"):
        chatter(colour="red")


def test_a_sum_of_rewards_may_be_rounded_and_still_be_a_success(model: LanguageModel) -> None:
    batch = collect(model, chatter("Tenths", max_turns=10), plan(rows=2))
    assert float(batch.return_B[0]) < 1.0 and batch.success_B is not None and batch.success_B.all()
