"""The page, the picture and the tables: whole, escaped and free of the network."""

import csv
import io
import json
import math
import re
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import plotly.graph_objects
import pytest
from rich.console import Console

from evotext.run_folder.find import find_runs
from evotext.run_folder.reader import read_run
from reports import formats
from reports.comparison import Comparison, compare
from reports.figures import axes_of, first_axis, learning_curves, points_in_words, styles
from reports.html_report import html_report
from reports.markdown import markdown
from reports.picture import picture, tick
from reports.tables import results_csv, terminal_tables
from tests.reports.run_folders import write_run

NASTY = '</script><img src=x onerror="alert(1)">|`$&\'\x1b[31m'
SPACE = "{http://www.w3.org/2000/svg}"
VOID = {"meta", "link", "input", "img", "br", "hr"}


def compared(root: Path) -> Comparison:
    return compare([read_run(folder) for folder in find_runs([root])], metric="success", seed=0)


def test_what_a_run_unlearned_is_shown_and_escaped(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "one")
    assert "What runs unlearned" not in html_report(compared(tmp_path), made=datetime(2026, 1, 2))
    tasks = [
        {"env": NASTY, "success_before": 0.5, "success_after": 0.25, "kl_from_start": 0.125},
        {"env": "free", "return_before": 3.0, "return_after": 2.0, "success_after": "broken"},
    ]
    retention = {"tasks": tasks, "drift": 2.0, "drift_share": 0.02}
    (folder / "evaluation.json").write_text(json.dumps({"retention": retention}))
    page = html_report(compared(tmp_path), made=datetime(2026, 1, 2))
    assert "What runs unlearned" in page and "0.50 → 0.25" in page and "0.1250" in page and "2.00%" in page
    assert "3.00 → 2.00" in page and "<img src=x" not in page


def test_the_parts_of_a_reward_are_shown_run_by_run(tmp_path: Path) -> None:
    """First and last measurement of each run; a run without names has no row, and what is no number is left out."""
    for seed in range(2):
        metrics = write_run(tmp_path / f"run-{seed}", seed=seed, before=0.25, final=0.75) / "metrics.jsonl"
        lines = [json.loads(line) for line in metrics.read_text().splitlines()]
        for line in lines:
            if seed == 0 and line["kind"] == "eval":
                broken = "broken" if line["generation"] == 0 else 0
                line |= {"eval/reward/form": line["eval/return"] / 5, f"eval/reward/{NASTY}": broken}
        metrics.write_text("\n".join(map(json.dumps, lines)))
    found = compared(tmp_path)
    (sheet,) = (one for one in found.sheets["sort"] if one.title == "Parts of the reward")
    assert sheet.heads == ("Run", "form", f"{NASTY[:-5]}\N{REPLACEMENT CHARACTER}[31m", "Return")
    assert sheet.rows == (("eggroll, seed 0", "0.05 → 0.15", "– → 0.00", "0.25 → 0.75"),)
    page = html_report(found, made=datetime(2026, 1, 2))
    assert "Parts of the reward" in page and "0.05 → 0.15" in page and "<img src=x" not in page
    assert "Parts of the reward" in markdown(found, picture="curves.svg")


@pytest.fixture
def comparison(tmp_path: Path) -> Comparison:
    for env in ("sort", "recall"):
        for algorithm in ("eggroll", "grpo"):
            for seed in range(3):
                write_run(tmp_path / f"{env}-{algorithm}-{seed}", algorithm=algorithm, env=env, seed=seed, samples=True)
    write_run(tmp_path / "bad", algorithm="ppo", env="sort", status="failed", reason="ValueError: no gradient")
    return compared(tmp_path)


class Drawing:
    """An SVG document as its elements say."""

    def __init__(self, text: str) -> None:
        self._root = ElementTree.fromstring(text)
        self.texts = ["".join(one.itertext()) for one in self._root.iter(SPACE + "text")]
        self.width, self.height = map(float, self._root.attrib["viewBox"].split()[2:])

    def named(self, prefix: str) -> dict[str, list[tuple[float, float]]]:
        """The points of each group's first path, in order, by the group's name."""
        found = {}
        for group in self._groups(prefix):
            numbers = re.findall(r"[-\d.]+", next(group.iter(SPACE + "path")).attrib["d"])
            found[group.attrib["id"]] = [(float(x), float(y)) for x, y in zip(*[iter(numbers)] * 2, strict=True)]
        return found

    def looks(self, prefix: str) -> dict[str, tuple[str, ...]]:
        """Stroke, dashes and mark of each group's lines, by the group's name."""
        return {
            group.attrib["id"]: tuple(
                path.get("style", "") + (path.attrib["d"] if path.get("id") else "")
                for path in group.iter(SPACE + "path")
            )
            for group in self._groups(prefix)
        }

    def _groups(self, prefix: str) -> list[ElementTree.Element]:
        return [group for group in self._root.iter(SPACE + "g") if group.get("id", "").startswith(prefix)]


