"""Episodes as text for people: what was said and answered, what it paid, and what it counted for in an update."""

import math

from evotext.run_folder.schema import TrainingEpisode
from evotext.types import Credit, Ending, Trajectories, Transcript

ENDINGS = {
    Ending.ENVIRONMENT_LIMIT: "a limit of the environment",
    Ending.TURN_LIMIT: "env.max_turns was reached",
    Ending.CONTEXT: "the model's context was full",
}


def readable(transcript: Transcript) -> str:
    """Return one episode as lines: what was said and answered, the return, and what ended it if not the task."""
    lines = []
    for said, answered in transcript.turns:
        lines += [f"env> {said}", f"llm> {answered}"]
    why = str(transcript.fault) if transcript.fault else ENDINGS.get(transcript.ending, "")
    parts = " + ".join(f"{name} {value:g}" for name, value in transcript.reward_parts.items())
    total = f"return {transcript.episode_return:g}" + (f" = {parts}" if parts else "")
    return "\n".join([*lines, total + (f" ({why})" if why else "")])


def training_sample(batch: Trajectories, credit: Credit | None, *, generation: int) -> list[TrainingEpisode]:
    """Return the batch's transcripts with the credit of their rows. generation: how many have finished with this one."""
    plan, episodes = batch.plan, []
    for transcript in batch.transcripts:
        value = None if credit is None else float(credit.value_B[transcript.row])
        counted = {} if credit is None or value is None or not math.isfinite(value) else {credit.name: value}
        episodes.append(
            TrainingEpisode(
                generation=generation,
                instance=transcript.instance,
                group=plan.groups[transcript.row],
                member=None if plan.members is None else plan.members[transcript.row],
                episode_return=transcript.episode_return,
                reward_parts=dict(transcript.reward_parts),
                advantage=counted.get("advantage"),
                fitness=counted.get("fitness"),
                text=readable(transcript) + "".join(f", {name} {value:.4g}" for name, value in counted.items()),
            )
        )
    return episodes
