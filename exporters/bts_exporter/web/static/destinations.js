// The table of destinations: search, order, rows that stay in place, sparklines.

import * as units from "./units.js";
import { element, setClass, setText } from "./units.js";

// Above this number of rows only those in sight are in the document.
const MOST_ROWS = 200;
const MARGIN_ROWS = 12;
const SHORTEST_SINCE = 10; // the beginning of a shorter lag is not shown
const HISTORY_SECONDS = 900;
const SPARK = { width: 120, height: 24 };
const STATE_ORDER = Object.keys(units.STATES);

const VALUES = {
  state: (row) => STATE_ORDER.length - STATE_ORDER.indexOf(row.state),
  name: (row) => `${row.destination} ${row.group}`.toLowerCase(),
  lag: (row) => row.lag_seconds,
  backlog: (row) => row.backlog_messages,
  in: (row) => row.published_per_second,
  out: (row) => row.consumed_per_second,
  consumers: (row) => row.consumers,
  drain: (row) => (row.drains === false ? Infinity : row.drain_seconds),
};

export const keyOf = (row) =>
  JSON.stringify([row.collector_id, row.system, row.destination, row.group]);

export const addressOf = (row) => {
  const { collector_id: id, system, destination, group } = row;
  return `?${new URLSearchParams({ view: "destination", collector: id, system, destination, group })}`;
};

export class Destinations {
  constructor(table, box, note, total) {
    Object.assign(this, { table, box, note, total });
    this.body = table.tBodies[0];
    this.rows = new Map(); // key -> elements
    this.histories = new Map(); // key -> [[time, value], ...]
    this.shown = [];
    this.before = element("tr", { class: "space", "aria-hidden": "true" });
    this.after = element("tr", { class: "space", "aria-hidden": "true" });
    for (const space of [this.before, this.after]) {
      space.append(element("td", { colspan: "9" }));
    }
    box.addEventListener("scroll", () => this.#place(), { passive: true });
    new ResizeObserver(() => this.#place()).observe(box);
  }

  // Takes a report; `state` has q, sort and order of the address.
  update(report, state) {
    this.report = report;
    this.#remember(report);
    this.show(state);
  }

  show(state) {
    if (!this.report) return;
    const all = this.report.destinations;
    this.shown = order(found(all, state.q), state.sort, state.order);
    setText(this.total, state.q ? `${units.count(this.shown.length)} of ${units.count(all.length)}`
      : units.count(all.length));
    this.#showOrder(state);
    this.#place();
    this.#showNote(state);
  }

  #showNote(state) {
    const notes = [];
    if (!this.shown.length && state.q) notes.push("No destination matches the search.");
    else if (!this.shown.length) notes.push("No queue, stream or client is monitored here, or none exists yet.");
    const left = this.report.destinations_left_out;
    if (left) notes.push(`${units.count(left)} more destinations exist; those with the most lag are listed.`);
    setText(this.note, notes.join(" "));
  }

  #showOrder(state) {
    for (const link of this.table.tHead.querySelectorAll("a")) {
      const name = link.dataset.sort;
      const head = link.parentElement;
      if (name !== state.sort) {
        head.removeAttribute("aria-sort");
        continue;
      }
      head.setAttribute("aria-sort", isDescending(name, state.order) ? "descending" : "ascending");
    }
  }

