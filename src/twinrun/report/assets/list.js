// All points as a table, in order of execution or by how far they lie apart.
const list = { body: null, by: "position", down: false };
// More rows than this make a browser slow.
const MOST_ROWS = 4000;
const LIST_COLUMNS = [
  ["position", "#", true], ["verdict", "verdict", false], ["error", "relative L2", true], ["name", "point", false],
];

function buildList() {
  list.body = h("tbody");
  const heads = LIST_COLUMNS.map(([key, title, right]) => {
    const head = h("th", { scope: "col", class: right ? "figure" : "", "aria-sort": key === "position" ? "ascending" : "none" }, h("button", { type: "button" }, title));
    head.addEventListener("click", () => sortBy(key, head));
    return head;
  });
  byId("panel-list").append(h("table", { class: "points" }, h("thead", {}, h("tr", {}, heads)), list.body));
  filter.listeners.push(fillList);
  const tabs = [byId("tab-tree"), byId("tab-list")];
  for (const tab of tabs) {
    tab.addEventListener("click", () => showTab(tab));
    tab.addEventListener("keydown", (event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      const other = tabs[1 - tabs.indexOf(tab)];
      showTab(other);
      other.focus();
    });
  }
}

function showTab(chosen) {
  for (const tab of [byId("tab-tree"), byId("tab-list")]) {
    const on = tab === chosen;
    tab.setAttribute("aria-selected", String(on));
    tab.tabIndex = on ? 0 : -1;
    byId(tab.getAttribute("aria-controls")).hidden = !on;
  }
  if (chosen.id === "tab-list") fillList(); else if (selection.position) revealInTree(selection.position);
}

function sortBy(key, head) {
  list.down = list.by === key ? !list.down : key === "error";
  list.by = key;
  for (const other of head.parentElement.children) other.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", list.down ? "descending" : "ascending");
  fillList();
}

function sortKey(point) {
  if (list.by === "verdict") return -WORST_FIRST.indexOf(point.verdict);
  if (list.by === "name") return point.name;
  const value = point[list.by];
  return value === null ? -1 : Number.isNaN(value) ? Infinity : value;
}

function fillList() {
  if (byId("panel-list").hidden) return;
  const shown = points.filter(kept);
  const way = list.down ? -1 : 1;
  shown.sort((a, b) => { const [x, y] = [sortKey(a), sortKey(b)]; return (x < y ? -1 : x > y ? 1 : 0) * way || a.position - b.position; });
  list.body.replaceChildren(...shown.slice(0, MOST_ROWS).map(listRow));
  if (shown.length > MOST_ROWS) list.body.append(h("tr", {}, h("td", { colspan: 4, class: "empty" }, `and ${counted(shown.length - MOST_ROWS, "more point")}: filter or sort to see them`)));
  if (!shown.length) list.body.append(h("tr", {}, h("td", { colspan: 4, class: "empty" }, "No point fits the filter.")));
  byId("panel-list").scrollTop = 0;
  revealInList();
}

function listRow(point) {
  const where = place(point);
  const row = h("tr", { class: point.position === selection.position ? "chosen" : "" },
    h("td", { class: "figure" }, amount(point.position)), h("td", {}, word(point.verdict)),
    h("td", { class: "figure" }, point.error === null ? point.reason : figure(point.error)),
    h("td", {}, h("a", { class: "mono", href: `#p=${point.position}` }, breakable(point.name), where ? ` (${where})` : "")));
  row.point = point;
  return row;
}

function revealInList() {
  for (const row of list.body.children) {
    const on = Boolean(row.point) && row.point.position === selection.position;
    row.classList.toggle("chosen", on);
    if (on) within(byId("panel-list"), row);
  }
}
