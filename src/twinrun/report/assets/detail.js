// One point in full: the words of the terminal, then what its error looks like.
const selection = { position: 0 };

// Chooses a point. `reveal` scrolls the page to its detail, `show` does so on narrow pages only.
function select(position, { reveal = false, show = false, focus = false } = {}) {
  if (!points[position - 1]) return;
  selection.position = position;
  fillDetail(points[position - 1]);
  if (location.hash !== `#p=${position}`) history.replaceState(null, "", `#p=${position}`);
  revealInTree(position);
  if (!byId("panel-list").hidden) revealInList();
  chart.plot.redraw(false, false);
  const narrow = matchMedia("(max-width: 1023px)").matches;
  if (reveal || (show && narrow)) byId("detail").scrollIntoView({ block: narrow ? "start" : "nearest" });
  if (focus) byId("detail").focus({ preventScroll: true });
}

function fillDetail(point) {
  const where = [`point ${amount(point.position)} of ${amount(points.length)}`, `step ${point.step}`];
  if (point.occurrence) where.push(`occurrence ${point.occurrence}`);
  if (point.recompute) where.push("recomputed");
  const head = h("div", { class: "card-head" }, h("span", { class: `badge v-${point.verdict}` }, mark(point.verdict), point.verdict),
    h("div", { class: "buttons" }, step("Previous", point, -1), step("Next", point, 1)));
  byId("detail").replaceChildren(head, h("h2", { class: "about" }, breakable(point.name)), h("p", { class: "parts" }, where.join(" \u00b7 ")),
    ...[ruler(point), factList(point.fields)].filter(Boolean), ...pictured(point));
  byId("detail").scrollTop = 0;
}

function step(label, point, by) {
  const to = nextKept(point.position, by);
  const button = h("button", { type: "button", "aria-label": `${label} point` }, by < 0 ? `\u2190 ${label}` : `${label} \u2192`);
  button.disabled = to === point.position;
  button.addEventListener("click", () => {
    select(to);
    const buttons = byId("detail").querySelectorAll(".buttons button");
    const again = buttons[by < 0 ? 0 : 1];
    (again.disabled ? byId("detail") : again).focus({ preventScroll: true });
  });
  return button;
}

function factList(fields) {
  const made = h("dl", { class: "facts" });
  for (const field of fields) {
    if (field.label) made.append(h("dt", { class: field.tone }, field.label));
    for (const line of field.lines) made.append(h("dd", {}, field.verbatim ? h("code", {}, line) : unbroken(line)));
  }
  return made;
}

// The error on a line with what is allowed and from where on it differs.
function ruler(point) {
  const held = [point.error, point.allowed, point.limit, point.isolated && point.isolated.error].filter((value) => value > 0 && Number.isFinite(value)).map(Math.log10);
  if (!(point.allowed > 0) || !(point.error > 0) || !Number.isFinite(point.error)) return null;
  const low = Math.floor(Math.min(...held) - 0.7), high = Math.ceil(Math.max(...held) + 0.7);
  const wide = Math.min(560, Math.max(240, byId("detail").clientWidth - 40)), x = (value) => 8 + ((Math.log10(value) - low) / (high - low)) * (wide - 16);
  const drawn = svg("svg", { class: "ruler", viewBox: `0 0 ${wide} 62`, role: "img", "aria-label": `relative L2 ${figure(point.error)}, allowed ${figure(point.allowed)}, differs above ${figure(point.limit)}` });
  const band = (from, to, name, opacity) => drawn.append(svg("rect", { x: from, y: 26, width: Math.max(0, to - from), height: 10, class: `v-${name}`, fill: "currentColor", opacity }));
  band(8, x(point.allowed), "close", 0.35);
  band(x(point.allowed), x(point.limit), "undecided", 0.5);
  band(x(point.limit), wide - 8, "differs", 0.3);
  const every = Math.ceil((high - low) / (wide / 60));
  for (let decade = low; decade <= high; decade += every) {
    const label = svg("text", { x: x(10 ** decade), y: 54, "text-anchor": decade === low ? "start" : decade === high ? "end" : "middle" });
    label.textContent = decadeLabel(10 ** decade);
    drawn.append(svg("path", { d: `M${x(10 ** decade)} 36v4`, stroke: "currentColor", opacity: 0.5 }), label);
  }
  const middle = x(point.error), anchor = middle < 90 ? "start" : middle > wide - 90 ? "end" : "middle";
  const label = svg("text", { x: anchor === "middle" ? middle : anchor === "start" ? 8 : wide - 8, y: 13, "text-anchor": anchor, class: "strong" });
  label.textContent = `${figure(point.error)} = ${figure(point.error / point.allowed)} x allowed`;
  drawn.append(label, svg("path", { d: `M${middle} 40L${middle - 5} 19h10Z`, fill: "currentColor", class: `v-${point.verdict}` }));
  return drawn;
}

function pictured(point) {
  const picture = point.picture;
  if (!picture) return [h("p", { class: "hint pictures-none" }, point.noPicture)];
  const notes = [...picture.notes];
  if (picture.looked < picture.elements) notes.unshift(`${amount(picture.looked)} of ${amount(picture.elements)} elements were looked at, evenly spread`);
  return [
    h("div", { class: "pictures" }, histogramFigure(picture, point), heatFigure(picture, point)),
    ranksFigure(picture), worstTable(picture), notes.length ? h("p", { class: "hint" }, `${notes.join("; ")}.`) : null,
  ].filter(Boolean);
}
