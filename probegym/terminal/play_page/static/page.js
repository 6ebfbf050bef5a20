"use strict";
// The server holds the game and all values of its controls; this page sends keys and values, and draws the state that comes back.

const $ = (id) => document.getElementById(id);
const ARROWS = { ArrowUp: "w", ArrowDown: "s", ArrowLeft: "a", ArrowRight: "d", Enter: "\n" };
const POLL_MILLISECONDS = 700;
let shown = null, frame = null, built = "", queue = Promise.resolve(), waiting = null;

function element(name, text = "", kind = "") {
  const node = document.createElement(name);
  node.textContent = text;
  if (kind) node.className = kind;
  return node;
}

// ---- asking ----

async function ask(path, body) {
  const options = body === undefined ? {} : { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  let answer;
  try { answer = await fetch(path, options); } catch { lost("the server does not answer: it was ended, start it again"); return; }
  if (!answer.ok) { tell(await answer.text(), true); return; }
  document.body.classList.remove("lost");
  shown = await answer.json();
  await draw();
}

// One after the other, so that answers cannot overtake each other.
function send(what, body) { queue = queue.then(() => ask(`do/${what}`, body)); return queue; }

// While a slider moves only the latest value is sent.
function put(name, value) {
  const first = waiting === null;
  waiting = { name, value };
  if (first) queue = queue.then(() => { const latest = waiting; waiting = null; return ask("do/put", latest); });
}

function tell(text, refused) { $("message").textContent = text; $("message").classList.toggle("refused", refused); }
function lost(text) { document.body.classList.add("lost"); tell(text, true); }

// ---- drawing ----

async function draw() {
  $("env").textContent = shown.env;
  $("about").textContent = `scenario ${shown.scenario} · seed ${shown.seed} · step ${shown.steps}`;
  $("score").textContent = shown.score;
  $("score-what").textContent = shown.score_name;
  $("truth").setAttribute("aria-pressed", shown.truth);
  $("truth").disabled = $("end").disabled = $("do").disabled = shown.over;
  tell(shown.told || (shown.over ? "The episode is over." : ""), shown.refused);
  $("purpose").textContent = shown.purpose;
  $("description").textContent = shown.description;
  $("ends").textContent = shown.end;
  $("foreseen").textContent = shown.foreseen && `This step: ${shown.foreseen}`;
  $("status").replaceChildren(...Object.entries(shown.status).map(([name, value]) => {
    const pair = element("div");
    pair.append(element("dt", name), element("dd", value));
    return pair;
  }));
  drawControls();
  drawTable();
  if (frame !== shown.frame) { frame = shown.frame; await drawPicture(); }
}

async function drawPicture() {
  const answer = await fetch(`frame.png?${frame}`);
  if (!answer.ok) return;
  const bitmap = await createImageBitmap(await answer.blob()), canvas = $("picture");
  canvas.width = bitmap.width;
  canvas.height = bitmap.height;
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
}

function drawTable() {
  $("result").hidden = !shown.table;
  if (!shown.table) return;
  if ($("goal").open && !$("goal").dataset.closed) { $("goal").open = false; $("goal").dataset.closed = "1"; }
  const { head, lines, busy, note } = shown.table, top = element("tr"), body = element("tbody"), whole = element("thead");
  top.append(...head.map((name) => element("th", name)));
  whole.append(top);
  body.append(...lines.map((line) => {
    const row = element("tr", "", line[0].startsWith("you") ? "you" : "");
    row.append(...line.map((cell) => element("td", cell)));
    return row;
  }));
  $("table").replaceChildren(whole, body);
  $("result-title").textContent = busy ? "The others play your episode…" : "You and the others, on the same episode";
  $("note").textContent = note;
}

// ---- controls ----

const part = {
  dial(given) {
    const slider = element("input");
    Object.assign(slider, { type: "range", min: 0, max: given.steps, step: "any" });
    slider.setAttribute("aria-label", given.name);
    slider.addEventListener("input", () => put(given.name, valueAt(given, slider.value / given.steps)));
    return [[slider], (now) => { if (document.activeElement !== slider || Math.abs(slider.value - now.share * now.steps) > 1e-6) slider.value = now.share * now.steps; }];
  },

  choice(given) {
    const labels = element("div", "", "labels"), buttons = given.labels.map((label, number) => {
      const button = element("button", label);
      button.type = "button";
      button.addEventListener("click", () => send("put", { name: given.name, value: number }));
      return button;
    });
    labels.append(...buttons);
    const pad = given.places ? element("canvas") : null;
    if (pad) pad.addEventListener("pointerdown", (event) => nearest(given.name, pointer(pad, event)));
    return [pad ? [labels, pad] : [labels], (now) => {
      buttons.forEach((button, number) => {
        button.setAttribute("aria-pressed", number === now.value);
        button.disabled = now.closed[number] || shown.over;
        button.hidden = Boolean(now.places) && !now.places[number];
      });
      if (pad) drawPlaces(pad, now);
    }];
  },

  place(given) {
    const pad = element("canvas");
    pad.setAttribute("role", "img");
    pad.addEventListener("pointerdown", (event) => { pad.setPointerCapture(event.pointerId); move(event); });
    pad.addEventListener("pointermove", (event) => { if (event.buttons) move(event); });
    const move = (event) => {
      const [right, down] = pointer(pad, event), share = [right, given.down ? down : 1 - down];
      put(given.name, share.map((at, axis) => given.low[axis] + at * (given.high[axis] - given.low[axis])));
    };
    return [[pad], (now) => { pad.setAttribute("aria-label", `${now.name}: ${now.told}`); drawPad(pad, now); }];
  },
};

function valueAt({ low, high, log }, share) {
  if (share <= 0) return low;
  if (share >= 1) return high;
  return log ? low * (high / low) ** share : low + share * (high - low);
}

function pointer(canvas, event) {
  const box = canvas.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height].map((at) => Math.min(1, Math.max(0, at)));
}

