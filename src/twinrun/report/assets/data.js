// The data of the page, as objects. Everything shown goes through textContent: nothing in it is markup.
const data = JSON.parse(document.getElementById("data").textContent);
const VERDICTS = ["equal", "close", "healed", "allowed", "undecided", "differs", "unmatched", "unreadable"];
// The worst first: of several points the tree shows the first of these.
const WORST_FIRST = ["differs", "unreadable", "unmatched", "undecided", "allowed", "healed", "close", "equal"];
const TONES = { g: "good", b: "bad", u: "unsure", p: "plain" };

const number = (value) => (typeof value === "string" ? Number(value) : value);

const points = data.points.map((held, at) => {
  const [step, name, occurrence, recompute, verdict, error, allowed, limit, worstAllowed, layout, reason, none, fields, isolated] = held;
  const text = data.strings[name];
  const colon = text.lastIndexOf(":");
  return {
    position: at + 1, step, name: text, occurrence, recompute: Boolean(recompute), verdict: VERDICTS[verdict],
    error: number(error), allowed: number(allowed), limit: number(limit), worstAllowed: number(worstAllowed),
    layout: data.strings[layout], reason: data.strings[reason], noPicture: data.strings[none],
    module: colon < 0 ? "" : text.slice(0, text.indexOf(":")), port: colon < 0 ? text : text.slice(text.indexOf(":") + 1),
    dump: colon < 0,
    fields: fields.map(([label, tone, verbatim, ...lines]) => ({
      label: data.strings[label], tone: TONES[tone], verbatim: Boolean(verbatim), lines: lines.map((n) => data.strings[n]),
    })),
    isolated: isolated ? { error: number(isolated[0]), allowed: number(isolated[1]), state: data.strings[isolated[2]] } : null,
    picture: data.pictures[at + 1] || null,
  };
});
const steps = new Set(points.map((point) => point.step)).size;

// Builds an element. Strings become text; a key that starts with "on" is a listener.
function h(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

function svg(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const byId = (id) => document.getElementById(id);
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// A measure with two digits, as the terminal writes it.
function figure(value) {
  if (value === null || value === undefined) return "";
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "Inf" : "-Inf";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e-3 && size < 1e5) return size >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(2)));
  const [mantissa, exponent] = value.toExponential(1).split("e");
  return `${mantissa.replace(/\.0$/, "")}e${Number(exponent)}`;
}

// A name that may break after its separators; its text is the same.
const breakable = (name) => name.split(/(?<=[.:])/).flatMap((part) => [part, document.createElement("wbr")]);

// A line whose figures and options (9.3e-7, --mesh) do not break at their hyphens.
const unbroken = (line) => line.split(/(\S*-\S*)/).map((part, at) => (at % 2 && part.length <= 24 ? h("span", { class: "whole" }, part) : part));

const amount = (count) => String(count).replace(/\B(?=(\d{3})+$)/g, ",");
const counted = (count, noun) => `${amount(count)} ${noun}${count === 1 ? "" : "s"}`;
// Where a point stands, after its name.
function place(point) {
  const told = steps > 1 ? [`step ${point.step}`] : [];
  if (point.occurrence) told.push(`occurrence ${point.occurrence}`);
  if (point.recompute) told.push("recomputed");
  return told.join(", ");
}
