"""A model behind an OpenAI-compatible address: vLLM, SGLang, llama.cpp, Ollama, or somebody's service."""

import http.client
import json
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from evotext.cli.errors import ConfigError
from evotext.cli.messages import one_line, shown

from .episode import Turn

KEY = "OPENAI_API_KEY"
"""The environment variable whose value, if there is one, goes along as the bearer token."""
LARGEST_REPLY = 16 * 2**20
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class ServerError(RuntimeError):
    """The server did not answer as it should; the text is one line for the user."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirection would take the token to another host."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Take none: urllib then raises HTTPError."""


class Server:
    """Answers by chat completions. Raises ConfigError for an address that is none.

    url: of the API, with its version: `http://127.0.0.1:8000/v1`. max_tokens: of an answer. timeout: seconds for an answer.
    """

    def __init__(self, url: str, model: str, *, temperature: float, max_tokens: int, timeout: float) -> None:
        try:
            parts = urlsplit(url)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:  # of a port that is no number
            usable = False
        if not usable:
            raise ConfigError(f"server: expected an address like http://127.0.0.1:8000/v1, got {shown(url)}")
        self._url, self._timeout = f"{url.rstrip('/')}/chat/completions", timeout
        self._settings = {"model": model, "temperature": temperature, "max_tokens": max_tokens}
        self._headers = {"Content-Type": "application/json"}
        if token := os.environ.get(KEY):
            self._headers["Authorization"] = f"Bearer {token}"
        # A proxy has no business between a program and its own machine.
        proxies = [urllib.request.ProxyHandler({})] if parts.hostname in LOOPBACK else []
        self._opener = urllib.request.build_opener(_NoRedirect, *proxies)

    def answer(self, instructions: str, turns: Sequence[Turn], observation: str) -> str:
        """Return the model's answer to the conversation so far. Raise ServerError where there is none."""
        messages = [{"role": "system", "content": instructions}] if instructions else []
        for said, answered in turns:
            messages += [{"role": "user", "content": said}, {"role": "assistant", "content": answered}]
        messages.append({"role": "user", "content": observation})
        body = json.dumps({**self._settings, "messages": messages}).encode()
        request = urllib.request.Request(self._url, body, self._headers, method="POST")  # noqa: S310 (http, as checked)
        return _content(self._reply(request))

    def watch(self, turns: Sequence[Turn], episode_return: float) -> None:
        """Nobody watches."""

    def _reply(self, request: urllib.request.Request) -> bytes:
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                reply: bytes = response.read(LARGEST_REPLY)
                return reply
        except urllib.error.HTTPError as error:
            with error:
                said = one_line(error.read(2000).decode(errors="replace"))[:300]
            advice = f"; set {KEY} to your key" if error.code in (401, 403) and KEY not in os.environ else ""
            raise ServerError(
                f"server: {self._url} answered {error.code} {error.reason}{': ' * bool(said)}{said}{advice}"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            cause = error.reason if isinstance(error, urllib.error.URLError) else error
            if isinstance(cause, TimeoutError):
                raise ServerError(
                    f"server: no answer from {self._url} within {self._timeout:g} s; raise timeout= if it is only slow"
                ) from error
            reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
            raise ServerError(f"server: cannot reach {self._url}: {one_line(reason)}; is it running there?") from error


def _content(reply: bytes) -> str:
    """Return the text of a chat completion, empty where the model said nothing."""
    try:
        content = json.loads(reply)["choices"][0]["message"]["content"]
        if not isinstance(content, str | None):
            raise TypeError
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        text = reply.decode(errors="replace")
        raise ServerError(f"server: expected a chat completion as JSON, got {shown(text)}") from error
    return content or ""
