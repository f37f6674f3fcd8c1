import { appendFileSync } from 'node:fs';
import { mkdir, mkdtemp, rename, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pino } from 'pino';
import { expect, it, onTestFinished, vi } from 'vitest';
import { watchFolder } from '../../src/producers/watcher.ts';
import type { IngestJob } from '../../src/queues/ingest.ts';

const WAIT = { timeout: 60_000 };

async function watched() {
  const folder = await mkdtemp(join(tmpdir(), 'watcher-'));
  const arrived: string[] = [];
  const sizes: number[] = [];
  const onArrival = ({ name, size }: IngestJob) => {
    arrived.push(name);
    sizes.push(size);
  };
  const watcher = await watchFolder(folder, onArrival, pino({ level: 'silent' }));
  onTestFinished(async () => {
    watcher.close();
    await rm(folder, { recursive: true });
  });
  return { folder, arrived, sizes, arrive: (name: string) => writeFile(join(folder, name), '[]') };
}

it('a folder that is removed and made again, of which the file system may use the inode again, is watched', async () => {
  const { folder, arrived, arrive } = await watched();
  for (let round = 1; round <= 5; round += 1) {
    await mkdir(join(folder, 'below'));
    await sleep(50);
    const name = `below/vehicles_events_${round}.json`;
    await arrive(name);
    await vi.waitFor(() => expect(arrived).toContain(name), WAIT);
    await rm(join(folder, 'below'), { recursive: true });
  }
});

it('links to folders are not followed', async () => {
  const { folder, arrived, arrive } = await watched();
  await mkdir(join(folder, 'day'));
  await symlink('.', join(folder, 'loop'));
  await symlink('day', join(folder, 'today'));
  await sleep(200);
  await arrive('vehicles_events_1.json');
  await arrive('day/vehicles_events_2.json');
  // By name: of a file that is written in two steps, each may be an arrival.
  const named = new Set(['day/vehicles_events_2.json', 'vehicles_events_1.json']);
  await vi.waitFor(() => expect(new Set(arrived)).toEqual(named), WAIT);
  await sleep(500);
  expect(new Set(arrived)).toEqual(named);
});

it('an array that is written in place for seconds arrives when it is whole', async () => {
  const { folder, arrived, sizes } = await watched();
  const name = 'vehicles_events_1.json';
  const path = join(folder, name);
  // By this very process: when it stands still, so does the watcher.
  appendFileSync(path, '[\n');
  for (let n = 0; n < 600; n += 1) {
    appendFileSync(path, '[1],\n');
    await sleep(5);
  }
  await sleep(100);
  appendFileSync(path, '[2]]\n');
  const { size } = await stat(path);
  await vi.waitFor(() => expect(sizes.at(-1)).toBe(size), WAIT);
  await sleep(500);
  expect(arrived).toEqual([name]);
});

it('a file that has left is none, even one whose name looks like bytes that are no UTF-8', async () => {
  const { folder, arrived, arrive } = await watched();
  const name = 'vehicles_events_\uFFFD.json';
  await arrive(name);
  await vi.waitFor(() => expect(arrived).toContain(name), WAIT);
  await sleep(500);
  arrived.length = 0;
  await rm(join(folder, name));
  await sleep(1_000);
  expect(arrived).toEqual([]);
});

it('files of an old folder that is moved here are left to reconciliation, as a backlog, and what arrives in it then is not', async () => {
  const { folder, arrived, arrive } = await watched();
  const old = await mkdtemp(join(tmpdir(), 'watcher-'));
  await mkdir(join(old, 'below'));
  for (const name of ['vehicles_events_1.json', 'below/vehicles_events_2.json']) await writeFile(join(old, name), '[]');
  const now = Date.now.bind(Date);
  vi.spyOn(Date, 'now').mockImplementation(() => now() + 120_000);
  onTestFinished(() => void vi.restoreAllMocks());
  await rename(old, join(folder, 'old'));
  // What is written before the folder is watched is left, too.
  const arrives = async () => {
    await arrive('old/below/vehicles_events_3.json');
    await sleep(500);
    expect(arrived).toContain('old/below/vehicles_events_3.json');
  };
  await vi.waitFor(arrives, WAIT);
  vi.restoreAllMocks();
  expect(new Set(arrived).size).toBe(1);
});
