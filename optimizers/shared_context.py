"""Members score single tokens, and read contexts that no member perturbs.

A policy token is one of few in an episode: most of a scored episode is prompt and observations, and most policy tokens are
all but certain. Here one unperturbed pass over the episodes keeps the keys and values of every position. A member then
computes nothing but the position that predicts its token, with its own weights, and reads what was kept of those before. With
a_x the advantage of token x of the batch, and l_x its log-probability given those keys and values,

    delta_n = (1 / K) sum_x (a_x / q_x) (l_x(W + sigma E_n) - l_x(W)) / sigma,      K tokens x, drawn with probabilities q_x

has the expectation E_n . h, where h is the gradient of sum_x a_x l_x with the keys and values of earlier positions held fixed
(stop-gradient): a part of the policy gradient, at the price of one position a draw instead of an episode. q_x is proportional
to |a_x| (1 - p_x), about the size of the gradient at the logits; the expectation does not depend on it.

Shapes: B rows, M episodes of a chunk, T tokens of the longest, A actions, X tokens to score, N draws, P members, S slots.
"""

from dataclasses import dataclass, fields
from functools import partial

import torch
from torch import Tensor
from transformers import PreTrainedModel

from evotext.distributed import collectives
from evotext.keys.philox import Purpose, stream_id, uniform
from evotext.models.reading import Reading
from evotext.noise import ForwardNoise, NoiseKey
from evotext.policy.actions import Actions
from evotext.policy.output_head import chosen, log_probabilities
from evotext.rollouts.row_cache import RowCache

from .scores import score_weights
from .scoring import Scoring

# The least of 1 - p by which tokens are drawn: of one that was all but certain when it was sampled.
LEAST = 0.01
# Episodes whose contexts are held at once: few, so that several processes have work each.
EPISODES = 16


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Policy tokens that draws score."""

    row_X: Tensor
    """The episode of each."""
    action_X: Tensor
    """Its place among the episode's actions."""
    draw_X: Tensor
    """The draw that scores it."""
    weight_X: Tensor
    """1 / q_x, float64."""

    def select(self, some_Y: Tensor) -> "Tokens":
        """Return some of them."""
        return Tokens(**{field.name: getattr(self, field.name)[some_Y] for field in fields(self)})


@dataclass(frozen=True, kw_only=True)
class Task:
    """What the members of a generation are to score."""

    actions: Actions
    advantage_BA: Tensor
    """What each action's log-probability weighs, float64; 0 where there is no action, and not all are 0."""
    key: NoiseKey
    noise: ForwardNoise
    per_draw: int
    """K."""
    temperature: float
    clip: tuple[float, float] | None
    """Of the ratio to the sampling policy, by which weights are multiplied; None where that policy is the present one."""


def tokens_to_score(task: Task) -> Tokens:
    """Return K tokens for each draw by systematic sampling: each as often as its size has it, give or take one."""
    key, old_BA = task.key, task.actions.old_logprob_BN.cpu().double()
    size_BA = task.advantage_BA.abs() * (1 - old_BA.exp()).clamp(min=LEAST)
    sum_Y = size_BA.flatten().cumsum(0)
    count = key.draws * task.per_draw
    shift = uniform(key.seed, stream_id(Purpose.SHUFFLING), key.generation, torch.zeros(1, dtype=torch.int64), 1)[0]
    point_X = (torch.arange(count) + shift) / count * sum_Y[-1]
    token_X = torch.searchsorted(sum_Y, point_X, right=True).clamp(max=int(size_BA.flatten().nonzero()[-1]))
    return Tokens(
        row_X=token_X // size_BA.shape[1],
        action_X=token_X % size_BA.shape[1],
        draw_X=torch.arange(count) % key.draws,
        weight_X=sum_Y[-1] / size_BA.flatten()[token_X],
    )


def reads_contexts(network: PreTrainedModel) -> bool:
    """Return whether a network reads keys and values by their positions, and nothing else of what came before."""
    reading = Reading(network)
    return not (reading.recurrent or reading.by_slot)


