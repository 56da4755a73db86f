/* Uploads: at most four at once, repeated until the service has stored each file. */

import { address, get, session } from "./api.js";
import { t } from "./texts.js";

const AT_ONCE = 4;
/** Computing a digest requires the whole file in memory. */
const MOST_DIGEST_BYTES = 2 ** 28;
const FIRST_WAIT_S = 2;
const MOST_WAIT_S = 60;
const POLL_MS = 2000;
const FINAL = ["answered", "unsupported", "failed", "deleted"];

/** All files of this session: { file, state, share, picture, detail, waitS }. */
export const uploads = [];

let active = 0;
let next = 0;
const listeners = new Set();

/** Call `listener` after each change; returns a function that removes it. */
export function watch(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function update(upload, values) {
  Object.assign(upload, values);
  listeners.forEach((listener) => listener(upload));
}

/** Queue files, and start. */
export function add(files) {
  for (const file of files) {
    uploads.push({ file, state: "queued", share: 0, picture: null, detail: "", waitS: FIRST_WAIT_S });
  }
  listeners.forEach((listener) => listener(null));
  fill();
}

/** Retry a refused file. */
export function retry(upload) {
  update(upload, { state: "queued", detail: "", waitS: FIRST_WAIT_S });
  next = Math.min(next, uploads.indexOf(upload));
  fill();
}

function fill() {
  while (active < AT_ONCE) {
    while (next < uploads.length && uploads[next].state !== "queued") next += 1;
    if (next >= uploads.length) return;
    active += 1;
    send(uploads[next]).finally(() => { active -= 1; fill(); });
  }
}

async function send(upload) {
  update(upload, { state: "checking" });
  try {
    upload.key ??= await keyOf(upload.file);
  } catch {
    update(upload, { state: "refused", detail: t("upload.unreadable") });
    return;
  }
  for (;;) {
    const answer = await transfer(upload);
    if (answer.status === 200 || answer.status === 201) {
      update(upload, { state: answer.status === 201 ? "received" : "known", share: 1,
        picture: answer.body, detail: "" });
      followWithoutEvents(upload);
      return;
    }
    const waitS = waitOf(answer, upload);
    if (waitS === null) {
      const state = answer.status === 401 ? "over" : "refused";
      update(upload, { state, detail: answer.body?.detail ?? t("problem.status", { status: answer.status }) });
      if (state === "over") await again(upload);
      if (upload.state === "queued") continue;
      return;
    }
    update(upload, { state: answer.status ? "busy" : "unreachable", share: 0,
      detail: t(answer.status ? "upload.busy" : "upload.unreachable", { n: Math.ceil(waitS) }) });
    await new Promise((done) => { setTimeout(done, 1000 * waitS); });
  }
}

async function again(upload) {
  await session.relogin();
  update(upload, { state: "queued", detail: "" });
}

/** Seconds to wait before the next attempt; null if there is none. */
function waitOf({ status, retryAfter }, upload) {
  if (![0, 429, 503, 507].includes(status)) return null;
  const waitS = upload.waitS;
  upload.waitS = Math.min(2 * waitS, MOST_WAIT_S);
  return retryAfter > 0 ? retryAfter : waitS;
}

/** The digest of the content, so that a repeated upload has no effect. */
async function keyOf(file) {
  // Browsers compute digests only over HTTPS and on localhost.
  if (crypto.subtle && file.size <= MOST_DIGEST_BYTES) {
    const digest = await crypto.subtle.digest("SHA-256", await file.arrayBuffer());
    return hex(new Uint8Array(digest));
  }
  return hex(crypto.getRandomValues(new Uint8Array(32)));
}

const hex = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** One attempt; `fetch` reports no progress of uploads. */
function transfer(upload) {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open("POST", address("/pictures"));
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.setRequestHeader("Content-Disposition", disposition(upload.file.name));
    request.setRequestHeader("Idempotency-Key", upload.key);
    request.responseType = "json";
    request.upload.onprogress = (event) => {
      if (event.lengthComputable) update(upload, { state: "sending", share: event.loaded / event.total });
    };
    request.onloadend = () => resolve({ status: request.status, body: request.response,
      retryAfter: Number(request.status ? request.getResponseHeader("Retry-After") : 0) });
    update(upload, { state: "sending", share: 0 });
    request.send(upload.file);
  });
}

/** A file name for a header (RFC 6266), which is limited to ASCII. */
const disposition = (name) => `attachment; filename*=UTF-8''${encodeURIComponent(name.toWellFormed?.() ?? name)
  .replace(/['()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`)}`;

/** Handle an event: load the state of its picture. */
export function updateUploads(kind, { subject }) {
  const open = uploads.filter(({ picture }) => picture && !FINAL.includes(picture.state));
  const concerned = kind === "resync" ? open : open.filter(({ picture }) => picture.id === subject);
  if (!["judged", "deleted", "resync"].includes(kind)) return;
  for (const upload of concerned) follow(upload, kind === "deleted");
}

async function follow(upload, isDeleted) {
  if (isDeleted) {
    update(upload, { picture: { ...upload.picture, state: "deleted" } });
    return;
  }
  try {
    update(upload, { picture: await get(`/pictures/${upload.picture.id}`) });
  } catch (error) {
    if (error.status === 404) follow(upload, true);
    // Other errors: repeated with the next event or poll.
  }
}

/** Senders get no events; their pictures are polled. */
async function followWithoutEvents(upload) {
  while (session.who.role === "sender" && !FINAL.includes(upload.picture.state)) {
    await new Promise((done) => { setTimeout(done, POLL_MS); });
    await follow(upload, false);
  }
}
