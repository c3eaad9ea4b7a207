// Tables that sort and filter, charts that can be read off, and pages that follow the store.
// Without this script everything can still be read; it is the same on served pages and on exported
// ones.
"use strict";

const remembered = { sort: new Map(), words: new Map(), pick: new Map(), hidden: new Set(), pair: [] };

function start() {
  document.querySelectorAll("table.sortable").forEach(makeSortable);
  document.querySelectorAll("select[data-pick]").forEach(makePick);
  document.querySelectorAll("input[data-filter]").forEach(makeFilter);
  document.querySelectorAll("figure.chart").forEach(makeReadable);
  document.querySelectorAll("table[data-compare]").forEach(makeComparable);
}

// --- sorting -----------------------------------------------------------------------------------

function makeSortable(table, position) {
  const key = table.id || `table ${position}`;
  table.querySelectorAll("thead th:not([data-unsorted])").forEach((head) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const falling = head.getAttribute("aria-sort") === "ascending";
      remembered.sort.set(key, { column: head.cellIndex, falling });
      sort(table, head.cellIndex, falling);
    });
  });
  const last = remembered.sort.get(key);
  if (last) sort(table, last.column, last.falling);
}

function sort(table, column, falling) {
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [valueOf(row.cells[column]), row]);
  rows.sort(([a], [b]) => compare(a, b, falling));
  body.append(...rows.map(([, row]) => row));
  table.querySelectorAll("thead th").forEach((head) => head.removeAttribute("aria-sort"));
  const head = table.tHead.rows[0].cells[column];
  head.setAttribute("aria-sort", falling ? "descending" : "ascending");
}

function valueOf(cell) {
  const text = (cell.dataset.value ?? cell.textContent).trim().replace("−", "-");
  const number = parseFloat(text);
  return Number.isNaN(number) ? text : number;
}

// Numbers before words; an empty cell is last whichever way.
function compare(a, b, falling) {
  if (a === "" || b === "") return (a === "") - (b === "");
  const sign = falling ? -1 : 1;
  if (typeof a !== typeof b) return sign * (typeof a === "number" ? -1 : 1);
  return sign * (typeof a === "number" ? a - b : a.localeCompare(b));
}

// --- filters -----------------------------------------------------------------------------------

function makeFilter(input) {
  const id = input.dataset.filter;
  input.value = remembered.words.get(id) ?? input.value;
  input.addEventListener("input", () => {
    remembered.words.set(id, input.value);
    applyFilters(id);
  });
  if (input.value) applyFilters(id);
}

// A choice stands in the address, so that it can be linked to and kept.
function makePick(select) {
  const { pick: id, key } = select.dataset;
  const asked = new URLSearchParams(location.hash.slice(1)).get(key);
  select.value = remembered.pick.get(`${id} ${key}`) ?? asked ?? "";
  select.addEventListener("change", () => {
    remembered.pick.set(`${id} ${key}`, select.value);
    const chosen = [...document.querySelectorAll(`[data-pick="${id}"]`)].filter((s) => s.value);
    const parts = chosen.map((s) => [s.dataset.key, s.value]);
    history.replaceState(null, "", `#${new URLSearchParams(parts)}`);
    applyFilters(id);
  });
  if (select.value) applyFilters(id);
}

function applyFilters(id) {
  const rows = [...document.getElementById(id).tBodies[0].rows];
  const words = (remembered.words.get(id) ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  const picks = [...document.querySelectorAll(`[data-pick="${id}"]`)].filter((s) => s.value);
  let shown = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    const wanted = picks.every((select) => row.dataset[select.dataset.key] === select.value);
    row.hidden = !wanted || !words.every((word) => text.includes(word));
    shown += row.hidden ? 0 : 1;
  }
  const told = document.querySelector(`[data-count="${id}"]`);
  if (told) told.textContent = shown === rows.length ? "" : `${shown} of ${rows.length}`;
}

// --- charts ------------------------------------------------------------------------------------

// The value of each curve under the pointer, and curves that a click on their name hides.
function makeReadable(figure) {
  const svg = figure.querySelector("svg");
  const entries = [...figure.querySelectorAll(".legend li")];
  entries.forEach((entry, k) => makeSwitch(figure, entry, k));
  const curves = [...svg.querySelectorAll("path.line")].map((line, k) => {
    const numbers = line.getAttribute("d").match(/-?[\d.]+/g).map(Number);
    const points = Array.from({ length: numbers.length / 2 }, (_, i) => numbers.slice(2 * i, 2 * i + 2));
    return { points, told: entries[k].querySelector(".value") };
  });
  if (curves.length) makeReadout(svg, curves);
}

