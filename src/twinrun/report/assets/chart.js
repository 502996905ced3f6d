// The chart: error by order of execution, with what is allowed. uPlot draws axes and floors, we the points.
const chart = { plot: null, at: 0, tip: null, ring: null };
// Pointers within so many pixels of a point mean it.
const REACH = 24;

function buildChart() {
  const host = byId("chart");
  chart.tip = h("div", { class: "tip", hidden: true });
  chart.ring = h("div", { class: "ring", hidden: true });
  legend();
  draw();
  host.append(chart.ring, chart.tip);
  host.addEventListener("keydown", chartKey);
  host.addEventListener("focus", () => { if (!chart.at) point_at(selection.position || nextKept(0, 1)); else point_at(chart.at); });
  host.addEventListener("blur", () => point_at(0));
  new ResizeObserver(() => {
    const size = chartSize();
    if (chart.plot && (size.width !== chart.plot.width || size.height !== chart.plot.height)) chart.plot.setSize(size);
  }).observe(host);
  for (const query of ["(prefers-color-scheme: dark)", "print"]) matchMedia(query).addEventListener("change", () => chart.plot.redraw(false, true));
  filter.listeners.push(() => chart.plot.redraw(false, false));
  byId("reset-zoom").addEventListener("click", () => zoom(1, points.length));
  const first = data.sections.map((section) => section.position).find(Boolean);
  if (first && points.length > 60) {
    byId("to-first").hidden = false;
    byId("to-first").addEventListener("click", () => zoom(Math.max(1, first - 20), Math.min(points.length, first + 20)));
  }
}

const chartSize = () => ({ width: Math.max(240, byId("chart").clientWidth), height: innerWidth < 640 ? 260 : 320 });

function draw() {
  const order = points.map((point) => point.position);
  const floor = (value) => (value > 0 && Number.isFinite(value) ? value : null);
  const ink = () => colour("soft");
  const grid = { stroke: () => colour("line"), width: 1 };
  const axis = { stroke: ink, grid, ticks: { show: false }, font: "11px system-ui, sans-serif" };
  const whole = (plot, min, max) => (min === 1 && max === points.length ? [0.4, points.length + 0.6] : [min, max]);
  chart.plot = new uPlot({
    ...chartSize(),
    padding: [8, 22, 0, 0],
    legend: { show: false },
    cursor: { y: false, x: false, points: { show: false }, drag: { x: true, y: false, dist: 6 } },
    scales: { x: { time: false, range: points.length > 1 ? whole : [0, 2] }, y: { distr: 3, range: [lanes.min, lanes.max] } },
    axes: [
      { ...axis, grid: { show: false }, size: 30, values: (plot, held) => held.map((value) => (Number.isInteger(value) && value >= 1 && value <= points.length ? amount(value) : "")) },
      { ...axis, size: 48, splits: (plot) => decades(plot.bbox.height / devicePixelRatio), filter: (plot, held) => held, values: (plot, held) => held.map(decadeLabel) },
    ],
    series: [
      {},
      { scale: "y", stroke: () => colour("floor"), width: 1.5, points: { show: false }, spanGaps: true },
      { scale: "y", stroke: () => colour("floor"), width: 1, dash: [4, 4], points: { show: false }, spanGaps: true },
    ],
    hooks: { draw: [drawMarkers], setScale: [zoomed], ready: [listen] },
  }, [order, points.map((p) => floor(p.allowed)), points.map((p) => floor(p.limit))], byId("chart"));
}

function zoom(min, max) { chart.plot.setScale("x", { min, max }); }

function zoomed(plot, scale) {
  if (scale !== "x") return;
  byId("reset-zoom").disabled = plot.scales.x.min <= 1 && plot.scales.x.max >= points.length;
}

function listen(plot) {
  let down = null;
  plot.over.addEventListener("mousemove", (event) => point_at(nearest(plot, event)));
  plot.over.addEventListener("mouseleave", () => point_at(0));
  plot.over.addEventListener("mousedown", (event) => { down = [event.clientX, event.clientY]; });
  plot.over.addEventListener("mouseup", (event) => {
    const still = down && Math.hypot(event.clientX - down[0], event.clientY - down[1]) < 5;
    const found = still ? nearest(plot, event) : 0;
    if (found) select(found, { reveal: true });
  });
}

