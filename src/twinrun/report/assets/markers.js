// Where each point lies in the chart: a logarithmic scale, a lane below it for equal bits, one above for no figure.
function measured() {
  const values = [];
  for (const p of points) {
    for (const value of [p.error, p.allowed, p.limit, p.isolated && p.isolated.error, p.isolated && p.isolated.allowed]) {
      if (value > 0 && Number.isFinite(value)) values.push(Math.log10(value));
    }
  }
  const low = values.length ? Math.floor(Math.min(...values)) : -8;
  const high = Math.max(low + 2, values.length ? Math.ceil(Math.max(...values)) : 0);
  const figureless = points.some((p) => p.error === null || !Number.isFinite(p.error));
  const zeros = points.some((p) => p.error === 0 || (p.isolated && p.isolated.error === 0));
  return {
    low, high, zero: 10 ** (low - 0.8), none: 10 ** (high + 0.8), figureless, zeros,
    min: 10 ** (low - (zeros ? 1.4 : 0.2)), max: 10 ** (high + (figureless ? 1.4 : 0.2)),
  };
}

const lanes = measured();

function lane(value) {
  if (value === null || !Number.isFinite(value)) return lanes.none;
  return value > 0 ? value : lanes.zero;
}

// Decades of the scale and the lanes, as many as `pixels` have room for.
function decades(pixels) {
  const every = Math.max(1, Math.ceil((lanes.high - lanes.low) / Math.max(2, pixels / 34)));
  const held = [];
  for (let at = Math.ceil(lanes.low / every) * every; at <= lanes.high; at += every) held.push(10 ** at);
  if (lanes.zeros) held.unshift(lanes.zero);
  if (lanes.figureless) held.push(lanes.none);
  return held;
}

function decadeLabel(value) {
  if (value === lanes.zero) return "equal";
  if (value === lanes.none) return "none";
  const power = Math.round(Math.log10(value));
  return power === 0 ? "1" : power > 0 && power < 4 ? String(10 ** power) : `1e${power}`;
}

function drawMarkers(plot) {
  const context = plot.ctx;
  const scale = devicePixelRatio * (points.length > 600 ? 0.8 : 1);
  const { left, top, width, height } = plot.bbox;
  context.save();
  context.setLineDash([]);
  context.lineCap = "round";
  context.beginPath();
  context.rect(left - 6 * scale, top, width + 12 * scale, height);
  context.clip();
  drawLanes(plot, context);
  // What is filtered out stays as a trace; what matters most is drawn last.
  const order = [...points].sort((a, b) => kept(a) - kept(b) || WORST_FIRST.indexOf(b.verdict) - WORST_FIRST.indexOf(a.verdict));
  for (const point of order) {
    const x = plot.valToPos(point.position, "x", true);
    if (x < left - 9 || x > left + width + 9) continue;
    context.globalAlpha = kept(point) ? 1 : 0.12;
    if (point.isolated && point.isolated.error !== null) {
      context.strokeStyle = context.fillStyle = colour("isolated");
      drawMark(context, "isolated", x, plot.valToPos(lane(point.isolated.error), "y", true), scale);
      if (point.isolated.allowed > 0) {
        const y = plot.valToPos(point.isolated.allowed, "y", true);
        context.beginPath();
        context.moveTo(x - 5 * scale, y);
        context.lineTo(x + 5 * scale, y);
        context.stroke();
      }
    }
    context.strokeStyle = context.fillStyle = colour(point.verdict);
    drawMark(context, point.verdict, x, plot.valToPos(lane(point.error), "y", true), scale);
  }
  context.globalAlpha = 1;
  const chosen = points[selection.position - 1];
  if (chosen) {
    context.strokeStyle = colour("ink");
    context.lineWidth = 2.5 * devicePixelRatio;
    context.beginPath();
    context.arc(plot.valToPos(chosen.position, "x", true), plot.valToPos(lane(chosen.error), "y", true), 8.5 * devicePixelRatio, 0, 2 * Math.PI);
    context.stroke();
  }
  context.restore();
}

function drawLanes(plot, context) {
  const { left, top, width, height } = plot.bbox;
  context.fillStyle = colour("sunk");
  if (lanes.zeros) {
    const y = plot.valToPos(10 ** (lanes.low - 0.3), "y", true);
    context.fillRect(left, y, width, top + height - y);
  }
  if (lanes.figureless) context.fillRect(left, top, width, plot.valToPos(10 ** (lanes.high + 0.3), "y", true) - top);
  context.strokeStyle = colour("line");
  context.lineWidth = devicePixelRatio;
  for (let at = 1; at < points.length; at += 1) {
    if (points[at].step === points[at - 1].step) continue;
    const x = Math.round(plot.valToPos(at + 0.5, "x", true));
    context.beginPath();
    context.moveTo(x, top);
    context.lineTo(x, top + height);
    context.stroke();
  }
}
