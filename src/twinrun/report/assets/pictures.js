// What a point's error looks like: where it lies against what is allowed, its histogram, its map, its ranks.
const CELLS = data.cells;
// From little to much, light to dark and legible without colour vision; the dark page reverses it.
const RAMP = [[226, 236, 245], [158, 196, 222], [92, 142, 196], [63, 86, 160], [58, 32, 98], [28, 5, 40]];

const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches && !matchMedia("print").matches;

function shade(share, dark) {
  const at = (dark ? 1 - share : share) * (RAMP.length - 1);
  const low = Math.min(Math.floor(at), RAMP.length - 2);
  return RAMP[low].map((value, part) => Math.round(value + (RAMP[low + 1][part] - value) * (at - low)));
}

const level = (cell) => CELLS.digits.indexOf(cell);
const cellError = (at) => 10 ** (CELLS.lowest + at / CELLS.perDecade);

// The least and the largest level of maps that share one scale.
function span(heats) {
  const held = new Set(heats.flatMap((heat) => heat[2].flatMap((row) => [...row])));
  const levels = [...held].map(level).filter((at) => at >= 0);
  return levels.length ? [Math.min(...levels), Math.max(...levels)] : null;
}

function hex(text) {
  const value = parseInt(text.slice(1), 16);
  return [(value >> 16) & 255, (value >> 8) & 255, value & 255];
}

function heatMap(heat, scale, label) {
  const [rows, columns, cells] = heat;
  const high = cells.length, wide = cells[0].length;
  const canvas = h("canvas", { class: "heat", width: wide, height: high, role: "img", "aria-label": label });
  const context = canvas.getContext("2d");
  const image = context.createImageData(wide, high);
  const dark = isDark();
  const none = hex(colour("heat-none")), endless = hex(colour("heat-endless"));
  cells.forEach((row, y) => [...row].forEach((cell, x) => {
    const at = level(cell);
    const [low, top] = scale || [0, 1];
    const rgb = cell === "." ? none : cell === "!" ? endless : shade(0.12 + 0.88 * (top > low ? (at - low) / (top - low) : 1), dark);
    image.data.set([...rgb, 255], (y * wide + x) * 4);
  }));
  context.putImageData(image, 0, 0);
  return { canvas, rows, columns, cells };
}

const stretch = (at, bins, whole) => {
  const from = Math.ceil((at * whole) / bins), to = Math.ceil(((at + 1) * whole) / bins) - 1;
  return from >= to ? amount(from) : `${amount(from)}-${amount(to)}`;
};

const cellText = (cell) => (cell === "." ? "no error" : cell === "!" ? "NaN or Inf on one side" : `error up to ${figure(cellError(level(cell) + 1))}`);

function heatFigure(picture, point) {
  const scale = span([picture.heat]);
  const drawn = heatMap(picture.heat, scale, `Map of errors over ${picture.heat[0]} positions and ${picture.heat[1]} channels; the worst elements are listed below.`);
  const caption = h("figcaption", {}, "The largest error in each cell. Point at one to read it.");
  drawn.canvas.addEventListener("pointermove", (event) => {
    const box = drawn.canvas.getBoundingClientRect();
    const high = drawn.cells.length, wide = drawn.cells[0].length;
    const y = Math.min(high - 1, Math.max(0, Math.floor(((event.clientY - box.top) / box.height) * high)));
    const x = Math.min(wide - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * wide)));
    caption.textContent = `Position ${stretch(y, high, drawn.rows)}, channel ${stretch(x, wide, drawn.columns)}: ${cellText(drawn.cells[y][x])}`;
  });
  return h("figure", {}, h("h3", {}, "Where"), drawn.canvas,
    h("div", { class: "axis" }, h("span", {}, `channels 0-${amount(drawn.columns - 1)} \u2192`), h("span", {}, `positions 0-${amount(drawn.rows - 1)} \u2193`)),
    scaleBar(scale, picture), caption);
}

function scaleBar(scale, picture) {
  const endless = picture.heat[2].some((row) => row.includes("!"));
  const told = h("div", { class: "scale" });
  if (scale) {
    const bar = h("canvas", { width: 64, height: 1, "aria-hidden": "true" });
    const context = bar.getContext("2d");
    for (let x = 0; x < 64; x += 1) {
      context.fillStyle = `rgb(${shade(0.12 + 0.88 * (x / 63), isDark()).join(",")})`;
      context.fillRect(x, 0, 1, 1);
    }
    told.append(figure(cellError(scale[0])), bar, figure(cellError(scale[1] + 1)));
  }
  if (endless) told.append(h("span", { class: "v-unreadable" }, "pink: NaN or Inf on one side"));
  return told;
}

