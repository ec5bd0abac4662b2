"""Episodes that run at the same time: turn by turn, the model answers all that go on, and each environment takes its answer.

A row whose episode has ended leaves. What a faulty environment does ends its own episode, with a note that says why.
"""

import math
import time
from dataclasses import dataclass, field
from typing import SupportsFloat

import gymnasium
import torch
from torch import Tensor

from evotext.keys.philox import Purpose, stream_id, uniform
from evotext.models.language_model import LanguageModel
from evotext.rollouts.captured_step import StepRecorder
from evotext.rollouts.session import Completion, Session
from evotext.rollouts.task import TextTask
from evotext.rollouts.time_limit import TimeLimit, TookTooLong
from evotext.types import RolloutPlan

# What a faulty environment can raise. KeyboardInterrupt is the user's.
FAULTS = (Exception, SystemExit, TookTooLong)


@dataclass(kw_only=True)
class Episode:
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
        """Whether it has ended."""
        return self.terminated or self.truncated

    @property
    def total(self) -> float:
        """Rewards so far."""
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


class Batch:
    """The episodes that run at the same time. rows: of the plan. recorder: of decode steps, if there is one."""

    def __init__(
        self,
        model: LanguageModel,
        task: TextTask,
        plan: RolloutPlan,
        rows: list[int],
        recorder: StepRecorder | None = None,
    ) -> None:
        self.model, self.task, self.plan, self.rows = model, task, plan, rows
        members = [0] * len(rows) if plan.members is None else [plan.members[row] for row in rows]
        self.session = Session(model, members=members, noise=plan.noise, recorder=recorder)
        self.episodes: list[Episode] = []
        self.env_seconds, self.env_steps = 0.0, 0
        self._limit = TimeLimit(task.step_seconds)

    @property
    def flops(self) -> float:
        """Operations so far."""
        return self.session.flops

    def run(self) -> None:
        """All episodes to their end. Raises what an environment raises if the task is strict."""
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
            episode = Episode(row=row, env=env, ids=[])
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

    def _step(self, episodes: list[Episode], texts: list[str], turn: int) -> None:
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

    def _fault(self, episode: Episode, call: str, error: BaseException) -> None:
        if isinstance(error, TookTooLong):
            episode.note = f"the environment's {call} took {error}"
        else:
            episode.note = f"the environment's {call} raised {type(error).__name__}: {error}"
        if self.task.strict:
            raise error if isinstance(error, Exception) else RuntimeError(episode.note) from error
        if isinstance(error, TookTooLong):
            self.task.replace(episode.env)
        episode.truncated = True


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
