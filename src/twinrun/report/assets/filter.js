// What is shown: a text or glob over names, and the verdicts that are switched on (none: all).
const filter = { text: "", verdicts: new Set(), kept: new Set(points.map((point) => point.position)), listeners: [] };

function matcher(text) {
  const wanted = text.trim().toLowerCase();
  if (!wanted) return () => true;
  if (!/[*?]/.test(wanted)) return (name) => name.includes(wanted);
  const parts = wanted.replace(/[.+^${}()|[\]\\]/g, "\\$&").replace(/\*/g, ".*").replace(/\?/g, ".");
  const glob = new RegExp(`^${parts}$`, "s");
  return (name) => glob.test(name);
}

function refilter() {
  const fits = matcher(filter.text);
  const shown = points.filter((p) => (!filter.verdicts.size || filter.verdicts.has(p.verdict)) && fits(p.name.toLowerCase()));
  filter.kept = new Set(shown.map((point) => point.position));
  byId("shown").textContent = shown.length === points.length ? counted(points.length, "point") : `${amount(shown.length)} of ${counted(points.length, "point")}`;
  for (const listener of filter.listeners) listener();
}

const filtering = () => filter.kept.size < points.length;
const kept = (point) => filter.kept.has(point.position);

function buildFilter() {
  const box = byId("filter");
  let waiting = 0;
  box.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { filter.text = box.value; refilter(); }, points.length > 500 ? 120 : 0);
  });
  for (const verdict of WORST_FIRST) {
    const count = data.counts[verdict];
    if (!count) continue;
    const chip = h("button", { type: "button", "aria-pressed": "false", title: MEANINGS[verdict] }, word(verdict), h("span", { class: "count" }, amount(count)));
    chip.addEventListener("click", () => {
      const on = !filter.verdicts.delete(verdict) && Boolean(filter.verdicts.add(verdict));
      chip.setAttribute("aria-pressed", String(on));
      refilter();
    });
    byId("verdicts").append(chip);
  }
}
