"use strict";
// Drawing. These functions know the data that they get, and the clock, and nothing else.

const minute = 60_000;
const bucket = 5000; // milliseconds, as in traffic.go
const span = 15 * minute;

// lanes are the rows of the timeline. Each has a shape of its own (home.html, m-…).
const lanes = [
  ["refreshed", "Refreshed", "ok"],
  ["took-over", "Taken over", "other"],
  ["elsewhere", "By another process", "other"],
  ["saved-late", "Saved late", "refused"],
  ["failed", "Failed", "failed"],
  ["ended", "Ended", "failed"],
];

function svg(name, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function icon(id) {
  const node = svg("svg", { class: "icon", "aria-hidden": "true" });
  node.append(svg("use", { href: "#" + id }));
  return node;
}

function size(plot, height) {
  const width = Math.max(220, Math.round(plot.getBoundingClientRect().width));
  plot.setAttribute("viewBox", `0 0 ${width} ${height}`);
  plot.setAttribute("height", height);
  return width;
}

const clockFormat = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const minuteFormat = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const dayFormat = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });

// clock returns a time of day, with the day unless it is today.
function clock(ms, now) {
  const far = new Date(ms).toDateString() !== new Date(now).toDateString();
  return (far ? dayFormat.format(ms) + " " : "") + clockFormat.format(ms);
}

// duration returns 41 min 07 s.
function duration(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  const two = (n) => String(n).padStart(2, "0");
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${two(s % 60)} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${two(Math.floor(s / 60) % 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor(s / 3600) % 24} h`;
}

// roughly returns 15 minutes or 6 hours.
function roughly(ms) {
  const m = Math.round(ms / minute);
  return m < 60 ? `${m} minutes` : m === 60 ? "hour" : `${Math.round(m / 60)} hours`;
}

function milliseconds(ms) {
  if (ms === 0) return "0";
  if (ms >= 10_000) return `${Math.round(ms / 1000)} s`;
  if (ms >= 1000) return `${(ms / 1000).toFixed(1)} s`;
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

// ceiling returns the next number after n that is 1, 2 or 5 times a power of ten.
function ceiling(n) {
  const power = 10 ** Math.floor(Math.log10(n));
  return [1, 2, 5, 10].map((f) => f * power).find((c) => c >= n * 0.999);
}

// timeAxis draws a line for each step, with its time of day, between x and width.
function timeAxis(plot, x, width, bottom, from, to) {
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 360, 720, 1440].map((m) => m * minute);
  const step = steps.find((s) => ((width - x) * s) / (to - from) >= 48) ?? 1440 * minute;
  const zone = new Date(to).getTimezoneOffset() * minute;
  for (let t = Math.ceil((from - zone) / step) * step + zone; t <= to; t += step) {
    const at = x + ((t - from) / (to - from)) * (width - x);
    plot.append(svg("line", { class: "grid", x1: at, x2: at, y1: 4, y2: bottom }));
    if (at > x + 12 && at < width - 12) plot.append(svg("text", { x: at, y: bottom + 16, "text-anchor": "middle" }, minuteFormat.format(t)));
  }
}

// drawTimeline draws the events that have a mark, each kind in a row. It returns
// how many milliseconds it covers.
function drawTimeline(plot, events, now) {
  const shown = lanes.filter(([mark]) => mark === "refreshed" || events.some((e) => e.mark === mark));
  const row = 26, bottom = shown.length * row + 4;
  const width = size(plot, bottom + 22) - 8;
  const x = Math.min(190, Math.max(152, width * 0.2));
  const oldest = Date.parse(events[0].time);
  const length = [15, 30, 60, 120, 240, 480, 960, 1440, 2880].map((m) => m * minute).find((l) => now - oldest < l) ?? now - oldest;
  const from = now - length;
  plot.replaceChildren();
  timeAxis(plot, x, width, bottom, from, now);
  shown.forEach(([mark, name, style], i) => {
    const y = i * row + row / 2 + 2;
    const some = events.filter((e) => e.mark === mark);
    plot.append(svg("use", { href: "#m-" + mark, class: style, x: 0, y: y - 6, width: 12, height: 12 }));
    plot.append(svg("text", { class: "name", x: 18, y: y + 4 }, `${name} ${some.length}`));
    plot.append(svg("line", { class: "grid", x1: x, x2: width, y1: y, y2: y }));
    for (const e of some) {
      const at = x + ((Date.parse(e.time) - from) / length) * (width - x);
      const node = svg("use", { href: "#m-" + mark, class: style, x: at - 6, y: y - 6, width: 12, height: 12 });
      node.append(svg("title", {}, `${clock(Date.parse(e.time), now)} ${e.key ?? ""}: ${e.text}`));
      plot.append(node);
    }
  });
  return length;
}

// frame draws the axes of a plot of the last 15 minutes. It returns where a time and a
// value are.
function frame(plot, now, top, label) {
  const height = 130, x = 46, bottom = height - 22;
  const width = size(plot, height);
  const from = now - span;
  plot.replaceChildren();
  timeAxis(plot, x, width, bottom, from, now);
  const atY = (value) => bottom - (value / top) * (bottom - 14);
  for (const value of [0, top / 2, top]) {
    plot.append(svg("line", { class: "grid", x1: x, x2: width, y1: atY(value), y2: atY(value) }));
    plot.append(svg("text", { x: x - 6, y: atY(value) + 4, "text-anchor": "end" }, label(value)));
  }
  const atX = (t) => x + ((t - from) / span) * (width - x);
  return { atX, atY, bottom, left: x };
}

// drawRate draws a bar for each five seconds. A triangle marks those in which requests
// failed, so that nobody has to tell colours apart.
function drawRate(plot, points, now) {
  const seconds = bucket / 1000;
  const top = ceiling(Math.max(1, ...points.map((p) => p.total / seconds)));
  const f = frame(plot, now, top, (v) => String(v));
  for (const p of points) {
    const left = Math.max(f.left, f.atX(p.at)), width = Math.max(1, f.atX(p.at + bucket) - left - 0.5);
    let below = 0;
    for (const [style, count] of [["failed", p.failed], ["refused", p.refused], ["ok", p.total - p.failed - p.refused]]) {
      if (!count) continue;
      const low = f.atY(below / seconds), high = f.atY((below + count) / seconds);
      plot.append(svg("rect", { class: style, x: left, y: high, width, height: Math.max(1, low - high) }));
      below += count;
    }
    if (p.failed) plot.append(svg("use", { href: "#m-failed", class: "failed", x: left + width / 2 - 4, y: f.atY(below / seconds) - 10, width: 8, height: 8 }));
  }
}

// drawLatency draws the median as a line, and the 95th percentile as a dashed one. Where
// there were no requests, the lines have gaps.
function drawLatency(plot, points, now) {
  const top = ceiling(Math.max(1, ...points.map((p) => p.p95_ms)));
  const f = frame(plot, now, top, milliseconds);
  for (const [field, style] of [["p95_ms", "p95"], ["p50_ms", "p50"]]) {
    let path = "", last = 0;
    for (const p of points) {
      const x = Math.max(f.left, f.atX(p.at + bucket / 2)), y = f.atY(p[field]);
      path += p.at - last > bucket ? `M${x - 1.5} ${y}H${x + 1.5}` : `L${x} ${y}`;
      last = p.at;
    }
    plot.append(svg("path", { class: style, d: path }));
  }
}
