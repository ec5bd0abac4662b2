"""Whether a network runs in the rollout engine, tried once when it is loaded.

Two rows of unequal length go through it together, in the form in which the engine feeds them (`evotext.models.reading`),
and each must get the logits that it gets alone with its positions left to the network. Wrong without a word would be:
networks that read later tokens, that count positions from another number or by slots, that take no mask of ours, and
recurrent ones that keep their states somewhere else than in the cache.

Shapes: T tokens, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import LinearAttentionLayer

from evotext.models.reading import Reading

LONG, SHORT = (5, 3, 4, 7, 6), (4, 6, 3)


@torch.no_grad()
def check_runs(network: PreTrainedModel) -> None:
    """Raise ValueError, in one line, for a network that the rollout engine would not run rightly."""
    reading, name = Reading(network), type(network).__name__
    try:
        alone_TV, shorter_TV = (_logits(network, [ids]) for ids in (LONG, LONG[:-1]))
        if not _alike(alone_TV[0, : len(LONG) - 1], shorter_TV[0]):
            raise ValueError(
                f"expected a network that reads no later tokens, got {name}: if it was trained to generate, set "
                "is_decoder=true in its config.json"
            )
        expected = alone_TV[0, -1], _logits(network, [SHORT])[0, -1]
        found, cache = _together(network, reading)
    except (RuntimeError, TypeError, AttributeError, IndexError, KeyError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"expected a network that runs with a cache and a mask, got {name}: {said}") from error
    states = [layer for layer in cache.layers if isinstance(layer, LinearAttentionLayer)]
    if not all(any(layer.has_previous_state.values()) for layer in states):
        raise ValueError(
            f"expected a network that keeps its states in the cache, got {name}, which keeps them in its layers"
        )
    if not all(_alike(a, b) for a, b in zip(found, expected, strict=True)):
        reason = "counts positions along the cache" if reading.by_slot else "counts positions otherwise than from 0"
        raise ValueError(f"expected a network whose rows may have unequal length, got {name}, which {reason}")


def _logits(network: PreTrainedModel, rows: list[tuple[int, ...]]) -> Tensor:
    ids_BT = torch.tensor(rows, device=network.device)
    logits_BTV: Tensor = network(input_ids=ids_BT, use_cache=False).logits
    return logits_BTV


def _together(network: PreTrainedModel, reading: Reading) -> tuple[tuple[Tensor, Tensor], Any]:
    """Logits after both rows' last tokens, and the cache. All but the long row's last token first, then one step."""
    width, device = len(LONG), network.device
    missing = 0 if reading.recurrent else width - len(SHORT)  # recurrent layers read rows in step from their beginning
    ids_BT = torch.tensor([LONG, (0,) * missing + SHORT + LONG[: width - missing - len(SHORT)]], device=device)
    real_BT = torch.arange(width, device=device) >= torch.tensor([[0], [missing]], device=device)
    position_BT = (real_BT.cumsum(1) - 1).clamp(min=0)
    cache = DynamicCache(config=network.config.get_text_config())
    logits: list[Tensor] = []
    for start, end in ((0, width - 1), (width - 1, width)):
        how = reading.arguments(real_BT, position_BT[:, start:end], cache, start=start)
        logits.append(network(input_ids=ids_BT[:, start:end], **how).logits)
    together_BTV = torch.cat(logits, dim=1)
    return (together_BTV[0, -1], together_BTV[1, missing + len(SHORT) - 1]), cache


def _alike(a: Tensor, b: Tensor) -> bool:
    """Whether logits are equal but for rounding; parts of many networks compute in float32 whatever their weights are."""
    tolerance = max(torch.finfo(dtype).eps for dtype in (a.dtype, torch.float32)) ** 0.5
    return bool((a - b).abs().max() <= tolerance * b.abs().max())
