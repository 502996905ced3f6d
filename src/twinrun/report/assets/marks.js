// Every verdict has a shape of its own, the same in the chart, the tree and the list: colour is never alone.
const SHAPES = {
  equal: [["circle", 2.5, true]],
  close: [["circle", 4, false]],
  healed: [["circle", 4.5, false], ["circle", 1.5, true]],
  allowed: [["path", [[0, -5], [5, 0], [0, 5], [-5, 0]], false]],
  undecided: [["path", [[0, -5], [5, 4], [-5, 4]], false]],
  differs: [["lines", [[-4, -4, 4, 4], [-4, 4, 4, -4]]]],
  unmatched: [["path", [[-4, -4], [4, -4], [4, 4], [-4, 4]], false]],
  unreadable: [["path", [[-4, -4], [4, -4], [4, 4], [-4, 4]], true]],
  isolated: [["path", [[0, -5], [5, 0], [0, 5], [-5, 0]], true]],
};
const MEANINGS = {
  equal: "bit-identical", close: "within rounding", healed: "differs, but everything computed from it agrees",
  allowed: "differs, and allowed by name", undecided: "above what rounding explains, not clearly",
  differs: "further apart than rounding explains", unmatched: "recorded in one run only",
  unreadable: "recorded, but its values cannot be held side by side",
};

const drawnMarks = {};

function mark(shape) {
  drawnMarks[shape] = drawnMarks[shape] || newMark(shape);
  return drawnMarks[shape].cloneNode(true);
}

function newMark(shape) {
  const drawn = svg("svg", { class: `mark v-${shape}`, viewBox: "-6.5 -6.5 13 13", "aria-hidden": "true" });
  for (const [kind, what, filled] of SHAPES[shape]) {
    const paint = filled ? { fill: "currentColor", stroke: "none" } : { fill: "none", stroke: "currentColor", "stroke-width": 1.8 };
    if (kind === "circle") drawn.append(svg("circle", { r: what, ...paint }));
    else if (kind === "path") drawn.append(svg("path", { d: `M${what.map((xy) => xy.join(" ")).join("L")}Z`, ...paint }));
    else drawn.append(svg("path", { d: what.map(([a, b, c, d]) => `M${a} ${b}L${c} ${d}`).join(""), ...paint, "stroke-width": 2.2 }));
  }
  return drawn;
}

const word = (verdict) => h("span", { class: `word v-${verdict}` }, mark(verdict), verdict);

// The same shape on a canvas, `scale` device pixels to a unit.
function drawMark(context, shape, x, y, scale) {
  context.lineWidth = 1.6 * scale;
  for (const [kind, what, filled] of SHAPES[shape]) {
    context.beginPath();
    if (kind === "circle") context.arc(x, y, what * scale, 0, 2 * Math.PI);
    else if (kind === "path") {
      what.forEach(([dx, dy], at) => context[at ? "lineTo" : "moveTo"](x + dx * scale, y + dy * scale));
      context.closePath();
    } else {
      for (const [a, b, c, d] of what) { context.moveTo(x + a * scale, y + b * scale); context.lineTo(x + c * scale, y + d * scale); }
    }
    if (filled) context.fill(); else context.stroke();
  }
}
