/* The worklist: one table row for each input, filters, and keyboard navigation. */

const WORKLIST_COLUMNS = 5;

class Worklist {
  constructor(rows, facts, open) {
    this.rows = rows;
    this.facts = facts;
    this.open = open;
    this.table = document.getElementById("worklist");
    this.form = document.getElementById("filters");
    this.seen = new IntersectionObserver((entries) => this.#show(entries),
      { rootMargin: "600px 0px" });
    for (const row of rows) row.line = this.#line(row);
    this.#fillFilters();
    this.arrange();
    this.form.addEventListener("input", () => this.arrange());
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.table.addEventListener("click", (event) => this.#click(event));
    this.table.addEventListener("keydown", (event) => this.#key(event));
    this.table.addEventListener("focusin", (event) => this.#rove(event.target));
    addEventListener("beforeprint", () => this.shown.forEach(showThumb));
  }

  /** Show the rows that match the filters, grouped by study if selected. */
  arrange() {
    const { region, text, study } = this.form.elements;
    const answers = new Set(
      [...this.form.querySelectorAll("[name=answer]:checked")].map((box) => box.value));
    const wanted = text.value.trim().toLowerCase();
    const matching = this.rows.filter((row) =>
      answers.has(row.answer) &&
      (!region.value || region.value === (row.found[0] ?? "none") || row.found.includes(region.value)) &&
      nameOf(row).toLowerCase().includes(wanted));
    const groups = study.checked ? this.#byStudy(matching) : [[null, matching]];
    this.shown = groups.flatMap(([, rows]) => rows);
    this.table.querySelectorAll("tbody").forEach((body) => body.remove());
    this.table.append(...groups.map(([name, rows]) => this.#body(name, rows)));
    this.#rove(this.shown[0]?.line.querySelector(".open"));
    document.getElementById("nothing").hidden = this.shown.length > 0;
    const all = this.rows.length;
    document.getElementById("shown").textContent =
      this.shown.length === all ? `${all} inputs` : `${this.shown.length} of ${all} inputs`;
  }

  focus(row) {
    row.line.querySelector(".open").focus();
  }

  /** Groups in the order of their most severe row; a row without a study is a group by itself. */
  #byStudy(rows) {
    const groups = new Map();
    for (const row of rows) {
      const key = row.record.study ?? row;
      if (!groups.has(key)) groups.set(key, []);
      groups.get(key).push(row);
    }
    return [...groups].map(([key, found]) => [typeof key === "string" ? key : null, found]);
  }

  #body(study, rows) {
    const body = element("tbody", { role: "rowgroup" }, ...rows.map((row) => row.line));
    if (study !== null) {
      const count = `${rows.length} ${rows.length === 1 ? "picture" : "pictures"}`;
      const title = element("th", { colSpan: WORKLIST_COLUMNS, scope: "rowgroup", role: "rowheader" },
        "Study ", element("bdi", {}, study), ` · ${count} · `, badge(rows[0].answer));
      body.className = "grouped";
      body.prepend(element("tr", { className: "study", role: "row" }, title));
    }
    return body;
  }

  #line(row) {
    row.found = regionsOf(row);
    const lead = row.findings[0];
    const frame = element("span", { className: "thumb" });
    if (row.picture) {
      row.thumb = element("img", { alt: "", decoding: "async" });
      row.thumb.style.aspectRatio = `${row.picture.width} / ${row.picture.height}`;
      frame.append(row.thumb);
    }
    const open = element("button", { type: "button", className: "open", tabIndex: -1 },
      element("bdi", {}, nameOf(row)));
    const chance = lead ? [findingBar(lead), element("b", {}, three(lead.probability)),
      element("small", {}, `positive from ${three(lead.threshold)}`)] : [];
    const cell = (className, ...parts) => element("td", { className, role: "cell" }, ...parts);
    // Explicit roles, because in some browsers display: grid removes those of a table.
    const line = element("tr", { className: row.answer, role: "row" },
      cell("thumb", frame), cell("answer", badge(row.answer)), cell("chance", ...chance),
      element("th", { scope: "row", className: "name", role: "rowheader" }, open),
      cell("about", ...this.#about(row)));
    if (row.picture) this.seen.observe(line);
    line.row = row;
    return line;
  }

  #about(row) {
    const lines = row.findings.map((finding, i) => element("span", {}, i === 0
      ? finding.subject
      : `${finding.subject}: ${finding.verdict} ${three(finding.probability)}, ` +
        `positive from ${three(finding.threshold)}`));
    if (row.record.error) lines.push(element("span", { className: "reason" }, row.record.error));
    lines.push(...row.unexamined.map((region) =>
      element("span", { className: "reason" }, `${region}: no specialist, not judged`)));
    lines.push(...row.flags.map((flag) =>
      element("span", { className: "flag", title: flag.name }, flag.reason)));
    return lines;
  }

  #fillFilters() {
    for (const answer of this.facts.urgency) {
      const count = this.rows.filter((row) => row.answer === answer).length;
      document.querySelector(`[data-count="${answer}"]`).textContent = count;
    }
    const options = [...this.facts.regions.map((region) => [region, region]),
      ["all", "any region"], ["none", "none recognised"]];
    for (const [value, words] of options) {
      const count = this.rows.filter((row) =>
        row.found.includes(value) || (value === "none" && row.found.length === 0)).length;
      if (count === 0) continue;
      this.form.elements.region.append(element("option", { value }, `${words} (${count})`));
    }
    document.getElementById("by-study").hidden = !this.rows.some((row) => row.record.study);
  }

  #show(entries) {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      showThumb(entry.target.row);
      this.seen.unobserve(entry.target);
    }
  }

  #click(event) {
    const line = event.target.closest("tr");
    if (line?.row && !String(getSelection())) this.open(line.row);
  }

  #key(event) {
    const at = this.shown.indexOf(event.target.closest("tr")?.row);
    const last = this.shown.length - 1;
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: last }[event.key];
    if (at < 0 || to === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    this.focus(this.shown[Math.min(Math.max(to, 0), last)]);
  }

  /** Tab stops at one row only: the one that had the focus last. */
  #rove(button) {
    if (!button?.classList.contains("open")) return;
    if (this.stop) this.stop.tabIndex = -1;
    this.stop = button;
    button.tabIndex = 0;
  }
}

function showThumb(row) {
  if (row.thumb && !row.thumb.src) row.thumb.src = jpeg(row.picture.thumb);
}
