import { writeFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { execa } from 'execa';
import { expect, it, onTestFinished } from 'vitest';
import { openDataFile } from '../../src/processors/data-file.ts';
import { allFiles, namesBelow, versionNow } from '../../src/data-folder.ts';

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
  await execa('sh', ['-ec', `${steps}; echo '[]' > vehicles_events_deep.json`], { cwd: folder });
  await writeFile(join(folder, 'vehicles_events_1.json'), '[]');
  const names = [...namesBelow(folder)];
  const deep = names.find((name) => name.endsWith('deep.json')) ?? '';
  expect(names.sort()).toEqual([deep, 'vehicles_events_1.json'].sort());
  expect(versionNow(folder, 'vehicles_events_1.json')).toMatchObject({ size: 2 });
  expect(versionNow(folder, deep)).toEqual({ name: deep, size: 0, mtimeNs: '0' });
  await expect(openDataFile(folder, deep, 1e9)).rejects.toThrow('its path is too long');
});

it('a process that lists all files of a large folder does other things meanwhile', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'data-folder-'));
  onTestFinished(() => rm(folder, { recursive: true }));
  for (let n = 0; n < 5_000; n += 1) writeFileSync(join(folder, `vehicles_events_${n}.json`), '');
  let [turns, isListed] = [0, false];
  const others = (async () => {
    for (; !isListed; turns += 1) await turn();
  })();
  let files = 0;
  for await (const _file of allFiles(folder)) files += 1;
  isListed = true;
  await others;
  expect(files).toBe(5_000);
  expect(turns).toBeGreaterThanOrEqual(10);
});
