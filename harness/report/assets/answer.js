// The answer: what harness recommend says for this choice, ranked, with a mark and its interval on one log scale.

function showAnswer(data, state) {
  const { about } = data;
  const setting = about.settings[state.setting];
  const answer = setting.answers[`${state.n}|${state.among === "exact" ? "exact" : state.m}`];
  const place = document.getElementById("answer");
  document.getElementById("place").textContent = `${setting.place} · ${setting.run}`;
  if (!answer) {
    place.replaceChildren(make("h1", { class: "headline" }, `Nothing was measured for n = ${state.n} here.`));
    return;
  }
  const looks = new Map(about.series.map((look) => [look.series, look]));
  const parts = [heading(answer.lines, looks, state), ...[...answer.reasons, ...answer.kept].map((line) => make("p", { class: "reason" }, line))];
  if (answer.unknown.length) parts.push(make("p", { class: "caveat" }, answer.unknown[0]));
  if (answer.ranking.length) {
    parts.push(ranking(answer.ranking, looks, state));
    parts.push(make("button", { type: "button", class: "save", onclick: () => saveText("answer.md", markdownAnswer(answer, setting)) }, "Save as Markdown"));
  }
  if (answer.unknown.length > 1) {
    const rest = answer.unknown.slice(1).map((line) => make("li", {}, line));
    parts.push(make("details", {}, make("summary", {}, "What else this does not say"), make("ul", {}, ...rest)));
  }
  place.replaceChildren(...parts);
}

/** The headline: a line on the best exact one and one on the best other, whom each names underlined in its colour. */
function heading(lines, looks, state) {
  return make("h1", { class: "headline" }, ...lines.map((line) => make("span", { class: "line" }, ...marked(line, looks, state))));
}

function marked({ text, series, m }, looks, state) {
  const name = series === null ? "" : named(series, m);
  // Behind its title, not in the list of those measured beside other work, which may hold the name too
  const at = name ? text.indexOf(name, Math.max(0, text.search(/(Exact|Not exact): /))) : -1;
  const whole = (part) => part.split(/(n = \d+)/).map((piece, odd) => (odd % 2 ? make("span", { class: "word" }, piece) : piece));
  if (at < 0) return whole(text);
  const own = make("span", { class: "name" }, name);
  own.style.setProperty("--own", looks.get(series)[state.theme]);
  return [...whole(text.slice(0, at)), own, ...whole(text.slice(at + name.length))];
}

