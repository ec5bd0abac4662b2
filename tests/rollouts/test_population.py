"""A population that runs as one batch writes what each member's own network writes in a slow loop, in every family."""

import pytest
from families.reference import own_network, slow_greedy

from evotext.noise import NoiseKey
from evotext.rollouts.session import Session
from optimizers.perturbations import LowRank
from optimizers.perturbed import PerturbedNetwork
from tests.rollouts.chatter import with_frequent_ends
from tests.rollouts.test_session import LIMIT, blocks_of_uneven_length, greedy
from tests.small_models import CONFIGS, RECURRENT, small_model

POPULATION, ROWS_EACH, SIGMA, TURNS = 4, 3, 0.1, 3


@pytest.mark.parametrize("family", [*sorted(CONFIGS), *RECURRENT])
def test_three_turns_equal_each_members_own_network(family: str) -> None:
    """Prompts and replies of different length, rows that end early and rows that leave, members with unequal rows."""
    model = with_frequent_ends(small_model(family))
    perturbed = PerturbedNetwork(model.network)
    perturbation = LowRank(rank=1, vectors="full")
    noise = perturbation.draw(
        perturbed, NoiseKey(seed=0, generation=0, population=POPULATION, antithetic=True, sigma=SIGMA)
    )
    rows = POPULATION * ROWS_EACH
    members = [row // ROWS_EACH for row in range(rows)]
    session = Session(model, members=members, noise=noise)
    own = [own_network(perturbed, noise, m, population=POPULATION, sigma=SIGMA) for m in range(POPULATION)]
    history = blocks_of_uneven_length(rows, seed=1)
    blocks, alive, changed = [list(ids) for ids in history], list(range(rows)), 0
    for turn in range(TURNS):
        completions = greedy(session, alive, [blocks[row] for row in alive], last_turn=turn + 1 == TURNS)
        replies = blocks_of_uneven_length(rows, seed=10 + turn)
        for row, completion in zip(alive, completions, strict=True):
            expected, _ = slow_greedy(own[members[row]], history[row], LIMIT, model.end_ids)
            assert completion.ids == expected, (turn, row)
            changed += expected != slow_greedy(model.network, history[row], LIMIT, model.end_ids)[0]
            history[row] += expected + replies[row]
            blocks[row] = [expected[-1], *replies[row]]
        alive = [row for row in alive if (row + turn) % 3]
    assert changed > 0, "the noise is to make a difference"
