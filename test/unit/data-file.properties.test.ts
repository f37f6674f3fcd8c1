import { once } from 'node:events';
import { mkdir, mkdtemp, realpath, rm, symlink, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join, posix, resolve } from 'node:path';
import { execa } from 'execa';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { closeDataFile, openDataFile, readWhole } from '../../src/processors/data-file.ts';

fc.configureGlobal({ numRuns: 10_000 });

const NOT_REGULAR = 'not a regular file';
const LEADS_OUT = 'a link that leads out of the data folder';
const CIRCLE = 'a link that leads in a circle';
const NO_PATH = 'not a path of the data folder';
const NOT_THERE = 'not in the data folder any more, or a link that leads nowhere';

/** A file holds its own path; a link has a target, in which ROOT stands for the folder of all of this. */
type Entry = 'folder' | 'file' | 'FIFO' | 'socket' | { readonly target: string };
const TREE: Readonly<Record<string, Entry>> = {
  data: 'folder',
  'data/f': 'file',
  'data/d': 'folder',
  'data/d/f': 'file',
  'data/d/d': 'folder',
  'data/d/d/f': 'file',
  'data/fifo': 'FIFO',
  'data/socket': 'socket',
  'data/in': { target: 'd' },
  'data/here': { target: '.' },
  'data/up': { target: '..' },
  'data/out': { target: '../outside' },
  'data/secret': { target: '../outside/f' },
  'data/sibling': { target: '../data-other/f' },
  'data/absolute-in': { target: 'ROOT/data/d' },
  'data/absolute-out': { target: 'ROOT/outside' },
  'data/top': { target: '/' },
  'data/self': { target: 'self' },
  'data/a': { target: 'd/b' },
  'data/d/b': { target: '../a' },
  'data/dangling': { target: 'd/nothing' },
  'data/there-and-back': { target: 'out/back/d/f' },
  'data/to-fifo': { target: 'fifo' },
  'data/d/up': { target: '..' },
  'data/d/f-link': { target: '../in/d/f' },
  outside: 'folder',
  'outside/f': 'file',
  'outside/d': 'folder',
  'outside/d/f': 'file',
  'outside/back': { target: 'ROOT/data' },
  'data-other': 'folder',
  'data-other/f': 'file',
  alias: { target: 'data' },
};
const names = [...new Set(Object.keys(TREE).map((path) => posix.basename(path)))];

let root = '';
let server: Server;

beforeAll(async () => {
  root = await realpath(await mkdtemp(join(tmpdir(), 'tree-')));
  server = createServer();
  for (const [path, entry] of Object.entries(TREE)) {
    const at = join(root, path);
    if (entry === 'folder') await mkdir(at);
    else if (entry === 'file') await writeFile(at, path);
    else if (entry === 'FIFO') await execa('mkfifo', [at]);
    else if (entry === 'socket') await once(server.listen(at), 'listening');
    else await symlink(entry.target.replace('ROOT', root), at);
  }
});
afterAll(async () => {
  server.close();
  await rm(root, { recursive: true });
});

/** The entry that a path leads to, walked on the map above, or what is wrong with the path. */
function follow(path: string): { path: string; entry: Entry } | { problem: string } {
  let rest = path.split('/').filter((part) => part !== '' && part !== '.');
  let at = '/';
  for (let links = 0; ;) {
    const [name, ...others] = rest;
    const entry = at === '/' || root.startsWith(at) ? 'folder' : TREE[at.slice(root.length + 1)];
    if (name === undefined) return entry === undefined ? { problem: NOT_THERE } : { path: at, entry };
    if (entry === undefined) return { problem: NOT_THERE };
    if (entry !== 'folder') return { problem: NO_PATH };
    const next = resolve(at, name);
    const found = TREE[next.slice(root.length + 1)];
    rest = others;
    if (!next.startsWith(`${root}/`) || typeof found !== 'object') at = next;
    else {
      if ((links += 1) > 40) return { problem: CIRCLE };
      const target = found.target.replace('ROOT', root);
      if (target.startsWith('/')) at = '/';
      rest = [...target.split('/').filter((part) => part !== '' && part !== '.'), ...others];
    }
  }
}

/** The content that may be read by a name in the data folder, or why there is none. */
function expected(name: string): string {
  const found = follow(join(root, 'data', name));
  if ('problem' in found) return found.problem;
  if (!`${found.path}/`.startsWith(`${join(root, 'data')}/`)) return LEADS_OUT;
  return found.entry === 'file' ? found.path.slice(root.length + 1) : NOT_REGULAR;
}

it('whatever links a path goes through, only regular files inside of the data folder are read, and a reason is given', async () => {
  const path = fc
    .tuple(
      fc.array(fc.oneof({ weight: 9, arbitrary: fc.constantFrom(...names) }, fc.constantFrom('.', '')), {
        maxLength: 5,
      }),
      fc.constantFrom(...names, 'nothing'),
    )
    .map(([parts, last]) => [...parts, last].join('/'))
    .filter((text) => !text.startsWith('/'));
  await fc.assert(
    fc.asyncProperty(path, fc.constantFrom('data', 'alias', 'data/d/up'), async (name, dataDir) => {
      expect(await read(join(root, dataDir), name)).toBe(expected(name));
    }),
  );
});

async function read(dataDir: string, name: string): Promise<string> {
  try {
    const file = await openDataFile(dataDir, name, 1_000);
    const content = readWhole(file).toString();
    closeDataFile(file);
    expect(file.size).toBe(content.length);
    return content;
  } catch (error) {
    if (error instanceof Error) return error.message;
    throw error;
  }
}
