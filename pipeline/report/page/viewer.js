/* The view of one picture: layers, grey values, size, and the panel with its facts. */

const MOST_ZOOM = 16;

class Viewer {
  constructor(facts, neighbour, closed) {
    this.facts = facts;
    this.neighbour = neighbour;
    this.colours = bytes(facts.colours);
    this.dialog = document.getElementById("viewer");
    this.stage = document.getElementById("stage");
    this.film = document.getElementById("film");
    this.picture = document.getElementById("picture");
    this.tools = this.dialog.querySelector(".tools");
    this.panel = document.getElementById("panel");
    this.tools.elements.opacity.value = 100 * facts.opacity;
    this.tools.addEventListener("input", () => this.apply());
    this.tools.addEventListener("submit", (event) => event.preventDefault());
    this.panel.addEventListener("input", () => this.apply());
    this.dialog.addEventListener("click", (event) => this.#do(event.target.closest("[data-do]")));
    this.dialog.addEventListener("keydown", (event) => this.#key(event));
    this.dialog.addEventListener("close", () => closed(this.row));
    this.stage.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    this.stage.addEventListener("pointerdown", (event) => this.#grab(event));
    this.stage.addEventListener("contextmenu", (event) => event.preventDefault());
    new ResizeObserver(() => this.place()).observe(this.stage);
  }

  open(row) {
    this.row = row;
    this.layers = [];
    document.getElementById("viewer-answer").replaceChildren(badge(row.answer));
    document.getElementById("viewer-name").textContent = nameOf(row);
    document.getElementById("viewer-place").textContent = this.neighbour.words(row);
    for (const old of this.film.querySelectorAll(".colours, .contour")) old.remove();
    const view = row.picture ? viewOf(row) : null;
    this.film.hidden = view === null;
    if (view) {
      this.picture.src = view;
      this.film.style.setProperty("--ratio", row.picture.width / row.picture.height);
      this.picture.alt = `X-ray ${nameOf(row)}`;
      this.#addLayers();
    } else {
      this.picture.removeAttribute("src");
    }
    const none = document.getElementById("no-picture");
    none.hidden = view !== null;
    none.textContent = "No picture: this file could not be read as one.";
    this.panel.replaceChildren(...panelOf(row, this.facts));
    this.panel.scrollTop = 0;
    for (const part of this.tools.elements) part.disabled = view === null;
    for (const [name, step] of [["previous", -1], ["next", 1]]) {
      this.dialog.querySelector(`[data-do=${name}]`)
        .setAttribute("aria-disabled", String(!this.neighbour.at(row, step)));
    }
    if (!this.dialog.open) {
      this.dialog.showModal();
      this.stage.focus();
    }
    this.reset();
  }

  #addLayers() {
    this.row.findings.forEach((finding, number) => {
      if (!finding.layer) return;
      const layer = layerOf(finding, number, this.row.picture, this.colours);
      this.film.append(layer.canvas, layer.line);
      this.layers.push({ number, ...layer });
    });
  }

  /** Reset size and grey values; the choice of heatmaps does not change. */
  reset() {
    const { brightness, contrast, invert } = this.tools.elements;
    brightness.value = 0;
    contrast.value = 0;
    invert.checked = false;
    this.zoom = 1;
    this.offset = { x: 0, y: 0 };
    this.apply();
    this.place();
  }

  /** Apply the controls to layers and grey values. */
  apply() {
    const { colours, opacity, contour, brightness, contrast, invert } = this.tools.elements;
    for (const { number, canvas, line } of this.layers) {
      const chosen = this.panel.querySelector(`[data-layer="${number}"]`).checked;
      canvas.hidden = !(chosen && colours.checked);
      canvas.style.opacity = opacity.value / 100;
      line.classList.toggle("hidden", !(chosen && contour.checked));
    }
    // A window of the grey values: its width is 1 without contrast, and half of it at 50.
    const width = 2 ** (-contrast.value / 50);
    const centre = 0.5 - brightness.value / 100;
    let slope = 1 / width;
    let intercept = 0.5 - centre / width;
    if (invert.checked) {
      // At most 85 % white: the background of an inverted picture fills the screen.
      [slope, intercept] = [-0.85 * slope, 0.85 * (1 - intercept)];
    }
    for (const channel of document.querySelectorAll("#window feComponentTransfer > *")) {
      channel.setAttribute("slope", slope);
      channel.setAttribute("intercept", intercept);
    }
    this.picture.classList.toggle("windowed", slope !== 1 || intercept !== 0);
  }

  /** Position the picture according to zoom and offset. */
  place() {
    if (this.film.hidden || !this.dialog.open) return;
    const { clientWidth, clientHeight } = this.stage;
    const { width, height } = this.row.picture;
    const scale = this.zoom * Math.min(clientWidth / width, clientHeight / height);
    const most = {
      x: Math.max(0, (width * scale - clientWidth) / 2),
      y: Math.max(0, (height * scale - clientHeight) / 2),
    };
    for (const axis of ["x", "y"]) {
      this.offset[axis] = Math.min(Math.max(this.offset[axis], -most[axis]), most[axis]);
    }
    this.film.style.width = `${width * scale}px`;
    this.film.style.height = `${height * scale}px`;
    this.film.style.left = `${(clientWidth - width * scale) / 2 + this.offset.x}px`;
    this.film.style.top = `${(clientHeight - height * scale) / 2 + this.offset.y}px`;
    document.getElementById("zoom").textContent = `${Math.round(100 * this.zoom)} %`;
  }

  /** Zoom by a factor around a point, given in px from the middle of the stage. */
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

  #go(step) {
    const row = this.neighbour.at(this.row, step);
    if (row) this.open(row);
  }

  #do(button) {
    if (!button) return;
    const actions = {
      previous: () => this.#go(-1),
      next: () => this.#go(1),
      close: () => this.dialog.close(),
      smaller: () => this.magnify(1 / 1.25),
      larger: () => this.magnify(1.25),
      reset: () => this.reset(),
    };
    actions[button.dataset.do]();
  }

