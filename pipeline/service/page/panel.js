/* Side panel with the details of a picture. */

import { address, session } from "./api.js";
import { bar, three } from "./bars.js";
import { badge, drawn, element } from "./dom.js";
import { facts } from "./facts.js";
import { sentState } from "./outbox.js";
import { chip } from "./parts.js";
import { dateText, t, word } from "./texts.js";

/** Share of a heatmap's evidence outside the limb above which the reader is warned. */
const MUCH_HIDDEN = 0.25;

export function card(title, ...children) {
  return element("section", { className: "card" }, element("h2", {}, title),
    ...children.map((child) => typeof child === "string" ? element("p", {}, child) : child));
}

export function factList(rows) {
  const known = rows.filter(([, value]) => value !== undefined && value !== null && value !== "");
  return element("dl", { className: "facts" }, ...known.flatMap(([name, value]) =>
    [element("dt", {}, name),
      element("dd", {}, value instanceof Node ? value : element("bdi", {}, String(value)))]));
}

/** fxpipe's answer: findings, or the reason for their absence; empty while hidden. */
export function answerCards(result, findings, choose) {
  if (result.hidden) return [card(t("panel.hidden"), t("panel.hidden.text"))];
  const cards = findings.map((finding, number) => findingCard(finding, number, choose));
  if (result.error) cards.push(card(t("panel.error"), result.error));
  if (!findings.length && !result.error) {
    cards.push(card(t("panel.answer"), badge(result.answer, word("answer", result.answer))));
  }
  if (result.flags?.length) cards.push(flagCard(result.flags));
  return cards;
}

function findingCard(finding, number, choose) {
  const { probability, threshold, doubt_below: doubt } = finding;
  const band = doubt < threshold ? t("panel.doubt", { limit: three(doubt) }) : "";
  const words = t("panel.bar", { probability: three(probability), threshold: three(threshold) }) + band;
  const made = card(t("panel.finding", { target: word("target", finding.target),
    region: word("region", finding.region) }),
  element("p", { className: "answer" }, badge(finding.verdict, word("answer", finding.verdict)),
    element("b", { className: "figure" }, three(probability))),
  bar(words, probability, threshold, doubt, finding.verdict),
  element("p", { className: "quiet" },
    t("panel.point", { point: finding.operating_point, threshold: three(threshold) }) + band));
  if (finding.types) made.append(element("p", {}, t("panel.types", { types: typesText(finding.types) })));
  if (finding.layer) made.append(layerChoice(finding.layer, number, choose));
  return made;
}

const typesText = (types) => Object.entries(types).sort(([, a], [, b]) => b - a)
  .map(([name, probability]) => `${name} ${three(probability)}`).join(", ");

function layerChoice(layer, number, choose) {
  const box = element("input", { type: "checkbox", checked: number === 0 });
  box.addEventListener("input", () => choose(number, box.checked));
  const sample = drawn("svg", { class: `sample contour-${number}`, viewBox: "0 0 36 6",
    "aria-hidden": "true" }, drawn("path", { d: "M0 3H36" }));
  const notes = [layer.contour
    ? t("panel.layer.line", { share: Math.round(100 * facts.contour) }) : t("panel.layer.none")];
  if (layer.hidden >= MUCH_HIDDEN) {
    notes.push(t("panel.layer.hidden", { share: Math.round(100 * layer.hidden) }));
  }
  return element("label", { className: "tick" }, box, t("panel.layer"), sample,
    element("small", {}, notes.join(" ")));
}

function flagCard(flags) {
  return card(t("panel.flags"), element("ul", { className: "flags" },
    ...flags.map(({ name, reason }) => element("li", { title: name }, reason))));
}

/** Reviews of a result, newest first. */
export function reviewCard(reviews) {
  if (!reviews.length) return null;
  const lines = [...reviews].sort((a, b) => b.created - a.created).map((review) =>
    element("li", {}, element("b", {}, word("verdict", review.verdict)),
      review.region && review.verdict === "wrong_region" ? ` (${word("region", review.region)})` : "",
      ` · `, element("bdi", {}, review.reader), ` · ${dateText(review.created)}`,
      review.blind ? ` · ${t("panel.blind")}` : "",
      review.comment ? element("p", { className: "quiet" }, review.comment) : null));
  return card(t("panel.reviews"), element("ul", { className: "reviews" }, ...lines));
}

export function fileCard(picture, result, size) {
  const record = result?.record ?? {};
  const regions = Object.entries(record).filter(([key]) => key.startsWith("p_"))
    .map(([key, probability]) => `${word("region", key.slice(2))} ${three(probability)}`).join(", ");
  const original = element("a", { href: address(`/pictures/${picture.id}/content`), download: "" },
    t("panel.original"));
  const made = card(t("panel.file"), factList([
    [t("fact.name"), picture.name], [t("fact.received"), dateText(picture.received)],
    [t("fact.source"), word("source", picture.source)],
    [t("fact.frame"), result?.frame ?? null],
    [t("fact.size"), size ? `${size.width} × ${size.height} px` : null],
    [t("fact.regions"), regions], [t("fact.density"), record.density],
    [t("fact.sha256"), element("code", {}, picture.sha256)],
    [t("fact.time"), record.elapsed_ms === undefined ? null : `${Math.round(record.elapsed_ms)} ms`],
    [t("fact.engine"), result?.engine]]),
  element("p", {}, original));
  if (picture.study) {
    made.append(element("p", {}, element("a", { href: `#/study/${picture.study}` },
      t("panel.study", { n: picture.study }))));
  }
  if (session.who.role === "admin") made.append(element("div", { className: "row admin" }));
  return made;
}

/** Chips with the state of the DICOM objects of a study. */
export function sentCard(objects) {
  if (!objects.length) return null;
  return card(t("panel.sent"), element("ul", { className: "chips" }, ...objects.map((object) =>
    element("li", {}, sentChip(object), ` ${word("kind", object.kind)} · `,
      element("bdi", {}, object.receiver)))));
}

export function sentChip(object) {
  const state = sentState(object);
  return chip(state, t(`state.${state}`), object.error ?? "");
}
