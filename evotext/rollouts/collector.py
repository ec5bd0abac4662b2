"""Runs the episodes of a plan: every algorithm's rollouts and every evaluation go through here.

A batch holds episodes of one task, whose limits it has, so that in a mixture an episode is what it would be alone.
Results depend on the plan alone, not on how its rows were split into batches (but for rounding: a matrix product of another
size may add in another order). Several processes share the batches and exchange their outcome.
"""

import time
from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from evotext.distributed import collectives
from evotext.distributed.exchange import first_of_each_kind, joint_cost, whole_batch
from evotext.models.language_model import LanguageModel
from evotext.models.out_of_memory import FittingRows
from evotext.rollouts.captured_step import CudaGraphs
from evotext.rollouts.environment_calls import EnvironmentCalls
from evotext.rollouts.episodes import Batch, Episode
from evotext.rollouts.shared_calls import SharedCalls
from evotext.rollouts.task import Task, TextTask
from evotext.types import Cost, RolloutPlan, Trajectories, Transcript

# Rounding of a sum of rewards: ten times 0.1 is a little less than 1.
ROUNDING = 1e-9


class Collector:
    """Runs episodes of a task, or of others, with one model.

    rows: how many episodes run in one batch. On a CPU a batch whose activations stay in the cache is fastest. A batch
    that does not fit the memory is run in two, and so from then on.
    even: every process gets as many batches, of nearly one size; otherwise batches, and so results to the last bit, are the
    same whatever the number of processes.
    graphs: whether a GPU decodes by replaying a captured graph, where the network allows it.
    transcripts: how many episodes are kept as text: the first ones of the first group, then the first ones of the others.
    """

    def __init__(
        self,
        model: LanguageModel,
        task: Task,
        *,
        rows: int,
        even: bool = False,
        graphs: bool = True,
        transcripts: int = 4,
    ) -> None:
        self.model, self.task, self.rows, self.even, self.transcripts = model, task, rows, even, transcripts
        self.fitting = FittingRows(rows)
        """The rows that the memory has turned out to hold; at most `rows`."""
        self.waiting = 0.0
        """Share of the last collection's time that processes waited, on average, for the slowest."""
        # When a pass breaks off, other processes wait in the middle of it: running out of memory is then an error.
        self._in_step = model.parts.divided or (
            model.sharding is not None and model.sharding.rollout_weights == "layers"
        )
        graphs = graphs and not model.parts.divided and model.sharding is None  # messages are not to be recorded
        self.recorder = CudaGraphs() if graphs and model.device.type == "cuda" else None
        """Records decode steps; None where none are."""
        self._calls: dict[TextTask, EnvironmentCalls | SharedCalls] = {}

    def collect(self, plan: RolloutPlan, task: Task | None = None) -> Trajectories:
        """Run every row of the plan to its end. Raise what an environment raises if its task is strict.

        task: of the plan's instances; None: the collector's own.
        """
        task = task or self.task
        if not plan.instances:
            return self._trajectories(plan, [], task)
        begin = time.perf_counter()
        done: list[Episode] = []
        env_seconds, flops, steps = 0.0, 0.0, 0
        tasks = task.of(plan.instances)
        batches = [
            batch
            for part in dict.fromkeys(tasks)
            for batch in self._batches(plan, [row for row, own in enumerate(tasks) if own is part])
        ]
        shares = [batches[share :: collectives.shares()] for share in range(collectives.shares())]
        with self.model.acting():
            for rows in shares[collectives.share()]:
                for batch in self._run(plan, rows, tasks[rows[0]]):
                    done += batch.episodes
                    env_seconds += batch.env_seconds
                    flops += batch.flops
                    steps += batch.env_steps
                    del batch  # its cache goes before the next one's comes
            busy = time.perf_counter() - begin
        own = self._trajectories(plan, sorted(done, key=lambda episode: episode.row), task)
        whole = whole_batch(own, [sorted(row for rows in share for row in rows) for share in shares])
        cost = Cost(
            episodes=len(done),
            env_steps=steps,
            generated_tokens=sum(sum(episode.mask) for episode in done),
            rollout_seconds=time.perf_counter() - begin - env_seconds,
            env_seconds=env_seconds,
            flops=flops,
        )
        self._measure_waiting(busy)
        return replace(whole, cost=joint_cost(cost))

    def take_notes(self) -> list[str]:
        """Return what happened since the last call that a person should hear of, each thing once."""
        notes = []
        if self.fitting.shrunk():
            notes.append(f"out of memory: batches have {self.fitting.now} rows from here on")
        if self.recorder is not None and self.recorder.fault:
            notes.append(f"decoding without a CUDA graph, and so slower: {self.recorder.fault}")
            self.recorder = None
        return notes

    def _run(self, plan: RolloutPlan, rows: list[int], task: TextTask) -> "Iterator[Batch]":
        """Yield these rows of one task in one batch, or in several where the memory does not hold them."""
        if task not in self._calls:
            calls = EnvironmentCalls(task.step_seconds, task.workers)
            self._calls[task] = SharedCalls(calls, self.model.parts.group) if self.model.parts.divided else calls

        def whole() -> Batch:
            batch = Batch(self.model, task, plan, rows, self._calls[task], self.recorder)
            batch.run()
            return batch

        if self._in_step:
            yield whole()
            return
        if len(rows) <= self.fitting.now:
            finished = self.fitting.attempt(len(rows), whole, self.model.device)
            if finished is not None:
                yield finished
                return
        middle = (len(rows) + 1) // 2
        yield from self._run(plan, rows[:middle], task)
        yield from self._run(plan, rows[middle:], task)

    def _measure_waiting(self, busy: float) -> None:
        if collectives.world_size() > 1:
            busy_N = collectives.all_gather(torch.tensor([busy], dtype=torch.float64))
            self.waiting = 1.0 - float(busy_N.mean() / busy_N.max())

    def _batches(self, plan: RolloutPlan, rows: list[int]) -> Iterator[list[int]]:
        """Yield these rows in batches: whole members where they fit, so that a member's rows share its noise."""
        members = plan.members or tuple(range(len(plan.instances)))
        limit = self.rows
        if self.even and collectives.shares() > 1:
            of_first = sum(members[row] == members[rows[0]] for row in rows)
            limit = even_batch(len(rows), of_first, collectives.shares(), most=limit)
        runs: list[list[int]] = []
        for row in rows:
            if runs and members[runs[-1][-1]] == members[row] and len(runs[-1]) < limit:
                runs[-1].append(row)
            else:
                runs.append([row])
        batch: list[int] = []
        for run in runs:
            if batch and len(batch) + len(run) > limit:
                yield batch
                batch = []
            batch = batch + run
        yield batch

    def _trajectories(self, plan: RolloutPlan, episodes: list[Episode], task: Task) -> Trajectories:
        width = max((len(episode.ids) for episode in episodes), default=0)
        rewards = torch.zeros(len(episodes), width)
        goals = [own.success_return for own in task.of([plan.instances[episode.row] for episode in episodes])]
        for row, episode in enumerate(episodes):
            for position, reward in episode.paid:
                rewards[row, position] += reward
        return Trajectories(
            plan=plan,
            tokens_BT=_padded([e.ids for e in episodes], width, 0, torch.int64),
            length_B=torch.tensor([len(e.ids) for e in episodes], dtype=torch.int64),
            policy_mask_BT=_padded([e.mask for e in episodes], width, False, torch.bool),
            turn_BT=_padded([e.turn_of for e in episodes], width, -1, torch.int64),
            reward_BT=rewards,
            return_B=torch.tensor([e.total for e in episodes], dtype=torch.float64),
            success_B=_flags(
                goal is not None and e.total >= goal - ROUNDING for e, goal in zip(episodes, goals, strict=True)
            )
            if task.knows_success
            else None,
            ending_B=torch.tensor([e.ended_by for e in episodes], dtype=torch.int64),
            has_tokens_B=torch.ones(len(episodes), dtype=torch.bool),
            overlong_B=_flags(e.overlong for e in episodes),
            cost=Cost(),
            reward_parts={
                name: torch.tensor([e.parts.get(name, 0.0) for e in episodes], dtype=torch.float64)
                for name in sorted({name for e in episodes for name in e.parts})
            },
            transcripts=tuple(
                Transcript(
                    row=e.row,
                    instance=plan.instances[e.row],
                    turns=tuple(zip(e.said, e.answered, strict=True)),
                    episode_return=e.total,
                    reward_parts=e.parts,
                    ending=e.ended_by,
                    fault=e.fault,
                )
                for e in sorted(episodes, key=lambda e: plan.groups[e.row] != plan.groups[episodes[0].row])[
                    : self.transcripts
                ]
            ),
            faults=first_of_each_kind(e.fault for e in episodes if e.fault),
            logprob_BT=_padded([e.logprobs for e in episodes], width, 0.0, torch.float32) if plan.logprobs else None,
        )


def even_batch(rows: int, whole: int, count: int, *, most: int) -> int:
    """Return a batch size, at most `most`, that gives `count` processes equal shares, as nearly as members allow.

    whole: rows of a member, which stay together unless there are fewer members than processes.
    """
    rounds = -(-rows // (count * most))
    size = -(-rows // (count * rounds))
    return size if whole > size else min(most, -(-size // whole) * whole)


def _flags(values: Iterable[bool]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.bool)


def _padded(
    rows: list[list[int]] | list[list[bool]] | list[list[float]], width: int, fill: float, dtype: torch.dtype
) -> Tensor:
    padded = torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows], dtype=dtype)
    return padded.view(len(rows), width)
