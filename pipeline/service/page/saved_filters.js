/* Named filters of the worklist, stored in this browser. */

import { element } from "./dom.js";
import { button } from "./parts.js";
import { hashOf } from "./queue.js";
import { t } from "./texts.js";

const KEY = "fxpipe.filters";
const MOST = 20;

/** `present()` returns the current filters; `use(filters)` applies saved ones. */
export class SavedFilters {
  constructor(present, use) {
    this.present = present;
    this.use = use;
    this.list = element("ul", { className: "chips" });
    this.name = element("input", { name: "filter", maxLength: 40, required: true,
      placeholder: t("filter.name"), "aria-label": t("filter.name") });
    this.form = element("form", { className: "row save" }, this.name,
      element("button", {}, t("filter.save")));
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#store({ ...read(), [this.name.value.trim()]: this.present() });
      this.name.value = "";
    });
    this.root = element("section", { className: "saved", "aria-label": t("filter.saved") },
      this.list, this.form);
  }

  show() {
    const present = hashOf("worklist", this.present());
    const saved = Object.entries(read());
    this.list.hidden = saved.length === 0;
    this.list.replaceChildren(...saved.map(([name, query]) => {
      const use = button(name, () => this.use(query));
      use.setAttribute("aria-pressed", String(hashOf("worklist", query) === present));
      return element("li", { className: "saved-filter" }, use,
        button("×", () => this.#forget(name), { label: t("filter.forget", { name }) }));
    }));
    // Without filters, there is nothing to save.
    this.form.hidden = Object.keys(this.present()).length === 0;
  }

  #forget(name) {
    const saved = read();
    delete saved[name];
    this.#store(saved);
  }

  #store(saved) {
    try {
      localStorage.setItem(KEY, JSON.stringify(Object.fromEntries(Object.entries(saved).slice(-MOST))));
    } catch {
      // Browser storage is not available; the filters in the address still work.
    }
    this.show();
  }
}

function read() {
  try {
    const saved = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    return saved && typeof saved === "object" && !Array.isArray(saved) ? saved : {};
  } catch {
    return {};
  }
}
