"""The space of all texts."""

import pytest

from envs.spaces import FreeText


@pytest.mark.parametrize("text", ["", " ", "two words", "naïve café", "中文", "🙂", "\x00\n", "x" * 10**6])
def test_contains_any_text(text: str) -> None:
    assert text in FreeText()


@pytest.mark.parametrize("other", [None, 3, b"text", ["text"], 1.5])
def test_contains_nothing_else(other: object) -> None:
    assert other not in FreeText()


def test_sample_is_seeded_gibberish() -> None:
    space, twin = FreeText(seed=3), FreeText(seed=3)
    samples = [space.sample() for _ in range(200)]
    assert samples == [twin.sample() for _ in range(200)]
    assert len(set(samples)) > 150 and all(sample in space for sample in samples)
    assert any(" " in sample for sample in samples) and any(not sample.isascii() for sample in samples)
    assert samples != [FreeText(seed=4).sample() for _ in range(200)]


def test_masks_are_not_supported() -> None:
    with pytest.raises(ValueError, match="leave both out"):
        FreeText().sample(mask="a")


def test_equality() -> None:
    assert FreeText() == FreeText(seed=1) and hash(FreeText()) == hash(FreeText()) and FreeText() != "text"