/** The answer for a document: the headline, where it holds, every variant that was ranked, and what it does not say. */
function markdownAnswer(answer, setting) {
  const kind = (one) => (one.exact ? "exact" : one.error === null ? "error unknown" : `error ${figure(one.error)}`);
  const heads = [["variant", false], ["latency (ms)", true], ["95 % interval", true], ["of the best", true], ["peak memory (MiB)", true], ["to softmax", false]];
  const rows = answer.ranking.map((one) => [
    named(one.series, one.m), figure(one.ms), one.low === null ? "" : `${figure(one.low)} to ${figure(one.high)}`,
    one.times === null ? "" : `${figure(one.times)}×`, one.memory === null ? "" : figure(one.memory), kind(one),
  ]);
  const { values } = setting;
  const where = `${setting.place} · scope ${values.scope} · ${values.phase} · ${values.dtype} · ${setting.shape}`;
  const inert = (text) => text.replace(/[\\`<*_[\]]/g, "\\$&");
  const lines = answer.lines.flatMap(({ text }) => [`**${inert(text)}**`, ""]);
  return [...lines, `${inert(where)}. No causal mask, no other mask, no dropout.`, "", markdownTable(heads, rows), ...answer.unknown.map((line) => `- ${inert(line)}`), ""].join("\n");
}

const MOST_RANKED = 12;

function ranking(list, looks, state) {
  const ends = list.flatMap((one) => [one.ms, one.low, one.high]).filter((value) => value > 0);
  const [low, high] = [Math.log(Math.min(...ends)), Math.log(Math.max(...ends))];
  const share = (value) => (high > low ? 3 + 94 * ((Math.log(value) - low) / (high - low)) : 50);
  const row = (one, at) => {
    const color = looks.get(one.series)[state.theme];
    const kind = one.exact ? "exact" : one.error === null ? "error unknown" : `error ${figure(one.error)}`;
    return make("tr", {},
      make("td", { class: "number spare" }, String(at + 1)),
      make("td", {}, swatch(looks.get(one.series), state.theme), named(one.series, one.m)),
      make("td", { class: "number" }, `${figure(one.ms)} ms`),
      make("td", { class: "interval spare" }, one.low === null ? "" : `${figure(one.low)} to ${figure(one.high)}`),
      make("td", { class: "number" }, at ? `${figure(one.times)}×` : "1×"),
      make("td", { class: "whisker" }, whisker(one, share, color)),
      make("td", { class: "number spare" }, one.memory === null ? "" : `${figure(one.memory)} MiB`),
      make("td", { class: `kind${one.exact ? " exact" : ""}` }, kind));
  };
  const heads = [["#", "number spare"], ["variant", ""], ["latency", "number"], ["95 % interval", "spare"], ["of the best", "number"], ["on a log scale", "whisker"], ["peak memory", "number spare"], ["to softmax", ""]];
  const head = make("tr", {}, ...heads.map(([text, kind]) => make("th", { class: kind }, text)));
  const rows = list.map(row);
  const table = make("table", { class: "ranking" }, make("thead", {}, head), make("tbody", {}, ...rows.slice(0, MOST_RANKED)));
  if (rows.length <= MOST_RANKED) return table;
  const rest = make("button", { type: "button", onclick: () => { table.tBodies[0].append(...rows.slice(MOST_RANKED)); rest.remove(); } }, `Show all ${rows.length}`);
  return make("div", {}, table, rest);
}

function whisker(one, share, color) {
  const svg = draw("svg", { viewBox: "0 0 100 18", preserveAspectRatio: "none", "aria-hidden": "true" });
  svg.append(draw("line", { x1: 0, x2: 100, y1: 9, y2: 9, stroke: "var(--edge)", "stroke-width": 1, "vector-effect": "non-scaling-stroke" }));
  if (one.low !== null && one.low > 0) {
    svg.append(draw("line", { x1: share(one.low), x2: share(one.high), y1: 9, y2: 9, stroke: color, "stroke-width": 7, opacity: 0.4, "vector-effect": "non-scaling-stroke" }));
  }
  // A line of no length with round ends: a dot that stays round however wide the picture is
  svg.append(draw("line", { x1: share(one.ms), x2: share(one.ms) + 0.001, y1: 9, y2: 9, stroke: color, "stroke-width": 10, "stroke-linecap": "round", "vector-effect": "non-scaling-stroke" }));
  return svg;
}

const SHAPES = {
  circle: "M7 1.5a5.5 5.5 0 1 0 .01 0z", square: "M2 2h10v10H2z", diamond: "M7 .8 13.2 7 7 13.2 .8 7z", "triangle-up": "M7 1.4 13 12.4H1z",
  "triangle-down": "M7 12.6 1 1.6h12z", pentagon: "M7 1 13 5.6 10.8 12.8H3.2L1 5.6z", x: "M3.6 1 7 4.4 10.4 1 13 3.6 9.6 7l3.4 3.4-2.6 2.6L7 9.6 3.6 13 1 10.4 4.4 7 1 3.6z",
  "triangle-left": "M1.4 7 12.4 1v12z", "triangle-right": "M12.6 7 1.6 13V1z", hexagon: "M7 .8l5.4 3.1v6.2L7 13.2 1.6 10.1V3.9z",
  star: "M7 .6l1.9 4.3 4.6.4-3.5 3.1 1.1 4.6L7 10.5 2.9 13l1.1-4.6L.5 5.3l4.6-.4z", "diamond-tall": "M7 .4 11.6 7 7 13.6 2.4 7z",
};

/** A series' mark in its colour. */
function swatch(look, theme) {
  const shape = SHAPES[look.symbol.replace(/-(open|dot|open-dot)$/, "")] || SHAPES.circle;
  const open = look.symbol.includes("-open");
  return draw("svg", { class: "swatch", viewBox: "0 0 14 14", "aria-hidden": "true" },
    draw("path", { d: shape, fill: open ? "none" : look[theme], stroke: look[theme], "stroke-width": 1.4 }));
}
