/* Account of the logged-in user: password and blind reading. */

import { patch, session } from "./api.js";
import { newPassword, newPasswordFields } from "./access.js";
import { element } from "./dom.js";
import { card } from "./panel.js";
import { form, labelled } from "./parts.js";
import { t, word } from "./texts.js";

export class ProfileView {
  constructor(root) {
    const { who } = session;
    const done = element("p", { role: "status" });
    root.append(element("div", { className: "bar" }, element("h1", {}, t("view.profile"))),
      element("p", {}, element("bdi", {}, who.name), ` · ${word("role", who.role)}`), done);
    this.done = done;
    if (["reader", "admin"].includes(who.role)) {
      this.reading = this.#reading();
      root.append(this.reading);
    }
    const old = element("input", { type: "password", name: "old", required: true,
      autocomplete: "current-password" });
    root.append(card(t("profile.password"), form(t("profile.password"),
      [labelled(t("profile.old"), old), ...newPasswordFields()], t("profile.change"),
      async (values, made) => {
        await patch("/session", { password: { old: values.old, new: newPassword(values) } });
        made.reset();
        done.textContent = t("profile.changed");
      })));
  }

  /** The card of blind reading; readers can switch it on only. */
  #reading() {
    const { who } = session;
    const texts = [t("profile.blind.text")];
    if (who.role !== "admin") texts.push(t("profile.blind.stays"));
    if (who.blind && who.role !== "admin") {
      return card(t("profile.reading"), element("p", {}, t("profile.blind.on")),
        element("p", {}, texts.join(" ")));
    }
    return card(t("profile.reading"), texts.join(" "),
      form(t("profile.reading"), [labelled(t("profile.blind"),
        element("input", { type: "checkbox", name: "blind", checked: who.blind }), "tick")],
      t("action.save"), async ({ blind }) => {
        session.who = await patch("/session", { blind });
        const next = this.#reading();
        this.reading.replaceWith(next);
        this.reading = next;
        this.done.textContent = t(session.who.blind ? "profile.blind.on" : "profile.blind.off");
      }));
  }
}
