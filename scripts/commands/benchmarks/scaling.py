"""The share of N times one process's speed that N processes reach, each on one core or one GPU, and their messages.

Every size is a group of processes of its own that waits while another one runs. All share one generation's work: the
population, or the rows of GRPO, is the same for all.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from statistics import median

import torch

from evotext.cli.errors import ConfigError
from evotext.distributed import collectives, torchrun
from evotext.distributed.exchange import joint_cost
from evotext.runner.preflight import choose_device, rows_at_once

from ..cores import usable_cores
from .cost_model import Link, Work, efficiency, exchange
from .figures import Figure, Measure, Setting, alternate, figure, ratios
from .work import algorithm, collector

SIZES = (1, 2, 4)
DEVICES = (8, 64, 1024)  # of the cost model alone
GROUP = 8
SHARED = "eggroll_shared"  # eggroll with algorithm.update=shared
ALGORITHMS = ("eggroll", SHARED, "grpo")
# Between machines of a cluster, for a forecast beside that for the link at hand.
FAST = Link(latency=1e-5, bandwidth=25e9)
PROBE_BYTES, PROBES = 2**24, 5
Result = dict[str, float]


def figures(setting: Setting) -> list[Figure]:
    """Measure EGGROLL and GRPO in N processes: `parallel_efficiency`, the cost model's forecast, bytes and waiting.

    The model gets the times of one process and the link between two. Its value for the N at hand is to be compared with
    the measurement; for more it is a forecast for devices that are joined by such links.
    Raise ConfigError where there is nothing to run two processes on.
    """
    sizes = [size for size in SIZES if size <= places(setting)]
    if len(sizes) < 2:
        raise ConfigError("suite=scaling: expected at least 2 cores or 2 GPUs, got 1; run it on a larger machine")
    with ExitStack() as stack:
        groups = {size: stack.enter_context(group(setting, size)) for size in sizes}
        links = [groups[2].ask("link", repeat) for repeat in range(PROBES)]
        link = Link(latency=median(x["latency"] for x in links), bandwidth=median(x["bandwidth"] for x in links))
        results: dict[tuple[str, int], list[Result]] = {
            (name, size): [] for name in ALGORITHMS for size in sizes if name != SHARED or size > 1
        }

        def measure(repeat: int, name: str, size: int) -> float:
            result = groups[size].ask(name, repeat)
            results[name, size].append(result)
            return result["seconds"]

        arms: dict[str, Measure] = {_arm(*key): partial(measure, name=key[0], size=key[1]) for key in results}
        seconds = alternate(arms, setting.repeats)
    # The first of each is a warm-up.
    measured = {_arm(*key): kept[1:] for key, kept in results.items()}
    found = []
    for name in ALGORITHMS:
        found += _figures(name, sizes[1:], setting, seconds, measured, link)
    for size in sizes[1:]:
        values = ratios(seconds[_arm("eggroll", size)], seconds[_arm(SHARED, size)])
        one = measured[_arm("eggroll", 1)][0]
        rows, members = int(one["rows"]), int(one["members"])
        found.append(
            figure(f"shared_over_repeated/{size}", values, setting, rows=rows, members=members, rank=setting.rank)
        )
    return found


def _arm(name: str, size: int) -> str:
    """Return the arm's name; one process has nobody to share an update with."""
    return f"{'eggroll' if size == 1 and name == SHARED else name}/{size}"


def _figures(
    name: str,
    sizes: list[int],
    setting: Setting,
    seconds: dict[str, list[float]],
    measured: dict[str, list[Result]],
    link: Link,
) -> list[Figure]:
    """Measure one algorithm, size by size, then forecast."""
    alone = measured[_arm(name, 1)]
    shape = partial(
        figure,
        setting=setting,
        rows=int(alone[0]["rows"]),
        members=int(alone[0]["members"]),
        rank=0 if name == "grpo" else setting.rank,
    )
    work = [work_of(result, setting, shared=name == SHARED) for result in alone]
    found = []
    for size in sizes:
        arm = _arm(name, size)
        ideal = [size * time for time in seconds[arm]]
        modelled = [efficiency(w, size, link) for w in work]
        found += [
            shape(f"parallel_efficiency/{arm}", ratios(seconds[_arm(name, 1)], ideal), unit="share"),
            shape(f"parallel_efficiency_modelled/{arm}", modelled, unit="share"),
            shape(f"bytes_a_generation/{arm}", [x["bytes"] for x in measured[arm]], unit="bytes"),
            shape(f"bytes_a_generation_modelled/{arm}", [exchange(work[0], size).bytes], unit="bytes"),
            shape(f"waiting_share/{arm}", [x["waiting"] for x in measured[arm]], unit="share"),
        ]
    for size in DEVICES:
        for kind, joined_by in (("forecast", link), ("forecast_fast_link", FAST)):
            values = [efficiency(w, size, joined_by) for w in work]
            found.append(shape(f"parallel_efficiency_{kind}/{_arm(name, size)}", values, unit="share"))
    return found


