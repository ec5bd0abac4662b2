"""The share of a generation's time in EGGROLL's update."""

from .figures import Figure, Setting, alternate, figure
from .work import algorithm, collector


def figures(setting: Setting) -> list[Figure]:
    """Measure `update_share`, with as many members and rows as the model's runs have."""
    gpu, large = setting.gpu, setting.large
    members = setting.members or (1024 if gpu else 64 if large else 128)
    prompts = setting.prompts or (1 if gpu else 2 if large else 8)
    model = setting.load()
    es = algorithm(setting, "eggroll", population=members, prompts=prompts).start(model, seed=0)
    engine = collector(model, setting)

    def share(repeat: int) -> float:
        batch = engine.collect(es.ask(repeat))
        update = es.tell(batch).cost.update_seconds
        return update / (update + batch.cost.seconds)

    shares = alternate({"share": share}, setting.repeats)["share"]
    rows = members * prompts
    return [figure("update_share", shares, setting, rows=rows, members=members, rank=setting.rank, unit="share")]
