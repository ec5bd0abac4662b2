"""The speed of generation: perturbed against plain, our engine against transformers', and against the machine."""

import time

import torch
from torch import Tensor

from evotext.models.language_model import LanguageModel
from evotext.rollouts.collector import Collector

from .figures import Figure, Measure, Setting, alternate, figure, ratios
from .machine import Machine
from .work import algorithm, collector, end_tokens, plain_plan, tokens_per_second

UNEVEN_TOKENS = 64


def figures(setting: Setting) -> list[Figure]:
    """Measure the figures of the suite `generation`, `graph_over_launches` on a GPU only."""
    on_gpu = [_graph_over_launches(setting)] if setting.gpu else []
    return [_perturbed_over_plain(setting), _over_transformers(setting), _share_of_limit(setting), *on_gpu]


def _rows(setting: Setting) -> tuple[int, int]:
    """Return members and prompts: 64 x 4 rows on a CPU (64 x 1 of a large model, to keep it short), 256 x 4 on a GPU."""
    return setting.members or (256 if setting.gpu else 64), setting.prompts or (1 if setting.large else 4)


def _perturbed_over_plain(setting: Setting) -> Figure:
    """Compare the same engine with the same rows. Drawing the noise counts as the perturbed side's work."""
    members, prompts = _rows(setting)
    model = setting.load()
    es = algorithm(setting, "eggroll", population=members, prompts=prompts).start(model, seed=0)
    engine = collector(model, setting)

    def perturbed(repeat: int) -> float:
        return tokens_per_second(engine.collect(es.ask(repeat)))

    def plain(repeat: int) -> float:
        return tokens_per_second(engine.collect(plain_plan(members * prompts, repeat)))

    speed = alternate({"perturbed": perturbed, "plain": plain}, setting.repeats)
    return figure(
        "perturbed_over_plain",
        ratios(speed["perturbed"], speed["plain"]),
        setting,
        rows=members * prompts,
        members=members,
        rank=setting.rank,
    )


def _graph_over_launches(setting: Setting) -> Figure:
    """Compare decoding by a captured graph with launching every kernel. Raise RuntimeError without a graph."""
    members, prompts = _rows(setting)
    model = setting.load()
    captured, launched = (collector(model, setting, graphs=graphs) for graphs in (True, False))

    def timed(engine: Collector) -> Measure:
        return lambda repeat: tokens_per_second(engine.collect(plain_plan(members * prompts, repeat)))

    speed = alternate({"captured": timed(captured), "launched": timed(launched)}, setting.repeats)
    if notes := captured.take_notes():
        raise RuntimeError(notes[-1])
    shares = ratios(speed["captured"], speed["launched"])
    return figure("graph_over_launches", shares, setting, rows=members * prompts)


def _over_transformers(setting: Setting) -> Figure:
    """Compare sampling uneven answers to uneven prompts; only tokens up to an end token count."""
    members, prompts = _rows(setting)
    rows = 1024 if setting.gpu else members * prompts
    ends = end_tokens(setting)
    model = setting.load(end_ids=ends)
    engine = collector(model, setting, new_tokens=UNEVEN_TOKENS, uneven=True)

    def ours(repeat: int) -> float:
        return tokens_per_second(engine.collect(plain_plan(rows, repeat, temperature=1.0)))

    def theirs(repeat: int) -> float:
        env = engine.task.parts[0].environments(1)[0]
        observations = [env.reset(seed=seed)[0] for seed in plain_plan(rows, repeat).instances]
        begin = time.perf_counter()
        ids_BT, mask_BT = _left_padded(model.chat.open([("", text) for text in observations]), setting.device)
        torch.manual_seed(repeat)
        written_BT = model.network.generate(
            input_ids=ids_BT,
            attention_mask=mask_BT,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=UNEVEN_TOKENS,
            eos_token_id=ends,
            pad_token_id=0,
        )[:, ids_BT.shape[1] :]
        ended_BT = torch.isin(written_BT, torch.tensor(ends, device=written_BT.device))
        before_BT = ended_BT.cumsum(1) - ended_BT.long() == 0
        tokens = int(before_BT.sum())
        return tokens / (time.perf_counter() - begin)

    speed = alternate({"ours": ours, "theirs": theirs}, setting.repeats)
    return figure("engine_over_transformers_generate", ratios(speed["ours"], speed["theirs"]), setting, rows=rows)


def _share_of_limit(setting: Setting) -> Figure:
    """Return the least time that the machine could take for the decode steps, over the time that they take."""
    members, prompts = _rows(setting)
    rows = members * prompts
    model = setting.load()
    machine = Machine(setting.device, model.network.dtype)
    short, long = (collector(model, setting, rows=rows, new_tokens=n) for n in (1, setting.new_tokens + 1))
    prompt = 1 + len(short.task.parts[0].environments(1)[0].reset(seed=0)[0])

    def timed(engine: Collector) -> Measure:
        return lambda repeat: engine.collect(plain_plan(rows, repeat)).cost.rollout_seconds

    arms = {
        "short": timed(short),
        "long": timed(long),
        "flops": lambda _: machine.flops_per_second(),
        "bytes": lambda _: machine.bytes_per_second(),
    }
    found = alternate(arms, setting.repeats)
    shares = []
    for brief, full, rate, bandwidth in zip(*found.values(), strict=True):
        least = sum(
            max(
                2.0 * model.matmul_parameter_count * rows / rate,
                _bytes_of_step(model, rows, prompt + step) / bandwidth,
            )
            for step in range(1, setting.new_tokens + 1)
        )
        shares.append(least / (full - brief))
    return figure("share_of_machine_limit", shares, setting, rows=rows, unit="share")


def _bytes_of_step(model: LanguageModel, rows: int, slots: int) -> float:
    """Return the least that a decode step has to read: every weight once, and the keys and values of all slots."""
    config = model.network.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    cache = 2 * config.num_hidden_layers * config.num_key_value_heads * head * slots * rows
    size = model.network.dtype.itemsize
    return float(size * (model.matmul_parameter_count + cache))


def _left_padded(prompts: list[list[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    return ids, mask
