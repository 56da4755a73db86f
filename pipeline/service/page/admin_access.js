/* Users, tokens, retention rules and the audit log. */

import { call, get, patch, post, remove } from "./api.js";
import { element } from "./dom.js";
import { button, message, table } from "./parts.js";
import { dateText, t, word } from "./texts.js";
import { act, added, choice, field, tick } from "./admin_parts.js";

const ROLES = ["sender", "reader", "auditor", "admin"];
const roleOptions = (roles = ROLES) => roles.map((role) => [role, word("role", role)]);
const columnsOf = (section, names) => names.map((name) => t(`${section}.${name}`));

export async function users(reload) {
  const list = await get("/users");
  const rows = list.map((user) => [element("bdi", {}, user.name), roleOf(user, reload),
    t(user.active ? "users.active" : "users.inactive"), t(user.blind ? "users.blind" : "users.open"),
    element("span", { className: "row" },
      act(t(user.active ? "users.deactivate" : "users.activate"),
        () => change(user, { active: !user.active }, reload),
        user.active ? { question: t("users.deactivate.question", { name: user.name }) } : {}),
      act(t(user.blind ? "users.unblind" : "users.doblind"), () => change(user, { blind: !user.blind }, reload)))]);
  return [table(t("admin.users"), columnsOf("users", ["name", "role", "state", "reading", "action"]), rows),
    added(t("users.new"), [field(t("users.name"), "name", { maxLength: 128 }),
      choice(t("users.role"), "role", roleOptions(["reader", "auditor", "admin", "sender"]), "reader"),
      field(t("access.password"), "password", { type: "password", minLength: 12, autocomplete: "new-password" }),
      tick(t("users.blindly"), "blind")],
    t("action.add"), async (values, made) => { await post("/users", values); made.reset(); await showChanges(reload); }),
    added(t("users.reset"), [choice(t("users.name"), "id", list.map((user) => [user.id, user.name]), list[0]?.id),
      field(t("access.new"), "password", { type: "password", minLength: 12, autocomplete: "new-password" })],
    t("users.reset.action"), async ({ id, password }, made) => {
      await patch(`/users/${id}`, { password });
      made.reset();
    })];
}

/** Clear a submitted form, so that its section can be updated. */
function showChanges(reload) {
  document.activeElement?.blur();
  return reload();
}

function roleOf(user, reload) {
  const made = element("select", { "aria-label": t("users.role.of", { name: user.name }) },
    ...roleOptions().map(([value, text]) => element("option", { value }, text)));
  made.value = user.role;
  const state = element("small", { className: "refused", role: "alert" });
  made.addEventListener("change", async () => {
    try {
      await change(user, { role: made.value }, reload);
    } catch (error) {
      made.value = user.role;
      state.textContent = error.message;
    }
  });
  return element("span", { className: "act" }, made, state);
}

async function change(user, values, reload) {
  await patch(`/users/${user.id}`, values);
  await reload();
}

export async function tokens(reload) {
  const found = await get("/tokens");
  const rows = found.map((token) => [element("bdi", {}, token.name), word("role", token.role),
    dateText(token.created), token.revoked ? t("tokens.revoked", { time: dateText(token.revoked) }) : t("tokens.valid"),
    token.revoked ? null : act(t("tokens.revoke"), async () => {
      await remove(`/tokens/${token.id}`);
      await reload();
    }, { question: t("tokens.revoke.question", { name: token.name }), className: "danger" })]);
  const secret = element("div", { className: "secret", role: "status" });
  const create = added(t("tokens.new"), [field(t("tokens.name"), "name", { maxLength: 128 }),
    choice(t("tokens.role"), "role", roleOptions(), "sender")], t("action.add"), async (values, made) => {
    const token = await post("/tokens", values);
    made.reset();
    await showChanges(reload);
    document.querySelector(".secret")?.replaceChildren(element("p", {}, t("tokens.secret")),
      element("code", {}, token.secret));
  });
  return [rows.length ? table(t("admin.tokens"), columnsOf("tokens", ["name", "role", "created", "state", "action"]), rows)
    : message(t("tokens.none")), secret, create];
}

export async function rules(reload) {
  const found = await get("/rules");
  const rows = found.map((rule) => [t("rules.days", { n: rule.days }),
    rule.state ? word("state", rule.state) : t("filter.any"), act(t("action.delete"), async () => {
      await remove(`/rules/${rule.id}`);
      await reload();
    }, { className: "danger" })]);
  const preview = element("p", { role: "status" });
  const states = [["", t("filter.any")],
    ...["answered", "unsupported", "failed"].map((state) => [state, word("state", state)])];
  const made = added(t("rules.new"), [
    field(t("rules.after"), "days", { type: "number", min: 1, max: 36500 }),
    choice(t("filter.state"), "state", states, "")], t("rules.add"), async (values, sent) => {
    await post("/rules", values);
    sent.reset();
    await showChanges(reload);
  });
  const sent = made.querySelector("form");
  const look = act(t("rules.preview"), async () => {
    if (!sent.reportValidity()) return;
    const body = { days: Number(sent.elements.days.value) };
    if (sent.elements.state.value) body.state = sent.elements.state.value;
    const { pictures } = await call("POST", "/rules/preview", { body });
    preview.textContent = t("rules.previewed", { n: pictures });
  });
  sent.append(look, preview);
  return [rows.length ? table(t("admin.rules"), columnsOf("rules", ["age", "state", "action"]), rows)
    : message(t("rules.none")), made];
}

export async function audit() {
  const body = element("div", {});
  const entries = [];
  let after;
  const more = button(t("worklist.more"), () => load(), { className: "more" });
  async function load() {
    const page = await get("/audit", { after, limit: 100 });
    entries.push(...page.entries);
    after = page.next;
    more.hidden = !after;
    const rows = entries.map((entry) => [dateText(entry.at), element("bdi", {}, entry.actor),
      entry.action, entry.subject, element("code", {}, JSON.stringify(entry.detail))]);
    body.replaceChildren(rows.length
      ? table(t("admin.audit"), columnsOf("audit", ["time", "actor", "action", "subject", "detail"]), rows)
      : message(t("audit.none")));
  }
  await load();
  return [body, more];
}
