"""Scores under a population's noise against each member's own network, one unpadded row at a time, in float64."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from families.reference import own_network
from torch import Tensor

from evotext.models.flops import ForwardFlops
from evotext.noise import NoiseKey
from evotext.policy.actions import Actions, actions_of
from evotext.types import RolloutPlan, Sampling, Trajectories
from optimizers import scoring
from optimizers.perturbations import LowRank
from optimizers.perturbed import PerturbedNetwork
from optimizers.scoring import Scoring
from tests.optimizers.scored_episodes import made_up
from tests.small_models import small_network

MEMBERS, SIGMA, TEMPERATURE = 6, 0.05, 0.7


def episodes(rows: int = 5) -> Trajectories:
    groups = tuple(range(rows))
    return made_up(
        RolloutPlan(seed=0, generation=0, instances=groups, groups=groups, sampling=Sampling(temperature=1.0))
    )


def slow(network: Any, batch: Trajectories, row: int) -> Tensor:
    """Log-probabilities of one row's policy tokens, alone and unpadded."""
    length = int(batch.length_B[row])
    ids_T = batch.tokens_BT[row, :length]
    logprob_TV = (network(input_ids=ids_T[None]).logits[0] / TEMPERATURE).log_softmax(-1)
    places = batch.policy_mask_BT[row].nonzero()[:, 0]
    return logprob_TV[places - 1, ids_T[places]]


def scores(scored: Scoring, actions: Actions, row_PK: Tensor, **population: Any) -> Tensor:
    found = torch.zeros(*row_PK.shape, actions.mask_BN.shape[1], dtype=torch.float64)
    for part in scored.score(actions, row_PK, temperature=TEMPERATURE, **population):
        for place, rows, logprob_KN in zip(part.place_P.tolist(), part.row_PK, part.logprob_PKN, strict=True):
            for row, logprob_N in zip(rows.tolist(), logprob_KN, strict=True):
                found[place, (row_PK[place] == row).nonzero()[:, 0], : len(logprob_N)] += logprob_N
    return found


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "mixtral", "jamba"])
@pytest.mark.parametrize("rows", [64, 4, 1])
@torch.no_grad()
def test_scores_are_those_of_each_members_own_network(family: str, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "MAX_LOGITS", 500)  # some actions at a time
    network = small_network(family)
    perturbed = PerturbedNetwork(network)
    key = NoiseKey(seed=1, generation=2, population=MEMBERS, antithetic=True, sigma=SIGMA)
    noise = LowRank(rank=2, vectors="full").draw(perturbed, key)
    batch = episodes()
    actions = actions_of(batch, network.device)
    row_PK = torch.tensor([[0, 1], [0, 1], [4, 2], [4, 2], [3, 0], [3, 0]])
    found = scores(Scoring(network, rows=rows), actions, row_PK, members=range(MEMBERS), noise=noise)
    for member in range(MEMBERS):
        own = own_network(perturbed, noise, member, population=MEMBERS, sigma=SIGMA)
        for k, row in enumerate(row_PK[member].tolist()):
            expected = slow(own, batch, row)
            torch.testing.assert_close(found[member, k, : len(expected)], expected, rtol=0, atol=1e-9)
            assert not found[member, k, len(expected) :].any()


@torch.no_grad()
def test_without_a_population_scores_are_the_networks() -> None:
    network, batch = small_network("llama"), episodes()
    found = scores(Scoring(network, rows=2), actions_of(batch, network.device), torch.arange(5)[:, None])
    for row in range(5):
        expected = slow(network, batch, row)
        torch.testing.assert_close(found[row, 0, : len(expected)], expected, rtol=0, atol=1e-9)


def test_a_network_whose_head_does_not_explain_its_logits_is_run_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    network, batch = small_network("llama"), episodes()
    actions, row_PK = actions_of(batch, network.device), torch.arange(5)[:, None]
    by_head = scores(Scoring(network, rows=8), actions, row_PK)
    monkeypatch.setattr(scoring, "head_explains_logits", lambda _: False)
    whole = Scoring(network, rows=8)
    assert not whole.by_head
    torch.testing.assert_close(scores(whole, actions, row_PK), by_head, rtol=0, atol=1e-9)


def test_operations_are_those_of_the_positions_that_were_run() -> None:
    network, batch = small_network("llama"), episodes()
    actions = actions_of(batch, network.device)
    scored, flops = Scoring(network, rows=64), ForwardFlops(network)
    row_PK = torch.tensor([[0], [1], [2]])
    for _ in scored.score(actions, row_PK, temperature=1.0):
        pass
    positions = 3 * int(actions.length_B[:3].max())
    predicted = 3 * int(actions.mask_BN[:3].sum(1).max())
    assert scored.spent() == flops(positions=positions, predicted=predicted)
    assert scored.spent() == 0.0


def test_where_the_memory_runs_out_batches_become_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    network, batch = small_network("llama"), episodes()
    actions, row_PK = actions_of(batch, network.device), torch.arange(5)[:, None].repeat(1, 3)
    expected = scores(Scoring(network, rows=64), actions, row_PK)
    whole, sizes = Scoring._by_head, list[int]()

    def fits_two(self: Scoring, some: Actions, temperature: float, how: Any) -> Tensor:
        sizes.append(some.rows)
        if some.rows > 2:
            raise MemoryError
        return whole(self, some, temperature, how)

    monkeypatch.setattr(Scoring, "_by_head", fits_two)
    scored = Scoring(network, rows=64)
    torch.testing.assert_close(scores(scored, actions, row_PK), expected, rtol=0, atol=1e-9)
    assert scored.fitting.now == 2 and max(sizes) == 15
    assert scored.take_notes() == ("out of memory: 2 rows are scored at once from here on (of 64)",)
    assert scored.take_notes() == ()


def test_processes_share_the_members(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes every second batch; the batches are those of one process."""
    network, batch = small_network("llama"), episodes()
    actions, row_PK = actions_of(batch, network.device), torch.arange(5)[:, None]
    seen: list[list[int]] = []
    for rank in (0, 1):

        def share(items: Any, rank: int = rank) -> Iterator[Any]:
            return iter(list(items)[rank::2])

        monkeypatch.setattr(scoring.collectives, "own_share", share)
        parts = Scoring(network, rows=2).score(actions, row_PK, temperature=1.0)
        seen.append([place for part in parts for place in part.place_P.tolist()])
    assert seen == [[0, 1, 4], [2, 3]]
