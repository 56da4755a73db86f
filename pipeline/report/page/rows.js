/* The blocks that the run wrote: read once, the pictures only when they are shown. */

function readBlock(id) {
  const block = document.getElementById(id);
  return block ? JSON.parse(block.textContent) : null;
}

/** Every row in the order of urgency, and how many blocks were cut off. */
function readRows(urgency) {
  const rows = [];
  let broken = 0;
  for (const block of document.querySelectorAll("script.row")) {
    try {
      const row = JSON.parse(block.textContent);
      row.place = rows.length;
      row.block = block.nextElementSibling;
      rows.push(row);
    } catch {
      broken += 1;
    }
  }
  const gravity = (row) => urgency.indexOf(row.answer);
  rows.sort((a, b) =>
    gravity(a) - gravity(b) || (b.probability ?? -1) - (a.probability ?? -1) || a.place - b.place);
  return { rows, broken };
}

function nameOf(row) {
  const frame = row.record.frame;
  return row.record.path + (frame === undefined ? "" : ` (frame ${frame})`);
}

/** The regions of a row for the region filter. */
function regionsOf(row) {
  const fired = row.record.regions ? row.record.regions.split(";") : [];
  return [...new Set([...fired, ...row.findings.map((finding) => finding.region)])];
}

const jpeg = (base64) => "data:image/jpeg;base64," + base64;

const viewOf = (row) =>
  row.block && row.block.classList.contains("view") ? jpeg(row.block.textContent) : null;
