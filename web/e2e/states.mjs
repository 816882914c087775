// The page against a made-up server, which answers what a recording of any size could, as slowly or as badly as a test wants it.
import { readFileSync } from "node:fs";
import { dirname, extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { at, check, must, until, watch } from "./harness.mjs";

const dist = join(dirname(fileURLToPath(import.meta.url)), "../dist");
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; font-src 'self'; " +
  "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'";
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".woff2": "font/woff2" };
const HOST = "recording.test";
const EVENTS = 10_000_000;

const m = (event, instr = 0) => ({ event, instr });
const task = { tid: 77, serial: 1 };
const focus = (event, instr = 0, frame = 0) => ({ moment: m(event, instr), task, frame });
const fn = (name) => ({ name, full: name, id: `1:${name}` });
const end = m(EVENTS);
const columns = Array.from({ length: 101 }, (_, i) => m((EVENTS / 100) * i));

/** Rows of a window over moments that lie `step` events apart. */
function around(params, step, row) {
  const from = params.from.event + (params.from.instr > 0 ? 1 : 0);
  const rows = [];
  const forward = params.direction === "forward";
  let event = forward ? Math.ceil(from / step) * step : (Math.ceil(from / step) - 1) * step;
  for (; rows.length < params.limit && event >= 0 && event < EVENTS; event += forward ? step : -step) rows.push(row(event));
  return { rows, more: event >= 0 && event < EVENTS };
}

const answers = {
  info: () => [{ title: "huge", instructions: 4e10, events: EVENTS, tasks: 1, segments: 100, databaseBytes: 1e9, complete: true, start: m(0), end, firstFocus: focus(5_000_000), firstFocusReason: "exit" }],
  "complete-frame": ({ focus: f }) => [{ focus: f, task, pc: "0x1000", function: fn("work"), location: { file: "/src/huge.c", line: 1 + (f.moment.event % 1000) } }],
  stack: ({ focus: f }) => [{ frame: 0, function: fn(`work_at_${f.moment.event}`), pc: "0x1000", args: [], focus: f, kind: "call" }],
  variables: () => [{ name: "p", kind: "local", value: { why: "optimized out here", type: "int *" } }],
  timeline: () => [{ from: m(0), to: end, instructions: 4e10, columns, lanes: [{ task, runs: [[0, 100, 100]] }], segments: columns.slice(0, 100).map((_, i) => i) }],
  "task-tree": () => [{ task, kind: "process", how: "initial", name: "huge", start: m(0), end, execs: [] }],
  stdouterr: () => [],
  signals: () => [],
  dynamicAnnotations: () => [],
  "functions-in-file": () => [],
  source: ({ file }) => [{ file, url: `/sources${file}`, found: true }],
  counts: () => [{ total: 10_000_000, buckets: columns.slice(0, 100).map((_, i) => i * 2000) }],
  events: (p) => around(p, 1, (event) => ({ focus: focus(event), task, number: event + 1, name: "read exit" })),
  execution: (p) => around(p, 10, (event) => ({ focus: focus(event, 5), task, function: fn("work"), args: [{ name: "n", value: { text: String(event) } }] })),
  search: ({ input }) => [{ kind: "function", title: input, detail: "", action: { view: "execution", function: fn(input) } }],
};

