// What all charts share: their frame on the page, the view they draw, axes, looks and Plotly's settings.

const INKS = {
  light: { ink: "#1f2328", faint: "#5c6570", grid: "#e7eaee", panel: "#ffffff", empty: "#f1f3f5" },
  dark: { ink: "#e6edf3", faint: "#9aa4af", grid: "#2a313a", panel: "#161b22", empty: "#20262e" },
};
const CONFIG = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"] };
const FAILED = { oom: ["x-thin", "out of memory"], timeout: ["cross-thin", "timeout"], error: ["y-down-open", "error"] };

/** The charts of the page, in its order; each file adds its own: {id, title, build(view) → {data, layout, caption, none}}. */
const CHARTS = [];

/** What the charts draw now: the setting's rows by metric, and the look of each line. */
function viewOf(data, state) {
  const { about } = data;
  const setting = about.settings[state.setting];
  const byMetric = new Map();
  for (const row of data.rows(state.setting)) {
    const metric = data.cell("metric", row);
    if (!byMetric.has(metric)) byMetric.set(metric, []);
    byMetric.get(metric).push(row);
  }
  const order = new Map(about.series.map((look, at) => [look.series, at]));
  const inks = INKS[state.theme];
  const narrow = document.documentElement.clientWidth < 700;
  const shown = (row) => !state.hidden.has(data.cell("series", row));
  const chosen = (row) => shown(row) && (state.m === "all" || data.cell("m", row) === null || String(data.cell("m", row)) === state.m);
  const look = (series) => {
    const own = about.series[order.get(series)];
    return { color: own[state.theme], symbol: own.symbol };
  };
  const stroke = (m) => about.sizes[String(m)] || { dash: "solid", width: 1.7 };
  return { data, about, setting, state, byMetric, order, inks, narrow, shown, chosen, look, stroke };
}

/** Lines of rows: [{series, m, rows by rising n}], exact variants first, smaller m first. */
function linesOf(view, rows) {
  const { cell } = view.data;
  const found = new Map();
  for (const row of rows) {
    const key = JSON.stringify([cell("series", row), cell("m", row)]);
    if (!found.has(key)) found.set(key, { series: cell("series", row), m: cell("m", row), rows: [] });
    found.get(key).rows.push(row);
  }
  const lines = [...found.values()];
  for (const line of lines) line.rows.sort((a, b) => cell("n", a) - cell("n", b));
  return lines.sort((a, b) => view.order.get(a.series) - view.order.get(b.series) || (a.m ?? -1) - (b.m ?? -1));
}

function isGood(view, row, column = "value") {
  return view.data.cell("status", row) === "ok" && view.data.cell(column, row) > 0;
}

/** A scatter line in its variant's colour and mark and its m's dash, hollow where another backend ran; text only ever appears on hover. */
function lineTrace(view, line, x, y, hover, more = {}) {
  const { color, symbol } = view.look(line.series);
  const { dash, width } = view.stroke(line.m);
  const doubts = line.rows.map((row) => doubt(view.data.cell("note", row)));
  const others = line.rows.map((row) => view.data.cell("switched", row));
  const edge = { width: doubts.map((why) => (why ? 3 : 1.4)), color: doubts.map((why) => (why ? DOUBT : color)) };
  return {
    type: "scatter", mode: "lines+markers", name: plain(named(line.series, line.m)), x, y,
    hovertext: hover.map((text, at) => plain([text, others[at], doubts[at]].filter(Boolean).join("; "))),
    hoverinfo: "text", connectgaps: false, line: { color, dash, width },
    marker: { color, symbol: others.some(Boolean) ? others.map((why) => (why ? hollow(symbol) : symbol)) : symbol, size: 8, opacity: 1, line: edge }, ...more,
  };
}

/** A mark without its filling; with a dot in it where it has none anyway. */
function hollow(symbol) {
  const [, shape, filling] = symbol.match(/^(.*?)(-open-dot|-open|-dot)?$/);
  return filling === undefined ? `${shape}-open` : `${shape}-open-dot`;
}

/** `Hollow marks: another backend (anchor m=256: chunked at n=16k)` as the figures have it; "" where every line is by one. */
function switchNote(view, lines) {
  const { cell } = view.data;
  const notes = [];
  for (const line of lines) {
    const places = new Map();
    for (const row of line.rows.filter((row) => cell("switched", row))) {
      const backend = cell("backend", row);
      places.set(backend, [...(places.get(backend) || []), tokens(cell("n", row))]);
    }
    for (const [backend, sizes] of places) notes.push(`${named(line.series, line.m)}: ${backend} at n=${sizes.join(", ")}`);
  }
  return notes.length ? `Hollow marks: another backend (${notes.slice(0, 3).join("; ")}${notes.length > 3 ? "; …" : ""})` : "";
}

const DOUBT = "#c00000";

/** The part of a note that says what else the machine did meanwhile; "" where it was quiet. */
function doubt(note) {
  return String(note || "").split(";").map((part) => part.trim()).find((part) => part.startsWith("contended: ")) || "";
}

/** Bars for a 95 % interval around y; none where it is not known. */
function intervals(values, lows, highs, color) {
  const known = (at) => lows[at] !== null && highs[at] !== null && values[at] !== null;
  return {
    type: "data", symmetric: false, color, thickness: 1.2, width: 3,
    array: values.map((value, at) => (known(at) ? Math.max(0, highs[at] - value) : null)),
    arrayminus: values.map((value, at) => (known(at) ? Math.max(0, value - lows[at]) : null)),
  };
}

