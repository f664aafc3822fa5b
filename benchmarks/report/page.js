"use strict";
// The questions: a table that is sorted and filtered from the index; what a row holds is unpacked when it is opened.
const data = JSON.parse(document.getElementById("data").textContent), page = 50, inPart = 100;
const at = id => document.getElementById(id);
const said = {r: "right", w: "wrong", f: "failed", "-": "not answered yet"}, sign = {r: "✓", w: "✗", f: "!", "-": "·"};
const rank = {r: 0, w: 1, f: 2, "-": 3};
let found = [], shown = 0, sorting = {column: "", down: false};

const make = (tag, text = "", kind = "") => {
  const e = document.createElement(tag);
  e.textContent = text;
  if (kind) e.className = kind;
  return e;
};
const apart = text => { const e = make("bdi", text); e.dir = "auto"; return e; };
const option = (text, value) => { const e = make("option", text); e.value = value; e.dir = "auto"; return e; };
const crowded = () => part().arms.length > 7;
const part = () => data[+at("task").value || 0];
const count = number => number.toLocaleString("en-US");

function choices() {
  const programs = part().arms.map((arm, i) => option(arm.label, i));
  at("arm").replaceChildren(option("any program", ""), ...programs);
  at("arm-b").replaceChildren(option("any other program", ""), ...programs.map(one => one.cloneNode(true)));
  const statuses = new Set(part().questions.flatMap(q => q.r.map(r => r[1])).filter(Boolean));
  at("status").replaceChildren(option("any", ""), ...[...statuses].sort().map(s => option(s.replaceAll("_", " "), s)));
  const steps = new Set(part().questions.map(q => q.n));
  at("steps").replaceChildren(option("any", ""), ...[...steps].sort((a, b) => a - b).map(n => option(n, n)));
  at("by-steps").hidden = !part().steps;
}

const was = (q, arm, outcome) =>
  !outcome || (arm === "" ? q.r.some(r => r[0] === outcome) : q.r[+arm][0] === outcome);

function choose() {
  const value = Object.fromEntries(
    ["only", "arm", "outcome", "arm-b", "outcome-b", "status", "steps"].map(id => [id, at(id).value]));
  const words = at("words").value.toLowerCase();
  const among = part().questions.map((q, number) => ({q, number}));
  found = among.filter(({q}) =>
    (value.only === "all" || new Set(q.r.map(r => r[0])).size > 1)
    && was(q, value.arm, value.outcome) && was(q, value["arm-b"], value["outcome-b"])
    && (!value.status || (value.arm === "" ? q.r : [q.r[+value.arm]]).some(r => r[1] === value.status))
    && (!value.steps || q.n === +value.steps)
    && (!words || [q.q, q.id, q.g].some(text => text.toLowerCase().includes(words))));
  sort();
  head();
  shown = 0;
  at("table").tBodies[0].replaceChildren();
  at("count").textContent = `${count(found.length)} of ${count(among.length)} questions`;
  more();
}

function sort() {
  const by = {
    "": one => one.number, question: one => one.q.q, needed: one => one.q.n,
  }[sorting.column] || (one => rank[one.q.r[+sorting.column][0]] + one.q.r[+sorting.column][2]);
  const compare = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
  found.sort((a, b) => (sorting.down ? -1 : 1) * compare(by(a), by(b)) || a.number - b.number);
}

function head() {
  const row = make("tr");
  const columns = [["question", "question", "question"], ...(part().steps ? [["needed", "steps needed", "needed"]] : []),
    ...part().arms.map((arm, i) => [String(i), arm.letters, "", arm.label])];
  for (const [column, text, kind, label] of columns) {
    const cell = make("th", "", kind), button = make("button");
    button.type = "button";
    cell.scope = "col";
    button.append(apart(text), sorting.column === column ? (sorting.down ? " ▼" : " ▲") : "");
    if (label) button.title = label;
    if (sorting.column === column) cell.ariaSort = sorting.down ? "descending" : "ascending";
    button.addEventListener("click", () => {
      const next = sorting.column !== column ? {column, down: false} : sorting.down ? {column: "", down: false} : {column, down: true};
      sorting = next;
      choose();
    });
    cell.append(button);
    row.append(cell);
  }
  at("table").tHead.replaceChildren(row);
  at("table").classList.toggle("crowded", crowded());
}

