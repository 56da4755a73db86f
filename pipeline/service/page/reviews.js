/* My reviews: the reviews of this reader. */

import { get, problemText, remove } from "./api.js";
import { badge, element } from "./dom.js";
import { button, fault, message, table } from "./parts.js";
import { dateText, t, word } from "./texts.js";

const WITHDRAWABLE_MS = 10 * 60_000;

export class ReviewsView {
  constructor(root) {
    this.root = root;
    this.reviews = [];
    this.state = element("p", { className: "refused", role: "alert" });
    this.content = element("div", {});
    root.append(element("div", { className: "bar" }, element("h1", {}, t("view.reviews"))), this.state,
      this.content);
    this.load();
  }

  changed(kind) {
    if (kind === "reviewed" || kind === "resync") this.load();
  }

  async load() {
    try {
      const page = await get("/reviews", { mine: true, limit: 100 });
      this.reviews = page.reviews;
      this.next = page.next;
      this.#show();
    } catch (error) {
      this.content.replaceChildren(fault(error, () => this.load()));
    }
  }

  async #more() {
    const page = await get("/reviews", { mine: true, limit: 100, after: this.next });
    this.reviews.push(...page.reviews);
    this.next = page.next;
    this.#show();
  }

  #show() {
    if (!this.reviews.length) {
      this.content.replaceChildren(message(t("reviews.none")));
      return;
    }
    const superseded = new Set(this.reviews.map((review) => review.supersedes));
    const rows = this.reviews.map((review) => {
      const isLatest = !superseded.has(review.id);
      const mayWithdraw = isLatest && review.verdict !== "withdrawn" &&
        Date.now() - review.created < WITHDRAWABLE_MS;
      const picture = review.picture === null ? t("state.deleted")
        : element("a", { href: `#/reading/${review.picture}` }, t("reviews.picture", { n: review.picture }));
      return [picture,
        word("verdict", review.verdict),
        review.answer ? badge(review.answer, word("answer", review.answer)) : "–",
        review.region ? word("region", review.region) : "–",
        t(review.blind ? "reviews.blind" : "reviews.open"), dateText(review.created),
        review.comment || "–", isLatest ? t("reviews.valid") : t("reviews.superseded"),
        mayWithdraw ? button(t("reviews.withdraw"), () => this.#withdraw(review)) : "–"];
    });
    const columns = ["picture", "verdict", "answer", "region", "manner", "time", "comment", "state",
      "action"].map((name) => t(`reviews.column.${name}`));
    this.content.replaceChildren(table(t("view.reviews"), columns, rows));
    if (this.next) this.content.append(button(t("worklist.more"), () => this.#more(), { className: "more" }));
  }

  async #withdraw(review) {
    try {
      await remove(`/reviews/${review.id}`);
      this.state.textContent = "";
      await this.load();
    } catch (error) {
      this.state.textContent = problemText(error);
    }
  }
}
