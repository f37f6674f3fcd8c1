import { existsSync } from 'node:fs';
import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Worker } from 'bullmq';
import { chromium, type Browser, type Page, type Response } from 'playwright-core';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { createDeadLetterWorker } from '../../src/processors/dead-letter.ts';
import { createIngestWorker } from '../../src/processors/ingest.ts';
import { enqueueFiles, ingestJobId } from '../../src/queues/ingest.ts';
import { createBoardUnderTest, type BoardUnderTest } from './board-under-test.ts';

const CHROMIUM = [process.env['CHROMIUM_PATH'], '/usr/bin/chromium', '/usr/bin/chromium-browser'].find(
  (path) => path !== undefined && path !== '' && existsSync(path),
);
/** Where pictures of the pages go; none are taken where it is not set. */
const SCREENSHOTS = process.env['SCREENSHOTS'];

const file = { name: 'vehicles_events_20240501120000.json', size: 12_345, mtimeNs: '1714564800000000000' };
const reason = 'not JSON: unexpected end of the file at byte 12,345';

describe.skipIf(CHROMIUM === undefined)('in a browser (Chromium)', () => {
  let folder: string;
  let board: BoardUnderTest;
  let worker: Worker;
  let browser: Browser;
  let page: Page;
  let complaints: string[];

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'board-'));
    board = await createBoardUnderTest({ DATA_DIR: folder });
    worker = createDeadLetterWorker(board.workerNeeds);
    browser = await chromium.launch({
      executablePath: CHROMIUM ?? '',
      args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-background-networking'],
    });
    await board.addLetter(file, reason);
    await board.addLetter({ ...file, name: '<b>bold</b> & "more".json' }, 'no kind of file has a name like this');
    await board.ingestQueue.add('vehicles_status_20240501120001.json', { ...file, name: 'x' }, { delay: 3_600_000 });
    await vi.waitFor(async () => expect(await board.deadLetterQueue.getFailedCount()).toBe(2), 60_000);
  });
  afterAll(async () => {
    await browser.close();
    await worker.close();
    await board.close();
    await rm(folder, { recursive: true });
  });

  beforeEach(async () => {
    complaints = [];
    page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
    page.setDefaultTimeout(60_000);
    page.on('console', (message) => {
      if (message.type() === 'error') complaints.push(message.text());
    });
    page.on('pageerror', (error) => complaints.push(error.message));
    page.on('requestfailed', (request) => {
      const { errorText = '' } = request.failure() ?? {};
      // As when the page is left, or loaded anew, while it asks for something.
      if (errorText !== 'net::ERR_ABORTED') complaints.push(`${request.url()} ${errorText}`);
    });
    page.on('response', (response) => {
      if (response.status() >= 400) complaints.push(`${response.status()} ${response.url()}`);
    });
  });

  afterEach(() => page.close());

  async function picture(name: string): Promise<void> {
    if (SCREENSHOTS === undefined) return;
    await page.screenshot({ path: `${SCREENSHOTS}/${name}.png`, fullPage: true });
  }

  it('Bull Board shows every queue, each with what it is for', async () => {
    await page.goto(`${board.url}/board`);
    await page.getByText('2 Jobs').first().waitFor();
    await picture('bull-board');
    const purposes = {
      ingest: 'Files to load, one job a file version',
      'dead-letter': 'Files that could not be loaded. Mend one and press Retry',
      aggregation: 'Runs that bring the summaries up to date',
      'aggregation-slice': 'Shares of a large aggregation run',
      verification: 'Samples that are compared with the files',
    };
    for (const [queue, purpose] of Object.entries(purposes)) {
      await page.getByRole('navigation').getByRole('link', { name: queue, exact: true }).click();
      await page.getByText(purpose).first().waitFor();
    }
    expect(complaints).toEqual([]);
  });

  it('the overview shows counts and dead letters, and follows what happens', async () => {
    await page.goto(board.url);
    const now = page.locator('table', { hasText: 'processors alive' });
    await expect.poll(() => now.locator('th').allInnerTexts()).toContain('dead letters');
    await expect.poll(() => now.locator('td').last().innerText()).toBe('2');
    await expect.poll(() => page.locator('body').innerText()).toContain(reason);
    expect(await page.locator('body b').count()).toBe(0);
    await board.addLetter({ ...file, name: 'vehicles_events_later.json' }, 'too large');
    await page.getByText('vehicles_events_later.json').waitFor();
    await picture('overview');
    await page.emulateMedia({ colorScheme: 'dark' });
    await picture('overview-dark');
    await page.setViewportSize({ width: 390, height: 844 });
    await picture('overview-phone');
    await expect.poll(() => page.evaluate('document.documentElement.scrollWidth')).toBeLessThanOrEqual(390);
    expect(complaints).toEqual([]);
  });

  it('a dead letter is named after its file, says why, and leaves when Retry is pressed', async () => {
    await page.goto(`${board.url}/board`);
    await page.getByRole('link', { name: 'dead-letter', exact: true }).first().click();
    await page
      .getByRole('link', { name: /failed/i })
      .first()
      .click();
    await page.getByText(file.name).first().waitFor();
    await picture('dead-letters');
    await page.getByText(reason).first().waitFor();

    const retry = (response: Response) => response.url().endsWith(`/dead-letter/${ingestJobId(file)}/retry`);
    const card = page.locator('[class*="card-"]', { hasText: file.name });
    const answered = page.waitForResponse(retry);
    await card.locator('button', { has: page.locator('svg.lucide-refresh-cw') }).click();
    await picture('dead-letter-retry');
    await page.getByRole('button', { name: 'Confirm' }).click();
    expect((await answered).status()).toBe(204);
    await expect.poll(() => board.ingestQueue.getJob(ingestJobId(file)).then((job) => job?.name)).toBe(file.name);
    await expect.poll(() => board.deadLetterQueue.getJobCountByTypes('active', 'waiting')).toBe(0);
    await card.waitFor({ state: 'detached' });
    expect(await page.getByText('no kind of file has a name like this').count()).toBe(1);
    await picture('dead-letters-after');
    expect(complaints).toEqual([]);
  });

  it('a loaded file shows its progress, what was done, and the result', async () => {
    const { config, ingestQueue, workerNeeds } = board;
    const name = 'vehicles_events_20240501120002.json';
    const event = {
      vehicle_id: 'V1',
      event_time: '2024-05-01T12:00:00Z',
      event_source: 'e',
      event_type: 't',
      event_value: '1',
    };
    const records = [1, 2, 'bad'].map((extra) => ({ ...event, event_extra_data: extra === 'bad' ? extra : { extra } }));
    await writeFile(join(config.DATA_DIR, name), JSON.stringify(records));
    const { size, mtimeNs } = await stat(join(config.DATA_DIR, name), { bigint: true });
    const loaded = { name, size: Number(size), mtimeNs: String(mtimeNs) };
    const ingest = createIngestWorker(workerNeeds);
    onTestFinished(() => ingest.close());
    await enqueueFiles(ingestQueue, [loaded], { backlog: false });
    await expect.poll(() => ingestQueue.getCompletedCount()).toBe(1);

    await page.goto(`${board.url}/board/queue/ingest/${ingestJobId(loaded)}`);
    await page.getByText(name).first().waitFor();
    await page.getByText('returnValue').waitFor();
    await page.getByText('100%').waitFor();
    await picture('loaded-file');
    await page.getByRole('tab', { name: 'Logs' }).click();
    await page.getByText(/read 3 records of \d+ bytes: 2 loaded, 1 rejected/).waitFor();

    await page.goto(board.url);
    const row = page.locator('tr', { hasText: name });
    const cells = [
      name,
      expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d/),
      'loaded',
      ...['3', '2', '1'],
      expect.stringMatching(/^\d+$/),
    ];
    await expect.poll(() => row.locator('td').allInnerTexts()).toEqual(cells);
    await picture('overview-loaded');
    expect(complaints).toEqual([]);
  });

  it('Bull Board says why it does not do what would do harm', async () => {
    await page.goto(`${board.url}/board/queue/ingest?status=delayed`);
    await page.getByText('vehicles_status_20240501120001.json').first().waitFor();
    await page.locator('button', { has: page.locator('svg.lucide-ellipsis-vertical') }).click();
    await page.getByRole('menuitem', { name: 'Obliterate' }).click();
    await page.getByRole('button', { name: 'Confirm' }).click();
    await page.getByText('A queue cannot be taken away').waitFor();
    await picture('refused');
    expect(await (await board.ingestQueue.getJob('1'))?.getState()).toBe('delayed');
  });
});
