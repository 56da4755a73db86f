/* Set-up of the first administrator, login, and login after a session has expired. */

import { ApiError, call, session } from "./api.js";
import { element } from "./dom.js";
import { deferred, form, labelled } from "./parts.js";
import { t } from "./texts.js";

const nameField = (value = "") => labelled(t("access.name"), element("input", {
  name: "name", required: true, autocomplete: "username", maxLength: 128, value,
  spellcheck: false }));

const passwordField = (text, name, autocomplete) => labelled(text, element("input", {
  name, type: "password", required: true, autocomplete, minLength: 1, maxLength: 256 }));

export const newPasswordFields = () => [
  passwordField(t("access.new"), "password", "new-password"),
  passwordField(t("access.repeat"), "repeated", "new-password"),
];

/** The new password of a form with `newPasswordFields`. */
export function newPassword({ password, repeated }) {
  if (password !== repeated) throw new ApiError(422, t("access.different"));
  if (password.length < 12) throw new ApiError(422, t("access.short"));
  return password;
}

function card(app, title, text, made) {
  document.title = t("page.title", { view: title });
  app.replaceChildren(element("main", { id: "main", className: "access" },
    element("h1", {}, t("page.name")), element("h2", {}, title), element("p", {}, text), made,
    element("p", { className: "quiet" }, t("page.intended"))));
  made.elements[0].focus();
}

/** Create the first administrator with a one-time code; resolves to the logged-in user. */
export function showSetup(app, code) {
  const { promise, resolve } = deferred();
  card(app, t("access.setup"), t("access.setup.text"),
    form(t("access.setup"), [nameField(), ...newPasswordFields()], t("access.create"),
      async (values) => {
        const body = { code, name: values.name, password: newPassword(values) };
        resolve(await call("POST", "/setup", { body, anonymous: true }));
      }));
  return promise;
}

const loginForm = (name, done) => form(t("access.login"),
  [nameField(name), passwordField(t("access.password"), "password", "current-password")],
  t("access.login"), async (body) => done(await call("POST", "/session", { body, anonymous: true })));

/** Ask for name and password; resolves to the logged-in user. */
export function showLogin(app) {
  const { promise, resolve } = deferred();
  card(app, t("access.login"), t("access.login.text"), loginForm("", resolve));
  return promise;
}

let asking = null;

/** The session has expired: show a login dialog over the current view, which keeps its unsaved input. */
export function askToLogIn() {
  asking ??= ask().finally(() => { asking = null; });
  return asking;
}

async function ask() {
  const { promise, resolve } = deferred();
  const title = element("h2", { id: "over-title" }, t("access.over"));
  const dialog = element("dialog", { className: "over", "aria-labelledby": "over-title" },
    title, element("p", {}, t("access.over.text")), loginForm(session.who?.name ?? "", resolve));
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  document.body.append(dialog);
  dialog.showModal();
  if (session.who) dialog.querySelector("[name=password]").focus();
  const who = await promise;
  dialog.close();
  dialog.remove();
  // Another user may have other rights and views.
  if (session.who && (who.name !== session.who.name || who.role !== session.who.role)) {
    location.reload();
  }
  session.who = who;
}
