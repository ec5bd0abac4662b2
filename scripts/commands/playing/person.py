"""A person at the terminal."""

from collections.abc import Sequence

from .episode import Turn


class Person:
    """Reads answers from standard input, a line each. Raises EOFError at its end."""

    def answer(self, instructions: str, turns: Sequence[Turn], observation: str) -> str:
        """Show what is asked and return the line that is typed."""
        if not turns:
            print(f"\n{instructions}\n" if instructions else "")
        print(_shown(observation))
        return input("> ")

    def watch(self, turns: Sequence[Turn], episode_return: float) -> None:
        """Say what the episode paid."""
        print(f"return {episode_return:g}")


def _shown(text: str) -> str:
    """Return what a terminal can show, with control sequences escaped."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
