// The sample browser: rows of prompts, a tile per variant, more rows as the reader scrolls; details on a click.
const ROWS_AT_ONCE = 40;
const TILE_SIDE = 96;
const VIEW_SIDE = 220;

function startBrowser(element, data) {
  const state = { chosen: new Set(data.variants.map((_, k) => k)), text: "", order: null, rows: [], shown: 0 };
  // Row of the prompt → sample of the variant.
  const samples = data.variants.map((variant) => {
    const found = new Map();
    variant.at.forEach((row, sample) => found.set(row, sample));
    return found;
  });
  const list = make("div", { className: "prompts", role: "list" });
  const more = make("div", { className: "sentinel" });
  const status = make("span", { className: "quiet", role: "status" });
  const captions = data.prompts.map((prompt) => prompt.text.toLowerCase());

  const search = make("input", { type: "search", autocomplete: "off" });
  const columns = [...new Set(data.variants.flatMap((variant) => Object.keys(variant.columns)))];
  const select = (label, options) => make("select", { "aria-label": label }, ...options.map(([value, text]) => make("option", { value }, text)));
  const direction = select("Order", [["", "as in the suite"], ["high", "highest first"], ["low", "lowest first"]]);
  const column = select("Order by", columns.map((name) => [name, name]));
  const whose = select("Order by that of", data.variants.map((variant, k) => [String(k), variant.name]));
  if (columns.length > 1) column.value = columns.find((name) => name !== "energy");
  whose.value = String(data.variants.length - 1);
  const choices = make("fieldset", {}, make("legend", { className: "quiet" }, "Variants"));
  data.variants.forEach((variant, k) => {
    const box = make("input", { type: "checkbox", checked: true });
    box.addEventListener("change", () => { box.checked ? state.chosen.add(k) : state.chosen.delete(k); arrange(); });
    choices.append(make("label", {}, box, " " + variant.name));
  });
  element.append(
    make("div", { className: "tools" }, make("label", {}, "Caption contains ", search), 
      make("label", {}, "Order ", direction), make("label", {}, "by ", column), make("label", {}, "of ", whose), status),
    choices, list, more);

  function arrange() {
    const words = state.text.toLowerCase().split(/\s+/).filter(Boolean);
    let rows = data.prompts.map((_, row) => row).filter((row) => words.every((word) => captions[row].includes(word)));
    if (state.order) {
      const { k, name, descending } = state.order;
      const value = (row) => { const s = samples[k].get(row), c = data.variants[k].columns[name]; return s === undefined || !c ? null : c[s]; };
      rows = rows.filter((row) => value(row) !== null);
      rows.sort((a, b) => (descending ? value(b) - value(a) : value(a) - value(b)) || a - b);
    }
    state.rows = rows;
    state.shown = 0;
    list.replaceChildren();
    status.textContent = `${rows.length} of ${data.prompts.length} prompts`;
    addRows();
  }

  function addRows() {
    const next = state.rows.slice(state.shown, state.shown + ROWS_AT_ONCE);
    list.append(...next.map(rowElement));
    state.shown += next.length;
    if (next.length && more.getBoundingClientRect().top < innerHeight + 600) requestAnimationFrame(addRows);
  }

  function worth(k, sample) {
    const variant = data.variants[k];
    if (!state.order || !variant.columns[state.order.name]) return "";
    const value = variant.columns[state.order.name][sample];
    return `${state.order.name} ${value === null ? "not finite" : value}`;
  }

  function rowElement(row) {
    const prompt = data.prompts[row];
    const tiles = make("div", { className: "tiles" });
    for (const k of [...state.chosen].sort((a, b) => a - b)) {
      const variant = data.variants[k], sample = samples[k].get(row);
      if (sample === undefined) continue;
      const failed = variant.failed && variant.failed[sample] >= 0;
      const tile = make("button", { type: "button", className: "tile", "aria-label": `${variant.name}: ${prompt.text}${failed ? ", failed" : ""}` });
      const shown = make("span", { className: "picture" });
      showTile(shown, variant.images, sample, TILE_SIDE);
      tile.append(shown, make("span", {}, variant.name), make("span", { className: "worth" }, failed ? "failed" : worth(k, sample)));
      tile.addEventListener("click", () => openSample(row));
      tiles.append(tile);
    }
    const text = make("div", { className: "text" }, prompt.text);
    if (prompt.k) text.append(make("div", { className: "quiet" }, `replicate ${prompt.k + 1}`));
    return make("div", { className: "prompt", role: "listitem" }, text, tiles);
  }

  // --- one prompt in detail
  const dialog = document.getElementById("sample");

  function openSample(row) {
    const prompt = data.prompts[row], place = state.rows.indexOf(row);
    const step = (by) => { const next = state.rows[place + by]; if (next !== undefined) openSample(next); };
    const bar = make("div", { className: "bar" });
    for (const [text, action, off] of [["← Previous", () => step(-1), place <= 0], ["Next →", () => step(1), place >= state.rows.length - 1], ["Close", () => dialog.close(), false]]) {
      const button = make("button", { type: "button", disabled: off }, text);
      button.addEventListener("click", action);
      bar.append(button);
    }
    const views = make("div", { className: "views" });
    for (const k of [...state.chosen].sort((a, b) => a - b)) {
      const sample = samples[k].get(row);
      if (sample !== undefined) views.append(view(data.variants[k], sample, prompt));
    }
    const title = make("h4", { id: "sample-title" }, prompt.text);
    dialog.replaceChildren(make("header", {}, title, bar), make("p", { className: "quiet" }, `${prompt.id}, replicate ${prompt.k + 1}`), views);
    dialog.onkeydown = (event) => {
      if (event.key === "ArrowLeft") step(-1);
      if (event.key === "ArrowRight") step(1);
    };
    if (!dialog.open) dialog.showModal();
    bar.lastChild.focus();
  }

  function view(variant, sample, prompt) {
    const part = make("section", {}, make("h5", {}, variant.name));
    const side = Math.min(VIEW_SIDE, Math.max(variant.images.width, 192));
    part.append(picture(variant.images, sample, side, `${variant.name}: ${prompt.text}`));
    if (variant.full) {
      const name = String(sample).padStart(6, "0") + ".png";
      part.append(make("p", {}, make("a", { href: `${variant.full}/${name}` }, "Full size")));
    }
    const strip = variant.trajectory;
    if (strip && strip.images && (sample + 1) * strip.steps.length <= strip.images.num) {
      const shown = make("div", { className: "strip", role: "group", "aria-label": "Along the refinement" });
      strip.steps.forEach((step, j) => {
        const image = picture(strip.images, sample * strip.steps.length + j, 56, `after ${step} steps`);
        shown.append(make("figure", {}, image, make("div", {}, `${step}`)));
      });
      part.append(make("div", { className: "quiet" }, "Refinement, by steps"), shown);
    }
    const near = variant.nearest;
    if (near && near.at[sample] >= 0 && data.real.images) {
      const id = data.real.ids[near.at[sample]];
      part.append(
        make("div", { className: "quiet" }, `Nearest of ${near.of} real images, by ${near.judge}`),
        picture(data.real.images, near.at[sample], 96, `nearest real image, ${id}`),
        make("div", { className: "quiet" }, `${id}, distance ${near.distance[sample]}`));
    }
    const values = make("dl", { className: "values" });
    for (const [name, column] of Object.entries(variant.columns)) {
      const value = column[sample];
      values.append(make("div", {}, make("dt", {}, name), make("dd", {}, value === null ? "not finite" : String(value))));
    }
    part.append(values);
    return part;
  }

  let waiting = 0;
  search.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { state.text = search.value; arrange(); }, 120);
  });
  const reorder = () => {
    state.order = direction.value && { k: Number(whose.value), name: column.value, descending: direction.value === "high" };
    column.disabled = whose.disabled = !state.order;
    arrange();
  };
  for (const part of [direction, column, whose]) part.addEventListener("change", reorder);
  new IntersectionObserver((entries) => { if (entries.some((entry) => entry.isIntersecting)) addRows(); }, { rootMargin: "800px" }).observe(more);
  reorder();
}

for (const [id, data] of Object.entries(report.browsers)) {
  const element = document.getElementById(id);
  whenNear(element, () => startBrowser(element, data));
}
