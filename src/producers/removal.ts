import { randomUUID } from 'node:crypto';
import { existsSync, lstatSync } from 'node:fs';
import { lstat, mkdir, readdir, readlink, rename, rmdir, unlink, utimes } from 'node:fs/promises';
import { hostname } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';
import type { Logger } from 'pino';
import { moveToFree, placeAt } from '../move-file.ts';
import { versionOf, type IngestJob } from '../queues/ingest.ts';
import { codeOf } from '../runtime.ts';
import { pathsBelow, placesOf, versionNow } from '../data-folder.ts';
import type { FileVersion } from '../datasets/dataset.ts';

/** A hidden folder of the data folder for files that are on their way out, each in a folder of its own: two may have one name. */
const LEAVING_FOLDER = '.leaving';
/** What such folders of this process begin with, and what those of any process are called. */
const OWN = `${hostname()}:${process.pid}:`;
const OF_PROCESS = /^(.+:\d+:)?[\da-f-]{36}$/;
/** One that is older is held by nobody any more. */
const ABANDONED_MS = 900_000;

/**
 * Takes a version of a file out of the data folder, into its archive folder or for good. Resolves to whether it did: the
 * provider may have put another version in its place up to the last moment, which stays.
 */
export async function takeOut(dataDir: string, file: IngestJob, isArchived: boolean): Promise<boolean> {
  const path = join(dataDir, file.name);
  const own = join(dataDir, LEAVING_FOLDER, `${OWN}${randomUUID()}`);
  const held = join(own, file.name);
  await mkdir(dirname(held), { recursive: true });
  try {
    // Another process may have been faster.
    if (!(await isMoved(path, held))) return false;
    // Nobody can change any more which version it is.
    const isLink = (await lstat(held)).isSymbolicLink();
    const there = versionNow('', isLink ? resolve(dirname(path), await readlink(held)) : held);
    // What a link led to may have left before it.
    const isSame = there === undefined ? isLink : versionOf(there) === versionOf(file);
    // A link is no data; what it leads to is a file of its own.
    const version = { name: file.name, version: versionOf(file) };
    const leave = () => (isArchived && !isLink ? archive(dataDir, held, version) : unlink(held));
    if (!isSame) await putBack(held, path);
    else
      await leave().catch(async (error: unknown) => {
        await putBack(held, path);
        throw error;
      });
    return isSame;
  } finally {
    await removeEmpty(own);
  }
}

async function isMoved(from: string, to: string): Promise<boolean> {
  try {
    await rename(from, to);
    return true;
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error;
    return false;
  }
}

/** Removes a folder and those below it, unless something is held in them. */
async function removeEmpty(folder: string): Promise<void> {
  // A usual one is empty, and to list it would be a round trip more.
  if ((await rmdir(folder).catch(codeOf)) === undefined) return;
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  for (const entry of entries) if (entry.isDirectory()) await removeEmpty(join(folder, entry.name));
  await rmdir(folder).catch(() => undefined);
}

/**
 * Moves a file into the archive, which may be a file system of its own. It carries its version in its name where an earlier
 * one of the name is there, and where it becomes a copy, of which nothing else tells the version.
 */
async function archive(dataDir: string, held: string, version: FileVersion): Promise<void> {
  const [, plain, versioned] = placesOf(version);
  const [wanted, withVersion] = [join(dataDir, plain), join(dataDir, versioned)];
  await mkdir(dirname(wanted), { recursive: true });
  const isPlaced = await placeAt(held, wanted).catch((error: unknown) => {
    if (codeOf(error) !== 'EXDEV') throw error;
    return false;
  });
  if (isPlaced) return;
  await mkdir(dirname(withVersion), { recursive: true });
  // Where that very version is there, an earlier try was cut short.
  if (!(await moveToFree(held, withVersion))) await unlink(held);
}

/**
 * Resolves to whether it did. Where another version lies by now, this one is held until that has left: neither may have been
 * read.
 */
async function putBack(held: string, path: string): Promise<boolean> {
  await mkdir(dirname(path), { recursive: true });
  return moveToFree(held, path);
}

/**
 * Puts back what was on its way out when a process died, or could not be put back. Unless it is the start of this one, what
 * another process may hold right now is left to that; at the start, such a file is taken out once more.
 */
export async function putBackLeaving(dataDir: string, log: Logger, isStart: boolean): Promise<void> {
  const leaving = join(dataDir, LEAVING_FOLDER);
  const isLeft = (id: string) => {
    if (isStart || id.startsWith(OWN)) return true;
    const heldSince = lstatSync(join(leaving, id), { throwIfNoEntry: false })?.mtimeMs ?? Infinity;
    return Date.now() - heldSince > ABANDONED_MS;
  };
  const ids = existsSync(leaving) ? (await readdir(leaving)).filter(isLeft) : [];
  for (const id of ids) {
    const folder = join(LEAVING_FOLDER, id);
    const isFolder = lstatSync(join(leaving, id), { throwIfNoEntry: false })?.isDirectory() === true;
    const held = isFolder ? [...pathsBelow(dataDir, folder)].filter((path) => path !== undefined) : [folder];
    for (const path of held) {
      // Somebody else's, such as an earlier version's of this program, is in no folder of its own.
      const name = relative(OF_PROCESS.test(id) ? folder : LEAVING_FOLDER, path);
      const isBack = await putBack(join(dataDir, path), join(dataDir, name)).catch((error: unknown) => {
        log.warn({ file: name, err: error }, 'a file on its way out could not be put back');
      });
      if (isBack === false)
        log.info({ file: name, held: path }, 'another version lies where it was: it waits for that');
    }
    if (!isFolder) continue;
    await removeEmpty(join(leaving, id));
    // What waits in it for its place is held by nobody.
    await utimes(join(leaving, id), 0, 0).catch(() => undefined);
  }
}
