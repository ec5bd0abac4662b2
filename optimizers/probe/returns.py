"""A sweep of sigma: members' returns, and the instances that cannot tell members apart.

Members of a small population, in mirrored pairs, answer the same instances, as EGGROLL has it. A pair's half difference of
returns d_nq on instance q is the slope along its noise and chance. The part that is the same on every instance is the slope of
the mean return, and nothing else can add up in a step. Its variance v is the mean product d_nq d_nq' over pairs and over
instances q != q': chance has none of it. With V the variance of the pairs' mean differences, over N pairs,

    signal's share of the fitness variance   v / V                        (Cronbach's alpha)
    gain of one generation, to first order   step / sigma x sqrt(N) v / sqrt(V)

The second is the breeder's equation, response = heritability x selection differential. In d dimensions sqrt(v) / sigma is the
gradient's length, sqrt(N v / (V d)) the estimate's cosine with it, and step x sqrt(d) the length of a step that moves each
weight by `step`, as Adam's does. Where returns are more than success or none, v is the covariance of a pair's slope in return,
which it is chosen by, with that in success, which is forecast.

Shapes: P members, N pairs, Q instances.
"""

from dataclasses import dataclass

from torch import Tensor

from evotext.keys.instances import validation_instances
from evotext.noise import NoiseKey, Perturbation
from evotext.rollouts.collector import Collector
from evotext.types import Sampling

from ..perturbed import PerturbedNetwork
from ..population import population_plan


@dataclass(frozen=True, kw_only=True)
class SigmaFigures:
    """A population at one sigma."""

    sigma: float
    """Scale of the perturbation."""
    success: float
    """Mean success of the members."""
    better: float
    """Share of members that earn more than the start on the same instances."""
    dead: float
    """Share of instances on which every member gets the same return, below what the task can pay."""
    solved: float
    """Share of instances that every member solves."""
    signal: float
    """Share of the variance of pairs' differences that is not chance."""
    gain: float
    """To first order, the rise of success by one step along this population's estimate."""
    error: float
    """Standard error of the gain, over pairs."""


@dataclass(frozen=True, kw_only=True)
class Signal:
    """The slope in pairs' differences."""

    share: float
    """Share of their variance that is not chance, 0 to 1; 0 where all are alike."""
    response: float
    """sqrt(N) v / sqrt(V): the rise of success by a step as long as a member's perturbation. Negative by chance alone."""
    error: float
    """Standard error of the response, over pairs."""


def signal_of(return_NQ: Tensor, success_NQ: Tensor) -> Signal:
    """Return what pairs' half differences of returns and of successes tell, on at least two instances.

    The order within a pair has no meaning.
    """
    d_NQ, e_NQ, instances = return_NQ.double(), success_NQ.double(), return_NQ.shape[1]
    variance = float(d_NQ.mean(1).square().mean())
    if variance == 0.0:
        return Signal(share=0.0, response=0.0, error=0.0)

    def common(other_NQ: Tensor) -> Tensor:
        products_N = d_NQ.sum(1) * other_NQ.sum(1) - (d_NQ * other_NQ).sum(1)
        return products_N / (instances * (instances - 1))

    pairs, success_N = len(d_NQ), common(e_NQ)
    return Signal(
        share=max(0.0, float(common(d_NQ).mean()) / variance),
        response=(pairs / variance) ** 0.5 * float(success_N.mean()),
        error=float(success_N.std()) / variance**0.5,
    )


def sweep(
    collector: Collector,
    network: PerturbedNetwork,
    perturbation: Perturbation,
    *,
    sigmas: list[float],
    members: int,
    instances: int,
    step: float,
    seed: int,
) -> list[SigmaFigures]:
    """Run greedy episodes of every member on the same validation instances, for each sigma in turn.

    members: an even number. step: what a generation's step moves each weight by.
    """
    chosen = validation_instances(instances)

    def earned(sigma: float, count: int) -> tuple[Tensor, Tensor]:
        key = NoiseKey(seed=seed, generation=0, population=count, antithetic=count > 1, sigma=sigma)
        noise = perturbation.draw(network, key)
        plan = population_plan(
            noise, chosen, population=count, seed=seed, generation=0, sampling=Sampling(temperature=0.0)
        )
        batch = collector.collect(plan)
        assert batch.success_B is not None, "the task of a probe knows success"
        return batch.return_B.view(count, -1), batch.success_B.view(count, -1)

    start_1Q, _ = earned(1e-12, 1)
    figures = []
    for sigma in sigmas:
        return_PQ, success_PQ = earned(sigma, members)
        alike_Q = (return_PQ == return_PQ[:1]).all(0)
        signal = signal_of(*((x_PQ[0::2] - x_PQ[1::2]) / 2 for x_PQ in (return_PQ, success_PQ.double())))
        figures.append(
            SigmaFigures(
                sigma=sigma,
                success=float(success_PQ.double().mean()),
                better=float((return_PQ.mean(1) > start_1Q.mean()).double().mean()),
                dead=float((alike_Q & ~success_PQ.all(0)).double().mean()),
                solved=float(success_PQ.all(0).double().mean()),
                signal=signal.share,
                gain=step / sigma * signal.response,
                error=step / sigma * signal.error,
            )
        )
    return figures