class SharedContext:
    """Scores tokens with one network.

    scoring: of the same network; tokens count among its rows and operations.
    """

    def __init__(self, scoring: Scoring) -> None:
        self._scoring = scoring
        self._reading = Reading(scoring.network)
        if not reads_contexts(scoring.network):
            raise ValueError(
                "context: expected perturbed with a model that cannot read keys and values by their positions, as "
                f"{scoring.network.config.model_type}, got shared"
            )

    def deltas(self, task: Task) -> Tensor:
        """Return the slope of sum_x a_x l_x along each draw, by differences: (N,), float64.

        Processes share the episodes and exchange a number for each draw.
        """
        tokens = tokens_to_score(task)
        row_M = tokens.row_X.unique()
        row_M = row_M[task.actions.length_B.cpu()[row_M].argsort(stable=True)]
        sum_N = torch.zeros(task.key.draws, dtype=torch.float64)
        for part_M in collectives.own_share(row_M.split(EPISODES)):
            self._add(sum_N, task, tokens, part_M)
        collectives.all_reduce([sum_N])
        return sum_N / (task.key.members_per_draw * task.key.sigma * task.per_draw)

    def _add(self, sum_N: Tensor, task: Task, tokens: Tokens, row_M: Tensor) -> None:
        """Add what the tokens of these episodes give; from fewer at once where the memory does not hold them."""
        fitting = self._scoring.fitting
        if len(row_M) <= fitting.now:
            work = partial(self._differences, task, tokens, row_M)
            part_N = fitting.attempt(fitting.now, work, self._scoring.network.device)
            if part_N is not None:
                sum_N += part_N
                return
        if len(row_M) == 1:
            self._add(sum_N, task, tokens, row_M)
            return
        for half_M in row_M.split((len(row_M) + 1) // 2):
            self._add(sum_N, task, tokens, half_M)

    @torch.inference_mode()
    def _differences(self, task: Task, tokens: Tokens, row_M: Tensor) -> Tensor:
        """Return the differences that the tokens of these episodes make, added up by draw: (N,)."""
        some = task.actions.select(row_M.to(task.actions.tokens_BT.device))
        cache, base_MA = self._contexts(some, task.temperature)
        advantage_MA = task.advantage_BA[row_M, : base_MA.shape[1]]
        if task.clip is not None:
            advantage_MA = score_weights(base_MA, some.old_logprob_BN.cpu().double(), advantage_MA, *task.clip)
        place_B = torch.full((task.actions.rows,), -1).scatter(0, row_M, torch.arange(len(row_M)))
        sum_N, fold = torch.zeros(task.key.draws, dtype=torch.float64), task.key.members_per_draw
        for x_X in (place_B[tokens.row_X] >= 0).nonzero()[:, 0].split(max(1, self._scoring.fitting.now // fold)):
            part = tokens.select(x_X)
            place_X, action_X, draw_X = place_B[part.row_X], part.action_X, part.draw_X
            member_XF = fold * draw_X[:, None] + torch.arange(fold)
            logprob_XF = self._logprobs(task, some, cache, place_X, action_X, member_XF)
            sign_F = torch.tensor([1.0, -1.0][:fold], dtype=torch.float64)
            change_X = ((logprob_XF - base_MA[place_X, action_X][:, None]) * sign_F).sum(1)
            sum_N.index_add_(0, draw_X, part.weight_X * advantage_MA[place_X, action_X] * change_X)
        return sum_N

    def _logprobs(
        self, task: Task, some: Actions, cache: RowCache, place_X: Tensor, action_X: Tensor, member_XF: Tensor
    ) -> Tensor:
        """Return each token's log-probability under each of some members, (X, F), float64."""
        device, fold = some.tokens_BT.device, member_XF.shape[1]
        row_Y = place_X.repeat_interleave(fold).to(device)
        position_Y = some.position_BN[row_Y, action_X.repeat_interleave(fold).to(device)]
        before_Y1 = (position_Y - 1).clamp(min=0)[:, None]
        slots = cache.length
        own = cache.read(row_Y)
        earlier_YS = torch.arange(slots, device=device) < before_Y1
        valid_YS = torch.cat([earlier_YS, torch.ones_like(before_Y1, dtype=torch.bool)], 1)
        how = self._reading.arguments(valid_YS, before_Y1, own, start=slots)
        rows = len(row_Y)
        self._scoring.charge(positions=rows, predicted=rows, noise=task.noise)
        with task.noise.active(member_XF.flatten().tolist(), 1):
            logits_YV = self._scoring.network(input_ids=some.tokens_BT[row_Y[:, None], before_Y1], **how).logits[:, 0]
        logprob_Y = chosen(log_probabilities(logits_YV, task.temperature), some.tokens_BT[row_Y, position_Y])
        return logprob_Y.cpu().double().view(member_XF.shape)

    def _contexts(self, some: Actions, temperature: float) -> tuple[RowCache, Tensor]:
        """Return keys and values of all positions, and the actions' log-probabilities (M, A), float64, unperturbed."""
        rows, width = some.tokens_BT.shape
        cache = RowCache.empty(self._scoring.network.config, width)
        all_MT = torch.ones_like(some.tokens_BT, dtype=torch.bool)  # nobody reads what is padded on the right
        position_MT = torch.arange(width, device=all_MT.device).expand(rows, -1)
        how = self._reading.arguments(all_MT, position_MT, cache, start=0)
        logprob_MA = self._scoring.logprobs(some, temperature, **how)
        cache.advance(width)
        return cache, logprob_MA.cpu().double()
