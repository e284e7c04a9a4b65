"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Sorting: a button in each heading; numbers sort by data-v if present, else by their text; dashes come last.
  const valueOf = (row, column, numbers) => {
    const cell = row.cells[column];
    if (cell.dataset.v !== undefined) return Number(cell.dataset.v);
    const text = cell.textContent.trim(), number = numbers ? parseFloat(text) : NaN;
    return text === "–" ? null : Number.isNaN(number) ? text : number;
  };
  const compare = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), "en", {numeric: true});
  };
  const sortBy = (table, column, direction) => {
    const body = table.tBodies[0], numbers = table.tHead.rows[0].cells[column].classList.contains("num");
    const keyed = [...body.rows].map(row => [valueOf(row, column, numbers), row]);
    keyed.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return direction * compare(a, b);
    });
    body.append(...keyed.map(([, row]) => row));
  };
  for (const table of all(".scroll > table")) {
    [...table.tHead.rows[0].cells].forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...heading.childNodes);
      heading.append(button);
      button.addEventListener("click", () => {
        const down = heading.getAttribute("aria-sort") === "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        heading.setAttribute("aria-sort", down ? "descending" : "ascending");
        sortBy(table, column, down ? -1 : 1);
      });
    });
  }

  // Baselines are hidden by default.
  for (const box of all("input.baselines")) {
    const table = box.closest("label").nextElementSibling.querySelector("table");
    const show = () => table.classList.toggle("without-baselines", !box.checked);
    box.closest("label").hidden = false;
    box.addEventListener("change", show);
    show();
  }

  // Filter by model.
  const chosen = document.getElementById("model");
  if (chosen) {
    chosen.closest("label").hidden = false;
    for (const table of all(".scroll > table")) {
      if (table.tHead.rows[0].cells[0].textContent.trim() !== "model") continue;
      for (const row of table.tBodies[0].rows) row.dataset.model ??= row.cells[0].textContent.trim();
    }
    chosen.addEventListener("change", () => {
      for (const element of all("[data-model]")) {
      element.classList.toggle("other-model", chosen.value !== "" && element.dataset.model !== chosen.value);
      }
    });
  }

  // Tooltips, for pointer and keyboard.
  const tip = document.getElementById("tip");
  const hide = () => { tip.hidden = true; };
  // The common prefix of a series' tooltips is stored once, on the group.
  const tipText = target => (target.closest("[data-of]")?.dataset.of ?? "") + target.dataset.tip;
  const show = target => {
    tip.textContent = tipText(target);
    tip.hidden = false;
    const at = target.getBoundingClientRect(), box = tip.getBoundingClientRect();
    const left = Math.min(Math.max(8, at.left + at.width / 2 - box.width / 2), innerWidth - box.width - 8);
    const above = at.top - box.height - 8;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 8 ? above : at.bottom + 8}px`;
  };
  const follow = event => {
    const target = event.target.closest ? event.target.closest("[data-tip]") : null;
    if (target) show(target); else hide();
  };
  document.addEventListener("pointerover", follow);
  document.addEventListener("focusin", follow);
  document.addEventListener("focusout", hide);
  document.addEventListener("scroll", hide, {capture: true, passive: true});

  // Each chart is one tab stop; the arrow keys move between its points from left to right.
  for (const chart of all("svg[role=group]")) {
    const points = all(".point[tabindex]", chart)
      .map(point => [point.getBBox().x, point]).sort(([a], [b]) => a - b).map(([, point]) => point);
    for (const point of points) {
      point.setAttribute("role", "img");
      point.setAttribute("aria-label", tipText(point));
    }
    if (points.length) points[0].setAttribute("tabindex", "0");
    chart.addEventListener("keydown", event => {
      const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
      const next = points[points.indexOf(document.activeElement) + step];
      if (!step || !next) return;
      document.activeElement.setAttribute("tabindex", "-1");
      next.setAttribute("tabindex", "0");
      next.focus();
      event.preventDefault();
    });
  }
  document.addEventListener("keydown", event => { if (event.key === "Escape") hide(); });

  // Expand all collapsed parts before printing.
  addEventListener("beforeprint", () => { for (const details of all("details")) details.open = true; });
})();
