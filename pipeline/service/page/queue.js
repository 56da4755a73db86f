/* The pictures that a reader steps through, in the order of the worklist. */

import { get } from "./api.js";

/** Filters of the worklist that the service understands. */
export const FILTERS = ["state", "answer", "region", "study", "reviewed", "order"];

const isReadable = (picture) => ["answered", "unsupported"].includes(picture.state);

class Queue {
  pictures = [];
  query = {};

  /** The rows of the worklist, with its filters. */
  set(pictures, query) {
    this.pictures = pictures;
    this.query = query;
  }

  #find(id) {
    return this.pictures.findIndex((picture) => picture.id === id);
  }

  position(id) {
    return { place: this.#find(id) + 1, total: this.pictures.length };
  }

  /** The next or previous picture; null at the end. */
  neighbour(id, step) {
    const at = this.#find(id);
    return at < 0 ? null : this.pictures[at + step] ?? null;
  }

  reviewed(id, verdict) {
    const picture = this.pictures[this.#find(id)];
    if (picture) picture.review = verdict;
  }

  /** The number of the next picture to review, including new ones; null at the end. */
  async nextToReview(id, query) {
    const after = this.pictures.slice(this.#find(id) + 1)
      .find((picture) => isReadable(picture) && (!picture.review || query.reviewed === "true"));
    if (after) return after.id;
    if (query.reviewed === "true") return null;
    const fresh = await get("/pictures", { ...query, reviewed: false, limit: 50 });
    const next = fresh.pictures.find((picture) => isReadable(picture) && picture.id !== id);
    if (next) this.set(fresh.pictures, query);
    return next?.id ?? null;
  }
}

export const queue = new Queue();

/** The filters in a hash. */
export const filtersOf = (query) =>
  Object.fromEntries(FILTERS.filter((name) => query[name]).map((name) => [name, query[name]]));

/** The hash of a view with filters. */
export function hashOf(path, query = {}) {
  const words = new URLSearchParams(filtersOf(query)).toString();
  return `#/${path}${words ? `?${words}` : ""}`;
}
