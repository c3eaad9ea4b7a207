// Tables that sort and filter, and pages that follow the store. Without this script everything
// can still be read; it is the same on served pages and on exported ones.
"use strict";

const remembered = { sort: new Map(), filter: new Map(), status: null };

function start() {
  document.querySelectorAll("table.sortable").forEach(makeSortable);
  document.querySelectorAll("input[data-filter]").forEach(makeFilter);
  document.querySelectorAll("select[data-status-of]").forEach(makeStatusFilter);
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
  input.value = remembered.filter.get(input.dataset.filter) ?? input.value;
  input.addEventListener("input", () => {
    remembered.filter.set(input.dataset.filter, input.value);
    applyFilters(input.dataset.filter);
  });
  if (input.value) applyFilters(input.dataset.filter);
}

function applyFilters(id) {
  const rows = [...document.getElementById(id).tBodies[0].rows];
  const words = (remembered.filter.get(id) ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  const status = document.querySelector(`[data-status-of="${id}"]`)?.value;
  let shown = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    const wanted = !status || row.dataset.status === status;
    row.hidden = !wanted || !words.every((word) => text.includes(word));
    shown += row.hidden ? 0 : 1;
  }
  const told = document.querySelector(`[data-count="${id}"]`);
  if (told) told.textContent = shown === rows.length ? "" : `${shown} of ${rows.length}`;
}

function makeStatusFilter(select) {
  const asked = /^#status=(.+)$/.exec(location.hash);
  select.value = remembered.status ?? (asked ? asked[1] : "");
  const read = () => {
    remembered.status = select.value;
    applyFilters(select.dataset.statusOf);
  };
  select.addEventListener("change", read);
  if (select.value) read();
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
    if (document.body.dataset.follow && Date.now() - fetched > FOLLOW_MS) refresh();
  });
  news.addEventListener("changed", refresh);
}

start();
if (document.body.dataset.live === "yes") listen();
