"""A step of our GRPO beside one of TRL's `GRPOTrainer`: the same model, prompts, group, loss and optimizer.

Needs the extra `trl`. Both sample 8 answers to each of 8 prompts, take one AdamW step on them and use no reference model.
"""

import logging
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from datasets import Dataset
from transformers import TrainerCallback, set_seed
from trl import GRPOConfig, GRPOTrainer

from evotext.models.language_model import LanguageModel
from evotext.rollouts.task import TextTask
from evotext.runner.memory import forget_peak_memory, peak_memory_bytes

from .figures import Figure, Setting, figure, ratios
from .memory import give_back
from .work import algorithm, collector, end_tokens, plain_plan
from .workload import Pays, workload

PROMPTS, GROUP = 8, 8
LEARNING_RATE = 3e-4
UNEVEN_TOKENS = 64
SEEDS, LEARNING_STEPS, LAST_STEPS = 5, 40, 5

Step = Callable[[int], None]


def figures(setting: Setting) -> list[Figure]:
    """Measure `grpo_over_trl` in answers a second, `/uneven`, `grpo_peak_over_trl`, `grpo_reward_over_trl` after as many.

    The last takes five seeds; its reward is the share of vowels, which random weights can learn. Of the peaks, what both
    keep between two steps (weights, AdamW's two numbers a weight) is left out.
    """
    logging.getLogger("transformers").setLevel(logging.ERROR)
    rows = (setting.prompts or PROMPTS) * GROUP
    even = partial(_in_turn, setting, new_tokens=setting.new_tokens, uneven=False)
    speed = even(meter=_Seconds(), steps=setting.repeats)
    mixed = _in_turn(setting, new_tokens=UNEVEN_TOKENS, uneven=True, meter=_Seconds(), steps=setting.repeats)
    peaks = even(meter=_Peak(setting.device), steps=setting.repeats)
    learned = [_rewards(setting, seed) for seed in range(SEEDS)]
    return [
        figure("grpo_over_trl", ratios(speed.theirs, speed.ours), setting, rows=rows),
        figure("grpo_over_trl/uneven", ratios(mixed.theirs, mixed.ours), setting, rows=rows),
        figure("grpo_peak_over_trl", ratios(peaks.ours, peaks.theirs), setting, rows=rows),
        figure("grpo_reward_over_trl", [ours / theirs for ours, theirs in learned], setting, rows=rows),
    ]


@dataclass
class Turns:
    """The measurements of each step, and the average rewards that each step saw."""

    theirs: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    their_rewards: list[float] = field(default_factory=list)
    our_rewards: list[float] = field(default_factory=list)


class _Seconds:
    """Measures how long a step takes."""

    def start(self) -> None:
        self._begin = time.perf_counter()

    def stop(self) -> float:
        return time.perf_counter() - self._begin


class _Peak:
    """Measures the bytes by which a step's peak lies above what the process held before it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def start(self) -> None:
        give_back()
        forget_peak_memory(self._device)
        self._empty = peak_memory_bytes(self._device)

    def stop(self) -> float:
        return float(peak_memory_bytes(self._device) - self._empty)


class _TakeTurns(TrainerCallback):
    """Measures each of the trainer's steps and then one of ours; the first two of each are not kept."""

    UNMEASURED = 2

    def __init__(self, ours: Step, meter: _Seconds | _Peak, turns: Turns) -> None:
        self._ours, self._meter, self._turns, self._step = ours, meter, turns, 0

    def on_step_begin(self, *_: object, **__: object) -> None:
        self._meter.start()

    def on_step_end(self, *_: object, **__: object) -> None:
        theirs = self._meter.stop()
        self._meter.start()
        self._ours(self._step)
        ours = self._meter.stop()
        self._step += 1
        if self._step > self.UNMEASURED:
            self._turns.theirs.append(theirs)
            self._turns.ours.append(ours)


def _in_turn(
    setting: Setting,
    *,
    new_tokens: int,
    uneven: bool,
    meter: _Seconds | _Peak,
    steps: int,
    pays: Pays = "checksum",
    seed: int = 0,
) -> Turns:
    """Measure steps of both in turn. uneven: about every 25th token ends an answer, and prompts differ in length."""
    turns = Turns()
    prompts = setting.prompts or PROMPTS
    ends = end_tokens(setting) if uneven else None
    task = workload(new_tokens, uneven=uneven, pays=pays)
    ours = _our_step(setting, setting.load(ends), task, prompts, turns, seed)
    steps += _TakeTurns.UNMEASURED
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TRL's and transformers' own code
        trainer = _their_trainer(setting, setting.load(ends), task, prompts, turns, seed, steps, folder)
        trainer.add_callback(_TakeTurns(ours, meter, turns))
        trainer.train()
    return turns


def _rewards(setting: Setting, seed: int) -> tuple[float, float]:
    """Return our mean reward and theirs over the last steps of as many episodes."""
    turns = _in_turn(
        setting,
        new_tokens=setting.new_tokens,
        uneven=False,
        meter=_Seconds(),
        steps=LEARNING_STEPS,
        pays="vowels",
        seed=seed,
    )
    return tuple(sum(r[-LAST_STEPS:]) / LAST_STEPS for r in (turns.our_rewards, turns.their_rewards))  # type: ignore[return-value]


def _our_step(setting: Setting, model: LanguageModel, task: TextTask, prompts: int, turns: Turns, seed: int) -> Step:
    settings = {"prompts": prompts, "group_size": GROUP, "optimizer": {"lr": LEARNING_RATE}}
    grpo = algorithm(setting, "grpo", **settings).start(model, seed=seed)
    engine = collector(model, setting, task=task)

    def step(generation: int) -> None:
        batch = engine.collect(grpo.ask(generation))
        grpo.tell(batch)
        turns.our_rewards.append(float(batch.return_B.mean()))

    return step


def _their_trainer(
    setting: Setting,
    model: LanguageModel,
    task: TextTask,
    prompts: int,
    turns: Turns,
    seed: int,
    steps: int,
    folder: str,
) -> GRPOTrainer:
    """Return TRL's trainer with its defaults but for what makes both sides do the same work."""
    env = task.environments(1)[0]
    instances = plain_plan(prompts * steps, seed).instances
    texts = [env.reset(seed=instance)[0] for instance in instances]
    tokenizer = model.tokenizer
    rows = [tokenizer.decode(ids) for ids in model.chat.open([("", text) for text in texts])]
    tokenizer.add_special_tokens({"eos_token": "<|never|>"})  # beyond the vocabulary: what ends an answer is set below
    model.network.generation_config.eos_token_id = sorted(model.chat.end_ids)

    def reward(completions: list[str], **_: object) -> list[float]:
        paid = [float(env.step(text)[1]) for text in completions]
        turns.their_rewards.append(sum(paid) / len(paid))
        return paid

    set_seed(seed)
    arguments = GRPOConfig(
        output_dir=folder,
        per_device_train_batch_size=prompts * GROUP,
        num_generations=GROUP,
        max_completion_length=task.max_new_tokens,
        max_steps=steps,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        weight_decay=0.0,
        beta=0.0,
        seed=seed,
        use_cpu=not setting.gpu,
        bf16=False,
        gradient_checkpointing=False,  # it would cost them a second forward pass
        dataloader_pin_memory=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    return GRPOTrainer(
        model=model.network.train(),
        reward_funcs=reward,
        args=arguments,
        train_dataset=Dataset.from_dict({"prompt": rows}),
        processing_class=tokenizer,
    )
