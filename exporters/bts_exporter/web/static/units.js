// Numbers, times and names as people read them. ../../human_units.py does the same without scripts.

export const UNKNOWN = "–";

export const STATES = {
  late: ["▲", "late", "bad"],
  outdated: ["✕", "outdated", "bad"],
  no_consumer: ["●", "no consumer", "warning"],
  behind: ["△", "behind", "warning"],
  lag_unknown: ["?", "lag unknown", "warning"],
  ok: ["✓", "ok", "good"],
  failing: ["✕", "failing", "bad"],
  absent: ["○", "absent", "quiet"],
  waiting: ["…", "waiting", "quiet"],
};
export const SYSTEMS = { rabbitmq: "RabbitMQ", redis: "Redis", mqtt: "MQTT", kafka: "Kafka" };
export const METHODS = {
  message_time: ["", "message time"],
  event_time: ["", "event time"],
  interpolation: ["≈ ", "interpolated"],
  lower_bound: ["≥ ", "at least"],
};

const grouped = (value, digits) =>
  value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });

function scaled(value) {
  for (const prefix of [" ", " k", " M", " G"]) {
    if (Math.abs(value) < 999.5) return Number(value.toPrecision(3)) + prefix;
    value /= 1000;
  }
  return `${grouped(Number(value.toPrecision(3)), 0)} T`;
}

export function count(value) {
  if (value === null) return UNKNOWN;
  return Math.abs(value) < 100000 ? grouped(value, 0) : scaled(value);
}

export function rate(value) {
  if (value === null) return UNKNOWN;
  if (value === 0) return "0/s";
  if (value < 0.01) return "<0.01/s";
  if (value < 1000) return `${grouped(value, value < 10 ? 2 : 1)}/s`;
  return `${count(value)}/s`;
}

export function duration(seconds) {
  if (seconds === null) return UNKNOWN;
  if (seconds > 0 && seconds < 0.1) return "<0.1 s"; // 0 means that nothing waits
  if (seconds < 10) return seconds ? `${seconds.toFixed(1)} s` : "0 s";
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
  if (whole >= 1000001 * 86400) return ">1,000,000 d"; // a mistake of its source
  return `${grouped(Math.floor(whole / 86400), 0)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

export const share = (value) => (value === null ? UNKNOWN : `${(value * 100).toFixed(1)} %`);

// A share at an axis, without decimals where they say nothing.
const shareTick = (value) => `${Number((value * 100).toFixed(1))} %`;
export const tickOf = (format) => (format === share ? shareTick : format);

export const bytesPerSecond = (value) => (value === null ? UNKNOWN : `${scaled(value)}B/s`);

// In the time zone of the reader; with its date, unless it was within the last 20 hours.
export function moment(unix, now) {
  if (unix < 0) return "before 1970"; // far enough back there is no calendar for it
  const time = new Date(unix * 1000);
  const clock = time.toLocaleTimeString("en-GB");
  if (now - unix < 20 * 3600) return clock;
  const day = [time.getFullYear(), time.getMonth() + 1, time.getDate()];
  return `${day.map((part) => String(part).padStart(2, "0")).join("-")} ${clock.slice(0, 5)}`;
}

const ESCAPES = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

// A name from outside: characters that cannot be seen, such as marks of direction, become escapes.
export function printable(text) {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (character) => {
    const code = character.codePointAt(0);
    if (ESCAPES[character]) return ESCAPES[character];
    return code < 256
      ? `\\x${code.toString(16).padStart(2, "0")}`
      : `\\u${code.toString(16).padStart(4, "0")}`;
  });
}

// An element with attributes and children; texts are never read as HTML.
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// A name from outside as an element that keeps its direction of writing to itself.
export const isolated = (text) => element("bdi", {}, printable(text));

// Sets the text of an element only if it changes: a selection in it remains.
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

export function setClass(target, name) {
  if (target.className !== name) target.className = name;
}

export function stateElement() {
  const icon = element("span", { "aria-hidden": "true" });
  const made = element("span", { class: "state" }, icon, " ", element("span"));
  return made;
}

export function setState(target, state, reason) {
  const [icon, name, kind] = STATES[state];
  const text = reason ? `${name} (${reason})` : name;
  setClass(target, `state ${kind}`);
  setText(target.firstChild, icon);
  setText(target.lastChild, text);
}
