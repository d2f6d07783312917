// The list of boards: the events of the server, the filters and the order, and the address of the page.

const SORTS = {
  state: (a, b) => RANKS[a.board.state] - RANKS[b.board.state] || compare(a.addressKey, b.addressKey),
  name: (a, b) => compare(a.nameKey, b.nameKey),
  last: (a, b) => (b.board.last ?? 0) - (a.board.last ?? 0) || compare(a.addressKey, b.addressKey),
  time: (a, b) => seconds(b.board) - seconds(a.board) || compare(a.addressKey, b.addressKey),
};
const compare = (a, b) => a < b ? -1 : a > b ? 1 : 0;
const seconds = board => board.began === undefined ? -1 : board.last - board.began;
/** The time without an event after which the connection is lost. */
const MAX_SILENCE_MS = 5000;
/** The number of boards that are drawn at first, and for each press of "show more". */
const DRAWN = 500;
/** The number of boards without a request up to which each has its advice in its line: it is the same for all. */
const MAX_ADVISED = 10;

const rows = new Map();
const buttons = new Map();
/** What is shown. */
const view = {state: "all", words: [], sort: "state", limit: DRAWN};
/** The board of the address that is not listed yet. */
let wanted = "";
/** What to do about a board without a request. */
let silentAdvice = "";
/** All boards in their order, and those that are drawn. */
let order = [], drawn = [];
let source, unseen, version, lastEvent, clockOffset = 0;

const now = () => performance.now() / 1000 + clockOffset;

function receive(event) {
  const {servers, complete, more, removed, boards} = event;
  lastEvent = performance.now();
  clockOffset = event.now - performance.now() / 1000;
  // A daemon of another version has another page.
  if ((version ??= servers[0]?.version) !== servers[0]?.version) return location.reload();
  byId("lost").hidden = true;
  document.body.classList.remove("stale");
  silentAdvice = event.silent ?? silentAdvice;
  const present = new Set(boards.map(board => board.client));
  let gone = removed.filter(client => !present.has(client));
  if (complete) {
    // Of the boards before a lost connection, those that no event has by the last one are gone.
    unseen ??= new Set(rows.keys());
    for (const client of present) unseen.delete(client);
    if (!more) {
      gone = [...unseen];
      unseen = undefined;
    }
  }
  for (const client of gone) {
    rows.get(client)?.remove();
    rows.delete(client);
  }
  if (gone.length) order = order.filter(row => rows.has(row.client));
  for (const board of boards) {
    let row = rows.get(board.client);
    if (!row) {
      row = new Row(board.client);
      rows.set(board.client, row);
      order.push(row);
    }
    row.update(board, event.now, servers.length > 1);
  }
  if ((complete && !more) || boards.length || gone.length) arrange();
  summarize(servers);
}

/** Shows how many boards have booted, the servers, and the totals. */
function summarize(servers) {
  const counts = Object.fromEntries(Object.keys(STATES).map(state => [state, 0]));
  for (const {board} of rows.values()) counts[board.state] += 1;
  const replied = servers.filter(server => !server.error);
  // With --history, boots are older than the server.
  const began = [...rows.values()].filter(({board}) => board.state === "booted").map(({board}) => board.began);
  const since = [...replied.map(server => server.started), ...began].reduce((one, other) => Math.min(one, other));
  const others = [...PROBLEMS, "running"].filter(state => counts[state]).map(state => `, ${counts[state]} ${STATES[state]}`);
  setText(byId("booted"), rows.size ? `${counts.booted} of ${plural(rows.size, "board")} booted since ${clock(since)}` : "");
  setText(byId("others"), others.join(""));
  byId("boards").classList.toggle("brief", counts.silent > MAX_ADVISED);
  setText(byId("about"), `${version}, up for ${duration(Math.floor(now() - servers[0].started))}`);
  for (const [state, button] of buttons) {
    const count = state === "all" ? rows.size : state === "problems" ? PROBLEMS.reduce((sum, state) => sum + counts[state], 0) : counts[state];
    setText(button.lastChild, count.toLocaleString());
    button.classList.toggle("none", !count);
    if (["probed", "looping", "unmounted"].includes(state)) button.hidden = !count && view.state !== state;
  }
  const names = servers.map(server => make("li", server.error ? "bad" : "",
    server.error ? `${server.server} not reachable: ${server.error}` : `${server.server}: ${server.version}, up for ${duration(Math.floor(now() - server.started))}`));
  byId("servers").hidden = servers.length < 2;
  if (servers.length > 1 && names.map(name => name.textContent).join("\n") !== [...byId("servers").children].map(name => name.textContent).join("\n")) {
    byId("servers").replaceChildren(...names);
  }
  const sum = name => replied.reduce((sum, server) => sum + server.totals[name], 0).toLocaleString();
  setText(byId("totals"), `${sum("requests")} requests: ${sum("complete")} complete, ${sum("probes")} size only, ${sum("missing")} missing, ` +
    `${sum("refused")} refused, ${sum("failed")} failed, ${sum("running")} running; ` +
    `${bytes(replied.reduce((sum, server) => sum + server.totals.bytes, 0))} sent, ${sum("retransmitted")} packets sent again.`);
}

