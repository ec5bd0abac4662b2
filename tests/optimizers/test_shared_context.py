"""Scores of single tokens in contexts that stay, against autograd with keys and values held fixed, in float64."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import shared_contexts
import torch
from torch import Tensor
from transformers import DynamicCache

from evotext.models.flops import ForwardFlops
from evotext.noise import NoiseKey
from evotext.policy.actions import Actions, actions_of
from evotext.types import RolloutPlan, Sampling
from optimizers import scoring, shared_context
from optimizers.perturbations import Local, LowRank
from optimizers.perturbed import PerturbedNetwork
from optimizers.scores import score_weights
from optimizers.scoring import Scoring
from optimizers.shared_context import SharedContext, Task, tokens_to_score
from tests.optimizers.scored_episodes import made_up
from tests.optimizers.test_scored_es import scored_es, weights, with_sampled_logprobs
from tests.small_models import small_model, small_network

TEMPERATURE, ROWS = 0.8, 5


def episodes(network: Any, rows: int = ROWS) -> Actions:
    """Episodes of two turns and uneven length, with log-probabilities between those of a policy and of a coin."""
    groups = tuple(range(rows))
    plan = RolloutPlan(seed=0, generation=0, instances=groups, groups=groups, sampling=Sampling(temperature=1.0))
    actions = actions_of(made_up(plan), network.device)
    generator = torch.Generator().manual_seed(3)
    old_BA = -3 * torch.rand(actions.mask_BN.shape, generator=generator, dtype=torch.float64)
    return replace(actions, old_logprob_BN=torch.where(actions.mask_BN, old_BA, 0.0))


def task(network: Any, actions: Actions, *, draws: int, antithetic: bool, sigma: float = 3e-4, **changes: Any) -> Task:
    population = draws * (2 if antithetic else 1)
    key = NoiseKey(seed=1, generation=2, population=population, antithetic=antithetic, sigma=sigma)
    advantage_B = torch.tensor([1.0, 0.0, -0.5, 2.0, 1.0], dtype=torch.float64)[: actions.rows]
    settings: dict[str, Any] = {
        "actions": actions,
        "advantage_BA": advantage_B[:, None] * actions.mask_BN,
        "key": key,
        "noise": LowRank(rank=1, vectors="full").draw(PerturbedNetwork(network), key),
        "per_draw": 3,
        "temperature": TEMPERATURE,
        "clip": None,
    }
    return Task(**settings | changes)


def logprob(network: Any, actions: Actions, row: int, action: int) -> Tensor:
    """Of one token, by a pass over the row alone and one over the position before it, which reads that pass's cache."""
    position = int(actions.position_BN[row, action])
    ids_T = actions.tokens_BT[row, :position]
    cache = DynamicCache()
    if position > 1:
        with torch.no_grad():
            network(input_ids=ids_T[None, :-1], past_key_values=cache, use_cache=True)
    logits_V = network(input_ids=ids_T[None, -1:], past_key_values=cache, use_cache=True).logits[0, -1]
    return (logits_V / TEMPERATURE).log_softmax(-1)[actions.tokens_BT[row, position]]


def gradient(network: Any, value: Tensor) -> Tensor:
    parts = torch.autograd.grad(value, list(network.parameters()), allow_unused=True)
    return torch.cat(
        [
            (torch.zeros_like(p) if part is None else part).flatten()
            for p, part in zip(network.parameters(), parts, strict=True)
        ]
    )


