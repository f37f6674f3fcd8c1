import { mkdirSync, writeFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { execa } from 'execa';
import { expect, it, onTestFinished } from 'vitest';
import { openDataFile } from '../../src/processors/data-file.ts';
import { allFiles, namePages, versionNow } from '../../src/data-folder.ts';
import { ingestJobSchema } from '../../src/queues/ingest.ts';

it('a file whose path is too long for the system hides nothing else, and it is said what is wrong with it', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'data-folder-'));
  onTestFinished(async () => {
    await execa('rm', ['-r', folder]);
  });
  // A folder whose path is just short enough, and a file in it: only step by step can they be made.
  const parts: string[] = [];
  for (let left = 4_085 - folder.length; left > 0; left -= 101)
    parts.push('d'.repeat(Math.min(100, Math.max(1, left - 1))));
  const steps = parts.map((part) => `mkdir ${part}; cd ${part}`).join('; ');
  const name = `vehicles_events_${'n'.repeat(200)}_deep.json`;
  await execa('sh', ['-ec', `${steps}; echo '[]' > ${name}`], { cwd: folder });
  await writeFile(join(folder, 'vehicles_events_1.json'), '[]');
  const names: string[] = [];
  for await (const page of namePages(folder)) names.push(...page);
  const deep = names.find((name) => name.endsWith('deep.json')) ?? '';
  expect(names.sort()).toEqual([deep, 'vehicles_events_1.json'].sort());
  expect(versionNow(folder, 'vehicles_events_1.json')).toMatchObject({ size: 2 });
  expect(versionNow(folder, deep)).toEqual({ name: deep, size: 0, mtimeNs: '0' });
  // Longer than any path that can be opened, and yet a job can name it.
  expect(deep.length).toBeGreaterThan(4_096);
  expect(ingestJobSchema.safeParse(versionNow(folder, deep)).success).toBe(true);
  await expect(openDataFile(folder, deep, 1e9)).rejects.toThrow('its path is too long');
});

it.each([
  ['of a large folder', 5_000, (path: string) => writeFileSync(`${path}.json`, '')],
  ['of many folders that hold none', 0, (path: string) => mkdirSync(`${path}.d`)],
])('a process that lists all files %s does other things meanwhile', async (_what, wanted, make) => {
  const folder = await mkdtemp(join(tmpdir(), 'data-folder-'));
  onTestFinished(() => rm(folder, { recursive: true }));
  for (let n = 0; n < 5_000; n += 1) make(join(folder, `vehicles_events_${n}`));
  let [turns, isListed] = [0, false];
  const others = (async () => {
    for (; !isListed; turns += 1) await turn();
  })();
  let files = 0;
  for await (const _file of allFiles(folder)) files += 1;
  isListed = true;
  await others;
  expect(files).toBe(wanted);
  expect(turns).toBeGreaterThanOrEqual(10);
});

it('a file that is larger than a number can say is named by a job, and too large', async () => {
  const folder = await mkdtemp('/dev/shm/data-folder-');
  onTestFinished(() => rm(folder, { recursive: true }));
  const name = 'vehicles_events_sparse.json';
  await execa('sh', ['-ec', `truncate -s 7E ${name}`], { cwd: folder });
  expect(ingestJobSchema.safeParse(versionNow(folder, name)).success).toBe(true);
  await expect(openDataFile(folder, name, 1e9)).rejects.toThrow('larger than MAX_FILE_BYTES');
});

it('every file of every folder of the archive is listed', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'data-folder-'));
  onTestFinished(() => rm(folder, { recursive: true }));
  const names = Array.from({ length: 100 }, (_, n) => `below/vehicles_events_${n}.json`);
  await mkdir(join(folder, 'archive/below'), { recursive: true });
  for (const name of names) writeFileSync(join(folder, 'archive', name), '');
  const listed: unknown[] = [];
  for await (const file of allFiles(folder)) listed.push(file.name);
  expect(listed.sort()).toEqual(names.sort());
});
