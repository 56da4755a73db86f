/* The panel of an opened picture: findings and facts as text and bars. */

const IDENTITY_WORDS = {
  PatientID: "Patient ID", PatientName: "Patient", AccessionNumber: "Accession number",
  StudyInstanceUID: "Study UID", SeriesInstanceUID: "Series UID", SOPInstanceUID: "Instance UID",
};

/** Share of a map's evidence outside the limb from which the panel mentions it. */
const MUCH_HIDDEN = 0.25;

function panelOf(row, facts) {
  const parts = row.findings.map((finding, number) => findingCard(finding, number, facts));
  if (row.record.error) parts.push(card("Why there is no verdict", row.record.error));
  parts.push(...row.unexamined.map((region) => card("Not judged",
    `The picture shows a region for which there is no specialist: ${region}.`)));
  if (row.flags.length) parts.push(flagCard(row.flags));
  if (row.regions.length) parts.push(regionCard(row.regions));
  parts.push(factCard(row));
  return parts;
}

function card(title, ...children) {
  return element("section", { className: "card" }, element("h3", {}, title),
    ...children.map((child) => typeof child === "string" ? element("p", {}, child) : child)
      .filter((child) => child !== null));
}

function findingCard(finding, number, facts) {
  const { probability, threshold, doubt_below: doubt } = finding;
  const band = doubt < threshold ? ` · uncertain from ${three(doubt)}` : "";
  const made = card(finding.subject,
    element("p", { className: "answer" }, badge(finding.verdict),
      element("b", { className: "figure" }, three(probability))),
    findingBar(finding),
    element("p", { className: "quiet" },
      `${finding.operating_point}: positive from ${three(threshold)}${band}`),
    finding.types ? element("p", {}, `If fractured: ${typesText(finding.types)}`) : null,
    layerChoice(finding, number, facts));
  made.classList.add("finding");
  return made;
}

function findingBar(finding) {
  const { probability, threshold, doubt_below: doubt } = finding;
  const band = doubt < threshold ? `, uncertain from ${three(doubt)}` : "";
  const words = `${finding.subject}: probability ${three(probability)}, ` +
    `positive from ${three(threshold)}${band}`;
  return bar(words, probability, threshold, doubt, finding.verdict);
}

function regionBar({ region, probability, threshold }) {
  const words = `${region}: probability ${three(probability)}, recognised from ${three(threshold)}`;
  return bar(words, probability, threshold, threshold, probability >= threshold ? "fired" : "");
}

function typesText(types) {
  return Object.entries(types).sort(([, a], [, b]) => b - a)
    .map(([name, probability]) => `${name} ${three(probability)}`).join(", ");
}

function layerChoice(finding, number, facts) {
  if (!finding.layer) {
    const why = {
      none: "heatmaps were not requested",
      positive: finding.verdict === "negative"
        ? "drawn only for positive and uncertain findings" : "this network has none",
      all: "this network has none",
    }[facts.heatmaps];
    return element("p", { className: "quiet" }, `No heatmap: ${why}.`);
  }
  const sample = drawn("svg", {
    class: `sample contour-${number}`, viewBox: "0 0 36 6", "aria-hidden": "true",
  }, drawn("path", { d: "M0 3H36" }));
  const hidden = finding.layer.hidden >= MUCH_HIDDEN
    ? ` ${Math.round(100 * finding.layer.hidden)} % of the evidence for the finding is outside ` +
      "the limb and is not shown: trust the answer less." : "";
  return element("label", { className: "tick screen" },
    element("input", { type: "checkbox", checked: number === 0, "data-layer": number }),
    " Show where ", sample,
    element("small", {}, (finding.layer.contour
      ? `Brightest: strongest evidence; line: ${Math.round(100 * facts.contour)} % of the maximum.`
      : "No line: there is no evidence for the finding in the limb.") + hidden));
}

function flagCard(flags) {
  const list = element("dl", { className: "flags" }, ...flags.flatMap((flag) =>
    [element("dt", {}, flag.reason), element("dd", {}, element("code", {}, flag.name))]));
  return card("Quality warnings", list);
}

function regionCard(regions) {
  const rows = regions.map((region) => element("div", { className: "region" },
    element("span", {}, region.region), regionBar(region),
    element("span", { className: "figure" }, three(region.probability)),
    element("small", {}, `${region.probability >= region.threshold ? "recognised" : "not recognised"}, ` +
      `from ${three(region.threshold)}`)));
  return card("Body region", ...rows);
}

function factCard(row) {
  const { record, picture } = row;
  const facts = [["File", record.path], ["Frame", record.frame], ["Study", record.study]];
  facts.push(...Object.entries(row.identity).map(([word, value]) => [IDENTITY_WORDS[word], value]));
  if (picture) facts.push(["Size", `${picture.width} × ${picture.height} px`]);
  facts.push(...Object.entries(row.header));
  facts.push(["SHA-256", record.sha256], ["Time", `${Math.round(record.elapsed_ms)} ms`]);
  const networks = Object.entries(record.bundle_digests);
  const digests = element("details", {},
    element("summary", {}, "Networks that took part"), factList(networks));
  return card("File", factList(facts), networks.length ? digests : null);
}

function factList(facts) {
  const known = facts.filter(([, value]) => value !== undefined);
  return element("dl", { className: "facts" }, ...known.flatMap(([word, value]) =>
    [element("dt", {}, word), element("dd", {}, element("bdi", {}, String(value)))]));
}
