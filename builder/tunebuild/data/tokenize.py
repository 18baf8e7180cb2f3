"""Rows to tokens, a chunk at a time. Needs nothing but the chunk, so many processes can do it."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa

from tunebuild.data.formats import PLAIN, RowRejected, to_conversation
from tunebuild.data.likeness import question_digest, row_digest
from tunebuild.data.privacy import masked_start, scan
from tunebuild.data.reading import SourceRow
from tunebuild.data.rows import EXCERPT, Finding, Reject
from tunebuild.data.shorten import shorten
from tunebuild.prompt import Example, Message, PromptRefused, Renderer, Samples
from tunebuild.spec.data import PrivacySpec

#: A sample: ``spans`` are starts and ends of what carries loss, in turn; ``messages`` is JSON; ``answers``
#: counts assistant turns, 0 for plain text; ``source`` and ``line`` say where the row stands; signatures are
#: those of :mod:`tunebuild.data.near`, empty where nobody asks for them.
SCHEMA = pa.schema(
    [
        ("input_ids", pa.list_(pa.int32())),
        ("spans", pa.list_(pa.int32())),
        ("messages", pa.string()),
        ("row_digest", pa.binary(16)),
        ("question_digest", pa.binary(16)),
        ("source", pa.int32()),
        ("line", pa.int64()),
        ("answers", pa.int32()),
        ("shortened", pa.bool_()),
        ("row_signature", pa.binary()),
        ("question_signature", pa.binary()),
    ]
)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of one file.

    Attributes:
        source: the file's number.
        shown: the file's name in messages.
        format: a key of :data:`tunebuild.data.formats.FORMATS`.
        columns: the format's column name -> the file's.
        rows: readable rows, in order.
        rejects: rows that stand among them and are not used.
    """

    source: int
    shown: str
    format: str
    columns: Mapping[str, str]
    rows: list[SourceRow] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Tokenised:
    """A chunk's samples, of :data:`SCHEMA`, its rejects and what was found, all in order of the rows.

    ``longest`` is how many tokens the longest row has, uncut.
    """

    batch: pa.RecordBatch
    rejects: list[Reject]
    findings: list[Finding]
    longest: int


@dataclass(frozen=True, slots=True)
class Tokeniser:
    """Makes samples of rows.

    Attributes:
        renderer: the prompt contract.
        max_length: longest sample in tokens.
        shorten: whether to cut the beginning of what the user said where a sample is longer.
        folded: whether rows that differ in case, punctuation and white space alone have one digest.
        privacy: what to do about secrets and personal data.
        near: whether to sign rows and questions, so that those that are nearly the same can be found.
    """

    renderer: Renderer
    max_length: int
    shorten: bool
    folded: bool
    near: bool = False
    privacy: PrivacySpec = field(default_factory=lambda: PrivacySpec(secrets="off", personal="off"))

    def __call__(self, chunk: Chunk) -> Tokenised:
        """Every row becomes samples or a reject."""
        samples: list[_Sample] = []
        rejects = list(chunk.rejects)
        findings: list[Finding] = []
        longest = 0
        talks: list[tuple[SourceRow, list[Message]]] = []
        for row in chunk.rows:
            try:
                messages = to_conversation(row.value, chunk.format, chunk.columns)
            except RowRejected as error:
                rejects.append(reject(chunk.shown, row, "bad-row", str(error)))
                continue
            found = self._findings(chunk.shown, row.line, messages)
            findings += found
            if refused := next((f for f in found if f.outcome == "rejected"), None):
                rejects.append(reject(chunk.shown, row, refused.found, f"{refused.kind} found"))
            else:
                talks.append((row, messages))
        examples = self._examples([messages for _, messages in talks])
        for (row, messages), outcome in zip(talks, examples, strict=True):
            try:
                if isinstance(outcome, PromptRefused):
                    raise outcome
                if self.renderer.ignores_calls(messages):
                    reason = f"template '{self.renderer.template.name}' prints none of its tool calls"
                    rejects.append(reject(chunk.shown, row, "calls-not-printed", reason))
                    continue
                longest = max([longest, *(len(example.ids) for _, example in outcome)])
                for turns, example in outcome:
                    samples.append(self._sample(chunk.source, row.line, turns, example))
            except _TooLong as error:
                code = "answer-too-long" if self.shorten else "too-long"
                rejects.append(reject(chunk.shown, row, code, str(error)))
            except PromptRefused as refusal:
                diagnostic = refusal.diagnostics[0]
                code = diagnostic.code
                if code == "template-refused" and self.renderer.refuses_system(messages):
                    code = "system-refused" if messages[0]["role"] == "system" else "spec-system-refused"
                rejects.append(reject(chunk.shown, row, code, diagnostic.message))
        batch = _batch(samples, near=self.near)
        return Tokenised(batch, sorted(rejects, key=lambda r: r.line), findings, longest)

    def _findings(self, shown: str, line: int, messages: Sequence[Message]) -> list[Finding]:
        policies = {"secret": self.privacy.secrets, "personal": self.privacy.personal}
        secrets, personal = (policy != "off" for policy in policies.values())
        if not secrets and not personal:
            return []
        found: dict[tuple[str, str], Finding] = {}
        # Nothing that is looked for goes over the end of a line.
        for piece in scan("\n".join(_texts(messages)), secrets=secrets, personal=personal):
            outcome = _OUTCOMES[policies[piece.found]]
            finding = Finding(shown, line, piece.found, piece.kind, piece.masked, outcome)
            found.setdefault((piece.kind, piece.text), finding)
        return list(found.values())

    def _examples(self, conversations: Sequence[list[Message]]) -> list[Samples | PromptRefused]:
        talks = iter(self.renderer.examples_of([m for m in conversations if m[0]["role"] != PLAIN]))
        return [self._plain(m) if m[0]["role"] == PLAIN else next(talks) for m in conversations]

    def _plain(self, messages: list[Message]) -> Samples | PromptRefused:
        try:
            return [(messages, self.renderer.plain_example(messages[0]["content"]))]
        except PromptRefused as refusal:
            return refusal

    def _sample(self, source: int, line: int, messages: list[Message], example: Example) -> _Sample:
        shortened = self.shorten and len(example.ids) > self.max_length
        if shortened and (fitting := shorten(messages, self.renderer, self.max_length)):
            messages, example = fitting
        if len(example.ids) > self.max_length:
            what = "without what the user said still " if shortened else ""
            raise _TooLong(f"{what}has {len(example.ids)} tokens, at most {self.max_length} are allowed")
        return _Sample(
            example.ids,
            [place for span in example.supervised for place in span],
            _ENCODE(messages),
            row_digest(messages, folded=self.folded),
            question_digest(messages),
            source,
            line,
            sum(turn["role"] == "assistant" for turn in messages),
            shortened,
        )


