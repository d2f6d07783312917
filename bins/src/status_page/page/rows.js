// The line of a board.

/** The states of boards, the worst first, in words. */
const STATES = {
  failed: "failed", stalled: "stalled", looping: "boot loop", missing: "missing", unmounted: "not mounted", silent: "never seen",
  running: "running", booted: "booted", probed: "size only",
};
/** The states that need attention. */
const PROBLEMS = ["failed", "stalled", "looping", "missing", "unmounted", "silent"];
/** The names of the buttons. */
const VIEWS = {all: "all", problems: "problems", ...STATES};
const RANKS = Object.fromEntries(Object.keys(STATES).map((state, rank) => [state, rank]));
/** The weight of a new measurement in the rate of a transfer. */
const WEIGHT = 0.4;

/** A board of the list. It has an element while it is drawn, or open. */
class Row {
  #bars = new Map();
  /** The running transfers: acknowledged bytes, the time of their last change, and the rate. */
  #transfers = new Map();

  constructor(client) {
    this.client = client;
  }

  #create() {
    this.badge = make("span", "badge");
    this.name = make("b");
    this.status = make("span", "status");
    this.age = make("span", "age soft");
    this.line = make("div", "line", this.badge, this.name, this.status, this.age);
    this.advice = make("div", "what soft");
    this.summary = make("summary", "", this.line, this.advice);
    this.detail = new Detail(this.client);
    this.element = make("details", "board", this.summary);
    this.element.id = this.client;
    this.element.row = this;
    this.element.addEventListener("toggle", () => this.#toggle());
  }

  /** Takes the present state of the board. */
  update(board, now, hasPeers) {
    this.board = board;
    this.hasPeers = hasPeers;
    // Numbers sort as numbers.
    const padded = text => text.replace(/\d+/g, digits => digits.padStart(5, "0"));
    this.addressKey = padded(board.client);
    this.nameKey = padded(board.name ?? board.client);
    this.words = [board.client, board.name, board.status, board.origin, board.server, STATES[board.state], ...(board.files ?? [])].join("\n").toLowerCase();
    if (!this.element) return;
    this.draw(now);
    if (this.element.open) this.detail.refresh();
  }

  /** Draws the line, and returns its element. */
  draw(now) {
    if (!this.element) this.#create();
    const {board} = this;
    setClass(this.element, `board ${TONES[board.state] ?? ""}`);
    setText(this.badge, STATES[board.state] ?? board.state);
    const key = `${board.name} ${board.client}`;
    if (this.name.shown !== key) {
      this.name.shown = key;
      this.name.replaceChildren(...(board.name ? [board.name, " ", make("small", "", board.client)] : [board.client]));
      this.name.title = board.client;
    }
    setText(this.status, this.hasPeers && board.server ? `${board.status} (${board.server})` : board.status);
    this.status.title = board.status;
    setText(this.advice, board.advice ?? (board.state === "silent" ? silentAdvice : ""));
    this.#progress(now);
    this.tick(now);
    return this.element;
  }

  /** Removes the line from the page. That of an open board is kept. */
  remove() {
    this.element?.remove();
    if (this.element?.open) return;
    this.element = undefined;
    this.#bars.clear();
  }

  /** Shows how much time has passed. */
  tick(now) {
    const {last} = this.board;
    setText(this.age, last === undefined ? "" : ago(now - last));
  }

  matches(state, words) {
    const isShown = state === "all" || (state === "problems" ? PROBLEMS.includes(this.board.state) : state === this.board.state);
    return isShown && words.every(word => this.words.includes(word));
  }

  /** Shows a progress bar for each running transfer. Keeps the elements between updates, so that they are animated. */
  #progress(now) {
    const bars = new Map(), transfers = new Map();
    for (const file of this.board.running ?? []) {
      if (!file.open) continue;
      const key = `${file.began} ${file.name}`;
      const transfer = this.#rate(this.#transfers.get(key), file, now);
      transfers.set(key, transfer);
      const bar = this.#bars.get(key) ?? make("div", "running", make("span"), make("progress"), make("span"));
      const [name, progress, numbers] = bar.children;
      const {size, acknowledged} = file, {rate} = transfer;
      setText(name, file.name);
      const parts = [size ? `${bytes(acknowledged)} of ${bytes(size)}` : bytes(acknowledged)];
      if (this.board.state === "stalled") parts.push("no progress");
      else if (rate > 0) {
        parts.push(`${bytes(rate)}/s`);
        if (size) parts.push(`${duration(Math.ceil((size - acknowledged) / rate))} left`);
      }
      setText(numbers, parts.join(", "));
      progress.max = size || 1;
      progress.setAttribute("aria-label", file.name);
      progress.value = size ? acknowledged : 0;
      bars.set(key, bar);
    }
    for (const [key, bar] of this.#bars) if (!bars.has(key)) bar.remove();
    for (const [key, bar] of bars) if (!this.#bars.has(key)) this.summary.append(bar);
    [this.#bars, this.#transfers] = [bars, transfers];
  }

  #rate(before, file, now) {
    const {acknowledged} = file;
    if (!before) return {acknowledged, time: now, rate: acknowledged / Math.max(0.1, now - file.began)};
    const elapsed = now - before.time;
    if (elapsed <= 0) return before;
    const rate = (acknowledged - before.acknowledged) / elapsed;
    return {acknowledged, time: now, rate: before.rate + WEIGHT * (rate - before.rate)};
  }

  #toggle() {
    const {open} = this.element;
    if (open) {
      this.element.append(this.detail.element);
      this.detail.refresh();
    }
    opened(this.board.client, open);
  }
}
