// Asks for news, and shows when the server has a new access token. The token itself
// stays on the server.
"use strict";

const poll = Number(document.body.dataset.poll);
const at = (id) => document.getElementById(id);
let expires = null; // of the token that the last news told of
let end = 0; // when that is, by this browser's clock, in milliseconds
let life = 0; // the longest time left that was seen, in milliseconds
let renewals = 0;
let leaving = false; // the user logs out; what a question finds out meanwhile must not load another page

async function ask() {
  if (document.hidden || leaving) return; // nobody looks, so nothing is kept alive
  let answer;
  try {
    answer = await fetch("/session.json", { cache: "no-store", headers: { Accept: "application/json" } });
  } catch {
    return leaving || tell("You are offline, or our server does not answer. We keep trying.");
  }
  if (leaving) return;
  if (answer.status === 401) return location.reload(); // the page says why, and how to go on
  if (!answer.ok) return tell("We cannot reach one of our systems. You are still logged in. We keep trying.");
  show(await answer.json());
}

function show(news) {
  tell("");
  if (news.expires) {
    if (expires !== null && news.expires !== expires) {
      at("renewals").textContent = ++renewals;
      at("renewed").textContent = new Date().toLocaleTimeString();
      life = 0;
    }
    expires = news.expires;
    end = Date.now() + news.secondsLeft * 1000;
    life = Math.max(life, news.secondsLeft * 1000);
    tick();
  }
  at("fields").replaceChildren(...news.fields.map(row));
}

function row(field) {
  const [div, dt, dd] = ["div", "dt", "dd"].map((name) => document.createElement(name));
  dt.textContent = field.label;
  dd.textContent = field.value;
  div.append(dt, dd);
  return div;
}

function tick() {
  if (expires === null) return;
  const left = Math.max(0, end - Date.now());
  at("left").textContent = clock(Math.ceil(left / 1000));
  at("bar").value = life > 0 ? left / life : 0;
}

function clock(seconds) {
  return seconds < 90 ? seconds + " s" : Math.round(seconds / 60) + " min";
}

// tell shows a message, and changes nothing if it is there already: a screen reader
// reads each change.
function tell(message) {
  const status = at("status");
  if (status.textContent !== message) status.textContent = message;
  status.hidden = message === "";
}

ask();
setInterval(ask, poll);
setInterval(tick, 1000);
document.addEventListener("visibilitychange", ask);
document.querySelector("form").addEventListener("submit", () => { leaving = true; });
window.addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); }); // behind the Back button
