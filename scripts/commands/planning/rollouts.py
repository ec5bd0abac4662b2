"""Bytes that a batch of episodes needs: cache, a population's noise, one layer's activations, logits.

Symbols: O outputs, I inputs of a matrix.
"""

from .shape import Shape
from .work import Noise, Rollouts, Work

FLOAT = 4


def rollout_bytes(shape: Shape, work: Work) -> dict[str, int]:
    """Return what a batch of rollouts has besides: cache, noise, one layer's activations, logits."""
    rollouts = work.rollouts
    own = -(-rollouts.rows // work.shares)
    batch = min(own, rollouts.at_once)
    cache = cache_bytes(shape, rollouts, batch, work.element)
    if rollouts.leaving:
        cache += cache * 3 // 4  # the rest moves when a quarter or more has left: evotext/rollouts/session.py
    read = min(batch, rollouts.distinct or batch) * rollouts.prompt
    perturbed = work.noise is not None and work.family == "es"
    return {
        "decoding cache": cache,
        "noise": noise_bytes(shape, work, batch) if perturbed and work.noise is not None else 0,
        "activations": max(read, batch) * forward_bytes(shape, work.element),
        "logits": batch
        * max(shape.vocabulary * logit_bytes(work.element, rollouts.sampled), joined_bytes(shape, work)),
    }


def cache_bytes(shape: Shape, rollouts: Rollouts, rows: int, element: int) -> int:
    """Keys and values of every layer and token."""
    return 2 * shape.layers * shape.keys * rows * rollouts.conversation * element


def forward_bytes(shape: Shape, element: int) -> int:
    """Return a token's activations in one layer without gradients.

    Embedding, residual, what the norm gave and its output, and in the feed-forward part three times its width (gate, its
    activation, up) or in attention queries, keys and values before and after rotation.
    """
    widest = max(3 * shape.inner, 4 * shape.queries + 4 * shape.keys)
    return element * (4 * shape.hidden + widest)


def logit_bytes(element: int, sampled: bool) -> int:
    """Return what one row has for each token of the vocabulary.

    Logits, their float32 copy where they are narrow, and to draw from them probabilities and the terms of their sum
    (evotext/rollouts/sampling.py).
    """
    return element + (FLOAT if element < FLOAT else 0) + (2 * FLOAT if sampled else 0)


def joined_bytes(shape: Shape, work: Work) -> int:
    """Return what one row has while a group joins its logits: the own part, a copy to send, all parts, and the whole."""
    own = -(-shape.vocabulary // work.tensor)
    return work.element * (2 * own + 2 * shape.vocabulary) if work.tensor > 1 else 0


def noise_bytes(shape: Shape, work: Work, rows: int) -> int:
    """Return a population's noise while a batch with these rows runs.

    low rank: the factors of all draws, and for the members of the batch their signed A, and B unless it is a view of the draws'
    (optimizers/perturbations/low_rank.py). full rank: the weights' size for each draw of the batch.
    """
    noise = work.noise
    assert noise is not None
    per_member = max(1, work.rollouts.rows // noise.members)
    batch = min(noise.members, max(1, rows // per_member))
    draws = -(-batch // 2) if noise.antithetic else batch
    vectors = sum(shape.vectors) if noise.vectors else 0
    tables = (*shape.embeddings, *shape.matrices)
    if work.adapter_rank:
        tables = tuple(pair for o, i in shape.matrices for pair in ((o, work.adapter_rank), (work.adapter_rank, i)))
        vectors = 0
    if noise.kind == "full_rank":
        return draws * (sum(o * i for o, i in tables) + vectors) * work.element
    if noise.kind == "guided":
        tables = guided_tables(shape, noise)
    kept = noise.draws * (noise.rank * sum(o + i for o, i in tables) + vectors)
    # Layers that read one input get their B one below another, a copy of it; of embeddings B stays a view.
    members = batch * (noise.rank * sum(o for o, _ in tables) + vectors) + draws * noise.rank * sum(
        i for _, i in tables
    )
    return (kept + members) * work.element


def guided_tables(shape: Shape, noise: Noise) -> tuple[tuple[int, int], ...]:
    """(O, I) in the small space of guided noise."""
    layers = ((o, min(noise.directions, i)) for o, i in shape.matrices)
    return (*((min(noise.tokens, v), d) for v, d in shape.embeddings), *layers)
