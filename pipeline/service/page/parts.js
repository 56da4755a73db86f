/* Components shared by several views. */

import { badge, drawn, element } from "./dom.js";
import { problemText } from "./api.js";
import { t, word } from "./texts.js";

const SHORT_TEXT = 28;

export const icon = (name) => drawn("svg", { class: `icon ${name}`, "aria-hidden": "true" },
  drawn("use", { href: `#icon-${name}` }));

export function button(text, act, { key, className = "", label } = {}) {
  const made = element("button", { type: "button", className }, text);
  if (key) made.append(element("kbd", {}, key));
  if (label) made.setAttribute("aria-label", label);
  if (key) made.setAttribute("aria-keyshortcuts", key);
  made.addEventListener("click", act);
  return made;
}

export function select(name, options, value, properties = {}) {
  const made = element("select", { name, ...properties },
    ...options.map(([option, text]) => element("option", { value: option }, text)));
  made.value = value ?? "";
  return made;
}

export const labelled = (text, control, className = "field") =>
  element("label", { className }, element("span", {}, text), control);

/** The answer of a picture, or its state if it has no answer. */
export function outcomeBadge(picture) {
  if (picture.hidden) return badge("blinded", t("state.hidden"));
  if (picture.state === "answered") return badge(picture.answer, word("answer", picture.answer));
  return badge(picture.state, word("state", picture.state));
}

/** Review state of a picture; null without a review. */
export function reviewChip(review) {
  if (!review || review === "withdrawn") return null;
  const state = review === "disputed" ? "disputed" : "reviewed";
  const text = state === "disputed" ? t("state.disputed")
    : t("state.reviewed", { verdict: word("verdict", review) });
  return chip(state, text);
}

export const chip = (state, text, detail) => {
  const made = element("span", { className: `chip ${state}` }, icon(state), text);
  if (detail) made.title = detail;
  return made;
};

/** A message shown instead of content. */
export const message = (text, ...more) =>
  element("div", { className: "message" }, element("p", {}, text), ...more);

/** An error message, with a button for the next step. */
export function fault(error, again) {
  const line = element("div", { className: "fault", role: "alert" },
    element("p", {}, problemText(error)));
  if (again) line.append(button(t("action.again"), again));
  return line;
}

/**
 * A table that scrolls horizontally if it is too wide.
 *
 * `columns` are texts, or null for a column of actions; `rows` are lists of cells.
 */
export function table(caption, columns, rows, className = "") {
  const head = element("tr", {}, ...columns.map((text) =>
    text === null ? element("td") : element("th", { scope: "col" }, text)));
  const body = rows.map((cells) => element("tr", {}, ...cells.map((cell, place) =>
    element(place === 0 ? "th" : "td", { ...(place === 0 ? { scope: "row" } : {}),
      className: isShort(cell) ? "short" : "" }, cell ?? "–"))));
  return element("div", { className: "wide", tabIndex: 0, role: "region", "aria-label": caption },
    element("table", { className: `plain ${className}` },
      element("caption", { className: "unseen" }, caption),
      element("thead", {}, head), element("tbody", {}, ...body)));
}

/** Whether a cell is a short text, which is not wrapped. */
const isShort = (cell) => typeof cell === "string" && cell.length <= SHORT_TEXT;

/**
 * A form that passes its fields as an object to `submit`, and shows errors of the service.
 *
 * `fields` are named controls, each in a label.
 */
export function form(title, fields, action, submit) {
  const faults = element("p", { className: "refused", role: "alert" });
  const send = element("button", { className: "primary" }, action);
  const made = element("form", { className: "form", autocomplete: "off", "aria-label": title },
    ...fields, send, faults);
  made.addEventListener("submit", async (event) => {
    event.preventDefault();
    faults.textContent = "";
    send.disabled = true;
    try {
      await submit(valuesOf(made), made);
    } catch (error) {
      faults.textContent = problemText(error);
    } finally {
      send.disabled = false;
    }
  });
  return made;
}

function valuesOf(made) {
  const values = {};
  for (const control of made.elements) {
    if (!control.name) continue;
    if (control.type === "checkbox") values[control.name] = control.checked;
    else if (control.type === "number") {
      values[control.name] = control.value === "" ? undefined : Number(control.value);
    } else values[control.name] = control.value === "" ? undefined : control.value;
  }
  return values;
}

/** Ask for confirmation of an action. */
export function confirmed(text, action) {
  const dialog = element("dialog", { className: "ask", "aria-label": action },
    element("p", {}, text));
  const { promise, resolve } = deferred();
  const close = (answer) => { dialog.close(); dialog.remove(); resolve(answer); };
  dialog.append(element("div", { className: "row" },
    button(action, () => close(true), { className: "danger" }),
    button(t("action.cancel"), () => close(false))));
  dialog.addEventListener("cancel", () => close(false));
  document.body.append(dialog);
  dialog.showModal();
  return promise;
}

export function deferred() {
  let resolve;
  const promise = new Promise((done) => { resolve = done; });
  return { promise, resolve };
}

/** Whether a key press is text input and not a keyboard shortcut. */
export function isTyping(event) {
  const { target } = event;
  if (target.isContentEditable || target.tagName === "TEXTAREA" || target.tagName === "SELECT") {
    return true;
  }
  return target.tagName === "INPUT" && !["checkbox", "radio", "range", "button"].includes(target.type);
}
