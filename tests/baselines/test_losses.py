"""Losses against hand-computed cases; estimators of the KL against the exact one."""

import pytest
import torch

from baselines.losses import clipped_surrogate, kl_divergence, token_weights, value_loss


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.0, 2.0, -2.0, -2.0),  # inside: plain policy gradient
        (1.5, 2.0, -2 * 1.3, 0.0),  # a good action that has grown enough: no more gradient
        (1.5, -2.0, 3.0, 2.0),  # a bad one that has grown: pulled back
        (0.5, -2.0, 2 * 0.8, 0.0),  # a bad one that has shrunk enough
        (0.5, 2.0, -1.0, -2.0),  # a good one that has shrunk: pushed up
        (9.0, -2.0, 6.0, 0.0),  # dual clip: a bad action's loss is at most 3 |A|
    ],
)
def test_clipped_surrogate_by_hand(ratio: float, advantage: float, loss: float, slope: float) -> None:
    rho = torch.tensor(ratio, dtype=torch.float64, requires_grad=True)
    got = clipped_surrogate(rho, torch.tensor(advantage, dtype=torch.float64), 0.2, 0.3, 3.0)
    assert got.item() == pytest.approx(loss)
    (gradient,) = torch.autograd.grad(got, rho)
    assert gradient.item() == pytest.approx(slope)


@pytest.mark.parametrize("bound", [0.8, 1.3])
@pytest.mark.parametrize("advantage", [2.0, -2.0])
def test_the_loss_has_no_jump_at_the_clips_edges(bound: float, advantage: float) -> None:
    """At a bound the clipped and the free loss are equal; on its far side one kind of action has no gradient, the other has."""
    slopes = []
    for off in (-1e-9, 0.0, 1e-9):
        rho = torch.tensor(bound + off, dtype=torch.float64, requires_grad=True)
        loss = clipped_surrogate(rho, torch.tensor(advantage, dtype=torch.float64), 0.2, 0.3, None)
        assert loss.item() == pytest.approx(-bound * advantage, abs=1e-8)
        slopes.append(torch.autograd.grad(loss, rho)[0].item())
    outside, inside = (slopes[0], slopes[2]) if bound < 1 else (slopes[2], slopes[0])
    assert inside == pytest.approx(-advantage)
    assert outside == pytest.approx(0.0 if (advantage > 0) == (bound > 1) else -advantage)


@pytest.mark.parametrize("ratio", [2.999, 3.0, 3.001])
def test_a_dual_clip_bounds_a_bad_actions_loss_and_leaves_a_good_ones(ratio: float) -> None:
    bad, good = (
        clipped_surrogate(torch.tensor(ratio), torch.tensor(advantage), 0.2, 5.0, 3.0) for advantage in (-2.0, 2.0)
    )
    assert bad.item() == pytest.approx(min(2 * ratio, 6.0)) and good.item() == pytest.approx(-2 * ratio)


def test_without_dual_clip_a_bad_action_is_unbounded() -> None:
    got = clipped_surrogate(torch.tensor(9.0), torch.tensor(-2.0), 0.2, 0.2, None)
    assert got.item() == pytest.approx(18.0)


def test_kl_estimators_by_hand() -> None:
    logprob, reference = torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.0])
    assert kl_divergence(logprob, reference, "k1").tolist() == pytest.approx([0.5, -1.0])
    assert kl_divergence(logprob, reference, "k2").tolist() == pytest.approx([0.125, 0.5])
    assert kl_divergence(logprob, reference, "k3").tolist() == pytest.approx([0.106531, 0.718282], abs=1e-5)


def test_k1_and_k3_have_the_exact_kl_as_their_mean() -> None:
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    q = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    exact = (p * (p / q).log()).sum()
    for estimator in ("k1", "k3"):
        mean = (p * kl_divergence(p.log(), q.log(), estimator)).sum()  # type: ignore[arg-type]
        torch.testing.assert_close(mean, exact)
    assert (kl_divergence(p.log(), q.log(), "k3") >= 0).all()


def test_the_gradients_of_the_estimators_in_a_loss() -> None:
    """Average the gradient over the policy's tokens at its own weights: k1 gives nothing, k2 the KL's, k3 the reverse KL's."""
    z = torch.tensor([0.5, -0.2, 0.1], dtype=torch.float64, requires_grad=True)
    logq = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64).log()
    p = z.softmax(0)
    (forward,) = torch.autograd.grad((p * (p.log() - logq)).sum(), z)
    (reverse,) = torch.autograd.grad((logq.exp() * (logq - z.log_softmax(0))).sum(), z)
    for estimator, expected in (("k1", torch.zeros(3, dtype=torch.float64)), ("k2", forward), ("k3", reverse)):
        mean = (p.detach() * kl_divergence(z.log_softmax(0), logq, estimator)).sum()  # type: ignore[arg-type]
        torch.testing.assert_close(torch.autograd.grad(mean, z)[0], expected)


def test_token_weights_by_hand() -> None:
    mask = torch.tensor([[True, True, True], [True, False, False], [False, False, False]])
    assert token_weights(mask, "token", rows=3, max_tokens=8)[mask].tolist() == [0.25] * 4
    by_sequence = token_weights(mask, "sequence", rows=3, max_tokens=8)
    torch.testing.assert_close(by_sequence.sum(1), torch.tensor([1 / 3, 1 / 3, 0], dtype=torch.float64))
    assert token_weights(mask, "constant", rows=3, max_tokens=8)[mask].tolist() == [1 / 24] * 4


def test_value_loss_takes_the_worse_of_clipped_and_unclipped() -> None:
    value, old, target = torch.tensor(2.0), torch.tensor(0.0), torch.tensor(2.0)
    assert value_loss(value, old, target, None).item() == 0.0
    assert value_loss(value, old, target, 0.5).item() == pytest.approx(0.5 * 1.5**2)
