"""Runs the episodes of a plan: every algorithm's rollouts and every evaluation go through here.

Episodes advance turn by turn, a batch of rows at a time; a row whose episode has ended leaves. Results depend on the
plan alone, not on how its rows were split into batches (but for rounding: a matrix product of another size may add in
another order). Several processes share the batches and exchange their outcome.
"""

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import SupportsFloat

import gymnasium
import torch
from torch import Tensor

from evotext import processes
from evotext.models.language_model import LanguageModel
from evotext.out_of_memory import is_out_of_memory, make_room
from evotext.philox import Purpose, stream_id, uniform
from evotext.rollouts.captured_step import CudaGraphs
from evotext.rollouts.exchange import joint_cost, whole_batch
from evotext.rollouts.session import Completion, Session
from evotext.rollouts.task import TextTask
from evotext.rollouts.time_limit import TimeLimit, TookTooLong
from evotext.types import Cost, RolloutPlan, Trajectories, Transcript

# Of a sum of rewards: ten times 0.1 is a little less than 1.
ROUNDING = 1e-9
# What a faulty environment can raise. KeyboardInterrupt is the user's.
FAULTS = (Exception, SystemExit, TookTooLong)


@dataclass(kw_only=True)
class _Episode:
    """One row while it runs."""

    row: int
    env: gymnasium.Env[str, str]
    ids: list[int]
    mask: list[bool] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    turn_of: list[int] = field(default_factory=list)
    paid: list[tuple[int, float]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    block: list[int] = field(default_factory=list)
    terminated: bool = False
    truncated: bool = False
    overlong: bool = False
    note: str = ""

    @property
    def over(self) -> bool:
        return self.terminated or self.truncated

    @property
    def total(self) -> float:
        return sum(reward for _, reward in self.paid)

    def read(self, ids: list[int], turn: int) -> None:
        """Append ids that the environment or the chat format wrote."""
        self.ids += ids
        self.mask += [False] * len(ids)
        self.logprobs += [0.0] * len(ids)
        self.turn_of += [turn] * len(ids)

    def write(self, completion: Completion, turn: int) -> None:
        """Append what the policy wrote."""
        self.ids += completion.ids
        self.mask += [True] * len(completion.ids)
        self.logprobs += completion.logprobs or [0.0] * len(completion.ids)
        self.turn_of += [turn] * len(completion.ids)
        self.overlong |= not completion.ended


class Collector:
    """Runs episodes of one task with one model.

    rows: how many episodes run in one batch. On a CPU a batch whose activations stay in the cache is fastest. A batch
    that does not fit the memory is run in two, and so from then on.
    even: every process gets as many batches, of nearly one size; otherwise batches, and so results to the last bit, are the
    same whatever the number of processes.
    graphs: whether a GPU decodes by replaying a captured graph, where the network allows it.
    transcripts: how many of a batch's first episodes are kept as text.
    """

    def __init__(
        self,
        model: LanguageModel,
        task: TextTask,
        *,
        rows: int,
        even: bool = False,
        graphs: bool = True,
        transcripts: int = 4,
    ) -> None:
        self.model, self.task, self.rows, self.even, self.transcripts = model, task, rows, even, transcripts
        self.fitting_rows = rows
        """How many rows the memory has turned out to hold; at most `rows`."""
        self.waiting = 0.0
        """Share of the last collection's time that processes waited, on average, for the slowest."""
        self.recorder = CudaGraphs() if graphs and model.device.type == "cuda" else None
        """What decode steps are recorded with."""
        self._notes: list[str] = []

    def collect(self, plan: RolloutPlan) -> Trajectories:
        """Run every row of the plan to its end. Raises what an environment raises if the task is strict."""
        if not plan.instances:
            return self._trajectories(plan, [])
        begin = time.perf_counter()
        done: list[_Episode] = []
        env_seconds, flops, steps = 0.0, 0.0, 0
        batches = list(self._batches(plan))
        shares = [batches[process :: processes.count()] for process in range(processes.count())]
        for rows in shares[processes.rank()]:
            for batch in self._run(plan, rows):
                done += batch.episodes
                env_seconds, flops, steps = (
                    env_seconds + batch.env_seconds,
                    flops + batch.flops,
                    steps + batch.env_steps,
                )
                del batch  # its cache goes before the next one's comes
        busy = time.perf_counter() - begin
        own = self._trajectories(plan, done)
        whole = whole_batch(own, [[row for rows in share for row in rows] for share in shares])
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
        """What happened since the last call that a person should hear of, each thing once."""
        notes, self._notes = self._notes, []
        if self.recorder is not None and self.recorder.fault:
            notes.append(f"decoding without a CUDA graph, and so slower: {self.recorder.fault}")
            self.recorder = None
        return notes

    def _run(self, plan: RolloutPlan, rows: list[int]) -> "Iterator[_Batch]":
        """These rows in one batch, or in several where the memory does not hold them."""
        if len(rows) <= self.fitting_rows:
            batch: _Batch | None = None
            try:
                batch = _Batch(self, plan, rows)
                batch.run()
            except (MemoryError, RuntimeError) as error:
                if len(rows) == 1 or not is_out_of_memory(error):
                    raise
            else:
                yield batch
                return
            # After the handler, for the error holds on to the batch's tensors.
            del batch
            self.fitting_rows = (len(rows) + 1) // 2
            self._notes.append(f"out of memory: batches have {self.fitting_rows} rows from here on")
            make_room(self.model.device)
        middle = (len(rows) + 1) // 2
        yield from self._run(plan, rows[:middle])
        yield from self._run(plan, rows[middle:])

    def _measure_waiting(self, busy: float) -> None:
        if processes.count() > 1:
            busy_N = processes.gather(torch.tensor([busy], dtype=torch.float64))
            self.waiting = 1.0 - float(busy_N.mean() / busy_N.max())

    def _batches(self, plan: RolloutPlan) -> Iterator[list[int]]:
        """Row numbers of each batch: whole members where they fit, so that a member's rows share its noise."""
        members = plan.members or tuple(range(len(plan.instances)))
        limit = self.rows
        if self.even and processes.count() > 1:
            limit = even_batch(len(members), members.count(members[0]), processes.count(), most=limit)
        runs: list[list[int]] = []
        for row, member in enumerate(members):
            if runs and members[runs[-1][-1]] == member and len(runs[-1]) < limit:
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

    def _trajectories(self, plan: RolloutPlan, episodes: list[_Episode]) -> Trajectories:
        width = max((len(episode.ids) for episode in episodes), default=0)
        rewards = torch.zeros(len(episodes), width)
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
            success_B=_flags(e.total >= self.task.success_return - ROUNDING for e in episodes),
            terminated_B=_flags(e.terminated for e in episodes),
            truncated_B=_flags(e.truncated for e in episodes),
            overlong_B=_flags(e.overlong for e in episodes),
            cost=Cost(),
            transcripts=tuple(
                Transcript(
                    instance=plan.instances[e.row],
                    turns=tuple(zip(e.said, e.answered, strict=True)),
                    episode_return=e.total,
                    note=e.note,
                )
                for e in episodes[: self.transcripts]
            ),
            logprob_BT=_padded([e.logprobs for e in episodes], width, 0.0, torch.float32) if plan.logprobs else None,
        )


