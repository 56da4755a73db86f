/* Reading: one picture, fxpipe's answer, and the review of the reader. */

import { ApiError, call, frameAddress, get, getIfAllowed, post, problemText, remove, session } from "./api.js";
import { element } from "./dom.js";
import { get as getOutbox } from "./outbox.js";
import { answerCards, fileCard, reviewCard, sentCard } from "./panel.js";
import { button, chip, confirmed, fault, isTyping, message, outcomeBadge, reviewChip } from "./parts.js";
import { filtersOf, hashOf, queue } from "./queue.js";
import { ReviewBar } from "./review_bar.js";
import { t } from "./texts.js";
import { newLook, Tools } from "./tools.js";
import { Viewer } from "./viewer.js";

/** The last stored review, which can be undone: { review, picture, frame }. */
let lastStored = null;

export class ReadingView {
  #load = 0;

  constructor(root, [id, frame], query) {
    this.root = root;
    const look = newLook();
    this.viewer = new Viewer(look, {
      marked: (x, y) => this.bar.addMark(x, y),
      windowed: (contrast, brightness) => this.tools.turn(contrast, brightness),
    });
    this.tools = new Tools(look, () => [this.viewer]);
    this.viewer.stage.addEventListener("placed", () => this.tools.showZoom(this.viewer));
    this.bar = new ReviewBar({
      save: (review) => this.#save(review), mark: () => this.#toggleMarking(),
      undo: () => this.#undoStored(), marks: (marks) => this.viewer.setMarks(marks),
    });
    this.heading = element("div", { className: "bar" });
    this.notice = element("div", { className: "notice" });
    this.panel = element("div", { className: "panel", tabIndex: 0, role: "region" });
    this.panel.setAttribute("aria-label", t("panel.label"));
    this.help = this.#helpDialog();
    root.append(this.heading, this.notice, element("div", { className: "desk" },
      element("div", { className: "left" }, this.viewer.stage, this.tools.root, this.bar.root),
      this.panel), this.help);
    root.addEventListener("click", (event) => {
      // A click keeps the focus on the picture, so that Enter saves.
      if (event.detail > 0 && event.target.closest(".review-bar button, .tools button")) {
        this.viewer.stage.focus({ preventScroll: true });
      }
    });
    this.keys = (event) => this.#key(event);
    document.addEventListener("keydown", this.keys);
    this.moved([id, frame], query);
  }

  /** Show another picture in the same view. */
  moved([id, frame = null], query) {
    this.id = Number(id);
    this.frame = frame === null ? null : Number(frame);
    this.query = filtersOf(query);
    this.load();
    return true;
  }

  close() {
    document.removeEventListener("keydown", this.keys);
    this.viewer.close();
  }

  changed(kind, { subject }) {
    if (kind === "resync") this.#changedElsewhere();
    if (subject !== this.id) return;
    if (kind === "deleted") this.#deleted();
    else if (kind === "judged" || kind === "received") this.load();
    else if (kind === "reviewed" && !this.saving) this.#changedElsewhere();
  }

