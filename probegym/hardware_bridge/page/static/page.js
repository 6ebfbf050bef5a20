// The operator's page: shows what comes down the websocket, and posts what the operator does. Every text is set as text, never as markup.
"use strict";

const STALE_SECONDS = 2, READ_SECONDS = 0.7, NONCE_SECONDS = 60, LEASE_SECONDS = 600, SLOW_ABORT_SECONDS = 1;
const COLOURS = ["#56b4e9", "#f0b429", "#1fae7c", "#e5532d", "#cc79a7", "#f0e442", "#8fa3ff", "#d9d9d9"]; // Okabe and Ito's, for a dark ground
const SIGNS = { disarmed: "○", asked: "?", running: "▶", held: "❚❚", fault: "✖" };
const WORDS = { connecting: "CONNECTING", disconnected: "DISCONNECTED", "no guard": "NO GUARD", stale: "STALE" };

const $ = (id) => document.getElementById(id);
const held = { views: [], trace: [], log: [], limits: [] };
let socket = null, told = null, heard = 0, requestSeen = null, requestSince = 0, resetting = false, nonceFor = null;

function element(name, text = "", kind = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text; // a live region speaks only of what changed
}

function setLines(list, lines) {
  list.replaceChildren(...lines.flatMap(([name, text]) => [element("dt", name), element("dd", text)]));
}

// ---- the connection ----

function connect() {
  socket = new WebSocket(`ws://${location.host}${location.pathname}live`);
  socket.onmessage = (event) => {
    told = JSON.parse(event.data);
    heard = performance.now();
    for (const part of Object.keys(held)) if (part in told) { held[part] = told[part]; draw[part](); }
    paint();
  };
  socket.onclose = () => { socket = null; paint(); setTimeout(connect, 1000); };
}

function age() { return told.age + (performance.now() - heard) / 1000; }

function link() {
  if (!socket || socket.readyState !== WebSocket.OPEN) return told || !socket ? "disconnected" : "connecting";
  if (!told) return "connecting";
  if (told.trouble) return "no guard";
  return age() > STALE_SECONDS ? "stale" : "live";
}

// ---- what the operator does ----

function say(text, good = false) {
  setText($("message-text"), text);
  $("message").classList.toggle("good", good);
  $("message").hidden = !text;
}

