// A real browser, for pages.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";

import { chromium } from "playwright-core";

/** Where systems put it; CHROMIUM names another place. */
const BROWSERS = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const FLAGS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
];

/** Each page is a person with a profile of its own. */
export class Browser {
  /** What a page asked of the network, other than its node. */
  strangers = [];
  /** Errors that a page has told, but those of a connection that is gone. */
  errors = [];

  static async launch(stage) {
    const executablePath = BROWSERS.find((path) => path && existsSync(path));
    assert.ok(executablePath, "no browser: apt-get install chromium, or name one in CHROMIUM");
    const browser = new Browser();
    browser.chromium = await chromium.launch({ executablePath, headless: true, args: FLAGS });
    stage.atEnd(() => browser.chromium.close());
    return browser;
  }

  async open(node, { query = "", ...options } = {}) {
    const context = await this.chromium.newContext(options);
    const page = await context.newPage();
    page.setDefaultTimeout(10_000);
    page.on("request", (request) => {
      const url = new URL(request.url());
      if (url.protocol !== "data:" && url.host !== node.address) this.strangers.push(request.url());
    });
    page.on("pageerror", (error) => this.errors.push(String(error)));
    page.on("console", (message) => {
      if (message.type() === "error" && !/WebSocket connection|ERR_CONNECTION_REFUSED/.test(message.text())) this.errors.push(message.text());
    });
    await page.goto(`${node.url}/${query}`);
    return page;
  }
}