  /** Another reader or engine changed this picture: reload it, but keep the input. */
  #changedElsewhere() {
    if (this.picture && this.picture.state !== "deleted") this.#refresh();
  }

  async load() {
    const load = this.#load += 1;
    this.notice.replaceChildren();
    this.bar.open(null);
    this.viewer.stopMarking();
    this.bar.setMarking(false);
    try {
      const picture = await get(`/pictures/${this.id}`);
      if (load !== this.#load) return;
      this.picture = picture;
      await this.#show(load);
    } catch (error) {
      if (load === this.#load) this.#failed(error);
    }
  }

  #failed(error) {
    if (error instanceof ApiError && error.status === 404) this.#deleted();
    else this.notice.replaceChildren(fault(error, () => this.load()));
  }

  #deleted() {
    this.picture = { id: this.id, name: "", state: "deleted", results: [] };
    this.bar.open(null);
    this.#head();
    this.viewer.showNothing(message(t("reading.deleted")));
    this.panel.replaceChildren();
  }

  get result() {
    const { results } = this.picture;
    return results.find((one) => one.frame === this.frame) ?? results[0] ?? null;
  }

  async #show(load) {
    const { picture, result } = this;
    this.#head();
    this.size = null;
    this.panel.replaceChildren(fileCard(picture, result, null));
    if (!result) {
      this.viewer.showNothing(message(t(`reading.${picture.state}`)));
      return;
    }
    if (result.status === "failed") this.viewer.showNothing(message(t("reading.failed")));
    else {
      this.viewer.open({ view: frameAddress(picture.id, result.frame, "view"),
        pixels: frameAddress(picture.id, result.frame, "pixels"),
        alt: t("viewer.alt", { name: picture.name }) });
    }
    await this.#details(load, true);
    if (!document.activeElement || document.activeElement === document.body ||
        document.activeElement.id === "main") this.viewer.stage.focus({ preventScroll: true });
  }

  /** Heatmaps, reviews and sent objects of the result. */
  async #details(load, isNew) {
    const { picture, result } = this;
    const [heat, reviews, objects] = await Promise.all([
      result.hidden || result.status === "failed" ? null
        : getIfAllowed(`/pictures/${picture.id}/frames/${result.frame ?? 0}/heatmap`),
      result.hidden ? [] : getIfAllowed(`/results/${result.id}/reviews`),
      getOutbox(picture.study)]);
    if (load !== this.#load) return;
    const findings = heat?.findings ?? result.findings ?? [];
    if (heat?.picture) {
      this.size = heat.picture;
      this.viewer.setFindings(heat.picture, findings);
    }
    const all = reviews ?? [];
    const own = all.filter((one) => one.reader === session.who.name)
      .sort((a, b) => b.created - a.created || b.id - a.id)[0];
    if (isNew) this.bar.open(result, own);
    else this.bar.own = own ?? null;
    this.panel.replaceChildren(...[
      ...answerCards(result, findings, (number, chosen) => this.viewer.choose(number, chosen)),
      reviewCard(all), sentCard(objects), fileCard(picture, result, this.size)].filter(Boolean));
    this.#adminActions();
  }

  #head() {
    const { picture } = this;
    const { place, total } = queue.position(this.id);
    const back = element("a", { href: hashOf("worklist", this.query), className: "back" },
      t("view.worklist"));
    const title = element("h1", {}, outcomeBadge(picture), " ", element("bdi", {}, picture.name));
    const review = reviewChip(picture.review);
    this.heading.replaceChildren(back, title, ...(review ? [review] : []), ...this.#frames(),
      element("nav", { "aria-label": t("reading.pictures") },
        button(t("reading.previous"), () => this.#go(-1), { key: "K" }),
        element("span", { className: "place" }, place ? t("reading.place", { place, total }) : ""),
        button(t("reading.next"), () => this.#go(1), { key: "J" }),
        button(t("reading.keys"), () => this.help.showModal(), { key: "?" })));
    const [previous, , next] = this.heading.querySelector("nav").children;
    previous.disabled = !queue.neighbour(this.id, -1);
    next.disabled = !queue.neighbour(this.id, 1);
  }

  /** Links to the frames of a file with several pictures. */
  #frames() {
    const { results } = this.picture;
    if (results.length < 2) return [];
    return [element("nav", { className: "frames", "aria-label": t("reading.frames") },
      ...results.map((one) => {
        const link = element("a", { href: hashOf(`reading/${this.id}/${one.frame}`, this.query) },
          t("reading.frame", { n: one.frame }));
        if (one === this.result) link.setAttribute("aria-current", "true");
        return link;
      }))];
  }

  #adminActions() {
    const row = this.panel.querySelector(".row.admin");
    const path = `/pictures/${this.id}/hold`;
    const { held } = this.picture;
    row?.append(
      button(t(held ? "reading.unhold" : "reading.hold"), () => this.#admin(async () => {
        await (held ? remove(path) : call("PUT", path));
        await this.#refresh();
      }, t(held ? "reading.unheld" : "reading.held"))),
      button(t("action.delete"), async () => {
        if (await confirmed(t("reading.delete"), t("action.delete"))) {
          await this.#admin(() => remove(`/pictures/${this.id}`), "");
        }
      }, { className: "danger" }));
  }

  async #admin(act, text) {
    try {
      await act();
      this.bar.tell(text);
    } catch (error) {
      this.bar.tell(problemText(error), true);
    }
  }

  #go(step) {
    const other = queue.neighbour(this.id, step);
    if (other) location.hash = hashOf(`reading/${other.id}`, this.query);
  }

  /** Store the review, then show the next picture; a hidden answer is shown first. */
  async #save(review) {
    if (this.saving) return;
    const { picture, result } = this;
    if (!this.bar.isChanged && this.bar.own) return this.#next();
    this.saving = true;
    this.bar.busy(true);
    try {
      const stored = await post(`/results/${result.id}/reviews`, review);
      lastStored = { review: stored.id, picture: picture.id, frame: result.frame };
      this.bar.reset();
      queue.reviewed(picture.id, stored.verdict);
      if (this.id !== picture.id) return null;
      this.viewer.stopMarking();
      this.bar.setMarking(false);
      if (!result.hidden) return await this.#next();
      await this.#refresh(true);
      this.bar.tell(t("review.revealed"));
    } catch (error) {
      this.#refused(error);
    } finally {
      this.saving = false;
      this.bar.busy(false);
    }
    return null;
  }

  #refused(error) {
    if (error instanceof ApiError && error.isConflict) {
      const line = element("div", { className: "fault conflict", role: "alert" },
        chip("disputed", t("reading.conflict")), element("p", {}, problemText(error)),
        button(t("action.reload"), () => this.load()));
      this.notice.replaceChildren(line);
    } else if (error instanceof ApiError && error.status === 404) this.#deleted();
    else this.bar.tell(t("review.unsaved", { detail: problemText(error) }), true);
  }

  /** Load the picture again; view, zoom and input are kept. */
  async #refresh(isNew = false) {
    const load = this.#load += 1;
    try {
      const picture = await get(`/pictures/${this.id}`);
      if (load !== this.#load) return;
      this.picture = picture;
      this.#head();
      if (this.result) await this.#details(load, isNew);
    } catch (error) {
      if (load === this.#load) this.#failed(error);
    }
  }

  async #next() {
    const frames = this.picture.results;
    const frame = frames[frames.indexOf(this.result) + 1];
    if (frame) {
      location.hash = hashOf(`reading/${this.id}/${frame.frame}`, this.query);
      return;
    }
    const next = await queue.nextToReview(this.id, this.query);
    if (next !== null) location.hash = hashOf(`reading/${next}`, this.query);
    else {
      await this.#refresh(true);
      this.bar.tell(t("reading.end"));
    }
  }

  /** Undo the last stored review, and show its picture. */
  async #undoStored() {
    if (!lastStored) {
      this.bar.tell(t("review.nothing"));
      return;
    }
    const { review, picture, frame } = lastStored;
    try {
      await remove(`/reviews/${review}`);
      lastStored = null;
      queue.reviewed(picture, null);
      const hash = hashOf(frame === null ? `reading/${picture}` : `reading/${picture}/${frame}`, this.query);
      if (location.hash === hash) await this.load();
      else location.hash = hash;
    } catch (error) {
      this.bar.tell(t("review.kept", { detail: problemText(error) }), true);
    }
  }

  async #toggleMarking() {
    if (this.viewer.isMarking) {
      this.viewer.stopMarking();
      this.bar.setMarking(false);
      this.bar.tell("");
      return;
    }
    try {
      const started = await this.viewer.startMarking();
      if (started === null) return;
      this.bar.setMarking(started);
      this.bar.tell(started ? t("review.marking") : t("review.unmarkable"), !started);
    } catch (error) {
      this.bar.tell(t("review.unmarkable"), true);
    }
  }

  #key(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || document.querySelector("dialog[open]")) return;
    if (isTyping(event)) {
      if (event.key === "Escape") this.viewer.stage.focus();
      return;
    }
    // A focused button or link handles Enter.
    if (event.key === "Enter" && event.target.closest("button, a, summary")) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (this.#markingKey(key, event.shiftKey) || this.bar.key(key) ||
        this.tools.key(key, event.target) || this.#pageKey(key)) event.preventDefault();
  }

  #markingKey(key, fast) {
    if (!this.viewer.isMarking) return false;
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (steps[key]) this.viewer.moveCross(...steps[key], fast);
    else if (key === " ") this.viewer.markCross();
    else if (key === "Escape") this.#toggleMarking();
    else return false;
    return true;
  }

  #pageKey(key) {
    if (key === "j") this.#go(1);
    else if (key === "k") this.#go(-1);
    else if (key === "?") this.help.showModal();
    else if (key === "Escape") location.hash = hashOf("worklist", this.query);
    else return false;
    return true;
  }

  #helpDialog() {
    const names = ["verdicts", "mark", "cross", "comment", "undo", "save", "walk", "layers", "grey",
      "window", "size", "move", "leave"];
    return element("dialog", { className: "help", "aria-label": t("reading.keys") },
      element("h2", {}, t("reading.keys")),
      element("dl", { className: "keys" }, ...names.flatMap((name) =>
        [element("dt", {}, t(`key.${name}`)), element("dd", {}, t(`key.${name}.does`))])),
      button(t("action.close"), () => this.help.close()));
  }
}
