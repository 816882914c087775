// A real gdb in the page. Where there is none, that is what the page says.
import { spawnSync } from "node:child_process";
import { check, until } from "./harness.mjs";

export async function testGdb({ page, search, rows, url }) {
  const pane = page.locator("#main > .gdb");
  const shows = (text) => pane.locator(".xterm-rows", { hasText: text }).waitFor();
  const type = (text) => page.keyboard.type(text);
  const openGdb = async () => {
    await page.goto(url);
    await rows("stack").filter({ hasText: "text_add" }).first().waitFor();
    await search("gdb");
    await page.locator("#searchDropdown > *:nth-child(1)", { hasText: "gdb" }).waitFor();
    await page.keyboard.press("Enter");
  };
  if (spawnSync("gdb", ["--version"]).status !== 0) {
    await check("a missing gdb is told", async () => {
      await openGdb();
      await pane.locator(".closed", { hasText: "there is no gdb" }).waitFor();
    });
    return;
  }
  await check("gdb stands at the focus, with the recording's symbols and sources", async () => {
    await openGdb();
    await shows("(gdb)");
    await type("p text\n");
    await shows(/\$1 = \(struct text \*\) 0x/);
    await type("list\n");
    await shows(/text->bytes\[text->len\+\+\]/);
    if (process.env.SHOTS) await page.screenshot({ path: `${process.env.SHOTS}/gdb.png` });
  });
  await check("where gdb goes, the page goes", async () => {
    await type("up\n");
    await page.locator("#main > .stack > .contents > div.focus", { hasText: "text_add_line" }).waitFor();
    await type("break mailbox_put\nreverse-continue\n");
    await shows("hit Breakpoint 1, mailbox_put");
    await page.locator("#main > .stack > .contents > div.focus", { hasText: "mailbox_put" }).waitFor();
  });
  await check("where the page goes, gdb goes, and half a command stays", async () => {
    await type("info registers ri");
    await page.goBack();
    await page.locator("#main > .stack > .contents > div.focus", { hasText: "text_add_line" }).waitFor();
    await shows(/text_add_line \(text=.*\(gdb\) info registers ri/s);
    await type("p\n");
    await shows(/<text_add_line\+\d+>/);
    await type("monitor when\n");
    const at = /f=(\d+)\.(\d+)\./.exec(page.url());
    await shows(`${at[1]}+${at[2]}, task`);
  });
  await check("gdb ends by its own command, and begins again", async () => {
    await type("quit\n");
    const closed = pane.locator(".closed", { hasText: "gdb has ended" });
    await closed.waitFor();
    await closed.getByRole("button", { name: "Start again" }).click();
    await closed.waitFor({ state: "detached" });
    await until(async () => (await pane.locator(".xterm-rows").innerText()).trimEnd().endsWith("(gdb)"));
    await pane.getByRole("button", { name: "close" }).click();
    await pane.waitFor({ state: "detached" });
  });
}