  // Adds what a report brings to the histories, and drops what is too old.
  #remember(report) {
    if (report.complete) this.histories.clear();
    const times = new Map(report.collectors.map((it) => [it.id, it.history_times]));
    const first = report.time - HISTORY_SECONDS;
    const present = new Set();
    for (const row of report.destinations) {
      const key = keyOf(row);
      present.add(key);
      const added = (times.get(row.collector_id) ?? []).map((time, i) => [time, row.backlog_history[i]]);
      const known = (this.histories.get(key) ?? []).concat(added);
      this.histories.set(key, known.filter(([time]) => time >= first));
    }
    for (const key of this.histories.keys()) if (!present.has(key)) this.histories.delete(key);
  }

  // Puts the rows in sight into the document; others are replaced by empty space.
  #place() {
    if (!this.report) return;
    const total = this.shown.length;
    let [first, last] = [0, total];
    const height = this.#rowHeight();
    if (total > MOST_ROWS) {
      first = Math.max(0, Math.floor(this.box.scrollTop / height) - MARGIN_ROWS);
      last = Math.min(total, first + Math.ceil(this.box.clientHeight / height) + 2 * MARGIN_ROWS);
      first = Math.min(first, last);
    }
    this.table.setAttribute("aria-rowcount", total + 1);
    this.before.firstChild.style.height = `${first * height}px`;
    this.after.firstChild.style.height = `${(total - last) * height}px`;
    const wanted = this.shown.slice(first, last).map((row, i) => this.#row(row, first + i));
    const spaces = total > MOST_ROWS ? [[this.before], [this.after]] : [[], []];
    arrange(this.body, [...spaces[0], ...wanted, ...spaces[1]]);
    if (this.rows.size > wanted.length + MOST_ROWS) this.#forget(new Set(wanted));
  }

  #rowHeight() {
    const row = this.body.querySelector("tr:not(.space)");
    return row?.offsetHeight || 48;
  }

  #forget(kept) {
    for (const [key, row] of this.rows) if (!kept.has(row.line)) this.rows.delete(key);
  }

  #row(row, index) {
    const key = keyOf(row);
    if (!this.rows.has(key)) this.rows.set(key, makeRow(row));
    const parts = this.rows.get(key);
    fill(parts, row, this.report.time);
    parts.line.setAttribute("aria-rowindex", index + 2);
    drawSpark(parts.spark, this.histories.get(key) ?? [], row, this.report.time);
    return parts.line;
  }
}

// Makes `body` have exactly these rows, moving only those that are in another place.
function arrange(body, rows) {
  const active = document.activeElement;
  const kept = new Set(rows);
  for (const child of [...body.children]) if (!kept.has(child)) child.remove();
  rows.forEach((row, i) => {
    if (body.children[i] !== row) body.insertBefore(row, body.children[i] ?? null);
  });
  if (active && active !== document.activeElement && body.contains(active)) {
    active.focus({ preventScroll: true });
  }
}

function found(rows, search) {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) return rows;
  return rows.filter((row) => {
    const text = [row.destination, row.group, row.system, row.target, row.collector, units.STATES[row.state][1]]
      .join(" ").toLowerCase();
    return words.every((word) => text.includes(word));
  });
}

const isText = (sort) => sort === "name";

export const isDescending = (sort, direction) =>
  isText(sort) ? direction === "desc" : direction !== "asc";

// In the order of `sort`, unknown values last; a report is in the order of the lag.
function order(rows, sort, direction) {
  const value = VALUES[sort];
  if (!value || (sort === "lag" && direction !== "asc")) return rows;
  const sign = isDescending(sort, direction) ? -1 : 1;
  const values = new Map(rows.map((row) => [row, value(row)]));
  return [...rows].sort((a, b) => {
    const [x, y] = [values.get(a), values.get(b)];
    if (x === null || y === null) return (x === null) - (y === null);
    return x < y ? -sign : x > y ? sign : 0;
  });
}

function makeRow(row) {
  const number = () => element("td", { class: "n" }, element("data", {}));
  const state = units.stateElement();
  const link = element("a", { href: addressOf(row), "data-view": "" }, units.isolated(row.destination || row.group || units.UNKNOWN));
  const name = element("span", { class: "name" }, link);
  const places = [units.SYSTEMS[row.system] ?? units.printable(row.system)];
  for (const part of [row.target, row.destination && row.group]) if (part) places.push(" · ", units.isolated(part));
  const head = element("th", { scope: "row" }, name, element("span", { class: "sub" }, ...places));
  head.title = [row.destination, row.group].filter(Boolean).map(units.printable).join(" · ");
  const lag = element("td", { class: "n" }, element("data", {}),
    element("span", { class: "sub" }, element("span"), element("span", { class: "method" })));
  const numbers = [number(), number(), number(), number(), number()];
  const spark = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  spark.setAttribute("viewBox", `0 0 ${SPARK.width} ${SPARK.height}`);
  spark.setAttribute("preserveAspectRatio", "none");
  spark.setAttribute("role", "img");
  for (const shape of ["area", "line"]) {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("class", shape);
    spark.append(path);
  }
  const line = element("tr", {}, element("td", {}, state), head, lag, ...numbers, element("td", { class: "spark" }, spark));
  return { line, state, lag, numbers, spark };
}

