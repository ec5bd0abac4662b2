"""Bytes where a model is divided over processes (evotext/distributed/sharding.py): slices that stay, and what is gathered.

A layer is gathered into a buffer and copied out of it. What belongs to no layer, embeddings above all, is gathered for a whole
pass.
"""

from .rollouts import FLOAT
from .shape import Shape
from .update import adapter_numbers, trained_bytes
from .work import Work


def standing_shards(shape: Shape, work: Work) -> dict[str, int]:
    """Return what stays from one generation to the next; trained weights are float32, and their own masters."""
    trained = trained_numbers(shape, work)
    frozen = shape.parameters if work.adapter_rank else 0
    return {
        "weights": _share(trained * FLOAT + frozen * work.element, work),
        "copies of the start": _share(work.references * shape.parameters * work.element, work),
        "optimizer moments": _share(work.moments * FLOAT * trained, work),
    }


def gathered_for_rollouts(shape: Shape, work: Work) -> dict[str, int]:
    """Return whole weights while episodes run, in the network's own type."""
    layer, rest = layer_and_rest(shape, work)
    whole = (
        shape.layers * layer + rest + max(layer, rest) if work.sharded == "whole" else max(rest + 2 * layer, 2 * rest)
    )
    return {"gathered weights": whole * work.element}


def sharded_update(shape: Shape, work: Work) -> dict[str, int]:
    """Return what an update has besides: forward pass, backward pass or step, whichever needs most.

    In a backward pass a layer's weights, the buffer of the one before it, and its gradients, whole, and in float32 to be added
    up; of what belongs to no layer weights and gradients until the end, where its gradients are added up.
    """
    layer, rest = layer_and_rest(shape, work)
    rows = min(work.micro_rows, -(-work.step_rows // work.devices))
    gradients = _share(FLOAT * trained_numbers(shape, work), work)
    activations, logits = trained_bytes(shape, work, rows)
    if work.own_critic:
        activations *= 2
    gathered = (rest + 2 * layer) * work.element
    several = work.step_rows > rows * work.devices
    passing = {"gradients": gradients if several else 0, "gathered weights": gathered}
    passing |= {"activations": activations, "logits": logits}
    own = _share(FLOAT * trained_numbers(shape, work), work) if work.fused else 2 * FLOAT * _share(shape.largest, work)
    ending = {"gradients": gradients, "gathered weights": (rest + 2 * layer) * work.element}
    if not work.adapter_rank:
        summed = max(layer, rest) * FLOAT
        ending["gathered gradients"] = (rest + layer) * work.element + summed
    stepping = {"gradients": gradients, "step": own if work.moments else 0}
    return max(passing, ending, stepping, key=lambda parts: sum(parts.values()))


def trained_numbers(shape: Shape, work: Work) -> int:
    """Numbers that the optimizer moves."""
    if work.adapter_rank:
        return adapter_numbers(shape, work.adapter_rank)
    trunk = shape.parameters - sum(o * i for o, i in shape.embeddings[1:])
    return shape.parameters + (trunk if work.own_critic else 0)


def layer_and_rest(shape: Shape, work: Work) -> tuple[int, int]:
    """Numbers of one layer, and of embeddings, output head and the last norm."""
    rest = sum(o * i for o, i in shape.embeddings) + shape.hidden
    return (shape.parameters - rest + adapter_numbers(shape, work.adapter_rank)) // shape.layers, rest


def _share(numbers: int, work: Work) -> int:
    return -(-numbers // work.devices)
