"use strict";

// Everything is put in as text, never as markup.
function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function schemaName(schema) {
  return schema && schema.$ref ? schema.$ref.split("/").pop() : "";
}

function table(heads, rows) {
  const made = element("table");
  const head = made.appendChild(element("tr"));
  heads.forEach((text) => head.appendChild(element("th", text)));
  for (const row of rows) {
    const line = made.appendChild(element("tr"));
    row.forEach((cell) => {
      const place = line.appendChild(element("td"));
      if (cell instanceof Node) place.appendChild(cell);
      else place.textContent = cell;
    });
  }
  return made;
}

function linked(name) {
  return name ? element("a", name, { href: "#schema-" + name }) : element("span", "");
}

function bodyOf(content) {
  const types = Object.keys(content || {});
  if (!types.length) return ["", ""];
  const schema = content[types[0]].schema;
  return [types.join(", "), schemaName(schema) || schema];
}

function shownBody(body) {
  if (!body) return element("span", "");
  return typeof body === "string" ? linked(body) : element("pre", JSON.stringify(body, null, 2));
}

function operation(path, method, said) {
  const made = element("details");
  made.dataset.words = [path, method, said.summary, (said.tags || []).join(" ")].join(" ").toLowerCase();
  const line = made.appendChild(element("summary"));
  line.appendChild(element("span", method.toUpperCase(), { class: "method " + method }));
  line.appendChild(element("code", path));
  line.appendChild(element("span", "  " + (said.summary || ""), { class: "words" }));
  const below = made.appendChild(element("div"));
  if (said.description) below.appendChild(element("p", said.description));
  if (said.parameters && said.parameters.length) {
    below.appendChild(table(["parameter", "in", "meaning"], said.parameters.map((one) => [
      one.name + (one.required ? " *" : ""), one.in, one.description || "",
    ])));
  }
  if (said.requestBody) {
    const [types, schema] = bodyOf(said.requestBody.content);
    const about = below.appendChild(element("p", "Body (" + types + "): "));
    about.appendChild(shownBody(schema));
  }
  below.appendChild(table(["answer", "meaning", "body"], Object.entries(said.responses || {}).map(
    ([status, one]) => [status, one.description, shownBody(bodyOf(one.content)[1])],
  )));
  return made;
}

async function load() {
  const answer = await fetch("/api/management/v1/openapi.json");
  if (!answer.ok) throw new Error("openapi.json: " + answer.status);
  const api = await answer.json();
  document.getElementById("about").textContent = api.info.description + " Version " + api.info.version;
  const list = document.getElementById("operations");
  list.replaceChildren();
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, said] of Object.entries(methods)) list.appendChild(operation(path, method, said));
  }
  const schemas = document.getElementById("schemas");
  for (const [name, schema] of Object.entries(api.components.schemas).sort()) {
    const made = schemas.appendChild(element("details", undefined, { id: "schema-" + name }));
    made.appendChild(element("summary", name));
    made.appendChild(element("pre", JSON.stringify(schema, null, 2)));
  }
  document.getElementById("find").addEventListener("input", (event) => {
    const words = event.target.value.toLowerCase();
    for (const one of list.children) one.hidden = !one.dataset.words.includes(words);
  });
  window.addEventListener("hashchange", () => {
    const target = document.getElementById(location.hash.slice(1));
    if (target && target.tagName === "DETAILS") target.open = true;
  });
}

load().catch((error) => {
  document.getElementById("operations").replaceChildren(element("p", "Cannot be shown: " + error.message));
});
