// Draws the picture of the page for the README: node screenshot.mjs FILE, or tests/run --screenshot.

import { statSync } from "node:fs";
import { startDemo, until } from "../support.mjs";
import { launch, openPage, pane } from "./chromium.mjs";

const BYTES_MAX = 150 * 1024;
const file = process.argv[2];
const server = await startDemo();
const browser = await launch();
try {
  const page = await openPage(browser, server.url, { viewport: { width: 1120, height: 790 }, reducedMotion: "reduce" });
  const [alice, bob] = [pane(page, "alice"), pane(page, "bob")];
  for (const side of [alice, bob]) await until(async () => (await side.text("state")) === "online", "both panes");
  const say = async (side, words) => { await side.say(words); await until(async () => (await alice.messages()).some((message) => message.words === words), words); };
  await say(alice, "Did everything survive the restart?");
  await say(bob, "All of it. Every message keeps its number.");
  await bob.cut();
  await say(alice, "And now you are gone.");
  await say(alice, "I keep writing, you catch up later.");
  await bob.reconnect();
  await until(async () => (await bob.notices()).some((notice) => notice.startsWith("resumed")), "the resume");
  await say(bob, "Back. I have missed nothing.");
  await until(async () => (await bob.messages()).length === 5, "the last message");
  await page.evaluate(() => document.activeElement.blur());
  await page.screenshot({ path: file });
} finally {
  await browser.close();
  await server.remove();
}
const { size } = statSync(file);
if (size > BYTES_MAX) throw new Error(`${file} has ${size} bytes, more than ${BYTES_MAX}`);
console.log(`${file}: ${size} bytes`);
