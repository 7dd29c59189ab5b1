// Tables: sorting by a column's button, filtering rows, more columns, one breakdown at a time.
function sortValue(row, column) {
  const cell = row.cells[column];
  if (cell.dataset.value === undefined) return cell.textContent.trim() || null;
  const value = Number(cell.dataset.value);
  return Number.isFinite(value) ? value : null;
}

function sortTable(table, head) {
  const ascending = head.getAttribute("aria-sort") !== "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const rows = [...table.tBodies[0].rows].map((row) => [sortValue(row, head.cellIndex), row]);
  const empty = (value) => value === null;
  rows.sort(([a], [b]) => {
    if (empty(a) || empty(b)) return empty(a) - empty(b); // what has no value is last either way
    const order = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
    return ascending ? order : -order;
  });
  table.tBodies[0].append(...rows.map(([, row]) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const head of table.tHead.rows[0].cells) {
    head.querySelector("button").addEventListener("click", () => sortTable(table, head));
  }
}

for (const input of document.querySelectorAll("input[data-filter]")) {
  const table = document.getElementById(input.dataset.filter);
  const status = document.querySelector(`[data-count="${input.dataset.filter}"]`);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of table.tBodies[0].rows) {
      const text = (row.cells[0].textContent + " " + row.cells[1].textContent).toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    status.textContent = words.length ? `${shown} of ${table.tBodies[0].rows.length} rows` : "";
  });
}

for (const box of document.querySelectorAll("input[data-all]")) {
  const table = document.getElementById(box.dataset.all);
  box.addEventListener("change", () => table.classList.toggle("all", box.checked));
}

for (const select of document.querySelectorAll("select[data-cuts]")) {
  select.addEventListener("change", () => {
    for (const part of select.closest("figure").querySelectorAll("[data-cut]")) {
      part.hidden = part.dataset.cut !== `${select.dataset.cuts}-${select.value}`;
    }
  });
}
