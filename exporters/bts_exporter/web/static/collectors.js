// The table of collectors, and the view of one with its metrics.

import * as units from "./units.js";
import { element, setClass, setText } from "./units.js";

// Metrics of a collector that are shown; a search finds the others.
const MOST_FAMILIES = 300;
const FEW_SERIES = 8; // a metric with no more shows them at once
const MOST_FAILING = 3; // at the top of the page
const COLUMNS = 6;
const OWN = "bts_exporter_"; // what the exporter says of the collector comes last

export const addressOf = (id) => `?${new URLSearchParams({ collector: id })}`;

const viewLink = (id) => element("a", { href: addressOf(id), "data-view": "" }, units.isolated(id));

export class Collectors {
  constructor(table, total, failing) {
    Object.assign(this, { table, total, failing });
    this.body = table.tBodies[0];
    this.rows = new Map();
  }

  // Failing ones first; those of the host that work are folded into one row.
  update(report) {
    setText(this.total, units.count(report.collectors.length));
    const isFolded = (it) => it.local && !it.target && it.state !== "failing";
    const single = report.collectors.filter((it) => !isFolded(it));
    single.sort((a, b) => (b.state === "failing") - (a.state === "failing") || a.local - b.local);
    const wanted = single.map((it) => this.#row(it, report.time));
    const folded = report.collectors.filter(isFolded);
    if (folded.length) wanted.push(this.#folded(folded, report.time));
    this.#showFailing(report);
    const kept = new Set(wanted);
    for (const child of [...this.body.children]) if (!kept.has(child)) child.remove();
    wanted.forEach((row, i) => {
      if (this.body.children[i] !== row) this.body.insertBefore(row, this.body.children[i] ?? null);
    });
  }

  // What is wrong with the failing ones, for the top of the page.
  #showFailing(report) {
    const failing = report.collectors.filter((it) => it.state === "failing").slice(0, MOST_FAILING);
    replace(this.failing, failing.map((it) => {
      const since = it.failing_since ? ` since ${units.moment(it.failing_since, report.time)}` : "";
      return element("p", {}, viewLink(it.id), ` fails${since}: `, units.isolated(it.message),
        element("span", { class: "sub" }, it.fix));
    }));
  }

  #cells(id, head) {
    if (!this.rows.has(id)) {
      const cells = Array.from({ length: COLUMNS }, (_, i) =>
        i === 1 ? element("th", { scope: "row" }, head()) : element("td", { class: ["", "", "n", "n", "", "wrap"][i] }));
      const state = units.stateElement();
      cells[0].append(state, element("span", { class: "sub" }));
      this.rows.set(id, { line: element("tr", {}, ...cells), cells, state });
    }
    return this.rows.get(id);
  }

  #row(it, now) {
    const { line, cells, state } = this.#cells(it.id, () => viewLink(it.id));
    setClass(line, units.STATES[it.state][2]);
    units.setState(state, it.state, it.reason);
    setText(cells[0].lastChild, it.failing_since ? `since ${units.moment(it.failing_since, now)}` : "");
    showNumbers(cells, it.duration_seconds, it.series);
    setText(cells[4], it.last_success ? units.moment(it.last_success, now) : "never");
    showFailure(cells[5], it, now);
    return line;
  }

  #folded(rows, now) {
    const id = "";
    const { line, cells, state } = this.#cells(id, () =>
      element("details", {}, element("summary"), element("p")));
    const absent = rows.filter((it) => it.state === "absent").length;
    units.setState(state, rows.some((it) => it.state === "waiting") ? "waiting" : "ok");
    const details = cells[1].firstChild;
    setText(details.firstChild, `host: ${rows.length} subsystem${rows.length === 1 ? "" : "s"}${absent ? `, ${absent} of them absent` : ""}`);
    const names = JSON.stringify(rows.map((it) => it.id));
    if (this.names !== names) {
      this.names = names;
      details.lastChild.replaceChildren(...rows.flatMap((it, i) => [i ? ", " : "", viewLink(it.id)]));
    }
    const sum = (field) => rows.reduce((total, it) => total + (it[field] ?? 0), 0);
    showNumbers(cells, sum("duration_seconds"), sum("series"));
    showLatestFailure(cells[5], rows, now);
    return line;
  }
}

function showNumbers(cells, seconds, series) {
  setText(cells[2], seconds === null ? units.UNKNOWN : `${(seconds * 1000).toFixed(1)} ms`);
  setText(cells[3], series === null ? units.UNKNOWN : units.count(series));
}

// Why it fails and what to do, or how it failed last.
function showFailure(place, it, now) {
  const failure = it.last_failure;
  const parts = [];
  if (it.state === "failing") {
    parts.push(units.isolated(it.message), element("span", { class: "sub" }, it.fix));
  } else if (failure) {
    const over = failure.is_over ? ", over now" : "";
    parts.push(`${units.moment(failure.time, now)}${over}: `, units.isolated(failure.message), ` (${failure.reason})`);
  } else if (it.message) {
    parts.push(units.isolated(it.message));
  }
  replace(place, parts);
}