function nearest(plot, event) {
  const box = plot.over.getBoundingClientRect();
  const x = event.clientX - box.left, y = event.clientY - box.top;
  let best = 0, least = REACH;
  for (const point of points) {
    if (!kept(point)) continue;
    const dx = plot.valToPos(point.position, "x") - x;
    if (Math.abs(dx) > least) continue;
    for (const value of [point.error, ...(point.isolated && point.isolated.error !== null ? [point.isolated.error] : [])]) {
      const away = Math.hypot(dx, plot.valToPos(lane(value), "y") - y);
      if (away < least) [best, least] = [point.position, away];
    }
  }
  return best;
}

function point_at(position) {
  if (position === chart.at && position) return;
  chart.at = position;
  chart.tip.hidden = chart.ring.hidden = !position;
  if (!position) return;
  const point = points[position - 1];
  chart.tip.replaceChildren(h("b", { class: "mono" }, point.name), ...described(point).map((line) => h("div", {}, line)));
  const over = chart.plot.over, host = byId("chart");
  const x = over.offsetLeft + chart.plot.valToPos(position, "x"), y = over.offsetTop + chart.plot.valToPos(lane(point.error), "y");
  chart.ring.style.left = `${x}px`;
  chart.ring.style.top = `${y}px`;
  const left = x > host.clientWidth / 2 ? x - chart.tip.offsetWidth - 14 : x + 14;
  chart.tip.style.left = `${Math.max(0, Math.min(left, host.clientWidth - chart.tip.offsetWidth))}px`;
  chart.tip.style.top = `${Math.max(0, Math.min(y - chart.tip.offsetHeight - 10, host.clientHeight - chart.tip.offsetHeight))}px`;
}

// A point in a few lines: its verdict, its figures, its layout.
function described(point) {
  const told = [`${point.verdict}, point ${amount(point.position)} of ${amount(points.length)}${place(point) ? `, ${place(point)}` : ""}`];
  if (point.error === 0) told.push("relative L2 0");
  else if (point.error !== null) told.push(`relative L2 ${figure(point.error)}${point.allowed ? ` (allowed ${figure(point.allowed)})` : ""}`);
  else told.push(point.reason || "no figure");
  if (point.isolated) told.push(`isolated ${figure(point.isolated.error) || "unknown"}${point.isolated.allowed ? ` (allowed ${figure(point.isolated.allowed)})` : ""}`);
  if (point.layout) told.push(point.layout);
  return told;
}

function nextKept(from, by) {
  for (let at = from + by; at >= 1 && at <= points.length; at += by) if (kept(points[at - 1])) return at;
  return from;
}

function chartKey(event) {
  const from = chart.at || selection.position;
  const moves = {
    ArrowRight: () => nextKept(from, 1), ArrowLeft: () => nextKept(from || points.length + 1, -1),
    Home: () => nextKept(0, 1), End: () => nextKept(points.length + 1, -1),
    PageDown: () => nextKept(Math.min(points.length - 1, from + 9), 1), PageUp: () => nextKept(Math.max(2, from - 9), -1),
  };
  if (event.key in moves) {
    event.preventDefault();
    const to = moves[event.key]();
    const { min, max } = chart.plot.scales.x;
    if (to < min || to > max) zoom(1, points.length);
    point_at(to);
    const point = points[to - 1];
    if (point) byId("chart-says").textContent = `${point.name}: ${described(point).join(", ")}`;
  } else if ((event.key === "Enter" || event.key === " ") && from) {
    event.preventDefault();
    select(from, { reveal: true, focus: true });
  } else if (event.key === "Escape") point_at(0);
}

function legend() {
  const held = WORST_FIRST.filter((verdict) => data.counts[verdict]).map((verdict) => h("span", { title: MEANINGS[verdict] }, mark(verdict), verdict));
  if (points.some((point) => point.isolated)) held.push(h("span", {}, mark("isolated"), "isolated: a module's own error, given the baseline's inputs; a bar is what is allowed of it"));
  if (points.some((point) => point.allowed)) held.push(h("span", {}, h("i"), "allowed: rounding explains it"), h("span", {}, h("i", { class: "dashed" }), "above it differs"));
  byId("legend").append(...held);
}
