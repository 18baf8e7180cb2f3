"""Secrets and personal data are found, named by their line and never shown; prose is left alone."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from support import tokenizers as families
from support.models import save_base
from tunebuild.cli import app
from tunebuild.data.privacy import mask, masked_start, scan
from tunebuild.data.prompt_source import build_renderer
from tunebuild.data.rejects import Rejects
from tunebuild.data.rows import Reject, RowSource
from tunebuild.data.stage import DataStage
from tunebuild.errors import TunebuildError
from tunebuild.spec.data import DataSource, DataSpec, PrivacySpec
from tunebuild.spec.model import PromptSpec
from tunebuild.store import Silent, Store, digest_file

# Put together here, so that nothing in this file has the form of a token.
AB = "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA1bC3"
SECRETS = {
    "AWS Access Key": "AKIA" + "QWERTYUIOPASDFGH",
    "GitHub Token": "ghp" + "_" + AB,
    "GitLab Token": "glpat" + "-" + AB[:20],
    "Slack Token": "xoxb" + "-1234567890-" + "abcdefghij",
    "Stripe Access Key": "sk" + "_live_" + AB[:24],
    "Hugging Face Token": "hf" + "_" + AB[:34],
    "Anthropic Key": "sk-" + "ant-api03-" + AB,
    "Google API Key": "AI" + "za" + AB[:35],
    "OpenAI Token": "sk-" + AB[:20] + "T3Blbk" + "FJ" + AB[:20],
    "Telegram Bot Token": "123456789" + ":" + AB[:35],
    "SendGrid API Key": "SG" + "." + AB[:22] + "." + (AB + AB)[:43],
    "JSON Web Token": "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiJ4In0" + ".c2lnbmF0dXJl",
    "Basic Auth Credentials": "hunter22x",
}
PERSONAL = {
    "e-mail address": "jane.doe+x@acme-corp.io",
    "telephone number": "+49 30 901820",
    "card number": "4111 1111 1111 1111",
    "IBAN": "DE89 3704 0044 0532 0130 00",
}
WRITTEN = {**SECRETS, **PERSONAL, "Basic Auth Credentials": "https://bob:hunter22x@db.acme.io/x"}


@pytest.mark.parametrize("kind", WRITTEN)
@settings(max_examples=15, deadline=None)
@given(
    before=st.sampled_from(["", "see ", "(", "line\n", "\u00e4 "]),
    after=st.sampled_from(["", " .", ")", "\n", " ok", ", and"]),
)
def test_each_kind_is_found_wherever_it_stands_and_masked(kind, before, after):
    text = before + WRITTEN[kind] + after
    hidden = {**SECRETS, **PERSONAL}[kind]
    found = {f.kind: f for f in scan(text)}
    assert kind in found
    assert found[kind].text == hidden
    assert hidden not in found[kind].masked
    assert hidden not in mask(text)
    assert scan(text, secrets=False, personal=False) == []


@pytest.mark.parametrize(
    "text",
    [
        "The quick brown fox understands internationalisation and Donaudampfschifffahrtsgesellschaft.",
        "Write to help@example.com or root@host.test; call +1 555 0100 or 030 901820.",
        "Use AKIA" + "IOSFODNN7EXAMPLE as the key, or https://user:password@host/.",
        "Order 4111 1111 1111 1112 from 2024-01-31 12:30, 1234567890123456789 pieces.",
        "DE00 3704 0044 0532 0130 00 is no account.",
        "sk-" + "xxxxxxxxxxxxxxxxxxxxxxxx, hf_" + "x" * 34,
        "https://docs.acme.io/guides/how-to-reset-your-device-in-ten-easy-steps?page=12",
        "3f786850e387550fdab836ed7e6dc881de23001b",
    ],
)
def test_placeholders_and_wrong_check_digits_are_not_findings(text):
    assert [(f.kind, f.masked) for f in scan(text)] == []


def test_an_international_number_in_capitals_is_found_before_a_word():
    assert [f.text for f in scan("IBAN GB82 WEST 1234 5698 7654 32 OK", secrets=False)] == [
        "GB82 WEST 1234 5698 7654 32"
    ]


@pytest.mark.parametrize(
    "url",
    ["postgres://admin:hunter22x@db.acme.io/x", "https://me:hunter@22x@acme.io", "ssh://git@acme.io:22/x"],
)
def test_a_password_before_a_host_is_no_address(url):
    assert scan(url, secrets=False) == []
    found = scan(f"{url} or {PERSONAL['e-mail address']}, {url}", secrets=False)
    assert [f.text for f in found] == [PERSONAL["e-mail address"]]


def test_nothing_of_a_private_key_is_shown():
    key = "-----BEGIN RSA " + "PRIVATE KEY-----\nMIIEabc\n"
    assert "MIIE" not in mask(key)
    assert [f.masked for f in scan(key)] == ["BEGIN RSA " + "PRIVATE KEY ..."]


@pytest.mark.parametrize("place", [*range(560, 601, 8), *range((1 << 16) - 40, 1 << 16, 8)])
def test_an_excerpt_is_cut_after_it_is_masked(place):
    # So many words that masking brings what stands behind them to the front.
    token = "hf_" + AB * 5
    before = " ".join([token] * (place // (len(token) + 1))).ljust(place)
    text = before + SECRETS["GitHub Token"] + " and more"
    assert SECRETS["GitHub Token"][4:12] not in masked_start(text, 1 << 16)
    assert len(masked_start(text, 200)) <= 200


@pytest.mark.parametrize("before", ["\n", "\t", '"', "\u201c", "\\"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_an_excerpt_of_json_is_masked_as_what_it_means(before, ascii_only):
    text = json.dumps({"answer": before + SECRETS["Hugging Face Token"]}, ensure_ascii=ascii_only)
    assert SECRETS["Hugging Face Token"][4:] not in masked_start(text, 200)
    assert masked_start(json.dumps("\ud83d"), 200) == '"\ufffd"'


@pytest.fixture
def stage(tmp_path):
    base = families.save(families.byte_level(), tmp_path / "base")
    renderer = build_renderer(PromptSpec(), base, tmp_path)
    rows = tmp_path / "rows.jsonl"
    pairs = [("Why?", "So."), (f"Is {SECRETS['GitHub Token']} right?", "No."), ("Who?", PERSONAL["IBAN"])]
    rows.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in [*pairs, pairs[1]]))

    def make(**privacy):
        return DataStage(
            data=DataSpec(train=(DataSource(path=rows.name),), privacy=PrivacySpec(**privacy)),
            train=(RowSource(rows, rows.name, "qa"),),
            held_out=(),
            file_digests=(digest_file(rows),),
            renderer=renderer,
            tokenizer_dir=base,
            max_length=500,
            seed=0,
            vocabulary_size=renderer.tokenizer.vocabulary_size,
        )

    return make


def lines(tree, name):
    return [json.loads(line) for line in tree.path(name).read_text().splitlines()]


def test_by_default_secrets_stop_the_build_and_the_rest_is_listed(stage, tmp_path):
    store = Store(tmp_path / "store")
    with pytest.raises(TunebuildError, match=r"rows.jsonl:2: GitHub Token: ghp_... \(40 ch") as raised:
        store.ensure(stage(), Silent())
    assert SECRETS["GitHub Token"] not in str(raised.value)
    assert raised.value.diagnostics[0].path == "data.privacy.secrets"
    assert "rows.jsonl:3" not in str(raised.value)
    assert "characters)\ntake them out" in str(raised.value)


def test_reported_rows_are_used(stage, tmp_path):
    tree = Store(tmp_path / "store").ensure(stage(secrets="report"), Silent())
    found = [(f["line"], f["found"], f["kind"], f["outcome"]) for f in lines(tree, "findings.jsonl")]
    assert found == [
        (2, "secret", "GitHub Token", "reported"),
        (3, "personal", "IBAN", "reported"),
        (4, "secret", "GitHub Token", "reported"),
    ]
    stats = json.loads(tree.path("stats.json").read_text())
    assert stats["rows"]["train"] == 3
    assert stats["found"] == {"GitHub Token": 2, "IBAN": 1}
    # The duplicate's excerpt does not show what the finding masks.
    ((duplicate),) = lines(tree, "rejects.jsonl")
    assert duplicate["code"] == "duplicate"
    assert "ghp_..." in duplicate["excerpt"]


def test_an_excerpt_shows_no_half_of_a_secret(stage, tmp_path):
    made = stage(secrets="report")
    # A key that is long, and short once masked.
    question = f"hf_{AB * 15}{AB[:20]} {SECRETS['GitHub Token']}"
    rows = made.train[0].path
    rows.write_text(json.dumps({"question": question}) + "\n" + rows.read_text())
    tree = Store(tmp_path / "store").ensure(
        replace(made, data=made.data.model_copy(update={"max_rejected": 0.5})), Silent()
    )
    first = lines(tree, "rejects.jsonl")[0]
    assert first["code"] == "bad-row"
    assert AB[:8] not in first["excerpt"]
    assert "ghp_..." in first["excerpt"]


def test_rejected_rows_are_counted_and_masked_everywhere(stage, tmp_path):
    tree = Store(tmp_path / "store").ensure(stage(secrets="reject", personal="reject"), Silent())
    assert [(r["line"], r["code"], r["reason"]) for r in lines(tree, "rejects.jsonl")] == [
        (2, "secret", "GitHub Token found"),
        (3, "personal", "IBAN found"),
        (4, "secret", "GitHub Token found"),
    ]
    for hidden in (SECRETS["GitHub Token"], PERSONAL["IBAN"]):
        for file in (name for name in tree.path().rglob("*") if name.is_file()):
            assert hidden.encode() not in file.read_bytes(), file


def test_a_reason_that_quotes_the_row_is_masked(tmp_path):
    file = io.StringIO()
    rejects = Rejects(file)
    rejects.add([Reject("faq.jsonl", 1, "bad-row", "role is 'jane.doe+x@acme-corp.io'", "{}")])
    assert "jane.doe+x@acme" not in file.getvalue()
    assert "jane.doe+x@acme" not in str(rejects.first_bad[0])
    assert "role is 'jane" in file.getvalue()


def test_off_finds_nothing(stage, tmp_path):
    tree = Store(tmp_path / "store").ensure(stage(secrets="off", personal="off"), Silent())
    assert lines(tree, "findings.jsonl") == []


def test_the_finders_version_counts_only_where_rows_are_chosen_by_it(stage):
    assert stage().own()["privacy"]["scanners"] == {}
    assert set(stage(personal="reject").own()["privacy"]["scanners"]) == {"phonenumbers", "python-stdnum"}


def test_the_command_shows_them_masked(tmp_path):
    save_base("llama", tmp_path / "base")
    answer = f"Ask {PERSONAL['e-mail address']} for {SECRETS['GitHub Token']}"
    rows = [{"question": f"Why {i}?", "answer": answer} for i in range(3)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "apiVersion: tunebuild/v1\nname: x\nmodel: {base: ./base}\nprompt: {template: chatml}\n"
        "data: {train: [{path: rows.jsonl}], privacy: {secrets: report}}\n"
    )
    store = ["--store", str(tmp_path / "store")]
    shown = CliRunner().invoke(app, ["data", str(spec), *store])
    assert shown.exit_code == 0, shown.output
    assert "found in rows: 3 GitHub Token, 3 e-mail address" in shown.output
    assert "Ask jane... (23 characters) for ghp_... (40 characters)" in shown.output
    assert "rows.jsonl:2: e-mail address jane... (23 characters), reported" in shown.output
    page = tmp_path / "page.html"
    assert CliRunner().invoke(app, ["data", str(spec), *store, "--html", str(page)]).exit_code == 0
    assert "Secrets and personal data" in page.read_text()
    assert "Why 0?" in page.read_text()
    for hidden in (PERSONAL["e-mail address"], SECRETS["GitHub Token"]):
        assert hidden not in shown.output + page.read_text()
