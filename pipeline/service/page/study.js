/* A study: its pictures side by side. */

import { frameAddress, get, getIfAllowed } from "./api.js";
import { element } from "./dom.js";
import { get as getOutbox } from "./outbox.js";
import { card, factList, sentCard } from "./panel.js";
import { fault, isTyping, message, outcomeBadge, reviewChip } from "./parts.js";
import { count, dateText, t, word } from "./texts.js";
import { newLook, Tools } from "./tools.js";
import { Viewer } from "./viewer.js";

export class StudyView {
  #viewers = [];

  constructor(root, [id]) {
    this.root = root;
    this.look = newLook();
    this.tools = new Tools(this.look, () => this.#viewers);
    this.heading = element("div", { className: "bar" });
    this.notice = element("div", { className: "notice" });
    this.views = element("div", { className: "views-grid" });
    this.facts = element("div", { className: "facts-row" });
    root.append(this.heading, this.notice, this.tools.root, this.views, this.facts);
    this.keys = (event) => this.#key(event);
    document.addEventListener("keydown", this.keys);
    this.moved([id]);
  }

  moved([id]) {
    this.id = Number(id);
    this.load();
    return true;
  }

  close() {
    document.removeEventListener("keydown", this.keys);
    this.#closeViewers();
  }

  #closeViewers() {
    this.#viewers.forEach((viewer) => viewer.close());
    this.#viewers = [];
  }

  changed(kind, { subject }) {
    const isOfStudy = this.study?.pictures.some((picture) => picture.id === subject);
    if ((kind === "study" && subject === this.id) || kind === "resync" || kind === "outbox" ||
        (isOfStudy && ["judged", "deleted", "reviewed"].includes(kind))) this.load();
  }

  async load() {
    try {
      const study = await get(`/studies/${this.id}`);
      const objects = await getOutbox(this.id);
      this.notice.replaceChildren();
      this.#show(study, objects);
    } catch (error) {
      this.notice.replaceChildren(error.status === 404 ? message(t("study.none"))
        : fault(error, () => this.load()));
    }
  }

  #show(study, objects) {
    this.study = study;
    this.heading.replaceChildren(
      element("a", { href: "#/worklist", className: "back" }, t("view.worklist")),
      element("h1", {}, t("study.title", { n: study.id })),
      element("p", { className: "quiet" }, count("study.pictures", study.pictures.length), " · ",
        t("study.seen", { time: dateText(study.last_seen) }), " · ",
        t(study.stable ? "study.stable" : "study.growing")));
    this.#closeViewers();
    this.views.replaceChildren(...study.pictures.map((picture) => this.#tile(picture)));
    const identity = Object.entries(study.identity ?? {})
      .map(([name, value]) => [word("identity", name), identityText(name, value)]);
    this.facts.replaceChildren(...[
      card(t("study.identity"), identity.length ? factList(identity) : t("study.anonymous")),
      sentCard(objects)].filter(Boolean));
  }

  #tile(picture) {
    const viewer = new Viewer(this.look, { windowed: (x, y) => this.tools.turn(x, y) });
    viewer.stage.addEventListener("placed", () => this.tools.showZoom(viewer));
    viewer.stage.setAttribute("aria-label", t("study.view", { name: picture.name }));
    this.#viewers.push(viewer);
    if (["answered", "unsupported"].includes(picture.state)) {
      viewer.open({ view: frameAddress(picture.id, 0, "view"),
        pixels: frameAddress(picture.id, 0, "pixels"), alt: t("viewer.alt", { name: picture.name }) });
      if (!picture.hidden) this.#addFindings(viewer, picture);
    } else viewer.showNothing(message(t(`reading.${picture.state}`)));
    const review = reviewChip(picture.review);
    return element("article", { className: "tile", "aria-label": picture.name },
      element("header", {}, outcomeBadge(picture), ...(review ? [review] : []),
        element("a", { href: `#/reading/${picture.id}?study=${this.id}` },
          element("bdi", {}, picture.name))), viewer.stage);
  }

  async #addFindings(viewer, picture) {
    try {
      const heat = await getIfAllowed(`/pictures/${picture.id}/frames/0/heatmap`);
      if (heat?.picture && this.#viewers.includes(viewer)) viewer.setFindings(heat.picture, heat.findings);
    } catch {
      viewer.note.textContent = t("study.unmapped");
    }
  }

  #key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || isTyping(event) ||
        document.querySelector("dialog[open]")) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (this.tools.key(key, event.target)) event.preventDefault();
  }
}

/** A DICOM value for display: names without carets, dates and times with separators. */
function identityText(name, value) {
  if (name.endsWith("Name")) {
    const [family, ...others] = value.split("=")[0].split("^");
    return [family, others.filter(Boolean).join(" ")].filter(Boolean).join(", ");
  }
  if (name.endsWith("Date")) return value.replace(/^(\d{4})(\d{2})(\d{2})$/, "$1-$2-$3");
  if (name.endsWith("Time")) return value.replace(/^(\d{2})(\d{2}).*$/, "$1:$2");
  return value;
}
