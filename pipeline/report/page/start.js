/* Builds the page after all blocks have been read. */

function start() {
  const facts = readBlock("facts");
  const { rows, broken } = readRows(facts.urgency);
  const end = readEnd(rows.length, broken);
  if (end) document.getElementById("finished").textContent = `${end.finished}, ${end.count} inputs`;
  showUnjudged(rows);
  const neighbour = {
    at: (row, step) => list.shown[list.shown.indexOf(row) + step],
    words: (row) => `${list.shown.indexOf(row) + 1} of ${list.shown.length}`,
  };
  const viewer = new Viewer(facts, neighbour, (row) => list.focus(row));
  const list = new Worklist(rows, facts, (row) => viewer.open(row));
  document.getElementById("help-open").addEventListener("click", help);
  document.addEventListener("keydown", (event) => pageKey(event));
  addEventListener("beforeprint", () => { document.getElementById("meaning").open = true; });
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
}

/** The last block of a run; without it, a line at the top states that the page is incomplete. */
function readEnd(count, broken) {
  const end = readBlock("end");
  const state = document.getElementById("state");
  const cut = broken ? ` ${broken} cut off.` : "";
  if (!end || broken) {
    state.textContent =
      `This run did not finish, or is still running: ${count} inputs so far.${cut}`;
    state.hidden = false;
  }
  return end;
}

/** Show the number of inputs without a verdict at the top, since they are at the end of the list. */
function showUnjudged(rows) {
  const count = rows.filter((row) => row.findings.length === 0).length;
  if (count === 0) return;
  const line = document.getElementById("unjudged");
  line.textContent = `${count} of ${rows.length} inputs got no verdict. They are at the end of the ` +
    "list, with the reasons.";
  line.hidden = false;
}

function help() {
  document.getElementById("help").showModal();
}

function pageKey(event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (/^(INPUT|SELECT)$/.test(event.target.tagName) && event.target.type !== "checkbox" &&
      event.target.type !== "range") return;
  if (event.key === "?" && !document.getElementById("help").open) help();
  else if (event.key === "/" && !document.querySelector("dialog[open]")) {
    document.querySelector("#filters [name=text]").focus();
  } else return;
  event.preventDefault();
}

document.addEventListener("DOMContentLoaded", start);