# Keys stay in order: a template may print them.
_ENCODE = json.JSONEncoder(ensure_ascii=False, default=str).encode


class _Sample(NamedTuple):
    """One row of :data:`SCHEMA`."""

    input_ids: list[int]
    spans: list[int]
    messages: str
    row_digest: bytes
    question_digest: bytes
    source: int
    line: int
    answers: int
    shortened: bool


def _batch(samples: Sequence[_Sample], *, near: bool) -> pa.RecordBatch:
    width = len(_Sample._fields)
    ids, spans, *others = zip(*samples, strict=True) if samples else [()] * width
    columns = [_lists(ids), _lists(spans)]
    columns += [pa.array(v, field.type) for v, field in zip(others, list(SCHEMA)[2:width], strict=True)]
    columns += _signatures(samples) if near else [pa.array([b""] * len(samples), pa.binary())] * 2
    return pa.record_batch(columns, schema=SCHEMA)


def _signatures(samples: Sequence[_Sample]) -> list[pa.Array]:
    from tunebuild.data.near import signatures

    talks = [[str(turn["content"]) for turn in json.loads(sample.messages)] for sample in samples]
    asked = [turns[:-1] or turns for turns in talks]
    return [
        pa.array([row.tobytes() for row in signatures(["\n".join(turns) for turns in part])], pa.binary())
        for part in (talks, asked)
    ]


def _lists(rows: Sequence[list[int]]) -> pa.ListArray:
    """Lists of numbers as Arrow. Several times faster than Arrow's own reading of lists."""
    values, ends = array("i"), array("i", [0])
    for row in rows:
        values.fromlist(row)
        ends.append(len(values))
    return pa.ListArray.from_arrays(_int32(ends), _int32(values))


def _int32(values: array[int]) -> pa.Array:
    return pa.Array.from_buffers(pa.int32(), len(values), [None, pa.py_buffer(values)])


_OUTCOMES = {"report": "reported", "reject": "rejected", "error": "refused"}


def _texts(messages: Sequence[Message]) -> Iterator[str]:
    """All that a template could print of a conversation, but for the roles."""
    for turn in messages:
        for key, value in turn.items():
            if isinstance(value, str):
                if key != "role":
                    yield value
            else:
                yield json.dumps(value, ensure_ascii=False, default=str)


class _TooLong(Exception):
    """A sample does not fit."""


def reject(shown: str, row: SourceRow, code: str, reason: str) -> Reject:
    """A row of a file, not used."""
    excerpt = masked_start(row.text or _ENCODE(row.value), EXCERPT)
    return Reject(shown, row.line, code, reason, excerpt)
