"""The chat page in a real browser: what it does, by keyboard too, and that it asks nobody else."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from support.endpoint import make_bundle, serving

QUESTION = "How do I reset the device?"


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        if os.environ.get("CI") == "true":
            pytest.fail("chromium is not installed")
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    directory = tmp_path_factory.mktemp("bundle")
    renderer = make_bundle(directory, context=2048)
    with serving(directory, renderer, variables={"TUNEBUILD_API_KEYS": "secret"}) as running:
        yield running


@pytest.fixture
def page(browser, server) -> Iterator[Page]:
    context = browser.new_context()
    opened = context.new_page()
    problems: list[str] = []
    foreign: list[str] = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("console", lambda said: problems.append(said.text) if "Content Security" in said.text else None)
    opened.on(
        "request",
        lambda asked: None if asked.url.startswith((server.url, "data:")) else foreign.append(asked.url),
    )
    opened.set_default_timeout(60_000)
    expect.set_options(timeout=60_000)
    opened.goto(server.url)
    yield opened
    context.close()
    assert problems == []
    assert foreign == []


def unlock(page: Page) -> None:
    expect(page.get_by_role("alert")).to_contain_text("API key")
    page.get_by_label("API key").fill("secret")
    page.get_by_label("API key").press("Tab")
    expect(page.get_by_role("heading", name="tiny")).to_be_visible()
    expect(page.get_by_role("status")).to_have_text("Ready")


def test_an_answer_comes_and_is_what_the_api_says(page, server):
    unlock(page)
    page.get_by_label("Longest answer, tokens").fill("12")
    page.get_by_label("Your message").fill(QUESTION)
    page.get_by_label("Your message").press("Enter")
    answer = page.locator("li.assistant")
    expect(answer.get_by_role("button", name="Copy")).to_be_visible()
    expect(answer).to_contain_text("Cut at the longest answer that is allowed.")
    shown = answer.locator(".text").evaluate("node => node.textContent")
    body = {"model": "tiny", "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 12}
    headers = {"Authorization": "Bearer secret"}
    reply = page.request.post(f"{server.url}/v1/chat/completions", data=body, headers=headers).json()
    assert shown == reply["choices"][0]["message"]["content"]
    # A model's text is text, whatever it looks like.
    assert page.locator("#turns script, #turns img").count() == 0
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator("#turns li")).to_have_count(0)


def test_an_answer_can_be_stopped(page):
    unlock(page)
    page.get_by_label("Longest answer, tokens").fill("1900")
    page.get_by_label("Temperature").fill("1.2")
    page.get_by_label("Your message").fill(QUESTION)
    page.get_by_role("button", name="Send").click()
    expect(page.locator("li.assistant .text")).not_to_be_empty()
    page.keyboard.press("Escape")
    expect(page.locator("li.assistant")).to_contain_text("Stopped.")
    expect(page.get_by_role("button", name="Send")).to_be_enabled()
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()


def test_the_prompt_is_shown_as_the_model_reads_it(page, server):
    unlock(page)
    page.get_by_label("System message").fill("One word.")
    page.get_by_label("Your message").fill(QUESTION)
    page.get_by_role("button", name="Show prompt").click()
    turns = [{"role": "system", "content": "One word."}, {"role": "user", "content": QUESTION}]
    ids = server.renderer.prompt_ids(turns)
    expect(page.get_by_role("dialog")).to_contain_text(f"{len(ids)} tokens")
    expect(page.locator("#prompt-text")).to_contain_text("<|im_start|>system")
    tokens = page.locator("#prompt-tokens span").all_text_contents()
    assert tokens == [server.renderer.tokenizer.token_text(i) for i in ids]


def test_what_is_wrong_is_said_and_the_question_kept(page):
    unlock(page)
    page.get_by_label("Your message").fill("word " * 2000)
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("alert")).to_contain_text("more than the context")
    expect(page.get_by_label("Your message")).to_have_value("word " * 2000)
    expect(page.locator("#turns li")).to_have_count(0)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 360])
def test_everything_has_a_name_contrast_and_room(page, scheme, width):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 740})
    unlock(page)
    page.locator("#settings").evaluate("node => node.open = true")
    unnamed = page.evaluate(
        "() => [...document.querySelectorAll('input, textarea, button, summary')].filter(n => !n.hidden"
        " && !(n.labels?.length || n.textContent.trim())).map(n => n.id)"
    )
    assert unnamed == []
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    worst = page.evaluate(CONTRAST)
    assert worst[0] >= 4.5, worst
    # By keyboard alone: each stop is visible, and the conversation's controls are among them.
    reached = set()
    for _ in range(25):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("() => document.activeElement.id"))
    assert {"question", "send", "reset", "show", "system", "temperature", "key"} <= reached


#: The lowest contrast of text that is shown, by WCAG's formula, and where it is.
CONTRAST = """() => {
  const parts = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = (c) => parts(c).slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, n) => sum + v * [0.2126, 0.7152, 0.0722][n], 0);
  const ground = (n) => {
    for (; n; n = n.parentElement) {
      const c = getComputedStyle(n).backgroundColor;
      if (parts(c).length === 3 || parts(c)[3] > 0) return c;
    }
    return 'rgb(255, 255, 255)';
  };
  let worst = [99, ''];
  for (const n of document.querySelectorAll('body *')) {
    const said = [...n.childNodes].some((c) => c.nodeType === 3 && c.textContent.trim());
    if (!said || !n.checkVisibility()) continue;
    const [a, b] = [light(getComputedStyle(n).color), light(ground(n))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < worst[0]) worst = [ratio, n.id || n.textContent];
  }
  return worst;
}"""


def test_the_reference_lists_every_route_offline(page, server):
    page.goto(f"{server.url}/docs")
    page.get_by_label("API key").fill("secret")
    page.get_by_label("API key").press("Tab")
    expect(page.get_by_role("heading", name="POST /v1/chat/completions")).to_be_visible()
    headers = {"Authorization": "Bearer secret"}
    paths = page.request.get(f"{server.url}/openapi.json", headers=headers).json()["paths"]
    shown = page.locator("h2").all_text_contents()
    assert all(any(heading.endswith(f" {path}") for heading in shown) for path in paths)
