import { randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import {
  link,
  mkdir,
  mkdtemp,
  readFile,
  readdir,
  readlink,
  rename,
  rm,
  symlink,
  unlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { hostname, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setImmediate as breathe } from 'node:timers/promises';
import { pino } from 'pino';
import { afterAll, beforeEach, expect, it } from 'vitest';
import { allFiles, versionNow } from '../../src/data-folder.ts';
import { moveToFree } from '../../src/move-file.ts';
import { putBackLeaving, takeOut } from '../../src/producers/removal.ts';
import { versionOf } from '../../src/queues/ingest.ts';

const log = pino({ level: 'silent' });
const NAME = 'vehicles_events_1.json';
/** A folder of another process. */
const ELSEWHERE = `elsewhere:1:${randomUUID()}`;
const folders: string[] = [];
let folder: string;

async function newFolder(parent: string): Promise<string> {
  const made = await mkdtemp(join(parent, 'removal-'));
  folders.push(made);
  return made;
}
beforeEach(async () => {
  folder = await newFolder(tmpdir());
});
afterAll(() => Promise.all(folders.map((one) => rm(one, { recursive: true }))));

it('a link that leads elsewhere than it did when it was loaded stays, one that does not goes, and no target does', async () => {
  await Promise.all(['one', 'other one'].map((content, n) => writeFile(join(folder, `blob${n}`), content)));
  await symlink('blob0', join(folder, NAME));
  const loaded = versionNow(folder, NAME);
  if (loaded === undefined) throw new Error('no version');
  await unlink(join(folder, NAME));
  await symlink('blob1', join(folder, NAME));
  expect(await takeOut(folder, loaded, false)).toBe(false);
  expect(await readlink(join(folder, NAME))).toBe('blob1');
  expect(await takeOut(folder, versionNow(folder, NAME) ?? loaded, true)).toBe(true);
  expect((await readdir(folder)).sort()).toEqual(['.leaving', 'blob0', 'blob1']);
});

it('what cannot be put back by a hard link is moved back, and what cannot be put back at all holds up nothing else', async () => {
  // Another file system: a link to it is refused, as Linux refuses one to a file of another user.
  const held = await newFolder('/dev/shm');
  await symlink(held, join(folder, '.leaving'));
  await mkdir(join(held, `${ELSEWHERE}/below`), { recursive: true });
  await writeFile(join(folder, 'below'), 'a file where a folder was');
  for (const name of ['below/vehicles_events_0.json', NAME, 'vehicles_events_2.json'])
    await writeFile(join(held, ELSEWHERE, name), `old ${name}`);
  await writeFile(join(held, 'vehicles_events_3.json'), 'in no folder of its own');
  await writeFile(join(folder, 'vehicles_events_2.json'), 'newer');
  await putBackLeaving(folder, log, true);
  expect(await readFile(join(folder, NAME), 'utf8')).toBe(`old ${NAME}`);
  expect(await readFile(join(folder, 'vehicles_events_2.json'), 'utf8')).toBe('newer');
  expect((await readdir(held, { recursive: true })).sort()).toEqual([
    ELSEWHERE,
    `${ELSEWHERE}/below`,
    `${ELSEWHERE}/below/vehicles_events_0.json`,
    `${ELSEWHERE}/vehicles_events_2.json`,
  ]);
  expect(await readFile(join(folder, 'vehicles_events_3.json'), 'utf8')).toBe('in no folder of its own');
});

it('whatever was held in however many folders is put back, and none of these is left', async () => {
  const names = Array.from({ length: 100 }, (_, n) => `below/${n}/${NAME}`);
  for (const name of names) {
    await mkdir(join(folder, '.leaving', ELSEWHERE, dirname(name)), { recursive: true });
    await writeFile(join(folder, '.leaving', ELSEWHERE, name), '');
  }
  await putBackLeaving(folder, log, true);
  for (const name of names) expect(existsSync(join(folder, name)), name).toBe(true);
  const [first = ''] = names;
  const loaded = versionNow(folder, first);
  expect(loaded && (await takeOut(folder, loaded, false))).toBe(true);
  expect(existsSync(join(folder, first))).toBe(false);
  expect(await readdir(join(folder, '.leaving'))).toEqual([]);
});

it.each([true, false])(
  'a version that was put in the place of a loaded one is put back, unread (archived: %s)',
  async (isArchived) => {
    await writeFile(join(folder, NAME), 'loaded');
    const loaded = versionNow(folder, NAME);
    if (loaded === undefined) throw new Error('no version');
    await writeFile(join(folder, NAME), 'newer, and not loaded');
    expect(await takeOut(folder, loaded, isArchived)).toBe(false);
    expect(await readFile(join(folder, NAME), 'utf8')).toBe('newer, and not loaded');
    expect(await readdir(join(folder, '.leaving'))).toEqual([]);
    expect(existsSync(join(folder, 'archive'))).toBe(false);
  },
);

it('a version that is put there while two processes take the loaded one out is lost to neither', async () => {
  const path = join(folder, NAME);
  for (let round = 0; round < 200; round += 1) {
    await writeFile(path, 'loaded');
    const loaded = versionNow(folder, NAME);
    if (loaded === undefined) throw new Error('no version');
    await writeFile(`${path}.tmp`, 'newer, and not loaded');
    const provide = async () => {
      while (existsSync(path)) await breathe();
      await rename(`${path}.tmp`, path);
      for (let turn = round % 10; turn > 0; turn -= 1) await breathe();
      return takeOut(folder, loaded, false);
    };
    expect(await Promise.all([takeOut(folder, loaded, true), provide()])).toEqual([true, false]);
    expect(await readFile(path, 'utf8'), `round ${round}`).toBe('newer, and not loaded');
  }
});

it('of two that are moved to one place at once, none is lost', async () => {
  const [one, other, place] = ['one', 'other', 'place'].map((name) => join(folder, name)) as [string, string, string];
  for (let round = 0; round < 50; round += 1) {
    for (const path of [one, other]) await writeFile(path, path);
    const moved = await Promise.all([moveToFree(one, place), moveToFree(other, place)]);
    expect(moved.sort()).toEqual([false, true]);
    const left = await Promise.all((await readdir(folder)).map((name) => readFile(join(folder, name), 'utf8')));
    expect(left.sort()).toEqual([one, other]);
    await unlink(place);
  }
});

it('what another process holds is left to it, unless that was long ago or this one starts', async () => {
  const held = (id: string) => join(folder, '.leaving', id);
  const ids = ['elsewhere:1', 'elsewhere:2', `${hostname()}:${process.pid}`].map((id) => `${id}:${randomUUID()}`);
  for (const [n, id] of ids.entries()) {
    await mkdir(held(id), { recursive: true });
    await writeFile(join(held(id), `vehicles_events_${n}.json`), id);
  }
  const hoursAgo = Date.now() / 1_000 - 7_200;
  await utimes(held(ids[1] ?? ''), hoursAgo, hoursAgo);
  await putBackLeaving(folder, log, false);
  expect((await readdir(folder)).sort()).toEqual(['.leaving', 'vehicles_events_1.json', 'vehicles_events_2.json']);
  expect(await readdir(join(folder, '.leaving'))).toEqual(ids.slice(0, 1));
  await putBackLeaving(folder, log, true);
  expect(await readFile(join(folder, 'vehicles_events_0.json'), 'utf8')).toBe(ids[0]);
});

it('of two versions of a name that are held, none is lost: the second one waits until the first one has left', async () => {
  const heldIn = ['backfill:1', 'watch:2'].map((id) => join(folder, '.leaving', `${id}:${randomUUID()}`));
  for (const held of heldIn) {
    await mkdir(held, { recursive: true });
    await writeFile(join(held, NAME), held);
  }
  const seen: string[] = [];
  for (let round = 0; round < 2; round += 1) {
    await putBackLeaving(folder, log, true);
    seen.push(await readFile(join(folder, NAME), 'utf8'));
    await unlink(join(folder, NAME));
  }
  expect(seen.sort()).toEqual(heldIn.sort());
  expect(await readdir(join(folder, '.leaving'))).toEqual([]);
});

it('what an earlier version of this program held below a folder goes back there, and empty folders do not stay', async () => {
  await mkdir(join(folder, '.leaving/2026'), { recursive: true });
  await writeFile(join(folder, '.leaving/2026', NAME), 'unread');
  await writeFile(join(folder, NAME), 'another');
  await mkdir(join(folder, '.leaving', ELSEWHERE, 'a/b'), { recursive: true });
  await putBackLeaving(folder, log, true);
  expect(await readFile(join(folder, '2026', NAME), 'utf8')).toBe('unread');
  expect(await readFile(join(folder, NAME), 'utf8')).toBe('another');
  expect(await readdir(join(folder, '.leaving'))).toEqual([]);
});

it('a file that was put back, or archived, when its process died is in one place then', async () => {
  const held = join(folder, '.leaving', ELSEWHERE, NAME);
  await mkdir(dirname(held), { recursive: true });
  await writeFile(held, 'one');
  await link(held, join(folder, NAME));
  await putBackLeaving(folder, log, true);
  expect(await readdir(join(folder, '.leaving'))).toEqual([]);
  await mkdir(join(folder, 'archive'));
  await link(join(folder, NAME), join(folder, 'archive', NAME));
  const version = versionNow(folder, NAME);
  expect(version && (await takeOut(folder, version, true))).toBe(true);
  expect((await readdir(folder)).sort()).toEqual(['.leaving', 'archive']);
  expect(await readdir(join(folder, 'archive'))).toEqual([NAME]);
});

it('a file with the longest of names is archived, also where another version of it is, and found there', async () => {
  const name = `in/vehicles_events_${'n'.repeat(234)}.json`;
  await mkdir(join(folder, 'in'));
  const versions: (string | undefined)[] = [];
  for (const content of ['one', 'another', 'a third']) {
    await writeFile(join(folder, name), content);
    const version = versionNow(folder, name);
    expect(version && (await takeOut(folder, version, true))).toBe(true);
    versions.push(version && versionOf(version));
  }
  const found: (string | undefined)[] = [];
  for await (const file of allFiles(folder)) {
    expect(file.name).toBe(name);
    found.push(file.version);
  }
  // The first one has its name.
  expect(found.sort()).toEqual([...versions.slice(1), undefined].sort());
});
