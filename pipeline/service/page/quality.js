/* Quality: agreement with readers, rates by region and week, and drift. */

import { get } from "./api.js";
import { percent } from "./bars.js";
import { badge, element } from "./dom.js";
import { weekChart } from "./charts.js";
import { card } from "./panel.js";
import { fault, message, table } from "./parts.js";
import { count, dayText, percentText, t, word } from "./texts.js";

const two = (number) => number.toFixed(2);

/** An estimate with its interval, in percent; null without data. */
function estimateText(estimate) {
  if (!estimate || estimate.value === null) return null;
  const [value, low, high] = [estimate.value, estimate.low, estimate.high].map((share) =>
    (share === null ? null : percentText(share)));
  return low === null ? value : t("quality.interval", { value, low, high });
}

export class QualityView {
  #timer = 0;

  constructor(root) {
    this.notice = element("div", { className: "notice" });
    this.content = element("div", { className: "cards" });
    root.append(element("div", { className: "bar" }, element("h1", {}, t("view.quality")),
      element("p", { className: "quiet" }, t("quality.text"))), this.notice, this.content);
    this.load();
  }

  close() {
    clearTimeout(this.#timer);
  }

  /** The statistics are expensive to compute, so they are reloaded with a delay. */
  changed(kind) {
    if (["judged", "reviewed", "engine", "resync"].includes(kind)) {
      this.#timer ||= setTimeout(() => { this.#timer = 0; this.load(); }, 5000);
    }
  }

  async load() {
    try {
      const figures = await get("/quality");
      this.notice.replaceChildren(...this.#drift(figures.drift));
      this.content.replaceChildren(this.#agreement(figures.agreement), this.#reasons(figures.reasons),
        this.#weeks(figures.weeks), this.#regions(figures.by_region));
    } catch (error) {
      this.notice.replaceChildren(fault(error, () => this.load()));
    }
  }

  #drift(drift) {
    return Object.entries(drift).filter(([, figures]) => figures.warn).map(([name, figures]) =>
      element("p", { className: "warning", role: "alert" }, t("quality.drift", {
        answer: word("answer", name), now: percentText(figures.now), card: percentText(figures.card),
        low: percentText(figures.low), high: percentText(figures.high) })));
  }

  #agreement(agreement) {
    if (agreement.kappa === null) {
      return card(t("quality.agreement"), message(t("quality.unreviewed")));
    }
    const { n, kappa, low, high } = agreement;
    return card(t("quality.agreement"),
      element("p", { className: "large" }, t("quality.kappa", { kappa: two(kappa) })),
      low === null ? "" : element("p", {}, t("quality.between", { low: two(low), high: two(high) })),
      element("p", { className: "quiet" }, count("quality.reviews", n), ". ", t("quality.kappa.text")));
  }

  #reasons(reasons) {
    if (!reasons.length) return card(t("quality.reasons"), message(t("quality.agreed")));
    const most = Math.max(...reasons.map((reason) => reason.count), 1);
    return card(t("quality.reasons"), element("ul", { className: "lengths" }, ...reasons.map((reason) => {
      const length = element("span", { className: "length", "aria-hidden": "true" });
      length.style.width = percent(reason.count / most);
      return element("li", {}, element("span", {}, word("verdict", reason.verdict)),
        element("span", { className: "track" }, length), element("b", {}, String(reason.count)));
    })));
  }

  #weeks(weeks) {
    if (!weeks.length) return card(t("quality.weeks"), message(t("quality.unjudged")));
    const rows = weeks.map(({ start, pictures, positive, unsupported }) => [dayText(start),
      String(pictures), share(positive, pictures), share(unsupported, pictures)]);
    const columns = ["week", "pictures", "positive", "unsupported"].map((name) => t(`quality.column.${name}`));
    const legend = element("p", { className: "legend" }, ...["positive", "unsupported"].map((name) =>
      badge(name, word("answer", name))));
    const made = card(t("quality.weeks"), legend, weekChart(weeks),
      element("details", {}, element("summary", {}, t("quality.table")), table(t("quality.weeks"), columns, rows)));
    made.classList.add("broad");
    return made;
  }

  #regions(regions) {
    const columns = ["region", "n", "positives", "sensitivity", "card", "specificity", "card"]
      .map((name) => t(`quality.column.${name}`));
    const rows = regions.map((one) => [word("region", one.region), String(one.n), String(one.positives),
      withBar(one.sensitivity), estimateText(one.card.sensitivity), withBar(one.specificity),
      estimateText(one.card.specificity)]);
    const made = rows.length ? card(t("quality.regions"), table(t("quality.regions"), columns, rows),
      element("p", { className: "quiet" }, t("quality.regions.text")))
      : card(t("quality.regions"), message(t("quality.unreviewed")));
    made.classList.add("broad");
    return made;
  }
}

const share = (part, whole) => (whole ? `${part} (${percentText(part / whole)})` : String(part));

/** An estimate as text, above its interval on a line from 0 to 1. */
function withBar(estimate) {
  const text = estimateText(estimate);
  if (text === null) return null;
  const made = element("div", { className: "estimate" }, element("span", {}, text));
  if (estimate.low !== null) {
    const range = element("span", { className: "range" });
    range.style.left = percent(estimate.low);
    range.style.width = percent(estimate.high - estimate.low);
    const value = element("span", { className: "point" });
    value.style.left = percent(estimate.value);
    made.append(element("span", { className: "track", "aria-hidden": "true" }, range, value));
  }
  return made;
}
