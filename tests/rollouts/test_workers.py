"""Environments that step at the same time, and those that are paid by the batch: the same results, row by row."""

import gc
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor

from evotext.models.language_model import LanguageModel
from evotext.rollouts.environment_calls import MOST_HANGS, BrokenEnvironment
from evotext.rollouts.environment_calls import EnvironmentCalls as Calls
from evotext.rollouts.threads import Threads
from evotext.rollouts.time_limit import TookTooLong
from evotext.types import Ending, Trajectories
from scripts.commands.playing.episode import play
from tests.rollouts.chatter import ROWS, chatter, collect, plan, with_frequent_ends
from tests.rollouts.toy_environments import Judged, Meeting
from tests.small_models import small_model


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return with_frequent_ends(small_model("llama"))


def assert_same(one: Trajectories, other: Trajectories) -> None:
    for name in (field.name for field in fields(Trajectories)):
        mine, theirs = getattr(one, name), getattr(other, name)
        if isinstance(mine, Tensor):
            assert torch.equal(mine, theirs), name
    said = [[(t.instance, t.turns, t.episode_return, t.ending) for t in batch.transcripts] for batch in (one, other)]
    assert said[0] == said[1]
    kinds = [[(f.kind, f.call, f.instance, f.error) for f in batch.faults] for batch in (one, other)]
    assert kinds[0] == kinds[1]
    assert one.cost.env_steps == other.cost.env_steps


@pytest.fixture
def no_thread_left() -> Iterator[None]:
    """The test's threads end, after a while at most."""
    before = set(threading.enumerate())
    yield
    gc.collect()
    deadline = time.monotonic() + 20
    while (left := set(threading.enumerate()) - before) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left


@pytest.mark.usefixtures("no_thread_left")
@pytest.mark.parametrize("rows", [5, 100])
def test_who_comes_back_first_changes_nothing(model: LanguageModel, rows: int) -> None:
    """Equal to the last bit, whether one environment steps at a time or eight do."""
    one_by_one = collect(model, chatter("Dawdling", workers=0), plan(rows=40), rows)
    assert one_by_one.turn_BT.amax(1).unique().numel() > 1, "the test wants episodes of different length"
    for _ in range(2):
        assert_same(one_by_one, collect(model, chatter("Dawdling", workers=8), plan(rows=40), rows))


@pytest.mark.parametrize("at_once", [3, 8])
def test_so_many_environments_step_at_once_and_no_more(model: LanguageModel, at_once: int) -> None:
    """Each waits until as many as there are workers are there: with fewer at a time nobody would ever be paid."""
    Meeting.most = Meeting.here = 0
    Meeting.barrier = threading.Barrier(at_once)
    batch = collect(model, chatter("Meeting", workers=at_once), plan(rows=24))
    assert (batch.return_B == 1).all() and not batch.faulty_B.any()
    assert Meeting.most == at_once


@pytest.mark.parametrize(
    "fault",
    [
        "reset",
        "reset_some",
        "some",
        "step",
        "unwritable",
        "base",
        "exit",
        "none_at_all",
        "type",
        "no_flag",
        "nan",
        "huge",
    ],
)
def test_faults_are_those_of_one_at_a_time(model: LanguageModel, fault: str) -> None:
    one_by_one = collect(model, chatter(fault=fault, workers=1), plan())
    together = collect(model, chatter(fault=fault, workers=8), plan())
    assert one_by_one.faulty_B.any()
    assert_same(one_by_one, together)
    assert [bool(f.traceback) for f in one_by_one.faults] == [bool(f.traceback) for f in together.faults]


@pytest.mark.usefixtures("no_thread_left")
def test_a_call_that_takes_too_long_is_left_to_itself(model: LanguageModel) -> None:
    task = chatter(fault="hang", workers=4, step_seconds=0.3)
    before = task.environments(ROWS)
    batch = collect(model, task, plan())
    assert_same(batch, collect(model, chatter(fault="hang", step_seconds=0.3), plan()))
    (fault,) = batch.faults
    assert fault.kind is Ending.TIME_LIMIT and "while self.fault ==" in fault.traceback
    assert {i for i in range(ROWS) if before[i] is not task.environments(ROWS)[i]} == {0}


def test_a_call_that_sleeps_is_not_waited_for(model: LanguageModel) -> None:
    """A signal would end its sleep of ten seconds; a thread goes on sleeping, and the run goes on without it."""
    begin = time.monotonic()
    batch = collect(model, chatter(fault="stubborn", workers=4, step_seconds=0.3), plan())
    assert time.monotonic() - begin < 9
    assert batch.faults[0].kind is Ending.TIME_LIMIT and "time.sleep(10)" in batch.faults[0].traceback


