"""top-p and min-p against a slow reference: which tokens are drawn, how often, and where both are refused."""

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from evotext.rollouts.sampling import BLOCK, choose_tokens, greatest, truncated
from evotext.runner.evaluation import Evaluator
from evotext.types import Sampling
from tests.rollouts.chatter import chatter, collect, plan, with_frequent_ends
from tests.small_models import small_model


def kept(logits: list[float], temperature: float, top_p: float, min_p: float) -> dict[int, float]:
    """The distribution that is drawn from, token by token, by the definitions; float64."""
    weights = torch.tensor(logits, dtype=torch.float64).div(temperature).exp().tolist()
    greatest = max(weights)
    left = {token: weight for token, weight in enumerate(weights) if weight >= min_p * greatest}
    total, found, reached = sum(left.values()), {}, 0.0
    for token in sorted(left, key=lambda token: (-left[token], token)):
        if reached >= top_p:
            break
        found[token] = left[token]
        reached += left[token] / total
    return {token: weight / sum(found.values()) for token, weight in found.items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocabulary", [1, 17, BLOCK, BLOCK + 1, 3 * BLOCK - 1])
def test_the_greatest_score_is_found_wherever_it_stands(vocabulary: int, dtype: torch.dtype) -> None:
    """In every place of every block and behind the last whole one; the first of equal ones, and minus infinity all along."""
    scores_BV = torch.randn(vocabulary, vocabulary, generator=torch.Generator().manual_seed(0)).to(dtype)
    raised_BV = scores_BV + 100 * torch.eye(vocabulary, dtype=dtype)
    assert torch.equal(greatest(raised_BV), torch.arange(vocabulary))
    first = [row.index(max(row)) for row in scores_BV.tolist()]  # bfloat16 has many ties
    assert greatest(scores_BV).tolist() == first
    assert greatest(torch.full((2, vocabulary), -torch.inf, dtype=dtype)).tolist() == [0, 0]


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.5])
@pytest.mark.parametrize(
    ("top_p", "min_p"), [(1.0, 0.0), (0.5, 0.0), (0.9, 0.0), (1.0, 0.1), (0.8, 0.05), (1e-6, 0.0), (1.0, 0.999)]
)
def test_tokens_and_their_probabilities_are_those_of_the_definitions(
    temperature: float, top_p: float, min_p: float
) -> None:
    logits_BV = torch.randn(40, 17, generator=torch.Generator().manual_seed(0)) * 2
    scores_BV = truncated(logits_BV.double() / temperature, top_p, min_p)
    for logits, probability_V in zip(logits_BV.tolist(), scores_BV.softmax(-1), strict=True):
        expected = kept(logits, temperature, top_p, min_p)
        assert set(probability_V.nonzero()[:, 0].tolist()) == set(expected)
        torch.testing.assert_close(probability_V[list(expected)], torch.tensor(list(expected.values())).double())


def test_every_uniform_number_draws_a_token_that_is_kept_with_its_probability() -> None:
    logits = [0.0, 2.0, 1.0, -1.0, 1.5]
    expected = kept(logits, 0.8, 0.85, 0.0)
    uniform_B = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    logits_BV = torch.tensor(logits).expand(len(uniform_B), -1)
    token_B, logprob_B = choose_tokens(logits_BV, uniform_B, 0.8, True, top_p=0.85)
    share_V = token_B.bincount(minlength=len(logits)) / len(token_B)
    for token in range(len(logits)):
        assert float(share_V[token]) == pytest.approx(expected.get(token, 0.0), abs=2e-4)
    assert logprob_B is not None
    torch.testing.assert_close(
        logprob_B.exp(), torch.tensor([expected[int(token)] for token in token_B]), check_dtype=False
    )


def test_the_most_probable_token_is_always_kept() -> None:
    equal_BV = torch.zeros(2, 5)
    assert (truncated(equal_BV, 1e-9, 0.0).isfinite().sum(-1) == 1).all()
    assert (truncated(equal_BV, 1.0, 0.999).isfinite().sum(-1) == 5).all(), "equals are as probable as the greatest"


def test_rollouts_are_truncated_and_nothing_else_changes() -> None:
    model = with_frequent_ends(small_model("llama"))
    asked = replace(plan(), logprobs=False)
    plain = collect(model, chatter(), asked)
    same = collect(model, chatter(), replace(asked, sampling=Sampling(temperature=1.0, top_p=1.0, min_p=0.0)))
    assert torch.equal(plain.tokens_BT, same.tokens_BT)
    greedy = collect(model, chatter(), replace(asked, sampling=Sampling(temperature=0.0)))
    for sampling in (Sampling(temperature=1.0, top_p=1e-6), Sampling(temperature=1.0, min_p=0.9999)):
        narrow = collect(model, chatter(), replace(asked, sampling=sampling))
        assert torch.equal(narrow.tokens_BT, greedy.tokens_BT), "one token is left: the most probable"
    assert not torch.equal(plain.return_B, greedy.return_B)


@pytest.mark.parametrize(
    ("wrong", "message"), [({"top_p": 0.9}, "top_p: expected 1 "), ({"min_p": 0.1}, "min_p: expected 0 ")]
)
def test_greedy_decoding_truncates_nothing(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message + "with temperature=0"):
        Sampling(temperature=0.0, **wrong)
    with pytest.raises(ValueError, match=message):
        Evaluator(episodes=1, points=1, temperature=0.0, samples=0, **wrong)


@pytest.mark.parametrize("wrong", [{"top_p": 0.0}, {"top_p": 1.1}, {"min_p": -0.1}, {"min_p": 1.0}])
def test_values_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Evaluator(episodes=1, points=1, temperature=1.0, samples=0, **wrong)


def test_decoding_is_told_whole() -> None:
    evaluator = Evaluator(episodes=1, points=1, temperature=0.7, samples=0, top_p=0.9, min_p=0.05)
    assert evaluator.decoding == "temperature 0.7, top-p 0.9, min-p 0.05"


def test_a_trainer_gets_no_log_probabilities_of_a_truncated_sampler() -> None:
    with pytest.raises(AssertionError, match="not truncated"):
        replace(plan(), logprobs=True, sampling=Sampling(temperature=1.0, top_p=0.9))