class Page(HTMLParser):
    """Reads a page as a browser would: balanced tags, what they load, visible text, ids and references to them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.data: dict[str, str] = {}
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.data[self.tags[-1][1].get("id") or f"script {len(self.data)}"] = data
        elif not self.open or self.open[-1] != "style":
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def page_of(comparison: Comparison) -> Page:
    return Page(html_report(comparison, made=datetime(2026, 1, 2, 3, 4)))


def test_page_is_whole_and_loads_nothing(comparison: Comparison) -> None:
    page = page_of(comparison)
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "img", "object", "embed"), tag
        assert "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = [a[key] for _, a in page.tags for key in ("aria-labelledby",) if key in a]
    wanted += [str(a["href"])[1:] for tag, a in page.tags if tag == "a"]
    assert set(wanted) <= set(ids)
    policy = next(a["content"] for tag, a in page.tags if tag == "meta" and a.get("http-equiv"))
    assert policy is not None and policy.startswith("default-src 'none'; script-src 'sha256-")


def test_page_says_what_matters(comparison: Comparison) -> None:
    page = page_of(comparison)
    for expected in (
        "eggroll, grpo and ppo on recall and sort",
        "Budget of a run: 40,960 episodes; measured on 256 held-out episodes; decoding: greedy.",
        "failed (ValueError: no gradient)",
        "ppo: 1 of 1 runs not counted (1 failed)",
        "evotext train algorithm=grpo env=recall seed=2",
        "2.13.0",
        "llm> 123",
        "612 MB",
    ):
        assert expected in page.words, expected
    headings = [tag for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert headings.count("h1") == 1
    tables = [tag for tag, _ in page.tags if tag in ("table", "caption")]
    assert tables == ["table", "caption"] * (len(tables) // 2)
    plots = [a for _, a in page.tags if a.get("class") == "plot"]
    assert len(plots) == 3 and all("eggroll goes from 0.20 to" in str(a["aria-label"]) for a in plots[1:])


def test_figures_are_plotlys_and_hold_the_curves(comparison: Comparison) -> None:
    page = page_of(comparison)
    figures = json.loads(page.data["data-task-2"])["figures"]
    assert list(figures) == ["episodes", "generated_tokens", "seconds", "flops"]
    task = comparison.tasks[1]
    for axis, figure in figures.items():
        plotly.graph_objects.Figure(figure)  # raises for anything that plotly does not know
        means = {t["name"]: t for t in figure["data"] if t["meta"]["role"] == "mean"}
        assert set(means) == {"eggroll", "grpo"}
        for contestant in task.contestants[:2]:
            assert means[contestant.name]["y"] == pytest.approx(contestant.bands[axis].score.tolist(), abs=1e-6)
        runs = [t["line"]["dash"] for t in figure["data"] if t["meta"]["role"] == "run"]
        assert runs.count("solid") == 6 and runs.count("dot") == 1
        assert sum(t["meta"]["role"] == "band" for t in figure["data"]) == 2


def test_points_in_words_are_the_curves(comparison: Comparison) -> None:
    costs, rows = points_in_words(comparison.tasks[0], "episodes")
    assert costs == ["0", "4.10k", "10.2k", "20.5k", "30.7k", "41.0k"]
    band = comparison.tasks[0].contestants[0].bands["episodes"]
    assert rows[0][0] == "eggroll" and rows[0][1][0][0] == "0.20" and rows[0][1][-1][0] == f"{band.score[-1]:.2f}"


def test_names_are_text_everywhere(tmp_path: Path) -> None:
    write_run(tmp_path / "<b>bold", algorithm=NASTY, env=NASTY, reason=NASTY, status="completed", samples=True)
    write_run(tmp_path / "failed", algorithm=NASTY, env=NASTY, reason=NASTY, status="failed", seed=1)
    comparison = compared(tmp_path)
    page = page_of(comparison)
    assert not any(tag in ("img", "b") and "style" not in attributes for tag, attributes in page.tags)
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert '</script><img src=x onerror="alert(1)">' in page.words and "<b>bold" in page.words
    figure = json.loads(page.data["data-task-1"])["figures"]["episodes"]
    assert all("<" not in trace["name"] for trace in figure["data"])
    drawn = Drawing(picture(comparison, "episodes"))
    assert any(text.startswith('</script><img src=x onerror="alert(1)">|`$&') for text in drawn.texts)
    report = markdown(comparison, "curves.svg")
    assert "<img" not in re.sub(r"\\<", "", report.split("```bash")[0])
    assert "\x1b" not in report + results_csv(comparison)


def test_picture_draws_every_task_and_algorithm(comparison: Comparison) -> None:
    drawn = Drawing(picture(comparison, "seconds"))
    for expected in ("eggroll", "grpo", "recall", "sort", "Seconds of training", "Held-out success"):
        assert expected in drawn.texts
    assert len(drawn.named("curve-")) == len(drawn.named("band-")) == 4
    for points in drawn.named("curve-").values():
        assert all(0 <= x <= drawn.width and 0 <= y <= drawn.height for x, y in points)
        assert [x for x, _ in points] == sorted(x for x, _ in points)


def test_the_picture_draws_the_figures(comparison: Comparison) -> None:
    """On one scale from 0 to 1, and the same runs give the same picture."""
    text = picture(comparison, "episodes")
    drawn = Drawing(text)
    assert picture(comparison, "episodes") == text
    for number, task in enumerate(comparison.tasks):
        lines = {c.name: c.bands["episodes"] for c in task.contestants if c.bands}
        heights = [y for i in range(len(lines)) for _, y in drawn.named("curve-")[f"curve-{number}-{i}"]]
        scores = [score for band in lines.values() for score in band.score]
        per_score = np.polyfit(scores, heights, 1)
        assert np.polyval(per_score, scores) == pytest.approx(heights, abs=0.01) and per_score[0] < 0


def test_ticks_are_round(comparison: Comparison) -> None:
    drawn = Drawing(picture(comparison, "episodes"))
    assert drawn.texts[:5] == ["0", "10k", "20k", "30k", "40k"]
    assert [text for text in drawn.texts if re.fullmatch(r"[01](\.\d)?", text)][1:7] == [
        "0",
        "0.2",
        "0.4",
        "0.6",
        "0.8",
        "1",
    ]
    assert [tick(value) for value in (0, 40_000, 2_500, 1.5e9, 100, 0.5)] == ["0", "40k", "2.5k", "1.5G", "100", "0.5"]


def test_numbers_for_people() -> None:
    counts = {0: "0", 999: "999", 999.6: "1.00k", 1234: "1.23k", 41_000: "41.0k", 999_960: "1.00M", 2.3e12: "2.30T"}
    assert {value: formats.count(value) for value in counts} == counts
    assert formats.count(4.854) == "4.85" and formats.count(math.nan) == formats.MISSING
    assert [formats.seconds(s) for s in (0.05, 119.9, 120, 3725)] == ["0.1 s", "119.9 s", "2 min 0 s", "1 h 2 min"]
    assert [formats.memory(m) for m in (6.12e8, 2.5e9, math.nan)] == ["612 MB", "2.50 GB", formats.MISSING]
    assert [formats.listed(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]


def test_csv_has_every_run(comparison: Comparison) -> None:
    rows = list(csv.DictReader(io.StringIO(results_csv(comparison))))
    assert len(rows) == 13 and sum(row["counted"] == "1" for row in rows) == 12
    row = next(row for row in rows if (row["task"], row["contestant"], row["seed"]) == ("sort", "grpo", "2"))
    run = next(run for run in comparison.runs if (run.env, run.algorithm, run.seed) == ("sort", "grpo", 2))
    assert float(row["success_after"]) == run.after["success"] and float(row["episodes"]) == 40_960
    assert row["overrides"] == "algorithm=grpo env=sort seed=2"


def test_markdown_tables_are_even(comparison: Comparison) -> None:
    report = markdown(comparison, "curves.svg")
    assert "![Held-out success over training](curves.svg)" in report
    for block in re.findall(r"(?:^\|.*\n)+", report, flags=re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1, block


def printed(comparison: Comparison) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=80).print(*terminal_tables(comparison, 80), sep="\n")
    return out.getvalue().splitlines()


def test_long_names_get_tables_of_their_own(tmp_path: Path) -> None:
    for rank in (1, 16):
        for delay in (2, 16):
            options: dict[str, dict[str, object]] = {"algorithm": {"rank": rank}, "env": {"delay": delay}}
            write_run(tmp_path / f"{rank}-{delay}", env="recall", options=options)
    lines = printed(compared(tmp_path))
    assert max(map(len, lines)) <= 80
    assert [line.strip() for line in lines if "delay" in line] == ["recall (delay 2)", "recall (delay 16)"]
    assert sum(bool(re.search(r"0\.20 → 0\.\d\d .* 612 MB", line)) for line in lines) == 4


def test_terminal_table_fits_80_columns(comparison: Comparison) -> None:
    lines = printed(comparison)
    assert max(map(len, lines)) <= 80
    (line,) = [line for line in lines if line.startswith("sort")]
    assert re.search(r"eggroll +3 0\.20 → 0\.\d\d \[0\.\d\d, 0\.\d\d\] +41\.0k +287k +\d\d\.\d s 612 MB", line)


def test_swept_numbers_are_drawn_in_their_order(tmp_path: Path) -> None:
    """Not in that of their letters, in which 1024 comes before 32."""
    for population in (1024, 32, 128):
        for seed in (0, 1, 2):
            options: dict[str, dict[str, object]] = {"algorithm": {"population": population}}
            write_run(tmp_path / f"{population}-{seed}", seed=seed, options=options)
    assert list(styles(compared(tmp_path))) == [f"eggroll (population {n})" for n in (32, 128, 1024)]


def test_no_two_of_many_contestants_look_alike(tmp_path: Path) -> None:
    """Where colours repeat, dashes and marks differ, in the picture as on the page."""
    for population in range(8):
        write_run(tmp_path / str(population), options={"algorithm": {"population": population}})
    comparison = compared(tmp_path)
    style = styles(comparison)
    assert len(set(style.values())) == len(style) == 8
    figure = learning_curves(comparison.tasks[0], "episodes", "success", style)
    means = [trace for trace in figure["data"] if trace["meta"]["role"] == "mean"]  # type: ignore[attr-defined]
    drawn = {(trace["meta"]["style"], trace["line"]["dash"], trace["marker"]["symbol"]) for trace in means}
    assert len(drawn) == len({trace["legendgroup"] for trace in means}) == 8
    legend = Drawing(picture(comparison, "episodes")).looks("legend-")
    assert len(legend) == len(set(legend.values())) == 8


def test_styles_are_the_same_on_all_tasks_and_axis_is_the_budgets(comparison: Comparison) -> None:
    style = styles(comparison)
    assert style == {"eggroll": (0, 0), "grpo": (1, 1), "ppo": (2, 2)}
    assert first_axis(comparison) == "episodes" and len(axes_of(comparison.tasks[0], "success")) == 4
    figure = learning_curves(comparison.tasks[0], "episodes", "success", style)
    assert isinstance(figure["data"], list) and figure["data"]


def test_each_task_of_a_mixture_has_its_column(tmp_path: Path) -> None:
    """In both pages, before and after, whatever its name is; a run that does not say has a dash."""
    for algorithm in ("eggroll", "grpo"):
        for seed in range(3):
            folder = write_run(tmp_path / f"{algorithm}-{seed}", algorithm=algorithm, seed=seed)
            if algorithm == "eggroll":
                summary = json.loads((folder / "summary.json").read_text())
                summary["eval"]["by_task"] = {
                    NASTY: {"success_before": 0.25, "success_after": 0.75, "return_after": 3.0},
                    "far": {"success_after": 0.125},
                }
                (folder / "summary.json").write_text(json.dumps(summary))
    comparison = compared(tmp_path)
    (run, *_) = [run for run in comparison.runs if run.algorithm == "eggroll"]
    assert run.by_task_after["far"]["success"] == 0.125 and math.isnan(run.by_task_before["far"]["success"])
    for text in (page_of(comparison).words, markdown(comparison, "curves.svg")):
        assert "0.25 → 0.75 [0.75, 0.75]" in text and f"{formats.MISSING} → 0.12 [0.12, 0.12]" in text
