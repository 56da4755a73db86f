/* Changes at the service, as server-sent events, and the state of the connection. */

import { session } from "./api.js";

const KINDS = ["received", "judged", "deleted", "reviewed", "study", "outbox", "peer", "engine",
  "resync"];
const FIRST_WAIT_MS = 1000;
const MOST_WAIT_MS = 30_000;

/**
 * Calls `changed(kind, data)` for each change, and `connection(state)` with `live`,
 * `reconnecting` or `offline`. After an interruption, `changed("resync", {})` follows.
 */
export class Live {
  #source = null;
  #timer = 0;
  #wait = FIRST_WAIT_MS;
  #interrupted = false;
  #running = false;

  constructor(changed, connection) {
    this.changed = changed;
    this.connection = connection;
    addEventListener("offline", () => {
      this.#interrupted = true; // an offline page cannot load the changed resource
      if (this.#running) this.connection("offline");
    });
    addEventListener("online", () => this.#running && this.#open());
  }

  start() {
    this.#running = true;
    this.#open();
  }

  stop() {
    this.#running = false;
    clearTimeout(this.#timer);
    this.#source?.close();
  }

  #open() {
    clearTimeout(this.#timer);
    this.#source?.close();
    const source = new EventSource("api/v1/events");
    this.#source = source;
    source.onopen = () => {
      this.#wait = FIRST_WAIT_MS;
      this.connection("live");
      if (this.#interrupted) this.changed("resync", {});
      this.#interrupted = false;
    };
    source.onerror = () => this.#failed(source);
    for (const kind of KINDS) {
      source.addEventListener(kind, (event) => this.changed(kind, JSON.parse(event.data)));
    }
  }

  /** The browser reconnects automatically, unless the service has refused the stream. */
  #failed(source) {
    if (source !== this.#source) return;
    this.#interrupted = true;
    this.connection(navigator.onLine ? "reconnecting" : "offline");
    if (source.readyState !== EventSource.CLOSED) return;
    this.#timer = setTimeout(() => this.#again(), this.#wait);
    this.#wait = Math.min(2 * this.#wait, MOST_WAIT_MS);
  }

  async #again() {
    try {
      const response = await fetch("api/v1/session");
      if (response.status === 401) await session.relogin();
    } catch {
      // Unreachable: the stream reports it.
    }
    if (this.#running) this.#open();
  }
}
