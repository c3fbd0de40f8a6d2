// The page's state: what is chosen, and what follows from it.

const FACETS = [["run", "run"], ["place", "device"], ["scope", "scope"], ["problem", "problem"], ["shape", "shape"], ["phase", "phase"], ["dtype", "dtype"]];

function facet(setting, name) {
  return name === "place" ? `${setting.place} · ${setting.values.machine}` : name in setting ? setting[name] : setting.values[name];
}

/** The setting with this value of a facet that keeps the most of the others, the first among equals. */
function nearest(settings, current, name, value) {
  const kept = (setting) => FACETS.filter(([other]) => facet(setting, other) === facet(settings[current], other)).length;
  const fitting = settings.map((setting, at) => [setting, at]).filter(([setting]) => facet(setting, name) === value);
  return fitting.reduce((best, pair) => (best && kept(best[0]) >= kept(pair[0]) ? best : pair), null)[1];
}

function layChoice(data, state, changed) {
  const { settings } = data.about;
  const form = document.getElementById("choice");
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  const fields = [];
  const add = (name, title, options, current, choose, broad) => {
    const items = options.map(([value, text]) => make("option", { value, selected: value === current }, text));
    const select = make("select", { name, onchange: (event) => { choose(event.target.value); fill(name); changed(); } }, ...items);
    fields.push(make("label", { class: broad ? "broad" : "" }, title, select));
  };
  function fill(focused) {
    const setting = settings[state.setting];
    fields.length = 0;
    for (const [name, title] of FACETS) {
      const values = [...new Set(settings.map((one) => facet(one, name)))];
      if (values.length > 1) {
        add(name, title, values.map((value) => [value, value]), facet(setting, name), (value) => { state.setting = nearest(settings, state.setting, name, value); settle(data, state); }, ["run", "place", "shape"].includes(name));
      }
    }
    add("n", "n (tokens)", setting.n.map((n) => [String(n), tokens(n)]), String(state.n), (value) => { state.n = Number(value); });
    if (setting.m.length) add("m", "m", [["all", "every m"], ...setting.m.map((m) => [String(m), String(m)])], state.m, (value) => { state.m = value; });
    add("among", "answer among", [["all", "all variants"], ["exact", "exact variants"]], state.among, (value) => { state.among = value; });
    form.replaceChildren(...fields);
    if (focused) form.elements[focused]?.focus();
  }
  fill();
  return fill;
}

function layChips(data, state, changed) {
  const place = document.getElementById("chips");
  const fill = () => {
    const drawn = new Set();
    for (const row of data.rows(state.setting)) if (data.cell("status", row) === "ok") drawn.add(data.cell("series", row));
    const chips = data.about.series.filter((look) => drawn.has(look.series)).map((look) => make("button", {
      type: "button", "aria-pressed": String(!state.hidden.has(look.series)),
      onclick: (event) => {
        if (!state.hidden.delete(look.series)) state.hidden.add(look.series);
        event.currentTarget.setAttribute("aria-pressed", String(!state.hidden.has(look.series)));
        changed();
      },
    }, swatch(look, state.theme), look.series));
    const strokes = Object.entries(data.about.sizes).filter(([m]) => data.about.settings[state.setting].m.includes(Number(m))).map(([m, { dash, width }]) => {
      const stroke = { x1: 0, x2: 34, y1: 5, y2: 5, stroke: "currentColor", "stroke-width": width + 0.4 };
      if (dash !== "solid") stroke["stroke-dasharray"] = dash.replaceAll("px", "");
      return make("span", { class: "dash" }, draw("svg", { class: "stroke", viewBox: "0 0 34 10", "aria-hidden": "true" }, draw("line", stroke)), `m=${m}`);
    });
    place.replaceChildren(...chips, ...strokes);
  };
  fill();
  return fill;
}

const DARK = window.matchMedia("(prefers-color-scheme: dark)");

function themeNow() {
  return document.documentElement.dataset.theme || (DARK.matches ? "dark" : "light");
}

async function start() {
  const data = await loadData();
  const { first } = data.about;
  const state = first.setting === undefined ? null : { setting: first.setting, n: first.n, m: first.m, among: "all", hidden: new Set(), theme: themeNow() };
  const table = layTable(data, () => writeAddress(data, state, table));
  takeAddress(data, state, table);
  if (!state) {
    window.addEventListener("hashchange", () => takeAddress(data, state, table));
    document.documentElement.dataset.ready = "true";
    return;
  }
  let version = 0;
  const drawAll = async () => {
    const mine = ++version;
    document.documentElement.dataset.ready = "";
    const view = viewOf(data, state);
    for (const chart of CHARTS) {
      await new Promise((resolve) => setTimeout(resolve));
      if (mine !== version) return;
      await drawChart(chart, view);
    }
    performance.mark("drawn");
    document.documentElement.dataset.ready = "true";
  };
  const chips = () => refill();
  const shown = () => { showAnswer(data, state); chips(); drawAll(); };
  const changed = () => { writeAddress(data, state, table); shown(); };
  showAnswer(data, state);
  const choose = layChoice(data, state, changed);
  const refill = layChips(data, state, () => { writeAddress(data, state, table); drawAll(); });
  window.addEventListener("hashchange", () => { takeAddress(data, state, table); choose(); shown(); });
  layCharts((chart) => drawChart(chart, viewOf(data, state)));
  const themed = () => { state.theme = themeNow(); shown(); };
  document.getElementById("theme").addEventListener("click", () => { document.documentElement.dataset.theme = themeNow() === "dark" ? "light" : "dark"; themed(); });
  DARK.addEventListener("change", themed);
  let wide = document.documentElement.clientWidth >= 700;
  window.addEventListener("resize", () => {
    if (wide !== document.documentElement.clientWidth >= 700) { wide = !wide; drawAll(); }
  });
  await new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve)));
  await loadPlotly();
  await drawAll();
}

start().catch((error) => {
  const place = document.getElementById("trouble");
  place.hidden = false;
  place.textContent = `This page could not draw itself: ${error.message}. It needs a browser of 2024 or newer; the answer above and the tables below stand.`;
  document.documentElement.dataset.ready = "failed";
  console.error(error);
});