function more() {
  const last = Math.min(found.length, shown + page);
  at("table").tBodies[0].append(...found.slice(shown, last).map(line));
  shown = last;
  at("more").hidden = shown >= found.length;
}

function line({q, number}) {
  const row = make("tr", "", "one"), first = make("td", "", "question"), button = make("button", "", "open");
  button.type = "button";
  button.ariaExpanded = "false";
  button.append(apart(q.q));
  first.append(button);
  row.append(first);
  if (part().steps) labelled(row, q.n, "steps");
  q.r.forEach((r, i) => {
    const cell = labelled(row, "", part().arms[i].letters), mark = make("span", sign[r[0]], r[0]);
    mark.title = `${part().arms[i].label}: ${said[r[0]]}${r[2] ? `, ${r[2]}` : ""}`;
    cell.append(mark);
    if (r[2] && !crowded()) {
      const short = make("span", " ", "short");
      short.append(apart(r[2]));
      cell.append(short);
    }
  });
  button.addEventListener("click", async () => {
    const open = button.ariaExpanded === "true";
    button.ariaExpanded = String(!open);
    if (open) return row.nextSibling.remove();
    const under = make("tr", "", "whole"), cell = make("td", "Unpacking …");
    cell.colSpan = row.cells.length;
    under.append(cell);
    row.after(under);
    cell.replaceChildren(...await whole(q, +at("task").value || 0, number));
  });
  return row;
}

function labelled(row, text, label) {
  const cell = make("td", text);
  cell.dataset.label = label;
  row.append(cell);
  return cell;
}

