// Headless Chromium, quiet: no network of its own, nothing but the page under test.

import { chromium } from "playwright-core";

const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

export const launch = () => chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: FLAGS });

/** A page whose complaints are kept: console errors, exceptions, refused policies. */
export async function openPage(browser, url, options = {}) {
  const context = await browser.newContext({ locale: "en-GB", timezoneId: "UTC", ...options });
  const page = await context.newPage();
  page.complaints = [];
  page.on("console", (message) => { if (message.type() === "error" || message.type() === "warning") page.complaints.push(message.text()); });
  page.on("pageerror", (error) => page.complaints.push(String(error)));
  page.setDefaultTimeout(20_000);
  await page.goto(url);
  return page;
}

/** One of the demo page's panes. */
export function pane(page, user) {
  const part = (id) => page.locator(`[data-testid="pane-${user}"] [data-testid="${id}"]`);
  const rows = () => part("log").locator("li").evaluateAll((items) => items.map((item) => ({
    seq: item.dataset.seq ? Number(item.dataset.seq) : null,
    user: item.dataset.user ?? null,
    resumed: item.dataset.resumed === "true",
    notice: item.dataset.notice ?? null,
    words: (item.querySelector(".words") ?? item.querySelector(".said")).textContent,
  })));
  return {
    part,
    rows,
    messages: async () => (await rows()).filter((row) => row.seq !== null),
    notices: async () => (await rows()).filter((row) => row.notice !== null).map((row) => row.words),
    text: (id) => part(id).textContent(),
    cut: () => part("cut").click(),
    reconnect: () => part("reconnect").click(),
    async say(words) { await part("input").fill(words); await part("input").press("Enter"); },
  };
}
