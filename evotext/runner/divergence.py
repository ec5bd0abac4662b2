"""The divergence of a policy from the one that it started as, measured on text and not on weights.

    KL(start || now) = E over the starting model's answers of  log p_start(token) - log p_now(token),  a mean over tokens

The starting model answers some held-out instances once, at temperature 1; a later model is asked for its log-probabilities
of those same tokens. Only these numbers of the starting model are kept, one a token. This direction shows how much of the
model's former text has become unlikely; a model that only says the same with more certainty has a small divergence.

With r = p_now / p_start each token counts r - 1 - log r, which is never negative and has the same mean (E_start r = 1).

Shapes: B rows, T tokens, V vocabulary, C rows computed at once.
"""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from evotext.keys.instances import held_out_instances
from evotext.models.flops import ForwardFlops
from evotext.rollouts.collector import Collector
from evotext.runner.faults import fault_counts
from evotext.types import Cost, RolloutPlan, Sampling

# Logits held at once: 2**24 numbers are 64 MiB in float32.
MAX_LOGITS = 1 << 24
EPISODES = 32


class StartingPolicy:
    """The collector's model before training. episodes: how many held-out ones it answers."""

    def __init__(self, collector: Collector, *, episodes: int = EPISODES) -> None:
        self._network = collector.model.network
        plan = RolloutPlan(
            seed=0,
            generation=0,
            instances=held_out_instances(episodes),
            groups=tuple(range(episodes)),
            sampling=Sampling(temperature=1.0),
            split="test",
        )
        batch = collector.collect(plan, collector.task.measured)
        device = collector.model.device
        self._tokens_BT, self._length_B = batch.tokens_BT.to(device), batch.length_B.to(device)
        self._written_BT = batch.policy_mask_BT.to(device)
        self.cost = batch.cost
        """The cost of the answers."""
        self.faults, self.fault_examples = fault_counts(batch), batch.faults
        self._logprob_BT = self._score(self._network)
        self.cost += Cost(flops=self._flops)

    def divergence(self, network: PreTrainedModel | None = None) -> tuple[float, Cost]:
        """Return KL(start || now) in nats a token, and its cost; 0 if the starting model wrote nothing.

        network: the later model; None: the collector's, as it is now.
        """
        log_ratio_BT = (self._score(network or self._network) - self._logprob_BT)[self._written_BT].cpu().double()
        value = float((log_ratio_BT.expm1() - log_ratio_BT).mean()) if log_ratio_BT.numel() else 0.0
        return value, Cost(flops=self._flops)

    @property
    def _flops(self) -> float:
        positions = self._tokens_BT.numel()
        return ForwardFlops(self._network)(positions=positions, predicted=positions)

    @torch.inference_mode()
    def _score(self, network: PreTrainedModel) -> Tensor:
        """Return the log-probability of every token after the first, given those before it (float32), 0 for the first."""
        B, T = self._tokens_BT.shape
        rows = max(1, MAX_LOGITS // (T * network.config.get_text_config().vocab_size))
        parts = []
        for first in range(0, B, rows):
            tokens_CT = self._tokens_BT[first : first + rows]
            real_CT = torch.arange(T, device=tokens_CT.device) < self._length_B[first : first + rows, None]
            logits_CTV = network(input_ids=tokens_CT, attention_mask=real_CT.long(), use_cache=False).logits
            logprob_CTV = logits_CTV[:, :-1].float().log_softmax(-1)
            chosen_CT = logprob_CTV.gather(-1, tokens_CT[:, 1:, None])[..., 0]
            parts.append(torch.nn.functional.pad(chosen_CT, (1, 0)))
        return torch.cat(parts)
