/* Administration: one section at a time. */

import { session } from "./api.js";
import { element } from "./dom.js";
import { fault } from "./parts.js";
import { t } from "./texts.js";
import { engines } from "./admin_engines.js";
import { outbox, peers } from "./admin_dicom.js";
import { audit, rules, tokens, users } from "./admin_access.js";

/** Sections with the events after which they are loaded again. */
const SECTIONS = {
  users: [users, []], tokens: [tokens, []], peers: [peers, ["peer"]], engines: [engines, ["engine"]],
  rules: [rules, []], outbox: [outbox, ["outbox"]], audit: [audit, []],
};
const OF_AUDITORS = ["audit"];

export class AdminView {
  #load = 0;

  constructor(root, args) {
    this.names = session.who.role === "admin" ? Object.keys(SECTIONS) : OF_AUDITORS;
    this.tabs = element("nav", { className: "tabs", "aria-label": t("admin.sections") },
      ...this.names.map((name) => element("a", { href: `#/admin/${name}` }, t(`admin.${name}`))));
    this.title = element("h2", {});
    this.text = element("p", { className: "quiet" });
    this.content = element("div", { className: "section" });
    root.append(element("div", { className: "bar" }, element("h1", {}, t("view.admin"))), this.tabs,
      this.title, this.text, this.content);
    this.moved(args);
  }

  moved([name]) {
    this.name = this.names.includes(name) ? name : this.names[0];
    for (const link of this.tabs.children) {
      if (link.getAttribute("href") === `#/admin/${this.name}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    this.title.textContent = t(`admin.${this.name}`);
    this.text.textContent = t(`admin.${this.name}.text`);
    this.content.replaceChildren();
    this.load();
    return true;
  }

  changed(kind) {
    if (SECTIONS[this.name][1].includes(kind) || kind === "resync") this.load();
  }

  async load() {
    const load = this.#load += 1;
    const [section] = SECTIONS[this.name];
    try {
      const parts = await section(() => this.load());
      // Keep the input of a form.
      if (load === this.#load && !this.content.querySelector("form :focus")) {
        this.content.replaceChildren(...parts);
      }
    } catch (error) {
      if (load === this.#load) this.content.replaceChildren(fault(error, () => this.load()));
    }
  }
}
