// The page as a user meets it: a real server on the demo recording. Steps follow the on-premises product's own
// test, whose element ids and classes the page keeps.
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { testGdb } from "./gdb.mjs";
import { at, check, must, until, watch } from "./harness.mjs";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const program = process.env.PERNOSCO ?? join(root, "build/pernosco");
const work = mkdtempSync(join(tmpdir(), "pernosco-e2e-"));
const storage = join(work, "storage");
const trace = join(work, "demo/postbox");
function run(...command) {
  const r = spawnSync(command[0], command.slice(1), { encoding: "utf8" });
  must(r.status === 0, `${command.join(" ")}: ${r.stderr}`);
}

async function serve(port = "0") {
  const child = spawn(program, ["serve", "--storage", storage, "--sources", `/demo=${root}/demo`, "--tunnel", `127.0.0.1:${port}`, trace]);
  let text = "";
  const url = await new Promise((resolve, reject) => {
    child.stdout.on("data", (d) => {
      text += d;
      const m = /Appserver launched at (http:\S+)/.exec(text);
      if (m) resolve(m[1]);
    });
    child.stderr.on("data", (d) => process.stderr.write(d));
    child.on("exit", (code) => reject(new Error(`serve ended with ${code}`)));
  });
  return {
    url,
    stop: () =>
      new Promise((resolve) => {
        child.removeAllListeners("exit");
        child.on("exit", resolve);
        child.kill("SIGINT");
      }),
  };
}

let server;

export async function testDemo(browser) {
  try {
    run(join(root, "tests/traces/unpack"), join(work, "demo"), join(root, "demo/recording.tar.zst"));
    run(program, "build", trace);
    await story(browser);
  } finally {
    await server?.stop();
    rmSync(work, { recursive: true, force: true });
  }
}

