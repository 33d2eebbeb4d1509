"use strict";
// One stream at a time: each picture is acknowledged when it is drawn, so a slow device gets fewer of them.
const element = (id) => document.getElementById(id);
const canvas = element("picture"), context = canvas.getContext("2d");
let name = null, socket = null, paused = false, pair = null, retry = 500;

function draw() {
  if (!pair) return;
  const [before, after] = pair;
  if (canvas.width !== after.width || canvas.height !== after.height) {
    canvas.width = after.width;
    canvas.height = after.height;
    // As wide as the picture, so that the divider is where the pointer is; no higher than the window.
    element("stage").style.maxWidth = `calc(78vh * ${after.width / after.height})`;
  }
  const place = Math.round(canvas.width * element("divider").value / 1000);
  context.drawImage(after, 0, 0);
  if (place > 0) context.drawImage(before, 0, 0, place, before.height, 0, 0, place, canvas.height);
  context.fillStyle = "#fff";
  context.fillRect(place - 1, 0, Math.max(2, canvas.width / 500), canvas.height);
}

function figures(report) {
  const dropped = Object.entries(report.dropped).map(([cause, count]) => `${count} ${cause}`).join(", ") || "none";
  const rows = {
    "state": report.state + (report.gated ? ", dry: passed" : ""),
    "frames a second": report.rate.toFixed(1),
    "age": `${(1000 * report.age_p50).toFixed(0)} ms, p99 ${(1000 * report.age_p99).toFixed(0)} ms`,
    "size": report.size ? report.size.join(" x ") : "",
    "delivered": report.delivered,
    "dropped": dropped,
    "reconnections": report.reconnections,
    "last trouble": report.reason || "none",
  };
  element("figures").replaceChildren(...Object.entries(rows).map(([key, value]) => {
    const row = document.createElement("div"), title = document.createElement("dt"), data = document.createElement("dd");
    title.textContent = key;
    data.textContent = value;
    row.append(title, data);
    return row;
  }));
  element("rain").value = report.rain ?? 0;
  element("rain-text").textContent = report.rain === null ? "rain not measured" : `rain ${report.rain.toFixed(2)}`;
}

async function receive(event, from) {
  const view = new DataView(event.data), lengths = [0, 4, 8].map((at) => view.getUint32(at, true));
  const starts = [12, 12 + lengths[0], 12 + lengths[0] + lengths[1]];
  const part = (at) => event.data.slice(starts[at], starts[at] + lengths[at]);
  const report = JSON.parse(new TextDecoder().decode(part(0)));
  const pictures = await Promise.all([1, 2].map((at) => createImageBitmap(new Blob([part(at)], { type: "image/jpeg" }))));
  if (from !== socket) return;
  if (!paused) {
    if (pair) pair.forEach((bitmap) => bitmap.close());
    pair = pictures;
    element("note").textContent = "";
    canvas.dataset.frame = report.frame;
    draw();
  } else pictures.forEach((bitmap) => bitmap.close());
  figures(report);
  from.send("shown");
}

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const mine = new WebSocket(`${scheme}://${location.host}/api/streams/${encodeURIComponent(name)}/live`);
  mine.binaryType = "arraybuffer";
  mine.onopen = () => { retry = 500; };
  mine.onmessage = (event) => receive(event, mine);
  mine.onclose = () => {
    if (mine !== socket) return;
    element("note").textContent = "The connection was lost; trying again";
    setTimeout(() => { if (mine === socket) connect(); }, retry);
    retry = Math.min(8000, retry * 2);
  };
  socket = mine;
}

function choose(wanted) {
  name = wanted;
  const old = socket;
  socket = null;
  if (old) old.close();
  for (const tab of element("streams").children) tab.setAttribute("aria-selected", tab.dataset.name === name);
  element("snapshot").href = `/api/streams/${encodeURIComponent(name)}/after.jpg`;
  element("note").textContent = "Waiting for a picture";
  connect();
}

async function start() {
  const streams = await (await fetch("/api/streams")).json();
  element("streams").replaceChildren(...streams.map((stream) => {
    const tab = document.createElement("button");
    tab.type = "button";
    tab.role = "tab";
    tab.dataset.name = tab.textContent = stream.name;
    tab.onclick = () => choose(stream.name);
    return tab;
  }));
  choose(streams[0].name);
}

element("divider").oninput = draw;
element("pause").onclick = () => {
  paused = !paused;
  element("pause").textContent = paused ? "Go on" : "Pause";
};
// While it runs, the link gives the newest result in full size; a paused picture is kept as it is seen.
element("snapshot").onclick = (event) => {
  if (!paused || !pair) return;
  event.preventDefault();
  const still = document.createElement("canvas");
  still.width = pair[1].width;
  still.height = pair[1].height;
  still.getContext("2d").drawImage(pair[1], 0, 0);
  still.toBlob((blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${name}-${canvas.dataset.frame}.jpg`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }, "image/jpeg", 0.95);
};
start().catch(() => { element("note").textContent = "The preview does not answer"; });
