// What the page's tests share: checks that are counted, waiting, the browser.
import { chromium } from "playwright-core";

export const stats = { expected: 0, unexpected: 0, flaky: 0, skipped: 0 };
/** Of the suite at work: the page that a failed check takes a picture of (SHOTS=DIRECTORY), and what went wrong in any page. */
export const at = { page: null, errors: [] };

export async function check(name, body) {
  try {
    await body();
    stats.expected++;
    console.log(`ok   ${name}`);
  } catch (e) {
    stats.unexpected++;
    const where = /(\w+\.mjs:\d+)/.exec(e.stack.split("\n").filter((l) => l.includes("e2e/") && !l.includes("harness")).join("\n"))?.[1];
    console.log(`FAIL ${name}: ${e.message.split("\n").slice(0, 3).join(" ")} (${where})`);
    if (process.env.SHOTS) await at.page?.screenshot({ path: `${process.env.SHOTS}/${stats.unexpected}.png` });
  }
}

export function must(condition, what) {
  if (!condition) throw new Error(what);
}

// Without waitForFunction, which needs eval, which the page's policy forbids.
export async function until(condition) {
  for (let i = 0; i < 400; i++) {
    if (await condition()) return;
    await new Promise((r) => setTimeout(r, 50));
  }
  throw new Error("waited in vain");
}

export function launch() {
  const args = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync"];
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args });
}

/** Errors of a page are errors of the suite; so is a request to another host. A server that is away is no fault of the page. */
export function watch(page, host = "127.0.0.1") {
  at.page = page;
  page.on("pageerror", (e) => at.errors.push(e.message));
  page.on("console", (m) => m.type() === "error" && !/WebSocket|ERR_CONNECTION/.test(m.text()) && at.errors.push(m.text()));
  page.on("request", (r) => {
    const url = new URL(r.url());
    if (url.hostname !== host && url.protocol.startsWith("http")) at.errors.push(`asked ${r.url()}`);
  });
  return page;
}
