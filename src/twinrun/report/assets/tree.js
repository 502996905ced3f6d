// The modules as a tree, in order of execution; each node shows the worst verdict below it.
const tree = { root: null, box: null, open: new Set() };

function grow() {
  const root = { label: "", path: "", children: new Map(), points: [] };
  for (const point of points) {
    if (!kept(point)) continue;
    const path = point.dump ? point.name.split(".").slice(0, -1) : point.module ? point.module.split(".") : [];
    let node = root;
    for (const part of path) {
      if (!node.children.has(part)) node.children.set(part, { label: part, path: node.path ? `${node.path}.${part}` : part, children: new Map(), points: [] });
      node = node.children.get(part);
    }
    node.points.push(point);
  }
  return tally(root);
}

function tally(node) {
  node.counts = {};
  for (const point of node.points) node.counts[point.verdict] = (node.counts[point.verdict] || 0) + 1;
  for (const child of node.children.values()) {
    tally(child);
    for (const [verdict, count] of Object.entries(child.counts)) node.counts[verdict] = (node.counts[verdict] || 0) + count;
  }
  node.worst = WORST_FIRST.find((verdict) => node.counts[verdict]);
  node.total = Object.values(node.counts).reduce((a, b) => a + b, 0);
  return node;
}

function buildTree() {
  tree.box = h("ul", { role: "tree", class: "tree", "aria-label": "Modules" });
  byId("panel-tree").append(tree.box);
  tree.box.addEventListener("keydown", treeKey);
  tree.box.addEventListener("click", (event) => {
    const item = event.target.closest("[role=treeitem]");
    if (item) act(item);
  });
  filter.listeners.push(plantTree);
}

function plantTree() {
  tree.root = grow();
  tree.box.replaceChildren(...branch(tree.root, 1));
  if (!filter.kept.size) tree.box.replaceChildren(h("li", { class: "empty", role: "none" }, "No point fits the filter."));
  if (filtering() && filter.kept.size <= 200) for (const item of [...tree.box.querySelectorAll("[aria-expanded=false]")]) openAll(item);
  if (selection.position) revealInTree(selection.position);
  const first = tree.box.querySelector("[aria-selected=true]") || tree.box.querySelector("[role=treeitem]");
  if (first) first.tabIndex = 0;
}

function openAll(item) {
  expand(item, true, true);
  for (const inner of [...item.querySelectorAll("[aria-expanded=false]")]) openAll(inner);
}

function branch(node, level) {
  const size = node.children.size + node.points.length;
  let at = 0;
  return [...node.points.map((point) => leaf(point, level, (at += 1), size)), ...[...node.children.values()].map((child) => limb(child, level, (at += 1), size))];
}

function limb(node, level, at, size) {
  const open = tree.open.has(node.path);
  const bad = WORST_FIRST.slice(0, 4).filter((verdict) => node.counts[verdict]);
  const sums = bad.length ? bad.map((verdict) => `${amount(node.counts[verdict])} ${verdict}`).join(", ") : `${amount(node.total)} agree`;
  const item = h("li", { role: "treeitem", "aria-level": level, "aria-posinset": at, "aria-setsize": size, "aria-expanded": String(open), tabindex: -1, "aria-label": `${node.label}: ${sums}` },
    h("div", { class: "row" }, h("span", { class: "twist", "aria-hidden": "true" }, open ? "\u25be" : "\u25b8"), mark(node.worst), h("span", { class: "name" }, node.label), h("span", { class: "sums" }, sums)));
  item.node = node;
  if (open) item.append(h("ul", { role: "group" }, ...branch(node, level + 1)));
  return item;
}