async function post(what, body = {}) {
  let response;
  try {
    response = await fetch(`do/${what}`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  } catch {
    return "the page's server has gone";
  }
  if (response.ok) return "";
  const words = await response.text();
  try { return JSON.parse(words).refused || words; } catch { return words; }
}

async function act(what, body) {
  const trouble = await post(what, body);
  say(trouble && `Refused: ${trouble}`);
  return !trouble;
}

async function abort() {
  const advice = "Use the instrument's own controls.";
  say("Abort sent.");
  const slow = setTimeout(() => say(`ABORT NOT CONFIRMED YET. ${advice}`), 1000 * SLOW_ABORT_SECONDS);
  const trouble = await post("abort");
  clearTimeout(slow);
  say(trouble ? `ABORT NOT CONFIRMED: ${trouble}. ${advice}` : "The guard has carried out the abort.", !trouble);
}

function buttons(names) { for (const [id, run] of Object.entries(names)) $(id).addEventListener("click", run); }

buttons({
  abort, hold: () => act("hold"), resume: () => act("resume"), disarm: () => act("disarm"), present: () => act("present"), ask: () => act("ask"),
  "not-arm": () => act("disarm"), reset: () => { resetting = true; paint(); $("reset-no").focus(); }, "reset-no": () => { resetting = false; paint(); },
  "reset-yes": () => { resetting = false; act("reset"); }, "message-close": () => say(""),
  agree: () => act("decide", { number: requestSeen, agreed: true }), deny: () => act("decide", { number: requestSeen, agreed: false }),
});
$("nonce-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const nonce = $("nonce-typed").value.trim();
  $("nonce-typed").value = "";
  await act("arm", { nonce });
});
window.addEventListener("keydown", (event) => {
  if (event.key === "Escape") { event.preventDefault(); if (!event.repeat) abort(); return; }
  if (event.target instanceof HTMLInputElement || event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
  const id = { h: "hold", p: "present" }[event.key.toLowerCase()];
  if (id && !$(id).disabled) $(id).click();
}, true);

// ---- what is shown ----

function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  return whole < 60 ? `${whole} s` : `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
}

function bar(node, share, warn, full, text) {
  node.firstElementChild.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
  node.classList.toggle("warn", warn && !full);
  node.classList.toggle("full", full);
  node.setAttribute("aria-valuenow", Math.round(100 * share));
  node.setAttribute("aria-valuetext", text);
}

function paint() {
  const status = told && told.status, now = link(), live = now === "live";
  document.body.dataset.link = now;
  document.body.dataset.state = status ? status.state : "none";
  paintBanner(status, now, live);
  const here = document.hasFocus();
  setText($("focus"), here ? "Esc aborts" : "Esc does not reach this page: click it");
  $("focus").classList.toggle("away", !here);
  if (status) paintControl(status, live);
}

function paintBanner(status, now, live) {
  const state = status ? status.state : "none";
  const last = status ? ` Last known: ${state}, ${status.why}` : "";
  const reasons = {
    connecting: "waiting for the page's server", disconnected: `the page's server does not answer: what is shown is old.${last}`, "no guard": told ? `${told.trouble}.${last}` : "",
    stale: told ? `what is shown is ${age().toFixed(0)} s old.${last}` : "",
  };
  setText($("sign"), live ? SIGNS[state] || "" : "⚠");
  setText($("state"), live ? state.toUpperCase() : WORDS[now]);
  setText($("why"), live ? status.why : reasons[now]);
  const safe = live && (state === "fault" || state === "disarmed") ? status.safe : null;
  setText($("safe"), safe === null ? "" : safe ? "The safe state is read back." : "THE SAFE STATE IS NOT CONFIRMED. See to the instrument.");
  $("safe").classList.toggle("no", safe === false);
  document.title = `${$("state").textContent} · ${status ? status.instrument : "ProbeGym operator"}`;
}

function paintControl(status, live) {
  const { state } = status, open = state === "running" || state === "held";
  setText($("instrument"), status.instrument);
  const words = `${told.mode}|${status.kind.toUpperCase()} · record ${status.record} · ${status.session ? "session connected" : "no session"}`;
  if ($("about").dataset.words !== words) {
    $("about").dataset.words = words;
    $("about").replaceChildren(...(told.mode ? [element("b", told.mode)] : []), words.slice(told.mode.length + 1));
  }
  const may = { hold: state === "running", resume: state === "held", disarm: open || state === "asked", reset: state === "fault", present: open, ask: state === "disarmed", arm: true };
  for (const [id, allowed] of Object.entries(may)) $(id).disabled = !(live && allowed);
  $("resetting").hidden = !(resetting && state === "fault");
  $("reset-yes").disabled = !live;
  setText($("refusals"), status.refusals ? `${status.refusals} refused in a row` : "");
  paintRequest(status, live);
  paintArming(status);
  paintLease(status, open);
  paintBars();
}

function paintRequest({ waiting }, live) {
  if ((waiting ? waiting.number : null) !== requestSeen) {
    requestSeen = waiting ? waiting.number : null;
    requestSince = performance.now();
    if (waiting) {
      setText($("approval-number"), `request ${waiting.number}, action ${waiting.action}`);
      setText($("approval-verb"), waiting.verb);
      setLines($("approval-lines"), waiting.lines);
    }
  }
  $("approval").hidden = !waiting;
  $("nothing").hidden = Boolean(waiting);
  const read = performance.now() - requestSince > 1000 * READ_SECONDS; // a click that was meant for the request before must not meet this one
  $("agree").disabled = $("deny").disabled = !(live && waiting && read);
}

