"""The batched, cached, shrinking engine writes what a slow loop without cache or batch writes, in every family."""

import random
from collections.abc import Sequence

import pytest
import torch
from families.reference import slow_greedy

from evotext.models.flops import ForwardFlops
from evotext.rollouts.session import Completion, Session
from tests.rollouts.chatter import with_frequent_ends
from tests.small_models import CONFIGS, RECURRENT, small_model

LIMIT = 7


def blocks_of_uneven_length(rows: int, seed: int) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(4, 100) for _ in range(rng.randrange(1, 12))] for _ in range(rows)]


def greedy(
    session: Session, rows: Sequence[int], blocks: list[list[int]], last_turn: bool, limit: int = LIMIT
) -> list[Completion]:
    return session.complete(
        rows,
        blocks,
        max_new_tokens=limit,
        temperature=0.0,
        uniform_NT=None,
        logprobs=True,
        last_turn=last_turn,
    )


@pytest.mark.parametrize("family", [*sorted(CONFIGS), *RECURRENT])
def test_three_turns_equal_the_slow_loop(family: str) -> None:
    model = with_frequent_ends(small_model(family))
    rows = 12
    session = Session(model, members=[0] * rows, noise=None)
    history = blocks_of_uneven_length(rows, seed=1)
    history[3] = list(history[2])  # rows that share a prompt share its prefill
    blocks = [list(ids) for ids in history]
    alive = list(range(rows))
    lengths = set()
    for turn in range(3):
        completions = greedy(session, alive, [blocks[row] for row in alive], last_turn=turn == 2)
        replies = blocks_of_uneven_length(rows, seed=10 + turn)
        for row, completion in zip(alive, completions, strict=True):
            expected, _ = slow_greedy(model.network, history[row], LIMIT, model.end_ids)
            assert completion.ids == expected, (turn, row)
            assert completion.ended == (expected[-1] in model.end_ids)
            lengths.add(len(expected))
            history[row] += expected + replies[row]
            blocks[row] = [expected[-1], *replies[row]]
        alive = [row for row in alive if (row + turn) % 3]  # some episodes end
    assert len(lengths) > 1, "the test wants completions of different lengths"


def test_logprobs_are_those_of_the_tokens_written() -> None:
    model = with_frequent_ends(small_model("llama"))
    prompts = blocks_of_uneven_length(6, seed=2)
    session = Session(model, members=[0] * 6, noise=None)
    uniforms = torch.rand(6, LIMIT, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    completions = session.complete(
        range(6),
        prompts,
        max_new_tokens=LIMIT,
        temperature=0.7,
        uniform_NT=uniforms,
        logprobs=True,
        last_turn=True,
    )
    for row, completion in enumerate(completions):
        ids = torch.tensor([prompts[row] + completion.ids])
        with torch.no_grad():
            logits_TV = model.network(input_ids=ids).logits[0, len(prompts[row]) - 1 : -1]
        logprob_TV = (logits_TV / 0.7).log_softmax(-1)
        expected = logprob_TV[torch.arange(len(completion.ids)), completion.ids]
        torch.testing.assert_close(torch.tensor(completion.logprobs).double(), expected, atol=1e-5, rtol=0)
        for t, token in enumerate(completion.ids):  # the inverse of the cumulative distribution at the row's uniform
            cdf = logprob_TV[t].exp().cumsum(0)
            assert cdf[token] > uniforms[row, t] - 1e-6
            assert token == 0 or cdf[token - 1] <= uniforms[row, t] + 1e-6


def test_operations_count_every_computed_position_once() -> None:
    model = small_model("llama")
    model.chat.end_ids = frozenset({VOID})
    session = Session(model, members=[0, 0], noise=None)
    greedy(session, [0, 1], [[5, 6, 7], [8, 9, 10]], last_turn=True)
    positions = 2 * 3 + 2 * (LIMIT - 1)  # the last token written is never read
    flops = ForwardFlops(model.network)
    assert session.flops == 2.0 * (flops.trunk * positions + flops.head * 2 * LIMIT)  # the head reads no prompt


VOID = -1
