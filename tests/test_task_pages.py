"""The pages of the tasks show what the environments do now."""

import pytest
import task_pages

from envs import native_ids

NAMES = task_pages.tasks()


def test_every_task_has_a_page_and_every_page_a_task() -> None:
    assert len(NAMES) == len(native_ids()) + 1  # the calculator, which is no native task
    assert sorted(file.stem for file in task_pages.PAGES.glob("*.md")) == NAMES
    listed = (task_pages.PAGES.parent / "environments.md").read_text()
    assert [name for name in NAMES if f"](tasks/{name}.md)" not in listed] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_what_the_environment_plays_now(name: str) -> None:
    page = task_pages.page(name)
    assert (task_pages.PAGES / f"{name}.md").read_text() == page, "run: python scripts/task_pages.py"
    assert "\nreturn  1\n" in page and "\nreturn  0\n" in page
