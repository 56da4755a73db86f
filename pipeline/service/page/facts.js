/* Constants of the service: answers by urgency, regions, colours and settings of heatmaps. */

import { bytes } from "./layers.js";

export const facts = { urgency: [], regions: [], opacity: 0.5, contour: 0.5, colours: null };

/** Load the constants; call once, before any view is shown. */
export async function loadFacts() {
  const loaded = await (await fetch("static/facts.json")).json();
  Object.assign(facts, loaded, { colours: bytes(loaded.colours) });
}
