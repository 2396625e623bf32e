// The live page: asks for a report every five seconds and shows it; the address has what is shown.

import * as units from "./units.js";
import { element, setClass, setText } from "./units.js";
import { Destinations, isDescending, showFacts } from "./destinations.js";
import { CollectorView, Collectors } from "./collectors.js";
import { HostPlots, Plot } from "./plots.js";

const REFRESH_MS = 5000;
const FIRST_REFRESH_MS = 1000; // after the start of the exporter, until it has collected
const METRICS_REFRESHES = 3; // so many reports for each request for a collector's metrics
const TIMEOUT_MS = 15000;

const byId = (id) => document.getElementById(id);
const destinations = new Destinations(byId("destinations"), byId("destination-box"), byId("destination-note"),
  byId("destination-count"));
const collectors = new Collectors(byId("collectors"), byId("collector-count"), byId("failing"));
const host = new HostPlots(byId("plots"));
const view = new CollectorView(byId("detail"), (text) => change({ m: text }));

let report = null;
let receivedAt = 0; // on the clock of performance.now
let failure = ""; // why there is no newer report
let failingSince = 0;
let cursor = 0;
let paused = false;
let announced = "";
let timer = 0;
let lastAsked = 0; // number of the last request for a report
let refreshes = 0;
let destinationView = null;

// The state in the address.

function stateOfAddress() {
  const given = new URLSearchParams(location.search);
  const get = (name, otherwise = "") => given.get(name) ?? otherwise;
  return {
    q: get("q"), sort: get("sort", "lag"), order: get("order"), view: get("view"), collector: get("collector"),
    system: get("system"), destination: get("destination"), group: get("group"), m: get("m"),
  };
}

let state = stateOfAddress();

function change(values, { push = false } = {}) {
  const given = new URLSearchParams(location.search);
  for (const [name, value] of Object.entries(values)) {
    if (value) given.set(name, value);
    else given.delete(name);
  }
  const query = given.toString();
  navigate(query ? `?${query}` : "./", push);
}

function navigate(address, push) {
  history[push ? "pushState" : "replaceState"](null, "", address);
  showState();
}

function showState() {
  const before = state;
  state = stateOfAddress();
  const moved = ["view", "collector", "system", "destination", "group"].some((name) => before[name] !== state[name]);
  if (moved) openView();
  else if (state.collector && !state.view) view.filter(state.m);
  if (byId("q").value !== state.q) byId("q").value = state.q;
  destinations.show(state);
}

function openView() {
  const isOpen = Boolean(state.collector);
  byId("overview").hidden = isOpen;
  byId("detail").hidden = !isOpen;
  destinationView = null;
  if (!isOpen) {
    byId("detail").replaceChildren();
    if (report) show();
    return;
  }
  window.scrollTo(0, 0);
  if (state.view === "destination") openDestination();
  else view.show(state.collector, state.m);
  refreshes = 0;
  if (report) showView();
}

// Views.

function openDestination() {
  const title = element("h2", { tabindex: "-1" }, units.isolated(state.destination || state.group || units.UNKNOWN));
  const place = element("p", {}, units.SYSTEMS[state.system] ?? units.printable(state.system), " · ",
    units.isolated(state.collector));
  if (state.group) place.append(" · ", units.isolated(state.group));
  const plots = [
    new Plot("Backlog", units.count, ["messages"]),
    new Plot("Lag", units.duration, ["seconds"]),
    new Plot("Rate", units.rate, ["in", "out"]),
  ];
  destinationView = { plots, message: element("p", {}), facts: element("dl", { class: "facts" }) };
  byId("detail").replaceChildren(
    element("p", {}, element("a", { href: "./", "data-view": "" }, "← All destinations")), title, place,
    destinationView.message, destinationView.facts,
    element("div", { class: "plots large" }, ...plots.map((plot) => plot.figure)));
  title.focus();
}

async function showDestination() {
  const { collector, system, destination, group } = state;
  const shown = destinationView;
  const answer = await ask(`api/v1/history?${new URLSearchParams({ collector, system, destination, group })}`);
  if (shown !== destinationView) return;
  setText(shown.message, answer.error ?? "");
  if (answer.error) return;
  const row = report.destinations.find((it) => it.collector_id === collector && it.system === system
    && it.destination === destination && it.group === group);
  if (row) showFacts(shown.facts, row, report.time);
  const fields = [["backlog_messages"], ["lag_seconds"], ["published_per_second", "consumed_per_second"]];
  fields.forEach((names, i) => shown.plots[i].update(answer.times, names.map((name) => answer[name]), report.time));
}

async function showMetrics() {
  const id = state.collector;
  const answer = await ask(`api/v1/metrics?${new URLSearchParams({ collector: id })}`);
  if (id === state.collector && !state.view && !answer.error) view.showMetrics(answer.families);
}