function makeReadout(svg, curves) {
  const [cursor, at] = [svg.querySelector(".cursor"), svg.querySelector(".at")];
  const [x, y] = [axis(svg.dataset.x), axis(svg.dataset.y)];
  const isInSteps = ["step", "samples"].includes(svg.dataset.xLabel); // drawn to a tenth of a pixel
  svg.addEventListener("pointermove", (event) => {
    const pointer = new DOMPoint(event.clientX, event.clientY);
    const place = pointer.matrixTransform(svg.getScreenCTM().inverse()).x;
    const nearest = curves.map(({ points }) => closest(points, place));
    const [column] = closest(nearest, place);
    cursor.removeAttribute("visibility");
    for (const end of ["x1", "x2"]) cursor.setAttribute(end, column);
    at.setAttribute("x", column);
    at.textContent = short(isInSteps ? Math.round(x(column)) : x(column));
    curves.forEach(({ told }, k) => (told.textContent = short(y(nearest[k][1]))));
  });
  svg.addEventListener("pointerleave", () => {
    cursor.setAttribute("visibility", "hidden");
    at.textContent = "";
    for (const { told } of curves) told.textContent = "";
  });
}

// From pixels back to values.
function axis(text) {
  const [low, high, start, end] = text.split(" ").map(Number);
  return (pixel) => low + ((pixel - start) / (end - start)) * (high - low);
}

function closest(points, x) {
  return points.reduce((best, p) => (Math.abs(p[0] - x) < Math.abs(best[0] - x) ? p : best));
}

function short(value) {
  return String(parseFloat(value.toPrecision(4))).replace("-", "−");
}

function makeSwitch(figure, entry, k) {
  const key = `${figure.id} ${k}`;
  const button = document.createElement("button");
  button.type = "button";
  button.append(...entry.childNodes);
  entry.append(button);
  const show = () => {
    const off = remembered.hidden.has(key);
    button.setAttribute("aria-pressed", String(!off));
    figure.querySelectorAll(`[data-line="${k}"]`).forEach((part) => part.classList.toggle("off", off));
  };
  button.addEventListener("click", () => {
    if (!remembered.hidden.delete(key)) remembered.hidden.add(key);
    show();
  });
  show();
}

// --- two runs -----------------------------------------------------------------------------------

// A box before each complete run; of those that are ticked, the last two can be compared.
function makeComparable(table) {
  const place = document.getElementById("compare");
  const boxes = [...table.querySelectorAll("tr[data-run]")].map((row) => {
    const box = document.createElement("input");
    box.type = "checkbox";
    box.setAttribute("aria-label", `compare ${row.cells[0].textContent}`);
    row.cells[0].prepend(box);
    box.addEventListener("change", () => {
      const others = remembered.pair.filter((id) => id !== row.dataset.run);
      remembered.pair = box.checked ? [...others.slice(-1), row.dataset.run] : others;
      show();
    });
    return [box, row.dataset.run];
  });
  const show = () => {
    for (const [box, id] of boxes) box.checked = remembered.pair.includes(id);
    const link = document.createElement("a");
    link.href = `${table.dataset.compare}${remembered.pair.join("-")}.html`;
    link.textContent = "compare these two";
    place.replaceChildren(remembered.pair.length === 2 ? link : "tick two runs to compare them");
  };
  show();
}

// --- live --------------------------------------------------------------------------------------

const FOLLOW_MS = 3000; // a page of a running run fetches itself this often at most
let fetched = 0;

async function refresh() {
  fetched = Date.now();
  const answer = await fetch(location.href, { cache: "no-store" });
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  const open = [...document.querySelectorAll("#page details")].map((part) => part.open);
  const focused = document.activeElement?.dataset?.filter;
  document.getElementById("page").replaceWith(fresh.getElementById("page"));
  document.querySelectorAll("#page details").forEach((part, i) => (part.open = open[i] ?? false));
  if (fresh.body.dataset.follow) document.body.dataset.follow = "yes";
  else delete document.body.dataset.follow;
  start();
  if (focused) document.querySelector(`input[data-filter="${focused}"]`)?.focus();
}

// Where the page says how long something still takes, it says so as of now.
function tellTimeLeft() {
  document.querySelectorAll("#page [data-left]").forEach((place) => {
    const fresh = document.querySelector(`#running [data-of="${CSS.escape(place.dataset.left)}"]`);
    if (fresh) place.textContent = fresh.textContent;
  });
  document.querySelectorAll("#page [data-cell-of]").forEach((place) => {
    const fresh = document.querySelector(`#running [data-of="${CSS.escape(place.dataset.cellOf)}"]`);
    if (fresh) place.textContent = fresh.dataset.cell;
  });
}

function listen() {
  const told = document.getElementById("connection");
  const news = new EventSource("/events");
  let missed = false;
  news.onopen = () => {
    told.textContent = "live";
    if (missed) refresh();
    missed = false;
  };
  news.onerror = () => {
    told.textContent = "not connected";
    missed = true;
  };
  news.addEventListener("running", (event) => {
    document.getElementById("running").innerHTML = JSON.parse(event.data);
    tellTimeLeft();
    if (document.body.dataset.follow && Date.now() - fetched > FOLLOW_MS) refresh();
  });
  news.addEventListener("changed", refresh);
}

start();
if (document.body.dataset.live === "yes") listen();
