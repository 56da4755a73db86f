/* State of the objects for other DICOM nodes, by study. */

import { getIfAllowed } from "./api.js";

const STATES = { sent: "sent", failed: "unsent", attention: "unsent" };

/** State of an object: `sent`, `unsent` (needs attention) or `waiting`. */
export const sentState = ({ state }) => STATES[state] ?? "waiting";

/** Objects of a study; empty without a study, or if the user may not see them. */
export async function get(study) {
  if (!study) return [];
  const page = await getIfAllowed("/outbox", { study, limit: 200 });
  return page?.objects ?? [];
}

/**
 * State of each study among the latest objects: `sent` if all of its objects were sent, `unsent`
 * if one needs attention, or `waiting`.
 */
export async function statesByStudy() {
  const page = await getIfAllowed("/outbox", { limit: 200 });
  const states = new Map();
  for (const object of page?.objects ?? []) {
    const { study } = object;
    const [next, last] = [sentState(object), states.get(study)];
    if (!last || next === "unsent" || (next === "waiting" && last === "sent")) states.set(study, next);
  }
  return states;
}