function showLatestFailure(place, rows, now) {
  const failed = rows.filter((it) => it.last_failure);
  failed.sort((a, b) => b.last_failure.time - a.last_failure.time);
  const parts = [];
  if (failed.length) {
    const { id, last_failure: failure } = failed[0];
    const over = failure.is_over ? ", over now" : "";
    parts.push(`${units.moment(failure.time, now)}${over}: ${id}: `, units.isolated(failure.message));
  }
  replace(place, parts);
}

function replace(place, parts) {
  const made = element("div", {}, ...parts);
  if (place.innerHTML !== made.innerHTML) place.replaceChildren(...made.childNodes);
}

// The view of one collector: its state, and its metrics with their help.
export class CollectorView {
  constructor(place, search) {
    this.place = place;
    this.search = search;
    this.families = [];
    this.open = new Map();
  }

  show(id, query) {
    this.id = id;
    this.query = query;
    this.state = units.stateElement();
    this.message = element("p", { class: "wrap" });
    this.input = element("input", { id: "m", type: "search", autocomplete: "off", spellcheck: "false" });
    this.input.value = query;
    this.input.addEventListener("input", () => this.search(this.input.value));
    this.total = element("span", { class: "count" });
    this.list = element("div", { class: "families" });
    this.families = [];
    this.open.clear();
    const title = element("h2", { tabindex: "-1" }, units.isolated(id));
    const form = element("form", { role: "search" }, element("label", { for: "m" }, "Search metrics and help"), this.input);
    form.addEventListener("submit", (event) => event.preventDefault());
    this.place.replaceChildren(
      element("p", {}, element("a", { href: "./", "data-view": "" }, "← All destinations")), title,
      element("p", {}, this.state), this.message,
      element("div", { class: "title" }, element("h3", {}, "Metrics ", this.total), form), this.list);
    title.focus();
  }

  update(report) {
    const it = report.collectors.find((collector) => collector.id === this.id);
    if (!it) {
      setText(this.message, "There is no collector with this name in the settings.");
      return;
    }
    units.setState(this.state, it.state, it.reason);
    showFailure(this.message, it, report.time);
  }

  showMetrics(families) {
    const isOwn = (family) => family.name.startsWith(OWN);
    this.families = [...families].sort((a, b) => isOwn(a) - isOwn(b));
    this.filter(this.query);
  }

  filter(query) {
    this.query = query;
    const words = query.toLowerCase().split(/\s+/).filter(Boolean);
    const found = this.families.filter((family) => {
      const text = `${family.name} ${family.help}`.toLowerCase();
      return words.every((word) => text.includes(word));
    });
    setText(this.total, query ? `${found.length} of ${this.families.length}` : String(found.length));
    const shown = found.slice(0, MOST_FAMILIES).map((family) => this.#family(family));
    if (found.length > MOST_FAMILIES) shown.push(element("p", {}, "Search to find the others."));
    this.list.replaceChildren(...shown);
  }

  #family(family) {
    const help = element("span", { class: "help" }, units.printable(family.help));
    const name = [element("code", {}, family.name), " ", element("span", { class: "count" }, family.type)];
    if (family.series === 1) {
      const [only] = family.samples;
      const value = element("span", { class: "value" }, String(only.value));
      return element("div", { class: "family" }, value, ...name, " ", labelsOf(only), help);
    }
    const count = element("span", { class: "value" }, `${units.count(family.series)} series`);
    const details = element("details", {}, element("summary", {}, ...name, count, help));
    const fill = () => {
      if (details.open && !details.querySelector("table")) details.append(seriesTable(family));
      this.open.set(family.name, details.open);
    };
    details.open = this.open.get(family.name) ?? family.series <= FEW_SERIES;
    if (details.open) details.append(seriesTable(family));
    details.addEventListener("toggle", fill);
    return element("div", { class: "family" }, details);
  }
}

// The labels that have a value, each value isolated from the text around it.
function labelsOf(sample) {
  const made = element("span", { class: "labels" });
  const labels = Object.entries(sample.labels).filter(([, value]) => value !== "");
  labels.forEach(([name, value], i) => made.append(`${i ? ", " : ""}${name}=`, units.isolated(value)));
  return made;
}

function seriesTable(family) {
  const rows = family.samples.map((sample) => {
    const cell = element("td", {}, labelsOf(sample));
    if (sample.name !== family.name) cell.prepend(`${sample.name.slice(family.name.length)} `);
    return element("tr", {}, cell, element("td", { class: "n" }, String(sample.value)));
  });
  if (family.series > family.samples.length) {
    rows.push(element("tr", {}, element("td", { colspan: "2" }, `and ${family.series - family.samples.length} more`)));
  }
  const head = element("tr", {}, element("th", { scope: "col" }, "Labels"), element("th", { scope: "col", class: "n" }, "Value"));
  return element("table", { class: "series" }, element("thead", {}, head), element("tbody", {}, ...rows));
}