@pytest.mark.parametrize(
    ("family", "antithetic"),
    # One side alone of a mixture: a token that goes to another expert makes a step that no extrapolation takes out.
    [("llama", True), ("llama", False), ("gpt2", False), ("gemma2", True), ("mixtral", True)],
)
def test_a_draw_measures_the_slope_with_keys_and_values_held_fixed(family: str, antithetic: bool) -> None:
    network = small_network(family)
    actions = episodes(network)

    def measured(sigma: float) -> Tensor:
        asked = task(network, actions, draws=4, antithetic=antithetic, sigma=sigma)
        return SharedContext(Scoring(network, rows=7)).deltas(asked)

    asked = task(network, actions, draws=4, antithetic=antithetic)
    tokens = tokens_to_score(asked)
    # One-sided differences are wrong by as much as sigma, which their extrapolation to 0 leaves out.
    found_N = measured(3e-4) if antithetic else 2 * measured(3e-4) - measured(6e-4)
    layout = PerturbedNetwork(network).in_stored_layout
    for draw in range(4):
        one_P = torch.zeros(asked.key.population, dtype=torch.float64)
        one_P[draw * asked.key.members_per_draw] = 1.0
        units = dict(asked.noise.combine(one_P))  # type: ignore[attr-defined]
        unit = torch.cat([layout(name, units[name]).flatten() for name, _ in network.named_parameters()])
        objective = torch.zeros((), dtype=torch.float64)
        for x in (tokens.draw_X == draw).nonzero()[:, 0].tolist():
            row, action = int(tokens.row_X[x]), int(tokens.action_X[x])
            weight = tokens.weight_X[x] * asked.advantage_BA[row, action] / 3
            objective = objective + weight * logprob(network, asked.actions, row, action)
        assert float(found_N[draw]) == pytest.approx(float(gradient(network, objective) @ unit), rel=5e-3, abs=0.05)


@pytest.mark.parametrize(
    ("family", "tied"), [("llama", []), ("gemma2", ["model.embed_tokens.weight"]), ("gpt2", ["transformer.wte.weight"])]
)
def test_local_noise_lies_along_what_each_token_reads(family: str, tied: list[str]) -> None:
    """A draw's slope is that along the noise which the update combines; its rank in each linear layer is one."""
    network = small_network(family)
    perturbed = PerturbedNetwork(network, exclude=tied)

    def asked(sigma: float) -> Task:
        plain = task(network, actions, draws=5, antithetic=False, sigma=sigma, per_draw=1)
        return replace(plain, noise=Local().draw(perturbed, plain.key))

    actions = episodes(network)
    half, whole = asked(3e-4), asked(6e-4)
    context, tokens = SharedContext(Scoring(network, rows=2)), tokens_to_score(half)
    found_N = 2 * context.deltas(half) - context.deltas(whole)
    for draw in range(5):
        one_P = torch.nn.functional.one_hot(torch.tensor(draw), 5).double()
        units = {n: perturbed.in_stored_layout(n, unit) for n, unit in half.noise.combine(one_P)}  # type: ignore[attr-defined]
        row, action = int(tokens.row_X[draw]), int(tokens.action_X[draw])
        objective = tokens.weight_X[draw] * half.advantage_BA[row, action] * logprob(network, actions, row, action)
        parts = torch.autograd.grad(objective, list(network.parameters()), allow_unused=True)
        named = zip(dict(network.named_parameters()), parts, strict=True)
        slope = sum(float((part * units[name]).sum()) for name, part in named if part is not None and name in units)
        assert float(found_N[draw]) == pytest.approx(slope, rel=5e-3, abs=0.05)
        layer = next(unit for name, unit in units.items() if name.endswith(("o_proj.weight", "mlp.c_fc.weight")))
        assert int(torch.linalg.matrix_rank(layer)) == 1


def test_a_tied_head_has_other_numbers_than_the_rows_of_its_embedding() -> None:
    """Shared numbers would correlate the two uses, and each one's estimate would take in the other's slope."""
    network = PerturbedNetwork(small_network("gemma2"))
    key = NoiseKey(seed=1, generation=2, population=6, antithetic=False, sigma=1e-3)
    noise, name = Local().draw(network, key), "model.embed_tokens.weight"
    head_NV, row_ND = noise.drawn(name, torch.arange(6)), noise.drawn(name, torch.arange(6), rows=True)
    width = min(head_NV.shape[1], row_ND.shape[1])
    assert not (head_NV[:, None, :width] == row_ND[None, :, :width]).any()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_gradient_of_the_page_is_that_with_keys_and_values_held_fixed(family: str) -> None:
    network = small_network(family)
    actions = episodes(network)
    advantage_B = torch.tensor([1.0, 0.0, -0.5, 2.0, 1.0], dtype=torch.float64)
    fixed = shared_contexts.fixed_gradient(network, actions, advantage_B, TEMPERATURE)
    score = sum(
        advantage_B[row] * logprob(network, actions, int(row), int(action)) / ROWS
        for row, action in actions.mask_BN.nonzero()
    )
    found = torch.cat([fixed[name].flatten() for name, _ in network.named_parameters()])
    torch.testing.assert_close(
        found, gradient(network, score), rtol=1e-3, atol=1e-6
    )  # norms of some families compute in float32


