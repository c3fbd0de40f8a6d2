// Text: numbers as the rest of the harness writes them, and what users wrote as nothing but text.

/** A token count that reads back exactly: 4096 → 4k. */
function tokens(n) {
  for (const [unit, letter] of [[2 ** 20, "M"], [2 ** 10, "k"]]) {
    if (n >= unit && (n * 2) % unit === 0) return `${n / unit}${letter}`;
  }
  return String(n);
}

/** Three digits or more, without an exponent between 0.001 and a million. */
function figure(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size < 1e-3 || size >= 1e6) return value.toExponential(2).replace("e+", "e");
  return value.toFixed(Math.max(0, 2 - Math.floor(Math.log10(size))));
}

/** A tick of a log axis: 0.05, 1, 10,000, 10⁶. */
function tick(value) {
  if (value >= 1e-3 && value < 1e6) return Number(value.toPrecision(6)).toLocaleString("en", { maximumFractionDigits: 6 });
  const power = Math.floor(Math.log10(value) + 1e-9);
  const lead = Number((value / 10 ** power).toPrecision(3));
  const digits = [...String(power)].map((c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(c)])).join("");
  return `${lead === 1 ? "" : `${lead}·`}10${digits}`;
}

function named(series, m) {
  return m === null || m === undefined ? series : `${series} m=${m}`;
}

/** Text of at most so many letters, the end of a longer one replaced by …. */
function clipped(text, most) {
  const letters = [...text];
  return letters.length > most ? `${letters.slice(0, most - 1).join("")}…` : text;
}

/** Text for Plotly, which reads tags and entities in every label: with these escaped it draws what was written. */
function plain(text) {
  const short = String(text);
  return (short.length > 300 ? `${short.slice(0, 299)}…` : short)
    .replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

/** An element with properties and children; strings become text nodes, never markup. */
function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node && name !== "list") node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const SVG = "http://www.w3.org/2000/svg";
function draw(tag, properties = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(properties)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** A table in Markdown. heads: [title, whether it is of numbers]; what could be markup stays text. */
function markdownTable(heads, rows) {
  const inert = (text) => String(text).replace(/[\\|`<*_[\]]/g, "\\$&").replace(/\s+/g, " ");
  const line = (cells) => `| ${cells.join(" | ")} |`;
  const rule = heads.map(([, number]) => (number ? "---:" : "---"));
  return `${[line(heads.map(([title]) => inert(title))), line(rule), ...rows.map((row) => line(row.map(inert)))].join("\n")}\n`;
}

/** Hand a text over as a file. */
function saveText(name, text, type = "text/markdown") {
  const link = make("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