@pytest.mark.usefixtures("no_thread_left")
def test_code_that_swallows_the_error_is_told_again() -> None:
    told = []

    def deaf() -> None:
        while len(told) < 3:
            try:
                while True:
                    pass
            except TookTooLong as error:
                told.append(error)

    threads = Threads(2, 0.05)
    swallowed, quick = threads.run([deaf, lambda: 7])
    assert isinstance(swallowed.error, TookTooLong) and quick.reply == 7
    for _ in range(1000):
        threads.run([int])
        if len(told) == 3:
            break
        time.sleep(0.01)
    assert len(told) == 3


@pytest.mark.usefixtures("no_thread_left")
@pytest.mark.parametrize(("fault", "call"), [("hang_all", "step"), ("reset_hang", "reset")])
def test_an_environment_that_only_hangs_ends_the_run(model: LanguageModel, fault: str, call: str) -> None:
    with pytest.raises(BrokenEnvironment, match=f"each of the first {MOST_HANGS} calls of {call} took longer"):
        collect(model, chatter(fault=fault, workers=3, step_seconds=0.2), plan())


def test_the_users_interrupt_comes_through_from_a_thread() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with Calls(None, 2) as calls, pytest.raises(KeyboardInterrupt):
        list(calls._replies("step", [int, interrupted, int]))


@pytest.mark.parametrize("workers", [0, 8])
@pytest.mark.parametrize("rows", [4, 100])
def test_a_batch_is_paid_by_one_call_a_turn(model: LanguageModel, workers: int, rows: int) -> None:
    Judged.batches.clear()
    batch = collect(model, chatter("Judged", workers=workers), plan(), rows)
    alone = collect(model, chatter(), plan())
    turns = (batch.turn_BT.amax(1) + 1).double()
    instances = torch.tensor(plan().instances, dtype=torch.float64)
    assert torch.equal(batch.tokens_BT, alone.tokens_BT)
    # The judge pays 100 x seed + turn in every turn.
    expected = alone.return_B + 100 * instances * turns + turns * (turns + 1) / 2
    torch.testing.assert_close(batch.return_B, expected)
    torch.testing.assert_close(batch.reward_BT.double().sum(1), expected)
    for row, position in batch.reward_BT.nonzero().tolist():
        mine = (batch.policy_mask_BT[row] & (batch.turn_BT[row] == batch.turn_BT[row, position])).nonzero()
        assert position == int(mine[-1])
    if rows == 100:
        longest = int(turns.max())
        assert Judged.batches == [
            [i for i, n in zip(plan().instances, turns, strict=True) if n > t] for t in range(longest)
        ]


@pytest.mark.parametrize("workers", [0, 8])
@pytest.mark.parametrize(
    ("judge", "kind", "reason"),
    [
        ("raises", Ending.RAISED, "score_batch raised ConnectionError: the judge is away"),
        ("short", Ending.BAD_REPLY, "expected 11 rewards from score_batch, one for each environment, got 10"),
        ("none", Ending.BAD_REPLY, "score_batch returned what it may not"),
        ("one_nan", Ending.BAD_REWARD, "expected a finite reward"),
        ("hang", Ending.TIME_LIMIT, "score_batch took longer than env.step_seconds=0.2"),
    ],
)
def test_a_fault_of_the_judge_is_one_of_its_episodes(
    model: LanguageModel, workers: int, judge: str, kind: Ending, reason: str
) -> None:
    batch = collect(model, chatter("Judged", workers=workers, judge=judge, step_seconds=0.2), plan())
    (fault,) = batch.faults
    assert fault.kind is kind and fault.call == "score_batch" and reason in str(fault)
    faulty = batch.faulty_B.nonzero()[:, 0].tolist()
    assert faulty == ([2] if judge == "one_nan" else list(range(ROWS))) or (judge == "one_nan" and 2 in faulty)
    assert (batch.return_B[batch.faulty_B] < 3).all() or judge == "one_nan"


def test_who_failed_is_not_judged(model: LanguageModel) -> None:
    Judged.batches.clear()
    batch = collect(model, chatter("Judged", fault="step"), plan())
    assert batch.faulty_B.any() and not any(seed % 4 == 0 for seeds in Judged.batches for seed in seeds)


def test_a_strict_task_passes_the_judges_fault_on(model: LanguageModel) -> None:
    options: dict[str, Any] = {"judge": "raises", "strict": True}
    with pytest.raises(ConnectionError, match="the judge is away"):
        collect(model, chatter("Judged", **options), plan())


def test_a_person_who_plays_is_paid_by_the_judge_too() -> None:
    task = chatter("Judged", longest=1)

    class Player:
        def answer(self, instructions: str, turns: Sequence[tuple[str, str]], observation: str) -> str:
            return "four"

        def watch(self, turns: Sequence[tuple[str, str]], episode_return: float) -> None:
            assert episode_return == 4 + 100 * 3 + 1

    assert play(task, task.environments(1)[0], Player(), 3).episode_return == 305