/** Filters and sorts the boards, and draws the first ones; moves only those that have another place. */
function arrange() {
  // Almost in order, which is fast.
  order.sort(SORTS[view.sort]);
  const shown = order.filter(row => row.matches(view.state, view.words));
  const next = shown.slice(0, view.limit), isDrawn = new Set(next), list = byId("boards");
  for (const row of drawn) if (!isDrawn.has(row)) row.remove();
  drawn = next;
  let place = list.firstElementChild;
  drawn.forEach((row, nth) => {
    const element = row.element?.isConnected ? row.element : row.draw(now());
    // One that moved away to its end.
    if (place && place !== element && place.nextElementSibling === element && drawn[nth + 1]?.element !== place) {
      const moved = place;
      place = element;
      list.append(moved);
    }
    if (place === element) place = place.nextElementSibling;
    else list.insertBefore(element, place);
  });
  const more = shown.length - drawn.length;
  byId("more").hidden = more === 0;
  setText(byId("more"), `Show ${Math.min(more, DRAWN).toLocaleString()} more of ${plural(more, "board")}`);
  byId("empty").hidden = shown.length > 0;
  setText(byId("empty"), rows.size ? "No board matches the filter." : "No boards yet: none has a description or a directory, and no request has arrived.");
  open(wanted);
}

/** Opens the board of this address or name, and scrolls to it. */
function open(target) {
  const row = rows.get(target) ?? (target && order.find(row => row.board.name === target));
  if (!row) return;
  wanted = "";
  if (!row.element?.isConnected) select("all", "");
  if (!row.element?.isConnected) select("all", row.client);
  row.element.open = true;
  row.element.scrollIntoView({block: "nearest"});
}

/** Notes in the address which board is open. */
function opened(client, isOpen) {
  const current = decodeURIComponent(location.hash.slice(1));
  if (isOpen ? current !== client : current === client) write(isOpen ? client : "");
}

/** Shows the boards with a state and these words. */
function select(state, text) {
  byId("filter").value = text;
  view.state = state;
  apply();
}

/** Applies the filters of the page, and writes them into the address. */
function apply() {
  view.words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  view.sort = byId("sort").value;
  view.limit = DRAWN;
  for (const [state, button] of buttons) button.setAttribute("aria-pressed", String(state === view.state));
  write(decodeURIComponent(location.hash.slice(1)));
  arrange();
}

/** Writes the filters and the open board into the address. */
function write(client) {
  const parameters = new URLSearchParams();
  if (view.state !== "all") parameters.set("state", view.state);
  if (view.words.length) parameters.set("q", byId("filter").value);
  if (view.sort !== "state") parameters.set("sort", view.sort);
  const query = parameters.size ? `?${parameters}` : "";
  const hash = client ? `#${encodeURIComponent(client).replaceAll("%3A", ":")}` : "";
  if (location.search + location.hash !== query + hash) history.replaceState(null, "", `/${query}${hash}`);
}

/** Reads the filters and the open board from the address. */
function read() {
  const parameters = new URLSearchParams(location.search);
  const state = parameters.get("state"), sort = parameters.get("sort");
  view.state = Object.hasOwn(VIEWS, state ?? "") ? state : "all";
  if (Object.hasOwn(SORTS, sort ?? "")) byId("sort").value = sort;
  byId("filter").value = parameters.get("q") ?? "";
  wanted = decodeURIComponent(location.hash.slice(1));
}

/** Receives events while the page is visible. */
function connect() {
  source?.close();
  source = unseen = undefined;
  if (document.hidden) return;
  lastEvent = performance.now();
  source = new EventSource("/events");
  source.onmessage = event => receive(JSON.parse(event.data));
  source.onerror = () => {
    unseen = undefined;
    showLost();
    // The browser tries again unless the reply was an error.
    if (source?.readyState === EventSource.CLOSED) setTimeout(connect, 2000);
  };
}

function showLost() {
  const since = version ? ` for ${duration(Math.floor((performance.now() - lastEvent) / 1000))}` : "";
  byId("lost").textContent = `No response from the server${since}. Retrying ...`;
  byId("lost").hidden = false;
  document.body.classList.add("stale");
}

/** Moves the focus to the next or the previous visible board. */
function move(step) {
  const visible = [...byId("boards").children].map(element => element.row.summary);
  const at = visible.indexOf(document.activeElement);
  visible[Math.min(visible.length - 1, Math.max(0, at < 0 ? 0 : at + step))]?.focus();
}

function press(event) {
  const isTyping = event.target.matches?.("input, select, textarea");
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key === "/" && !isTyping) byId("filter").focus();
  else if (event.key === "Escape" && !event.target.matches?.("select, textarea")) select("all", "");
  else if ((event.key === "ArrowDown" || event.key === "ArrowUp") && (!isTyping || event.target.id === "filter")) move(event.key === "ArrowDown" ? 1 : -1);
  else return;
  event.preventDefault();
}

for (const [state, words] of Object.entries(VIEWS)) {
  const button = make("button", TONES[state] ?? "", words, make("b"));
  button.type = "button";
  button.addEventListener("click", () => {
    view.state = state;
    apply();
  });
  buttons.set(state, button);
  byId("states").append(button);
}
byId("filter").addEventListener("input", apply);
byId("sort").addEventListener("change", apply);
byId("more").addEventListener("click", event => {
  const first = view.limit;
  view.limit += DRAWN;
  arrange();
  // Pressed with the keyboard: goes on at the first of these boards, not after the last.
  if (event.detail === 0) drawn[first]?.summary.focus();
});
addEventListener("hashchange", () => open(decodeURIComponent(location.hash.slice(1))));
addEventListener("keydown", press);
document.addEventListener("visibilitychange", connect);
read();
for (const [state, button] of buttons) button.setAttribute("aria-pressed", String(state === view.state));
view.words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
view.sort = byId("sort").value;
connect();
setInterval(() => {
  for (const row of drawn) row.tick(now());
  if (!document.hidden && performance.now() - lastEvent > MAX_SILENCE_MS) showLost();
}, 1000);