def test_tokens_are_drawn_without_bias_and_by_the_size_of_their_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all shifts the mean of 1 / q_x is 1 for each token with an advantage; what is all but certain is drawn seldom."""
    network = small_network("llama")
    actions = episodes(network)
    asked = task(network, actions, draws=16, antithetic=False)
    total_BA, count_BA = torch.zeros(2, *actions.mask_BN.shape, dtype=torch.float64)
    shifts = 500
    for shift in range(shifts):
        monkeypatch.setattr(shared_context, "uniform", lambda *_, now=shift: torch.tensor([[now / shifts]]).double())
        tokens = tokens_to_score(asked)
        at = (tokens.row_X, tokens.action_X)
        total_BA.index_put_(at, tokens.weight_X / (shifts * 48), accumulate=True)
        count_BA.index_put_(at, torch.ones(48, dtype=torch.float64), accumulate=True)
        assert tokens.draw_X.bincount().tolist() == [3] * 16
    scored_BA = asked.advantage_BA != 0
    torch.testing.assert_close(total_BA, scored_BA.double(), rtol=0.03, atol=0)
    size_BA = asked.advantage_BA.abs() * (1 - actions.old_logprob_BN.exp()).clamp(min=0.01)
    torch.testing.assert_close(count_BA / (shifts * 48), size_BA / size_BA.sum(), rtol=0.03, atol=0)
    assert float(size_BA[scored_BA].max() / size_BA[scored_BA].min()) > 10


def test_from_the_second_step_on_the_ratio_weighs_and_clips() -> None:
    network = small_network("llama")
    actions = episodes(network)
    asked = task(network, actions, draws=6, antithetic=False, clip=(0.2, 0.2))
    present_BA = torch.zeros(actions.mask_BN.shape, dtype=torch.float64)
    with torch.no_grad():
        for row, action in actions.mask_BN.nonzero().tolist():
            present_BA[row, action] = logprob(network, actions, row, action)
    weighed_BA = score_weights(present_BA, actions.old_logprob_BN, asked.advantage_BA, 0.2, 0.2)
    assert 0 < int((weighed_BA != 0).sum()) < int((asked.advantage_BA != 0).sum())
    found_N = SharedContext(Scoring(network, rows=64)).deltas(asked)
    # The tokens are drawn by the advantages, and weighed by them and the ratio.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_context, "tokens_to_score", lambda _: tokens_to_score(asked))
        expected_N = SharedContext(Scoring(network, rows=64)).deltas(replace(asked, advantage_BA=weighed_BA, clip=None))
    torch.testing.assert_close(found_N, expected_N, rtol=0, atol=1e-9)


def test_batches_and_processes_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    network = small_network("llama")
    asked = task(network, episodes(network), draws=8, antithetic=False)
    expected_N = SharedContext(Scoring(network, rows=64)).deltas(asked)
    torch.testing.assert_close(SharedContext(Scoring(network, rows=1)).deltas(asked), expected_N, rtol=0, atol=1e-7)
    total_N = torch.zeros_like(expected_N)
    monkeypatch.setattr(shared_context, "EPISODES", 2)
    for rank in (0, 1):

        def share(items: Any, rank: int = rank) -> Iterator[Any]:
            return iter(list(items)[rank::2])

        monkeypatch.setattr(scoring.collectives, "own_share", share)
        part_N = SharedContext(Scoring(network, rows=64)).deltas(asked)
        assert part_N.any()
        total_N += part_N
    torch.testing.assert_close(total_N, expected_N, rtol=0, atol=1e-7)


def test_where_the_memory_runs_out_batches_become_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    network = small_network("llama")
    asked = task(network, episodes(network), draws=8, antithetic=False)
    expected_N = SharedContext(Scoring(network, rows=64)).deltas(asked)
    whole, sizes = SharedContext._logprobs, list[int]()

    def fits_three(self: SharedContext, *arguments: Any) -> Tensor:
        sizes.append(len(arguments[-1]))
        if sizes[-1] > 3:
            raise MemoryError
        return whole(self, *arguments)

    monkeypatch.setattr(SharedContext, "_logprobs", fits_three)
    scored = Scoring(network, rows=64)
    torch.testing.assert_close(SharedContext(scored).deltas(asked), expected_N, rtol=0, atol=1e-7)
    assert scored.fitting.now == 2 and max(sizes) > 3


def test_operations_are_those_of_the_contexts_and_of_a_position_a_token() -> None:
    network = small_network("llama")
    asked = task(network, episodes(network), draws=4, antithetic=False)
    scored, flops = Scoring(network, rows=64), ForwardFlops(network)
    SharedContext(scored).deltas(asked)
    row_M = tokens_to_score(asked).row_X.unique()
    some = asked.actions.select(row_M)
    expected = flops(positions=some.tokens_BT.numel(), predicted=some.mask_BN.numel())
    expected += flops(positions=12, predicted=12) + flops.noise(asked.noise.flops_by_matrix, positions=12, predicted=12)
    assert scored.spent() == pytest.approx(expected)


@pytest.mark.parametrize("noise", ["low_rank", "local"])
def test_the_step_is_the_estimate(noise: str) -> None:
    """In the learner: SGD of rate 1 moves along (1 / B) mean_n delta_n E_n, whose mean is the gradient with fixed contexts."""
    model = small_model()
    rate_1 = partial(torch.optim.SGD, lr=1.0)
    settings: dict[str, Any] = {
        "low_rank": {"scored_tokens": 4},
        "local": {"perturbation": Local(), "scored_tokens": 1},
    }[noise]
    learner = scored_es(context="shared", antithetic=False, optimizer=rate_1, **settings).start(model, 0)
    batch = with_sampled_logprobs(model, made_up(learner.ask(0), truncated=(1, 6)))
    actions, advantage_B = actions_of(batch, model.device), learner._advantages(batch)
    objective = torch.zeros((), dtype=torch.float64)
    for row, action in (actions.mask_BN & (advantage_B != 0)[:, None]).nonzero().tolist():
        objective = objective + advantage_B[row] * logprob(model.network, actions, row, action)
    expected, before, found = gradient(model.network, objective / actions.rows), weights(model), []
    for generation in range(60):
        report = learner.tell(replace(batch, plan=learner.ask(generation)))
        assert report.metrics["scored/steps"] == 1
        found.append(float((weights(model) - before) @ expected / expected.norm() ** 2))
        with torch.no_grad():
            torch.nn.utils.vector_to_parameters(before.clone(), model.network.parameters())
    share = torch.tensor(found, dtype=torch.float64)
    error = float(share.std() / len(share) ** 0.5)
    assert error < {"low_rank": 0.25, "local": 0.06}[noise]
    assert abs(float(share.mean()) - 1.0) < 4.5 * error


def test_local_noise_on_selected_matrices_moves_those_alone() -> None:
    model = small_model()
    learner = scored_es(context="shared", scored_tokens=1, perturbation=Local(), select=0.3).start(model, 0)
    before = {name: p.detach().clone() for name, p in model.network.named_parameters()}
    report = learner.tell(with_sampled_logprobs(model, made_up(learner.ask(0))))
    moved = {name: p.numel() for name, p in model.network.named_parameters() if not torch.equal(p, before[name])}
    assert 0 < sum(moved.values()) == report.metrics["dimensions"] < model.parameter_count
    assert report.cost.backward_flops > 0


def test_models_whose_layers_keep_states_are_refused() -> None:
    with pytest.raises(ValueError, match="context: expected perturbed with .*mamba.*, got shared"):
        SharedContext(Scoring(small_network("mamba"), rows=4))


def test_local_noise_wants_single_tokens() -> None:
    for changes in ({"context": "perturbed", "scored_tokens": 1}, {"context": "shared", "scored_tokens": 2}):
        with pytest.raises(
            ValueError, match="perturbation: expected low_rank, full_rank or guided unless .* got local"
        ):
            scored_es(perturbation=Local(), **changes)
