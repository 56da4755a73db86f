/* Uploads: files and folders are dropped or selected; their progress is shown. */

import { session } from "./api.js";
import { element } from "./dom.js";
import { button, chip, outcomeBadge } from "./parts.js";
import { count, t } from "./texts.js";
import { add, retry, uploads, watch } from "./upload_queue.js";

const MOST_SHOWN = 300;
const TRANSFER = { queued: "waiting", checking: "reading", sending: "reading", busy: "waiting",
  unreachable: "unsent", over: "unsent", refused: "failed" };

export class UploadsView {
  #lines = new Map();

  constructor(root) {
    this.files = this.#chooser({ multiple: true });
    this.folder = this.#chooser({ webkitdirectory: true });
    this.zone = element("div", { className: "zone" },
      element("p", {}, t("upload.drop")),
      element("div", { className: "row" },
        button(t("upload.files"), () => this.files.click(), { className: "primary" }),
        button(t("upload.folder"), () => this.folder.click())),
      element("p", { className: "quiet" }, t("upload.kinds")), this.files, this.folder);
    this.summary = element("p", { className: "quiet", role: "status" });
    this.list = element("ul", { className: "uploads", "aria-label": t("upload.list") });
    root.append(element("div", { className: "bar" }, element("h1", {}, t("view.uploads")), this.summary),
      this.zone, this.list);
    this.drag = (event) => this.#drag(event);
    for (const kind of ["dragover", "dragleave", "drop"]) document.addEventListener(kind, this.drag);
    this.unwatch = watch((upload) => this.#changed(upload));
    this.#changed(null);
  }

  close() {
    for (const kind of ["dragover", "dragleave", "drop"]) document.removeEventListener(kind, this.drag);
    this.unwatch();
  }

  #chooser(properties) {
    const input = element("input", { type: "file", hidden: true, tabIndex: -1, ...properties });
    input.addEventListener("change", () => { add([...input.files]); input.value = ""; });
    return input;
  }

  async #drag(event) {
    event.preventDefault();
    this.zone.classList.toggle("over", event.type === "dragover");
    if (event.type !== "drop") return;
    add(await filesOf(event.dataTransfer));
  }

  #changed(upload) {
    if (upload) this.#line(upload);
    else {
      this.#lines.clear();
      this.list.replaceChildren();
      for (const one of uploads.slice(-MOST_SHOWN).reverse()) {
        const line = element("li", {});
        this.#lines.set(one, line);
        this.list.append(line);
        this.#line(one);
      }
    }
    const stored = uploads.filter(({ picture }) => picture).length;
    const refused = uploads.filter(({ state }) => state === "refused").length;
    this.summary.textContent = uploads.length === 0 ? t("upload.none")
      : [t("upload.stored", { stored, total: uploads.length }),
        refused ? count("upload.refusals", refused) : null,
        uploads.length > MOST_SHOWN ? t("upload.latest", { n: MOST_SHOWN }) : null]
        .filter(Boolean).join(" · ");
  }

  #line(upload) {
    const line = this.#lines.get(upload);
    if (!line) return;
    const { file, state, share, picture, detail } = upload;
    const mayRead = session.who.role !== "sender" && picture && picture.state !== "deleted";
    const name = element("bdi", {}, file.name);
    const parts = [element("span", { className: "name" },
      mayRead ? element("a", { href: `#/reading/${picture.id}` }, name) : name,
      element("small", {}, sizeText(file.size)))];
    parts.push(picture ? this.#pictureState(state, picture)
      : chip(TRANSFER[state], t(`upload.${state}`, { n: Math.round(100 * share) })));
    if (state === "sending") {
      parts.push(element("progress", { max: 1, value: share, "aria-label": t("upload.progress", { name: file.name }) }));
    }
    if (detail) parts.push(element("p", { className: state === "refused" ? "refused" : "quiet" }, detail));
    if (state === "refused") parts.push(button(t("action.again"), () => retry(upload)));
    line.replaceChildren(...parts);
  }

  #pictureState(state, picture) {
    const isNew = picture.state === "waiting" && state === "received";
    const shown = isNew ? chip("received", t("upload.received")) : outcomeBadge(picture);
    return element("span", { className: "row" },
      ...(state === "known" ? [chip("answered", t("upload.known"))] : []), shown);
  }
}

const sizeText = (bytes) => (bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

/** All files of a drop, also those in folders. */
async function filesOf(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files];
  return (await Promise.all(entries.map(walk))).flat();
}

async function walk(entry) {
  if (entry.isFile) {
    return new Promise((resolve) => { entry.file((file) => resolve([file]), () => resolve([])); });
  }
  const reader = entry.createReader();
  const found = [];
  for (;;) { // A reader returns its entries in batches.
    const part = await new Promise((resolve) => { reader.readEntries(resolve, () => resolve([])); });
    if (!part.length) return found;
    for (const inner of part) found.push(...await walk(inner));
  }
}
