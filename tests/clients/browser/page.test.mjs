// The demo page in Chromium: two users talk, one is cut off and resumes, a phone shows it all.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { startDemo, until } from "../support.mjs";
import { launch, openPage, pane } from "./chromium.mjs";

const ARTIFACTS = process.env.TESTS_ARTIFACTS ?? join(import.meta.dirname, "../../artifacts");
const range = (first, last) => Array.from({ length: last - first + 1 }, (_, index) => first + index);
const seqs = (messages) => messages.map((message) => message.seq);

describe("the demo page", () => {
  let server;
  let browser;
  before(async () => {
    mkdirSync(ARTIFACTS, { recursive: true });
    server = await startDemo({ env: { SHARDS: "2" } });
    browser = await launch();
  });
  after(async () => {
    await browser?.close();
    const exit = await server?.remove();
    assert.deepEqual(exit, { code: 0, signal: null }, server?.log);
  });

  const online = (side) => until(async () => (await side.text("state")) === "online", "the pane to be online");
  const shows = (side, words) => until(async () => (await side.messages()).some((message) => message.words === words), `"${words}"`);
  async function openBoth(options) {
    const page = await openPage(browser, server.url, options);
    const [alice, bob] = [pane(page, "alice"), pane(page, "bob")];
    await Promise.all([online(alice), online(bob)]);
    return { page, alice, bob };
  }

  test("two panes exchange messages, each with its number", async () => {
    const { page, alice, bob } = await openBoth({ viewport: { width: 1180, height: 760 } });
    await until(async () => [...await alice.notices(), ...await bob.notices()].some((notice) => / joined$/.test(notice)), "a join notice");
    await alice.say("Good morning, Bob");
    await shows(bob, "Good morning, Bob");
    await bob.say("Morning! <b>no markup</b> & \"quotes\" 🐎");
    await shows(alice, "Morning! <b>no markup</b> & \"quotes\" 🐎");
    for (const side of [alice, bob]) {
      const messages = await side.messages();
      assert.deepEqual(seqs(messages), [1, 2]);
      assert.deepEqual(messages.map((message) => message.user), ["alice", "bob"]);
      assert.equal(await side.text("error"), "");
    }
    assert.match(await alice.text("status"), /sent → stored #1/);
    assert.match(await bob.text("status"), /sent → stored #2/);
    assert.equal(await page.locator("li.pending").count(), 0, "nothing waits any more");
    assert.deepEqual(page.complaints, [], "no error and no refusal by the content policy");
    await page.context().close();
  });

  test("a cut pane resumes without a gap", async () => {
    const { page, alice, bob } = await openBoth({ viewport: { width: 1180, height: 760 } });
    const seen = (await bob.messages()).length;
    assert.ok(seen >= 2, "history is there on arrival");
    await bob.cut();
    assert.equal(await bob.text("state"), "cut");
    await until(async () => (await alice.notices()).includes("bob left"), "the notice that bob left");
    for (const words of ["one", "two", "three"]) { await alice.say(words); await shows(alice, words); }
    await bob.say("written while cut");
    await page.screenshot({ path: join(ARTIFACTS, "page-cut.png") });
    assert.equal((await bob.messages()).length, seen, "nothing reaches a cut pane");
    await bob.reconnect();
    await shows(alice, "written while cut");
    await until(async () => (await bob.notices()).includes("resumed 3 messages, no gap"), "the notice of the resume");
    const messages = await bob.messages();
    assert.deepEqual(seqs(messages), range(1, seen + 4));
    assert.deepEqual(messages.filter((message) => message.resumed).map((message) => message.words), ["one", "two", "three"]);
    assert.equal(messages.at(-1).words, "written while cut");
    assert.deepEqual(seqs(await alice.messages()), range(1, seen + 4));
    assert.deepEqual(page.complaints, []);
    await page.screenshot({ path: join(ARTIFACTS, "page-resumed.png") });
    await page.context().close();
  });

  test("the page finds the server again after a restart, and history with it", async () => {
    const { page, alice, bob } = await openBoth();
    await alice.say("before the restart");
    await shows(bob, "before the restart");
    await server.restart();
    await Promise.all([online(alice), online(bob)]);
    await bob.say("after the restart");
    await shows(alice, "after the restart");
    for (const side of [alice, bob]) assert.deepEqual(seqs(await side.messages()), range(1, (await side.messages()).length));
    await page.context().close();
  });

  for (const colorScheme of ["light", "dark"]) {
    test(`fits a phone, ${colorScheme}`, async () => {
      const { page, alice, bob } = await openBoth({ viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true, deviceScaleFactor: 2, colorScheme });
      await bob.part("send").scrollIntoViewIfNeeded();
      await bob.part("input").fill(`from a phone, ${colorScheme}, ${"with a word that is very long: " + "o".repeat(80)}`);
      await bob.part("send").tap();
      await until(async () => (await alice.messages()).at(-1).words.includes("o".repeat(80)), "the long message");
      const measures = await page.evaluate(() => ({
        width: document.documentElement.scrollWidth,
        left: [...document.querySelectorAll(".pane")].map((node) => node.getBoundingClientRect().left),
        fonts: [...document.querySelectorAll("input")].map((node) => Number.parseFloat(getComputedStyle(node).fontSize)),
        touch: [...document.querySelectorAll("button, input")].map((node) => node.getBoundingClientRect().height),
      }));
      assert.equal(measures.width, 360, "nothing is wider than the screen");
      assert.equal(new Set(measures.left).size, 1, "the panes are stacked");
      for (const size of measures.fonts) assert.ok(size >= 16, `an input of ${size} px makes phones zoom`);
      for (const height of measures.touch) assert.ok(height >= 40, `${height} px is too small for a finger`);
      await page.screenshot({ path: join(ARTIFACTS, `page-phone-${colorScheme}.png`), fullPage: true });
      await page.context().close();
    });
  }

  test("everything has a name for those who do not see it", async () => {
    const { page } = await openBoth();
    for (const user of ["alice", "bob"]) {
      for (const [role, name] of [["textbox", `Message as ${user}`], ["button", `Cut connection of ${user}`], ["button", `Reconnect of ${user}`], ["log", `What ${user} sees`], ["region", user]]) {
        assert.equal(await page.getByRole(role, { name, exact: true }).count(), 1, `${role} "${name}"`);
      }
    }
    assert.equal(await page.locator('[data-testid="log"][aria-live="polite"]').count(), 2);
    assert.equal(await page.getByRole("heading", { level: 1 }).count(), 1);
    await page.context().close();
  });

  test("the page needs nobody else's code and allows none", async () => {
    const answer = await server.get("/");
    const policy = answer.headers.get("content-security-policy");
    assert.match(policy, /default-src 'none'/);
    assert.match(policy, /script-src 'sha256-/);
    assert.match(policy, /style-src 'sha256-/);
    assert.doesNotMatch(policy, /unsafe/);
    assert.doesNotMatch(answer.text, /(src|href)\s*=/, "nothing is loaded from anywhere");
  });
});
