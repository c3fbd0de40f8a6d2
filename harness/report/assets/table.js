// Every row: filtered, sorted, and only those in sight put on the page.

const COLUMNS = [
  ["label", "variant", 170], ["m", "m", 62, true], ["n", "n", 82, true], ["metric", "metric", 176], ["value", "value", 104, true], ["unit", "unit", 84],
  ["ci_low", "ci low", 104, true], ["ci_high", "ci high", 104, true], ["status", "status", 112], ["phase", "phase", 88], ["dtype", "dtype", 88], ["note", "note", 320],
  ["p20", "p20", 104, true], ["p80", "p80", 104, true], ["samples", "samples", 86, true], ["scope", "scope", 70], ["b", "b", 50, true], ["h", "h", 50, true],
  ["d", "d", 56, true], ["backend", "backend", 110], ["options", "options", 180], ["seed", "seed", 66, true], ["run", "run", 150], ["machine", "machine", 210], ["device", "device", 84],
  ["commit", "commit", 140], ["time_utc", "time", 190], ["case_id", "case", 132],
];
const LINE = 28, AROUND = 12;
const PICKED = ["attention", "metric", "status", "phase", "dtype"];
const REALS = new Set(["value", "ci_low", "ci_high", "p20", "p80"]);

/** The table of every row. changed() is called where its filters or order change; take(words) and tell(words): the same in an address. */
function layTable(data, changed) {
  const { about, columns } = data;
  const count = about.listed;
  const text = (name, row) => {
    const value = data.cell(name, row);
    return name === "run" ? about.runs[value] : name === "note" ? [value, data.cell("switched", row)].filter(Boolean).join("; ") : value;
  };
  const state = { words: "", picked: {}, sort: null, down: false, rows: Uint32Array.from({ length: count }, (_, row) => row) };
  const search = make("input", { type: "search", placeholder: "Filter: words, or n>=4096, status!=ok, note:flash", "aria-label": "Filter the rows" });
  const selects = PICKED.map((name) => {
    const values = [...new Set(columns[name].values)].filter((value) => value !== null && value !== "").sort();
    return make("select", { "aria-label": name, "data-column": name }, make("option", { value: "" }, `every ${name}`), ...values.map((value) => make("option", { value }, value)));
  });
  const counted = make("p", { class: "count", role: "status" });
  const head = make("div", { class: "head", role: "row" });
  const body = make("div", { class: "body", role: "rowgroup" });
  const grid = make("div", { class: "grid", role: "table", tabIndex: 0, "aria-label": "Rows of the run", "aria-rowcount": count }, head, body);
  const save = make("button", { type: "button", onclick: () => download(data, state.rows) }, "Save as CSV");
  const mark = make("button", { type: "button", onclick: () => saveText("rows.md", markdownRows(data, state.rows, text)) }, "Save as Markdown");
  grid.style.setProperty("--columns", COLUMNS.map(([, , width]) => `${width}px`).join(" "));
  for (const [name, title, , number] of COLUMNS) {
    const button = make("button", { type: "button", onclick: () => sortBy(name) }, title);
    head.append(make("span", { role: "columnheader", class: number ? "number" : "", "data-column": name, "aria-sort": "none" }, button));
  }
  document.getElementById("table").append(make("div", { class: "filters" }, search, ...selects, save, mark), counted, grid);

  function sortBy(name) {
    if (state.sort === name && state.down) [state.sort, state.down] = [null, false];
    else [state.down, state.sort] = [state.sort === name, name];
    headed();
    refresh();
    changed();
  }

  function headed() {
    for (const cell of head.children) {
      const own = cell.dataset.column === state.sort;
      cell.setAttribute("aria-sort", own ? (state.down ? "descending" : "ascending") : "none");
      cell.firstChild.textContent = COLUMNS.find(([column]) => column === cell.dataset.column)[1] + (own ? (state.down ? " ▼" : " ▲") : "");
    }
  }

  function refresh() {
    const keep = compile(data, state.words, text);
    const picked = PICKED.filter((name) => state.picked[name]).map((name) => [columns[name].array, columns[name].values.indexOf(state.picked[name])]);
    const rows = [];
    for (let row = 0; row < count; row++) {
      if (picked.every(([array, code]) => array[row] === code) && keep(row)) rows.push(row);
    }
    state.rows = order(data, Uint32Array.from(rows), state, text);
    counted.textContent = `${state.rows.length.toLocaleString("en")} of ${count.toLocaleString("en")} rows`;
    body.style.height = `${state.rows.length * LINE}px`;
    grid.scrollTop = 0;
    paint();
  }

  function paint() {
    const from = Math.max(0, Math.floor(grid.scrollTop / LINE) - AROUND);
    const to = Math.min(state.rows.length, Math.ceil((grid.scrollTop + grid.clientHeight) / LINE) + AROUND);
    const lines = [];
    for (let at = from; at < to; at++) lines.push(line(state.rows[at], at));
    body.replaceChildren(...lines);
  }

  function line(row, at) {
    const node = make("div", { class: "line", role: "row", "aria-rowindex": at + 1 });
    node.style.top = `${at * LINE}px`;
    for (const [name, , , number] of COLUMNS) {
      const value = text(name, row);
      const shown = written(data, name, row, value);
      node.append(make("span", { role: "cell", class: name === "status" ? `status ${value in FAILED || value === "ok" ? value : ""}` : number ? "number" : "", title: shown.length > 12 ? shown : "" }, shown));
    }
    return node;
  }

  let waiting = 0;
  search.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(() => { state.words = search.value; refresh(); changed(); }, 120); });
  for (const select of selects) select.addEventListener("change", () => { state.picked[select.dataset.column] = select.value; refresh(); changed(); });
  let asked = false;
  grid.addEventListener("scroll", () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; paint(); });
  });
  refresh();
  return {
    tell(words) {
      if (state.words.trim()) words.set("rows", state.words.trim());
      for (const name of PICKED) if (state.picked[name]) words.set(`rows-${name}`, state.picked[name]);
      if (state.sort) words.set("sort", (state.down ? "-" : "") + state.sort);
    },
    take(words) {
      state.words = search.value = words.get("rows") || "";
      for (const select of selects) {
        const wanted = words.get(`rows-${select.dataset.column}`);
        select.value = [...select.options].some((option) => option.value === wanted) ? wanted : "";
        state.picked[select.dataset.column] = select.value;
      }
      const [, sign, name] = (words.get("sort") || "").match(/^(-?)(.*)$/);
      [state.sort, state.down] = COLUMNS.some(([column]) => column === name) ? [name, sign === "-"] : [null, false];
      headed();
      refresh();
    },
  };
}

