// One board: its boots as waterfalls, its boot times, what to do about the last message, and all of it as text.

/** The tones of the states of requests and boards, which also say them in words. */
const TONES = {
  complete: "good", missing: "warn", refused: "bad", failed: "bad", running: "busy", stalled: "warn", looping: "warn",
  unmounted: "warn", booted: "good", silent: "quiet",
};
/** The tones of lines of the log. */
const LEVELS = {error: "bad", warn: "warn"};
const COLUMNS = ["file", "state", "at", "time", "size", "rate", "sent again", "root", "timeline"];
/** A pause in a boot that is worth a mention, in seconds. */
const LONG_WAIT = 1;
const MAX_BAR_REM = 2.6;

/** The address of a board in a URL; the server sends others only from hostile peers. */
const isAddress = text => /^[\w.:-]+$/.test(text);

/** The details of a board, requested while they are visible. */
class Detail {
  #shown = "";
  #isLoading = false;
  #isOutdated = false;

  constructor(client) {
    this.client = client;
    this.element = make("div", "detail", "Loading ...");
  }

  /** Requests the board again, once at a time. */
  async refresh() {
    this.#isOutdated = true;
    if (this.#isLoading || !isAddress(this.client)) return;
    this.#isLoading = true;
    while (this.#isOutdated) {
      this.#isOutdated = false;
      try {
        const response = await fetch(`/board.json?${this.client}`, {signal: AbortSignal.timeout(5000)});
        if (response.ok) this.#show(await response.json());
      } catch {
        // The page says so if the server does not reply; the next change of the board tries again.
      }
    }
    this.#isLoading = false;
  }

  #show({now, version, board, advice}) {
    const shown = JSON.stringify([board, advice]);
    if (shown === this.#shown) return;
    this.#shown = shown;
    const copy = make("button", "", "Copy as text for a bug report");
    copy.type = "button";
    copy.addEventListener("click", () => this.#copy(report(board, now, version)));
    const facts = make("div", "facts", ...this.#facts(board), ...this.#times(board), copy);
    const boots = board.boots.flatMap(boot => [this.#title(boot), this.#table(boot), ...mounted(boot).map(text => make("p", "", `Then: ${text}`))]);
    this.element.replaceChildren(...(advice ? [make("p", "advice", advice)] : []), facts, ...boots, ...this.#log(board.log ?? []));
  }

  #facts(board) {
    const facts = [["address", board.client], ["name", board.name], ["disk", DISKS[board.disk]]];
    const servers = new Set(board.boots.flatMap(boot => boot.files.map(file => file.server)).filter(Boolean));
    if (servers.size) facts.push(["served by", [...servers].join(", ")]);
    return facts.filter(([, value]) => value).map(([name, value]) => make("span", "", make("span", "soft", `${name} `), make("b", "", value)));
  }

  /** The last lines of the log about the board. */
  #log(lines) {
    if (!lines.length) return [];
    const items = lines.map(({at, level, text}) => make("li", LEVELS[level] ?? "", make("time", "", clock(at, true)), text));
    return [make("h2", "", "Log"), make("ol", "log", ...items)];
  }

  /** The times of the last boots, the oldest first, as bars with numbers. */
  #times(board) {
    const boots = board.boots.toReversed();
    if (!boots.length) return [];
    const list = make("ol", "times");
    list.setAttribute("aria-label", "Boot times, the last one at the end");
    const longest = Math.max(...boots.map(bootTime), 0.001);
    for (const boot of boots) {
      const state = boot.files.at(-1)?.state;
      const bar = make("i");
      bar.style.height = `${bootTime(boot) / longest * MAX_BAR_REM}rem`;
      const item = make("li", TONES[state] ?? "", bar, duration(bootTime(boot)));
      item.title = `${moment(boot.began)}: ${state}`;
      list.append(item);
    }
    return [make("span", "soft", "boot times"), list];
  }

  #title(boot) {
    const more = boot.more > 0 ? ` and ${boot.more.toLocaleString()} more` : "";
    const sent = boot.files.reduce((sum, file) => sum + file.acknowledged, 0);
    return make("h2", "", `${moment(boot.began)}: ${duration(bootTime(boot))}, ${plural(boot.files.length, "file")}${more}, ${bytes(sent)}`);
  }

  #table(boot) {
    const head = make("tr", "", ...COLUMNS.map((name, nth) => make("th", nth > 1 && nth < 7 ? "number" : "", name)));
    let end = boot.began;
    const rows = boot.files.map(file => {
      const wait = file.began - end;
      end = Math.max(end, file.began + file.seconds);
      return this.#file(file, boot, wait);
    });
    return make("table", "", make("thead", "", head), make("tbody", "", ...rows));
  }

  #file(file, boot, wait) {
    const name = make("td", "", file.name);
    if (file.why) name.append(make("span", `reason${file.state === "missing" ? " soft" : ""}`, file.why));
    if (file.boot_entry) name.append(make("span", "reason soft", `boot entry ${file.boot_entry}`));
    if (file.copies) name.append(make("span", "reason soft", `requested ${file.copies + 1} times`));
    const cell = (title, value, kind = "number") => {
      const cell = make("td", kind, value);
      if (title && value) cell.dataset.name = title;
      return cell;
    };
    // The rate of a small file is mostly latency.
    const rate = file.acknowledged >= 65536 && file.seconds > 0 ? `${bytes(file.acknowledged / file.seconds)}/s` : "";
    const at = `+${duration(Math.max(0, file.began - boot.began))}`;
    const root = cell("root", file.origin ?? "", "");
    if (file.view_age !== null) root.append(make("span", "reason soft", `snapshot ${duration(file.view_age)} old`));
    if (file.server) root.append(make("span", "reason soft", `by ${file.server}`));
    const row = make("tr", "", name, make("td", `state ${TONES[file.state] ?? ""}`, file.state),
      cell("at", wait >= LONG_WAIT ? `${at} (${duration(wait)} wait)` : at), cell("time", duration(file.seconds)),
      cell("", size(file)), cell("rate", rate),
      cell("sent again", file.retransmitted ? file.retransmitted.toLocaleString() : ""), root,
      make("td", "", this.#bar(file, boot)));
    row.title = file.blksize ? `blksize ${file.blksize}, windowsize ${file.windowsize}, ${file.protocol}` : "";
    return row;
  }

  /** The time of a request within its boot. The columns have it as numbers. */
  #bar(file, boot) {
    const total = Math.max(...boot.files.map(file => file.began + file.seconds), boot.last) - boot.began || 1;
    const bar = make("i", TONES[file.state] ?? "");
    bar.style.left = `${Math.min(99.5, Math.max(0, (file.began - boot.began) / total * 100))}%`;
    bar.style.width = `${Math.min(100, file.seconds / total * 100)}%`;
    const track = make("span", "track", bar);
    track.setAttribute("aria-hidden", "true");
    return track;
  }

  /** Shows a text, selected, and copies it where the browser allows that: over HTTP, only to localhost. */
  #copy(text) {
    const area = make("textarea");
    area.value = text;
    area.readOnly = true;
    area.setAttribute("aria-label", "The board as text");
    this.element.querySelector("textarea")?.remove();
    this.element.querySelector(".facts").after(area);
    area.select();
    if (navigator.clipboard) navigator.clipboard.writeText(text).catch(() => document.execCommand("copy"));
    else document.execCommand("copy");
  }
}

