// All tests of the page. The counts go where the check's summary looks for them.
import { writeFileSync } from "node:fs";
import { testDemo } from "./demo.mjs";
import { launch, stats } from "./harness.mjs";
import { testStates } from "./states.mjs";

const suites = { states: testStates, demo: testDemo };
const wanted = process.argv.slice(2).filter((a) => a in suites);
let browser;
try {
  browser = await launch();
  for (const [name, suite] of Object.entries(suites)) if (wanted.length === 0 || wanted.includes(name)) await suite(browser);
} catch (e) {
  stats.unexpected++;
  console.log(`FAIL set-up: ${e.stack}`);
} finally {
  await browser?.close();
}
if (process.env.PLAYWRIGHT_JSON_OUTPUT_NAME) writeFileSync(process.env.PLAYWRIGHT_JSON_OUTPUT_NAME, JSON.stringify({ stats }));
console.log(`${stats.expected} passed, ${stats.unexpected} failed`);
process.exit(stats.unexpected ? 1 : 0);
