"use strict";

// Tables are sorted by the column whose name is clicked, once more the other way round.
for (const button of document.querySelectorAll(".sortable thead button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement;
    const column = head.cellIndex;
    const body = head.closest("table").tBodies[0];
    const up = head.getAttribute("aria-sort") === "descending";
    for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const sign = up ? 1 : -1;
    const rows = [...body.rows].map((row) => [row, key(row.cells[column])]);
    rows.sort(([, a], [, b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * (typeof a === typeof b ? compare(a, b) : typeof a === "number" ? -1 : 1);
    });
    body.append(...rows.map(([row]) => row));
  });
}

function key(cell) {
  if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
  return cell.textContent === "–" ? null : cell.textContent;
}

function compare(a, b) {
  return typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true });
}

// Wrong answers: every choice must hold, and all words must be there.
for (const form of document.querySelectorAll(".filters")) {
  const rows = [...form.parentElement.querySelector("tbody").rows];
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    const wanted = [...form.querySelectorAll("select")].filter((select) => select.value);
    const words = form.elements.words.value.toLowerCase().split(/\s+/);
    let shown = 0;
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const holds = wanted.every((select) => row.dataset[select.name] === select.value);
      row.hidden = !(holds && words.every((word) => text.includes(word)));
      shown += !row.hidden;
    }
    form.querySelector("output").value = `${shown} of ${rows.length}`;
  });
}

// What is folded is printed too.
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const one of folded) one.open = true;
});
addEventListener("afterprint", () => folded.forEach((one) => (one.open = false)));

// Charts take the colour of the text, so that they can be read in light and dark.
const ink = "currentColor";
const config = {
  background: null,
  font: "system-ui, sans-serif",
  view: { stroke: null },
  axis: { labelColor: ink, titleColor: ink, domainColor: ink, tickColor: ink, gridColor: ink, gridOpacity: 0.15 },
  legend: { labelColor: ink, titleColor: ink, labelLimit: 220, symbolLimit: 0 },
};
const drawn = [...document.querySelectorAll(".plot")].map((place) => {
  const spec = JSON.parse(place.nextElementSibling.textContent);
  const narrow = place.clientWidth < 480;
  const columns = Math.max(1, Math.floor(place.clientWidth / 160));
  const whole = {
    width: "container",
    height: 260,
    ...spec,
    description: place.dataset.title,
    autosize: { type: "fit-x", contains: "padding" },
    config: { ...config, legend: { ...config.legend, ...(narrow ? { orient: "bottom", columns } : {}) } },
  };
  return vegaEmbed(place, whole, { mode: "vega-lite", renderer: "svg", actions: false }).catch((error) => {
    place.textContent = `This chart could not be drawn: ${error.message}`;
    console.error(error);
  });
});
Promise.all(drawn).then(() => document.body.setAttribute("data-drawn", drawn.length));
