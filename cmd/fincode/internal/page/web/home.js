// What the proxy knows, as it was told.
const state = { offset: 0, proxy: null, sessions: new Map(), events: [], traffic: new Map(), told: false };
const limits = { sessions: 12, events: 20 };
const find = (id) => document.getElementById(id);
const now = () => Date.now() + state.offset; // by the proxy's clock
const time = (text) => (text ? Date.parse(text) : 0);

// looks says how a state looks: icon, style, and how bad it is.
const looks = {
  ready: ["i-ready", "", 0],
  refreshing: ["i-refreshing", "", 1],
  due: ["i-due", "note", 2],
  overdue: ["i-warning", "note", 3],
  unknown: ["i-warning", "bad", 4],
  unsaved: ["i-warning", "bad", 5],
  login: ["i-error", "bad", 6],
  breach: ["i-error", "bad", 7],
};
const lookOf = (s) => looks[s.state] ?? looks.unknown;
const badness = (s) => lookOf(s)[2];

function element(name, className, ...children) {
  const node = document.createElement(name);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

// setTime shows a time, and UTC when it is pointed at.
function setTime(node, ms, text) {
  const iso = new Date(ms).toISOString();
  if (node.dateTime !== iso) {
    node.dateTime = iso;
    node.title = iso.slice(0, 19).replace("T", " ") + " UTC";
  }
  setText(node, text);
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Sessions.

const cards = new Map(); // by key

function newCard(key) {
  const c = { node: element("li", "card session"), name: element("h3", ""), state: element("p", "state"), user: element("p", "quiet") };
  const facts = element("dl", "");
  for (const [field, label, style] of [["next", "Next refresh", "next"], ["expiry", "Token expires", ""], ["rotated", "Last new token", ""]]) {
    c[field] = element("time", "");
    facts.append(element("div", "", element("dt", "", label), element("dd", style, c[field])));
  }
  c.advice = element("p", "advice");
  c.detail = element("p", "detail");
  c.life = svg("svg", { class: "life", "aria-hidden": "true", preserveAspectRatio: "none", viewBox: "0 0 1000 8" });
  c.name.textContent = key;
  c.node.append(element("div", "who", c.name, c.state, c.user), facts, c.life, c.advice, c.detail);
  return c;
}

function fillCard(c, s) {
  const [id, style] = lookOf(s);
  c.shown = s;
  c.node.className = "card session " + style;
  const sign = icon(id);
  if (s.state === "refreshing") sign.classList.add("turning");
  c.state.replaceChildren(sign, s.title);
  setText(c.user, [s.user && "User " + s.user, s.roles?.join(", ")].filter(Boolean).join(" · "));
  setText(c.detail, s.detail ?? "");
  c.advice.replaceChildren(...[s.advice, s.command && element("code", "", s.command)].filter(Boolean).flatMap((part) => [part, " "]));
  for (const node of [c.user, c.advice, c.detail]) node.hidden = !node.textContent;
  tickCard(c, s);
}

// tickCard shows what changes each second.
function tickCard(c, s) {
  const t = now(), at = time(s.refresh_at), started = time(s.refresh_started), expiry = time(s.expiry), rotated = time(s.rotated);
  if (started) setTime(c.next, started, `began ${duration(t - started)} ago`);
  else if (!at) setPlain(c.next, "none");
  else setTime(c.next, at, at > t ? "in " + duration(at - t) : "with the next request");
  if (!expiry) setPlain(c.expiry, badness(s) >= 6 ? "no token" : "not known");
  else setTime(c.expiry, expiry, expiry > t ? "in " + duration(expiry - t) : `${duration(t - expiry)} ago`);
  if (!rotated) setPlain(c.rotated, "not since the start");
  else setTime(c.rotated, rotated, `${duration(t - rotated)} ago`);
  drawLife(c.life, time(s.issued), at, expiry, t);
}

function setPlain(node, text) {
  node.removeAttribute("datetime");
  node.removeAttribute("title");
  setText(node, text);
}

// drawLife draws how much of the token's life has gone by, and when it is refreshed.
function drawLife(life, issued, refresh, expiry, t) {
  life.toggleAttribute("hidden", !(issued && expiry > issued));
  if (!(issued && expiry > issued)) return;
  const part = (ms) => Math.round(1000 * Math.min(1, Math.max(0, (ms - issued) / (expiry - issued))));
  if (!life.firstChild) {
    life.append(svg("rect", { class: "track", y: 2, width: 1000, height: 4 }), svg("rect", { class: "gone-by", y: 2, height: 4 }), svg("rect", { class: "mark", width: 3, height: 8 }));
  }
  const [, goneBy, mark] = life.children;
  goneBy.setAttribute("width", part(t));
  mark.setAttribute("x", part(refresh) - 1);
  mark.toggleAttribute("hidden", !refresh);
}

const wanted = () => find("filter").value.trim().toLowerCase();

// visibleSessions returns those that match the filter, the worst first.
function visibleSessions() {
  const text = wanted();
  return [...state.sessions.values()]
    .filter((s) => `${s.key} ${s.user ?? ""} ${s.title}`.toLowerCase().includes(text))
    .sort((a, b) => badness(b) - badness(a) || a.key.localeCompare(b.key));
}

function showSessions() {
  const all = visibleSessions(), list = find("sessions"), shown = all.slice(0, limits.sessions);
  const nodes = shown.map((s) => {
    if (!cards.has(s.key)) cards.set(s.key, newCard(s.key));
    const c = cards.get(s.key);
    if (c.shown !== s) fillCard(c, s); // others stay as they are, with what is selected in them
    return c.node;
  });
  if (nodes.length !== list.children.length || nodes.some((n, i) => n !== list.children[i])) list.replaceChildren(...nodes);
  list.classList.toggle("single", state.sessions.size === 1);
  find("filter-box").hidden = state.sessions.size <= 5;
  const more = find("sessions-more");
  more.hidden = all.length <= shown.length;
  more.textContent = `Show all ${all.length} sessions`;
  const empty = find("sessions-empty");
  empty.hidden = all.length > 0;
  if (state.sessions.size) empty.textContent = "No session matches the filter.";
  else empty.textContent = state.proxy?.keys ? "Asking the store." : "The proxy has no session to show.";
  sumUp();
}

// sumUp counts the states, for the heading and the window's title.
function sumUp() {
  const all = [...state.sessions.values()];
  const bad = all.filter((s) => badness(s) >= 4);
  const ready = all.filter((s) => badness(s) < 2).length;
  find("sessions-sum").textContent = all.length > 1 ? `${ready} of ${all.length} ready${bad.length ? `, ${bad.length} with a problem` : ""}` : "";
  const worst = bad.sort((a, b) => badness(b) - badness(a))[0];
  const name = [state.proxy?.profile, "fincode proxy"].filter(Boolean).join(" · ");
  document.title = worst ? `${worst.title.split(":")[0]} · ${name}` : name;
}

// announce tells screen readers about problems that come and go. Rotations are no news.
function announce(changed) {
  const news = changed.filter((s) => badness(s) >= 3 || badness(state.sessions.get(s.key) ?? s) >= 3);
  if (!news.length) return;
  const text = news.slice(0, 3).map((s) => `${s.key}: ${s.title}.`).join(" ");
  find("announcer").textContent = text + (news.length > 3 ? ` And ${news.length - 3} more sessions.` : "");
}

// Events.

function eventRow(e) {
  const when = element("time", ""), key = element("span", "key", e.key ?? "");
  setTime(when, time(e.time), clock(time(e.time), now()));
  const what = element("span", "what", icon("i-" + e.level), element("span", "", e.text));
  if (e.level !== "info") what.children[1].prepend(element("span", "unseen", e.level + ": "));
  const row = element("li", e.level, when, what, key, element("span", "took", e.took_ms ? milliseconds(e.took_ms) : ""));
  if (e.error) row.append(element("p", "detail", e.error));
  return row;
}

function isWanted(e) {
  return (!find("problems").checked || e.level !== "info") && (!wanted() || (e.key ?? "").toLowerCase().includes(wanted()));
}

function showEvents() {
  const all = state.events.filter(isWanted).reverse();
  find("events").replaceChildren(...all.slice(0, limits.events).map(eventRow));
  finishEvents(all.length);
}

// addEvents puts new events on top, and leaves the others alone, so that a selected text
// stays selected.
function addEvents(fresh) {
  const list = find("events");
  list.prepend(...fresh.filter(isWanted).reverse().map(eventRow));
  while (list.children.length > limits.events) list.lastChild.remove();
  finishEvents(state.events.filter(isWanted).length);
}

function finishEvents(count) {
  find("events-more").hidden = count <= limits.events;
  find("events-empty").hidden = count > 0;
  find("events-empty").textContent = state.events.length ? "No event matches the filter." : "No events since the proxy started.";
  find("events-sum").textContent = state.events.length > 1 ? `the last ${state.events.length}` : "";
}

// Plots.

function showTimeline() {
  const marked = state.events.filter((e) => e.mark);
  for (const id of ["timeline", "rotations-details"]) find(id).toggleAttribute("hidden", !marked.length);
  find("rotations-empty").hidden = marked.length > 0;
  if (!marked.length) return;
  const length = drawTimeline(find("timeline"), marked, now());
  const counts = lanes.map(([mark, name]) => [name.toLowerCase(), marked.filter((e) => e.mark === mark).length]).filter(([, n]) => n);
  setText(find("rotations-sum"), `in the last ${roughly(length)}: ` + counts.map(([name, n]) => `${n} ${name}`).join(", "));
  if (find("rotations-details").open) showRotationRows(marked);
}

function showRotationRows(marked) {
  find("rotations-rows").replaceChildren(...marked.toReversed().map((e) => {
    const when = element("time", "");
    setTime(when, time(e.time), clock(time(e.time), now()));
    return element("tr", "", element("td", "", when), element("td", "", e.key ?? ""), element("td", "", e.text));
  }));
}

function showTraffic() {
  const first = now() - span;
  for (const [at] of state.traffic) if (at + bucket < first) state.traffic.delete(at);
  const points = [...state.traffic.values()].sort((a, b) => a.at - b.at);
  find("requests").hidden = !points.length;
  find("requests-empty").hidden = points.length > 0;
  if (!points.length) return;
  drawRate(find("rate"), points, now());
  drawLatency(find("latency"), points, now());
  const sum = (list, field) => list.reduce((n, p) => n + p[field], 0);
  const window = Math.min(minute, Math.max(bucket, now() - time(state.proxy.started)));
  const rate = sum(points.filter((p) => p.at > now() - minute), "total") / (window / 1000);
  find("rate-sum").replaceChildren(element("b", "num", rate.toFixed(rate < 10 ? 1 : 0)), ` over the last minute. In all ${sum(points, "total")}, ${sum(points, "refused")} with 4xx, ${sum(points, "failed")} failed (▲).`);
  const last = points.at(-1);
  find("latency-sum").replaceChildren(element("b", "num", milliseconds(last.p50_ms)), " median (line), ", element("b", "num", milliseconds(last.p95_ms)), ` 95 % (dashed), at ${clock(last.at, now())}.`);
  showTrafficRows(points, sum);
}

function showTrafficRows(points, sum) {
  const minutes = new Map();
  for (const p of points) {
    const m = Math.floor(p.at / minute) * minute;
    minutes.set(m, [...(minutes.get(m) ?? []), p]);
  }
  find("requests-rows").replaceChildren(...[...minutes].reverse().map(([m, list]) => {
    const when = element("time", "");
    setTime(when, m, minuteFormat.format(m));
    const most = (field) => milliseconds(Math.max(...list.map((p) => p[field])));
    const cells = [when, sum(list, "total"), sum(list, "refused"), sum(list, "failed"), most("p50_ms"), most("p95_ms")];
    return element("tr", "", ...cells.map((c) => element("td", "", c instanceof Node ? c : String(c))));
  }));
}

function showProxy(p) {
  find("proxy").textContent = [p.profile && "Profile " + p.profile, p.base_url, p.version].filter(Boolean).join(" · ");
  find("started").textContent = `The proxy runs since ${clock(time(p.started), now())}.`;
}

// The connection.

let source = null, heard = 0, failures = 0;

function receive(news) {
  state.offset = Date.parse(news.now) - Date.now();
  if (news.proxy) {
    if (state.told && state.proxy?.started !== news.proxy.started) state.sessions.clear();
    state.proxy = news.proxy;
    state.events = [];
    state.traffic.clear();
    showProxy(news.proxy);
  }
  for (const p of news.traffic ?? []) state.traffic.set(time(p.start), { ...p, at: time(p.start) });
  if (state.told) announce(news.sessions ?? []);
  for (const s of news.sessions ?? []) state.sessions.set(s.key, s);
  state.events = state.events.concat(news.events ?? []).slice(-500);
  state.told = true;
  if (news.proxy || news.sessions) showSessions();
  if (news.proxy) showEvents();
  else if (news.events) addEvents(news.events);
  if (news.proxy || news.events) showTimeline();
  if (news.proxy || news.traffic) showTraffic();
}

function connect() {
  heard = Date.now();
  source = new EventSource("/-/events");
  source.onmessage = (m) => {
    heard = Date.now();
    failures = 0;
    receive(JSON.parse(m.data));
    find("link").className = "link live";
    setText(find("link-text"), "Live");
    setText(find("lost"), "");
  };
  source.onerror = lose;
}

// lose is called when the connection is lost, or refused.
function lose() {
  source.close();
  source = null;
  failures++;
  find("link").className = "link gone";
  setText(find("link-text"), "Connection lost");
  if (failures === 1) setText(find("lost"), `Connection to the proxy lost at ${clockFormat.format(Date.now())}. What you see is from before that. This page tries to connect again.`);
  setTimeout(retry, Math.min(10_000, 1000 * failures));
}

async function retry() {
  try {
    const answer = await fetch("/-/status.json", { method: "HEAD" });
    if (answer.status === 401) return location.replace("/-/?ended");
    if (answer.ok && failures > 2) setText(find("lost"), "The proxy answers, but not with events. Perhaps too many browsers look at this page: close one of them. This page tries again.");
  } catch {
    // The proxy is still gone. The next attempt says so, too.
  }
  connect();
}

function tick() {
  for (const s of state.sessions.values()) {
    const c = cards.get(s.key);
    if (c?.node.isConnected) tickCard(c, s);
  }
  if (source && Date.now() - heard > 15_000) lose();
}

find("filter").addEventListener("input", () => { showSessions(); showEvents(); });
find("problems").addEventListener("change", showEvents);
find("sessions-more").addEventListener("click", () => { limits.sessions = Infinity; showSessions(); find("main").focus(); });
find("events-more").addEventListener("click", () => { limits.events = Infinity; showEvents(); });
find("rotations-details").addEventListener("toggle", showTimeline);
new ResizeObserver(() => { showTimeline(); showTraffic(); }).observe(find("main"));
setInterval(tick, 1000);
setInterval(() => { showTimeline(); showTraffic(); }, bucket);
if (location.hash.startsWith("#key=")) history.replaceState(null, "", "/-/");
if (location.search) history.replaceState(null, "", "/-/");
connect();
