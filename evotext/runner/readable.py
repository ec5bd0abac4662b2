"""Episodes as text for people."""

from evotext.types import Ending, Transcript

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
