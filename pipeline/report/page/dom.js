"use strict";

/* Elements, made without HTML text. Used by the report and by the page of the service. */

/** An element with properties; its content is always text or other elements, never HTML. */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in made) made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

/** An SVG element. */
export function drawn(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** A verdict as an icon, a colour and a word. */
export function badge(answer, word = answer) {
  const icon = drawn("svg", { class: "icon", "aria-hidden": "true" },
    drawn("use", { href: `#icon-${answer}` }));
  return element("span", { className: `badge ${answer}` }, icon, word);
}
