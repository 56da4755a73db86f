/* Engines: active engine, candidates, comparison and promotion. */

import { get, post } from "./api.js";
import { badge, element } from "./dom.js";
import { message, table } from "./parts.js";
import { count, dateText, percentText, t, word } from "./texts.js";
import { act, added, field } from "./admin_parts.js";

const columnsOf = (section, names) => names.map((name) => t(`${section}.${name}`));

export async function engines(reload) {
  const list = await get("/engines");
  const compared = element("div", { className: "compared" });
  const rows = list.map((engine) => [t("engines.number", { n: engine.id }), word("engine", engine.state),
    element("code", {}, engine.weights), engine.version, dateText(engine.created), String(engine.judged),
    String(engine.waiting), engine.state === "active" ? null : element("span", { className: "row" },
      act(t("engines.compare"), async () => compared.replaceChildren(...await comparison(engine))),
      act(t("engines.promote"), async () => {
        await post(`/engines/${engine.id}/promote`);
        await reload();
      }, { question: t("engines.promote.question", { n: engine.id }), className: "primary" }))]);
  return [table(t("admin.engines"), columnsOf("engines",
    ["engine", "state", "weights", "version", "created", "judged", "waiting", "action"]), rows),
  compared, added(t("engines.new"), [field(t("engines.path"), "weights", { maxLength: 1024, spellcheck: false })],
    t("engines.open"), async (values, made) => {
      await post("/engines", values);
      made.reset();
      document.activeElement?.blur();
      await reload();
    })];
}

async function comparison(engine) {
  const { pictures, agree, changed } = await get(`/engines/${engine.id}/comparison`);
  const heading = element("h3", {}, t("engines.comparison", { n: engine.id }));
  if (!pictures) return [heading, message(t("engines.uncompared"))];
  const summary = element("p", {}, t("engines.agree", { share: percentText(agree / pictures),
    pictures: count("study.pictures", pictures) }));
  const rows = changed.map((one) => [
    element("a", { href: `#/reading/${one.picture}` }, t("reviews.picture", { n: one.picture })),
    answer(one.before), answer(one.after)]);
  return [heading, summary, ...(rows.length ? [table(t("engines.changes"),
    columnsOf("engines", ["picture", "before", "after"]), rows)] : [])];
}

const answer = (name) => badge(name, word("answer", name));
