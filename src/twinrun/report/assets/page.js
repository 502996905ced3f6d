// Puts the page together, and follows the address: #p=17 is point 17.
function fromHash() {
  const found = /^#p=(\d+)$/.exec(location.hash);
  return found && points[Number(found[1]) - 1] ? Number(found[1]) : 0;
}

function buildLists() {
  for (const held of data.lists) {
    const columns = held.header.map((title, at) => at).filter((at) => held.rows.some((cells) => cells[at]));
    const rows = held.rows.map((cells, at) => h("tr", {}, columns.map((column) => {
      const cell = cells[column];
      const named = held.header[column] === "point";
      const linked = named && held.positions[at] ? h("a", { href: `#p=${held.positions[at]}` }, cell) : cell;
      return h("td", { class: named ? "mono" : cell.length > 48 ? "finding" : cell.length < 20 ? "whole" : "" }, linked);
    })));
    byId("lists").append(h("section", { class: "card" }, h("h2", {}, `${held.title} (${amount(held.rows.length)})`), h("p", { class: "lists-note" }, held.note),
      h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, columns.map((at) => h("th", { scope: "col" }, held.header[at])))), h("tbody", {}, rows)))));
  }
}

function enableCopying() {
  if (!navigator.clipboard) return;
  for (const button of document.querySelectorAll("button.copy")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(button.previousElementSibling.textContent);
        button.textContent = "Copied";
      } catch { button.textContent = "Select it by hand"; }
      setTimeout(() => { button.textContent = "Copy"; }, 1600);
    });
  }
}

// Whom to show first: what the address says, else where the runs part, else the largest error.
function opened() {
  const first = data.sections.map((section) => section.position).find(Boolean);
  if (fromHash() || first) return fromHash() || first;
  let best = points[0];
  for (const point of points) if (Number.isFinite(point.error) && point.allowed > 0 && !(best.error / best.allowed >= point.error / point.allowed)) best = point;
  return best ? best.position : 0;
}

function build() {
  enableCopying();
  if (!points.length) return;
  byId("app").hidden = false;
  buildFilter();
  buildChart();
  buildTree();
  buildList();
  buildLists();
  refilter();
  const at = opened();
  selection.position = at;
  fillDetail(points[at - 1]);
  revealInTree(at);
  chart.plot.redraw(false, false);
  addEventListener("hashchange", () => { const to = fromHash(); if (to) select(to, { reveal: true, focus: true }); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => fillDetail(points[selection.position - 1]));
}

build();
document.documentElement.dataset.ready = "yes";
