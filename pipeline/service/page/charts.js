/* Chart of the weekly rates. */

import { drawn } from "./dom.js";
import { dayText, percentText, t } from "./texts.js";

const [WIDTH, NARROW, HEIGHT] = [720, 340, 220];
const [LEFT, BOTTOM, TOP] = [44, 34, 12];
const MOST_WEEKS = 26;
const MOST_LABELS = 6;

/** Weekly rates of positive and unsupported pictures as two lines; narrower on a phone. */
export function weekChart(all) {
  const width = innerWidth < WIDTH ? NARROW : WIDTH;
  const weeks = all.slice(-MOST_WEEKS);
  const shares = weeks.map(({ pictures, positive, unsupported }) => pictures
    ? { positive: positive / pictures, unsupported: unsupported / pictures } : null);
  const highest = Math.max(0.1, ...shares.filter(Boolean).flatMap((one) => [one.positive, one.unsupported]));
  const top = Math.min(1, Math.ceil(highest * 10) / 10);
  const x = (place) => LEFT + (weeks.length > 1 ? place / (weeks.length - 1) : 0.5) * (width - LEFT - 20);
  const y = (share) => HEIGHT - BOTTOM - share / top * (HEIGHT - BOTTOM - TOP);
  const chart = drawn("svg", { class: "chart", viewBox: `0 0 ${width} ${HEIGHT}`, role: "img",
    "aria-label": t("quality.chart", { n: weeks.length, first: dayText(weeks[0].start),
      last: dayText(weeks.at(-1).start) }) });
  for (const share of [0, top / 2, top]) {
    chart.append(drawn("path", { class: "grid", d: `M${LEFT} ${y(share)}H${width - 20}` }),
      text(LEFT - 6, y(share) + 4, "end", percentText(share).replace(".0", "")));
  }
  const step = Math.ceil(weeks.length / MOST_LABELS);
  weeks.forEach(({ start }, place) => {
    if (place % step === 0) chart.append(text(x(place), HEIGHT - 12, "middle", monthText(start)));
  });
  for (const name of ["unsupported", "positive"]) chart.append(...line(name, shares, x, y));
  return chart;
}

const monthText = (ms) => new Date(ms).toLocaleDateString(undefined, { day: "numeric", month: "short" });

function text(x, y, anchor, words) {
  return drawn("text", { x, y, "text-anchor": anchor }, words);
}

/** A line with points and a label at the last point; interrupted at weeks without pictures. */
function line(name, shares, x, y) {
  let d = "";
  let isDown = false;
  const points = [];
  shares.forEach((share, place) => {
    if (!share) { isDown = false; return; }
    const [px, py] = [x(place), y(share[name])];
    d += `${isDown ? "L" : "M"}${px.toFixed(1)} ${py.toFixed(1)}`;
    isDown = true;
    points.push(name === "positive" ? drawn("circle", { class: name, cx: px, cy: py, r: 4 })
      : drawn("rect", { class: name, x: px - 3.5, y: py - 3.5, width: 7, height: 7 }));
  });
  return [drawn("path", { class: `line ${name}`, d }), ...points];
}
