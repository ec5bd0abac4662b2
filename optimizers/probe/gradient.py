"""The distribution of the policy gradient's energy, and each estimator's distance from the gradient.

The episodes are the unperturbed policy's own; the gradient is theirs, by backward passes over a few rows at a time. An
estimator is drawn several times from the same episodes, so that its cosine comes with a standard error. Members with local
noise score one token each in contexts that all share, as scored ES does by default; with other noise an episode each.

Shapes: B episodes, A actions.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evotext.noise import ForwardNoise, NoiseKey, Perturbation
from evotext.policy.actions import Actions
from evotext.types import Trajectories

from ..guide import Guide
from ..perturbations import Local
from ..perturbed import PerturbedNetwork
from ..scores import deltas, episodes_to_score, member_weights
from ..scoring import Scoring
from ..selection import Energy, choose, energies_of, excluding
from ..shared_context import SharedContext, Task

# The policy's KL, in nats an episode, that gains are compared at; and episodes that it is measured on.
KL, KL_EPISODES = 0.1, 64
# Euclidean length of the first step that is tried, and the greatest KL that is taken for small.
LENGTH, SMALL_KL = 0.5, 0.1


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The accuracy of an estimator's pseudo-gradient."""

    name: str
    """The estimator's name."""
    cosine: float
    """Mean over draws of noise."""
    error: float
    """Standard error of the mean."""
    signal: float | None
    """Share of the variance of a member's delta that the gradient explains, from 0 to 1; not above 1 by more than noise.
    None with local noise, of which each member's has directions of its own."""
    dimensions: int
    """Dimensions of the space in which the noise is."""
    energy: float
    """Share of the gradient's energy that lies in it."""
    gain: float
    """To first order, how much a step along it that moves the policy by KL nats an episode raises the mean advantage-weighted
    log-probability, which is the rise of the mean return; 0 where the step could not be measured."""


def group_of(name: str) -> str:
    """Return the group that a parameter belongs to: the embedding, a layer's attention, a layer's MLP, ..."""
    layer = re.search(r"\.(\d+)\.(.+)", name)
    if layer is None:
        return "embedding" if re.search(r"emb|wte|wpe", name) else "head" if "head" in name else "other"
    inner = layer[2]
    kind = (
        "attention"
        if "attn" in inner or "attention" in inner
        else "mlp"
        if "mlp" in inner or "fc" in inner
        else "other"
    )
    return f"layer {int(layer[1])} {kind}"