function told(value, low, high, unit) {
  const text = `${figure(value)}${unit === "×" ? "×" : unit && unit !== "1" ? ` ${unit}` : ""}`;
  return low === null || high === null ? text : `${text} (${figure(low)} to ${figure(high)})`;
}

/** Ticks of a log axis from low to high, few enough for the room; powers of ten, with 2 and 5 between where few. */
function logTicks(low, high, most = 7) {
  const span = Math.log10(high / low);
  const tenths = (step) => Array.from({ length: 90 / step }, (_, at) => (10 + at * step) / 10);
  const subs = span < 0.15 ? tenths(2) : span < 0.35 ? tenths(5) : span < 0.6 ? [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9] : span < 2.3 ? [1, 2, 5] : [1];
  const values = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) {
    for (const sub of subs) values.push(Number(`${sub}e${power}`));
  }
  const inside = values.filter((value) => value >= low * 0.999 && value <= high * 1.001);
  const step = Math.ceil(inside.length / most);
  return inside.filter((_, at) => at % step === 0);
}

/** A log axis around the values, with a share of its length kept free at its end, or below: at its start. */
function logAxis(view, title, values, { room = 0, below = false, most = 7, ...more } = {}) {
  const known = values.filter((value) => value !== null && value > 0 && Number.isFinite(value));
  let [low, high] = [Math.min(...known), Math.max(...known)];
  const pad = Math.max((high / low) ** 0.05, 1.12);
  [low, high] = [low / pad, high * pad];
  const free = (high / low) ** (room / (1 - room));
  const ticks = logTicks(low, high, most);
  return axis(view, title, { type: "log", range: [Math.log10(below ? low / free : low), Math.log10(below ? high : high * free)], tickvals: ticks, ticktext: ticks.map(tick), ...more });
}

/** The measured token counts on a log axis, as many labelled as fit. */
function tokenAxis(view, sizes, more = {}) {
  const all = [...new Set(sizes)].sort((a, b) => a - b);
  const step = Math.ceil(all.length / (view.narrow ? 6 : 9));
  const kept = all.filter((_, at) => (all.length - 1 - at) % step === 0);
  const margin = all.length < 2 ? Math.log10(1.4) : Math.log10(all[all.length - 1] / all[0]) * 0.05;
  return axis(view, "n (tokens)", {
    type: "log", range: [Math.log10(all[0]) - margin, Math.log10(all[all.length - 1]) + margin], tickvals: kept, ticktext: kept.map(tokens), ...more,
  });
}

function axis(view, title, more) {
  const { inks } = view;
  return {
    title: { text: title, standoff: 8, font: { size: 13, color: inks.ink } }, gridcolor: inks.grid, zeroline: false, linecolor: inks.faint,
    tickcolor: inks.faint, tickfont: { size: 12, color: inks.ink }, showline: true, automargin: true, ...more,
  };
}

function layoutOf(view, more) {
  const { inks } = view;
  return {
    paper_bgcolor: inks.panel, plot_bgcolor: inks.panel, showlegend: false, hovermode: "closest", dragmode: view.narrow ? false : "zoom",
    margin: { l: 56, r: 14, t: 10, b: 46 }, font: { family: "system-ui, 'Liberation Sans', sans-serif", color: inks.ink, size: 12 },
    hoverlabel: { bgcolor: inks.panel, bordercolor: inks.faint, font: { color: inks.ink, size: 13 }, align: "left" }, ...more,
  };
}

/** Where and how it was measured: what a caption must say. */
function whereOf(view) {
  const { place, shape, values } = view.setting;
  const problem = values.problem === "default" ? "" : ` · ${values.problem}`;
  return `${place} · scope ${values.scope} · ${values.phase} · ${values.dtype} · ${shape}${problem}`;
}

/** Draw one chart, or say why there is nothing to draw. */
async function drawChart(chart, view) {
  const built = chart.build(view);
  const caption = [whereOf(view), ...(built.caption || [])].filter(Boolean).join(". ").replace(/\.\./g, ".");
  chart.caption.textContent = `${caption.replace(/\.$/, "")}.`;
  if (built.none) {
    if (chart.drawn) Plotly.purge(chart.plot);
    chart.drawn = false;
    chart.plot.style.height = "";
    chart.plot.className = "plot none";
    chart.plot.replaceChildren(make("p", {}, built.none));
    return;
  }
  if (!chart.drawn) chart.plot.replaceChildren();
  chart.plot.className = "plot";
  chart.plot.style.height = `${built.height || 350}px`;
  await Plotly.react(chart.plot, built.data, layoutOf(view, built.layout), CONFIG);
  chart.drawn = true;
}

/** Put the empty frames of all charts on the page. */
function layCharts(redraw) {
  const place = document.getElementById("charts");
  for (const chart of CHARTS) {
    chart.plot = make("div", { class: "plot", id: `plot-${chart.id}`, role: "img", "aria-label": `${chart.title}; the table below has its rows` });
    chart.caption = make("p", { class: "caption" });
    chart.controls = make("span", {});
    chart.redraw = () => redraw(chart);
    const header = make("header", {}, make("h3", {}, chart.title), chart.controls);
    place.append(make("figure", { class: "card chart", id: `chart-${chart.id}` }, header, chart.plot, chart.caption));
  }
}