const unpacked = new Map();
function unpack(task, number) {
  const name = `part-${task}-${Math.floor(number / inPart)}`;
  if (!unpacked.has(name)) {
    const bytes = Uint8Array.from(atob(at(name).textContent), letter => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    unpacked.set(name, new Response(stream).json());
  }
  return unpacked.get(name);
}

async function whole(q, task, number) {
  const held = await unpack(task, number), mine = held.questions[number % inPart], parts = [];
  if (mine.c) parts.push(named("Passage", mine.c));
  parts.push(named("Gold answer", q.g), named("Id", q.id));
  const answers = make("div", "", "answers");
  mine.r.forEach((answer, i) => answers.append(answered(data[task].arms[i], q.r[i][0], answer, held)));
  parts.push(answers);
  return parts;
}

function answered(arm, outcome, answer, held) {
  const box = make("section"), title = make("h3");
  title.append(apart(arm.label), ": ", make("span", said[outcome], outcome));
  box.append(title);
  if (!answer) return box;
  if (answer.how) { const how = make("p", "", "small"); how.append(apart(answer.how)); box.append(how); }
  if (answer.asked.length) {
    const list = make("ol");
    list.append(...answer.asked.map(text => { const item = make("li"); item.append(apart(text)); return item; }));
    box.append(make("p", "Subquestions"), list);
  }
  if (answer.steps) box.append(named("Steps", answer.steps));
  box.append(named(outcome === "f" ? "Error" : "Answer", answer.said));
  const calls = answer.calls.map(key => held.calls[key]).filter(Boolean);
  box.append(...calls.map(call => called(call, held.systems)));
  if (!calls.length) {
    for (const [role, [made, read, cached, wrote, cost]] of Object.entries(answer.usage))
      box.append(make("p", `${role}: ${made} ${made === 1 ? "call" : "calls"}, ${tokens([read, cached, wrote])}, ${money(cost)}`, "small"));
  }
  return box;
}

const known = value => (value === null || value === undefined ? "unknown" : count(value));
const tokens = ([read, cached, wrote]) => `${known(read)} tokens in${cached ? ` (${count(cached)} cached)` : ""}, ${known(wrote)} out`;
const money = cost => (cost === null || cost === undefined ? "price unknown" : `$${cost.toFixed(6)}`);

function called(call, systems) {
  const box = make("details", "", "call"), top = make("summary");
  top.append(make("b", call.role), " ", apart(call.model),
    `: ${tokens(call.tokens)}, finish ${call.finish || "unknown"}, ${money(call.cost)}, ${call.seconds} s`);
  box.append(top);
  if (systems[call.system]) box.append(make("h4", "System prompt"), raw(systems[call.system]));
  for (const [role, text] of call.prompt) box.append(make("h4", `Prompt, ${role}`), raw(text));
  box.append(make("h4", "Raw reply"), raw(call.reply || "(empty)"));
  return box;
}

function raw(text) { const e = make("pre"); e.append(apart(text)); return e; }
function named(name, text) {
  const e = make("pre");
  e.append(make("b", name));
  for (const one of String(text).split("\n")) e.append(e.childNodes.length === 1 ? " " : "\n", apart(one));
  return e;
}

// -- CSV: cells that a spreadsheet would compute get an apostrophe, as in the CSV of the results
function csv(name, rows) {
  const cell = text => {
    const safe = /^\s*[=+\-@＝＋－＠]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const text = rows.map(row => row.map(value => cell(String(value))).join(",")).join("\n") + "\n";
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([text], {type: "text/csv"}));
  link.download = `${name.trim().replace(/[^\w.-]+/g, "-")}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
for (const button of document.querySelectorAll("button.csv")) {
  const table = button.parentElement.previousElementSibling;
  button.addEventListener("click", () => csv(table.dataset.name,
    [...table.rows].map(row => [...row.cells].map(cell => cell.textContent.trim().replace(/\s+/g, " ")))));
}

// -- filters, and links to them
const links = {task: "task", a: "arm", was: "outcome", b: "arm-b", other: "outcome-b", steps: "steps"};
const filters = ["only", "arm", "outcome", "arm-b", "outcome-b", "status", "steps"];
function clear() { filters.forEach(id => { at(id).selectedIndex = 0; }); at("words").value = ""; }
function follow() {
  const asked = new URLSearchParams(location.hash.slice(1));
  if (!asked.has("task")) return;
  at("task").value = asked.get("task");
  choices();
  clear();
  for (const [key, id] of Object.entries(links)) if (key !== "task" && asked.has(key)) at(id).value = asked.get(key);
  choose();
  at("questions").scrollIntoView();
}
const refresh = Number(document.documentElement.dataset.refresh);
if (refresh) setInterval(() => { if (!document.querySelector("tr.whole")) location.reload(); }, 1000 * refresh);
if (data.length) {
  data.forEach((one, i) => at("task").append(option(one.task, i)));
  at("task").parentElement.hidden = data.length === 1;
  const outcomes = [["anything", ""], ["right", "r"], ["wrong", "w"], ["failed", "f"]];
  for (const id of ["outcome", "outcome-b"]) at(id).append(...outcomes.map(([text, value]) => option(text, value)));
  at("task").addEventListener("change", () => { choices(); clear(); sorting = {column: "", down: false}; choose(); });
  for (const id of [...filters, "words"]) at(id).addEventListener("input", choose);
  at("a-not-b").addEventListener("click", () => { at("outcome").value = "r"; at("outcome-b").value = "w"; choose(); });
  at("swap").addEventListener("click", () => {
    [at("arm").value, at("arm-b").value] = [at("arm-b").value, at("arm").value];
    choose();
  });
  at("clear").addEventListener("click", () => { clear(); choose(); });
  at("more").addEventListener("click", more);
  at("csv").addEventListener("click", () => csv(`questions-${part().task}`, [
    ["id", "question", "gold", "steps", ...part().arms.flatMap(arm => [arm.letters, `${arm.letters} status`, `${arm.letters} answer`])],
    ...found.map(({q}) => [q.id, q.q, q.g, q.n, ...q.r.flatMap(r => [said[r[0]], r[1], r[2]])]),
  ]));
  window.addEventListener("hashchange", follow);
  document.addEventListener("click", event => {  // a link that was followed before changes no hash
    const link = event.target.closest("a");
    if (link && (link.getAttribute("href") || link.getAttribute("xlink:href")) === location.hash) follow();
  });
  choices();
  choose();
  follow();
}
