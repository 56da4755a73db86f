/* What was sent to other DICOM nodes, by study. */

import { getIfAllowed } from "./api.js";

/** Objects of a study: empty without one, or where this user may not see them. */
export async function get(study) {
  if (!study) return [];
  const page = await getIfAllowed("/outbox", { study, limit: 200 });
  return (page?.objects ?? []).filter((object) => object.study === study);
}

/**
 * State of each study among the latest objects: `sent` if all of its objects were sent, `unsent`
 * if one needs attention, or `waiting`.
 */
export async function statesByStudy() {
  const page = await getIfAllowed("/outbox", { limit: 200 });
  const states = new Map();
  for (const { study, state } of page?.objects ?? []) {
    const next = { sent: "sent", waiting: "waiting" }[state] ?? "unsent";
    const last = states.get(study);
    if (!last || next === "unsent" || (next === "waiting" && last === "sent")) states.set(study, next);
  }
  return states;
}
