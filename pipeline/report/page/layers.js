/* Heatmaps: interpolated, coloured cells, drawn over the part of the picture that was examined. */

import { percent } from "./bars.js";
import { drawn, element } from "./dom.js";

const FINER = 16; // fine enough that steps are not visible on paper

export function bytes(base64) {
  return Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
}

/** Weights of four neighbours at a share between the second and third: Catmull and Rom's cubic. */
function cubic(t) {
  return [
    ((-0.5 * t + 1) * t - 0.5) * t,
    (1.5 * t - 2.5) * t * t + 1,
    ((-1.5 * t + 2) * t + 0.5) * t,
    (0.5 * t - 0.5) * t * t,
  ];
}

/** Rows of numbers, each interpolated to FINER times its length; the result is transposed. */
function stretchedAndTurned(rows) {
  const count = rows[0].length;
  const columns = Array.from({ length: count * FINER }, () => new Float32Array(rows.length));
  for (let x = 0; x < count * FINER; x += 1) {
    const place = (x + 0.5) / FINER - 0.5;
    const left = Math.floor(place);
    const weights = cubic(place - left);
    rows.forEach((row, y) => {
      let sum = 0;
      weights.forEach((weight, i) => {
        sum += weight * row[Math.min(Math.max(left - 1 + i, 0), count - 1)];
      });
      columns[x][y] = sum;
    });
  }
  return columns;
}

/** The cells as a canvas: colour and opacity by share of the peak. */
function colouredCells(layer, colours) {
  const cells = bytes(layer.cells);
  const rows = Array.from({ length: layer.rows }, (_, y) =>
    Float32Array.from(cells.subarray(y * layer.columns, (y + 1) * layer.columns)));
  const fine = stretchedAndTurned(stretchedAndTurned(rows));
  const canvas = element("canvas", { width: layer.columns * FINER, height: layer.rows * FINER });
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  fine.forEach((row, y) => row.forEach((value, x) => {
    const level = Math.min(Math.max(Math.round(value), 0), 255);
    const at = 4 * (y * canvas.width + x);
    for (let i = 0; i < 3; i += 1) image.data[at + i] = colours[3 * level + i];
    image.data[at + 3] = level;
  }));
  context.putImageData(image, 0, 0);
  return canvas;
}

/** Colours and line of one finding over a picture of the given size in source px. */
export function layerOf(finding, number, picture, colours) {
  const layer = finding.layer;
  const canvas = colouredCells(layer, colours);
  canvas.className = "colours";
  canvas.setAttribute("aria-hidden", "true");
  canvas.style.left = percent(layer.left / picture.width);
  canvas.style.top = percent(layer.top / picture.height);
  canvas.style.width = percent(layer.width / picture.width);
  canvas.style.height = percent(layer.height / picture.height);
  const line = drawn("svg", {
    class: `contour contour-${number}`, "aria-hidden": "true", preserveAspectRatio: "none",
    viewBox: `0 0 ${picture.width} ${picture.height}`,
  }, drawn("path", { class: "halo", d: layer.contour }), drawn("path", { d: layer.contour }));
  return { canvas, line };
}