/** A cell as it is read: six digits, and `*` behind a value by another backend than most of its line. */
function written(data, name, row, value) {
  if (value === null || value === "") return "";
  if (!REALS.has(name)) return String(value);
  return `${exactly(value)}${name === "value" && data.cell("switched", row) ? " *" : ""}`;
}

/** Six digits: enough to read, few enough to compare; the file that is saved has all of them. */
function exactly(value) {
  const size = Math.abs(value);
  if (size === 0) return "0";
  return size >= 1e-3 && size < 1e9 ? String(Number(value.toPrecision(6))) : value.toExponential(4).replace("e+", "e");
}

/** A test of a row for `words`: each must be in some cell, or hold as a comparison (n>=4096, status!=ok, note:flash). */
function compile(data, words, text) {
  const tests = words.trim().split(/\s+/).filter(Boolean).map((word) => {
    const [, name, sign, wanted] = word.match(/^([a-z_0-9]+)(>=|<=|!=|=|>|<|:)(.+)$/i) || [];
    const column = COLUMNS.find(([key, title]) => key === name || title === name);
    return column ? comparison(data, column[0], sign, wanted.toLowerCase(), text) : anywhere(data, word.toLowerCase(), text);
  });
  return (row) => tests.every((test) => test(row));
}

function comparison(data, name, sign, wanted, text) {
  const number = Number(wanted.replace(/k$/, "")) * (wanted.endsWith("k") ? 1024 : 1);
  return (row) => {
    const value = text(name, row);
    if (value === null) return sign === "!=";
    const same = typeof value === "number" ? value === number : String(value).toLowerCase() === wanted;
    if (sign === "=") return same;
    if (sign === "!=") return !same;
    if (sign === ":") return String(value).toLowerCase().includes(wanted);
    const read = Number(value);
    return sign === ">" ? read > number : sign === ">=" ? read >= number : sign === "<" ? read < number : read <= number;
  };
}

/** Whether any text of a row holds the word: looked up once per distinct value, not once per row. */
function anywhere(data, word, text) {
  const hits = [...COLUMNS, ["switched"]].filter(([name]) => data.columns[name].values).map(([name]) => {
    const { array, values } = data.columns[name];
    const held = (value) => String(name === "run" ? data.about.runs[value] : value ?? "").toLowerCase().includes(word);
    return [array, Uint8Array.from(values, (value) => (held(value) ? 1 : 0))];
  });
  return (row) => hits.some(([array, hit]) => hit[array[row]] === 1);
}

/** The rows sorted by one column, stable, empty cells last. */
function order(data, rows, state, text) {
  if (!state.sort) return rows;
  const { array, values } = data.columns[state.sort];
  const sign = state.down ? -1 : 1;
  let key = (row) => array[row];
  let empty = (row) => Number.isNaN(array[row]);
  if (values) {
    const shown = values.map((value) => (state.sort === "run" && value !== null ? data.about.runs[value] : value));
    const places = shown.map((_, at) => at).sort((a, b) => (typeof shown[a] === "number" && typeof shown[b] === "number" ? shown[a] - shown[b] : String(shown[a]).localeCompare(String(shown[b]), "en", { numeric: true })));
    const rank = new Uint32Array(values.length);
    places.forEach((at, place) => { rank[at] = place; });
    const none = Uint8Array.from(shown, (value) => (value === null || value === "" ? 1 : 0));
    key = (row) => rank[array[row]];
    empty = (row) => none[array[row]] === 1;
  }
  return rows.sort((a, b) => empty(a) - empty(b) || sign * (key(a) - key(b)) || a - b);
}

/** The rows in sight's order as a file: full precision; text that a spreadsheet would run is quoted by the harness already. */
function download(data, rows) {
  const inert = (value) => (typeof value === "string" && /^\s*[=+\-@＝＋－＠]/.test(value) ? `'${value}` : String(value ?? ""));
  const quote = (value) => (/[",\n\r]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value);
  const names = COLUMNS.map(([name]) => name);
  const cells = (row) => names.map((name) => quote(inert(name === "run" ? data.about.runs[data.cell("run", row)] : data.cell(name, row)))).join(",");
  const lines = [names.join(",")];
  for (const row of rows) lines.push(cells(row));
  saveText("rows.csv", `${lines.join("\n")}\n`, "text/csv");
}

const TOLD = 12; // the columns that one reads; the file of all of them is the CSV

/** The rows as a table for a document: the first columns, six digits. */
function markdownRows(data, rows, text) {
  const names = COLUMNS.slice(0, TOLD);
  const cells = (row) => names.map(([name]) => written(data, name, row, text(name, row)));
  return markdownTable(names.map(([, title, , number]) => [title, number]), Array.from(rows, cells));
}