def work_of(result: Result, setting: Setting, *, shared: bool) -> Work:
    """Return the cost model's input: a generation of one process. shared: an evolution strategy's update is to be."""
    whole = {key: int(result[key]) for key in ("rows", "whole", "tensors", "parameters", "steps", "width")}
    return Work(
        rollout_seconds=result["rollout"],
        update_seconds=result["update"],
        at_once=rows_at_once(None, setting.device),
        weights=tuple(int(size) for key, size in result.items() if key.startswith("weight/")) if shared else (),
        **whole,
    )


def places(setting: Setting) -> int:
    """Return how many processes have a core or a GPU of their own."""
    if setting.gpu:
        return torch.cuda.device_count()
    return usable_cores()


class Group:
    """The parent's end of some processes that are one run."""

    def __init__(self, ends: list[Connection]) -> None:
        self._ends = ends

    def ask(self, work: str, repeat: int) -> Result:
        """Let all do this work; return the greatest of their results. Raise RuntimeError if one has died."""
        for end in self._ends:
            end.send((work, repeat))
        try:
            results: list[Result] = [end.recv() for end in self._ends]
        except EOFError as error:
            raise RuntimeError(f"a process of {len(self._ends)} ended while it was measured") from error
        return {key: max(result[key] for result in results) for key in results[0]}


@contextmanager
def group(setting: Setting, size: int) -> Iterator[Group]:
    """Start processes as torchrun would, which wait for work."""
    context = get_context("spawn")
    pipes = [context.Pipe() for _ in range(size)]
    started = [
        context.Process(target=_serve, args=(told, setting, pipe[1]), daemon=True)
        for told, pipe in zip(torchrun.local_group(size), pipes, strict=True)
    ]
    for process, (_, theirs) in zip(started, pipes, strict=True):
        process.start()
        theirs.close()
    try:
        yield Group([ours for ours, _ in pipes])
    finally:
        for ours, _ in pipes:
            ours.close()
        for process in started:
            process.join()


def _serve(told: dict[str, str], setting: Setting, parent: Connection) -> None:
    """Be one process, as torchrun would start it: work until the parent hangs up."""
    os.environ |= told
    torch.set_num_threads(1)
    with collectives.joined():
        setting = replace(setting, device=choose_device("cuda" if setting.gpu else "cpu"))
        tasks: dict[str, Callable[[int], Result]] = {"link": probe_link}
        while True:
            try:
                work, repeat = parent.recv()
            except EOFError:
                return
            if work not in tasks:
                tasks[work] = _generations(setting, work)
            parent.send(tasks[work](repeat))


def probe_link(_: int) -> Result:
    """Return the seconds of a gather of next to nothing, and bytes a second of one of many."""
    small, large = torch.zeros(1, dtype=torch.uint8), torch.zeros(PROBE_BYTES, dtype=torch.uint8)

    def seconds(values: torch.Tensor) -> float:
        collectives.all_gather(small)  # together
        begin = time.perf_counter()
        collectives.all_gather(values)
        return time.perf_counter() - begin

    seconds(large)
    latency = seconds(small)
    return {"latency": latency, "bandwidth": PROBE_BYTES / max(seconds(large) - latency, 1e-9)}


def _generations(setting: Setting, name: str) -> Callable[[int], Result]:
    """Return a function that runs one generation after another."""
    members = setting.members or (1024 if setting.gpu else 64 if setting.large else 128)
    prompts = setting.prompts or (1 if setting.gpu else 2 if setting.large else 8)
    rows = members * prompts
    if name != "grpo":
        update = "shared" if name == SHARED else "repeated"
        made = algorithm(setting, "eggroll", population=members, prompts=prompts, update=update)
    else:
        made = algorithm(setting, name, prompts=max(1, rows // GROUP), group_size=GROUP)
    model = setting.load()
    learner = made.start(model, seed=0)
    engine = collector(model, setting, even=True)
    parameters = dict(model.network.named_parameters())
    moved = [p for p in parameters.values() if p.ndim > 1]  # EGGROLL as it is shipped freezes vectors

    def generation(repeat: int) -> Result:
        collectives.any_of(False)  # all begin together
        sent, begin = collectives.bytes_sent(), time.perf_counter()
        plan = learner.ask(repeat)
        batch = engine.collect(plan)
        report = learner.tell(batch)
        collectives.check_same(parameters, f"generation {repeat}")
        joint_cost(report.cost)  # as a run does
        return {
            "seconds": time.perf_counter() - begin,
            "rollout": batch.cost.rollout_seconds + batch.cost.env_seconds,
            "update": report.cost.update_seconds,
            "bytes": float(collectives.bytes_sent() - sent),
            "waiting": engine.waiting,
            "rows": float(len(plan.instances)),
            "whole": float(1 if plan.members is None else plan.members.count(0)),
            "members": float(1 if plan.members is None else members),
            "tensors": float(len(parameters)),
            "parameters": float(0 if plan.members else sum(p.numel() for p in parameters.values())),
            "steps": float(0 if plan.members else report.cost.updates),
            "width": float(batch.tokens_BT.shape[1]),
        } | {f"weight/{i}": float(p.numel() * p.element_size()) for i, p in enumerate(moved)}

    return generation
