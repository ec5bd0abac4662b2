"""The live page: on this machine alone, GET alone, nothing but its page, and every text escaped."""

import http.client
import json
import socket
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from evotext.run_folder.reader import read_run
from evotext.run_folder.schema import TrainingEpisode
from evotext.run_folder.writer import JsonLines
from reports.live import live_page, seconds_left
from scripts.commands.live_server import serving
from tests.reports.run_folders import write_run
from tests.reports.test_outputs import NASTY, Page

NOW = datetime(2026, 1, 2, 3, 4, 5)


def going_on(folder: Path, text: str = "", **options: Any) -> Path:
    """A run that is half done: no summary yet, and newer lines than its last measurement."""
    write_run(folder, status="interrupted", samples=True, **options)
    (folder / "summary.json").unlink()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        if line["kind"] == "eval":
            line["eval/spent"] = line["episodes"] / 40_960
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    tracker = JsonLines(folder)
    tracker.log_transcripts(99, [f"env> newest {text}"])
    tracker.log_training_episodes([TrainingEpisode(generation=100, text=f"in training {text}")])
    tracker.close()
    return folder


def shown(*folders: Path) -> str:
    return live_page([read_run(folder) for folder in folders], now=NOW, refresh=3)


def test_it_shows_how_far_runs_are_their_curves_and_the_newest_episodes(tmp_path: Path) -> None:
    done = write_run(tmp_path / "done", algorithm="grpo", samples=True)
    run = going_on(tmp_path / "run", seed=3)
    page = shown(done, run)
    assert '<meta http-equiv="refresh" content="3">' in page and "03:04:05" in page
    record = read_run(run)
    assert seconds_left(record) == pytest.approx(record.seconds * (1 - record.progress) / record.progress)
    assert seconds_left(read_run(done)) != seconds_left(read_run(done)), "NaN: nothing is left"
    assert f"{record.progress:.0%}" in page and "completed" in page
    assert f"<strong>{record.points[-1].score['success']:.2f}</strong>" in page
    assert "env&gt; newest" in page and "in training" in page and page.count("<polyline") == 1
    assert page.index("eggroll on sort") < page.index("grpo on sort"), "those that go on come first"


def test_points_are_measurements_in_their_place(tmp_path: Path) -> None:
    run = going_on(tmp_path / "run")
    points = read_run(run).points
    drawn = [tuple(map(float, pair.split(","))) for pair in shown(run).split('points="')[1].split('"')[0].split()]
    assert len(drawn) == len(points) > 3
    for (x, y), point in zip(drawn, points, strict=True):
        assert x == pytest.approx(36 + point.spent * (640 - 72), abs=0.06)
        assert y == pytest.approx(204 - point.score["success"] * (240 - 72), abs=0.06)


def test_every_text_is_escaped_and_nothing_is_loaded(tmp_path: Path) -> None:
    run = going_on(tmp_path / "run", NASTY, env=NASTY, algorithm=NASTY)
    page = shown(run)
    assert "<img" not in page and "<script" not in page and "\x1b" not in page
    assert page.count("&lt;img src=x onerror=") >= 4
    assert Page(page).open == []
    assert not [tag for tag in ("script", "img", "link", "iframe", "form") if f"<{tag}" in page]
    assert "url(" not in page and "http://" not in page and "https://" not in page


def test_damaged_and_missing_runs_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("{}\nnonsense\n")
    assert "unknown on unknown" in shown(tmp_path) and "none yet" in shown()


@pytest.fixture
def address() -> Iterator[tuple[str, int]]:
    with serving({"/": lambda: "<p>héllo", "/broken": broken}, port=0) as url:
        yield "127.0.0.1", int(url.rstrip("/").rpartition(":")[2])


def broken() -> str:
    raise ValueError("no runs")


def ask(
    address: tuple[str, int], path: str = "/", method: str = "GET", host: str | None = None
) -> tuple[int, str, Any]:
    connection = http.client.HTTPConnection(*address, timeout=10)
    connection.putrequest(method, path, skip_host=host is not None)
    if host is not None:
        connection.putheader("Host", host)
    connection.endheaders()
    reply = connection.getresponse()
    return reply.status, reply.read().decode(), reply.headers


def test_the_page_is_served_and_not_kept(address: tuple[str, int]) -> None:
    status, text, headers = ask(address)
    assert (status, text) == (200, "<p>héllo") and ask(address, "/?x=1")[0] == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8" and headers["Cache-Control"] == "no-store"
    assert "default-src 'none'" in headers["Content-Security-Policy"] and headers["X-Content-Type-Options"] == "nosniff"
    assert ask(address, "/broken")[:2] == (503, "not yet: no runs")
    assert ask(address)[0] == 200, "and it goes on"


@pytest.mark.parametrize(
    "path",
    [
        "/../etc/passwd",
        "/..%2f..%2fetc/passwd",
        "//etc/passwd",
        "/%2e%2e/",
        "/run/summary.json",
        "/report.html",
        "/.",
        "x",
        "http://127.0.0.1/etc",
    ],
)
def test_no_path_names_a_file(address: tuple[str, int], path: str) -> None:
    assert ask(address, path, host=f"127.0.0.1:{address[1]}")[:2] == (404, "no such page")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT"])
def test_nothing_but_get(address: tuple[str, int], method: str) -> None:
    assert ask(address, "/", method)[0] == 501


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "", "127.0.0.1", "127.0.0.1:1"])
def test_another_name_for_this_address_is_refused(address: tuple[str, int], host: str) -> None:
    assert ask(address, host=host)[0] == 403
    assert ask(address, host=f"localhost:{address[1]}")[0] == 200


def test_nobody_else_reaches_it_and_its_end_is_clean(free_of: Callable[[int], bool]) -> None:
    with serving({"/": lambda: ""}, port=0) as url:
        port = int(url.rstrip("/").rpartition(":")[2])
        with (
            pytest.raises(ValueError, match=f"port: expected a free one, or 0 for any, got {port}"),
            serving({}, port=port),
        ):
            pass
        with socket.socket() as other, pytest.raises(OSError, match="refused|timed out|unreachable"):
            other.settimeout(1)
            other.connect(("127.0.0.2", port))
    assert free_of(port)


@pytest.fixture
def free_of() -> Callable[[int], bool]:
    def refused(port: int) -> bool:
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", port)) != 0

    return refused
