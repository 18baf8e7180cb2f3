// The chat page: asks the API that serves it, and nothing else. No text of a model is ever taken for HTML.

const $ = (id) => document.getElementById(id);
const turns = []; // as the API takes them: {role, content}
const numbers = ["temperature", "top_p", "max_tokens", "seed"];
let model = "";
let running = null; // an AbortController while an answer comes

function headers() {
  const key = $("key").value.trim();
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

async function call(path, body, signal) {
  let response;
  try {
    response = await fetch(path, {
      method: body ? "POST" : "GET",
      headers: headers(),
      body: body && JSON.stringify(body),
      signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server cannot be reached.");
  }
  if (response.ok) return response;
  let message = `The server answered ${response.status}.`;
  try {
    message = (await response.json()).error.message;
  } catch { /* it was no error of the API */ }
  if (response.status === 401) {
    $("key-row").hidden = false;
    $("settings").open = true;
    $("key").focus();
    message = "This server asks for an API key: enter it in the settings.";
  }
  throw new Error(message);
}

function tell(problem) {
  $("problem").textContent = problem;
  $("problem").hidden = !problem;
}

async function connect() {
  try {
    const found = await (await call("v1/models")).json();
    model = found.data[0].id;
    $("model").textContent = document.title = model;
    const ready = await fetch("readyz");
    $("state").textContent = ready.ok ? "Ready" : `Not ready: ${(await ready.json()).reason}`;
    tell("");
    if (!ready.ok) setTimeout(connect, 2000);
  } catch (error) {
    $("state").textContent = "Not connected";
    tell(error.message);
  }
}

function show(role, text) {
  const item = document.createElement("li");
  item.className = role;
  const who = document.createElement("div");
  who.className = "who";
  who.append(role === "user" ? "You" : "Model");
  const body = document.createElement("p");
  body.className = "text";
  body.textContent = text;
  item.append(who, body);
  $("turns").append(item);
  $("empty").hidden = true;
  item.scrollIntoView({ block: "end" });
  return item;
}

function addCopy(item) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "quiet small";
  button.textContent = "Copy";
  button.addEventListener("click", () => copy(item.querySelector(".text").textContent, button));
  item.querySelector(".who").append(button);
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without HTTPS there is no clipboard for scripts but the old way.
    const area = document.createElement("textarea");
    area.value = text;
    button.after(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = "Copy"), 1500);
}

function messages(question) {
  const system = $("system").value;
  return [
    ...(system ? [{ role: "system", content: system }] : []),
    ...turns,
    ...(question ? [{ role: "user", content: question }] : []),
  ];
}

function settings() {
  const found = {};
  for (const name of numbers) if ($(name).value !== "") found[name] = Number($(name).value);
  return found;
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    const parts = held.split("\n\n");
    held = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

function busy(controller) {
  running = controller;
  $("send").disabled = $("reset").disabled = Boolean(controller);
  $("stop").hidden = !controller;
}

async function ask(event) {
  event.preventDefault();
  const question = $("question").value;
  if (running || !question.trim() || !$("ask").reportValidity()) return;
  for (const name of numbers) if (!$(name).reportValidity()) return;
  tell("");
  const controller = new AbortController();
  busy(controller);
  const asked = show("user", question);
  const item = show("assistant", "");
  item.classList.add("running");
  // Read out as a whole once it is complete, not word by word.
  item.setAttribute("aria-busy", "true");
  const body = item.querySelector(".text");
  let note = "";
  try {
    const response = await call(
      "v1/chat/completions",
      { model, messages: messages(question), stream: true, ...settings() },
      controller.signal,
    );
    $("question").value = "";
    for await (const chunk of events(response)) {
      if (chunk.error) throw new Error(chunk.error.message);
      const choice = chunk.choices[0];
      if (!choice) continue;
      body.append(choice.delta.content || "");
      if (choice.finish_reason === "length") note = "Cut at the longest answer that is allowed.";
      item.scrollIntoView({ block: "nearest" });
    }
  } catch (error) {
    if (error.name === "AbortError") note = "Stopped.";
    else tell(error.message);
  }
  item.classList.remove("running");
  item.removeAttribute("aria-busy");
  if (body.textContent || note) {
    turns.push({ role: "user", content: question }, { role: "assistant", content: body.textContent });
    addCopy(item);
    if (note) {
      const line = document.createElement("p");
      line.className = "note";
      line.textContent = note;
      item.append(line);
    }
  } else if (!$("problem").hidden) {
    // Nothing came: the question goes back to where it can be sent again.
    $("question").value = question;
    asked.remove();
    item.remove();
  } else {
    turns.push({ role: "user", content: question }, { role: "assistant", content: "" });
  }
  busy(null);
  if (document.activeElement === document.body || document.activeElement === $("stop")) $("question").focus();
}

async function showPrompt() {
  const question = $("question").value;
  const all = messages(question);
  if (!all.length) {
    tell("There is no prompt yet: write a message first.");
    return;
  }
  try {
    const found = await (await call("render", { messages: all })).json();
    tell("");
    $("prompt-count").textContent = `${found.count} tokens`;
    $("prompt-text").textContent = found.text;
    $("prompt-tokens").replaceChildren(
      ...found.spelled.map((token) => {
        const part = document.createElement("span");
        part.textContent = token;
        return part;
      }),
    );
    $("prompt").showModal();
  } catch (error) {
    tell(error.message);
  }
}

$("ask").addEventListener("submit", ask);
$("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) ask(event);
});
$("stop").addEventListener("click", () => running?.abort());
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
});
$("reset").addEventListener("click", () => {
  turns.length = 0;
  $("turns").replaceChildren();
  $("empty").hidden = false;
  tell("");
  $("question").focus();
});
$("show").addEventListener("click", showPrompt);
$("copy-prompt").addEventListener("click", (event) => copy($("prompt-text").textContent, event.target));
$("key").addEventListener("change", connect);
if (matchMedia("(max-width: 48rem)").matches) $("settings").open = false;
connect();
