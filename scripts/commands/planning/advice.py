"""Changes that make a run smaller, each with a forecast of its own."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from .memory import Forecast, forecast
from .shape import Shape
from .work import Noise, Work

FEW_ROWS = 32
MICRO_ROWS = (32, 8, 1)
LORA_RANK = 8
SCORED = (
    "algorithm=scored_es algorithm/perturbation=guided algorithm.population=512 algorithm.narrow_weights=stochastic "
    f"rows={FEW_ROWS} algorithm.micro_rows={FEW_ROWS}"
)


@dataclass(frozen=True, kw_only=True)
class Change:
    """Words for the command line, and what the run then needs."""

    words: str
    costs: str
    """The price of it."""
    forecast: Forecast


def changes(shape: Shape, work: Work, part_of: Callable[[int], Shape] | None = None) -> Iterator[Change]:
    """Yield what can be changed alone, and at the end all that changes no result together.

    part_of: the shape of what one of so many processes holds of the model together; raises ValueError if it cannot be divided.
    """
    together = work
    for words, costs, changed in _single(work):
        yield Change(words=words, costs=costs, forecast=forecast(shape, changed))
        if costs == "time":
            together = replace(
                together,
                rollouts=changed.rollouts if changed.rollouts != work.rollouts else together.rollouts,
                evaluation=changed.evaluation if changed.evaluation != work.evaluation else together.evaluation,
                micro_rows=min(together.micro_rows, changed.micro_rows),
                checkpointing=together.checkpointing or changed.checkpointing,
                sharded=changed.sharded,
            )
    if part_of is not None and _can_be_held_together(work):
        size = 2 * work.tensor
        divided = replace(work, tensor=size, devices=-(-work.devices // size) * size)
        words = (
            f"model.parallel=tensor model.parallel_size={size}, {divided.devices} processes (torchrun), one a device"
        )
        with suppress(ValueError):
            yield Change(words=words, costs="messages in every pass", forecast=forecast(part_of(size), divided))
    if together != work:
        yield Change(words="all that cost time alone", costs="time", forecast=forecast(shape, together))
        if not work.adapter_rank and work.tensor == 1:
            lora = forecast(shape, replace(together, adapter_rank=LORA_RANK))
            yield Change(
                words=f"these and adapter=lora adapter.rank={LORA_RANK}", costs="adapters alone move", forecast=lora
            )
    if work.family != "scored" and work.plays and work.tensor == 1:
        yield Change(words=SCORED, costs="another algorithm", forecast=forecast(shape, _scored(together)))


def _can_be_held_together(work: Work) -> bool:
    """Return what `EvolutionStrategy.check_parts` asks for, but for the optimizer."""
    plain = work.noise is not None and work.noise.kind != "guided" and not work.shares_update and not work.adapter_rank
    return work.family == "es" and plain and (work.masters or work.element > 2)


def _scored(work: Work) -> Work:
    """Return scored ES on as many episodes, without masters, in whose guided noise's small space the optimizer's state is."""
    noise = Noise(kind="guided", members=512, antithetic=False, vectors=False, directions=16, tokens=32)
    few = min(work.rollouts.at_once, FEW_ROWS)
    return replace(
        work,
        family="scored",
        rollouts=replace(work.rollouts, at_once=few, sampled=True),
        moments=2,
        masters=False,
        noise=noise,
        references=0,
        own_critic=False,
        critic=False,
        micro_rows=few,
        checkpointing=False,
        sharded=None,
        adapter_rank=0,
    )


def _single(work: Work) -> Iterator[tuple[str, str, Work]]:
    if work.rollouts.at_once > FEW_ROWS:
        yield (
            f"rows={FEW_ROWS}",
            "time",
            replace(
                work,
                rollouts=replace(work.rollouts, at_once=FEW_ROWS),
                evaluation=None if work.evaluation is None else replace(work.evaluation, at_once=FEW_ROWS),
            ),
        )
    for rows in MICRO_ROWS:
        if work.family != "es" and rows < work.micro_rows:
            yield f"algorithm.micro_rows={rows}", "time", replace(work, micro_rows=rows)
    if work.family == "gradient" and not work.checkpointing:
        yield "algorithm.gradient_checkpointing=true", "time", replace(work, checkpointing=True)
    if work.family == "es" and work.shares > 1 and work.tensor == 1 and not work.shares_update:
        yield "algorithm.update=shared", "messages of the weights' size", replace(work, shares_update=True)
    if work.moments and work.family != "scored":
        yield (
            "algorithm.optimizer._target_=torch.optim.SGD",
            "another optimizer: tune its step",
            replace(work, moments=0),
        )
    if work.element == 2 and work.masters and work.family != "gradient" and work.tensor == 1:
        yield "algorithm.narrow_weights=stochastic", "rounding by chance", replace(work, masters=False)
    if work.noise is not None and work.noise.kind == "full_rank":
        low = replace(work.noise, kind="low_rank", rank=1)
        yield "algorithm/perturbation=low_rank", "another noise", replace(work, noise=low)
    if work.references and not work.adapter_rank:
        yield "algorithm.kl_coefficient=0", "no reference policy", replace(work, references=0)
    if work.family == "gradient" and not work.sharded:
        several = max(2, work.devices)
        words = f"model.parallel=fsdp, {several} processes (torchrun), one a device"
        yield words, "messages", replace(work, devices=several, sharded="layers")
    if work.sharded == "whole":
        yield "model.rollout_weights=layers", "time", replace(work, sharded="layers")
    if not work.adapter_rank and work.tensor == 1:
        lora = replace(work, adapter_rank=LORA_RANK)
        yield f"adapter=lora adapter.rank={LORA_RANK}", "adapters alone move", lora
    yield f"{work.devices * 2} processes (torchrun), one a device", "devices", replace(work, devices=work.devices * 2)
