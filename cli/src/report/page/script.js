"use strict";
// What the page shows without this stays; this filters, orders, and reads the curves.
(() => {
  const all = (root, what) => [...root.querySelectorAll(what)];
  const page = document.documentElement;
  page.classList.add("scripted");

  // Lists: the controls of a section decide which of its items are shown, and the address keeps what they say.
  const sections = all(document, "[data-browse]").map((section) => {
    const items = all(section, "[data-item]");
    const place = items.length ? items[0].parentNode : null;
    const fields = all(section, ".controls select, .controls input");
    const name = (field) => {
      const data = field.dataset;
      if ("search" in data) return "containing";
      if ("verdict" in data) return "verdict";
      if ("sort" in data) return "order";
      return data.filter || (data.from && data.from + "-from") || data.to + "-to";
    };
    const fits = (item, field) => {
      const wanted = field.value.trim(), data = field.dataset;
      if (!wanted || "sort" in data) return true;
      if ("search" in data) return item.textContent.toLowerCase().includes(wanted.toLowerCase());
      if ("verdict" in data) return all(item, ".verdict").some((verdict) => verdict.textContent === wanted);
      if (data.from) return Number(item.dataset[data.from]) >= Number(wanted);
      if (data.to) return Number(item.dataset[data.to]) <= Number(wanted);
      return item.dataset[data.filter] === wanted;
    };
    const order = (by) => {
      const sign = by.startsWith("-") ? -1 : 1, key = by.replace("-", "");
      const value = (item) => Number(item.dataset[key]);
      return by ? [...items].sort((one, other) => sign * (value(one) - value(other))) : items;
    };
    const apply = () => {
      let shown = 0;
      for (const item of items) {
        item.hidden = !fields.every((field) => fits(item, field));
        shown += item.hidden ? 0 : 1;
      }
      const sort = fields.find((field) => "sort" in field.dataset);
      if (sort && place) place.append(...order(sort.value));
      for (const count of all(section, "[data-shown]")) count.textContent = shown;
      section.dataset.shown = shown;
    };
    const remember = () => {
      const said = new URLSearchParams(fields.filter((f) => f.value).map((f) => [name(f), f.value]));
      history.replaceState(null, "", "#" + section.id + (said.size ? "?" + said : ""));
    };
    const recall = (said) => {
      for (const field of fields) {
        field.value = said.get(name(field)) || "";
        if (field.value !== (said.get(name(field)) || "")) field.value = "";
      }
      apply();
    };
    for (const field of fields) {
      field.addEventListener("input", () => { apply(); remember(); });
    }
    for (const controls of all(section, ".controls")) controls.hidden = false;
    apply();
    return { section, recall };
  });
  const follow = () => {
    const [id, said] = location.hash.slice(1).split("?");
    const found = sections.find(({ section }) => section.id === id);
    if (!found || said === undefined) return;
    found.recall(new URLSearchParams(said));
    found.section.scrollIntoView();
  };
  window.addEventListener("hashchange", follow);
  follow();

  // Curves: a step that is pointed at in one is read in all, out of the table of numbers.
  const rows = all(document, "#numbers tbody tr");
  const figures = all(document, "figure.chart");
  const read = (at, hovered) => {
    const row = rows[at];
    for (const figure of figures) {
      const svg = figure.querySelector("svg"), data = svg.dataset;
      const span = Number(data.last) - Number(data.first), width = Number(data.right) - Number(data.left);
      const x = Number(data.left) + (Number(row.dataset.step) - Number(data.first)) / span * width;
      const cursor = svg.querySelector(".cursor");
      cursor.setAttribute("d", cursor.getAttribute("d").replace(/^M[\d.]+/, "M" + x.toFixed(1)));
      figure.classList.toggle("hovered", hovered);
      for (const value of all(figure, "[data-column]")) {
        value.textContent = row.cells[Number(value.dataset.column)].textContent;
      }
      figure.querySelector("[data-at]").textContent = row.cells[0].textContent;
    }
    for (const other of all(document, "#numbers tr.current")) other.classList.remove("current");
    row.classList.toggle("current", hovered);
  };
  let current = rows.length - 1;
  const nearest = (step) => {
    const far = (row) => Math.abs(Number(row.dataset.step) - step);
    return rows.reduce((best, row, at) => (far(row) < far(rows[best]) ? at : best), 0);
  };
  for (const figure of rows.length ? figures : []) {
    const svg = figure.querySelector("svg");
    svg.tabIndex = 0;
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect(), data = svg.dataset;
      const x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
      const share = (x - Number(data.left)) / (Number(data.right) - Number(data.left));
      current = nearest(Number(data.first) + share * (Number(data.last) - Number(data.first)));
      read(current, true);
    });
    const leave = () => { current = rows.length - 1; read(current, false); };
    svg.addEventListener("pointerleave", leave);
    svg.addEventListener("blur", leave);
    svg.addEventListener("keydown", (event) => {
      const to = { ArrowLeft: current - 1, ArrowRight: current + 1, Home: 0, End: rows.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      current = Math.max(0, Math.min(rows.length - 1, to));
      read(current, true);
    });
  }
  page.dataset.ready = String(sections.length);
})();
