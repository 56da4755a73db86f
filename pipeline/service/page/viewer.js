/* A picture with its layers: zoom, position, grey values, heatmaps, marks. */

import { bytesOf } from "./api.js";
import { element, drawn } from "./dom.js";
import { facts } from "./facts.js";
import { layerOf } from "./layers.js";
import { greyTable, paint } from "./grey.js";
import { decodeGrey } from "./png.js";
import { t } from "./texts.js";

const MOST_ZOOM = 32;
const CROSS_STEP_PX = 8;

/**
 * Positions are in px of the source. The reduced view is shown until its px are larger than those
 * of the screen; then the picture is loaded with full resolution and 16 bits.
 *
 * `look` is { brightness, contrast, invert, colours, opacity, contour }, shared by viewers.
 * `marked(x, y)` is called for each place that the user marks.
 */
export class Viewer {
  #pointers = new Map();
  #layers = [];
  #marks = [];
  #marking = false;
  #cross = null;
  #address = null;
  #loading = null;

  constructor(look, { marked = null, windowed = null } = {}) {
    this.look = look;
    this.marked = marked;
    this.windowed = windowed;
    this.view = element("img", { className: "view", draggable: false });
    this.film = element("div", { className: "film", hidden: true }, this.view);
    this.empty = element("div", { className: "empty" });
    this.note = element("p", { className: "note", role: "status" });
    this.stage = element("div", { className: "stage", tabIndex: 0, role: "group" },
      this.film, this.empty, this.note);
    this.stage.setAttribute("aria-label", t("viewer.label"));
    this.view.addEventListener("load", () => this.#viewLoaded());
    this.view.addEventListener("error", () => this.view.src && this.showNothing(t("viewer.none")));
    this.stage.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    this.stage.addEventListener("pointerdown", (event) => this.#grab(event));
    this.stage.addEventListener("pointermove", (event) => this.#drag(event));
    for (const end of ["pointerup", "pointercancel"]) {
      this.stage.addEventListener(end, (event) => this.#pointers.delete(event.pointerId));
    }
    this.stage.addEventListener("contextmenu", (event) => event.preventDefault());
    this.resized = new ResizeObserver(() => this.place());
    this.resized.observe(this.stage);
    this.#clear();
  }

  #clear() {
    this.size = null;
    this.isExact = false;
    this.pixels = null;
    this.canvas?.remove();
    this.canvas = null;
    this.#loading = null;
    this.zoom = 1;
    this.offset = { x: 0, y: 0 };
    this.#layers = [];
    this.#marks = [];
    this.film.replaceChildren(this.view);
    this.note.textContent = "";
    this.stopMarking();
  }

  close() {
    this.resized.disconnect();
    this.#address = null;
  }

  showNothing(...content) {
    this.#address = null;
    this.film.hidden = true;
    this.empty.replaceChildren(...content);
    this.empty.hidden = false;
  }

  /** Show a picture, given the addresses of the reduced view and of the full-resolution pixels. */
  open({ view, pixels, alt }) {
    this.#clear();
    this.#address = pixels;
    this.view.src = view;
    this.view.alt = alt;
    this.empty.replaceChildren(t("viewer.loading"));
    this.empty.hidden = false;
    this.film.hidden = true;
  }

  #viewLoaded() {
    // If the size is unknown, use the aspect ratio of the reduced view.
    this.size ??= { width: this.view.naturalWidth, height: this.view.naturalHeight };
    this.empty.hidden = true;
    this.film.hidden = false;
    this.apply();
    this.place();
  }

  /** The size in source px, and findings with their layers. */
  setFindings(size, findings) {
    this.#setSize(size);
    for (const { canvas, line } of this.#layers) { canvas.remove(); line.remove(); }
    this.#layers = [];
    findings.forEach((finding, number) => {
      if (!finding.layer) return;
      const layer = layerOf(finding, number, size, facts.colours);
      this.film.append(layer.canvas, layer.line);
      this.#layers.push({ number, chosen: number === 0, ...layer });
    });
    this.apply();
    this.place();
  }

  /** Show or hide the layer of a finding. */
  choose(number, chosen) {
    for (const layer of this.#layers) if (layer.number === number) layer.chosen = chosen;
    this.apply();
  }

  setMarks(marks) {
    this.#marks = marks;
    this.#drawMarks();
  }

  #setSize({ width, height }) {
    this.size = { width, height };
    this.isExact = true;
    this.#drawMarks();
  }

  /** Apply the display settings to layers and grey values. */
  apply() {
    const { colours, opacity, contour } = this.look;
    for (const { chosen, canvas, line } of this.#layers) {
      canvas.hidden = !(chosen && colours);
      canvas.style.opacity = opacity;
      line.classList.toggle("hidden", !(chosen && contour));
    }
    const { slope, intercept } = greyTable(this.look);
    for (const channel of document.querySelectorAll("#window feComponentTransfer > *")) {
      channel.setAttribute("slope", slope);
      channel.setAttribute("intercept", intercept);
    }
    this.view.classList.toggle("windowed", slope !== 1 || intercept !== 0);
    if (this.pixels) this.#paint();
  }

  #paint() {
    if (this.painting) return;
    this.painting = requestAnimationFrame(() => {
      this.painting = 0;
      if (this.pixels) paint(this.canvas, this.pixels, this.look);
    });
  }

  /** Position the picture according to zoom and offset. */
  place() {
    const { clientWidth, clientHeight } = this.stage;
    if (this.film.hidden || !this.size || !clientWidth) return;
    const scale = this.#scale();
    const [width, height] = [this.size.width * scale, this.size.height * scale];
    const most = { x: Math.max(0, (width - clientWidth) / 2), y: Math.max(0, (height - clientHeight) / 2) };
    for (const axis of ["x", "y"]) {
      this.offset[axis] = Math.min(Math.max(this.offset[axis], -most[axis]), most[axis]);
    }
    this.film.style.width = `${width}px`;
    this.film.style.height = `${height}px`;
    this.film.style.left = `${(clientWidth - width) / 2 + this.offset.x}px`;
    this.film.style.top = `${(clientHeight - height) / 2 + this.offset.y}px`;
    if (width * devicePixelRatio > 1.05 * this.view.naturalWidth) this.#loadQuietly();
    this.#drawCross();
    this.stage.dispatchEvent(new Event("placed"));
  }

  /** Screen px for each source px. */
  #scale() {
    const { clientWidth, clientHeight } = this.stage;
    return this.zoom * Math.min(clientWidth / this.size.width, clientHeight / this.size.height);
  }

  reset() {
    this.zoom = 1;
    this.offset = { x: 0, y: 0 };
    this.place();
  }

  /** Zoom to one source px per screen px. */
  async oneToOne() {
    if (this.film.hidden) return;
    await this.#loadQuietly();
    this.magnify(1 / devicePixelRatio / this.#scale());
  }

  /** Zoom by a factor around a point, in px from the centre of the stage. */
  magnify(factor, x = 0, y = 0) {
    const zoom = Math.min(Math.max(this.zoom * factor, 1), MOST_ZOOM);
    const ratio = zoom / this.zoom;
    this.zoom = zoom;
    this.offset = { x: x - (x - this.offset.x) * ratio, y: y - (y - this.offset.y) * ratio };
    this.place();
  }

  move(x, y) {
    this.offset.x += x;
    this.offset.y += y;
    this.place();
  }

  async #loadQuietly() {
    try {
      await this.load();
    } catch {
      this.note.textContent = t("viewer.reduced");
    }
  }

  /** Load the full-resolution pixels; returns whether they are available. */
  load() {
    this.#loading ??= this.#load();
    return this.#loading;
  }

  async #load() {
    const address = this.#address;
    if (!address) return false;
    this.note.textContent = t("viewer.pixels");
    const file = await bytesOf(address);
    if (address !== this.#address) return false;
    if (!file) throw new Error("no pixels");
    const pixels = await decodeGrey(file);
    if (address !== this.#address) return false;
    this.note.textContent = "";
    this.pixels = pixels;
    // The size of a reduced picture may differ from that of its pixels by a few px.
    if (!this.isExact) this.#setSize(pixels);
    this.canvas = element("canvas", { className: "pixels", "aria-hidden": "true" });
    this.canvas.style.width = `${100 * pixels.width / this.size.width}%`;
    this.canvas.style.height = `${100 * pixels.height / this.size.height}%`;
    this.view.after(this.canvas);
    paint(this.canvas, pixels, this.look);
    this.place();
    return true;
  }

  #wheel(event) {
    event.preventDefault();
    const { x, y } = this.#fromMiddle(event);
    this.magnify(2 ** (-Math.sign(event.deltaY) / 4), x, y);
  }

  #fromMiddle({ clientX, clientY }) {
    const box = this.stage.getBoundingClientRect();
    return { x: clientX - box.left - box.width / 2, y: clientY - box.top - box.height / 2 };
  }