  #flip(name) {
    const box = this.tools.elements[name];
    if (box.disabled) return;
    box.checked = !box.checked;
    this.apply();
  }

  #turn(name, by) {
    const slider = this.tools.elements[name];
    if (slider.disabled) return;
    slider.value = Number(slider.value) + by;
    this.apply();
  }

  #key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const actions = {
      n: () => this.#go(1), p: () => this.#go(-1),
      h: () => this.#flip("colours"), c: () => this.#flip("contour"), i: () => this.#flip("invert"),
      b: () => this.#turn("brightness", 5), d: () => this.#turn("brightness", -5),
      m: () => this.#turn("contrast", 10), l: () => this.#turn("contrast", -10),
      "+": () => this.magnify(1.25), "=": () => this.magnify(1.25),
      "-": () => this.magnify(1 / 1.25), 0: () => this.reset(),
    };
    const arrows = {
      ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60],
    };
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (event.target === this.stage && arrows[key]) this.move(...arrows[key]);
    else if (Object.hasOwn(actions, key)) actions[key]();
    else return;
    event.preventDefault();
  }

  #wheel(event) {
    event.preventDefault();
    const box = this.stage.getBoundingClientRect();
    this.magnify(2 ** (-Math.sign(event.deltaY) / 4),
      event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2);
  }

  /** Drag: move the picture, or with Shift or the right button its window. */
  #grab(event) {
    if (this.film.hidden) return;
    const windowing = event.shiftKey || event.button === 2;
    let last = event;
    this.stage.setPointerCapture(event.pointerId);
    const drag = (next) => {
      const [x, y] = [next.clientX - last.clientX, next.clientY - last.clientY];
      last = next;
      if (windowing) {
        this.#turn("contrast", x / 3);
        this.#turn("brightness", -y / 4);
      } else {
        this.move(x, y);
      }
    };
    const drop = () => this.stage.removeEventListener("pointermove", drag);
    this.stage.addEventListener("pointermove", drag);
    this.stage.addEventListener("lostpointercapture", drop, { once: true });
  }
}