/** A window on the made-up server. onGdb(message, send): answers what is for a gdb. `slow` and `broken`: by query, what to do in place of answering; `other`: other answers. */
async function open(browser, { slow = {}, broken = {}, other = {}, hash = "", onGdb } = {}) {
  const page = watch(await browser.newPage({ viewport: { width: 1440, height: 900 } }), HOST);
  const asked = [];
  const cancelled = new Set();
  await page.route(`http://${HOST}/**`, (route) => {
    const path = new URL(route.request().url()).pathname;
    if (path.startsWith("/sources/"))
      return route.fulfill({ contentType: "text/plain", body: Array.from({ length: 60_000 }, (_, i) => `int line_${i + 1};`).join("\n") });
    const body = readFileSync(join(dist, path));
    return route.fulfill({ contentType: TYPES[extname(path)], headers: { "content-security-policy": POLICY }, body });
  });
  await page.routeWebSocket(`ws://${HOST}/ws`, (ws) => {
    const send = (message) => ws.send(JSON.stringify(message));
    send({ hello: { version: 1, title: "huge", persistent: true } });
    send({ storedAll: true });
    ws.onMessage((text) => {
      const { id, query, params, cancel, gdb, ...rest } = JSON.parse(text);
      if (gdb !== undefined) return onGdb({ gdb, ...rest }, (answer) => send({ gdb, ...answer }));
      if (cancel !== undefined) {
        cancelled.add(cancel);
        send({ id: cancel, done: true, more: false, cancelled: true });
      }
      if (!query) return;
      asked.push({ id, query, params });
      if (broken[query]) return send({ id, error: { kind: "format", message: broken[query] } });
      const answer = (other[query] ?? answers[query])?.(params) ?? [];
      const { rows, more } = Array.isArray(answer) ? { rows: answer, more: false } : answer;
      const give = () => {
        for (let i = 0; i < rows.length; i += 50) send({ id, rows: rows.slice(i, i + 50) });
        send({ id, done: true, more });
      };
      const wait = slow[query]?.(params) ?? 0;
      if (wait === Infinity) send({ id, progress: 0.25 });
      else if (wait > 0) setTimeout(give, wait); // on purpose also when it was cancelled meanwhile
      else give();
    });
  });
  await page.goto(`http://${HOST}/index.html${hash}`);
  return { page, asked, cancelled };
}

const layout = (...panes) => `&l=60:source*50/40:${panes.join(",")}`;

