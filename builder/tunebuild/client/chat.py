"""A conversation with a running endpoint, answers as they come."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tunebuild.errors import fail

_SECONDS = 300.0


@dataclass
class Chat:
    """A conversation.

    Attributes:
        url: the endpoint's root.
        key: sent as the bearer; none if empty.
        settings: of sampling, as the API names them.
        system: the system message; empty leaves it to the model's own.
        turns: what was said so far.
    """

    url: str
    key: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    system: str = ""
    turns: list[dict[str, str]] = field(default_factory=list)
    _model: str = ""

    @property
    def model(self) -> str:
        """Name of the model that the endpoint serves.

        Raises:
            TunebuildError: as :meth:`answer`.
        """
        if not self._model:
            self._model = str(self._json("GET", "/v1/models")["data"][0]["id"])
        return self._model

    def answer(self, question: str) -> Iterator[str]:
        """Ask; pieces of the answer. What has come of it is kept, even if it is left early.

        Raises:
            TunebuildError: ``endpoint-unreachable`` or ``endpoint-refused``; the question is not kept then.
        """
        body = {
            "model": self.model,
            "messages": self._messages(question),
            "stream": True,
            **self.settings,
        }
        connection, response = self._ask("POST", "/v1/chat/completions", body)
        said: list[str] = []
        try:
            for event in _events(response):
                if "error" in event:
                    raise fail("endpoint-refused", str(event["error"]["message"]))
                for choice in event["choices"]:
                    if text := choice["delta"].get("content"):
                        said.append(text)
                        yield text
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise fail("endpoint-unreachable", f"the answer broke off: {error}") from None
        finally:
            connection.close()
            if said:
                self.turns += [
                    {"role": "user", "content": question},
                    {"role": "assistant", "content": "".join(said)},
                ]

    def prompt(self, question: str = "") -> str:
        """The exact prompt of the conversation, control tokens spelled out.

        Raises:
            TunebuildError: as :meth:`answer`.
        """
        found = self._json("POST", "/render", {"messages": self._messages(question)})
        return str(found["text"])

    def _messages(self, question: str) -> list[dict[str, str]]:
        system = [{"role": "system", "content": self.system}] if self.system else []
        asked = [{"role": "user", "content": question}] if question else []
        return [*system, *self.turns, *asked]

    def _json(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        connection, response = self._ask(method, path, body)
        try:
            return json.load(response)
        finally:
            connection.close()

    def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        parts = urlsplit(self.url)
        secure = parts.scheme == "https"
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        try:
            connection = kind(parts.netloc, timeout=_SECONDS)
            data = None if body is None else json.dumps(body)
            connection.request(method, parts.path.rstrip("/") + path, data, headers)
            response = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            hint = "start it with 'tunebuild run SPEC'"
            raise fail("endpoint-unreachable", f"cannot ask {self.url}: {error}", hint) from None
        if response.status == 200:
            return connection, response
        text = response.read().decode("utf-8", "replace")
        connection.close()
        try:
            message = json.loads(text)["error"]["message"]
        except (ValueError, KeyError, TypeError):
            message = text[:200]
        hint = "put the key into the variable that --key-env names" if response.status == 401 else ""
        raise fail("endpoint-refused", f"{self.url} answered {response.status}: {message}", hint)


def _events(response: http.client.HTTPResponse) -> Iterator[dict[str, Any]]:
    for line in response:
        if line.startswith(b"data: ") and (data := line[6:].strip()) != b"[DONE]":
            yield json.loads(data)
