/* Requests to the service. */

import { t } from "./texts.js";

const BASE = "api/v1";

/** An unsuccessful response; status 0 without a response. */
export class ApiError extends Error {
  constructor(status, detail, errors = []) {
    super(detail);
    this.status = status;
    this.errors = errors;
  }

  /** The resource has changed in the meantime. */
  get isConflict() {
    return this.status === 409 || this.status === 412;
  }
}

/** The session of all requests; `relogin` waits for a new login. */
export const session = { who: null, relogin: null };

export function address(path, query = {}) {
  const words = new URLSearchParams();
  for (const [key, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== "") words.set(key, value);
  }
  const text = words.toString();
  return BASE + path + (text ? `?${text}` : "");
}

export const frameAddress = (picture, frame, what) =>
  address(`/pictures/${picture}/frames/${frame ?? 0}/${what}`);

/**
 * Make a request and return its JSON, or null without a body.
 *
 * If the session has expired, the user logs in again and the request is repeated.
 */
export async function call(method, path, { query, body, anonymous = false } = {}) {
  const options = { method, headers: { Accept: "application/json" } };
  if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(address(path, query), options);
  } catch {
    throw new ApiError(0, t("problem.unreachable"));
  }
  if (response.status === 401 && !anonymous && session.relogin) {
    await session.relogin();
    return call(method, path, { query, body });
  }
  if (!response.ok) throw await problemOf(response);
  return response.status === 204 ? null : response.json();
}

export const get = (path, query) => call("GET", path, { query });
export const post = (path, body, query) => call("POST", path, { body, query });
export const patch = (path, body) => call("PATCH", path, { body });
export const remove = (path) => call("DELETE", path);

/** All pages of a list, up to a number of entries. */
export async function pages(path, name, query = {}, most = 1000) {
  const entries = [];
  let after;
  do {
    const page = await get(path, { ...query, after });
    entries.push(...page[name]);
    after = page.next;
  } while (after && entries.length < most);
  return { entries, next: after ?? null };
}

/** The content behind an address, as bytes; null if there is none. */
export async function bytesOf(path) {
  let response;
  try {
    response = await fetch(path);
  } catch {
    throw new ApiError(0, t("problem.unreachable"));
  }
  if (response.status === 404) return null;
  if (!response.ok) throw await problemOf(response);
  return new Uint8Array(await response.arrayBuffer());
}

async function problemOf(response) {
  try {
    const problem = await response.json();
    const fields = (problem.errors ?? []).map(({ field, message }) => `${field}: ${message}`);
    const detail = [problem.detail ?? problem.title, ...fields].join("; ");
    return new ApiError(response.status, detail, problem.errors ?? []);
  } catch {
    return new ApiError(response.status, t("problem.status", { status: response.status }));
  }
}

/** Error text for the user. */
export const problemText = (error) =>
  error instanceof ApiError ? error.message : t("problem.page", { detail: String(error) });

/** Like `get`, but null if the resource does not exist or the user may not see it. */
export async function getIfAllowed(path, query) {
  try {
    return await get(path, query);
  } catch (error) {
    if (error instanceof ApiError && (error.status === 403 || error.status === 404)) return null;
    throw error;
  }
}
