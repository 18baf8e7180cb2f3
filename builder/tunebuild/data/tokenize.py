"""Rows to tokens, a chunk at a time. Needs nothing but the chunk, so many processes can do it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa

from tunebuild.data import unused
from tunebuild.data.formats import PLAIN, RowRejected, Talk, to_conversation, unused_columns
from tunebuild.data.likeness import question_digests, row_digest
from tunebuild.data.privacy import masked_start, scan
from tunebuild.data.reading import SourceRow
from tunebuild.data.rows import EXCERPT, Finding, Reject
from tunebuild.data.samples import Sample, batch_of
from tunebuild.data.shorten import shorten
from tunebuild.prompt import Example, Message, PromptRefused, Renderer, Samples
from tunebuild.spec.data import PrivacySpec


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
        chosen_by: the file's columns that rows are chosen by.
    """

    source: int
    shown: str
    format: str
    columns: Mapping[str, str]
    rows: list[SourceRow] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    chosen_by: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Tokenized:
    """A chunk's samples, of :data:`SCHEMA`, its rejects and what was found, all in order of the rows.

    ``longest`` is how many tokens the longest row has, uncut; ``unused`` is what no prompt shows of the rows,
    all of which are of the file with number ``source``.
    """

    batch: pa.RecordBatch
    rejects: list[Reject]
    findings: list[Finding]
    longest: int
    source: int
    unused: unused.Account


@dataclass(frozen=True, slots=True)
class Tokenizer:
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

    def __call__(self, chunk: Chunk) -> Tokenized:
        """Every row becomes samples or a reject."""
        samples: list[Sample] = []
        rejects = list(chunk.rejects)
        findings: list[Finding] = []
        longest = 0
        account: unused.Account = Counter()
        talks: list[tuple[SourceRow, Talk]] = []
        for row in chunk.rows:
            try:
                talk = to_conversation(row.value, chunk.format, chunk.columns)
                talk = replace(talk, messages=self.renderer.separated(talk.messages))
            except RowRejected as error:
                rejects.append(reject(chunk.shown, row, "bad-row", str(error)))
                continue
            found = self._findings(chunk.shown, row.line, talk.messages)
            findings += found
            if refused := next((f for f in found if f.outcome == "rejected"), None):
                rejects.append(reject(chunk.shown, row, refused.found, f"{refused.kind} found"))
            else:
                talks.append((row, talk))
        examples = self._examples([talk.messages for _, talk in talks])
        for (row, talk), outcome in zip(talks, examples, strict=True):
            try:
                if isinstance(outcome, PromptRefused):
                    raise outcome
                if self.renderer.ignores_calls(talk.messages):
                    reason = f"template '{self.renderer.template.name}' prints none of its tool calls"
                    rejects.append(reject(chunk.shown, row, "calls-not-printed", reason))
                    continue
                longest = max([longest, *(len(example.ids) for _, example in outcome)])
                messages, not_shown = self._as_printed(talk.messages)
                not_shown.update(
                    unused.columns(unused_columns(row.value, chunk.format, chunk.columns, chunk.chosen_by))
                )
                found_here = [
                    sample
                    for turns, example in outcome
                    if (sample := self._sample(chunk.source, row.line, messages[: len(turns)], talk, example))
                ]
                samples += found_here
                unused.add(account, not_shown)
            except _TooLong as error:
                code = "answer-too-long" if self.shorten else "too-long"
                rejects.append(reject(chunk.shown, row, code, str(error)))
            except PromptRefused as refusal:
                diagnostic = refusal.diagnostics[0]
                code = diagnostic.code
                if code == "template-refused" and self.renderer.refuses_system(talk.messages):
                    own = any(turn["role"] == "system" for turn in talk.messages)
                    code = "system-refused" if own else "spec-system-refused"
                rejects.append(reject(chunk.shown, row, code, diagnostic.message))
        batch = batch_of(samples, near=self.near)
        in_order = sorted(rejects, key=lambda r: r.line)
        return Tokenized(batch, in_order, findings, longest, chunk.source, account)

    def _as_printed(self, messages: list[Message]) -> tuple[list[Message], unused.Account]:
        if messages[0]["role"] == PLAIN:
            return messages, Counter()
        return unused.as_printed(self.renderer, messages)

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

    def _sample(
        self, source: int, line: int, messages: list[Message], talk: Talk, example: Example
    ) -> Sample | None:
        """A sample, or ``None`` where none of its answers is supervised."""
        shortened = self.shorten and len(example.ids) > self.max_length
        if shortened and (fitting := shorten(messages, self.renderer, self.max_length)):
            messages, example = fitting
        answers = [place for place, turn in enumerate(messages) if turn["role"] == "assistant"]
        # The spans of a sample are those of its last answers: all of them, or the last one.
        trained = (
            [
                (place, span)
                for place, span in zip(answers[-len(example.supervised) :], example.supervised, strict=True)
                if place not in talk.masked
            ]
            if answers
            else [(len(messages), example.supervised[0])]
        )
        if not trained:
            return None
        if len(example.ids) > self.max_length:
            what = "without what the user said still " if shortened else ""
            raise _TooLong(f"{what}has {len(example.ids)} tokens, at most {self.max_length} are allowed")
        places = [place for place, _ in trained]
        return Sample(
            example.ids,
            [place for _, span in trained for place in span],
            _ENCODE(messages),
            row_digest(messages, talk.masked, folded=self.folded),
            question_digests(messages, places),
            source,
            line,
            len(answers),
            shortened,
            places,
        )


# Keys stay in order: a template may print them.
_ENCODE = json.JSONEncoder(ensure_ascii=False, default=str).encode


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