function nearest(name, [x, y]) {
  const now = shown.controls.find((one) => one.name === name);
  const apart = now.places.map((at, number) => (at && !now.closed[number] ? Math.hypot(at[0] - x, at[1] - y) : Infinity));
  const best = Math.min(...apart);
  if (best < 0.06) send("put", { name, value: apart.indexOf(best) });
}

let repaint = [];

function drawControls() {
  const names = JSON.stringify([shown.env, shown.seed, shown.controls.map((one) => [one.name, one.labels])]);
  if (names !== built) {
    built = names;
    $("goal").dataset.closed = "";
    $("goal").open = true;
    const made = shown.controls.map((given, index) => {
      const box = element("div", "", `part ${given.kind}`), line = element("p"), [nodes, paint] = part[given.kind](given), told = element("span"), meaning = element("p", given.meaning, "meaning");
      line.append(element("b", `${index < 9 ? index + 1 : ""} ${given.name}`), told);
      box.append(line, ...nodes, meaning);
      return [box, (now) => { told.textContent = now.told; paint(now); }];
    });
    $("controls").replaceChildren(...made.map(([box]) => box));
    repaint = made.map(([, paint]) => paint);
  }
  shown.controls.forEach((now, index) => {
    repaint[index](now);
    $("controls").children[index].classList.toggle("chosen", index === shown.chosen);
  });
}

function penOf(canvas) {
  const side = 320;
  canvas.width = canvas.height = side;
  const pen = canvas.getContext("2d");
  pen.font = "15px system-ui, 'DejaVu Sans', sans-serif";
  return [pen, side];
}

