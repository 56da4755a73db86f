/* The controls of one or more viewers. */

import { element } from "./dom.js";
import { facts } from "./facts.js";
import { button } from "./parts.js";
import { t } from "./texts.js";

const LOOK = { brightness: 0, contrast: 0, invert: false, colours: true, contour: true,
  windowing: false };
const BOXES = ["colours", "contour", "invert", "windowing"];
const KEYS = { h: "colours", c: "contour", i: "invert", l: "windowing" };

/** Default display settings, with the opacity of this service. */
export const newLook = () => ({ ...LOOK, opacity: facts.opacity });

export class Tools {
  /** `look` is changed in place; `viewers()` gives the viewers that show it. */
  constructor(look, viewers) {
    this.look = look;
    this.viewers = viewers;
    this.zoom = element("output", { className: "zoom", "aria-label": t("tools.zoom") });
    this.root = element("form", { className: "tools", "aria-label": t("tools.label"),
      autocomplete: "off" },
    this.#group(t("tools.heatmaps"), this.#box("colours", "H"),
      this.#slider("opacity", 0, 100, t("tools.opacity"), "unseen"), this.#box("contour", "C")),
    this.#group(t("tools.grey"), this.#slider("brightness", -50, 50, t("tools.brightness")),
      this.#slider("contrast", -50, 150, t("tools.contrast")), this.#box("invert", "I"),
      this.#box("windowing", "L")),
    this.#group(t("tools.size"),
      button("−", () => this.#each((v) => v.magnify(1 / 1.25)), { label: t("tools.smaller") }),
      this.zoom,
      button("+", () => this.#each((v) => v.magnify(1.25)), { label: t("tools.larger") }),
      button(t("tools.pixels"), () => this.#each((v) => v.oneToOne()), { key: "P" }),
      button(t("tools.reset"), () => this.reset(), { key: "0" })));
    this.root.addEventListener("input", () => this.#read());
    this.root.addEventListener("submit", (event) => event.preventDefault());
    this.#write();
  }

  #group(title, ...parts) {
    return element("fieldset", {}, element("legend", { className: "unseen" }, title), ...parts);
  }

  #box(name, key) {
    return element("label", { className: "tick" },
      element("input", { type: "checkbox", name, "aria-keyshortcuts": key }),
      t(`tools.${name}`), element("kbd", {}, key));
  }

  #slider(name, min, max, text, className = "") {
    return element("label", {}, element("span", { className }, text),
      element("input", { type: "range", name, min, max, step: 1 }));
  }

  #each(act) {
    this.viewers().forEach(act);
  }

  #read() {
    const { elements } = this.root;
    for (const name of BOXES) this.look[name] = elements[name].checked;
    for (const name of ["brightness", "contrast"]) this.look[name] = Number(elements[name].value);
    this.look.opacity = Number(elements.opacity.value) / 100;
    this.#each((viewer) => viewer.apply());
  }

  #write() {
    const { elements } = this.root;
    for (const name of BOXES) elements[name].checked = this.look[name];
    for (const name of ["brightness", "contrast"]) elements[name].value = this.look[name];
    elements.opacity.value = 100 * this.look.opacity;
    this.#each((viewer) => viewer.apply());
  }

  /** Reset zoom and grey values. */
  reset() {
    Object.assign(this.look, { brightness: 0, contrast: 0, invert: false });
    this.#write();
    this.#each((viewer) => viewer.reset());
  }

  /** Change contrast and brightness by dragging. */
  turn(contrast, brightness) {
    const within = (value, low, high) => Math.min(Math.max(value, low), high);
    this.look.contrast = within(this.look.contrast + contrast, -50, 150);
    this.look.brightness = within(this.look.brightness + brightness, -50, 50);
    this.#write();
  }

  showZoom(viewer) {
    this.zoom.textContent = t("tools.percent", { n: Math.round(100 * viewer.zoom) });
  }

  /** Handle a key; false if it is not a shortcut of the tools. */
  key(key, target) {
    const arrows = {
      ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
    const actions = {
      b: () => this.turn(0, 5), d: () => this.turn(0, -5),
      s: () => this.turn(10, 0), w: () => this.turn(-10, 0),
      "+": () => this.#each((v) => v.magnify(1.25)), "=": () => this.#each((v) => v.magnify(1.25)),
      "-": () => this.#each((v) => v.magnify(1 / 1.25)),
      0: () => this.reset(), p: () => this.#each((v) => v.oneToOne()),
    };
    if (Object.hasOwn(KEYS, key)) {
      this.look[KEYS[key]] = !this.look[KEYS[key]];
      this.#write();
    } else if (Object.hasOwn(actions, key)) actions[key]();
    else if (arrows[key] && target.classList.contains("stage")) {
      this.viewers().filter((v) => v.stage === target).forEach((v) => v.move(...arrows[key]));
    } else return false;
    return true;
  }
}
