// What is chosen, in the page's address: a link shows what its sender sees. It stays behind the #, which nothing sends.

/** Put the choice behind the #, as far as it differs from how the page opens. */
function writeAddress(data, state, table) {
  const words = new URLSearchParams();
  if (state) {
    const { settings, first } = data.about;
    const [chosen, opening] = [settings[state.setting], settings[first.setting]];
    for (const [name] of FACETS) if (facet(chosen, name) !== facet(opening, name)) words.set(name, facet(chosen, name));
    if (state.n !== first.n) words.set("n", state.n);
    if (state.m !== first.m) words.set("m", state.m);
    if (state.among !== "all") words.set("among", state.among);
    for (const series of state.hidden) words.append("hide", series);
  }
  table.tell(words);
  const text = words.size ? `#${words}` : "";
  if (text === location.hash) return;
  try {
    history.replaceState(null, "", text || location.href.split("#")[0]);
  } catch {
    location.replace(text || "#"); // where a page may not change its own history
  }
}

/** Take the choice from behind the #; what is not on this page is passed over. */
function takeAddress(data, state, table) {
  const words = new URLSearchParams(location.hash.slice(1));
  table.take(words);
  if (!state) return;
  const { settings, first, series } = data.about;
  const asked = FACETS.filter(([name]) => words.has(name));
  const kept = (setting) => asked.filter(([name]) => facet(setting, name) === words.get(name)).length * (FACETS.length + 1)
    + FACETS.filter(([name]) => facet(setting, name) === facet(settings[first.setting], name)).length;
  state.setting = settings.reduce((best, setting, at) => (kept(setting) > kept(settings[best]) ? at : best), first.setting);
  const [n, m] = [Number(words.get("n")), words.get("m")];
  state.n = n > 0 && Number.isFinite(n) ? n : first.n;
  state.m = m === "all" || settings[state.setting].m.map(String).includes(m) ? m : first.m;
  state.among = words.get("among") === "exact" ? "exact" : "all";
  state.hidden = new Set(words.getAll("hide").filter((name) => series.some((look) => look.series === name)));
  settle(data, state);
}

/** Keep n and m where the setting has them, else take its nearest. */
function settle(data, state) {
  const setting = data.about.settings[state.setting];
  const far = (n) => Math.abs(Math.log(n / state.n));
  if (!setting.n.includes(state.n)) state.n = setting.n.reduce((best, n) => (far(n) < far(best) ? n : best));
  if (state.m !== "all" && !setting.m.map(String).includes(state.m)) state.m = "all";
}