function showView() {
  if (!state.collector) return;
  if (destinationView) {
    showDestination().catch(() => {});
    return;
  }
  view.update(report);
  if (refreshes++ % METRICS_REFRESHES === 0) showMetrics().catch(() => {});
}

// Reports.

async function ask(address) {
  // Without the user and password that the address of the page may have: fetch refuses these.
  const response = await fetch(new URL(address, location.origin + location.pathname), { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
  const isJson = response.headers.get("Content-Type")?.startsWith("application/json");
  if (!response.ok && !(isJson && response.status === 404)) {
    throw new Error(`the exporter answers with status ${response.status}`);
  }
  return response.json();
}

async function refresh() {
  clearTimeout(timer);
  const asked = ++lastAsked;
  try {
    if (!document.hidden && !paused) {
      const answer = await ask(`api/v1/live?since=${cursor}`);
      if (asked !== lastAsked) return; // the answer of a later request is newer
      report = answer;
      cursor = report.cursor;
      receivedAt = performance.now();
      failure = "";
      show();
    }
  } catch (error) {
    if (asked !== lastAsked) return;
    if (!failure) failingSince = Date.now() / 1000;
    failure = error instanceof TypeError || error.name === "TimeoutError" ? "the exporter does not answer" : error.message;
  }
  showFreshness();
  clearTimeout(timer);
  timer = setTimeout(refresh, report?.age_seconds === null ? FIRST_REFRESH_MS : REFRESH_MS);
}

function show() {
  setText(byId("host-name"), units.printable(report.host_name));
  setText(byId("version"), report.exporter_version);
  setText(byId("headline"), report.headline.text);
  setClass(byId("headline"), `headline ${report.headline.state}`);
  setText(byId("settings-loaded"), units.moment(report.settings_loaded, report.time));
  destinations.update(report, state);
  collectors.update(report);
  if (!byId("overview").hidden) host.update(report);
  showView();
}

// Once a second: the clock, and the age of the data.
function showFreshness() {
  if (!report) return showAlert();
  const passed = (performance.now() - receivedAt) / 1000;
  const now = report.time + passed;
  setText(byId("clock"), new Date(now * 1000).toLocaleTimeString("en-GB"));
  const age = report.age_seconds === null ? null : report.age_seconds + passed;
  const isStale = Boolean(failure) || age === null || age > report.stale_after_seconds;
  const text = age === null ? "No data yet" : `Data is ${isStale ? "stale" : "current"}: ${units.duration(age < 10 ? Math.floor(age) : age)} old`;
  setText(byId("freshness"), `${isStale ? "✕" : "✓"} ${paused ? "Paused. " : ""}${text.replace(".0 s", " s")}`);
  setClass(byId("freshness"), isStale ? "bad" : "good");
  document.body.classList.toggle("stale", isStale);
  announce(isStale ? "Data is stale" : report.headline.state === "bad" ? report.headline.text : "");
  showAlert(now - (age ?? 0));
}

function showAlert(dataTime) {
  const lines = [];
  if (failure) {
    const until = dataTime ? `: the numbers below are of ${units.moment(dataTime, dataTime)}` : "";
    lines.push(element("p", {}, `✕ Since ${units.moment(failingSince, failingSince)}, ${failure}${until}.`));
  }
  for (const problem of report?.problems ?? []) {
    lines.push(element("p", {}, "The last reload failed, the previous settings remain active:"));
    lines.push(element("pre", {}, units.printable(problem)));
  }
  const place = byId("alert");
  if (lines.map((line) => line.textContent).join() !== [...place.children].map((it) => it.textContent).join()) {
    place.replaceChildren(...lines);
  }
}

// Tells screen readers of a change of state, and nothing else.
function announce(text) {
  const kind = text.replace(/[\d.,]+/g, "");
  if (announced === kind) return;
  announced = kind;
  setText(byId("announcement"), text || "Data is current");
}

// Events.

document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-view], a[data-sort]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey || event.button) return;
  event.preventDefault();
  const sort = link.dataset.sort;
  if (!sort) return navigate(link.getAttribute("href"), true);
  const isSame = sort === state.sort;
  const order = isSame ? (isDescending(sort, state.order) ? "asc" : "desc") : "";
  change({ sort, order }, { push: true });
});
byId("q").addEventListener("input", (event) => change({ q: event.target.value }));
byId("q").form.addEventListener("submit", (event) => event.preventDefault());
addEventListener("popstate", showState);
document.addEventListener("visibilitychange", () => document.hidden || refresh());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => host.redraw());

const pause = element("button", { type: "button", "aria-pressed": "false" }, "Pause");
pause.addEventListener("click", () => {
  paused = !paused;
  pause.setAttribute("aria-pressed", paused);
  refresh();
});
byId("freshness").after(pause);
document.documentElement.classList.add("scripts");
if (state.collector) openView();
refresh();
setInterval(showFreshness, 1000);
