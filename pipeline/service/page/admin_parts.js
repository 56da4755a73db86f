/* Parts of the sections of the administration. */

import { element } from "./dom.js";
import { button, confirmed, form, labelled, select } from "./parts.js";
import { problemText } from "./api.js";

export const field = (text, name, properties = {}) =>
  labelled(text, element("input", { name, required: true, autocomplete: "off", ...properties }));

export const choice = (text, name, options, value) => labelled(text, select(name, options, value));

export const tick = (text, name, checked = false) =>
  labelled(text, element("input", { type: "checkbox", name, checked }), "tick");

/** A button of a row, with a confirmation if `question` is given; shows errors. */
export function act(text, run, { question, className = "" } = {}) {
  const state = element("small", { className: "refused", role: "alert" });
  const made = button(text, async () => {
    if (question && !await confirmed(question, text)) return;
    made.disabled = true;
    state.textContent = "";
    try {
      await run();
    } catch (error) {
      state.textContent = problemText(error);
    } finally {
      made.disabled = false;
    }
  }, { className });
  return element("span", { className: "act" }, made, state);
}

/** A form below a heading. */
export function added(title, fields, action, submit) {
  return element("section", { className: "card" }, element("h3", {}, title),
    form(title, fields, action, submit));
}