function fill(parts, row, now) {
  setClass(parts.line, `${units.STATES[row.state][2]} ${row.state}`);
  units.setState(parts.state, row.state);
  const [sign, method] = units.METHODS[row.lag_method] ?? ["", ""];
  const isLate = Boolean(row.lag_seconds);
  setValue(parts.lag.firstChild, (isLate ? sign : "") + units.duration(row.lag_seconds), row.lag_seconds);
  const since = row.lag_seconds >= SHORTEST_SINCE ? `since ${units.moment(now - row.age_seconds - row.lag_seconds, now)}` : "";
  const old = row.state === "outdated" ? `${units.duration(row.age_seconds)} ago` : "";
  const times = [old, since].filter(Boolean).join(" · ");
  setText(parts.lag.lastChild.firstChild, times);
  setText(parts.lag.lastChild.lastChild, isLate && method ? (times && " · ") + method : "");
  const shown = [
    [units.count(row.backlog_messages), row.backlog_messages],
    [units.rate(row.published_per_second), row.published_per_second],
    [units.rate(row.consumed_per_second), row.consumed_per_second],
    [units.count(row.consumers), row.consumers],
    [row.drains === false ? "never" : units.duration(row.drain_seconds), row.drain_seconds],
  ];
  shown.forEach(([text, value], i) => setValue(parts.numbers[i].firstChild, text, value));
}

// The numbers of one destination as a list of terms.
export function showFacts(place, row, now) {
  const [sign, method] = units.METHODS[row.lag_method] ?? ["", ""];
  const since = row.lag_seconds ? `, since ${units.moment(now - row.age_seconds - row.lag_seconds, now)}` : "";
  const state = units.stateElement();
  units.setState(state, row.state);
  const facts = [
    ["State", state],
    ["Lag", (row.lag_seconds ? sign : "") + units.duration(row.lag_seconds) + since],
    ["The lag is known by", method || units.UNKNOWN],
    ["Backlog", units.count(row.backlog_messages)],
    ["Delivered, not acknowledged", units.count(row.in_flight_messages)],
    ["In", units.rate(row.published_per_second)],
    ["Out", units.rate(row.consumed_per_second)],
    ["Consumers", units.count(row.consumers)],
    ["Time to drain", row.drains === false ? "never: nothing is consumed" : units.duration(row.drain_seconds)],
    ["Age of these numbers", units.duration(row.age_seconds)],
  ];
  place.replaceChildren(...facts.map(([term, value]) =>
    element("div", {}, element("dt", {}, term), element("dd", {}, value))));
}

function setValue(target, text, value) {
  setText(target, text);
  if (value === null) target.removeAttribute("value");
  else if (target.value !== String(value)) target.value = value;
}

function drawSpark(spark, history, row, now) {
  const known = history.filter(([, value]) => value !== null);
  if (row.backlog_messages !== null) known.push([now - row.age_seconds, row.backlog_messages]);
  const most = Math.max(1, ...known.map(([, value]) => value));
  const points = known.map(([time, value]) => {
    const x = (1 - (now - time) / HISTORY_SECONDS) * SPARK.width;
    return `${x.toFixed(1)} ${((1 - value / most) * (SPARK.height - 2) + 1).toFixed(1)}`;
  });
  const line = points.length ? `M${points.join("L")}` : "";
  const first = points[0]?.split(" ")[0];
  const last = points.at(-1)?.split(" ")[0];
  setPath(spark.lastChild, line);
  setPath(spark.firstChild, line && `${line}L${last} ${SPARK.height}L${first} ${SPARK.height}Z`);
  const text = known.length ? `Backlog of the last 15 minutes: at most ${units.count(most)}` : "No history yet";
  if (spark.getAttribute("aria-label") !== text) spark.setAttribute("aria-label", text);
}

function setPath(path, text) {
  if (path.getAttribute("d") !== text) path.setAttribute("d", text);
}
