"""`evotext play`: a person, or a server on this machine's loopback, plays held-out episodes."""

import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from evotext.cli.main import run
from evotext.keys.instances import held_out_instances
from scripts.commands.playing.score import mean_interval, share_interval

Reply = Callable[[dict[str, Any]], tuple[int, bytes]]


class Server:
    """Answers what it is told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.reply: Reply = lambda body: (200, said("x"))
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append(body | {"path": self.path})
                outer.headers.append(dict(self.headers))
                status, text = outer.reply(body)
                try:
                    self.send_response(status)
                    if status == 302:
                        self.send_header("Location", "http://127.0.0.1:9/elsewhere")
                    self.end_headers()
                    self.wfile.write(text)
                except OSError:  # whoever asked has gone
                    pass

            def log_message(self, *_: Any) -> None:
                """Print nothing."""

        self.http = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


def said(text: str | None) -> bytes:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # a proxy that must not come between
    started = Server()
    yield started
    started.stop()


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def play(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        run("play", words)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def transcripts(file: str = "out.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(file).read_text().splitlines()]


def sorts(body: dict[str, Any]) -> tuple[int, bytes]:
    return 200, said("".join(sorted(body["messages"][-1]["content"].removeprefix("sort "))))


def test_a_server_plays_the_held_out_episodes(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.reply = lambda body: sorts(body) if len(server.asked) % 2 else (200, said(None))
    status = play(
        "env=sort", "env.digits=4", "episodes=6", "out=out.jsonl", f"server={server.url}/", "model=some/model"
    )
    assert status == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[:2] == ["episode 1 of 6: return 1", "episode 2 of 6: return 0"]
    assert told.out.splitlines()[-3].startswith("success 0.500 [0.188, 0.812], 3 of 6")
    assert told.out.splitlines()[-2].startswith("mean return 0.500 [") and told.err == ""
    played = transcripts()
    assert [line["instance"] for line in played] == list(held_out_instances(6))
    assert [line["success"] for line in played] == [True, False] * 3
    first = played[0]
    env = gymnasium.make("envs:evotext/Sort-v0", digits=4)
    observation, info = env.reset(seed=first["instance"], options={"split": "test"})
    assert first["turns"] == [{"observation": observation, "answer": "".join(sorted(observation[-4:]))}]
    assert (first["env"], first["model"], first["ending"]) == ("sort", "some/model", "task")
    asked = server.asked[0]
    assert asked["path"] == "/v1/chat/completions"
    assert (asked["model"], asked["temperature"], asked["max_tokens"]) == ("some/model", 0.0, 16)
    assert asked["messages"] == [
        {"role": "system", "content": info["instructions"]},
        {"role": "user", "content": observation},
    ]
    assert "Authorization" not in server.headers[0]


def test_a_conversation_of_several_turns(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    assert play("env=guess_number", "episodes=1", "out=out.jsonl", f"server={server.url}", "model=m") == 0
    (episode,) = transcripts()
    turns = episode["turns"]
    assert len(turns) == len(server.asked) > 2
    last = server.asked[-1]["messages"]
    assert [m["role"] for m in last] == ["system", *["user", "assistant"] * (len(turns) - 1), "user"]
    assert [m["content"] for m in last[1::2]] == [turn["observation"] for turn in turns]
    assert server.headers[0]["Authorization"] == "Bearer secret"
    assert "secret" not in Path("out.jsonl").read_text()


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (lambda body: (500, b"out of\nmemory"), "answered 500 Internal Server Error: out of memory"),
        (lambda body: (401, b""), "answered 401 Unauthorized; set OPENAI_API_KEY to your key"),
        (lambda body: (302, b""), "answered 302 Found"),
        (lambda body: (200, b"<html>"), "expected a chat completion as JSON, got '<html>'"),
        (lambda body: (200, b"[1]"), "expected a chat completion as JSON, got '[1]'"),
        (lambda body: (200, b'{"choices": []}'), "expected a chat completion as JSON"),
        (lambda body: (200, b'{"choices": [{"message": {"content": 3}}]}'), "expected a chat completion as JSON"),
        (lambda body: (200, b"[" * 100_000), "expected a chat completion as JSON"),
        (lambda body: (200, b"\xff"), "expected a chat completion as JSON"),
    ],
)
def test_a_bad_reply_is_one_line_and_what_was_played_stays(
    server: Server, reply: Reply, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server.reply = lambda body: sorts(body) if len(server.asked) == 1 else reply(body)
    assert play("env=sort", "episodes=3", "out=out.jsonl", f"server={server.url}", "model=m") == 1
    told = capsys.readouterr()
    assert told.err.startswith("error: server: ") and message in told.err and told.err.count("\n") == 1
    assert len(told.err) < 600
    assert [line["return"] for line in transcripts()] == [1.0]
    assert "success 1.000 [0.207, 1.000], 1 of 1" in told.out and "mean return 1.000, 1 episode\n" in told.out


def test_a_server_that_is_slow(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    def slow(body: dict[str, Any]) -> tuple[int, bytes]:
        time.sleep(0.4)
        return 200, said("x")

    server.reply = slow
    assert play("env=sort", "episodes=1", "timeout=0.1", f"server={server.url}", "model=m") == 1
    told = capsys.readouterr()
    line = (
        f"error: server: no answer from {server.url}/chat/completions within 0.1 s; raise timeout= if it is only slow\n"
    )
    assert told.err == line and told.out == "no episode was played to its end\n"
    assert not list(Path("plays").iterdir())


def test_nobody_listens(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    assert play("env=sort", f"server={url}", "model=m") == 1
    told = capsys.readouterr().err
    assert told.startswith(f"error: server: cannot reach {url}/chat/completions: Connection refused")
    assert told.count("\n") == 1


def test_a_person_plays_until_the_end_of_the_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    env = gymnasium.make("envs:evotext/Sort-v0")
    first = env.reset(seed=held_out_instances(1)[0], options={"split": "test"})[0]
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(sorted(first[-5:])) + "\nnonsense\n"))
    assert play("env=sort", "out=out.jsonl") == 0
    told = capsys.readouterr().out
    assert first in told and "Write the same 5 digits" in told and "return 1\n" in told and "return 0\n" in told
    assert "success 0.500 [0.095, 0.905], 1 of 2" in told
    assert [line["success"] for line in transcripts()] == [True, False] and transcripts()[0]["model"] is None


def test_ctrl_c_keeps_what_was_played(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    answers = iter(["x"])

    def typed(prompt: str) -> str:
        for answer in answers:
            return answer
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", typed)
    assert play("env=sort", "out=out.jsonl") == 130
    assert len(transcripts()) == 1 and "0 of 1" in capsys.readouterr().out


def test_a_terminal_is_not_steered_by_what_an_environment_says(capsys: pytest.CaptureFixture[str]) -> None:
    from scripts.commands.playing.person import _shown

    assert _shown("a\x1b[2Jb\nc\u202e") == "a\\x1b[2Jb\nc\\u202e"


def test_an_environment_that_fails(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("env=gym", "env.id=tests.rollouts.toy_environments:toy/Chatter-v0", "+env.fault=reset")
    assert play(*words, f"server={server.url}", "model=m") == 1
    told = capsys.readouterr().err
    assert told.startswith("error: the environment raised ") and told.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["env=srot"], "env: expected arithmetic, "),
        (["env.digits=99"], "env.digits: expected a number of at most 15, got 99"),
        (["server=http://x/v1"], "server: expected an address and the model's name together"),
        (["model=x"], "server: expected an address and the model's name together"),
        (["server=ftp://x", "model=x"], "server: expected an address like http://127.0.0.1:8000/v1, got 'ftp://x'"),
        (["server=http://x:y", "model=x"], "server: expected an address like"),
        (["server=file:///etc/passwd", "model=x"], "server: expected an address like"),
        (["episodes=0"], "episodes: expected a number of at least 1, got '0'"),
        (["timeout=0"], "timeout: expected a number greater than 0, got '0'"),
        (["sort"], "expected key=value, got 'sort'"),
        (["--server"], "expected key=value, got '--server'; did you mean server?"),
        (["out=/proc/x/y"], "out: expected a file that can be written, got '/proc/x/y'"),
        (["serve=http://x"], "configuration: expected a known key, got 'serve'"),
    ],
)
def test_mistakes_are_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert play(*words) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {message}") and told.count("\n") == 1


@pytest.mark.parametrize(("successes", "count"), [(0, 1), (0, 10), (8, 20), (10, 10), (999, 1000)])
def test_wilsons_interval_holds_what_a_test_of_the_share_does_not_refuse(successes: int, count: int) -> None:
    """The score test of every share on a fine grid, with 1.96 standard errors."""
    grid = [i / 100_000 for i in range(100_001)]
    share = successes / count
    held = [p for p in grid if abs(share - p) <= 1.959964 * (p * (1 - p) / count) ** 0.5]
    assert share_interval(successes, count) == pytest.approx((held[0], held[-1]), abs=2e-5)


def test_the_interval_of_a_mean() -> None:
    assert mean_interval([1.0, 2.0]) is None
    assert mean_interval([3.0] * 5) == (3.0, 3.0)
    returns = [float(i % 7) for i in range(400)]  # spread 2 over 400: a standard error of 0.1
    interval = mean_interval(returns)
    assert interval is not None
    assert interval[0] == pytest.approx(2.98 - 0.196, abs=0.03) and interval[1] == pytest.approx(2.98 + 0.196, abs=0.03)
