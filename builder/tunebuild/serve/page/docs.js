// The API reference: openapi.json as a page, without anything from elsewhere.

const $ = (id) => document.getElementById(id);

function element(name, text, ...children) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

function table(heads, rows) {
  const head = element("tr", "", ...heads.map((text) => element("th", text)));
  head.querySelectorAll("th").forEach((cell) => (cell.scope = "col"));
  const body = rows.map((cells) =>
    element("tr", "", ...cells.map((text, n) => element("td", "", n ? text : element("code", text)))),
  );
  return element("table", "", element("thead", "", head), element("tbody", "", ...body));
}

function kind(schema, known) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(", ");
  const several = schema.anyOf || schema.oneOf;
  if (several) return [...new Set(several.map((one) => kind(one, known)))].join(" or ");
  if (schema.type === "array") return `list of ${kind(schema.items, known) || "anything"}`;
  const bounds = [
    ["minimum", "≥"], ["maximum", "≤"], ["exclusiveMinimum", ">"], ["exclusiveMaximum", "<"],
    ["minLength", "length ≥"], ["maxLength", "length ≤"],
  ].filter(([name]) => schema[name] !== undefined).map(([name, sign]) => `${sign} ${schema[name]}`);
  return [schema.type || "anything", ...bounds].join(", ");
}

function properties(schema, known) {
  const found = schema?.$ref ? known[schema.$ref.split("/").pop()] : schema;
  const required = new Set(found?.required || []);
  return Object.entries(found?.properties || {}).map(([name, value]) => [
    name, required.has(name) ? "required" : "", kind(value, known),
  ]);
}

function operation(method, path, found, known) {
  const parts = [element("h2", `${method.toUpperCase()} ${path}`)];
  if (found.description) parts.push(element("p", found.description));
  const body = found.requestBody?.content?.["application/json"]?.schema;
  if (body) parts.push(table(["Field", "", "Value"], properties(body, known)));
  const answers = Object.entries(found.responses || {}).map(([status, one]) => [status, one.description || ""]);
  parts.push(element("h3", "Answers"), table(["Status", "When"], answers));
  return element("section", "", ...parts);
}

async function load() {
  const key = $("key").value.trim();
  const response = await fetch("openapi.json", key ? { headers: { Authorization: `Bearer ${key}` } } : {});
  if (!response.ok) {
    $("key-row").hidden = response.status !== 401;
    $("problem").hidden = false;
    $("problem").textContent = (await response.json()).error.message;
    return;
  }
  const api = await response.json();
  const known = api.components?.schemas || {};
  $("problem").hidden = true;
  $("title").textContent = document.title = `API of ${api.info.title}`;
  const shown = Object.entries(api.paths).flatMap(([path, operations]) =>
    Object.entries(operations).map(([method, found]) => operation(method, path, found, known)),
  );
  const objects = Object.entries(known).map(([name, schema]) =>
    element("section", "", element("h2", name), element("p", schema.description || ""),
      table(["Field", "", "Value"], properties(schema, known))),
  );
  $("operations").replaceChildren(...shown, ...objects);
}

$("key").addEventListener("change", load);
load();
