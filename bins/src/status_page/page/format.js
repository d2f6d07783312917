// Elements, numbers and times as text.
// Inserts all values as text, never as HTML: anyone on the network can send file names.

const byId = id => document.getElementById(id);

/** Creates an element with a class and children, which are elements or text. */
function make(tag, name, ...children) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  element.append(...children);
  return element;
}

/** Sets a text if it differs. Setting the same text would redraw it and clear the selection. */
function setText(element, text) {
  if (element.shown === text) return;
  element.shown = text;
  element.textContent = text;
}

/** Sets a class if it differs. */
function setClass(element, name) {
  if (element.className !== name) element.className = name;
}

function bytes(count) {
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (count < 1000) return `${unit === "B" || count >= 99.95 ? Math.round(count) : count.toFixed(1)} ${unit}`;
    count /= 1000;
  }
  return `${count.toFixed(1)} TB`;
}

function duration(seconds) {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${Math.round(seconds * 10) / 10} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86400)} days`;
}

const ago = seconds => seconds < 1 ? "now" : `${duration(Math.floor(seconds))} ago`;
const MOMENT = new Intl.DateTimeFormat([], {dateStyle: "medium", timeStyle: "medium"});
const TIME = new Intl.DateTimeFormat([], {timeStyle: "short"});
const SECONDS = new Intl.DateTimeFormat([], {timeStyle: "medium"});
const moment = time => MOMENT.format(time * 1000);
const plural = (count, word) => `${count.toLocaleString()} ${word}${count === 1 ? "" : "s"}`;

/** Returns the time of a day, with the date if it is not today. */
function clock(time, hasSeconds = false) {
  const isToday = new Date(time * 1000).toDateString() === new Date().toDateString();
  return isToday ? (hasSeconds ? SECONDS : TIME).format(time * 1000) : moment(time);
}
