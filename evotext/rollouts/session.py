"""Conversations that advance together through one model: prefill, cached decoding, rows that leave.

Rows sit in a rectangle of P members with K rows each (without a population: one "member" with all rows), so that a
perturbation applies to all of a member's rows by one batched product. When enough rows have finished their completion,
the others move to a smaller rectangle; a member with fewer rows than the rest is filled up with copies whose results
are ignored. Rows that may be needed for a further turn are parked with their cache.

Shape suffixes: N rows of the session, B rows of the current batch (rectangle), S cache slots, T tokens, V vocabulary.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from evotext.models.flops import ForwardFlops
from evotext.models.language_model import LanguageModel
from evotext.models.reading import Reading
from evotext.noise import ForwardNoise
from evotext.rollouts.captured_step import STEPS_BEFORE, CapturedStep, StepRecorder
from evotext.rollouts.rectangle import CachedRows, Rectangle
from evotext.rollouts.row_cache import RowCache
from evotext.rollouts.sampling import choose_tokens

# A smaller batch is worth its copy of the cache once a quarter of the rows have nothing left to do.
SHRINK_BELOW = 0.75


@dataclass(frozen=True, kw_only=True)
class Completion:
    """The policy's text in one turn of one row."""

    ids: list[int]
    """Token ids, the end token included if it was reached."""
    logprobs: list[float]
    """The sampler's log-probability of each; empty unless asked for."""
    ended: bool
    """Whether the last token is an end token (otherwise the token limit cut it off)."""