const DISKS = {connected: "connected", idle: "not connected", failed: "failed"};
const bootTime = boot => Math.max(0, boot.last - boot.began);

/** Returns what the disk has shown after a boot, as a list of at most one text. */
function mounted({mount}) {
  if (!mount) return [];
  return [mount.state === "unknown" ? `not known whether the board came up: ${mount.text}` : mount.text];
}

/** Returns the size of a file, and how much of it was sent if that is not all of it. */
function size(file) {
  if (file.size === null) return file.acknowledged ? bytes(file.acknowledged) : "";
  const isPart = file.acknowledged < file.size && ["failed", "running"].includes(file.state);
  return isPart ? `${bytes(file.acknowledged)} of ${bytes(file.size)}` : bytes(file.size);
}

/** Returns a board as text for a bug report. */
function report(board, now, version) {
  const time = seconds => new Date(seconds * 1000).toISOString();
  const name = board.name ? ` (${board.name})` : "";
  const lines = [`rtftp ${version}, ${time(now)}`, `${board.client}${name}: ${board.state}: ${board.where}`];
  if (board.disk) lines.push(`disk: ${DISKS[board.disk]}`);
  for (const boot of board.boots) {
    lines.push("", `boot at ${time(boot.began)}, ${bootTime(boot).toFixed(1)} s${boot.more ? `, ${boot.more} earlier requests omitted` : ""}`);
    for (const file of boot.files) {
      const details = [file.why, file.size === null ? "" : `${file.acknowledged} of ${file.size} bytes`, `${file.seconds.toFixed(3)} s`,
        file.blksize ? `blksize ${file.blksize}, windowsize ${file.windowsize}` : "", file.protocol,
        file.retransmitted ? `${file.retransmitted} retransmitted` : "", file.copies ? `requested ${file.copies + 1} times` : "",
        file.boot_entry ? `boot entry ${file.boot_entry}` : "", file.origin ? `from ${file.origin}` : "",
        file.view_age === null ? "" : `snapshot ${file.view_age.toFixed(1)} s old`, file.server ? `by ${file.server}` : ""];
      lines.push(`  +${(file.began - boot.began).toFixed(3)} s  ${file.name}  ${file.state}  ${details.filter(Boolean).join("; ")}`);
    }
    lines.push(...mounted(boot).map(text => `  then ${text}`));
  }
  if (board.log) lines.push("", "log", ...board.log.map(({at, level, text}) => `  ${time(at)}  ${level.padEnd(5)}  ${text}`));
  return lines.join("\n") + "\n";
}