  #grab(event) {
    if (this.film.hidden) return;
    this.stage.focus({ preventScroll: true });
    if (this.#marking) {
      if (event.button === 0) this.#markAt(this.#fromMiddle(event));
      return;
    }
    this.stage.setPointerCapture(event.pointerId);
    this.#pointers.set(event.pointerId, { ...this.#fromMiddle(event),
      windowing: event.shiftKey || event.button === 2 || this.look.windowing });
  }

  /** One pointer pans or changes the window; two pointers zoom. */
  #drag(event) {
    const last = this.#pointers.get(event.pointerId);
    if (!last) return;
    const next = this.#fromMiddle(event);
    const [x, y] = [next.x - last.x, next.y - last.y];
    const other = [...this.#pointers].find(([id]) => id !== event.pointerId)?.[1];
    this.#pointers.set(event.pointerId, { ...last, ...next });
    if (other) {
      const distance = (point) => Math.max(1, Math.hypot(point.x - other.x, point.y - other.y));
      this.magnify(distance(next) / distance(last), (next.x + other.x) / 2, (next.y + other.y) / 2);
      this.move(x / 2, y / 2);
    } else if (last.windowing) this.windowed?.(x / 3, -y / 4);
    else this.move(x, y);
  }

  /* Marks. */

  get isMarking() {
    return this.#marking;
  }

  /**
   * Mark locations by click, touch, or a cross moved with arrow keys.
   *
   * Waits until the picture is loaded. Returns false if the size is unknown, null if another
   * picture was opened meanwhile.
   */
  async startMarking() {
    const address = this.#address;
    if (address && !this.view.complete) {
      await new Promise((done) => {
        for (const end of ["load", "error"]) this.view.addEventListener(end, done, { once: true });
      });
      if (address !== this.#address) return null;
    }
    if (this.film.hidden) return false;
    if (!this.isExact) await this.load();
    if (address !== this.#address) return null;
    if (!this.isExact) return false;
    this.#marking = true;
    this.#cross = { x: this.size.width / 2 - this.offset.x / this.#scale(),
      y: this.size.height / 2 - this.offset.y / this.#scale() };
    this.stage.classList.add("marking");
    this.crossLine = element("div", { className: "cross", "aria-hidden": "true" });
    this.stage.append(this.crossLine);
    this.#drawCross();
    this.stage.focus({ preventScroll: true });
    return true;
  }

  stopMarking() {
    this.#marking = false;
    this.#cross = null;
    this.stage.classList.remove("marking");
    this.crossLine?.remove();
    this.crossLine = null;
  }

  /** Move the cross by steps of some screen px. */
  moveCross(x, y, fast) {
    const step = CROSS_STEP_PX * (fast ? 5 : 1) / this.#scale();
    this.#cross.x = Math.min(Math.max(this.#cross.x + x * step, 0), this.size.width);
    this.#cross.y = Math.min(Math.max(this.#cross.y + y * step, 0), this.size.height);
    this.#drawCross();
  }

  markCross() {
    this.marked(Math.round(this.#cross.x), Math.round(this.#cross.y));
  }

  #markAt({ x, y }) {
    const scale = this.#scale();
    const place = { x: (x - this.offset.x) / scale + this.size.width / 2,
      y: (y - this.offset.y) / scale + this.size.height / 2 };
    if (place.x < 0 || place.y < 0 || place.x > this.size.width || place.y > this.size.height) return;
    this.#cross = place;
    this.#drawCross();
    this.marked(Math.round(place.x), Math.round(place.y));
  }

  #drawCross() {
    if (!this.#cross || !this.crossLine) return;
    const scale = this.#scale();
    const { clientWidth, clientHeight } = this.stage;
    this.crossLine.style.left =
      `${clientWidth / 2 + this.offset.x + (this.#cross.x - this.size.width / 2) * scale}px`;
    this.crossLine.style.top =
      `${clientHeight / 2 + this.offset.y + (this.#cross.y - this.size.height / 2) * scale}px`;
  }

  #drawMarks() {
    for (const old of this.film.querySelectorAll(".mark")) old.remove();
    if (!this.isExact) return;
    this.#marks.forEach(({ x, y }, place) => {
      const mark = element("div", { className: "mark", role: "img",
        "aria-label": t("viewer.mark", { n: place + 1, x, y }) },
      drawn("svg", { viewBox: "0 0 32 32", "aria-hidden": "true" },
        drawn("circle", { cx: 16, cy: 16, r: 12 })), element("b", {}, String(place + 1)));
      mark.style.left = `${100 * x / this.size.width}%`;
      mark.style.top = `${100 * y / this.size.height}%`;
      this.film.append(mark);
    });
  }
}
