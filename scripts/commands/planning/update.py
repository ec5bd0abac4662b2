"""Bytes that an update needs for a while: gradients, activations and logits of training, or a population's sums.

Symbols: O outputs, I inputs of a matrix.
"""

from evotext.baselines import policy
from evotext.optimization.master_weights import ROUNDED_AT_ONCE
from evotext.optimizers import ascent, perturbations, scoring

from .rollouts import FLOAT, forward_bytes, noise_bytes
from .shape import Shape
from .work import Work

# Three int64 or float64 numbers for each random one: stacked words, float64, scaled (evotext/keys/philox.py, `uniform`).
UNIFORM_BYTES = 3 * 8


def adapter_numbers(shape: Shape, rank: int) -> int:
    """Numbers of LoRA's two matrices beside each linear layer."""
    return rank * sum(o + i for o, i in shape.matrices)


def sampled_start(shape: Shape, work: Work) -> int:
    """Entries of each parameter at the start, that the drift is estimated from (optimizers/ascent.py)."""
    if work.adapter_rank:
        return FLOAT * adapter_numbers(shape, work.adapter_rank)
    return FLOAT * sum(-(-n // -(-n // ascent.SAMPLED)) for n in shape.tensors)


def update_bytes(shape: Shape, work: Work) -> dict[str, int]:
    """Return what an update has besides what stays."""
    if work.family == "gradient":
        return _by_gradients(shape, work)
    return _by_scores(shape, work) if work.family == "scored" else _by_returns(shape, work)


def saved_bytes(shape: Shape, element: int) -> int:
    """Return what one token leaves in one layer for the backward pass.

    Two norms: input in float32, normalised input, and output. Attention: rotated queries, keys, values and result, and a
    float32 number a head. Feed-forward: gate, its activation, up and their product.
    """
    norm = 3 * element if element == FLOAT else FLOAT + 2 * element
    attention = (2 * shape.queries + 2 * shape.keys) * element + shape.heads * FLOAT
    return 2 * norm * shape.hidden + attention + 4 * shape.inner * element


def trained_bytes(shape: Shape, work: Work, rows: int) -> tuple[int, int]:
    """Return activations and logits of a forward pass with gradients over so many rows, at the start of the backward pass.

    Rows of a group share their prompt (baselines/shared_opening.py): it is computed once, and each row's keys and values hold a
    copy of it.
    """
    rollouts = work.rollouts
    length, written = rollouts.conversation, min(rollouts.conversation, rollouts.turns * rollouts.answer)
    shares = 0 < rollouts.distinct < rollouts.rows and not work.checkpointing and not work.sharded
    prompts = -(-rollouts.distinct * rows // max(1, rollouts.rows)) if shares else rows
    positions = prompts * rollouts.prompt + rows * (length - rollouts.prompt)
    copies = 2 * shape.keys * work.element * rows * rollouts.prompt if shares else 0
    layer = positions * saved_bytes(shape, work.element) + copies
    if work.checkpointing:  # each layer's input, and one layer while it is computed again
        activations = shape.layers * positions * shape.hidden * work.element + layer
    else:
        activations = shape.layers * layer
    actions = rows * written
    # Final norm; the states of the actions, for the head, and in float32 for a critic.
    states = actions * shape.hidden * (2 * work.element + (FLOAT if work.critic else 0))
    numbers = min(actions * shape.vocabulary, policy.MAX_LOGITS)
    # Log-probabilities, the gradient that reaches them, and that of the logits, which are narrow besides where weights are.
    logits = numbers * (3 * FLOAT + (work.element if work.element < FLOAT else 0))
    return activations + states, logits


def _by_gradients(shape: Shape, work: Work) -> dict[str, int]:
    """Backward pass or step, whichever needs more: gradients come as activations go."""
    rows = min(work.micro_rows, -(-work.step_rows // work.devices))
    moved = adapter_numbers(shape, work.adapter_rank) or shape.parameters
    if work.own_critic:
        moved += shape.parameters
    gradients = FLOAT * moved
    activations, logits = trained_bytes(shape, work, rows)
    if work.own_critic:
        activations *= 2
    micro_batches = -(-work.step_rows // max(1, rows * work.devices))
    # Adam's own: of one parameter at a time the root of its second moments and the quotient; of all at once their roots.
    own = FLOAT * moved if work.fused else 2 * FLOAT * shape.largest
    stepping = own if work.moments else 0
    if micro_batches == 1 and activations + logits >= gradients + stepping:
        return {"gradients": 0, "activations": activations, "logits": logits}
    if activations + logits >= stepping:
        return {"gradients": gradients, "activations": activations, "logits": logits}
    return {"gradients": gradients, "step": stepping}


def _by_scores(shape: Shape, work: Work) -> dict[str, int]:
    assert work.noise is not None
    rollouts = work.rollouts
    rows = min(work.micro_rows, work.noise.members)
    positions = rows * rollouts.conversation
    numbers = min(
        rows * min(rollouts.conversation, rollouts.turns * rollouts.answer) * shape.vocabulary, scoring.MAX_LOGITS
    )
    numbers = max(numbers, rows * shape.vocabulary)
    passing = positions * forward_bytes(shape, work.element) + numbers * 2 * FLOAT
    noise = noise_bytes(shape, work, rows)
    if passing >= (stepping := _stepping(shape, work)):
        return {
            "noise": noise,
            "activations": positions * forward_bytes(shape, work.element),
            "logits": numbers * 2 * FLOAT,
        }
    return {"noise": noise, "step": stepping}


def _by_returns(shape: Shape, work: Work) -> dict[str, int]:
    noise = work.noise
    assert noise is not None
    batch = min(-(-work.rollouts.rows // work.shares), work.rollouts.at_once)
    stepping = _stepping(shape, work)
    if noise.kind == "full_rank":
        # Noise of some draws, cast where weights are narrow; the sums of both halves of the population, and what is added.
        some = (
            max(1, min(-(-noise.draws // 2), perturbations.members_in_progress.DRAW_NUMBERS // shape.largest))
            * shape.largest
        )
        narrow = work.element if work.element < FLOAT else 0
        drawn = (FLOAT + narrow) * some
        if work.tensor > 1:  # the whole of one draw, cut; and the parts of all, once more together
            whole = shape.largest * work.tensor
            drawn = max(
                (FLOAT + narrow) * whole + work.element * some, (FLOAT + narrow) * some, 2 * work.element * some
            )
        summing = max(drawn + 2 * FLOAT * shape.largest, FLOAT * some + 3 * FLOAT * shape.largest)
    else:  # two sums and the factors in float32, those of O once more with their weights
        table = max((*shape.embeddings, *shape.matrices), key=sum)
        summing = 2 * FLOAT * shape.largest + noise.draws * noise.rank * FLOAT * (2 * table[0] + table[1])
    return {"noise": noise_bytes(shape, work, batch), "step": max(summing, stepping)}


def _stepping(shape: Shape, work: Work) -> int:
    """Return what one parameter's step has (optimizers/ascent.py).

    Direction and weights before, the optimizer's two temporaries, or what rounding by chance needs.
    """
    largest = shape.largest
    if work.adapter_rank:
        largest = work.adapter_rank * max(max(pair) for pair in shape.matrices)
    step = (2 + (2 if work.moments else 0)) * FLOAT * largest
    if work.element < FLOAT and not work.masters:  # the float32 weights, their bits, masked bits, and random numbers
        # beside the direction and the weights before, which live as long
        rounding = 5 * FLOAT * largest + work.element * largest + min(largest, ROUNDED_AT_ONCE) * UNIFORM_BYTES
        step = max(step + FLOAT * largest, rounding)
    return step