function paintArming(status) {
  const asked = status.state === "asked", request = status.request || told.proposal;
  $("arming").hidden = !(asked || (status.state === "disarmed" && told.proposal));
  if ($("arming").hidden) { nonceFor = null; return; }
  $("ask").hidden = asked;
  $("self-test").hidden = $("nonce-form").hidden = !asked;
  const own = asked && told.asked ? told.asked.nonce : "";
  const key = JSON.stringify([request, asked, own]);
  if (key === nonceFor) return;
  nonceFor = key;
  setText($("arming-title"), asked ? "Arm the instrument?" : "Ready to be armed");
  const budget = told.bars.slice(2).map((b) => [b.name, b.text]);
  setLines($("arming-lines"), [
    ["Environment", request.environment], ["Scenario", request.scenario], ["Policy", request.policy], ["Time allowed", `${request.seconds} s`],
    ["Irreversible commands", `${request.changes} allowed`], ["Approval", request.approvals >= 1e9 ? "every action, one by one" : `the first ${request.approvals || 0} actions, one by one`], ...budget,
  ]);
  $("nonce-shown").hidden = !own;
  $("nonce-elsewhere").hidden = Boolean(own);
  setText($("nonce"), own);
  if (asked) $("nonce-typed").focus({ preventScroll: true });
}

function paintLease(status, open) {
  const whole = status.state === "asked" ? NONCE_SECONDS : LEASE_SECONDS, left = open || status.state === "asked" ? Math.max(0, status.lease - (performance.now() - heard) / 1000) : 0;
  setText($("lease-left"), open ? `${duration(left)} left` : status.state === "asked" ? `${duration(left)} to arm` : "none");
  bar($("lease-bar"), left / whole, left < 0.3 * whole, left < 0.1 * whole, $("lease-left").textContent);
}

function paintBars() {
  if ($("bars").children.length !== told.bars.length) {
    $("bars").replaceChildren(...told.bars.map((given) => {
      const row = element("div"), name = element("div", "", "name"), track = element("div", "", "bar");
      name.append(element("span", given.name), element("b"));
      track.append(element("i"));
      track.setAttribute("role", "progressbar");
      track.setAttribute("aria-label", given.name);
      row.append(name, track);
      return row;
    }));
  }
  told.bars.forEach((given, index) => {
    const row = $("bars").children[index];
    setText(row.querySelector("b"), given.text);
    bar(row.querySelector(".bar"), given.share, given.share >= 0.75, given.share >= 0.95, given.text);
  });
}

// ---- readings, traces, log ----

function canvasOf(canvas) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = canvas.clientWidth * ratio;
  canvas.height = canvas.clientHeight * ratio;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  pen.font = "14px system-ui, 'DejaVu Sans', sans-serif";
  return [pen, canvas.clientWidth, canvas.clientHeight];
}

function plot(canvas, curves, bottom, top, labels, dots = false) {
  const [pen, width, height] = canvasOf(canvas), pad = 20, span = top - bottom || 1;
  const x = (place) => 8 + place * (width - 16), y = (value) => height - pad - ((value - bottom) / span) * (height - 2 * pad);
  if (bottom < 0 && top > 0) { pen.strokeStyle = "#5b6a78"; pen.beginPath(); pen.moveTo(x(0), y(0)); pen.lineTo(x(1), y(0)); pen.stroke(); }
  curves.forEach((curve, index) => {
    pen.strokeStyle = pen.fillStyle = COLOURS[index % COLOURS.length];
    pen.lineWidth = 2;
    pen.beginPath();
    let drawing = false;
    for (const [place, value] of curve) {
      if (value === null) { drawing = false; continue; }
      if (drawing) pen.lineTo(x(place), y(value)); else pen.moveTo(x(place), y(value));
      drawing = true;
    }
    pen.stroke();
    if (dots) for (const [place, value] of curve) if (value !== null) { pen.beginPath(); pen.arc(x(place), y(value), 2.6, 0, 7); pen.fill(); }
  });
  pen.fillStyle = "#c6d1db";
  pen.fillText(labels.top, 8, 15);
  pen.fillText(labels.bottom, 8, height - 5);
  pen.textAlign = "right";
  pen.fillText(labels.across, width - 8, height - 5);
}

