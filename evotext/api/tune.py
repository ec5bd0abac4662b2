"""`tune`: a whole run from Python, as `evotext train` makes it."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from evotext.api.arguments import Arguments, sort_arguments
from evotext.api.environments import Reward, registered
from evotext.api.result import Result
from evotext.api.words import words_for
from evotext.cli.assembly import assembled
from evotext.cli.composing import Composed, compose_checked
from evotext.cli.errors import ConfigError
from evotext.cli.jobs import Interrupted, discard
from evotext.cli.replay import refuse_changes
from evotext.distributed import torchrun
from evotext.protocols import Algorithm
from evotext.run_folder import names
from evotext.run_folder.reader import read_run, read_summary
from evotext.run_folder.schema import Summary
from evotext.runner.callbacks import Callback
from evotext.runner.loop import Run
from evotext.runner.stop import STOPPED_BY_SIGNALS

Settings = Mapping[str, Any]
"""A group's keys as in its YAML; the key `name` chooses the file."""
Env = str | Sequence[str] | type[gymnasium.Env[Any, Any]] | gymnasium.Env[Any, Any] | Reward


def tune(
    *,
    model: str | Path | PreTrainedModel | Settings | None = None,
    env: Env | Settings | None = None,
    algorithm: str | Algorithm | Settings | None = None,
    budget: str | Settings | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    prompts: Sequence[str] | None = None,
    callbacks: Callback | Iterable[Callback] = (),
    progress: bool = True,
    resume: str | Path | None = None,
    **overrides: Any,
) -> Result:
    """Tune a model on a task and return the tuned model with what the run measured (docs/python.md).

    Whatever is left out is as `evotext train` has it, whose configuration this is; None means left out.

    Args:
        model: a name of conf/model, a hub name, a folder, or a transformers model with its `tokenizer`, tuned in place.
        env: a name of conf/env or a list of them, an id of Gymnasium's, an environment (copied for each row of a batch), its
            class, or a function `reward(prompt, answer)` with `prompts`, of which training, validation and measurement get
            disjoint parts; it returns a number, or a dict of named parts that add up to it.
        algorithm: a name of conf/algorithm, or an object (`evotext.protocols.Algorithm`).
        budget: a name of conf/budget, or `{"unit": ..., "limit": ...}`.
        seed: keys training instances, sampling and noise; held-out instances never change.
        folder: of the run; None: a new one in `runs/`, as the command makes it.
        tokenizer: of a transformers model given as an object.
        prompts: what a reward function is asked about.
        callbacks: called with each line of `metrics.jsonl`; a true return ends the run, measured and resumable.
        progress: whether to show a bar, or a line for each measurement where nobody watches, on standard error.
        resume: the folder of a run that was stopped, to go on with it; the other arguments are those it was started with.
        overrides: further keys of the configuration: `evaluation={"episodes": 64}`, `**{"algorithm.sigma": 0.01}`.

    Raises:
        ConfigError: a ValueError, in one line, for an argument that is not what it should be, before anything is trained.
        KeyboardInterrupt: after Ctrl-C or a notebook's stop, once the generation has ended; the run can be taken up again.
    """
    called = (callbacks,) if callable(callbacks) else tuple(callbacks)
    if not all(map(callable, called)):
        raise ConfigError("callbacks: expected functions of one line of metrics, got something else")
    settings = {"budget": budget, "seed": seed, **overrides}
    arguments = sort_arguments(
        model=model,
        tokenizer=tokenizer,
        env=env,
        prompts=prompts,
        algorithm=algorithm,
        overrides={key: value for key, value in settings.items() if value is not None or key in overrides},
    )
    if resume is not None and folder is not None:
        raise ConfigError("folder: expected none beside resume, which names the run's folder; leave it out")
    words = [*arguments.words, *(words_for("resume", str(resume)) if resume is not None else ())]
    composed = compose_checked("config", words)
    arguments.describe_objects(composed)
    place = Path(resume) if resume is not None else _new_folder(folder, composed, arguments)
    if resume is not None:
        refuse_changes(composed.config, place)
    try:
        with registered(arguments.env):
            return _run(composed, place, arguments, called, progress)
    except ConfigError:
        if resume is None and torchrun.rank() == 0:
            discard(place)
        raise


def _new_folder(folder: str | Path | None, composed: Composed, arguments: Arguments) -> Path:
    """Make the folder of a new run, with the record of how it was started."""
    place = composed.folder() if folder is None else Path(folder)
    if torchrun.rank():
        return place
    if any((place / name).exists() for name in names.MARKS):
        raise ConfigError(
            f"folder: expected one without a run, got {str(place)!r}; name another, or go on with that run by "
            f"resume={str(place)!r}"
        )
    try:
        composed.record(place)
        if arguments.objects:
            objects = OmegaConf.to_yaml(OmegaConf.create(arguments.objects))
            (place / names.HYDRA / names.OBJECTS).write_text(objects, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"folder: expected one that can be written, got {str(place)!r}: {error.strerror}") from error
    return place


def _run(
    composed: Composed, folder: Path, arguments: Arguments, callbacks: Sequence[Callback], progress: bool
) -> Result:
    with assembled(
        composed.config,
        folder=folder,
        algorithm=composed.choices["algorithm"],
        given=arguments.given,
        callbacks=callbacks,
        progress=progress,
    ) as run:
        summary = Summary.model_validate(run.train()) if run else read_summary(folder)
    assert summary is not None, "a run that has been completed has one"
    if summary.status == "interrupted" and summary.reason in STOPPED_BY_SIGNALS:
        raise Interrupted(f"{summary.reason}; to go on: tune(..., resume={str(folder)!r})")
    network, tokenizer = _tuned(run, folder)
    return Result(
        success=summary.eval.success_after,
        before=summary.eval.success_before,
        folder=folder,
        model=network,
        tokenizer=tokenizer,
        cost=summary.cost,
        record=read_run(folder),
    )


def _tuned(run: Run | None, folder: Path) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Return the model of a run, or that of a folder whose run had been completed."""
    if run is not None:
        model = run.model
        return model.network if model.adapter is None else model.adapter.merged(), model.tokenizer
    saved = folder / names.MODEL
    return AutoModelForCausalLM.from_pretrained(saved).eval(), AutoTokenizer.from_pretrained(saved)
