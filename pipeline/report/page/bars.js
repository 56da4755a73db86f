/* A probability and its limits as a bar from 0 to 1. */

import { element } from "./dom.js";

export const percent = (share) => `${(100 * share).toFixed(2)}%`;
export const three = (number) => number.toFixed(3);

function part(className, left, width) {
  const made = element("span", { className });
  made.style.left = percent(left);
  if (width !== undefined) made.style.width = percent(width);
  return made;
}

/**
 * The bar: a tick at the threshold, a hatched band from `doubt` to it, and the probability as a
 * filled length with a mark at its end.
 */
export function bar(words, probability, threshold, doubt, className) {
  const parts = [part("filled", 0, probability)];
  if (doubt < threshold) parts.unshift(part("doubtful", doubt, threshold - doubt));
  parts.push(part("limit", threshold), part("value", probability));
  return element("span", { className: `meter ${className}`, role: "img", "aria-label": words },
    ...parts);
}
