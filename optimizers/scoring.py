"""Teacher forcing under a population's noise: members' log-probabilities of answers that somebody else wrote.

Nothing is decoded and no gradient is kept. The log-probabilities are those of `baselines/policy.py`: of the policy's own
tokens, at the sampling temperature. Results depend on the members and rows alone, not on how they were split into batches
(but for rounding). Each of several processes scores its share.

Shapes: P members, K rows a member, B = P K rows of a batch, T tokens, N actions (a row's policy tokens, padded on the
right), M actions in a chunk, V vocabulary, D hidden size.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from evotext.distributed import collectives
from evotext.models.flops import ForwardFlops
from evotext.models.out_of_memory import FittingRows
from evotext.noise import ForwardNoise
from evotext.policy.actions import Actions
from evotext.policy.output_head import chosen, head_explains_logits, head_logits, log_probabilities

# Logits held at once: 2**22 numbers are 16 MiB in float32.
MAX_LOGITS = 1 << 22


@dataclass(frozen=True, kw_only=True)
class ScoredPart:
    """Some members' log-probabilities of their rows."""

    place_P: Tensor
    """Their places among the members that were asked for."""
    row_PK: Tensor
    """The rows that each scored."""
    logprob_PKN: Tensor
    """The log-probability of each action at the sampling temperature (float32 or wider); 0 where there is none."""