async function story(browser) {
  server = await serve();
  const fresh = async () => watch(await browser.newPage({ viewport: { width: 1440, height: 900 } }));
  let page = await fresh();
  at.errors.length = 0;
  const from = Date.now();
  await page.goto(server.url);
  await page.locator("#searchInput").waitFor();
  const painted = Date.now() - from;
  const title = (p = page) => p.locator(".view.source > .viewTitle");
  const source = (p = page) => p.frameLocator("#main > .view.source iframe").locator("#monaco-container");
  const rows = (view) => page.locator(`#main > .${view} > .contents > div`);
  const note = (p = page) => p.locator("#main > .notebook > .contents > div > div:nth-child(2) > textarea");
  const search = async (text) => {
    await page.keyboard.press("Control+S");
    await page.keyboard.type(text);
  };

  await check("the session begins at the fatal signal, with its source and stack", async () => {
    await title().filter({ hasText: "digest.c" }).waitFor();
    await source().filter({ hasText: "text_add" }).waitFor();
    await rows("stack").filter({ hasText: "text_add" }).and(page.locator(".focus")).first().waitFor();
    await source().locator(".cm-line.focus", { hasText: "while (*string" }).waitFor();
    console.log(`     the first paint took ${painted} ms`);
  });
  await check("the text is in the frame's own document, as scripts for the product expect it", async () => {
    const frame = page.frames().find((f) => f !== page.mainFrame());
    const text = await frame.evaluate(() => document.querySelector("#monaco-container").textContent);
    must(text.includes("static void text_add("), "the source is not there");
  });
  await check("values stand behind the line of now", async () => {
    await source().locator(".cm-line.focus .line-values", { hasText: "string = 0x65687420676e6972" }).waitFor();
  });
  await check("search finds a function, shows it in miniature, and Return opens its executions", async () => {
    await search("message_destroy");
    await page.locator("#searchDropdown > *:nth-child(1)", { hasText: "message_destroy" }).waitFor();
    await page.locator(".dropdown .miniature .row", { hasText: "message_destroy" }).first().waitFor();
    await page.keyboard.press("Enter");
    await rows("execution").filter({ hasText: "message_destroy" }).first().waitFor();
    must((await page.locator("#searchInput").inputValue()) === "", "the search box keeps its text");
    await page.locator("#main > .execution .bar", { hasText: "41 calls" }).waitFor();
  });
  const before = page.url();
  await check("a click on an execution moves source, stack and URL", async () => {
    await rows("execution").filter({ hasText: "message_destroy" }).last().click();
    await title().filter({ hasText: "message.c" }).waitFor();
    await rows("stack").filter({ hasText: "message_release" }).waitFor();
    must(page.url() !== before, "the URL did not change");
  });
  const there = page.url();
  await check("back undoes it, forward does it again, and the panes stay", async () => {
    await page.goBack();
    await title().filter({ hasText: "digest.c" }).waitFor();
    await page.goForward();
    await title().filter({ hasText: "message.c" }).waitFor();
    await page.locator("#main > .execution").waitFor();
    must(page.url() === there, "forward led elsewhere");
  });
  await check("a URL opens the same moment and the same panes in another window", async () => {
    const other = await browser.newPage();
    await other.goto(there);
    await title(other).filter({ hasText: "message.c" }).waitFor();
    await other.locator("#main > .execution").waitFor();
    await other.close();
  });
  await check("a value in memory tells who wrote it", async () => {
    await page.locator("#main > .variables button.value").first().click();
    await rows("watchpoint").first().waitFor();
    await page.locator("#main > .watchpoint hr.now").waitFor();
    await page.locator("#main > .watchpoint").getByRole("button", { name: "close" }).click();
  });
  await check("a marked line goes to its execution, a line's number opens the line's executions", async () => {
    await source().locator(".cm-line.strong", { hasText: "free(message->subject)" }).click();
    await source().locator(".cm-line.focus", { hasText: "free(message->subject)" }).waitFor();
    const number = source().locator(".cm-lineNumbers .cm-gutterElement", { hasText: /^40$/ });
    await until(async () => {
      await page.mouse.wheel(0, 100); // lines out of view need not exist
      return (await number.count()) > 0;
    });
    await number.click();
    await page.locator("#main > .breakpoint > .viewTitle", { hasText: "message.c:40" }).waitFor();
  });
  await check("a click on the timeline moves the focus, a drag zooms", async () => {
    const box = await page.locator("canvas.timeline").boundingBox();
    const at = page.url();
    await page.mouse.click(box.x + box.width / 4, box.y + 10);
    await until(() => page.url() !== at);
    await page.mouse.move(box.x + box.width * 0.5, box.y + 10);
    await page.mouse.down();
    await page.mouse.move(box.x + box.width * 0.6, box.y + 10, { steps: 4 });
    await page.mouse.up();
    await page.getByRole("button", { name: "whole" }).click();
    await page.locator(".timeline-side", { hasText: "instr." }).waitFor();
    await page.goBack();
    await until(() => page.url().split("&")[0] === at.split("&")[0]);
  });
  await check("panes can be moved by their titles, closed, and brought back", async () => {
    const left = async () => (await page.locator("#main > .variables").boundingBox()).x;
    const was = await left();
    const grip = await page.locator("#main > .variables > .viewTitle h2").boundingBox();
    const target = await page.locator("#main > .source").boundingBox();
    await page.mouse.move(grip.x + 4, grip.y + 6);
    await page.mouse.down();
    await page.mouse.move(target.x + target.width / 2, target.y + target.height - 30, { steps: 5 });
    await page.mouse.up();
    await until(async () => (await left()) < was);
    await source().filter({ hasText: "message" }).waitFor();
    await page.locator("#main > .variables").getByRole("button", { name: "close" }).click();
    await page.locator("#main > .variables").waitFor({ state: "detached" });
    await page.getByRole("button", { name: "Undo" }).click();
    await page.locator("#main > .variables").waitFor();
  });
  await check("borders can be dragged, and moved with the keyboard", async () => {
    const width = async () => (await page.locator("#main > .source").boundingBox()).width;
    const was = await width();
    const bar = page.locator("#main > .splitter.columns").first();
    await bar.focus();
    await page.keyboard.press("ArrowRight");
    await until(async () => (await width()) > was + 10);
    const box = await bar.boundingBox();
    await page.mouse.move(box.x, 500);
    await page.mouse.down();
    await page.mouse.move(box.x - 100, 500, { steps: 3 });
    await page.mouse.up();
    await until(async () => (await width()) < was);
  });
  await check("the tentative note becomes a note that is typed into at once", async () => {
    await search("notebook");
    await page.locator("#searchDropdown > *:nth-child(1)", { hasText: "otebook" }).waitFor();
    await page.keyboard.press("Enter");
    await page.locator("#main > .notebook > .contents > div.focus").first().waitFor();
    await page.locator("#main > .notebook > .contents > div > div.tentative").click();
    await note().waitFor();
    must((await note().inputValue()) === "", "the note has a text already");
    await page.keyboard.type("HelloKitty");
    must((await note().inputValue()) === "HelloKitty", "typing did not go into the note");
    await page.waitForTimeout(500);
  });
  await check("a second window shows it, live, and its colour", async () => {
    const other = await browser.newPage();
    await other.goto(server.url);
    await note(other).waitFor();
    must((await note(other).inputValue()) === "HelloKitty", "another text");
    await note().fill("changed");
    await until(async () => (await note(other).inputValue()) === "changed");
    await note(other).fill("HelloKitty");
    await until(async () => (await note().inputValue()) === "HelloKitty");
    await page.locator("#main > .notebook .note").hover();
    await page.locator("#main > .notebook .swatch.green").click();
    await other.locator("#main > .notebook .note.mark.green").waitFor();
    await other.close();
  });
  await check("the panes found in a new window are those that were left", async () => {
    await page.waitForTimeout(600);
    const other = await browser.newPage();
    await other.goto(server.url);
    await other.locator("#main > .breakpoint").waitFor();
    await other.close();
  });
  await check("a lost server is said, and the page goes on when it is back, with the note", async () => {
    const port = new URL(server.url).port;
    must((await server.stop()) === 0, "serve did not end well");
    await page.locator(".notice.lost").waitFor();
    server = await serve(port);
    await page.locator(".notice.lost").waitFor({ state: "detached" });
    await rows("stack").first().click();
    await rows("stack").filter({ hasText: "main" }).first().waitFor();
  });
  await check("a restarted server still has the note, and shows it by itself", async () => {
    await page.close();
    must((await server.stop()) === 0, "serve did not end well");
    server = await serve();
    page = await fresh();
    await page.goto(server.url);
    await note().waitFor();
    must((await note().inputValue()) === "HelloKitty", "the note's text is lost");
  });
  await check("the keyboard steps, walks the stack, opens executions and shows its keys", async () => {
    await title().filter({ hasText: "digest.c" }).waitFor();
    const at = page.url();
    await page.keyboard.press("[");
    await until(() => page.url() !== at);
    await page.keyboard.press("u");
    await page.locator("#main > .stack > .contents > div.focus", { hasText: "text_add_line" }).waitFor();
    await page.keyboard.press("x");
    await page.locator("#main > .execution > .viewTitle", { hasText: "text_add_line" }).waitFor();
    await page.locator("#main > .execution.in-hand .row:not(.absent)").first().waitFor();
    const here = page.url();
    await page.keyboard.press("k");
    await page.keyboard.press("k");
    await page.locator("#main > .execution .row.active").waitFor();
    await page.keyboard.press("Enter");
    await until(() => page.url() !== here);
    await page.keyboard.press("?");
    await page.getByRole("dialog", { name: "keys" }).waitFor();
    await page.keyboard.press("Escape");
    await page.getByRole("dialog", { name: "keys" }).waitFor({ state: "detached" });
  });
  await check("the keyboard goes through the source's lines", async () => {
    await source().locator(".cm-content").focus();
    await page.keyboard.press("ArrowDown");
    await source().locator(".cm-line.cursor").waitFor();
    await page.keyboard.press("x");
    await page.locator("#main > .breakpoint > .viewTitle").first().waitFor();
  });
  await check("all views can be opened, and none of them fails", async () => {
    for (const name of ["Registers", "Instructions", "Memory", "Heap", "Alerts", "Signals", "Task tree", "Current tasks", "Events"]) {
      await page.keyboard.press("Control+S");
      await page.keyboard.type(name);
      await page.locator("#searchDropdown > *:nth-child(1)", { hasText: name }).waitFor();
      await page.keyboard.press("Enter");
      const view = page.locator("#main > .view", { has: page.locator("h2", { hasText: new RegExp(`^${name}$`) }) });
      await view.waitFor();
      if (name !== "Memory") await view.locator(".contents > div:not(.absent)").first().waitFor();
    }
  });
  const openInstructions = async () => {
    await page.goto(server.url);
    await page.keyboard.press("Control+S");
    await page.keyboard.type("Instructions");
    await page.locator("#searchDropdown > *:nth-child(1)", { hasText: "Instructions" }).waitFor();
    await page.keyboard.press("Enter");
    await page.locator("#main > .instructions .row:not(.absent)").first().waitFor();
  };
  await check("a register's value is followed to where it came from", async () => {
    await openInstructions();
    await page.locator("#main > .instructions .row", { hasText: "mov rax, [rbp-0x10]" }).locator("button.value").first().click();
    await page.locator("#main > .dataflow > .viewTitle", { hasText: "Dataflow of" }).waitFor();
    await page.locator("#main > .dataflow .row", { hasText: "copied" }).first().waitFor();
    const at = page.url();
    await page.locator("#main > .dataflow .row").first().click();
    await until(() => page.url() !== at);
  });
  await check("a value that an instruction made is followed to its uses", async () => {
    await openInstructions();
    await page.locator("#main > .instructions button.new").first().click();
    await page.locator("#main > .uses > .viewTitle", { hasText: "Uses of" }).waitFor();
    await page.locator("#main > .uses .row:not(.absent)").first().waitFor();
  });
  await check("who freed the memory that a pointer is left over of, and who has it now", async () => {
    await page.goto(server.url);
    const value = page.locator("#main > .stack .row", { hasText: "text_add_line" }).locator("[data-name=message]");
    await value.click({ button: "right" });
    await page.getByRole("menuitem", { name: "Life of the memory that it points to" }).click();
    const life = page.locator("#main > .allocation");
    await life.locator(".viewTitle", { hasText: "Life of *message" }).waitFor();
    const told = life.locator(".row:not(.absent)");
    await told.filter({ hasText: "message_destroy" }).waitFor();
    await until(async () => (await told.count()) === 3);
    const texts = await told.allInnerTexts();
    const wanted = [/^allocated\s+48 bytes\s+by calloc in\s+message_create/s, /^freed\s+.*by free in\s+message_destroy/s, /^allocated\s+51 bytes\s+by malloc in\s+copy_text/s];
    must(wanted.every((w, i) => w.test(texts[i])), `the life of a message is ${texts.join(" | ")}`);
    await life.locator(".bar .state", { hasText: "allocated" }).waitFor();
    if (process.env.SHOTS) await page.screenshot({ path: `${process.env.SHOTS}/life.png` });
    await told.filter({ hasText: "message_destroy" }).click();
    await source().locator(".cm-line.focus", { hasText: "free(message);" }).waitFor();
    await page.goto(server.url);
    await page.locator("#main > .stack .row", { hasText: "text_add_line" }).locator("[data-name=message]").hover();
    await page.keyboard.press("l"); // as of now, not of the call's entry
    await until(async () => (await life.count()) === 2);
  });
  await check("what is allocated is told by who allocated it", async () => {
    await page.goto(server.url);
    await search("leaks");
    await page.locator("#searchDropdown > *:nth-child(1)", { hasText: "Heap" }).waitFor();
    await page.keyboard.press("Enter");
    const heap = page.locator("#main > .allocations");
    await heap.locator(".bar", { hasText: /bytes in 6\d\d allocations/ }).waitFor();
    const first = heap.locator(".row:not(.absent)").first();
    must(/^99.360 bytes\s+in 270\s+by calloc in\s+member_create/s.test(await first.innerText()), `first ${await first.innerText()}`);
    if (process.env.SHOTS) await page.screenshot({ path: `${process.env.SHOTS}/heap.png` });
    await first.click({ button: "right" });
    await page.getByRole("menuitem", { name: "Life of the newest of them" }).click();
    await page.locator("#main > .allocation .row", { hasText: "member_create" }).waitFor();
  });
  await check("who wrote a wrong value is found with the keyboard alone", async () => {
    await page.goto(server.url);
    await title().filter({ hasText: "digest.c" }).waitFor();
    await page.locator("#main > .variables .list").focus();
    await page.locator("#main > .variables .row").first().waitFor();
    await page.keyboard.press("j");
    await page.keyboard.press("w");
    await page.locator("#main > .watchpoint > .viewTitle", { hasText: "Writes of" }).first().waitFor();
  });
  await check("panes dropped onto each other show their rows in order of time, and part again", async () => {
    await page.goto(server.url);
    await title().filter({ hasText: "digest.c" }).waitFor();
    await search("message_destroy");
    await page.locator("#searchDropdown > *:nth-child(1)", { hasText: "message_destroy" }).waitFor();
    await page.keyboard.press("Enter");
    await rows("execution").filter({ hasText: "message_destroy" }).first().waitFor();
    const output = await page.locator("#main > .stdouterr > .viewTitle").boundingBox();
    const into = await page.locator("#main > .execution", { hasText: "message_destroy" }).boundingBox();
    await page.mouse.move(output.x + 60, output.y + 8);
    await page.mouse.down();
    await page.mouse.move(into.x + into.width / 2, into.y + into.height / 2, { steps: 4 });
    await page.locator("#main > .drop").waitFor();
    await page.mouse.up();
    const joined = page.locator("#main > .join");
    await joined.locator(".viewTitle", { hasText: "Executions of message_destroy + Output" }).waitFor();
    await rows("join").filter({ hasText: "message_destroy" }).first().waitFor();
    await rows("join").filter({ hasText: /day \d+: / }).first().waitFor();
    await page.locator("#main > .stdouterr").waitFor({ state: "detached" });
    if (process.env.SHOTS) await page.screenshot({ path: `${process.env.SHOTS}/join.png` });
    await page.reload(); // the address has it
    await rows("join").filter({ hasText: /day \d+: / }).first().waitFor();
    await joined.getByRole("button", { name: "take out Output" }).click();
    await rows("stdouterr").first().waitFor();
    await page.locator("#main > .execution").filter({ hasText: "message_destroy" }).waitFor();
    await page.locator("#main > .stdouterr .list").focus();
    await page.keyboard.press("J");
    await joined.locator(".viewTitle", { hasText: "Output" }).waitFor();
    await page.keyboard.press("q");
    await joined.waitFor({ state: "detached" });
  });
  await check("a condition chooses executions, values are printed at each, and both are in the URL", async () => {
    await page.goto(server.url);
    await title().filter({ hasText: "digest.c" }).waitFor();
    await search("mailbox_put");
    await page.locator("#searchDropdown > *:nth-child(1)", { hasText: "mailbox_put" }).waitFor();
    await page.keyboard.press("Enter");
    const pane = page.locator("#main > .execution").filter({ hasText: "mailbox_put" });
    const field = (name) => pane.getByRole("textbox", { name });
    await field("print").fill("mailbox->count, message->subject");
    await field("print").press("Enter");
    await field("condition").fill("mailbox->count == 32 && message->subject == \"a lost umbrella\"");
    await field("condition").press("Enter");
    await pane.locator(".print", { hasText: /^mailbox->count=32$/ }).first().waitFor();
    await pane.locator(".print", { hasText: /message->subject=0x\w+ "a lost umbrella"/ }).first().waitFor();
    await until(async () => (await pane.locator(".print", { hasText: /count=(?!32$)/ }).count()) === 0);
    await until(() => page.url().includes("umbrella"));
    await field("condition").fill("mailbox->count == 32");
    await field("condition").press("Enter");
    await pane.getByRole("button", { name: "count those" }).click();
    await pane.getByRole("status").filter({ hasText: /holds 1\s054 times/ }).waitFor();
    if (process.env.SHOTS) await page.screenshot({ path: `${process.env.SHOTS}/condition.png` });
    await field("condition").fill("mailbox->");
    await field("condition").press("Enter");
    await pane.getByRole("status").filter({ hasText: "column 10" }).waitFor();
    await pane.getByRole("button", { name: "close" }).click();
  });
  await check("an expression is evaluated, unfolds step by step, and follows the focus", async () => {
    await search("$rip");
    await page.locator("#searchDropdown > *", { hasText: "expression" }).first().click();
    const pane = page.locator("#main > .evaluate");
    await pane.locator(".row", { hasText: /^\s*\$rip\d+/ }).waitFor();
    await pane.getByRole("textbox", { name: "expression" }).fill("nothing_like_it, this->is wrong");
    await pane.getByRole("textbox", { name: "expression" }).press("Enter");
    await pane.locator(".why", { hasText: "there is no nothing_like_it here" }).waitFor();
    await pane.locator(".why", { hasText: /column/ }).last().waitFor();
    await pane.getByRole("button", { name: "remove nothing_like_it" }).click();
    await until(async () => (await pane.locator(".row").count()) === 2);
    const call = 'member_create("Ada", "Lovelace")->name';
    await pane.getByRole("textbox", { name: "expression" }).fill(call);
    await pane.getByRole("textbox", { name: "expression" }).press("Enter");
    await pane.locator(".row", { hasText: /"Ada Lovelace"/ }).waitFor();
    await pane.getByRole("button", { name: `remove ${call}` }).click();
    await until(async () => (await pane.locator(".row").count()) === 2);
    const before = await pane.locator(".row .value").first().innerText();
    await rows("stack").nth(2).click();
    await until(async () => (await pane.locator(".row .value").first().innerText()) !== before);
    const variables = page.locator("#main > .variables");
    const first = variables.getByRole("button", { name: "parts of member" });
    await first.click();
    await variables.locator(".row .indent").first().waitFor();
    await variables.getByRole("button", { name: /^parts of \*/ }).first().click();
    await until(async () => (await variables.locator(".row .indent").count()) > 2);
    if (process.env.SHOTS) await page.screenshot({ path: `${process.env.SHOTS}/evaluate.png` });
    await first.click();
    await until(async () => (await variables.locator(".row .indent").count()) === 0);
  });
  await check("the calls of a frame are shown, and a click goes into one", async () => {
    await search("Calls");
    await page.locator("#searchDropdown > *", { hasText: "Calls" }).first().click();
    await rows("stack").last().click(); // the outermost frame
    const calls = page.locator("#main > .callees");
    await calls.locator(".row").first().waitFor();
    const caller = await rows("stack").count();
    if (process.env.SHOTS) await page.screenshot({ path: `${process.env.SHOTS}/calls.png` });
    await calls.locator(".row").first().click();
    await until(async () => (await rows("stack").count()) !== caller);
  });
  await testGdb({ page, search, rows, url: server.url });
  await check("the page logs no error", async () => must(at.errors.length === 0, at.errors.join("; ")));
  await page.close();
}
