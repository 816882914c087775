// The page as a user meets it: a real server on the demo recording, headless Chromium. Steps follow the on-premises product's own
// test, whose element ids and classes the page keeps.
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const program = process.env.PERNOSCO ?? join(root, "build/pernosco");
const work = mkdtempSync(join(tmpdir(), "pernosco-e2e-"));
const storage = join(work, "storage");
const trace = join(work, "demo/postbox");
const stats = { expected: 0, unexpected: 0, flaky: 0, skipped: 0 };

async function check(name, body) {
  try {
    await body();
    stats.expected++;
    console.log(`ok   ${name}`);
  } catch (e) {
    stats.unexpected++;
    console.log(`FAIL ${name}: ${e.message}`);
  }
}

function must(condition, what) {
  if (!condition) throw new Error(what);
}

// Without waitForFunction, which needs eval, which the page's policy forbids.
async function until(condition) {
  for (let i = 0; i < 100; i++) {
    if (await condition()) return;
    await new Promise((r) => setTimeout(r, 50));
  }
  throw new Error("waited in vain");
}

function run(...command) {
  const r = spawnSync(command[0], command.slice(1), { encoding: "utf8" });
  must(r.status === 0, `${command.join(" ")}: ${r.stderr}`);
}

async function serve() {
  const child = spawn(program, ["serve", "--storage", storage, "--sources", `/demo=${root}/demo`, "--tunnel", "127.0.0.1:0", trace]);
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

const flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];
let browser;
let server;
try {
  run(join(root, "tests/traces/unpack"), join(work, "demo"), join(root, "demo/recording.tar.zst"));
  run(program, "build", trace);
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: flags });
  server = await serve();
  let page = await browser.newPage({ viewport: { width: 1440, height: 900 } });
  const errors = [];
  page.on("pageerror", (e) => errors.push(e.message));
  page.on("console", (m) => m.type() === "error" && errors.push(m.text()));
  await page.goto(server.url);
  const title = () => page.locator(".view.source > .viewTitle");
  const source = () => page.frameLocator("#main > .view.source iframe").locator("#monaco-container");

  await check("the session begins at the fatal signal, with its source and stack", async () => {
    await title().filter({ hasText: "digest.c" }).waitFor();
    await source().filter({ hasText: "text_add" }).waitFor();
    await page.locator("#main > .stack > .contents > div.focus", { hasText: "text_add" }).waitFor();
    await source().locator(".line.focus", { hasText: "while (*string" }).waitFor();
  });
  await check("search finds a function, and Return opens its executions", async () => {
    await page.keyboard.press("Control+S");
    await page.keyboard.type("message_destroy");
    await page.locator("#searchDropdown > *:nth-child(1)", { hasText: "message_destroy" }).waitFor();
    await page.keyboard.press("Enter");
    await page.locator("#main > .execution > .contents > div", { hasText: "message_destroy" }).first().waitFor();
  });
  const before = page.url();
  await check("a click on an execution moves source, stack and URL", async () => {
    await page.locator("#main > .execution > .contents > div", { hasText: "message_destroy" }).last().click();
    await title().filter({ hasText: "message.c" }).waitFor();
    await page.locator("#main > .stack > .contents > div", { hasText: "message_release" }).waitFor();
    must(page.url() !== before, "the URL did not change");
  });
  await check("back undoes it, forward does it again", async () => {
    await page.goBack();
    await title().filter({ hasText: "digest.c" }).waitFor();
    await page.goForward();
    await title().filter({ hasText: "message.c" }).waitFor();
  });
  await check("a value in memory tells who wrote it", async () => {
    await page.locator("#main > .variables > .contents button.value").first().click();
    await page.locator("#main > .watchpoint > .contents > div.row").first().waitFor();
  });
  await check("a marked line goes to its execution, another opens the line's executions", async () => {
    await source().locator(".line.strong").first().click();
    await source().locator(".line:not(.strong):not(.focus)", { hasText: "refs" }).first().click();
    await page.locator("#main > .breakpoint").waitFor();
  });
  await check("the tentative note becomes a note that is typed into at once", async () => {
    await page.keyboard.press("Control+S");
    await page.keyboard.type("notebook");
    await page.locator("#searchDropdown > *:nth-child(1)", { hasText: "otebook" }).waitFor();
    await page.keyboard.press("Enter");
    await page.locator("#main > .notebook > .contents > div > div.tentative").click();
    await page.locator("#main > .notebook > .contents > div.focus > div:nth-child(2) > textarea").waitFor();
    await page.keyboard.type("HelloKitty");
    await page.waitForTimeout(500);
  });
  await check("a second window shows it, live", async () => {
    const other = await browser.newPage();
    await other.goto(server.url);
    const text = other.locator("#main > .notebook > .contents > div > div:nth-child(2) > textarea");
    await text.waitFor();
    must((await text.inputValue()) === "HelloKitty", "another text");
    await page.locator("#main > .notebook textarea").fill("changed");
    await until(async () => (await text.inputValue()) === "changed");
    await page.locator("#main > .notebook textarea").fill("HelloKitty");
    await page.waitForTimeout(300);
    await other.close();
  });
  await check("a restarted server still has the note, and shows it by itself", async () => {
    await page.close();
    const status = await server.stop();
    must(status === 0, `serve ended with ${status}`);
    server = await serve();
    page = await browser.newPage({ viewport: { width: 1440, height: 900 } });
    await page.goto(server.url);
    const text = page.locator("#main > .notebook > .contents > div > div:nth-child(2) > textarea");
    await text.waitFor();
    must((await text.inputValue()) === "HelloKitty", "the note's text is lost");
  });
  await check("the keyboard steps, walks the stack and shows its keys", async () => {
    await title().filter({ hasText: "digest.c" }).waitFor();
    await page.locator("body").click({ position: { x: 5, y: 5 } });
    const at = page.url();
    await page.keyboard.press("[");
    await until(() => page.url() !== at);
    await page.keyboard.press("u");
    await page.locator("#main > .stack > .contents > div.focus:nth-child(2)").waitFor();
    await page.keyboard.press("?");
    await page.locator(".help").waitFor();
  });
  await check("the page logs no error", async () => must(errors.length === 0, errors.join("; ")));
} catch (e) {
  stats.unexpected++;
  console.log(`FAIL set-up: ${e.message}`);
} finally {
  await browser?.close();
  await server?.stop();
  rmSync(work, { recursive: true, force: true });
}
if (process.env.PLAYWRIGHT_JSON_OUTPUT_NAME) writeFileSync(process.env.PLAYWRIGHT_JSON_OUTPUT_NAME, JSON.stringify({ stats }));
console.log(`${stats.expected} passed, ${stats.unexpected} failed`);
process.exit(stats.unexpected ? 1 : 0);