function leaf(point, level, at, size) {
  const label = point.dump ? point.name.split(".").at(-1) : point.port;
  const where = place(point);
  const told = point.error === 0 ? "equal" : point.error === null ? point.reason || point.verdict : figure(point.error);
  const item = h("li", { role: "treeitem", class: "port", "aria-level": level, "aria-posinset": at, "aria-setsize": size, "aria-selected": String(point.position === selection.position), tabindex: -1, "aria-label": `${label}${where ? `, ${where}` : ""}: ${point.verdict}, ${told}` },
    h("div", { class: "row" }, h("span", { class: "twist" }), mark(point.verdict), h("span", { class: "name" }, where ? `${label} (${where})` : label), h("span", { class: "sums" }, point.verdict === "equal" ? "equal" : `${point.verdict} ${told === point.verdict ? "" : told}`)));
  item.point = point;
  return item;
}

function expand(item, open, quiet) {
  if (!item.node || (item.getAttribute("aria-expanded") === "true") === open) return;
  item.setAttribute("aria-expanded", String(open));
  item.querySelector(".twist").textContent = open ? "\u25be" : "\u25b8";
  if (!quiet) tree.open[open ? "add" : "delete"](item.node.path);
  if (open) item.append(h("ul", { role: "group" }, ...branch(item.node, Number(item.getAttribute("aria-level")) + 1)));
  else item.querySelector(":scope > ul").remove();
}

function act(item) {
  enter(item);
  if (item.point) select(item.point.position, { show: true });
  else expand(item, item.getAttribute("aria-expanded") !== "true");
}

// One item takes part in the order of Tab; arrows move between them.
function enter(item) {
  for (const other of tree.box.querySelectorAll("[role=treeitem][tabindex='0']")) other.tabIndex = -1;
  item.tabIndex = 0;
  item.focus({ preventScroll: true });
  item.firstElementChild.scrollIntoView({ block: "nearest" });
}

function treeKey(event) {
  const item = event.target.closest("[role=treeitem]");
  if (!item || event.ctrlKey || event.altKey || event.metaKey) return;
  const items = [...tree.box.querySelectorAll("[role=treeitem]")];
  const at = items.indexOf(item);
  const open = item.getAttribute("aria-expanded");
  const parent = item.parentElement.closest("[role=treeitem]");
  const keys = {
    ArrowDown: () => items[at + 1] && enter(items[at + 1]), ArrowUp: () => items[at - 1] && enter(items[at - 1]),
    Home: () => enter(items[0]), End: () => enter(items.at(-1)),
    ArrowRight: () => (open === "false" ? expand(item, true) : open === "true" && enter(items[at + 1])),
    ArrowLeft: () => (open === "true" ? expand(item, false) : parent && enter(parent)),
    Enter: () => { act(item); if (item.point) byId("detail").focus(); }, " ": () => act(item),
  };
  if (!(event.key in keys)) return;
  event.preventDefault();
  keys[event.key]();
}

// Opens the way to a point, marks it, and scrolls the tree's own box to it.
function revealInTree(position) {
  const point = points[position - 1];
  for (const chosen of tree.box.querySelectorAll("[aria-selected=true]")) chosen.setAttribute("aria-selected", "false");
  if (!point || !kept(point)) return;
  const path = point.dump ? point.name.split(".").slice(0, -1) : point.module ? point.module.split(".") : [];
  let box = tree.box;
  for (const part of path) {
    const item = [...box.children].find((child) => child.node && child.node.label === part);
    if (!item) return;
    expand(item, true);
    box = item.querySelector(":scope > ul");
  }
  const found = [...box.children].find((child) => child.point === point);
  if (!found) return;
  found.setAttribute("aria-selected", "true");
  for (const other of tree.box.querySelectorAll("[role=treeitem][tabindex='0']")) other.tabIndex = -1;
  found.tabIndex = 0;
  within(byId("panel-tree"), found.firstElementChild);
}

// Scrolls `box` alone, never the page, so that `element` is in it.
function within(box, element) {
  if (box.hidden) return;
  const outer = box.getBoundingClientRect(), inner = element.getBoundingClientRect();
  if (inner.top < outer.top || inner.bottom > outer.bottom) box.scrollTop += inner.top - outer.top - outer.height / 3;
}
