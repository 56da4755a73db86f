/* The start of the page: session, navigation, connection. */

import { call, problemText, remove, session } from "./api.js";
import { askToLogIn, showLogin, showSetup } from "./access.js";
import { element } from "./dom.js";
import { loadFacts } from "./facts.js";
import { Live } from "./live.js";
import { button } from "./parts.js";
import { loadTexts, t } from "./texts.js";
import { AdminView } from "./admin.js";
import { ProfileView } from "./profile.js";
import { QualityView } from "./quality.js";
import { ReadingView } from "./reading.js";
import { ReviewsView } from "./reviews.js";
import { StudyView } from "./study.js";
import { UploadsView } from "./uploads.js";
import { WorklistView } from "./worklist.js";
import { updateUploads } from "./upload_queue.js";

/** Views by the first part of the hash, with the permitted roles. */
const VIEWS = {
  worklist: [WorklistView, ["reader", "admin"]],
  reading: [ReadingView, ["reader", "admin"]],
  study: [StudyView, ["reader", "admin"]],
  uploads: [UploadsView, ["sender", "reader", "admin"]],
  reviews: [ReviewsView, ["reader", "admin"]],
  quality: [QualityView, ["reader", "auditor", "admin"]],
  admin: [AdminView, ["auditor", "admin"]],
  profile: [ProfileView, ["sender", "reader", "auditor", "admin"]],
};
const LINKS = ["worklist", "uploads", "reviews", "quality", "admin"];
const WITHOUT_EVENTS = ["sender"];

const app = document.getElementById("app");
let view = null;
let main = null;
let live = null;

/** Parts of the hash: `#/reading/12?answer=positive` is the view, its arguments and a query. */
function place() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...args] = path.split("/");
  return { name, args, query: Object.fromEntries(new URLSearchParams(query)) };
}

const isAllowed = (name) => VIEWS[name]?.[1].includes(session.who.role);

async function route() {
  const { name, args, query } = place();
  if (!isAllowed(name)) {
    location.replace(`#/${Object.keys(VIEWS).find(isAllowed)}`);
    return;
  }
  for (const link of document.querySelectorAll("nav.views a")) {
    const current = link.getAttribute("href") === `#/${name}` ||
      (link.getAttribute("href") === "#/worklist" && ["reading", "study"].includes(name));
    if (current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (view instanceof VIEWS[name][0] && view.moved?.(args, query)) return;
  view?.close?.();
  const content = element("div", { className: `view ${name}` });
  main.replaceChildren(content);
  view = new VIEWS[name][0](content, args, query);
  document.title = t("page.title", { view: t(`view.${name}`) });
  main.focus({ preventScroll: true });
  scrollTo(0, 0);
}

function header() {
  const links = LINKS.filter(isAllowed).map((name) =>
    element("a", { href: `#/${name}` }, t(`view.${name}`)));
  const state = element("span", { id: "connection", className: "connection", role: "status" });
  const bar = element("div", { className: "top" },
    button(t("page.skip"), () => main.focus(), { className: "skip" }),
    element("span", { className: "brand" }, t("page.name")),
    element("nav", { className: "views", "aria-label": t("page.views") }, ...links),
    state,
    element("nav", { className: "user", "aria-label": t("page.account") },
      element("a", { href: "#/profile" }, element("bdi", {}, session.who.name)),
      button(t("action.logout"), logOut)));
  return element("header", {}, bar,
    element("p", { id: "banner", className: "banner", role: "status", hidden: true }),
    element("p", { className: "intended" }, t("page.intended")));
}

async function logOut() {
  try {
    await remove("/session");
  } catch (error) {
    connection("offline", problemText(error));
    return;
  }
  location.replace("#");
  location.reload();
}

function connection(state, detail) {
  const shown = document.getElementById("connection");
  const banner = document.getElementById("banner");
  if (!shown) return;
  shown.className = `connection ${state}`;
  shown.textContent = t(`connection.${state}`);
  banner.hidden = state === "live";
  banner.textContent = state === "live" ? "" : detail ?? t(`connection.${state}.detail`);
}

function changed(kind, data) {
  if (!session.who) return;
  updateUploads(kind, data);
  view?.changed?.(kind, data);
}

function enter(who) {
  session.who = who;
  session.relogin = askToLogIn;
  main = element("main", { id: "main", tabIndex: -1 });
  app.replaceChildren(header(), main);
  addEventListener("hashchange", route);
  if (!WITHOUT_EVENTS.includes(who.role)) {
    live = new Live(changed, connection);
    live.start();
    addEventListener("pagehide", () => live.stop());
    addEventListener("pageshow", (event) => event.persisted && live.start());
  }
  route();
}

async function start() {
  const code = /^#setup=([\w-]+)$/.exec(location.hash)?.[1];
  if (code) {
    history.replaceState(null, "", location.pathname);
    return showSetup(app, code);
  }
  try {
    return await call("GET", "/session", { anonymous: true });
  } catch (error) {
    if (error.status === 401) return showLogin(app);
    throw error;
  }
}

try {
  await Promise.all([loadTexts(), loadFacts()]);
  enter(await start());
} catch (error) {
  app.replaceChildren(element("p", { className: "warning", role: "alert" }, problemText(error)));
  setTimeout(() => location.reload(), 5000);
}
