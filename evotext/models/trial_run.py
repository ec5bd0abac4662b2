"""Checks, when a network is loaded, that the rollout engine runs it correctly.

Two rows of unequal length go through it together, in the form in which the engine feeds them (`evotext.models.reading`),
and each must get the logits that it gets alone with its positions left to the network. Networks would be
silently wrong that read later tokens, count positions from another number or by slots, or take no mask of ours, and recurrent
ones that keep their states outside of the cache.

Shapes: B rows, T tokens, V vocabulary.
"""

import torch
from torch import Tensor
from transformers import Cache, DynamicCache, PreTrainedModel
from transformers.cache_utils import LinearAttentionLayer

from evotext.models.reading import Reading

LONG, SHORT = (5, 3, 4, 7, 6), (4, 6, 3)
# Tolerated rounding of logits, as a share of how far those of one token lie from those of another.
NARROW, WIDE = 0.25, 0.001


@torch.no_grad()
def check_runs(network: PreTrainedModel) -> None:
    """Raise ValueError, in one line, for a network that the rollout engine would not run correctly."""
    reading, name = Reading(network), type(network).__name__
    try:
        alone_TV, shorter_TV = (_logits(network, _ids(network, ids))[0] for ids in (LONG, LONG[:-1]))
        far = NARROW if network.dtype in (torch.bfloat16, torch.float16) else WIDE
        far *= float((alone_TV - alone_TV.mean(0)).norm()) / len(LONG) ** 0.5
        if not _alike(alone_TV[: len(LONG) - 1], shorter_TV, far):
            raise ValueError(
                f"expected a network that reads no later tokens, got {name}: if it was trained to generate, set "
                "is_decoder=true in its config.json"
            )
        cache, of_one = (DynamicCache(config=network.config.get_text_config()) for _ in range(2))
        long_V, short_V = _together(network, reading, cache)
        alone_1T = _ids(network, LONG)
        # In steps as well: where steps round otherwise than a whole prompt does, bfloat16 shows it.
        alone_1TV = _step_by_step(network, reading, alone_1T, torch.ones_like(alone_1T, dtype=torch.bool), of_one)
        short_alone_V = _logits(network, _ids(network, SHORT))[0, -1]
        fits = _alike(long_V, alone_1TV[0, -1], far) and _alike(short_V, short_alone_V, far)
    except (RuntimeError, TypeError, AttributeError, IndexError, KeyError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"expected a network that runs with a cache and a mask, got {name}: {said}") from error
    states = [layer for layer in cache.layers if isinstance(layer, LinearAttentionLayer)]
    if not all(any(layer.has_previous_state.values()) for layer in states):
        raise ValueError(
            f"expected a network that keeps its states in the cache, got {name}, which keeps them in its layers"
        )
    if not fits:
        reason = "counts positions along the cache" if reading.by_slot else "counts positions otherwise than from 0"
        raise ValueError(f"expected a network whose rows may have unequal length, got {name}, which {reason}")


def _ids(network: PreTrainedModel, ids: tuple[int, ...]) -> Tensor:
    return torch.tensor([ids], device=network.device)


def _logits(network: PreTrainedModel, ids_BT: Tensor) -> Tensor:
    logits_BTV: Tensor = network(input_ids=ids_BT, use_cache=False).logits
    return logits_BTV


def _step_by_step(network: PreTrainedModel, reading: Reading, ids_BT: Tensor, real_BT: Tensor, cache: Cache) -> Tensor:
    """Return logits (B, T, V) of rows fed as the engine feeds them: all tokens but the last first, then that one."""
    position_BT = (real_BT.cumsum(1) - 1).clamp(min=0)
    width, logits = ids_BT.shape[1], []
    for start, end in ((0, width - 1), (width - 1, width)):
        how = reading.arguments(real_BT, position_BT[:, start:end], cache, start=start)
        logits.append(network(input_ids=ids_BT[:, start:end], **how).logits)
    return torch.cat(logits, dim=1)


def _together(network: PreTrainedModel, reading: Reading, cache: Cache) -> tuple[Tensor, Tensor]:
    """Return logits (V) after the last tokens of the long row and of the short one."""
    width, device = len(LONG), network.device
    missing = 0 if reading.recurrent else width - 1 - len(SHORT)  # recurrent layers read rows from their beginning
    short = (0,) * missing + SHORT + LONG[: width - missing - len(SHORT)]
    real_BT = torch.arange(width, device=device) >= torch.tensor([[0], [missing]], device=device)
    both_BTV = _step_by_step(network, reading, torch.tensor([LONG, short], device=device), real_BT, cache)
    return both_BTV[0, -1], both_BTV[1, missing + len(SHORT) - 1]


def _alike(a: Tensor, b: Tensor, far: float) -> bool:
    """Return whether logits (..., V) are at most so far apart, on average over positions."""
    return float((a - b).norm()) / (a.numel() // a.shape[-1]) ** 0.5 <= far
