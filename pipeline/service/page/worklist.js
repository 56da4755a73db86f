/* The worklist: live updates, ordered by urgency, with filters in the address. */

import { address, frameAddress, get, session } from "./api.js";
import { percent, three } from "./bars.js";
import { element } from "./dom.js";
import { facts } from "./facts.js";
import { statesByStudy } from "./outbox.js";
import { button, chip, fault, labelled, message, outcomeBadge, reviewChip, select } from "./parts.js";
import { filtersOf, hashOf, queue } from "./queue.js";
import { SavedFilters } from "./saved_filters.js";
import { count, dateText, t, word } from "./texts.js";

const PAGE = 50;
const MOST_PAGE = 200;
const CALM_MS = 300;
/** How long a deleted picture remains visible in the list. */
const DELETED_MS = 8000;

export class WorklistView {
  #rows = new Map();
  #deleted = new Map();
  #wanted = PAGE;
  #timer = 0;
  #load = 0;

  constructor(root, args, query) {
    this.root = root;
    this.title = element("h1", {}, t("view.worklist"));
    this.summary = element("p", { className: "quiet", role: "status" });
    this.filters = this.#filterForm();
    this.saved = new SavedFilters(() => this.query, (saved) => { location.hash = hashOf("worklist", saved); });
    this.notice = element("div", { className: "notice" });
    this.body = element("tbody", { role: "rowgroup" });
    this.table = element("table", { className: "worklist", role: "table" },
      element("caption", { className: "unseen" }, t("worklist.caption")),
      element("thead", { role: "rowgroup" }, element("tr", { role: "row" },
        ...["picture", "answer", "probability", "file", "review"].map((name) =>
          element("th", { scope: "col", role: "columnheader", className: name },
            t(`worklist.${name}`))))),
      this.body);
    this.nothing = element("div", { hidden: true });
    this.more = button(t("worklist.more"), () => this.#loadMore(), { className: "more" });
    this.table.addEventListener("click", (event) => this.#click(event));
    this.table.addEventListener("keydown", (event) => this.#key(event));
    this.table.addEventListener("focusin", (event) => this.#rove(event.target.closest("tr")));
    root.append(element("div", { className: "bar" }, this.title, this.summary),
      this.filters, this.saved.root, this.notice, this.table, this.nothing, this.more);
    this.moved(args, query);
  }

  /** Apply other filters in the same view. */
  moved(args, query) {
    this.query = filtersOf(query);
    this.#wanted = PAGE;
    this.#deleted.clear();
    for (const control of this.filters.querySelectorAll("select")) {
      control.value = this.query[control.name] ?? control.dataset.start;
    }
    this.#showExports();
    this.saved.show();
    this.load();
    return true;
  }

  close() {
    clearTimeout(this.#timer);
    this.#load += 1;
  }

  changed(kind, { subject }) {
    if (kind === "deleted" && this.#rows.has(subject)) {
      this.#deleted.set(subject, this.#rows.get(subject).picture);
      setTimeout(() => { this.#deleted.delete(subject); this.#soon(); }, DELETED_MS);
    }
    if (["received", "judged", "deleted", "reviewed", "outbox", "engine", "resync"].includes(kind)) {
      this.#soon();
    }
  }

  /** Changes arrive in bursts; one request covers a burst. */
  #soon() {
    this.#timer ||= setTimeout(() => { this.#timer = 0; this.load(); }, CALM_MS);
  }

  /** The order of urgency would reveal fxpipe's answer to a blind reader. */
  get #isBlind() {
    return session.who.blind;
  }

  async load() {
    const load = this.#load += 1;
    const query = { ...this.query };
    if (this.#isBlind) query.order = "newest";
    try {
      const [{ pictures, next }, sent] = await Promise.all([this.#pages(query), statesByStudy()]);
      if (load !== this.#load) return;
      this.notice.replaceChildren();
      this.#show(pictures, next, sent);
    } catch (error) {
      if (load === this.#load) this.notice.replaceChildren(fault(error, () => this.load()));
    }
  }

  async #pages(query) {
    const pictures = [];
    let after;
    do {
      const limit = Math.min(this.#wanted - pictures.length, MOST_PAGE);
      const page = await get("/pictures", { ...query, after, limit });
      pictures.push(...page.pictures);
      after = page.next;
    } while (after && pictures.length < this.#wanted);
    return { pictures, next: after };
  }

  async #loadMore() {
    this.#wanted += PAGE;
    const last = this.body.lastElementChild;
    await this.load();
    last?.nextElementSibling?.querySelector("a").focus();
  }

  #show(pictures, next, sent) {
    queue.set(pictures, this.query);
    const shown = [...pictures];
    const present = new Set(pictures.map(({ id }) => id));
    for (const [id, picture] of this.#deleted) {
      if (present.has(id)) continue;
      const place = [...this.#rows.keys()].indexOf(id);
      shown.splice(place < 0 ? shown.length : place, 0, { ...picture, state: "deleted" });
    }
    const isFirst = this.#rows.size === 0;
    const rows = new Map();
    for (const picture of shown) {
      const state = sent.get(picture.study) ?? null;
      const known = this.#rows.get(picture.id);
      const key = JSON.stringify([picture, state]);
      if (known?.key === key) rows.set(picture.id, known);
      else {
        const line = this.#line(picture, state);
        if (!isFirst) line.classList.add("fresh");
        if (known?.line.contains(document.activeElement)) this.refocus = line;
        rows.set(picture.id, { picture, key, line });
      }
    }
    this.#rows = rows;
    this.#arrange([...rows.values()].map(({ line }) => line));
    this.more.hidden = !next;
    this.#summarize(pictures.length, next);
  }

  /** Reorder the rows with as few moves as possible, so that the focus is kept. */
  #arrange(lines) {
    const wanted = new Set(lines);
    for (const old of [...this.body.children]) if (!wanted.has(old)) old.remove();
    lines.forEach((line, place) => {
      const there = this.body.children[place];
      if (there !== line) this.body.insertBefore(line, there ?? null);
    });
    this.refocus?.querySelector("a").focus();
    this.refocus = null;
    this.#rove(lines.includes(this.stop) ? this.stop : lines[0]);
  }

  #summarize(n, next) {
    this.summary.textContent = next ? t("worklist.first", { n }) : count("worklist.count", n);
    this.table.hidden = n === 0 && this.#deleted.size === 0;
    this.nothing.hidden = !this.table.hidden;
    if (this.nothing.hidden) return;
    const isFiltered = Object.keys(this.query).some((name) => name !== "order");
    this.nothing.replaceChildren(isFiltered
      ? message(t("worklist.none"), button(t("worklist.all"), () => { location.hash = "#/worklist"; }))
      : message(t("worklist.empty"), element("a", { href: "#/uploads", className: "link" }, t("worklist.upload"))));
  }

  #line(picture, sent) {
    const isDeleted = picture.state === "deleted";
    const cell = (name, ...parts) =>
      element("td", { className: name, role: "cell" }, ...parts.filter(Boolean));
    const name = isDeleted ? element("a", { role: "link", "aria-disabled": "true", tabIndex: -1 })
      : element("a", { href: hashOf(`reading/${picture.id}`, this.query), tabIndex: -1 });
    name.append(element("bdi", {}, picture.name));
    const file = element("th", { scope: "row", role: "rowheader", className: "file" }, name,
      element("small", {}, dateText(picture.received), " · ", word("source", picture.source)));
    if (picture.study && !isDeleted) {
      file.append(element("small", {}, element("a", { href: `#/study/${picture.study}`, tabIndex: -1 },
        t("worklist.study", { n: picture.study }))));
    }
    const line = element("tr", { className: `${picture.hidden ? "hidden-answer" : picture.state}`,
      role: "row" },
    cell("picture", thumb(picture)), cell("answer", outcomeBadge(picture)),
    cell("probability", ...chance(picture)), file,
    cell("review", reviewChip(picture.review), sent && chip(sent, t(`state.${sent}`))));
    line.picture = picture;
    return line;
  }

  #click(event) {
    const line = event.target.closest("tr");
    if (event.target.closest("a") || !line?.picture || line.picture.state === "deleted" ||
        String(getSelection())) return;
    location.hash = hashOf(`reading/${line.picture.id}`, this.query);
  }

  #key(event) {
    const lines = [...this.body.children];
    const at = lines.indexOf(event.target.closest("tr"));
    const last = lines.length - 1;
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: last }[event.key];
    if (at < 0 || to === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    lines[Math.min(Math.max(to, 0), last)].querySelector("a").focus();
  }

  /** Only the row that last had the focus is a tab stop. */
  #rove(line) {
    if (!line?.picture) return;
    for (const link of this.stop?.querySelectorAll("a") ?? []) link.tabIndex = -1;
    this.stop = line;
    for (const link of line.querySelectorAll("a")) link.tabIndex = 0;
  }

  #filterForm() {
    const any = ["", t("filter.any")];
    const words = (group, names) => [any, ...names.map((name) => [name, word(group, name)])];
    const fields = [
      ["reviewed", [any, ["false", t("filter.open")], ["true", t("filter.done")]]],
      ["answer", words("answer", facts.urgency)],
      ["state", words("state", ["waiting", "reading", "answered", "unsupported", "failed"])],
      ["region", words("region", facts.regions)],
      ["order", [["urgency", t("filter.urgency")], ["newest", t("filter.newest")]]],
    ].filter(([name]) => !this.#isBlind || ["reviewed", "state"].includes(name));
    const made = element("form", { className: "filters", role: "search", "aria-label": t("filter.label") },
      ...fields.map(([name, options]) => {
        const control = select(name, options, options[0][0]);
        control.dataset.start = options[0][0];
        return labelled(t(`filter.${name}`), control);
      }), this.#exports());
    made.addEventListener("change", () => this.#filter(made));
    made.addEventListener("submit", (event) => event.preventDefault());
    return made;
  }

  #filter(made) {
    const query = { ...this.query };
    for (const control of made.querySelectorAll("select")) {
      if (control.value === control.dataset.start) delete query[control.name];
      else query[control.name] = control.value;
    }
    location.hash = hashOf("worklist", query);
  }

  /** Download links for the pictures of the current filters. */
  #exports() {
    this.exports = element("ul", {});
    this.keep = element("input", { type: "checkbox" });
    this.exportMenu = element("details", { className: "exports", hidden: this.#isBlind },
      element("summary", {}, t("export.title")),
      element("div", { className: "menu" }, labelled(t("export.keep"), this.keep, "tick"), this.exports));
    this.keep.addEventListener("change", (event) => { event.stopPropagation(); this.#showExports(); });
    this.exportMenu.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      this.exportMenu.open = false;
      this.exportMenu.querySelector("summary").focus();
    });
    return this.exportMenu;
  }

  #showExports() {
    const { answer } = this.query;
    const state = ["answered", "unsupported", "failed"].find((name) => name === this.query.state);
    const identifiers = this.keep.checked ? "keep" : undefined;
    this.exports.replaceChildren(...["csv", "jsonl", "fhir", "labels", "dicom"].map((format) =>
      element("li", {}, element("a", { href: address(`/exports/${format}`, { state, answer, identifiers }),
        download: "" }, t(`export.${format}`)), element("small", {}, t(`export.${format}.text`)))));
  }
}

function thumb(picture) {
  const frame = element("span", { className: "thumb" });
  if (["answered", "unsupported"].includes(picture.state)) {
    const image = element("img", { alt: "", decoding: "async", loading: "lazy",
      src: frameAddress(picture.id, 0, "thumb") });
    image.addEventListener("error", () => image.remove()); // not a readable picture
    frame.append(image);
  }
  return frame;
}

function chance({ probability, region }) {
  if (probability === null || probability === undefined) return [];
  const bar = element("span", { className: "amount", "aria-hidden": "true" }, element("span"));
  bar.firstChild.style.width = percent(probability);
  return [element("b", {}, three(probability)), element("small", {}, word("region", region)), bar];
}