class Scoring:
    """Scores episodes with one network.

    rows: how many are scored in one batch; fewer from where the memory runs out.
    """

    def __init__(self, network: PreTrainedModel, *, rows: int) -> None:
        self.network, self.fitting = network, FittingRows(rows)
        self.by_head = head_explains_logits(network)
        """Whether only the actions' positions go through the output head."""
        self._forward_flops, self._flops = ForwardFlops(network), 0.0
        self._vocabulary = network.config.get_text_config().vocab_size

    def spent(self) -> float:
        """Return the floating-point operations of this process since the last call, padding included."""
        spent, self._flops = self._flops, 0.0
        return spent

    def take_notes(self) -> tuple[str, ...]:
        """Return a line for the user if batches have become smaller since the last call."""
        now, most = self.fitting.now, self.fitting.most
        line = f"out of memory: {now} rows are scored at once from here on (of {most})"
        return (line,) if self.fitting.shrunk() else ()

    def score(
        self,
        actions: Actions,
        row_PK: Tensor,
        *,
        temperature: float,
        members: Sequence[int] | None = None,
        noise: ForwardNoise | None = None,
    ) -> Iterator[ScoredPart]:
        """Yield this process's share of the batches; all together hold every member once with each of its rows.

        row_PK: rows of `actions` that each member scores. members: which member each row of row_PK is; None, and no
        noise: all are the network itself. temperature: positive.
        """
        assert (members is None) == (noise is None), "members and noise come together"
        places = torch.arange(len(row_PK))
        width = max(1, self.fitting.most // row_PK.shape[1])
        width -= width % 2 if width > 2 else 0  # pairs stay together, since both read one draw
        batch = partial(self._batch, actions, temperature, members, noise)
        for place_P in collectives.own_share(places.split(width)):
            yield from self._fitting(batch, row_PK, place_P)

    def unperturbed(self, actions: Actions, row_M: Tensor, *, temperature: float) -> Tensor:
        """Return the network's own log-probabilities of some rows' actions, (B, A), float64; 0 for other rows."""
        logprob_BA = torch.zeros(actions.mask_BN.shape, dtype=torch.float64)
        for part in self.score(actions, row_M[:, None], temperature=temperature):
            logprob_PA = part.logprob_PKN[:, 0].cpu().double()
            logprob_BA[part.row_PK[:, 0], : logprob_PA.shape[1]] = logprob_PA
        collectives.all_reduce([logprob_BA])
        return logprob_BA

    def _fitting(
        self, batch: Callable[[Tensor, Tensor], Tensor], row_PK: Tensor, place_P: Tensor
    ) -> Iterator[ScoredPart]:
        """Yield one batch, or several where the memory does not hold it or a member alone has too many rows."""
        some_PK = row_PK[place_P]
        if some_PK.numel() <= self.fitting.now:
            logprob_PKN = self.fitting.attempt(some_PK.numel(), partial(batch, some_PK, place_P), self.network.device)
            if logprob_PKN is not None:
                yield ScoredPart(place_P=place_P, row_PK=some_PK, logprob_PKN=logprob_PKN)
                return
        if len(place_P) > 1:
            for half_P in place_P.split((len(place_P) + 1) // 2):
                yield from self._fitting(batch, row_PK, half_P)
        else:
            for part_PK in row_PK.split((row_PK.shape[1] + 1) // 2, dim=1):
                yield from self._fitting(batch, part_PK, place_P)

    @torch.inference_mode()
    def _batch(
        self,
        actions: Actions,
        temperature: float,
        members: Sequence[int] | None,
        noise: ForwardNoise | None,
        row_PK: Tensor,
        place_P: Tensor,
    ) -> Tensor:
        some = actions.select(row_PK.flatten().to(actions.mask_BN.device))
        perturbed: AbstractContextManager[None] = nullcontext()
        if noise is not None and members is not None:
            perturbed = noise.active([members[place] for place in place_P.tolist()], row_PK.shape[1])
        with perturbed:
            return self.logprobs(some, temperature, noise=noise).view(*row_PK.shape, -1)

    def charge(self, *, positions: int, predicted: int, noise: ForwardNoise | None) -> None:
        """Count the operations of a pass. predicted: positions that go through the output head."""
        self._flops += self._forward_flops(positions=positions, predicted=predicted)
        if noise is not None:
            by_matrix = noise.flops_by_matrix
            self._flops += self._forward_flops.noise(by_matrix, positions=positions, predicted=predicted)

    def logprobs(self, some: Actions, temperature: float, *, noise: ForwardNoise | None = None, **how: Any) -> Tensor:
        """Run the network, as it is just now, on whole rows; return (B, N), 0 where there is no action.

        noise: what it is perturbed by, to be charged for. how: further arguments of its `forward`, as those of a cache.
        """
        positions = some.tokens_BT.numel()
        self.charge(positions=positions, predicted=some.mask_BN.numel() if self.by_head else positions, noise=noise)
        how = how or {"use_cache": False}
        logprob_BN = self._by_head(some, temperature, how) if self.by_head else self._by_logits(some, temperature, how)
        return torch.where(some.mask_BN, logprob_BN, torch.zeros_like(logprob_BN))

    def _by_head(self, some: Actions, temperature: float, how: Mapping[str, Any]) -> Tensor:
        """Score through the head. Causal attention never reads padding on the right, so no mask is needed."""
        hidden_BTD = self.network.base_model(input_ids=some.tokens_BT, **how).last_hidden_state
        token_BN = some.tokens_BT.gather(1, some.position_BN)
        before_BN = (some.position_BN - 1).clamp(min=0)
        rows_B1 = torch.arange(some.rows, device=before_BN.device)[:, None]
        at_once = max(1, MAX_LOGITS // (some.rows * self._vocabulary))
        parts = []
        for before_BM, token_BM in zip(before_BN.split(at_once, 1), token_BN.split(at_once, 1), strict=True):
            # Rows stay whole: a member's head is its own.
            logits_BMV = head_logits(self.network, hidden_BTD[rows_B1, before_BM])
            parts.append(chosen(log_probabilities(logits_BMV, temperature), token_BM))
        return torch.cat(parts, 1)

    def _by_logits(self, some: Actions, temperature: float, how: Mapping[str, Any]) -> Tensor:
        """Score by the network's own logits, for families that do more after their last hidden state than we know."""
        logits_BTV = self.network(input_ids=some.tokens_BT, **how).logits
        token_BN = some.tokens_BT.gather(1, some.position_BN)
        rows_B1 = torch.arange(some.rows, device=token_BN.device)[:, None]
        logits_BNV = logits_BTV[rows_B1, (some.position_BN - 1).clamp(min=0)]
        return chosen(log_probabilities(logits_BNV, temperature), token_BN)
