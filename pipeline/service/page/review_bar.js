/* The review of a reader: verdict, region, marks, comment. */

import { element } from "./dom.js";
import { facts } from "./facts.js";
import { button, labelled } from "./parts.js";
import { t, word } from "./texts.js";

const VERDICTS = { a: "agree", f: "fracture", n: "none", u: "unsure", r: "wrong_region" };

/** Unsaved reviews by number of the result, kept when the reader leaves the picture. */
const drafts = new Map();

const emptyDraft = () => ({ verdict: null, region: null, marks: [], comment: "", steps: [] });

/**
 * `save(review)` stores, `mark()` starts or ends marking, `undo()` undoes the last stored
 * review, `marks(list)` shows marks.
 */
export class ReviewBar {
  constructor(acts) {
    this.acts = acts;
    this.result = null;
    this.draft = emptyDraft();
    this.verdicts = Object.entries(VERDICTS).map(([key, verdict]) => {
      const made = button(t(`verdict.${verdict}`), () => this.choose(verdict),
        { key: key.toUpperCase(), className: `verdict ${verdict}` });
      made.dataset.verdict = verdict;
      return made;
    });
    this.regions = element("fieldset", { className: "regions", hidden: true },
      element("legend", {}, t("review.region")),
      ...[...facts.regions, "other"].map((region, place) => {
        const made = button(word("region", region), () => this.#region(region),
          { key: String(place + 1) });
        made.dataset.region = region;
        return made;
      }));
    this.comment = element("textarea", { name: "comment", rows: 1, maxLength: 2000,
      "aria-keyshortcuts": "T" });
    this.comment.addEventListener("input", () => { this.draft.comment = this.comment.value; });
    this.markButton = button(t("review.mark"), () => acts.mark(), { key: "M" });
    this.undoButton = button(t("review.undo"), () => this.undo(), { key: "Z" });
    this.saveButton = button(t("review.save"), () => this.save(), { key: "Enter", className: "primary" });
    this.state = element("p", { className: "state", role: "status" });
    this.root = element("section", { className: "review-bar", "aria-label": t("review.label") },
      element("div", { className: "row verdicts", role: "group", "aria-label": t("review.verdict") },
        ...this.verdicts),
      this.regions,
      element("div", { className: "row" }, this.markButton,
        labelled(t("review.comment"), this.comment, "comment"),
        this.undoButton, this.saveButton),
      this.state);
    this.#show();
  }

  /** Review another result, or none. `own` is the stored review of this reader, if any. */
  open(result, own) {
    this.result = result;
    this.own = own ?? null;
    this.draft = (result && drafts.get(result.id)) || { ...emptyDraft(), ...this.#stored() };
    if (result) drafts.set(result.id, this.draft);
    this.comment.value = this.draft.comment;
    this.tell("");
    this.#show();
  }

  #stored() {
    if (!this.own || this.own.verdict === "withdrawn") return {};
    const { verdict, region, marks, comment } = this.own;
    return { verdict, region, marks: [...marks], comment };
  }

  /** Discard unsaved input. */
  reset() {
    if (this.result) drafts.delete(this.result.id);
  }

  get isChanged() {
    return this.draft.steps.length > 0;
  }

  choose(verdict) {
    if (!this.result || (verdict === "agree" && !this.#mayAgree())) return;
    this.#step();
    this.draft.verdict = verdict;
    this.draft.region = null;
    this.tell("");
    this.#show();
  }

  /** Whether there is a visible answer to agree with. */
  #mayAgree() {
    return Boolean(this.result && !this.result.hidden && this.result.status === "ok");
  }

  #region(region) {
    this.#step();
    this.draft.region = region;
    this.#show();
  }

  addMark(x, y) {
    this.#step();
    this.draft.marks = [...this.draft.marks, { x, y }];
    this.#show();
  }

  #step() {
    const { verdict, region, marks } = this.draft;
    this.draft.steps.push({ verdict, region, marks });
  }

  /** Undo the last step, or else the last stored review. */
  undo() {
    const step = this.draft.steps.pop();
    if (!step) {
      this.acts.undo();
      return;
    }
    Object.assign(this.draft, step);
    this.#show();
  }

  save() {
    const { verdict, region, marks, comment } = this.draft;
    if (!this.result) return;
    if (!verdict) this.tell(t("review.choose"));
    else if (verdict === "wrong_region" && !region) this.tell(t("review.choose.region"));
    else {
      this.acts.save({ verdict, marks, comment, ...(region ? { region } : {}) });
    }
  }

  /** Show a message below the buttons. */
  tell(text, isFault = false) {
    this.state.textContent = text;
    this.state.classList.toggle("refused", isFault);
  }

  busy(isBusy) {
    this.saveButton.disabled = isBusy || !this.result;
  }

  setMarking(isMarking) {
    this.markButton.setAttribute("aria-pressed", String(isMarking));
  }

  #show() {
    const { verdict, region, marks } = this.draft;
    for (const made of this.verdicts) {
      made.setAttribute("aria-pressed", String(made.dataset.verdict === verdict));
      made.disabled = !this.result || (made.dataset.verdict === "agree" && !this.#mayAgree());
    }
    for (const made of this.regions.querySelectorAll("button")) {
      made.setAttribute("aria-pressed", String(made.dataset.region === region));
    }
    this.regions.hidden = verdict !== "wrong_region";
    this.markButton.disabled = this.comment.disabled = this.saveButton.disabled = !this.result;
    this.acts.marks(marks);
  }

  /** Handle a key; false if it is not a shortcut of this bar. */
  key(key) {
    const place = Number(key) - 1;
    const regions = this.regions.querySelectorAll("button");
    if (!this.regions.hidden && regions[place]) regions[place].click();
    else if (Object.hasOwn(VERDICTS, key)) this.choose(VERDICTS[key]);
    else if (key === "m") this.markButton.click();
    else if (key === "z") this.undo();
    else if (key === "t") this.comment.focus();
    else if (key === "Enter") this.save();
    else return false;
    return true;
  }
}
