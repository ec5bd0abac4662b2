"""A generation of EGGROLL against naive ES, which runs its members one after another with full noise on the weights."""

import time

import torch

from .figures import Figure, Setting, alternate, figure, ratios
from .work import algorithm, collector, plain_plan

SIGMA = 0.02
# Members of naive ES that are run; their time is scaled to the whole population, which would take too long.
NAIVE_SAMPLE = 16


def figures(setting: Setting) -> list[Figure]:
    """Measure `eggroll_over_naive`."""
    gpu = setting.gpu
    members, prompts = setting.members or (1024 if gpu else 256), setting.prompts or 1
    model = setting.load()
    engine = collector(model, setting)
    weights = [p for p in model.network.parameters() if p.ndim == 2]
    stored = [p.detach().clone() for p in weights]
    es = algorithm(setting, "eggroll", population=members, prompts=prompts).start(model, seed=0)

    def ours(repeat: int) -> float:
        """Run a whole generation: noise, episodes, update."""
        begin = time.perf_counter()
        es.tell(engine.collect(es.ask(repeat)))
        return time.perf_counter() - begin

    @torch.no_grad()
    def naive(repeat: int) -> float:
        """Run the members alone, without the update, which favours it. Its rollouts have our engine too."""
        begin = time.perf_counter()
        for _ in range(NAIVE_SAMPLE):
            for weight in weights:
                weight.add_(torch.randn_like(weight), alpha=SIGMA)
            engine.collect(plain_plan(prompts, repeat))
            for weight, before in zip(weights, stored, strict=True):
                weight.copy_(before)
        return (time.perf_counter() - begin) / NAIVE_SAMPLE * members

    seconds = alternate({"ours": ours, "naive": naive}, setting.repeats)
    values = ratios(seconds["naive"], seconds["ours"])
    rows = members * prompts
    return [figure("eggroll_over_naive", values, setting, rows=rows, members=members, rank=setting.rank)]