export async function testStates(browser) {
  at.errors.length = 0;

  await check("ten million rows scroll, by wheel, key and bar, and few of them exist", async () => {
    const { page } = await open(browser, { hash: `#f=5000000.0.1.0${layout("events*50")}` });
    const rows = page.locator("#main > .events .row");
    await page.locator("#main > .events .row", { hasText: "5\u202f000\u202f000" }).waitFor();
    must((await rows.count()) < 100, "too many rows exist");
    const list = page.locator("#main > .events .list");
    await list.focus();
    await page.keyboard.press("End");
    await page.locator("#main > .events .row", { hasText: "10\u202f000\u202f000" }).waitFor();
    await page.keyboard.press("Home");
    await page.locator("#main > .events .row", { hasText: /^1read/ }).waitFor();
    await list.hover();
    await page.mouse.wheel(0, 210);
    await until(async () => (await rows.first().boundingBox()) !== null);
    await page.locator("#main > .events .row", { hasText: /^2[0-9]read/ }).first().waitFor();
    await list.evaluate((el) => (el.scrollTop = el.scrollHeight / 2));
    await page.locator("#main > .events .row", { hasText: /^[45].\d{3}.\d{3}read/ }).first().waitFor();
    await page.close();
  });

  await check("rows around now come first, more at either end by scrolling, and a bounded number is kept", async () => {
    const { page, asked } = await open(browser, { hash: `#f=5000000.0.1.0${layout("execution*50~1%3Awork~work")}` });
    const pane = page.locator("#main > .execution");
    await pane.locator(".row", { hasText: "n=4999990" }).waitFor();
    await pane.locator("hr.now").waitFor();
    await page.locator(".bar", { hasText: "10\u202f000\u202f000 calls" }).waitFor();
    await pane.locator(".list").focus();
    for (let i = 0; i < 12; i++) {
      const before = asked.length;
      // Until the rows asked for before are there, the key changes nothing.
      await until(async () => {
        await page.keyboard.press("Home");
        return asked.slice(before).some((a) => a.query === "execution" && a.params.direction === "backward");
      });
    }
    must((await pane.locator(".row").count()) < 100, "too many rows exist");
    const size = await pane.locator(".sizer").evaluate((el) => el.clientHeight / 21);
    must(size > 2000 && size <= 4001, `${size} rows are held`);
    await page.close();
  });

  await check("a database that is being made is told as such, and looked at again as it grows", async () => {
    let looks = 0;
    const info = () => [{ ...answers.info()[0], instructions: 1000 * ++looks, end: m(Math.min(looks, 3) * 1000), complete: looks >= 3 }];
    const events = (p) => around(p, 1, (event) => ({ focus: focus(event), task, number: event + 1, name: `look ${looks}` }));
    const { page, asked } = await open(browser, { other: { info, events }, hash: `#f=500.0.1.0${layout("events*50")}` });
    await page.locator(".growing", { hasText: "1\u202f000 instructions" }).waitFor();
    await page.locator("#main > .events .row", { hasText: "look 1" }).first().waitFor();
    await page.locator(".growing", { hasText: "2\u202f000 instructions" }).waitFor();
    await page.locator(".growing").waitFor({ state: "detached" });
    await page.locator("#main > .events .row", { hasText: "look 3" }).first().waitFor();
    await page.waitForTimeout(2500);
    must(asked.filter((a) => a.query === "info").length === 3, "a complete database is looked at again");
    await page.close();
  });

  await check("an old answer never overwrites a newer one", async () => {
    const slow = { stack: ({ focus: f }) => (f.moment.event === 4_999_980 ? 1500 : 0) };
    const { page, cancelled, asked } = await open(browser, { slow, hash: `#f=5000000.0.1.0${layout("stack*50", "execution*50~1%3Awork~work")}` });
    await page.locator("#main > .execution .row", { hasText: "n=4999980" }).click();
    await page.locator("#main > .execution .row", { hasText: "n=4999960" }).click();
    await page.locator("#main > .stack .row", { hasText: "work_at_4999960" }).waitFor();
    await page.waitForTimeout(1700);
    await page.locator("#main > .stack .row", { hasText: "work_at_4999960" }).waitFor();
    const old = asked.find((a) => a.query === "stack" && a.params.focus.moment.event === 4_999_980);
    must(cancelled.has(old.id), "the old question was not cancelled");
    await page.close();
  });

  await check("going back asks nothing again", async () => {
    const { page, asked } = await open(browser, { hash: `#f=5000000.0.1.0${layout("stack*50", "execution*50~1%3Awork~work")}` });
    await page.locator("#main > .stack .row", { hasText: "work_at_5000000" }).waitFor();
    await page.locator("#main > .execution .row", { hasText: "n=4999980" }).click();
    await page.locator("#main > .stack .row", { hasText: "work_at_4999980" }).waitFor();
    await page.waitForTimeout(300);
    const before = asked.filter((a) => a.query === "stack").length;
    await page.goBack();
    await page.locator("#main > .stack .row", { hasText: "work_at_5000000" }).waitFor();
    must(asked.filter((a) => a.query === "stack").length === before, "the stack was asked for again");
    await page.close();
  });

  await check("what was shown stays while a slow answer is on its way, with its share done, and can be stopped", async () => {
    const slow = { stack: ({ focus: f }) => (f.moment.event === 4_999_980 ? Infinity : 0) };
    const { page, cancelled } = await open(browser, { slow, hash: `#f=5000000.0.1.0${layout("stack*50", "execution*50~1%3Awork~work")}` });
    await page.locator("#main > .stack .row", { hasText: "work_at_5000000" }).waitFor();
    await page.locator("#main > .execution .row", { hasText: "n=4999980" }).click();
    const progress = page.locator("#main > .stack").getByRole("progressbar");
    await until(async () => (await progress.getAttribute("aria-valuenow")) === "0.25");
    await page.locator("#main > .stack .row", { hasText: "work_at_5000000" }).waitFor();
    await page.locator("#main > .stack").getByRole("button", { name: "stop" }).click();
    await progress.waitFor({ state: "detached" });
    must(cancelled.size > 0, "nothing was cancelled");
    await page.close();
  });

  await check("a failure is told in its pane, with the reason, and the others go on", async () => {
    const { page } = await open(browser, { broken: { variables: "segment 3 at 0x40: checksum wrong" } });
    await page.locator("#main > .variables .why", { hasText: "segment 3 at 0x40: checksum wrong" }).waitFor();
    await page.locator("#main > .stack .row").first().waitFor();
    await page.close();
  });

  await check("a recording that cannot be opened is told", async () => {
    const { page } = await open(browser, { broken: { info: "meta: version 9 is not known" } });
    await page.locator("#main", { hasText: "meta: version 9 is not known" }).waitFor();
    await page.close();
  });

  await check("a session begins in the innermost frame of which the source is there", async () => {
    const at = (name, file) => ({ function: fn(name), pc: "0x1000", args: [], kind: "call", ...(file ? { location: { file, line: 3 } } : {}) });
    const frames = [at("raise"), at("abort", "/libc/abort.c"), at("fail", "/libc/abort.c"), at("work", "/src/huge.c")];
    const other = {
      stack: ({ focus: f }) => frames.map((r, frame) => ({ ...r, frame, focus: f })),
      source: ({ file }) => [{ file, url: `/sources${file}`, found: file.startsWith("/src/") }],
    };
    const { page } = await open(browser, { other });
    await page.locator("#main > .stack .row.focus", { hasText: "work" }).waitFor();
    must(/^#f=5000000\.0\.1\.3&/.test(new URL(page.url()).hash), `the address is ${page.url()}`);
    await page.close();
  });

  await check("with no source a session begins in the program's innermost frame, behind those of rr's library", async () => {
    const at = (name, module) => ({ function: fn(name), pc: "0x1000", args: [], kind: "call", module, location: { file: `/src/${name}.c`, line: 3 } });
    const frames = [at("raw_syscall", "/usr/lib/rr/librrpreload.so"), at("exit", "/lib/libc.so.6"), at("main", "/bin/a")];
    const other = {
      stack: ({ focus: f }) => frames.map((r, frame) => ({ ...r, frame, focus: f })),
      source: ({ file }) => [{ file, url: `/sources${file}`, found: false }],
    };
    const { page } = await open(browser, { other });
    await page.locator("#main > .stack .row.focus", { hasText: "exit" }).waitFor();
    must((await page.locator("#main > .stack .row.recorder").count()) === 1, "rr's frame is told apart");
    await page.close();
  });

  await check("why a value cannot be shown stands in its place", async () => {
    const { page } = await open(browser);
    await page.locator("#main > .variables .row .why", { hasText: "optimized out here" }).waitFor();
    await page.close();
  });

  await check("bytes that another task wrote lead to both ends", async () => {
    const writer = { focus: { moment: m(3_000_000, 7), task: { tid: 78, serial: 2 }, frame: 0 }, task: { tid: 78, serial: 2 }, fd: 4, text: "write(4, 0x10, 2) = 0x2" };
    const row = { id: 1, kind: "transfer", through: "pipe", text: "read(3, 0x20, 2) = 0x2", fd: 3, streamOffset: 0, writer, focus: focus(4_000_000),
      task, offset: 0, length: 2, value: "6869", from: { address: "0x10", length: 2 }, to: { address: "0x20", length: 2 } };
    for (const view of ["dataflow", "uses"]) {
      const { page } = await open(browser, { other: { [view]: () => [row] }, hash: `#f=5000000.0.1.0&l=50:${view}*30~0x20%3A2@5000000.0.1.0` });
      const shown = page.locator(`#main > .${view} .row`, { hasText: "through a pipe" });
      await shown.locator("button.writer", { hasText: "written by 78 at" }).click();
      await until(() => page.url().includes("#f=3000000.7.2.0"));
      await shown.click({ position: { x: 20, y: 8 } });
      await until(() => page.url().includes("#f=4000000.0.1.0"));
      await page.close();
    }
  });

  await check("input says why it is not known who wrote it", async () => {
    const row = { id: 1, kind: "input", text: "read(0, 0x20, 2) = 0x2", fd: 0, why: "open before the recording began", focus: focus(4_000_000), task,
      offset: 0, length: 2, value: "6869", to: { address: "0x20", length: 2 } };
    const { page } = await open(browser, { other: { dataflow: () => [row] }, hash: "#f=5000000.0.1.0&l=50:dataflow*30~0x20%3A2@5000000.0.1.0" });
    await page.locator("#main > .dataflow .row .why", { hasText: "open before the recording began" }).waitFor();
    await page.close();
  });

  await check("a source of sixty thousand lines is at its line at once, and few lines exist", async () => {
    const { page } = await open(browser, { hash: "#f=5000999.0.1.0" });
    const source = page.frameLocator("#main > .view.source iframe").locator("#monaco-container");
    await source.locator(".cm-line.focus", { hasText: "int line_1000;" }).waitFor();
    must((await source.locator(".cm-line").count()) < 300, "too many lines exist");
    await page.close();
  });

  await check("a source that is on the web only is told with a link to it; another kind of address is no link", async () => {
    const row = (address) => ({ source: ({ file }) => [{ file, url: `/sources${file}`, found: false, why: "this file is on the web", address }] });
    const { page } = await open(browser, { other: row("https://host.test/r/huge.c?raw") });
    const told = page.locator("#main > .source .why");
    await told.filter({ hasText: "this file is on the web" }).waitFor();
    const link = told.locator("a");
    must((await link.getAttribute("href")) === "https://host.test/r/huge.c?raw", "no such link");
    must((await link.getAttribute("rel")) === "noopener noreferrer", "the other page would know this one");
    await page.close();
    const { page: odd } = await open(browser, { other: row("javascript:alert(1)") });
    await odd.locator("#main > .source .why", { hasText: "this file is on the web" }).waitFor();
    must((await odd.locator("#main > .source .why a").count()) === 0, "a link to a script");
    await odd.close();
  });

  await check("gdb's terminal shows, takes what is typed, and goes with the focus both ways", async () => {
    const heard = [];
    const say = new Map();
    const hex = (text) => Buffer.from(text).toString("hex");
    const onGdb = (m, send) => {
      heard.push(m);
      say.set(m.gdb, send);
      if (m.open) send({ output: hex("\x1b[31mred\x1b[m and \x1b[38;2;1;2;3mother\x1b[m\r\n(gdb) ") });
      if (m.input?.includes("x")) send({ output: hex(m.input) });
    };
    const { page } = await open(browser, { onGdb, hash: `#f=5000000.0.1.0${layout("gdb*70", "stack*30")}` });
    const pane = page.locator("#main > .gdb");
    await pane.locator(".xterm-rows", { hasText: "red and other" }).waitFor();
    must(heard[0].open.focus.moment.event === 5_000_000, "it does not begin at the focus");
    must(heard[0].open.size[0] > 40 && heard[0].open.size[1] > 10, `a terminal of ${heard[0].open.size}`);
    await until(() => heard.some((m) => m.taken > 20));
    const colour = await pane.locator(".xterm-rows span", { hasText: /^red$/ }).evaluate((e) => getComputedStyle(e).color);
    const plain = await pane.locator(".xterm-rows span", { hasText: "and" }).first().evaluate((e) => getComputedStyle(e).color);
    must(colour !== plain, `its colours are not applied: ${colour}`);
    await pane.locator(".terminal-host").click();
    await page.keyboard.type("x/i q?"); // keys of the page are gdb's now
    await pane.locator(".xterm-rows", { hasText: "(gdb) x" }).waitFor();
    await until(() => heard.map((m) => m.input ?? "").join("") === "x/i q?");
    // gdb goes somewhere: the page follows, and does not send it there again.
    const first = heard[0].gdb;
    say.get(first)({ focus: focus(6_000_000, 5, 0) });
    await page.locator("#main > .stack .row", { hasText: "work_at_6000000" }).waitFor();
    must(!heard.some((m) => m.focus), "gdb is told where it went");
    await page.goBack();
    await until(() => heard.some((m) => m.focus?.moment.event === 5_000_000));
    // Folding keeps it, as does another one, which goes along.
    await pane.getByRole("button", { name: "unfold" }).or(pane.getByRole("button", { name: "fold" })).click();
    await pane.locator(".xterm-rows").waitFor({ state: "detached" });
    await pane.getByRole("button", { name: "unfold" }).click();
    await pane.locator(".xterm-rows", { hasText: "red and other" }).waitFor();
    await pane.getByRole("button", { name: "another" }).click();
    await page.locator("#main > .gdb h2", { hasText: "gdb 2" }).waitFor();
    await until(() => heard.filter((m) => m.open).length === 2);
    const second = heard.find((m) => m.open && m.gdb !== first).gdb;
    say.get(second)({ focus: focus(7_000_000) });
    await until(() => heard.some((m) => m.gdb === first && m.focus?.moment.event === 7_000_000));
    say.get(second)({ closed: "gdb was ended by signal 9 (Killed)" });
    await pane.locator(".closed", { hasText: "signal 9" }).getByRole("button", { name: "Start again" }).click();
    await until(() => heard.filter((m) => m.open).length === 3);
    must(heard.filter((m) => m.open)[2].open.focus.moment.event === 7_000_000, "it begins again elsewhere");
    await page.locator("#main > .gdb", { has: page.locator("h2", { hasText: /^gdb$/ }) }).getByRole("button", { name: "close" }).click();
    await until(() => heard.some((m) => m.close && m.gdb === first));
    await page.close();
  });

  await check("damaged addresses begin a session as if they were not there", async () => {
    for (const hash of ["#f=x.y&l=%zz", "#", "#f=1e9.0.1.0&l=9:nonsense*1", "#l=50:stack*3&f=3"]) {
      const { page } = await open(browser, { hash });
      await page.locator("#main .viewTitle").first().waitFor();
      await until(() => page.url().includes("#f=5000000.0.1.0"));
      await page.close();
    }
  });

  await check("no page of these logged an error", async () => must(at.errors.length === 0, at.errors.join("; ")));
}
