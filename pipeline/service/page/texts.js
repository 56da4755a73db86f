/* Every visible text, from texts.json. */

let texts = {};

/** Load the texts; call once, before any other function of this module. */
export async function loadTexts() {
  texts = await (await fetch("static/texts.json")).json();
}

/** The text of a key, with {name} replaced by values. */
export function t(key, values = {}) {
  const text = texts[key];
  if (text === undefined) throw new Error(`texts.json has no ${key}`);
  return text.replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
}

/** The singular or plural of a key. */
export function count(key, n) {
  return t(`${key}.${n === 1 ? "one" : "other"}`, { n: n.toLocaleString(document.documentElement.lang) });
}

/** Text for a value of the service, such as a state; the value itself without a text. */
export function word(group, name) {
  return texts[`${group}.${name}`] ?? String(name);
}

const dates = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const days = new Intl.DateTimeFormat(undefined, { dateStyle: "medium" });

export const dateText = (ms) => (ms ? dates.format(new Date(ms)) : "–");
export const dayText = (ms) => days.format(new Date(ms));
export const percentText = (share) => `${(100 * share).toFixed(1)} %`;