// The histogram of errors, with the floor of one element's error.
function histogramFigure(picture, point) {
  const [lowest, perDecade, zeros, nonfinite, counts] = picture.histogram;
  let from = counts.findIndex(Boolean), to = counts.length - 1;
  while (to > from && !counts[to]) to -= 1;
  if (from < 0) { from = -lowest * perDecade - 4; to = from; }
  const floorAt = point.worstAllowed > 0 ? (Math.log10(point.worstAllowed) - lowest) * perDecade : null;
  from = Math.floor(Math.min(from, floorAt === null ? from : floorAt) / perDecade) * perDecade;
  to = Math.ceil((Math.max(to, floorAt === null ? to : floorAt) + 1) / perDecade) * perDecade;
  const wide = Math.min(460, Math.max(240, byId("detail").clientWidth - 40), Math.max(300, byId("detail").clientWidth / 2 - 40));
  const bars = to - from, high = 210, base = 180, left = 4;
  const most = Math.max(1, ...counts);
  const x = (at) => left + ((at - from) / bars) * (wide - 2 * left);
  const drawn = svg("svg", { class: "bars", viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": histogramSays(picture, point) });
  for (let at = from; at < to; at += 1) {
    const count = counts[at] || 0;
    if (!count) continue;
    const height = Math.max(2, (count / most) * (base - 22));
    const over = floorAt !== null && at >= floorAt;
    drawn.append(svg("rect", { x: x(at) + 0.5, y: base - height, width: Math.max(1, x(at + 1) - x(at) - 1), height, class: over ? "v-differs" : "v-close", fill: "currentColor", opacity: over ? 0.9 : 0.65 }, svg("title", {}, `${figure(10 ** (lowest + at / perDecade))} to ${figure(10 ** (lowest + (at + 1) / perDecade))}: ${counted(count, "element")}`)));
  }
  drawn.append(svg("path", { d: `M${left} ${base}H${wide - left}`, stroke: "currentColor", opacity: 0.35 }));
  const decades = bars / perDecade, every = Math.ceil(decades / (wide / 48));
  for (let decade = 0; decade <= decades; decade += every) {
    const anchor = decade === 0 ? "start" : decade === decades ? "end" : "middle";
    const label = svg("text", { x: x(from + decade * perDecade), y: base + 15, "text-anchor": anchor });
    label.textContent = decadeLabel(10 ** (lowest + from / perDecade + decade));
    drawn.append(label);
  }
  if (floorAt !== null) {
    const at = x(floorAt), right = at > wide * 0.6;
    drawn.append(svg("path", { d: `M${at} 6V${base}`, stroke: "currentColor", "stroke-dasharray": "4 3" }));
    const label = svg("text", { x: at + (right ? -5 : 5), y: 14, "text-anchor": right ? "end" : "start", class: "strong" });
    label.textContent = "allowed";
    drawn.append(label);
  }
  const told = [`${counted(zeros, "element")} without error`];
  if (nonfinite) told.push(`${amount(nonfinite)} with NaN or Inf on one side`);
  return h("figure", {}, h("h3", {}, "How much"), drawn, h("figcaption", {}, `Elements by |a-b| over the RMS of their row. ${told.join(", ")}.`));
}

function histogramSays(picture, point) {
  const [lowest, perDecade, zeros, , counts] = picture.histogram;
  const most = counts.indexOf(Math.max(...counts));
  return `Histogram of errors of ${counted(picture.looked, "element")}: most lie near ${figure(10 ** (lowest + most / perDecade))}, ${amount(zeros)} have none${point.worstAllowed ? `, allowed is ${figure(point.worstAllowed)}` : ""}.`;
}

function ranksFigure(picture) {
  if (!picture.ranks.length) return null;
  const scale = span(picture.ranks.map((rank) => rank[4]));
  const most = Math.max(...picture.ranks.map((rank) => number(rank[2])).filter(Number.isFinite), 1e-30);
  const cards = picture.ranks.map(([rank, held, error, addend, heat]) => {
    const bar = h("i");
    bar.style.width = `${Math.min(100, (number(error) / most) * 100)}%`;
    return h("figure", {}, h("b", {}, `rank ${rank}`), " ", h("span", { class: "mono" }, figure(number(error))),
      h("div", { class: "meter", "aria-hidden": "true" }, bar),
      heatMap(heat, scale, `Map of rank ${rank}'s errors`).canvas, h("figcaption", {}, [held === "all" ? "holds all of it" : held, addend ? "an addend of a sum" : ""].filter(Boolean).join(", ")));
  });
  return h("section", {}, h("h3", {}, `Ranks of the ${picture.side}, each against the other run (relative L2, one scale)`), h("div", { class: "ranks" }, cards));
}

function worstTable(picture) {
  if (!picture.worst.length) return null;
  const rows = picture.worst.map(([index, baseline, target, error]) =>
    h("tr", {}, h("td", { class: "mono" }, index), h("td", { class: "figure" }, baseline), h("td", { class: "figure" }, target), h("td", { class: "figure" }, figure(number(error)))));
  return h("section", {}, h("h3", {}, "Worst elements"), h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {},
    ["index", "baseline", "target", "error"].map((title, at) => h("th", { scope: "col", class: at ? "figure" : "" }, title)))), h("tbody", {}, rows))));
}
