"""`tracker=wandb`: figures and sample episodes to Weights & Biases, or into files for it where there is no network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from evotext.library import optional
from evotext.run_folder.configuration import hyperparameters
from evotext.run_folder.ending import ended_well
from evotext.run_folder.names import WANDB_ID
from evotext.trackers.names import shared_names
from evotext.validation import checked


class WandB:
    """Opens the tracker of a run. Raises ImportError without the package wandb.

    group: what the runs of a sweep have in common; None: the name of the folder above the run's.
    mode: None is what the environment says (WANDB_MODE), online otherwise.
    """

    @checked
    def __init__(
        self,
        *,
        project: str,
        entity: str | None,
        group: str | None,
        mode: Literal["online", "offline", "disabled"] | None,
    ) -> None:
        self._wandb = optional("wandb", "wandb")
        self._where = {"project": project, "entity": entity, "mode": mode}
        self._group = group

    def __call__(self, folder: Path) -> "WandBRun":
        """Return the tracker of the run in this folder. Raise ValueError if it cannot be opened, as without a login."""
        file = folder / WANDB_ID
        known = file.read_text(encoding="utf-8") if file.exists() else None
        try:
            run = self._wandb.init(
                **self._where,
                id=known,
                resume="allow" if known else None,
                name=folder.name,
                group=self._group or folder.resolve().parent.name,
                dir=str(folder),
                config=hyperparameters(folder),
                reinit="create_new",  # a run of this process that ended badly is another one
                settings=self._wandb.Settings(console="off", quiet=True, silent=True),
            )
        except self._wandb.Error as error:
            raise ValueError(
                f"tracker: expected a login to Weights & Biases, got {error}; run `wandb login` or add tracker.mode=offline"
            ) from error
        file.write_text(run.id, encoding="utf-8")
        return WandBRun(run, table=self._wandb.Table, folder=folder)


class WandBRun:
    """Every figure over generations; the episodes of a measurement as a table.

    Generations that an earlier process has logged already, which a resumed run goes through again, stay as they were.
    """

    def __init__(self, run: Any, *, table: Any, folder: Path) -> None:
        self._run, self._table, self._folder = run, table, folder

    def log(self, record: Mapping[str, float | int | str]) -> None:
        """Log the record's figures at its generation, with what was spent so far to draw them against."""
        self._run.log(shared_names(record), step=int(record["generation"]))

    def log_transcripts(self, generation: int, texts: Sequence[str]) -> None:
        """Log one row an episode."""
        table = self._table(columns=["episode"], data=[[text] for text in texts])
        self._run.log({"episodes": table}, step=generation)

    def close(self) -> None:
        """Say how it ended and wait until everything is sent or written."""
        self._run.finish(exit_code=0 if ended_well(self._folder) else 1)
