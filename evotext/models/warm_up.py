"""Supervised learning on demonstrations: cross-entropy on what the policy should write.

Turns a freshly initialised network into one that knows its tasks' formats. Fixed steps, not seconds, so that the same
configuration gives the same weights on the same machine.

Matrices between layers are trained by Muon (Jordan et al. 2024), embeddings and norms by AdamW: on these tasks it reaches
in 100 steps the loss that AdamW alone reaches in 200, which is what makes a warm-up of a minute possible.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

import torch
from torch import Tensor
from transformers import PreTrainedModel

from evotext.models.chat import ChatFormat, Conversation

# A short ramp keeps Adam's first, badly scaled steps small; then the rate falls linearly to zero.
RAMP_STEPS = 30
# AdamW's learning rate as a share of Muon's.
ADAMW_SHARE = 0.3
# Batches are cut from a window of demonstrations sorted by length: hardly any padding is computed.
WINDOW_BATCHES = 16


def warm_up(
    network: PreTrainedModel,
    chat: ChatFormat,
    conversations: Iterable[Conversation],
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    on_step: Callable[[int, float], None],
) -> None:
    """Train the network in place; `on_step` gets the number of steps done and the loss of the last one."""
    generator = torch.Generator().manual_seed(seed)
    embedding = network.get_input_embeddings().weight
    hidden = [p for p in network.parameters() if p.ndim == 2 and p is not embedding]
    others = [p for p in network.parameters() if p.ndim != 2 or p is embedding]
    optimizers = (
        torch.optim.Muon(hidden, lr=learning_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=ADAMW_SHARE * learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    )
    network.train()
    batches = _batches(chat, iter(conversations), batch_size, generator)
    for step, (ids_BT, answer_BT) in enumerate(islice(batches, steps)):
        factor = min(1.0, (step + 1) / RAMP_STEPS) * (1.0 - step / steps)
        logits_BTV = network(input_ids=ids_BT[:, :-1]).logits
        target = torch.where(answer_BT, ids_BT, -100)[:, 1:]
        loss = torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), target.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        for optimizer, full_rate in zip(optimizers, (learning_rate, ADAMW_SHARE * learning_rate), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = full_rate * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        on_step(step + 1, float(loss.detach()))
    network.eval()


def _batches(
    chat: ChatFormat, conversations: Iterator[Conversation], batch_size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield right-padded ids and a mask of the answers, (B, T) each; conversations of like length together."""
    while window := list(islice(conversations, WINDOW_BATCHES * batch_size)):
        encoded = sorted((chat.conversation(conversation) for conversation in window), key=lambda pair: len(pair[0]))
        starts = torch.arange(0, len(encoded), batch_size)
        for start in starts[torch.randperm(len(starts), generator=generator)].tolist():
            rows = encoded[start : start + batch_size]
            width = len(rows[-1][0])
            yield (
                torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in rows]),
                torch.tensor([mask + [False] * (width - len(mask)) for _, mask in rows]),
            )