function image(view, first, scale) {
  const figure = element("figure"), canvas = element("canvas"), caption = element("figcaption");
  figure.style.width = `min(100%, calc(${first ? 52 : 20}vh * ${view.columns / view.rows}))`;
  canvas.width = view.columns;
  canvas.height = view.rows;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Image ${view.name}, ${view.size} pixels, grey from ${view.low} to ${view.high}`);
  const levels = atob(view.grey), pixels = new ImageData(view.columns, view.rows);
  for (let i = 0; i < levels.length; i++) {
    const grey = levels.charCodeAt(i);
    pixels.data.set(grey ? [grey, grey, grey, 255] : [40, 60, 170, 255], 4 * i);
  }
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  figure.append(canvas);
  if (scale) {
    const ruler = element("div", "", "scale");
    ruler.style.width = `${100 * scale.share}%`;
    figure.append(ruler);
  }
  caption.append(...(scale ? [`${scale.text} · `] : []), `${view.name}, ${view.size} · ${view.low}`, element("span", "", "grey"), view.high);
  if (view.missing) caption.append(` · ${view.missing} pixels without a value (blue)`);
  figure.append(caption);
  return figure;
}

function curvesOf(view) {
  const figure = element("figure", "", "curves"), canvas = element("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Curve ${view.name}, from ${view.low} to ${view.high}`);
  const ways = view.curves.length === 2 ? " (first blue, second amber)" : "";
  figure.append(canvas, element("figcaption", `${view.name}${ways}`));
  const curves = view.curves.map((curve) => curve.map((value, index) => [index / Math.max(1, curve.length - 1), value]));
  return [figure, () => plot(canvas, curves, view.bottom, view.top, { top: view.high, bottom: view.low, across: `${view.first} to ${view.last}` })];
}

const draw = {
  views() {
    const later = [];
    const made = held.views.map((shown, index) => {
      const box = element("div", "", "view");
      box.append(element("h2", `${index ? "Before" : "Last readings"}: ${shown.verb}, command ${shown.number}`));
      for (const view of shown.views) {
        if (view.kind === "image") box.append(image(view, index === 0, shown.scale));
        else if (view.kind === "curves") { const [figure, drawIt] = curvesOf(view); box.append(figure); later.push(drawIt); }
        else box.append(element("p", `${view.name}: ${view.text}`, "figures"));
      }
      if (shown.lines.length) box.append(element("p", shown.lines.map(([name, text]) => `${name} ${text}`).join(" · "), "figures"));
      return box;
    });
    if (made.length) $("views").replaceChildren(...made);
    for (const drawIt of later) drawIt();
  },

  trace() {
    const steps = held.trace.length, place = (index) => index / Math.max(1, steps - 1);
    const width = Math.max(0, ...held.trace.map(([, action]) => (action ? action.length : 0)));
    const parts = Array.from({ length: width }, (_, part) => held.trace.map(([, action], index) => [place(index), action ? action[part] ?? null : null]));
    trace($("actions"), $("action-last"), parts, "actions", (index) => held.trace[index][1]);
    trace($("rewards"), $("reward-last"), [held.trace.map(([, , reward], index) => [place(index), reward ?? null])], "rewards", (index) => held.trace[index][2]);
  },

  log() {
    $("log").replaceChildren(...[...held.log].reverse().map(([when, kind, text]) => {
      const line = element("li");
      line.append(element("time", when), element("b", kind, kind), ` ${text}`);
      return line;
    }));
  },

  limits() { $("limits").hidden = !held.limits.length; setLines($("limits-lines"), held.limits); },
};

function trace(canvas, words, curves, what, valueOf) {
  const values = curves.flat().map(([, value]) => value).filter((value) => value !== null);
  if (!values.length) return;
  const bottom = Math.min(...values), top = Math.max(...values), numbers = held.trace.map(([number]) => number);
  plot(canvas, curves, bottom, top, { top: top.toPrecision(3), bottom: bottom.toPrecision(3), across: `action ${numbers[0]} to ${numbers.at(-1)}` }, numbers.length < 80);
  const index = numbers.findLastIndex((_, i) => valueOf(i) !== undefined && valueOf(i) !== null);
  const text = `action ${numbers[index]}: ${[valueOf(index)].flat().map((value) => value.toPrecision(3)).join(", ")}`;
  setText(words, text);
  canvas.setAttribute("aria-label", `${what} of ${numbers.length} steps, from ${bottom.toPrecision(3)} to ${top.toPrecision(3)}; ${text}`);
}

window.addEventListener("resize", () => { draw.views(); draw.trace(); });
setInterval(paint, 100);
connect();