class Session:
    """One batch of conversations. `complete` is called once a turn with the rows that go on.

    members: the population member of each row, ascending; all 0 without a population.
    recorder: makes long runs of decode steps faster; None: each step is run as it is.
    flops: floating-point operations so far (`evotext.models.flops`, filling and padding included).
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        members: Sequence[int],
        noise: ForwardNoise | None,
        recorder: StepRecorder | None = None,
    ) -> None:
        self._model = model
        self._noise = noise
        self._recorder = recorder
        self._reading = Reading(model.network)
        self._before: dict[int, list[int]] = {}  # what each row has read, where a later turn has to read it again
        self._captured: CapturedStep | None = None
        self._steps_alike = 0  # decode steps since the batch last changed
        self._members = list(members)
        self._position_N = torch.zeros(len(members), dtype=torch.int64, device=model.device)
        self._stored: list[CachedRows] = []
        self._forward_flops = ForwardFlops(model.network)
        self._noise_flops = {} if noise is None else noise.flops_by_matrix
        self.flops = 0.0

    @torch.inference_mode()
    def complete(
        self,
        rows: Sequence[int],
        blocks: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        temperature: float,
        top_p: float = 1.0,
        min_p: float = 0.0,
        uniform_NT: Tensor | None,
        logprobs: bool,
        last_turn: bool,
    ) -> list[Completion]:
        """Read each row's block of new ids, then generate up to `max_new_tokens` tokens; return in the order of `rows`.

        rows: ascending row numbers. blocks: for a first turn the prompt, later the last token written (which the cache
        has not seen) and the environment's reply. uniform_NT: float64 in [0, 1), or None for greedy decoding.
        last_turn: rows that finish may be forgotten.
        """
        device = self._model.device
        if self._reading.by_slot:  # a later turn's tokens would not lie next to the earlier ones: read everything again
            blocks = [[*self._before.get(row, ()), *block] for row, block in zip(rows, blocks, strict=True)]
            self._stored = []
        rectangle = self._arrange(list(rows))
        block_of = dict(zip(rows, blocks, strict=True))
        logits_BV, state = self._read(rectangle, block_of, max_new_tokens)
        nowhere = len(self._members)  # one row more, for what ended rows and filling copies would write
        written_NT = torch.zeros(nowhere + 1, max_new_tokens, dtype=torch.int64, device=device)
        logprob_NT = torch.zeros(nowhere + 1, max_new_tokens, device=device)
        count_N = torch.zeros(nowhere + 1, dtype=torch.int64, device=device)
        end_ids = torch.tensor(sorted(self._model.end_ids), device=device)
        ended_N = torch.zeros(nowhere + 1, dtype=torch.bool, device=device)
        active_B, tried = rectangle.real_B.clone(), len(self._members) + 1
        for step in range(max_new_tokens):
            uniform_B = None if uniform_NT is None else uniform_NT[rectangle.row_B, step]
            token_B, logprob_B = choose_tokens(logits_BV, uniform_B, temperature, logprobs, top_p=top_p, min_p=min_p)
            token_B = self._model.parts.group.of_first(token_B)  # a tie broken otherwise would part the processes' ways
            writing_B = torch.where(active_B, rectangle.row_B, nowhere)
            written_NT[writing_B, step] = token_B
            if logprob_B is not None:
                logprob_NT[writing_B, step] = logprob_B
            count_N[writing_B] = step + 1
            ended_B = torch.isin(token_B, end_ids)
            ended_N[writing_B] = ended_B
            active_B &= ~ended_B
            left = max_new_tokens - step - 1
            active = int(active_B.sum()) if left else 0
            if not active:
                break
            limit, smaller = SHRINK_BELOW * active_B.numel(), rectangle
            if active <= limit and active < tried:  # as many rows as before need as much room
                smaller, tried = self._arrange(sorted(rectangle.row_B[active_B].tolist())), active
            if smaller.row_B.numel() <= limit:
                if not last_turn:
                    self._park(state, rectangle.real_B & ~active_B)
                next_N = torch.zeros_like(count_N)
                next_N[rectangle.row_B[active_B]] = token_B[active_B]
                self._captured, self._steps_alike = None, 0  # what was recorded is of the larger batch
                state = CachedRows.moved([state], smaller, state.valid_BS.shape[1])
                rectangle, active_B, token_B = smaller, smaller.real_B.clone(), next_N[smaller.row_B]
            logits_BV = self._step(rectangle, state, token_B, active_B, left)
        self._captured, self._steps_alike = None, 0
        if not last_turn:
            self._park(state, rectangle.real_B)
        completions = _completions(rows, written_NT, logprob_NT if logprobs else None, count_N, ended_N)
        if self._reading.by_slot:
            read = zip(rows, blocks, completions, strict=True)
            self._before |= {row: [*block, *completion.ids[:-1]] for row, block, completion in read}
        return completions

    def _arrange(self, rows: list[int]) -> Rectangle:
        return Rectangle.of(rows, self._members, self._model.device)

    def _read(
        self, rectangle: Rectangle, block_of: dict[int, Sequence[int]], max_new_tokens: int
    ) -> tuple[Tensor, CachedRows]:
        """Feed each row's block; return the logits after its last token."""
        blocks = [block_of[row] for row in rectangle.row_B.tolist()]
        if not self._stored:
            return self._prefill(rectangle, blocks, max_new_tokens)
        length = max(stored.cache.length for stored in self._stored)
        state = CachedRows.moved(self._stored, rectangle, length + max(map(len, blocks)) + max_new_tokens)
        self._stored = []
        return self._feed(rectangle, state, blocks), state

    def _prefill(
        self, rectangle: Rectangle, prompts: list[Sequence[int]], max_new_tokens: int
    ) -> tuple[Tensor, CachedRows]:
        """Read the first block of every row. Rows that run the same weights on the same prompt share its computation."""
        device = rectangle.row_B.device
        first: dict[tuple[int, ...], int] = {}
        for i, prompt in enumerate(prompts):
            first.setdefault(tuple(prompt), i)
        shared = self._noise is None and len(first) < len(prompts)
        blocks = list(first) if shared else prompts
        capacity = max(map(len, blocks)) + max_new_tokens
        state = CachedRows(
            row_B=rectangle.row_B,
            cache=RowCache.empty(self._model.network.config, capacity),
            valid_BS=torch.zeros(len(blocks), capacity, dtype=torch.bool, device=device),
        )
        if not shared:
            return self._feed(rectangle, state, blocks), state
        number = {prompt: i for i, prompt in enumerate(first)}
        source_B = torch.tensor([number[tuple(prompt)] for prompt in prompts], device=device)
        leader = torch.tensor(list(first.values()), device=device)
        once = Rectangle(row_B=rectangle.row_B[leader], real_B=rectangle.real_B[leader], members=rectangle.members)
        logits_BV = self._feed(once, state, blocks)
        self._position_N[rectangle.row_B] = self._position_N[once.row_B][source_B]
        cache = state.cache.take(source_B, capacity)
        return logits_BV[source_B], CachedRows(row_B=rectangle.row_B, cache=cache, valid_BS=state.valid_BS[source_B])

    def _feed(self, rectangle: Rectangle, state: CachedRows, blocks: Sequence[Sequence[int]]) -> Tensor:
        """Let each row read its block; return logits (B, V) after the last token of each.

        Shorter blocks are padded on the left, where a mask hides it. Recurrent layers have no such mask: what all rows have
        at the beginning goes through at once, then one token after another, while rows that have read all are carried.
        """
        ids_BT, real_BT = _padded(blocks, rectangle.row_B.device, left=not self._reading.recurrent)
        together = ids_BT.shape[1]
        if self._reading.recurrent:  # transformers' layers continue a state by single tokens only
            together = min(map(len, blocks)) if state.cache.length == 0 else 1
        logits_BV = self._forward(rectangle, state, ids_BT[:, :together], real_BT[:, :together])
        for t in range(together, ids_BT.shape[1]):
            reads_B1 = real_BT[:, t : t + 1]
            later_BV = self._forward(rectangle, state, ids_BT[:, t : t + 1], reads_B1)
            logits_BV = torch.where(reads_B1, later_BV, logits_BV)
        return logits_BV

    def _step(self, rectangle: Rectangle, state: CachedRows, token_B: Tensor, active_B: Tensor, left: int) -> Tensor:
        """Run one decode step, recorded where more of the same follow; return logits (B, V). left: steps at most."""
        # Which rows get their states back differs from step to step, and so does a mask that grows: no recording holds that.
        if self._reading.recurrent or self._reading.by_slot:
            return self._forward(rectangle, state, token_B[:, None], active_B[:, None])
        ids_B1 = token_B[:, None]
        position_B1 = self._take_slots(rectangle, state, active_B[:, None])
        self._steps_alike += 1
        with self._applied(rectangle):
            worth_it = min(self._steps_alike, left) >= STEPS_BEFORE
            if self._recorder is not None and self._captured is None and worth_it:
                captured = CapturedStep(self._model.network, state.cache, state.valid_BS)
                if captured.recorded(self._recorder, ids_B1, position_B1):
                    self._captured = captured
                else:
                    self._recorder = None
            if self._captured is not None:
                return self._captured(ids_B1, position_B1)
            return self._run(state, ids_B1, position_B1)

    def _forward(self, rectangle: Rectangle, state: CachedRows, ids_BT: Tensor, real_BT: Tensor) -> Tensor:
        """Run the network over blocks of new ids, by which the state grows; return logits (B, V) after the last."""
        position_BT = self._take_slots(rectangle, state, real_BT)
        carried_N = (~real_BT[:, -1]).nonzero()[:, 0] if self._reading.recurrent else None
        held = [] if carried_N is None else state.cache.held(carried_N)
        with self._applied(rectangle):
            logits_BV = self._run(state, ids_BT, position_BT)
        if carried_N is not None:
            state.cache.give_back(carried_N, held)
        return logits_BV

    def _take_slots(self, rectangle: Rectangle, state: CachedRows, real_BT: Tensor) -> Tensor:
        """Give new tokens the next slots, count their operations, and find their positions (B, T)."""
        start, width = state.cache.length, real_BT.shape[1]
        state.valid_BS[:, start : start + width] = real_BT
        seen_B = self._position_N[rectangle.row_B]
        own_B = rectangle.real_B  # a filling copy does not decide where its row stands
        self._position_N[rectangle.row_B[own_B]] = (seen_B + real_BT.sum(-1))[own_B]
        computed = {"positions": real_BT.numel(), "predicted": real_BT.shape[0]}
        self.flops += self._forward_flops(**computed) + self._forward_flops.noise(self._noise_flops, **computed)
        return (seen_B[:, None] + real_BT.cumsum(-1) - 1).clamp_(min=0)

    def _applied(self, rectangle: Rectangle) -> AbstractContextManager[None]:
        """Run the rectangle's rows as their members within the block."""
        if self._noise is None:
            return nullcontext()
        return self._noise.active(rectangle.members, rectangle.rows_per_member)

    def _run(self, state: CachedRows, ids_BT: Tensor, position_BT: Tensor) -> Tensor:
        """Run the network itself; return logits (B, V) after the last new id. The ids take the cache's next slots."""
        how = self._reading.arguments(state.valid_BS, position_BT, state.cache, start=state.cache.length)
        logits_B1V = self._model.network(input_ids=ids_BT, **how, logits_to_keep=1).logits
        state.cache.advance(ids_BT.shape[1])
        return logits_B1V[:, -1]

    def _park(self, state: CachedRows, which_B: Tensor) -> None:
        """Keep these rows' caches for a later turn."""
        if bool(which_B.any()):
            self._stored.append(state.part(which_B))


def _padded(blocks: Sequence[Sequence[int]], device: torch.device, *, left: bool) -> tuple[Tensor, Tensor]:
    """Return ids (B, T), padded on the left or on the right, and a mask of the real ones."""
    width = max(map(len, blocks))
    filling = [[0] * (width - len(block)) for block in blocks]
    pairs = list(zip(filling, map(list, blocks), strict=True))
    ids_BT = torch.tensor([zeros + ids if left else ids + zeros for zeros, ids in pairs], device=device)
    length_B1 = torch.tensor([[len(block)] for block in blocks], device=device)
    column_T = torch.arange(width, device=device)
    return ids_BT, column_T >= width - length_B1 if left else column_T < length_B1


def _completions(
    rows: Sequence[int], written_NT: Tensor, logprob_NT: Tensor | None, count_N: Tensor, ended_N: Tensor
) -> list[Completion]:
    written, counts, ended = written_NT.tolist(), count_N.tolist(), ended_N.tolist()
    logprobs = None if logprob_NT is None else logprob_NT.tolist()
    return [
        Completion(
            ids=written[row][: counts[row]],
            logprobs=[] if logprobs is None else logprobs[row][: counts[row]],
            ended=ended[row],
        )
        for row in rows
    ]
