import { existsSync, mkdirSync } from 'node:fs';
import type { Worker } from 'bullmq';
import { chromium, type Browser, type Page } from 'playwright-core';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { createDeadLetterWorker } from '../../src/processors/dead-letter.ts';
import { deadLetterId } from '../../src/queues/dead-letter.ts';
import { createBoardUnderTest, type BoardUnderTest } from './board-under-test.ts';

const CHROMIUM = [process.env['CHROMIUM_PATH'], '/usr/bin/chromium', '/usr/bin/chromium-browser'].find(
  (path) => path !== undefined && path !== '' && existsSync(path),
);
/** Where pictures of the pages go; none are taken where it is not set. */
const SCREENSHOTS = process.env['SCREENSHOTS'];

const file = { name: 'vehicles_events_20240501120000.json', size: 12_345, mtimeNs: '1714564800000000000' };
const reason = 'not JSON: unexpected end of the file at byte 12,345';

describe.skipIf(CHROMIUM === undefined)('in a browser (Chromium)', () => {
  let board: BoardUnderTest;
  let worker: Worker;
  let browser: Browser;
  let page: Page;
  let complaints: string[];

  beforeAll(async () => {
    board = await createBoardUnderTest();
    worker = createDeadLetterWorker(board.workerNeeds);
    browser = await chromium.launch({
      executablePath: CHROMIUM ?? '',
      args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-background-networking'],
    });
    await board.addLetter(file, reason);
    await board.addLetter({ ...file, name: '<b>bold</b> & "more".json' }, 'no kind of file has a name like this');
    await board.ingestQueue.add('vehicles_status_20240501120001.json', { ...file, name: 'x' }, { delay: 3_600_000 });
    await expect.poll(() => board.deadLetterQueue.getFailedCount()).toBe(2);
  });
  afterAll(async () => {
    await browser.close();
    await worker.close();
    await board.close();
  });

  beforeEach(async () => {
    complaints = [];
    page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
    page.on('console', (message) => {
      if (message.type() !== 'info' && message.type() !== 'log') complaints.push(message.text());
    });
    page.on('pageerror', (error) => complaints.push(error.message));
    page.on('requestfailed', (request) => complaints.push(`${request.url()} ${request.failure()?.errorText ?? ''}`));
    page.on('response', (response) => {
      if (response.status() >= 400) complaints.push(`${response.status()} ${response.url()}`);
    });
  });

  async function picture(name: string): Promise<void> {
    if (SCREENSHOTS === undefined) return;
    mkdirSync(SCREENSHOTS, { recursive: true });
    await page.screenshot({ path: `${SCREENSHOTS}/${name}.png`, fullPage: true });
  }

  it('Bull Board shows the four queues, each with what it is for', async () => {
    await page.goto(`${board.url}/board`);
    for (const queue of ['ingest', 'dead-letter', 'aggregation', 'aggregation-slice']) {
      await page.getByRole('link', { name: queue, exact: true }).first().waitFor();
    }
    await page.getByText('Files that could not be loaded').first().waitFor();
    await picture('bull-board');
    expect(complaints).toEqual([]);
  });

  it('the overview shows counts and dead letters, and follows what happens', async () => {
    await page.goto(board.url);
    const letters = page.locator('.card', { hasText: 'dead letters' });
    expect(await letters.innerText()).toContain('2');
    expect(await page.locator('main').innerText()).toContain(reason);
    expect(await page.locator('main b', { hasText: 'bold' }).count()).toBe(0);
    await board.addLetter({ ...file, name: 'vehicles_events_later.json' }, 'too large');
    await page.getByText('vehicles_events_later.json').waitFor({ timeout: 15_000 });
    await picture('overview');
    await page.emulateMedia({ colorScheme: 'dark' });
    await picture('overview-dark');
    await page.setViewportSize({ width: 390, height: 844 });
    await picture('overview-phone');
    expect(await page.evaluate('document.documentElement.scrollWidth')).toBeLessThanOrEqual(390);
    expect(complaints).toEqual([]);
  });

  it('a dead letter is named after its file, says why, and leaves when Retry is pressed', async () => {
    await page.goto(`${board.url}/board`);
    await page.getByRole('link', { name: 'dead-letter', exact: true }).first().click();
    await page.getByRole('link', { name: /failed/i }).first().click();
    await page.getByText(file.name).first().waitFor();
    await picture('dead-letters');
    await page.getByText(file.name).first().click();
    await page.getByText(reason).first().waitFor();
    await picture('dead-letter');

    const answered = page.waitForResponse((response) => response.url().endsWith(`${deadLetterId(file)}/retry`));
    await page.getByRole('button', { name: /retry/i }).first().click();
    const confirm = page.getByRole('button', { name: /confirm/i });
    await confirm.click();
    expect((await answered).status()).toBe(204);
    await expect.poll(() => board.ingestQueue.getJob(deadLetterId(file)).then((job) => job?.name)).toBe(file.name);
    expect(await board.deadLetterQueue.getJob(deadLetterId(file))).toBeUndefined();
    await page.goto(`${board.url}/board/queue/dead-letter?status=failed`);
    await page.getByText('vehicles_events_later.json').first().waitFor();
    expect(await page.getByText(file.name).count()).toBe(0);
    await picture('dead-letters-after');
    expect(complaints).toEqual([]);
  });

  it('Bull Board says why it does not do what would do harm', async () => {
    await page.goto(`${board.url}/board/queue/ingest?status=delayed`);
    await page.getByText('vehicles_status_20240501120001.json').first().waitFor();
    await picture('ingest-delayed');
    const answer = await page.evaluate(
      `fetch('/board/api/queues/ingest/empty', { method: 'PUT' }).then(async (r) => [r.status, await r.json()])`,
    );
    expect(answer).toEqual([403, expect.objectContaining({ message: expect.stringContaining('queued again') })]);
  });
});