class _Batch:
    """The episodes that run at the same time."""

    def __init__(self, collector: Collector, plan: RolloutPlan, rows: list[int]) -> None:
        self.model, self.task, self.plan, self.rows = collector.model, collector.task, plan, rows
        members = [0] * len(rows) if plan.members is None else [plan.members[row] for row in rows]
        self.session = Session(collector.model, members=members, noise=plan.noise, recorder=collector.recorder)
        self.episodes: list[_Episode] = []
        self.env_seconds, self.env_steps = 0.0, 0
        self._limit = TimeLimit(collector.task.step_seconds)

    @property
    def flops(self) -> float:
        return self.session.flops

    def run(self) -> None:
        self._limit.install()
        try:
            self._run()
        finally:
            self._limit.remove()

    def _run(self) -> None:
        self._reset()
        for turn in range(self.task.max_turns):
            alive = [i for i, episode in enumerate(self.episodes) if not episode.over]
            if not alive:
                return
            completions = self.session.complete(
                alive,
                [self.episodes[i].block for i in alive],
                max_new_tokens=self.task.max_new_tokens,
                temperature=self.plan.sampling.temperature,
                uniform_NT=self._uniforms(turn),
                logprobs=self.plan.logprobs,
                last_turn=turn + 1 == self.task.max_turns,
            )
            texts = self.model.chat.text([completion.ids for completion in completions])
            for i, completion in zip(alive, completions, strict=True):
                self.episodes[i].write(completion, turn)
            self._step([self.episodes[i] for i in alive], texts, turn)

    def _reset(self) -> None:
        environments = self.task.environments(len(self.rows))
        begin = time.perf_counter()
        openings = []
        for row, env in zip(self.rows, environments, strict=True):
            episode = _Episode(row=row, env=env, ids=[])
            instructions = ""
            try:
                with self._limit:
                    observation, info = env.reset(seed=self.plan.instances[row], options={"split": self.plan.split})
                instructions = str(info.get("instructions", ""))
                episode.said.append(_text(observation))
            except FAULTS as error:
                self._fault(episode, "reset", error)
                episode.said.append("")
            openings.append((instructions, episode.said[0]))
            self.episodes.append(episode)
        self.env_seconds += time.perf_counter() - begin
        for episode, ids in zip(self.episodes, self.model.chat.open(openings), strict=True):
            episode.block = ids
            episode.read(ids, 0)
            if episode.over:  # nothing was asked, so nothing was answered
                episode.answered.append("")
            elif len(ids) + self.task.max_new_tokens > self.model.context_length:
                raise ValueError(
                    f"env: expected prompts of at most {self.model.context_length - self.task.max_new_tokens} tokens "
                    f"(the model's context of {self.model.context_length} less env.max_new_tokens), got one of {len(ids)}; "
                    "make the task easier or take a model with a longer context"
                )

    def _step(self, episodes: list[_Episode], texts: list[str], turn: int) -> None:
        """Give each environment its answer; prepare the next block of those that go on."""
        begin = time.perf_counter()
        for episode, text in zip(episodes, texts, strict=True):
            episode.answered.append(text)
            try:
                with self._limit:
                    observation, reward, terminated, truncated, _ = episode.env.step(text)
                self.env_steps += 1
                if reward != 0:
                    episode.paid.append((len(episode.ids) - 1, _finite(reward)))
                episode.terminated, episode.truncated = bool(terminated), bool(truncated and not terminated)
                if not episode.over:
                    episode.said.append(_text(observation))
            except FAULTS as error:
                self._fault(episode, "step", error)
        self.env_seconds += time.perf_counter() - begin
        going_on = [episode for episode in episodes if not episode.over]
        if turn + 1 == self.task.max_turns:
            for episode in going_on:
                episode.truncated, episode.note = True, f"reached env.max_turns={self.task.max_turns}"
                episode.said.pop()
            return
        last_ids = [episode.ids[-1] for episode in going_on]
        replies = self.model.chat.reply([episode.said[-1] for episode in going_on], last_ids)
        for episode, last, ids in zip(going_on, last_ids, replies, strict=True):
            if len(episode.ids) + len(ids) + self.task.max_new_tokens > self.model.context_length:
                episode.truncated, episode.note = True, f"reached the context of {self.model.context_length} tokens"
                episode.said.pop()
            else:
                episode.block = [last, *ids]
                episode.read(ids, turn + 1)

    def _uniforms(self, turn: int) -> Tensor | None:
        if self.plan.sampling.temperature == 0.0:
            return None
        limit, device = self.task.max_new_tokens, self.model.device
        stream = stream_id(Purpose.TOKEN_SAMPLING, 1 if self.plan.split == "test" else 0)
        rows = torch.tensor(self.rows, device=device)
        return uniform(self.plan.seed, stream, self.plan.generation, rows, limit, offset=turn * limit)

    def _fault(self, episode: _Episode, call: str, error: BaseException) -> None:
        if isinstance(error, TookTooLong):
            episode.note = f"the environment's {call} took {error}"
        else:
            episode.note = f"the environment's {call} raised {type(error).__name__}: {error}"
        if self.task.strict:
            raise error if isinstance(error, Exception) else RuntimeError(episode.note) from error
        if isinstance(error, TookTooLong):
            self.task.replace(episode.env)
        episode.truncated = True


def even_batch(rows: int, whole: int, count: int, *, most: int) -> int:
    """Rows of a batch, at most `most`, with which `count` processes get equal shares, as nearly as members allow.

    whole: rows of a member, which stay together unless there are fewer members than processes.
    """
    rounds = -(-rows // (count * most))
    size = -(-rows // (count * rounds))
    return size if whole > size else min(most, -(-size // whole) * whole)


def _text(observation: object) -> str:
    if not isinstance(observation, str):
        raise TypeError(f"expected a text observation, got {type(observation).__name__}")
    if not observation.isascii():
        observation.encode()  # lone surrogates are no text: no tokenizer takes them
    return observation


def _finite(reward: SupportsFloat) -> float:
    value = float(reward)
    if not math.isfinite(value):
        raise ValueError(f"expected a finite reward, got {value}")
    return value


def _flags(values: Iterable[bool]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.bool)


def _padded(
    rows: list[list[int]] | list[list[bool]] | list[list[float]], width: int, fill: float, dtype: torch.dtype
) -> Tensor:
    padded = torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows], dtype=dtype)
    return padded.view(len(rows), width)
