/* DICOM nodes, rejected nodes, and objects to send. */

import { get, patch, post, remove } from "./api.js";
import { element } from "./dom.js";
import { sentChip } from "./panel.js";
import { message, table } from "./parts.js";
import { dateText, t, word } from "./texts.js";
import { act, added, field, tick } from "./admin_parts.js";

const columnsOf = (section, names) => names.map((name) => t(`${section}.${name}`));

export async function peers(reload) {
  const [found, callers] = await Promise.all([get("/peers"), get("/callers")]);
  const rows = found.map((peer) => [element("bdi", {}, peer.title), peer.port ? `${peer.host}:${peer.port}` : peer.host,
    flag(peer, "receive", reload), flag(peer, "send", reload), yes(peer.tls), yes(peer.commitment),
    echo(peer), act(t("action.delete"), async () => {
      await remove(`/peers/${peer.id}`);
      await reload();
    }, { question: t("peers.delete.question", { title: peer.title }), className: "danger" })]);
  const parts = [rows.length ? table(t("admin.peers"),
    columnsOf("peers", ["title", "host", "receive", "send", "tls", "commitment", "test", "action"]), rows) : message(t("peers.none"))];
  if (callers.length) parts.push(rejectedCallers(callers, reload));
  parts.push(added(t("peers.new"), [field(t("peers.title"), "title", { maxLength: 16 }),
    field(t("peers.address"), "host", { maxLength: 255 }),
    field(t("peers.port"), "port", { type: "number", min: 1, max: 65535, required: false }),
    tick(t("peers.receive"), "receive", true), tick(t("peers.send"), "send"), tick(t("peers.tls"), "tls"),
  tick(t("peers.commitment"), "commitment")],
  t("action.add"), async (values, made) => {
    await post("/peers", values);
    made.reset();
    document.activeElement?.blur();
    await reload();
  }));
  return parts;
}

function rejectedCallers(rejected, reload) {
  const rows = rejected.map((caller) => [element("bdi", {}, caller.title), element("bdi", {}, caller.host),
    dateText(caller.last), String(caller.count), act(t("peers.allow"), async () => {
      await post("/peers", { title: caller.title, host: caller.host, receive: true, send: false, tls: false });
      await reload();
    }, { question: t("peers.allow.question", { title: caller.title, host: caller.host }) })]);
  return element("section", { className: "card" }, element("h3", {}, t("peers.rejected")),
    element("p", { className: "quiet" }, t("peers.rejected.text")),
    table(t("peers.rejected"), columnsOf("peers", ["title", "host", "last", "count", "action"]), rows));
}

const yes = (is) => t(is ? "peers.yes" : "peers.no");

function flag(peer, name, reload) {
  const box = element("input", { type: "checkbox", checked: peer[name],
    "aria-label": t(`peers.${name}.of`, { title: peer.title }) });
  const state = element("small", { className: "refused", role: "alert" });
  box.addEventListener("change", async () => {
    try {
      await patch(`/peers/${peer.id}`, { [name]: box.checked });
      await reload();
    } catch (error) {
      box.checked = peer[name];
      state.textContent = error.message;
    }
  });
  return element("span", { className: "act" }, box, state);
}

function echo(peer) {
  const answer = element("small", { role: "status" });
  return element("span", { className: "act" }, act(t("peers.echo"), async () => {
    answer.textContent = t("peers.asking");
    answer.className = "";
    const { ok, detail } = await post(`/peers/${peer.id}/echo`).catch((error) => {
      answer.textContent = "";
      throw error;
    });
    answer.textContent = ok ? t("peers.answers") : t("peers.silent", { detail });
    answer.className = ok ? "good" : "refused";
  }), answer);
}

export async function outbox(reload) {
  const page = await get("/outbox", { limit: 200 });
  const rows = page.objects.map((object) => [element("code", {}, object.uid), word("kind", object.kind),
    element("bdi", {}, object.receiver),
    element("a", { href: `#/study/${object.study}` }, t("worklist.study", { n: object.study })),
    sentChip(object), String(object.tries), object.next ? dateText(object.next) : null,
    object.error || null, object.state === "sent" ? null : act(t("outbox.retry"), async () => {
      await post(`/outbox/${object.id}/retry`);
      await reload();
    })]);
  return [rows.length ? table(t("admin.outbox"),
    columnsOf("outbox", ["uid", "kind", "peer", "study", "state", "tries", "next", "error", "action"]), rows)
    : message(t("outbox.none"))];
}