function drawPad(canvas, now) {
  const [pen, side] = penOf(canvas), wide = [0, 1].map((axis) => now.high[axis] - now.low[axis]);
  const at = ([x, y]) => [side * (x - now.low[0]) / wide[0], side * (now.down ? (y - now.low[1]) / wide[1] : (now.high[1] - y) / wide[1])];
  if (now.beneath) drawGrey(pen, now.beneath, side);
  else {
    pen.strokeStyle = "#2e3842";
    for (const share of [0, 0.25, 0.5, 0.75, 1]) { pen.beginPath(); pen.moveTo(share * side, 0); pen.lineTo(share * side, side); pen.moveTo(0, share * side); pen.lineTo(side, share * side); pen.stroke(); }
    pen.fillStyle = "#a9b6c2";
    pen.fillText(`${Number(wide[0].toPrecision(3))} ${now.unit} wide`, 6, side - 8);
  }
  for (const [name, place] of Object.entries(now.marks)) drawMark(pen, side, name, at(place));
  const [x, y] = at(now.value);
  pen.strokeStyle = "#f0b429";
  pen.lineWidth = 2;
  pen.beginPath(); pen.moveTo(x - 12, y); pen.lineTo(x + 12, y); pen.moveTo(x, y - 12); pen.lineTo(x, y + 12); pen.stroke();
}

// What lies outside of the pad is drawn at its edge, hollow.
function drawMark(pen, side, name, [x, y]) {
  const inside = x >= 0 && x <= side && y >= 0 && y <= side, px = Math.min(side - 6, Math.max(6, x)), py = Math.min(side - 6, Math.max(6, y));
  pen.strokeStyle = pen.fillStyle = name.startsWith("goal") ? "#1fae7c" : "#56b4e9";
  pen.lineWidth = 2;
  pen.beginPath();
  pen.arc(px, py, 5, 0, 7);
  if (inside) pen.fill(); else pen.stroke();
  pen.textAlign = px > side / 2 ? "right" : "left";
  pen.fillText(inside ? name : `${name}, beyond`, px + (px > side / 2 ? -9 : 9), name.startsWith("goal") ? Math.max(14, py - 6) : Math.min(side - 4, py + 16));
  pen.textAlign = "left";
}

function drawGrey(pen, { rows, columns, grey }, side) {
  const levels = atob(grey), pixels = new ImageData(columns, rows), small = new OffscreenCanvas(columns, rows);
  for (let i = 0; i < levels.length; i++) { const level = levels.charCodeAt(i); pixels.data.set([level, level, level, 255], 4 * i); }
  small.getContext("2d").putImageData(pixels, 0, 0);
  pen.imageSmoothingEnabled = false;
  pen.drawImage(small, 0, 0, side, side);
}

function drawPlaces(canvas, now) {
  const [pen, side] = penOf(canvas);
  pen.textAlign = "center";
  now.places.forEach((at, number) => {
    if (!at) return;
    const [x, y] = at.map((share) => side * share);
    pen.fillStyle = number === now.value ? "#f0b429" : now.closed[number] ? "#46525e" : "#56b4e9";
    pen.beginPath(); pen.arc(x, y, 6, 0, 7); pen.fill();
    pen.fillText(String(number), x, y < 24 ? y + 21 : y - 9);
  });
}

// ---- keys and buttons ----

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || !shown) return;
  const slider = event.target instanceof HTMLInputElement, button = event.target instanceof HTMLButtonElement;
  if ((slider && event.key.startsWith("Arrow")) || (button && event.key === "Enter")) return; // the browser's own
  const key = ARROWS[event.key] || (event.key.length === 1 && event.key !== " " ? event.key : null);
  if (!key) return;
  event.preventDefault();
  if (key === "q") { if (!shown.over) send("end", {}); } else send("press", { key });
});
$("do").addEventListener("click", () => send("press", { key: "\n" }));
$("truth").addEventListener("click", () => send("press", { key: "t" }));
$("end").addEventListener("click", () => send("end", {}));
$("again").addEventListener("click", () => send("again", {}));
setInterval(() => { if (shown && shown.table && shown.table.busy) queue = queue.then(() => ask("state")); }, POLL_MILLISECONDS);
queue = queue.then(() => ask("state"));
