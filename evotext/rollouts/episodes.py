"""Episodes that run at the same time: turn by turn, the model answers all that go on, and each environment takes its answer.

A row whose episode has ended leaves. A fault of an environment ends its own episode, and the run if the task is strict.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import gymnasium
import torch
from torch import Tensor

from evotext.keys.philox import Purpose, stream_id, uniform
from evotext.models.language_model import LanguageModel
from evotext.models.tool_calls import Tools
from evotext.rollouts.captured_step import StepRecorder
from evotext.rollouts.environment_calls import EnvironmentCalls, EnvironmentFault
from evotext.rollouts.reward_parts import added
from evotext.rollouts.session import Completion, Session
from evotext.rollouts.shared_calls import SharedCalls
from evotext.rollouts.task import TextTask
from evotext.types import Ending, Fault, RolloutPlan


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
    parts: dict[str, float] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    tools: Tools | None = None
    results: tuple[str, ...] = ()
    block: list[int] = field(default_factory=list)
    overlong: bool = False
    ending: Ending | None = None
    fault: Fault | None = None

    @property
    def over(self) -> bool:
        """True once it has ended."""
        return self.ending is not None

    @property
    def total(self) -> float:
        """Rewards so far."""
        return sum(reward for _, reward in self.paid)

    @property
    def ended_by(self) -> Ending:
        """The ending of an episode that is over."""
        assert self.ending is not None, "only of an episode that is over"
        return self.ending

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
    """The episodes that run at the same time.

    rows: of the plan. calls: how the task's environments are called. recorder: of decode steps, if there is one.
    """

    def __init__(
        self,
        model: LanguageModel,
        task: TextTask,
        plan: RolloutPlan,
        rows: list[int],
        calls: EnvironmentCalls | SharedCalls,
        recorder: StepRecorder | None = None,
    ) -> None:
        self.model, self.task, self.plan, self.rows = model, task, plan, rows
        members = [0] * len(rows) if plan.members is None else [plan.members[row] for row in rows]
        self.session = Session(model, members=members, noise=plan.noise, recorder=recorder)
        self.episodes: list[Episode] = []
        self.env_seconds, self.env_steps = 0.0, 0
        self._calls = calls

    @property
    def flops(self) -> float:
        """Operations so far."""
        return self.session.flops

    def run(self) -> None:
        """Run all episodes to their end. Raise what an environment raises if the task is strict."""
        with self._calls:
            self._run()

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
                top_p=self.plan.sampling.top_p,
                min_p=self.plan.sampling.min_p,
                uniform_NT=self._uniforms(turn),
                logprobs=self.plan.logprobs,
                last_turn=turn + 1 == self.task.max_turns,
            )
            texts = self._texts([self.episodes[i] for i in alive], completions)
            for i, completion in zip(alive, completions, strict=True):
                self.episodes[i].write(completion, turn)
            self._step([self.episodes[i] for i in alive], texts, turn)

    def _texts(self, episodes: list[Episode], completions: list[Completion]) -> list[str]:
        """Return the answers as the environments read them."""
        if not any(episode.tools for episode in episodes):
            return self.model.chat.text([completion.ids for completion in completions])
        return [self.model.chat.text_with_calls(completion.ids) for completion in completions]

    def _reset(self) -> None:
        environments = self.task.environments(len(self.rows))
        begin = time.perf_counter()
        openings = []
        opened = self._calls.reset(
            environments, seeds=[self.plan.instances[row] for row in self.rows], split=self.plan.split
        )
        for row, env, opening in zip(self.rows, environments, opened, strict=True):
            episode = Episode(row=row, env=env, ids=[])
            instructions = observation = ""
            if isinstance(opening, EnvironmentFault):
                self._end_by(opening, episode)
            else:
                instructions, observation = opening.instructions, opening.observation
                episode.tools = opening.tools if self.model.chat.shows(opening.tools) else None
            episode.said.append(observation)
            openings.append((instructions, observation))
            self.episodes.append(episode)
        self.env_seconds += time.perf_counter() - begin
        opened_ids = self.model.chat.open(openings, [episode.tools for episode in self.episodes])
        for episode, ids in zip(self.episodes, opened_ids, strict=True):
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
        cut_off: list[tuple[Episode, str]] = []
        steps = self._calls.step([episode.env for episode in episodes], texts)
        for episode, text, step in zip(episodes, texts, steps, strict=True):
            episode.answered.append(text)
            self.env_steps += 1
            if isinstance(step, EnvironmentFault):
                self._end_by(step, episode)
                continue
            if step.reward != 0:
                episode.paid.append((len(episode.ids) - 1, step.reward))
            if step.parts:
                episode.parts = added((episode.parts, step.parts))
            episode.results = () if episode.tools is None else step.results
            if step.terminated or step.truncated:
                episode.ending = Ending.TASK if step.terminated else Ending.ENVIRONMENT_LIMIT
                cut_off += [] if step.terminated else [(episode, step.observation)]
            else:
                episode.said.append(step.observation)
        self.env_seconds += time.perf_counter() - begin
        going_on = [episode for episode in episodes if not episode.over]
        if turn + 1 == self.task.max_turns:
            for episode in going_on:
                episode.ending = Ending.TURN_LIMIT
                cut_off.append((episode, episode.said.pop()))
            going_on = []
        for episode, ids in self._replies([(episode, episode.said[-1]) for episode in going_on]):
            if len(episode.ids) + len(ids) + self.task.max_new_tokens > self.model.context_length:
                episode.ending = Ending.CONTEXT
                cut_off.append((episode, episode.said.pop()))
            else:
                episode.block = [episode.ids[-1], *ids]
                episode.read(ids, turn + 1)
        if self.plan.last_observations:
            for episode, ids in self._replies(cut_off):
                if len(episode.ids) + len(ids) <= self.model.context_length:
                    episode.read(ids, turn + 1)

    def _replies(self, said: list[tuple[Episode, str]]) -> Iterable[tuple[Episode, list[int]]]:
        """Return what the environments said after each episode's last answer, as ids."""
        if not said:
            return ()
        episodes, texts = [episode for episode, _ in said], [text for _, text in said]
        last, results = [episode.ids[-1] for episode in episodes], [episode.results for episode in episodes]
        return zip(episodes, self.model.chat.reply(texts, last, results), strict=True)

    def _uniforms(self, turn: int) -> Tensor | None:
        if self.plan.sampling.temperature == 0.0:
            return None
        limit, device = self.task.max_new_tokens, self.model.device
        stream = stream_id(Purpose.TOKEN_SAMPLING, 1 if self.plan.split == "test" else 0)
        rows = self.rows if self.plan.streams is None else [self.plan.streams[row] for row in self.rows]
        index = torch.tensor(rows, device=device)
        return uniform(self.plan.seed, stream, self.plan.generation, index, limit, offset=turn * limit)

    def _end_by(self, fault: EnvironmentFault, episode: Episode) -> None:
        """End an episode by a fault; raise what the environment raised if the task is strict."""
        episode.fault = fault.record(self.plan.instances[episode.row])
        if self.task.strict:
            cause = fault.cause
            raise cause if isinstance(cause, Exception) else RuntimeError(str(episode.fault)) from cause
        if fault.kind == Ending.TIME_LIMIT:
            self.task.replace(episode.env)
        episode.ending = fault.kind