def grouped(names: Iterable[str]) -> dict[str, list[str]]:
    """Return the names of each group."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(group_of(name), []).append(name)
    return groups


def by_group(energies: Mapping[str, Energy]) -> dict[str, Energy]:
    """Add up energies by group, the group of most energy first."""
    groups = {
        group: Energy(
            energy=sum(energies[name].energy for name in names),
            dimensions=sum(energies[name].dimensions for name in names),
        )
        for group, names in grouped(energies).items()
    }
    return dict(sorted(groups.items(), key=lambda item: -item[1].energy))


class Estimators:
    """Estimates by scores of one batch of episodes, compared with its gradient.

    gradient: of (1 / B) sum_j A_j l_j, as `optimizers.selection.policy_gradient` gives it. members: each scores an episode;
    tokens: members with local noise.
    """

    def __init__(
        self,
        scoring: Scoring,
        batch: Trajectories,
        actions: Actions,
        advantage_B: Tensor,
        gradient: Mapping[str, Tensor],
        *,
        temperature: float,
        members: int,
        tokens: int,
        sigma: float,
        draws: int,
        seed: int,
    ) -> None:
        self._scoring, self._batch, self._actions = scoring, batch, actions
        self._gradient, self._temperature = gradient, temperature
        self._members, self._tokens, self._sigma, self._draws, self._seed = members, tokens, sigma, draws, seed
        self._scored_M = (advantage_B != 0).nonzero()[:, 0]
        self._weight_BA = advantage_B[:, None] * actions.mask_BN.cpu()
        self._base_B = torch.zeros(actions.rows, dtype=torch.float64)
        for part in scoring.score(actions, self._scored_M[:, None], temperature=temperature):
            row_P, logprob_PA = part.row_PK[:, 0], part.logprob_PKN[:, 0].cpu().double()
            self._base_B[row_P] = (self._weight_BA[row_P][:, : logprob_PA.shape[1]] * logprob_PA).sum(1)
        self._square = sum(float(part.square().sum()) for part in gradient.values())

    def of(
        self, name: str, perturbation: Perturbation, *, exclude: Sequence[str], share: float | None = None
    ) -> Estimate:
        """Estimate with this noise. share: the part of the energy on whose densest matrices alone it is drawn."""
        guide = self._guide(perturbation, exclude)
        if share is not None:
            energies = energies_of(self._gradient, guide.network, perturbation, guide.basis)
            chosen = choose(energies, share)
            guide = self._guide(perturbation, [*exclude, *excluding(list(guide.network.parameters), chosen)])
        energies = energies_of(self._gradient, guide.network, perturbation, guide.basis)
        cosines, signals, gains = zip(*(self._draw(guide, draw) for draw in range(self._draws)), strict=True)
        cosine_D = torch.tensor(cosines, dtype=torch.float64)
        return Estimate(
            name=name,
            cosine=float(cosine_D.mean()),
            error=float(cosine_D.std() / len(cosine_D) ** 0.5) if len(cosine_D) > 1 else 0.0,
            signal=None if isinstance(perturbation, Local) else sum(signals) / len(signals),
            dimensions=sum(entry.dimensions for entry in energies.values()),
            energy=sum(entry.energy for entry in energies.values()) / self._square,
            gain=sum(gains) / len(gains),
        )

    def _guide(self, perturbation: Perturbation, exclude: Sequence[str]) -> Guide:
        guide = Guide(network=PerturbedNetwork(self._scoring.network, exclude=list(exclude)), perturbation=perturbation)
        guide.look(self._batch)
        return guide

    def exact(self) -> float:
        """Return the gain of a step along the gradient itself."""
        network = PerturbedNetwork(self._scoring.network)
        return self.gain(network, list(self._gradient.items()), self._square**0.5)

    def _draw(self, guide: Guide, draw: int) -> tuple[float, float, float]:
        """Draw noise; return the cosine, the energy that members see over the variance of their deltas, and the gain."""
        local = isinstance(guide.perturbation, Local)
        members = self._tokens if local else self._members
        key = NoiseKey(seed=self._seed, generation=draw, population=members, antithetic=False, sigma=self._sigma)
        noise = guide.draw(key)
        delta_N = self._by_token(key, noise) if local else self._by_episode(key, noise)
        weight_P, _ = member_weights(delta_N, key, None)
        directions = [(name, guide.network.in_stored_layout(name, whole)) for name, whole in noise.combine(weight_P)]
        dot = sum(float((whole * self._gradient[name]).sum()) for name, whole in directions)
        norm = sum(float(whole.square().sum()) for _, whole in directions) ** 0.5
        seen = energies_of(self._gradient, guide.network, guide.perturbation, guide.basis)
        # Deltas are of an episode's own A_j l_j; the gradient is a mean over all episodes, most of them with A_j = 0.
        scale = self._actions.rows / len(self._scored_M)
        signal = sum(entry.energy for entry in seen.values()) * scale**2 / max(float(delta_N.var()), 1e-300)
        return dot / (norm * self._square**0.5), signal, self.gain(guide.network, directions, dot / norm)

    def _by_token(self, key: NoiseKey, noise: ForwardNoise) -> Tensor:
        task = Task(
            actions=self._actions,
            advantage_BA=self._weight_BA,
            key=key,
            noise=noise,
            per_draw=1,
            temperature=self._temperature,
            clip=None,
        )
        return SharedContext(self._scoring).deltas(task)

    def _by_episode(self, key: NoiseKey, noise: ForwardNoise) -> Tensor:
        row_NK = episodes_to_score(self._scored_M, self._actions.length_B.cpu(), key, 1)
        return deltas(
            self._scoring,
            self._actions,
            self._weight_BA,
            row_NK,
            key,
            noise,
            temperature=self._temperature,
            base_B=self._base_B,
        )

    @torch.no_grad()
    def gain(self, network: PerturbedNetwork, directions: Sequence[tuple[str, Tensor]], slope: float) -> float:
        """Return the gain of a step along these directions, whose KL per length a small step measures. slope: per length."""
        weights = dict(network.network.named_parameters())
        before = {name: weights[name].detach().clone() for name, _ in directions}
        norm = sum(float(whole.square().sum()) for _, whole in directions) ** 0.5
        length, kl = LENGTH, 0.0
        for _ in range(5):
            for name, whole in directions:
                weights[name].copy_(before[name] + (length / norm) * whole.to(before[name].dtype))
            kl = self._divergence()
            if kl <= SMALL_KL:
                break
            length *= max(0.1, (SMALL_KL / kl) ** 0.5 / 2)
        for name, kept in before.items():
            weights[name].copy_(kept)
        return slope * length * (KL / kl) ** 0.5 if 0 < kl <= SMALL_KL else 0.0

    def _divergence(self) -> float:
        """Return the KL of the sampling policy from the present one, nats an episode (k3)."""
        count = min(KL_EPISODES, self._actions.rows)
        row_P = torch.arange(count) * self._actions.rows // count
        total = 0.0
        for part in self._scoring.score(self._actions, row_P[:, None], temperature=self._temperature):
            rows, logprob_PA = part.row_PK[:, 0], part.logprob_PKN[:, 0].cpu().double()
            width = logprob_PA.shape[1]
            old_PA = self._actions.old_logprob_BN.cpu()[rows, :width].double()
            d_PA = torch.where(self._actions.mask_BN.cpu()[rows, :width], logprob_PA - old_PA, 0.0)
            total += float((d_PA.exp() - d_PA - 1).sum())
        return total / count
